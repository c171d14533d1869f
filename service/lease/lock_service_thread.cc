// The thread of LockService: what happens without a call.
#include <algorithm>

#include "engine/os/futex.h"
#include "service/lease/lock_service.h"

namespace statehouse {
namespace {

constexpr uint64_t kMillisecondNs = 1'000'000;
// Between two scans for leases that end, while somebody waits: not less, so that a scan takes at
// most one percent of the time, and not more, because no lease that was granted since is shorter.
constexpr uint64_t kScanPauseNsMin = 5 * kMillisecondNs;
constexpr uint64_t kScanPauseFactor = 100;
constexpr uint64_t kScanNsMax = kLockTtlNsMin / 2;
// While nobody waits: only counts.
constexpr uint64_t kIdleScanNs = 1'000 * kMillisecondNs;
// Looks at the heads of the queues take at most a tenth of the time.
constexpr uint64_t kLookPauseFactor = 10;
// Every request of a caller is looked at so often, for what nobody tells.
constexpr uint64_t kLookAtAllNs = 1'000 * kMillisecondNs;
constexpr size_t kLookAtAllSlice = 1'000;
// What met a held bucket is tried again so often. A try takes up to kEngineTimeoutNs.
constexpr uint64_t kRetryNs = 5 * kMillisecondNs;
constexpr size_t kStalledTriesMax = 2;  // In one turn.
constexpr size_t kLeavesMax = 64;       // In one turn.
static_assert(kScanNsMax >= kScanPauseNsMin);

}  // namespace

void LockService::Run() {
  uint32_t seen = 0;
  bool event = true;
  for (;;) {
    Outcome outcome;
    uint64_t until = 0;
    {
      const Guard guard(this);
      if (stopping_) return;
      sleeping_until_ns_ = 0;
      Turn(MonotonicNs(), event, &outcome);
      until = NextTurn(MonotonicNs());
      sleeping_until_ns_ = until;
    }
    Finish(std::move(outcome));
    const uint64_t now = MonotonicNs();
    const uint32_t before = seen;
    seen = space_.WaitForEvent(seen, until > now ? until - now : 0);
    event = seen != before;
  }
}

void LockService::Turn(uint64_t now, bool event, Outcome* outcome) {
  if (event) {
    event_pending_ = true;
    next_scan_ns_ = std::min(next_scan_ns_, last_scan_ns_ + scan_pause_ns_);
  }
  RetryLeaves(outcome);
  RetryStalled(now, outcome);
  if (now >= next_scan_ns_) Scan(now);
  if (event_pending_ && now >= next_look_ns_) LookAtQueues(outcome);
  if (now >= look_at_all_ns_) LookAtSome(now, outcome);
  EndDueLeases(now, outcome);
  EndDueCalls(now, outcome);
  while (!orphans_.empty() && orphans_.begin()->first <= now) {
    // Also where it holds the lock by now: nobody knows that it does.
    (void)Drop(entries_.at(orphans_.begin()->second), outcome);
  }
}

void LockService::RetryLeaves(Outcome* outcome) {
  leave_stalled_ = false;
  for (size_t i = std::min(leaving_.size(), kLeavesMax); i > 0 && !leave_stalled_; --i) {
    const LockPlace place = leaving_.front();
    leaving_.pop_front();
    (void)Leave(place, outcome);  // To the end again, where its bucket is still held.
  }
}

void LockService::RetryStalled(uint64_t now, Outcome* outcome) {
  const std::vector<uint64_t> ids(stalled_.begin(), stalled_.end());
  size_t tries = 0;
  for (const uint64_t id : ids) {
    const auto found = entries_.find(id);
    if (found == entries_.end() || tries >= kStalledTriesMax) continue;
    Entry& entry = found->second;
    Status asked = AskSpace(entry, outcome);
    if (asked.reason() == Reason::kStalled) {
      ++tries;
      if (now < entry.asked_ns + stalled_ns_max_) continue;
    }
    if (entry.place != 0) continue;
    const StatusOr<LockAnswer> result =
        asked.ok() ? StatusOr<LockAnswer>(LockAnswer()) : StatusOr<LockAnswer>(asked);
    EndCalls(entry, result, outcome);
    Forget(entry);
  }
}

void LockService::Scan(uint64_t now) {
  const LockScan scan = space_.ScanRequests(lane_);
  const uint64_t end = MonotonicNs();
  holding_ = scan.holding;
  waiting_ = scan.waiting;
  last_scan_ns_ = end;
  scan_pause_ns_ = std::max(kScanPauseNsMin, kScanPauseFactor * (end - now));
  if (scan.waiting == 0) {
    next_scan_ns_ = end + std::max(kIdleScanNs, scan_pause_ns_);
    return;
  }
  next_scan_ns_ = std::max(end + scan_pause_ns_, std::min(scan.next_ns, end + kScanNsMax));
  if (scan.served > 0) event_pending_ = true;
}

void LockService::LookAtQueues(Outcome* outcome) {
  const uint64_t begin = MonotonicNs();
  event_pending_ = false;
  std::vector<uint64_t> heads;
  heads.reserve(queues_.size());
  for (const auto& [name, queue] : queues_) heads.push_back(*queue.begin());
  for (uint64_t id : heads) {
    // From the head on, as far as it was served.
    for (;;) {
      const auto found = entries_.find(id);
      if (found == entries_.end()) break;
      const std::string name = found->second.ask.name;
      LookAt(found->second, outcome);
      const auto queue = queues_.find(name);
      if (queue == queues_.end() || *queue->second.begin() == id) break;
      id = *queue->second.begin();
    }
  }
  const uint64_t end = MonotonicNs();
  next_look_ns_ = end + kLookPauseFactor * (end - begin);
}

// A slice of all entries. What it finds is rare: a queue that was mended, a lease that somebody
// else's hand ended.
void LockService::LookAtSome(uint64_t now, Outcome* outcome) {
  std::vector<uint64_t> ids;
  for (auto at = entries_.upper_bound(looked_at_);
       at != entries_.end() && ids.size() < kLookAtAllSlice; ++at) {
    ids.push_back(at->first);
  }
  for (const uint64_t id : ids) {
    const auto found = entries_.find(id);
    if (found != entries_.end()) LookAt(found->second, outcome);
  }
  const bool is_last = ids.size() < kLookAtAllSlice;
  looked_at_ = is_last ? 0 : ids.back();
  look_at_all_ns_ = now + (is_last ? kLookAtAllNs : kMillisecondNs);
}

void LockService::EndDueLeases(uint64_t now, Outcome* outcome) {
  while (!expiries_.empty() && expiries_.begin()->first <= now) {
    Entry& entry = entries_.at(expiries_.begin()->second);
    LookAt(entry, outcome);
  }
}

void LockService::EndDueCalls(uint64_t now, Outcome* outcome) {
  while (!timers_.empty() && timers_.begin()->first <= now) {
    const uint64_t id = timers_.begin()->second;
    // A grant that comes together with the end counts.
    LookAt(entries_.at(calls_.at(id).entry), outcome);
    const auto call = calls_.find(id);
    if (call == calls_.end()) continue;
    const Entry& entry = entries_.at(call->second.entry);
    if (call->second.deadline_ns <= call->second.timeout_at_ns) {
      EndCall(id,
              Status(Reason::kTimeout, "waiting for lock \"" + entry.ask.name +
                                           "\": the deadline passed before it could be had"),
              outcome);
    } else {
      EndCall(id, LockAnswer(), outcome);
    }
  }
}

uint64_t LockService::NextTurn(uint64_t now) const {
  uint64_t next = next_scan_ns_;
  const auto earlier = [&next](const std::set<std::pair<uint64_t, uint64_t>>& times) {
    if (!times.empty()) next = std::min(next, times.begin()->first);
  };
  earlier(timers_);
  earlier(expiries_);
  earlier(orphans_);
  if (!stalled_.empty()) next = std::min(next, now + kRetryNs);
  if (!leaving_.empty()) next = std::min(next, leave_stalled_ ? now + kRetryNs : now);
  if (event_pending_) next = std::min(next, next_look_ns_);
  if (!entries_.empty()) next = std::min(next, look_at_all_ns_);
  return next;
}

void LockService::WakeIfEarlier(uint64_t due_ns) {
  if (due_ns >= sleeping_until_ns_) return;
  sleeping_until_ns_ = due_ns;
  space_.WakeDaemon();
}

}  // namespace statehouse
