// Watch: one watcher's place in a dict's changes: what it is told next.
//
//   starting --> snapshot --> catching up --> live        and back to snapshot after a resync
//                                               live --> handed over, if that was asked for
//
// One that is handed over is told nothing but its end: its watcher reads the dict's follow log.
//
// Snapshot and changes fit together without a gap or a repeat: the place is taken before the scan
// begins, and the scan tells of every bucket the version up to which its changes were seen, so that
// those are left out later. `synced` comes at the revision that the feed had when it was drained
// after the scan's end. With `previous` a watch that is sent no snapshot scans as well, for the
// table that it shares, unless that has everything already.
//
// Who owns it: the door's stream, and the hub while it is open. Threads: Poll and Close one at a
// time; the hub calls `notify` from any thread, never after Close has returned.
// Always true: what Poll gave is never given again, and nothing before it is missing but behind a
// resync. It keeps no changes: a slow watcher costs its place in the history.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "engine/base/status.h"
#include "service/auth/authenticator.h"
#include "service/watch/watch_pace.h"
#include "service/watch/watched_dict.h"

namespace statehouse {

inline constexpr uint64_t kProgressMsMin = 100;
inline constexpr uint64_t kProgressMsMax = 3'600'000;
// The hint of a refusal because too many watches are open.
inline constexpr uint32_t kWatchesFullRetryMs = 100;

enum class SlowPolicy : uint8_t { kResync, kLatest, kCancel };

enum class ResyncReason : uint8_t {
  kHistoryGone = 1,
  kRevisionUnknown = 2,
  kSlowWatcher = 3,
  kOverrun = 4,
  kReplaced = 5,
  kDamaged = 6,
};
inline constexpr size_t kResyncReasons = 7;  // The first is none.
// "history_gone" and so on.
std::string_view ResyncReasonName(ResyncReason reason);

struct WatchAsk {
  std::shared_ptr<ServedDict> served;
  std::optional<std::string> key;  // Else every key with `prefix`.
  std::string prefix;
  std::optional<uint64_t> from_revision;
  bool snapshot = true;
  bool keys_only = false;
  uint32_t kinds = ~0u;  // Bit n: FeedOperation n.
  SlowPolicy slow_policy = SlowPolicy::kResync;
  uint64_t window_ns = 0;    // After changes the next ones wait for so long.
  bool previous = false;     // What each key had before. REQUIRES: not keys_only.
  uint64_t progress_ms = 0;  // 0: none.
  // The watcher can follow the dict's follow log once it is live. Not with previous, window_ns or
  // kLatest, which stay with the hub.
  bool hand_over = false;
  // … and takes a change from its ring before the hub has drained that.
  bool follows_rings = false;
  // It followed up to from_revision: a history that is gone there is as for a slow watcher.
  bool has_followed = false;
  bool declines = false;  // It was handed over and cannot follow. REQUIRES: not hand_over.
  bool is_wait = false;   // Of EntryWaits, which has its own limit: it counts as no watch.
  std::shared_ptr<const Identity> identity;  // Who watches; for Recheck.
};

// What a watcher is told at once.
struct WatchEvent {
  enum class Kind : uint8_t { kSnapshot, kChanges, kSynced, kResync, kProgress, kHandedOver };
  struct Told {
    SharedChange change;
    bool coalesced = false;
    PreviousValue previous = {};  // If asked for: before the oldest change that it stands for.
  };
  Kind kind = Kind::kChanges;
  uint64_t revision = 0;  // To resume from; 0: not from here.
  std::vector<DictEntry> entries;
  std::vector<Told> changes;
  ResyncReason reason = ResyncReason::kHistoryGone;
  bool waits = false;     // There is nothing behind it yet: as after kNothing. If asked for.
  uint64_t log_id = 0;    // Of kHandedOver: which follow log …
  uint64_t position = 0;  // … and where the change after `revision` stands in it.
};

// Upper bounds of the buckets of wake-up times, in nanoseconds; a last one has what took longer.
inline constexpr std::array<uint64_t, 10> kWakeBucketsNs = {
    5'000,   10'000,    25'000,     50'000,      100'000,
    250'000, 1'000'000, 10'000'000, 100'000'000, 1'000'000'000};

// What the watches of one hub count.
struct WatchCounters {
  // From when the oldest change of a message was noticed until a live watch is told it.
  void CountWake(uint64_t ns) {
    const auto bucket = std::lower_bound(kWakeBucketsNs.begin(), kWakeBucketsNs.end(), ns);
    wakes[static_cast<size_t>(bucket - kWakeBucketsNs.begin())].fetch_add(
        1, std::memory_order_relaxed);
    wakes_ns.fetch_add(ns, std::memory_order_relaxed);
  }

  std::array<std::atomic<uint64_t>, kWakeBucketsNs.size() + 1> wakes{};
  std::atomic<uint64_t> wakes_ns{0};
  std::atomic<uint64_t> changes{0};    // Told to watchers.
  std::atomic<uint64_t> coalesced{0};  // Left out for a newer one.
  std::atomic<uint64_t> handed_over{0};
  std::atomic<uint64_t> early_changes{0};
  std::atomic<uint64_t> follow_fallbacks{0};  // See WatchTotals.
  std::atomic<uint64_t> resyncs[kResyncReasons] = {};
};

class Watch final : public std::enable_shared_from_this<Watch> {
 public:
  enum class Found : uint8_t { kEvent, kNothing, kEnd };

  Watch(WatchAsk ask, std::shared_ptr<WatchedDict> dict, std::shared_ptr<WatchCounters> counters,
        WatchPace::ClockNs clock_ns, std::function<void()> notify)
      : ask_(std::move(ask)),
        dict_(std::move(dict)),
        counters_(std::move(counters)),
        clock_ns_(clock_ns),
        pace_(ask_.window_ns, ask_.progress_ms),
        notify_(std::move(notify)) {}
  ~Watch() { Close(); }

  // The next event; or nothing yet, and `notify` is called once when it is worth to look again; or
  // the end, and status() says why. `may_wait`: who has the last event of a live watch for now may
  // be spared the question for the next one (WatchEvent::waits).
  Found Poll(WatchEvent* event, bool may_wait = false);
  const Status& status() const { return status_; }
  // Nothing is told any more. Idempotent.
  void Close();

  // For the hub.
  void End(const Status& why);
  const WatchAsk& ask() const { return ask_; }
  // Whether to call Notify: it waits, and there is something or `now_ns` is what it waited for.
  // Once until it has looked. REQUIRES: the dict's mutex is held.
  bool TakeDue(uint64_t now_ns);
  // When it wants to be looked at by time; UINT64_MAX never. REQUIRES: the dict's mutex is held.
  uint64_t due_ns() const;
  // Whether there is something that waits for its window, which the hub does not know yet: it has
  // to look at due_ns() again. REQUIRES: the dict's mutex is held.
  bool TakeDeferred(uint64_t now_ns);
  void Notify();
  // What is new, from the change after `head_before` on, is none of its business: passes it by.
  // `keys`: of all that is new; a gap among it concerns everybody. REQUIRES: the dict's mutex is
  // held.
  void PassBy(uint64_t head_before, bool has_gap, const std::unordered_set<std::string_view>& keys);
  // After PassBy: whether it was passed by so often that it may sleep until its key changes.
  // REQUIRES: the dict's mutex is held; as below.
  bool MayFallAsleep();
  void FallAsleep();
  // Nothing up to `head` is any of its business. Nothing where it is awake.
  void WakeUp(uint64_t head);
  // Changes that it has not looked at; 0 before it is live. REQUIRES: the dict's mutex is held.
  uint64_t LagRevisions() const {
    return phase_ == Phase::kLive && !is_asleep_ ? dict_->head - cursor_ : 0;
  }
  // Its watcher follows by itself. REQUIRES: the dict's mutex is held.
  bool is_handed_over() const { return phase_ == Phase::kHandedOver; }
  // For how long the oldest of them has been there. REQUIRES: as LagRevisions.
  uint64_t LagNs(uint64_t now_ns) const;

 private:
  enum class Phase : uint8_t { kStarting, kSnapshot, kCatchingUp, kLive, kHandedOver };

  void Begin();
  void BeginAnew();
  void BeginSnapshot();
  void BeginScan();
  void CatchUp();
  void EndScan(bool is_whole);
  void JoinPrevious();
  void TakeScanned(const std::vector<DictEntry>& entries, bool is_sure);
  bool IsInWindow(uint64_t now_ns) const {
    return phase_ == Phase::kLive && dict_->ended.ok() && !pace_.IsOpen(now_ns);
  }
  // Before the end that its dict has come to, or the service.
  bool TakeLastWords(std::unique_lock<std::mutex>& lock, WatchEvent* event);
  Found Resync(ResyncReason reason, WatchEvent* event);
  bool HandOver(WatchEvent* event);
  bool IsFallingBehind() const;
  Found ScanPage(std::unique_lock<std::mutex>& lock, WatchEvent* event);
  Found TakeChanges(std::unique_lock<std::mutex>& lock, WatchEvent* event);
  void CountTold(const WatchEvent& event, uint64_t now_ns);
  bool HasToldAll() const;
  static bool HasGoneValues(const WatchEvent& event);
  void TakeEach(uint64_t end, WatchEvent* event);
  void TakeLatest(uint64_t end, WatchEvent* event);
  PreviousValue Before(const DictChange& change) const;
  bool Wants(const DictChange& change) const;
  Found Wait(uint64_t due_ns);
  void FillValues(WatchEvent* event) const;

  const WatchAsk ask_;
  const std::shared_ptr<WatchedDict> dict_;
  const std::shared_ptr<WatchCounters> counters_;
  const WatchPace::ClockNs clock_ns_;

  // Guarded by the dict's mutex.
  Phase phase_ = Phase::kStarting;
  uint64_t cursor_ = 0;   // The last revision that was looked at.
  uint64_t told_ = 0;     // Where it was when something was told last.
  uint64_t ticket_ = 0;   // Of the drain after which it is up to date; 0: none is waited for.
  uint64_t sync_at_ = 0;  // With the drain over: where `synced` comes.
  bool waits_ = false;
  bool is_notified_ = false;  // Since it waits: it will look.
  uint64_t due_ns_ = UINT64_MAX;
  WatchPace pace_;
  bool is_deferred_ = false;  // The hub knows that something waits for the window.
  bool is_settled_ = false;   // It is not among the dict's `unsettled`.
  uint32_t passes_ = 0;       // Batches that it was passed by, one after the other.
  bool is_asleep_ = false;
  std::multimap<std::string_view, Watch*>::iterator asleep_at_;  // Where it is asleep.
  std::shared_ptr<PreviousTable> previous_;
  std::optional<ResyncReason> resync_;
  bool begins_anew_ = false;  // After a resync.
  bool can_resume_ = false;   // A later watch can go on after cursor_.
  bool has_log_ = false;      // It is one of those for which the dict has a follow log.
  Status ended_;

  // Of the one who polls.
  std::shared_ptr<ServedDict> scanned_;  // The segment of the snapshot.
  uint32_t first_bucket_ = 0;
  uint32_t bucket_ = 0;
  uint32_t end_bucket_ = 0;
  uint32_t stalls_ = 0;                    // Tries of bucket_ in vain.
  std::vector<uint64_t> sequences_;        // From first_bucket_ on; empty: nothing is left out.
  bool is_silent_ = false;                 // The scan is for previous_ alone.
  bool has_scanned_ = false;               // All, for previous_.
  bool may_wait_ = false;                  // Behind the event that it is asked for.
  std::shared_ptr<PreviousTable> parted_;  // To be let go without the mutex.
  Status status_;

  std::mutex notify_mutex_;  // Taken without the dict's mutex.
  std::function<void()> notify_;
};

}  // namespace statehouse
