#include "clients/c/src/in_use.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "clients/c/src/fork_registry.h"

namespace statehouse {
namespace in_use_internal {

thread_local constinit Record* thread_record = nullptr;
std::atomic<bool> fences_needed{false};

}  // namespace in_use_internal

namespace {

using in_use_internal::Record;

long Membarrier(int command) { return ::syscall(SYS_membarrier, command, 0, 0); }

bool FenceEveryThread() {
  if (Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0) return true;
  // A forked child may have to register again.
  return Membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0 &&
         Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0;
}

// Every record of the process. Records are used again and never freed, except in a forked child.
class Registry final : public ForkObserver {
 public:
  static Registry& The() {
    // Never destroyed: threads may end while the process does.
    static Registry* const registry = [] {
      auto* const made = new Registry;
      AddForkObserver(made);
      return made;
    }();
    return *registry;
  }

  Record* Take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) {
      records_.push_back(std::make_unique<Record>());
      return records_.back().get();
    }
    Record* const record = free_.back();
    free_.pop_back();
    return record;
  }
  void Return(Record* record) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(record);
  }
  bool IsInUse(const void* object) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::any_of(records_.begin(), records_.end(), [object](const auto& record) {
      // SYNC: in_use.done — pairs with ~Use.
      return record->object.load(std::memory_order_acquire) == object;
    });
  }

  void LockForFork() override { mutex_.lock(); }
  void UnlockAfterFork() override { mutex_.unlock(); }
  // The other threads are gone, and their operations with them.
  void OnForkedChild() override {
    std::erase_if(records_, [](const auto& record) {
      return record.get() != in_use_internal::thread_record;
    });
    free_.clear();
  }

 private:
  Registry() {
    // Without the command, or where a sandbox forbids it, each Use pays instead.
    const bool registered = Membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
    in_use_internal::fences_needed.store(!registered, std::memory_order_seq_cst);
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Record>> records_;
  std::vector<Record*> free_;
};

thread_local constinit bool thread_is_ending = false;

// Gives a thread's record back when the thread ends.
struct Holder {
  Holder() = default;
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;
  ~Holder() {
    thread_is_ending = true;
    Record* const record = in_use_internal::thread_record;
    in_use_internal::thread_record = nullptr;
    if (record != nullptr) Registry::The().Return(record);
  }
  void Touch() {}
};
thread_local Holder holder;

}  // namespace

namespace in_use_internal {

Record* TakeRecord(bool* temporary) {
  Record* const record = Registry::The().Take();
  *temporary = thread_is_ending;
  if (!thread_is_ending) {
    holder.Touch();  // Makes it, so that it is destroyed when the thread ends.
    thread_record = record;
  }
  return record;
}

void ReturnRecord(Record* record) { Registry::The().Return(record); }

}  // namespace in_use_internal

bool IsInUse(const void* object) {
  Registry& registry = Registry::The();
  // SYNC: in_use.said — pairs with Use.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!in_use_internal::fences_needed.load(std::memory_order_relaxed) && !FenceEveryThread()) {
    return true;  // It worked before; while it does not, nothing is known to be unused.
  }
  return registry.IsInUse(object);
}

}  // namespace statehouse
