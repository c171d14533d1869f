// InUse: which object a thread works on right now, so that another thread that replaces the object
// knows when it may destroy it. Saying so costs two plain stores and no atomic read-modify-write;
// the one who replaces pays with a system call.
//
// Threads: any. Always true: an object that a Use holds is not what IsInUse calls unused. In a
// forked child only the forking thread's use is left.
// Failure: where the kernel refuses membarrier(2), each Use pays for a fence.
#pragma once

#include <atomic>

namespace statehouse {

namespace in_use_internal {

struct Record {
  std::atomic<const void*> object{nullptr};
};

// The calling thread's record; null before its first use, and while it ends.
extern thread_local constinit Record* thread_record __attribute__((tls_model("initial-exec")));
extern std::atomic<bool> fences_needed;

// A record for the calling thread. *temporary: it goes back with Return.
Record* TakeRecord(bool* temporary);
void ReturnRecord(Record* record);

}  // namespace in_use_internal

// Holds what `current` points to as long as it lives. One at a time in a thread.
template <typename Object>
class Use final {
 public:
  explicit Use(const std::atomic<Object*>& current) : record_(in_use_internal::thread_record) {
    if (record_ == nullptr) [[unlikely]]
      record_ = in_use_internal::TakeRecord(&temporary_);
    for (;;) {
      object_ = current.load(std::memory_order_acquire);
      record_->object.store(object_, std::memory_order_relaxed);
      // SYNC: in_use.said — IsInUse's membarrier (or fence) stands between the replacing of
      // `current` and the look at the record: one of the two sides sees the other's store.
      if (in_use_internal::fences_needed.load(std::memory_order_relaxed)) [[unlikely]] {
        std::atomic_thread_fence(std::memory_order_seq_cst);
      } else {
        std::atomic_signal_fence(std::memory_order_seq_cst);
      }
      if (current.load(std::memory_order_acquire) == object_) [[likely]]
        return;
    }
  }
  ~Use() {
    // SYNC: in_use.done — everything that was done with the object comes before.
    record_->object.store(nullptr, std::memory_order_release);
    if (temporary_) [[unlikely]]
      in_use_internal::ReturnRecord(record_);
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  Object& operator*() const { return *object_; }
  Object* operator->() const { return object_; }

 private:
  in_use_internal::Record* record_;
  Object* object_ = nullptr;
  bool temporary_ = false;
};

// Whether a thread may still use the object. REQUIRES: it is no longer where a Use looks for it.
bool IsInUse(const void* object);

}  // namespace statehouse
