// RingFollower: the next change of a dict, taken from its lane's ring before the daemon has drained
// that. For clients that may write the dict and have read its follow log to the end.
//
// Drawing:
//   writer --> ring --Next, by a claim of its revision--> who follows
//                 '--Drain--> feed, which honours the claim --> follow log
//
// Why it may: of all rings only one has something, looked at twice, so nothing that happened before
// the change is missing; and the claim (change_claim.h) binds whoever drains the rings. Where that
// is not so, it tells the daemon, and waits for the log.
// Who owns it: one watch. Threads: one at a time. Always true: what Next gave has the revision that
// it gave it, for everybody. Failure: it believes nothing of what it maps; a writer that forges its
// records or the claim can make the log say something else, which whoever reads both sees.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/state/dict.h"
#include "engine/state/dict_change.h"
#include "engine/state/follow_log.h"

namespace statehouse {

// After a change that it could not take it leaves the rings alone for so long, so that a storm of
// changes does not pay for it.
inline constexpr uint64_t kRingPauseNs = 500'000;
// The same where the log has just got changes, and does not say yet how far it is.
inline constexpr uint64_t kCursorsPauseNs = 20'000;

class RingFollower final {
 public:
  enum class Found : uint8_t { kChange, kNothing };

  // REQUIRES: the dict is writable; the log is its.
  RingFollower(std::shared_ptr<Dict> dict, std::shared_ptr<const FollowLog> log)
      : dict_(std::move(dict)), log_(std::move(log)) {}
  // Whether this kernel has what it needs to sleep.
  static bool IsSupported();

  // The change after `revision`, up to which the log was read just now. kNothing: sleep until
  // event() or the log's grows, at most until due_ns(); read event() before.
  Found Next(uint64_t revision, DictChange* change);
  const std::atomic<uint32_t>& event() const { return dict_->follow_event(); }
  uint64_t due_ns() const { return pause_until_ns_ == 0 ? UINT64_MAX : pause_until_ns_; }
  const std::shared_ptr<Dict>& dict() const { return dict_; }

 private:
  enum class Sight : uint8_t {
    kNothing,
    kChange,   // One, which is claimed.
    kOthers,   // The daemon has to come.
    kMovedOn,  // The log has more …
    kUnknown,  // … or does not say how far it is.
  };
  struct Place {
    uint32_t lane = 0;  // 0: none.
    uint64_t begin = 0;
    uint64_t end = 0;
  };

  Sight Look(uint64_t revision, DictChange* change);
  // Whether the cursors are those of `revision`: kNothing if they are.
  Sight LookAtCursors(uint64_t revision) const;
  void Pause(uint64_t ns);
  // False: others than one lane have something. *place: where, once it is found.
  bool LookAtLanes(bool has_given, Place* place) const;
  // The same of one lane, whose ring was read up to `cursor`.
  bool LookAtLane(uint32_t lane, uint64_t cursor, Place* place) const;
  // The bytes that its record takes; 0: leave it to the daemon.
  uint64_t ReadFirst(const Place& place, DictChange* change);
  // False: somebody else does, or the rings are being drained.
  bool Claim(uint64_t revision, uint32_t lane);
  bool IsArmed() const {
    return has_armed_ && event_seen_ == event().load(std::memory_order_acquire) &&
           dict_->IsArmed(kArmedFollow);
  }

  const std::shared_ptr<Dict> dict_;
  const std::shared_ptr<const FollowLog> log_;
  // What was given last, while the log does not have it: of which lane, and up to where.
  uint64_t given_revision_ = 0;
  uint32_t given_lane_ = 0;
  uint64_t given_end_ = 0;
  bool has_armed_ = false;
  uint32_t event_seen_ = 0;  // When it armed.
  uint64_t pause_until_ns_ = 0;
  std::string bytes_;  // Its memory is used again.
};

}  // namespace statehouse
