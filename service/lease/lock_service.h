// LockService: the locks of clients that call: their requests, which may wait for long, and the
// thread that notices grants, losses and time-outs.
//
// Who owns it: the composition root, shared with whoever may cancel a call later. Threads: any; one
// of its own, which sleeps on the lock space's event word.
// Always true: `done` runs exactly once for each Acquire, with no lock held. A request stands in
//   the queue only while a call waits on it, or the next one is due within a second, or a restart
//   of the daemon is less than kSessionGraceNs ago. A repeated request (same session, same request
//   id) finds the first one's place, its lease, or that the lease is over.
// Failure: what LockSpace refuses; LIMIT_EXCEEDED beyond `waiters_max` waiting calls; DRAINING
//   after Shutdown, which leaves places and leases as they are: the next daemon finds them.
//
// Lock order: mutex_ is held while the lock space works (each of its critical sections is held for
// less than a microsecond; one that is held by a stopped worker is left after kEngineTimeoutNs and
// tried again by the thread). No other lock of the service is taken with it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/state/engine.h"
#include "service/auth/authenticator.h"

namespace statehouse {

// The daemon's thread of this object, for Engine::DaemonLane.
inline constexpr uint32_t kLockThread = 5;

struct LockAsk {
  std::string name;
  uint64_t session = 0;
  uint64_t request_id = 0;
  LockMode mode = LockMode::kExclusive;
  uint32_t limit = 1;
  uint64_t ttl_ns = kLockTtlNsDefault;
  uint64_t hold_ns_max = 0;
  std::string owner;
  bool queue = true;                         // False: only if it can be had at once.
  uint64_t timeout_at_ns = UINT64_MAX;       // On CLOCK_MONOTONIC: then `acquired` is false.
  uint64_t deadline_ns = UINT64_MAX;         // Then TIMEOUT.
  bool outlives_call = false;                // It waits on after the deadline: another call comes.
  std::shared_ptr<const Identity> identity;  // Who waits; for Recheck.
};

struct LockAnswer {
  bool acquired = false;
  uint64_t token = 0;
  uint64_t expires_in_ns = 0;
};

struct LockLoss {
  uint64_t session = 0;
  std::string name;
  uint64_t token = 0;
};

struct LockServiceTotals {
  uint32_t holding = 0;  // Requests of all processes, as of the last scan, at most a second old.
  uint32_t waiting = 0;
  uint32_t parked_calls = 0;
  uint64_t forced_releases = 0;  // Since this daemon started, like the next one.
  uint64_t losses = 0;           // Grants of callers that ended before they were released.
  uint64_t last_token = 0;
  LockStats stats;  // Since the state began.
};

class LockService final : public std::enable_shared_from_this<LockService> {
 public:
  using Done = std::function<void(StatusOr<LockAnswer>)>;
  using OnLoss = std::function<void(const LockLoss&)>;
  // Whether a caller may go on waiting for a lock, or why not.
  using Allowed = std::function<Status(const Identity&, const std::string& name)>;

  struct Options {
    uint32_t waiters_max = kWaitersMax;
    uint32_t locks_per_session_max = kSessionLocksMax;
  };

  // Takes over what an earlier daemon left of `sessions`; other requests of callers end.
  static std::shared_ptr<LockService> Start(Options options, Engine* engine,
                                            const std::vector<uint64_t>& sessions);
  ~LockService();
  // Told of every loss, with no lock held, on any thread. Call once, before any session exists.
  void SetOnLoss(OnLoss on_loss);

  // A session may ask from now on; and no more: its requests and leases end. Returns how many locks
  // it held.
  void BeginSession(uint64_t session);
  uint32_t EndSession(uint64_t session);
  uint32_t HeldBy(uint64_t session) const;

  // A number for Cancel, or 0 when `done` has run already.
  uint64_t Acquire(LockAsk ask, Done done);
  // The caller is gone: the call ends with CANCELLED, unless it has ended.
  void Cancel(uint64_t call);
  // What is left of the lease, in ns. `ttl_ns` 0: as it was asked for.
  StatusOr<uint64_t> Renew(uint64_t session, const std::string& name, uint64_t token,
                           uint64_t ttl_ns);
  // Whether it was held until now.
  StatusOr<bool> Release(uint64_t session, const std::string& name, uint64_t token);
  // From how many holders it was taken. `token` 0: from all.
  StatusOr<uint32_t> ForceRelease(const std::string& name, uint64_t token);

  // Grants have changed: as WaitTable::Recheck.
  void Recheck(Allowed allowed);
  // Ends every waiting call with DRAINING and joins the thread. Idempotent.
  void Shutdown();
  LockServiceTotals Totals() const;

 private:
  // A request of a session.
  struct Entry {
    uint64_t id = 0;  // In the order of arrival.
    LockAsk ask;
    LockPlace place = 0;  // 0: the lock space was busy; asked again soon.
    LockPhase phase = LockPhase::kWaiting;
    uint64_t token = 0;
    uint64_t expires_ns = 0;
    uint64_t asked_ns = 0;
    uint64_t orphan_until_ns = 0;  // Nobody has asked for it again yet: until.
    std::set<uint64_t> calls;      // That wait for it.
  };
  struct Call {
    uint64_t entry = 0;
    uint64_t timeout_at_ns = UINT64_MAX;
    uint64_t deadline_ns = UINT64_MAX;
    bool outlives_call = false;
    std::shared_ptr<const Identity> identity;
    Done done;
  };
  // A lease that is over before it was released.
  struct Lost {
    uint64_t request_id = 0;
    std::string name;
    uint64_t token = 0;
  };
  struct SessionLocks {
    std::map<uint64_t, uint64_t> entries;  // Request id -> entry.
    std::deque<Lost> lost;                 // The latest kLostMax.
    uint32_t held = 0;
  };
  // What is to be told when mutex_ is free.
  struct Outcome {
    std::vector<std::pair<Done, StatusOr<LockAnswer>>> answers;
    std::vector<LockLoss> losses;
  };

  LockService(Options options, Engine* engine)
      : options_(options),
        engine_(engine),
        space_(engine->locks()),
        lane_{engine->DaemonLane(kLockThread).id, kEngineTimeoutNs},
        stalled_ns_max_(engine->DaemonLane(kLockThread).operation_timeout_ns) {}

  static constexpr uint64_t kEngineTimeoutNs = 100'000;
  static constexpr size_t kLostMax = 64;

  void TakeOver(const std::vector<uint64_t>& sessions);
  void Run();
  void Finish(Outcome outcome);

  // mutex_, and the lane that it guards.
  class Guard;

  // All below REQUIRE mutex_ held; those that work on the lock space, a Guard.
  StatusOr<LockAnswer> Begin(LockAsk ask, Done* done, uint64_t* call, Outcome* outcome);
  Entry* FindRequest(const SessionLocks& session, uint64_t request_id);
  Entry* FindHolder(uint64_t session, const std::string& name, uint64_t token);
  LockAnswer AnswerOf(const Entry& entry) const;
  Status AskSpace(Entry& entry, Outcome* outcome);
  uint64_t Park(Entry& entry, LockAsk ask, Done done);
  // Keeps its place until then, for the next call.
  void Orphan(Entry& entry, uint64_t until_ns);
  // Somebody has asked for it again.
  void Claim(Entry& entry);
  // The entry holds its lock now.
  void Promote(Entry& entry, const LockLook& look, Outcome* outcome);
  void SetExpiry(Entry& entry, uint64_t expires_ns);
  // Its lease is over; forgets it.
  void Lose(Entry& entry, Outcome* outcome);
  void EndCalls(Entry& entry, const StatusOr<LockAnswer>& result, Outcome* outcome);
  bool ExtractCall(uint64_t id, Call* extracted);
  // A waiting call ends without a lock; the request goes with its last one, unless that ends at its
  // deadline and another one is to come.
  void EndCall(uint64_t id, StatusOr<LockAnswer> result, Outcome* outcome);
  void Forget(Entry& entry);
  // Forgets it and gives its place back. Returns whether it held the lock until now.
  bool Drop(Entry& entry, Outcome* outcome);
  bool Leave(LockPlace place, Outcome* outcome);
  void NoticeGrants(const std::vector<LockPlace>& granted, Outcome* outcome);
  void LookAt(Entry& entry, Outcome* outcome);
  void WakeIfEarlier(uint64_t due_ns);

  // Of the thread: lock_service_thread.cc.
  void Turn(uint64_t now, bool event, Outcome* outcome);
  void RetryLeaves(Outcome* outcome);
  void RetryStalled(uint64_t now, Outcome* outcome);
  void Scan(uint64_t now);
  void LookAtQueues(Outcome* outcome);
  void LookAtSome(uint64_t now, Outcome* outcome);
  void EndDueLeases(uint64_t now, Outcome* outcome);
  void EndDueCalls(uint64_t now, Outcome* outcome);
  uint64_t NextTurn(uint64_t now) const;

  const Options options_;
  Engine* const engine_;
  LockSpace& space_;
  const Lane lane_;
  const uint64_t stalled_ns_max_;  // Then an ask that meets a held bucket is refused.

  mutable std::mutex mutex_;
  // Everything below is guarded by mutex_.
  std::map<uint64_t, Entry> entries_;
  std::unordered_map<LockPlace, uint64_t> by_place_;
  std::unordered_map<uint64_t, uint64_t> by_token_;  // Holding entries.
  std::unordered_map<uint64_t, SessionLocks> sessions_;
  std::unordered_map<std::string, std::set<uint64_t>> queues_;  // Name -> waiting entries.
  std::unordered_map<std::string, std::set<uint64_t>> holders_;
  std::set<uint64_t> stalled_;                        // Entries without a place.
  std::deque<LockPlace> leaving_;                     // Places to give back.
  std::set<std::pair<uint64_t, uint64_t>> expiries_;  // Time, holding entry.
  std::unordered_map<uint64_t, Call> calls_;
  std::set<std::pair<uint64_t, uint64_t>> timers_;   // Time, call.
  std::set<std::pair<uint64_t, uint64_t>> orphans_;  // Time, entry.
  std::shared_ptr<const Allowed> allowed_;           // Null before the first Recheck.
  OnLoss on_loss_;
  std::vector<LockLoss> early_losses_;  // Before SetOnLoss.
  uint64_t next_entry_ = 1;
  uint64_t next_call_ = 1;
  uint64_t sleeping_until_ns_ = 0;
  uint64_t next_scan_ns_ = 0;
  uint64_t next_look_ns_ = 0;
  uint64_t look_at_all_ns_ = 0;
  uint64_t looked_at_ = 0;  // Entries up to here, in the look at all that is under way.
  uint64_t last_scan_ns_ = 0;
  uint64_t scan_pause_ns_ = 0;
  uint32_t waiting_ = 0;  // Of the last scan.
  uint32_t holding_ = 0;
  uint64_t forced_releases_ = 0;
  uint64_t losses_ = 0;
  bool event_pending_ = false;
  bool leave_stalled_ = false;  // The last tries to give places back met a held bucket.
  bool stopping_ = false;
  std::thread thread_;
};

class LockService::Guard final {
 public:
  explicit Guard(LockService* service)
      : lock_(service->mutex_), use_(service->engine_->UseDaemonLane(service->lane_)) {}

 private:
  const std::lock_guard<std::mutex> lock_;
  const DaemonLanes::Use use_;
};

}  // namespace statehouse
