// AreaWatch: one watcher of a range of an area: what it was told, and what it is told next.
//
//   starting --> snapshot --> catching up --> live        and back to snapshot after a resync
//
// It is told what the range holds now, not each step that led there: a watcher that is slow gets
// the newest bytes of all that changed since, in one event. So nothing is queued for it, and there
// is no history that it could fall out of.
//
// Who owns it: the door's stream, and the hub while it is open. Threads: Poll and Close one at a
// time; the hub calls `notify` from its thread, never after Close has returned.
// Always true: whoever puts what it was told over the snapshot has the range as of `updates` or
// later; the last state of a range that rests is always told.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "service/auth/authenticator.h"
#include "service/watch/watch.h"
#include "service/watch/watch_pace.h"
#include "service/watch/watched_dict.h"
#include "service/watch/watched_range.h"

namespace statehouse {

// Bytes of one message, if messages may be that long.
inline constexpr uint64_t kAreaPieceBytes = 1 << 20;
inline constexpr size_t kAreaPartsPerMessage = 32'768;

struct AreaWatchAsk {
  std::shared_ptr<ServedArea> served;
  AreaPart part;  // Not empty, inside the area.
  std::optional<uint64_t> from_updates;
  uint64_t from_incarnation = 0;  // 0: whichever it is.
  bool snapshot = true;
  bool ranges_only = false;
  uint64_t window_ns = 0;
  uint64_t progress_ms = 0;  // 0: none.
  uint64_t piece_bytes = kAreaPieceBytes;
  std::shared_ptr<const Identity> identity;  // Who watches; for Recheck.
};

// What a watcher is told at once.
struct AreaWatchEvent {
  enum class Kind : uint8_t { kSnapshot, kChanges, kSynced, kResync, kProgress };
  struct Told {
    AreaPart part;
    std::string bytes;  // Empty with `ranges_only`.
  };
  Kind kind = Kind::kChanges;
  std::optional<uint64_t> updates;  // To resume from; nothing: not from here.
  std::vector<Told> parts;          // Rising; of a snapshot, one.
  bool more = false;                // The next event belongs to this one.
  ResyncReason reason = ResyncReason::kReplaced;
};

// What the watches of one hub count.
struct AreaWatchCounters {
  std::atomic<uint64_t> changes{0};    // Told to watchers: complete events.
  std::atomic<uint64_t> coalesced{0};  // Updates that had no event of their own.
  std::atomic<uint64_t> resyncs[kResyncReasons] = {};
};

// The same for as long as an area lives, and another for one that is made anew.
uint64_t IncarnationOf(const ServedArea& served);

class AreaWatch final : public std::enable_shared_from_this<AreaWatch> {
 public:
  using Found = Watch::Found;
  using ClockNs = WatchPace::ClockNs;

  AreaWatch(AreaWatchAsk ask, std::shared_ptr<WatchedRange> range, std::shared_ptr<HubBell> bell,
            std::shared_ptr<AreaWatchCounters> counters, ClockNs clock_ns,
            std::function<void()> notify)
      : ask_(std::move(ask)),
        range_(std::move(range)),
        bell_(std::move(bell)),
        counters_(std::move(counters)),
        clock_ns_(clock_ns),
        pace_(ask_.window_ns, ask_.progress_ms),
        notify_(std::move(notify)) {}
  ~AreaWatch() { Close(); }

  // As Watch::Poll.
  Found Poll(AreaWatchEvent* event);
  const Status& status() const { return status_; }
  // Nothing is told any more. Idempotent.
  void Close();

  // For the hub.
  void End(const Status& why);
  void Notify();
  const AreaWatchAsk& ask() const { return ask_; }
  // For the hub; REQUIRES of all: the range's mutex is held.
  // When it wants the range to be looked at; UINT64_MAX: it does not wait.
  uint64_t look_at_ns() const { return waits_ ? look_at_ns_ : UINT64_MAX; }
  // When it wants something to be told, whatever the range does; UINT64_MAX never.
  uint64_t due_ns() const { return waits_ ? due_ns_ : UINT64_MAX; }
  // Whether it waited and is to be notified now; then it does not wait any more.
  bool TakeDue(uint64_t now_ns);
  bool has_begun() const { return phase_ != Phase::kStarting; }
  uint64_t told_tick() const { return told_tick_; }  // REQUIRES: has_begun().
  uint64_t LagUpdates() const {
    return phase_ == Phase::kLive ? range_->updates() - told_updates_ : 0;
  }

 private:
  enum class Phase : uint8_t { kStarting, kSnapshot, kCatchingUp, kLive };

  void Begin();
  void BeginSnapshot();
  void BeginLive();
  bool HasNews() const { return is_telling_ || range_->tick() > told_tick_; }
  Found Resync(AreaWatchEvent* event);
  Found TakeSnapshot(std::unique_lock<std::mutex>& lock, AreaWatchEvent* event);
  Found TakeChanges(std::unique_lock<std::mutex>& lock, AreaWatchEvent* event);
  bool Collect(AreaWatchEvent* event);
  Found TakeLive(std::unique_lock<std::mutex>& lock, AreaWatchEvent* event);
  bool FillBytes(std::unique_lock<std::mutex>& lock, AreaWatchEvent* event) const;
  Found Wait(uint64_t look_at_ns, uint64_t due_ns);

  const AreaWatchAsk ask_;
  const std::shared_ptr<WatchedRange> range_;
  const std::shared_ptr<HubBell> bell_;
  const std::shared_ptr<AreaWatchCounters> counters_;
  const ClockNs clock_ns_;

  // Guarded by the range's mutex.
  Phase phase_ = Phase::kStarting;
  uint64_t look_ = 0;  // The one that it waits for before it begins; 0: not asked for.
  uint64_t told_tick_ = 0;
  uint64_t told_updates_ = 0;
  WatchPace pace_;
  bool caught_up_ = false;
  // An event that takes several messages; next_pos_ is a snapshot's, too.
  bool is_telling_ = false;
  uint64_t telling_tick_ = 0;
  uint64_t telling_updates_ = 0;
  uint64_t next_pos_ = 0;
  bool waits_ = false;
  uint64_t look_at_ns_ = 0;
  uint64_t due_ns_ = UINT64_MAX;
  std::optional<ResyncReason> resync_;
  Status ended_;

  Status status_;  // Of the one who polls.

  std::mutex notify_mutex_;  // Taken without the range's mutex.
  std::function<void()> notify_;
};

}  // namespace statehouse
