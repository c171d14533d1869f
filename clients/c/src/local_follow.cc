#include "clients/c/src/local_follow.h"

#include <chrono>
#include <map>
#include <mutex>
#include <utility>

#include "clients/c/src/fork_registry.h"
#include "clients/c/src/local_session.h"

namespace statehouse {
namespace {

constexpr std::chrono::milliseconds kOpenTimeout{1'000};

// The logs that this process has mapped. A forked child has its parent's mappings as well.
class MappedLogs final : private ForkObserver {
 public:
  // Never destroyed, as the threads that use it.
  static MappedLogs& OfThisProcess() {
    static MappedLogs* const logs = new MappedLogs();
    return *logs;
  }

  std::shared_ptr<const FollowLog> Find(uint64_t log_id) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = by_id_.find(log_id);
    return found == by_id_.end() ? nullptr : found->second.lock();
  }
  // The one that was there first.
  std::shared_ptr<const FollowLog> Keep(std::shared_ptr<const FollowLog> log) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::weak_ptr<const FollowLog>& kept = by_id_[log->facts().log_id];
    if (std::shared_ptr<const FollowLog> known = kept.lock()) return known;
    kept = log;
    std::erase_if(by_id_, [](const auto& each) { return each.second.expired(); });
    return log;
  }

 private:
  MappedLogs() { AddForkObserver(this); }
  void LockForFork() override { mutex_.lock(); }
  void UnlockAfterFork() override { mutex_.unlock(); }
  void OnForkedChild() override {}

  std::mutex mutex_;  // Guards what follows.
  std::map<uint64_t, std::weak_ptr<const FollowLog>> by_id_;
};

}  // namespace

bool MayFollowRings(const LocalDict& dict) {
  return dict.writable() && RingFollower::IsSupported();
}

StatusOr<std::unique_ptr<RingFollower>> FollowRings(LocalDict& dict,
                                                    std::shared_ptr<const FollowLog> log) {
  SH_ASSIGN_OR_RETURN(std::shared_ptr<Dict> newest, dict.Newest());
  if (!newest->writable()) {
    return Status(Reason::kReadOnly, "following the rings of dict \"" + dict.name() +
                                         "\" takes the right to write it");
  }
  return std::make_unique<RingFollower>(std::move(newest), std::move(log));
}

void FillValue(const LocalDict& dict, DictChange* change) {
  DictEntry entry;
  bool found = false;
  if (!dict.Peek(change->key, &entry, &found).ok() || !found || entry.version != change->version) {
    return;
  }
  change->value_gone = false;
  change->bytes = std::move(entry.bytes);
}

StatusOr<std::shared_ptr<const FollowLog>> MapFollowLog(const LocalDict& dict, uint64_t log_id) {
  const FollowLogFacts facts{dict.facts().id, log_id};
  MappedLogs& mapped = MappedLogs::OfThisProcess();
  std::shared_ptr<const FollowLog> log = mapped.Find(log_id);
  if (log == nullptr) {
    const Deadline deadline = std::chrono::steady_clock::now() + kOpenTimeout;
    SH_ASSIGN_OR_RETURN(const UniqueFd fd,
                        dict.session()->OpenFollowLog(dict.facts().index, log_id, deadline));
    SH_ASSIGN_OR_RETURN(log, FollowLog::Map(facts, fd.get()));
    log = mapped.Keep(std::move(log));
  }
  if (log->facts().dict_id != facts.dict_id) {
    return Status(Reason::kDataLoss, "the follow log is of another dict");
  }
  return log;
}

}  // namespace statehouse
