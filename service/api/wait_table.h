// WaitTable: the parked waits of a service, any number of them over any number of areas.
//
// Who owns it: the dispatcher, shared with the PendingCalls that it handed out, which may live
// longer. Threads: Park and Cancel from any. One timer thread ends waits by time and by Cancel. Up
// to kWatcherThreadsMax watcher
//   threads each sleep on one area with parked waits; the timer thread looks at further areas every
//   1 to 5 ms.
// Always true: `done` runs exactly once for each Park, with no lock held; an ended wait leaves
// nothing behind. Failure: LIMIT_EXCEEDED at `waits_max`, DRAINING after Shutdown, what the area
// says when it was deleted or quarantined.
//
// Nothing is missed: a wait enters the table before its first look, and a watcher reads the area's
// counter before it looks at the table, so a mutation is seen by the look, or ends the watcher's
// sleep at once.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/state/engine.h"
#include "service/api/dispatcher.h"

namespace statehouse {

inline constexpr uint32_t kWatcherThreadsMax = 8;

class WaitTable final : public std::enable_shared_from_this<WaitTable> {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Done = std::function<void(StatusOr<WaitResult>)>;

  struct Request {
    std::shared_ptr<ServedArea> area;
    uint64_t since = 0;
    uint64_t pos = 0;
    uint64_t len = 0;                          // 0 with pos 0: the whole area.
    TimePoint timeout_at = TimePoint::max();   // Then changed = false.
    TimePoint deadline = TimePoint::max();     // Then TIMEOUT.
    std::shared_ptr<const Identity> identity;  // Who waits; for Recheck.
  };
  // Whether a caller may go on waiting for an area, or why not.
  using Allowed = std::function<Status(const Identity&, const ServedArea&)>;

  static std::shared_ptr<WaitTable> Start(uint32_t waits_max);
  ~WaitTable();

  // Null when `done` has run already.
  std::shared_ptr<PendingCall> Park(Request request, Done done);
  // Grants have changed: ends every wait that `allowed` refuses, with that status, and asks it for
  // every later wait too, because a call may have been authenticated before the change and parked
  // after it. `allowed` is called from any thread that parks; it outlives the table's waits.
  void Recheck(Allowed allowed);
  // Ends every wait with DRAINING and joins the threads. Idempotent. Never called from `done`.
  void Shutdown();
  size_t size() const;

 private:
  class Pending;
  using Range = std::pair<uint64_t, uint64_t>;  // pos, len
  struct Wait {
    Request request;
    Done done;
  };
  // An area with parked waits.
  struct Watched {
    std::shared_ptr<ServedArea> area;
    std::map<Range, std::unordered_set<uint64_t>> ranges;  // Ids of waits.
    bool has_watcher = false;
    uint64_t updates_scanned = 0;
    bool scanned = false;
  };
  struct Ended {
    Done done;
    StatusOr<WaitResult> result;
  };

  explicit WaitTable(uint32_t waits_max) : waits_max_(waits_max) {}
  void Cancel(uint64_t id);
  void RunTimer();
  void RunWatcher();
  void Serve(ServedArea& served);
  // Looks at every parked range of the area and ends the waits that changed. Returns how many
  // ended.
  size_t Look(ServedArea& served);
  size_t LookAtUnwatched();
  // Ends a wait with `result`, unless it has ended.
  void End(uint64_t id, StatusOr<WaitResult> result);
  static Status CheckAllowed(const Allowed& allowed, const Request& request);
  // REQUIRES: mutex_ held.
  void EnsureWatcher();
  bool Extract(uint64_t id, Wait* wait);
  void ExtractDue(TimePoint now, std::vector<Wait>* timed_out, std::vector<Ended>* ended);
  bool HasUnwatched() const;

  static void Finish(std::vector<Ended> ended);

  const uint32_t waits_max_;
  mutable std::mutex mutex_;
  // Everything below is guarded by mutex_.
  std::condition_variable timer_changed_;
  std::condition_variable watchers_changed_;  // Idle watchers wait here,
  std::condition_variable stopping_changed_;  // and pausing ones here.
  std::unordered_map<uint64_t, Wait> waits_;
  std::set<std::pair<TimePoint, uint64_t>> timers_;
  std::unordered_map<const ServedArea*, Watched> areas_;
  std::vector<uint64_t> cancelled_;
  std::shared_ptr<const Allowed> allowed_;  // Null before the first Recheck.
  uint64_t next_id_ = 1;
  bool stopping_ = false;
  uint32_t idle_watchers_ = 0;
  std::vector<std::thread> watchers_;
  std::thread timer_;
};

}  // namespace statehouse
