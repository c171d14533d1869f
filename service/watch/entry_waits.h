// EntryWaits: the parked waits for entries, any number of them over any number of dicts.
//
// Each has a watch of its key, which wakes it when that key changes and never for others' changes;
// what it waits for it sees by looking at the entry.
//
// Who owns it: the dispatcher, shared with the PendingCalls that it handed out, which may live
//   longer. Threads: Park and Cancel from any; one thread of its own looks.
// Always true: `done` runs exactly once for each Park, with no lock held; an ended wait leaves
//   nothing behind.
// Failure: LIMIT_EXCEEDED at `waits_max`, DRAINING after Shutdown, DICT_NOT_FOUND when the dict was
//   deleted, what the grants say when they changed.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include "engine/base/status.h"
#include "engine/state/entry_wait.h"
#include "service/watch/watch_hub.h"

namespace statehouse {

class EntryWaits final : public std::enable_shared_from_this<EntryWaits> {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  struct Request {
    std::shared_ptr<ServedDict> served;
    std::string key;
    EntryWait wait;
    std::shared_ptr<const void> keeps;         // What the wait's path borrows from.
    TimePoint timeout_at = TimePoint::max();   // Then `met` is false.
    TimePoint deadline = TimePoint::max();     // Then TIMEOUT.
    std::shared_ptr<const Identity> identity;  // Who waits; asked again when grants change.
  };
  struct Answer {
    EntryLook look;
    std::shared_ptr<ServedDict> served;   // Where it was looked at.
    std::shared_ptr<const void> request;  // Request::keeps.
  };
  using Done = std::function<void(StatusOr<Answer>)>;

  // `hub` and `dicts` outlive it.
  static std::shared_ptr<EntryWaits> Start(WatchHub* hub, DictStore* dicts, uint32_t waits_max);
  // REQUIRES: Shutdown is over, or nobody waits: the last reference may go on any thread.
  ~EntryWaits();

  // A number for Cancel. REQUIRES: CheckEntryWait accepts the wait.
  uint64_t Park(Request request, Done done);
  // Ends it soon with CANCELLED, unless it has ended.
  void Cancel(uint64_t id);
  // Ends every wait with DRAINING. Idempotent. Never called from `done`.
  void Shutdown();
  size_t size() const;

 private:
  struct Wait {
    uint64_t id = 0;
    Request request;
    Done done;
    std::shared_ptr<Watch> watch;  // Of the thread.
    bool has_answer = false;       // Of the thread: `answer` was looked at once.
    Answer answer;
    // Guarded by mutex_.
    bool queued = false;
    bool cancelled = false;
    TimePoint due = TimePoint::max();
  };

  EntryWaits(WatchHub* hub, DictStore* dicts, uint32_t waits_max)
      : hub_(hub), dicts_(dicts), waits_max_(waits_max) {}
  void Run();
  void Queue(uint64_t id);
  // REQUIRES: mutex_ held.
  void QueueHeld(Wait& wait);
  void SetDueHeld(Wait& wait, TimePoint due);
  // Looks at one wait, and ends it or arms it again.
  void Turn(const std::shared_ptr<Wait>& wait, bool cancelled);
  // When to look again whatever happens.
  StatusOr<TimePoint> Look(Wait& wait);
  void End(const std::shared_ptr<Wait>& wait, StatusOr<Answer> answer);

  WatchHub* const hub_;
  DictStore* const dicts_;
  const uint32_t waits_max_;

  mutable std::mutex mutex_;  // Never held while a watch or `done` is called.
  std::condition_variable changed_;
  std::unordered_map<uint64_t, std::shared_ptr<Wait>> waits_;
  std::deque<uint64_t> queue_;
  std::set<std::pair<TimePoint, uint64_t>> timers_;
  uint64_t next_id_ = 1;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace statehouse
