#include "engine/state/ring_follower.h"

#include <algorithm>
#include <utility>

#include "engine/base/watch_mutant.h"
#include "engine/os/barrier.h"
#include "engine/os/futex.h"
#include "engine/state/change_claim.h"
#include "engine/state/ring_record.h"

namespace statehouse {
bool RingFollower::IsSupported() {
  static const bool supported = BarrierEverywhere();
  return supported;
}

RingFollower::Found RingFollower::Next(uint64_t revision, DictChange* change) {
  if (dict_->state() != DictState::kLive) {
    dict_->WakeLate();  // A change before that may have woken this one alone.
    return Found::kNothing;
  }
  if (pause_until_ns_ != 0) {
    if (MonotonicNs() < pause_until_ns_) return Found::kNothing;
    pause_until_ns_ = 0;
  }
  for (;;) {
    // SYNC: dict.watch — armed before the look.
    const bool is_armed = IsArmed();
    switch (Look(revision, change)) {
      case Sight::kChange: return Found::kChange;
      case Sight::kMovedOn: return Found::kNothing;
      case Sight::kUnknown: Pause(kCursorsPauseNs); return Found::kNothing;
      case Sight::kOthers:
        dict_->WakeLate();
        Pause(kRingPauseNs);
        return Found::kNothing;
      case Sight::kNothing: break;
    }
    // Not before somebody comes for more: whoever was given a change has it by now.
    if (given_revision_ > revision) dict_->WakeLate();
    if (is_armed || WatchMutantIs(WatchMutant::kClaimNotArmed)) return Found::kNothing;
    event_seen_ = event().load(std::memory_order_seq_cst);
    if (!dict_->ArmWatch(kArmedFollow)) return Found::kNothing;
    has_armed_ = true;
  }
}

void RingFollower::Pause(uint64_t ns) { pause_until_ns_ = MonotonicNs() + ns; }

RingFollower::Sight RingFollower::LookAtCursors(uint64_t revision) const {
  const uint64_t next = log_->cursors_next();
  if (next == revision + 1) return Sight::kNothing;
  return next > revision ? Sight::kMovedOn : Sight::kUnknown;
}

RingFollower::Sight RingFollower::Look(uint64_t revision, DictChange* change) {
  const bool has_given = given_revision_ == revision + 1;
  // SYNC: follow.cursors — before the cursors; and once more behind them.
  Sight sight = LookAtCursors(revision);
  if (sight != Sight::kNothing) return sight;
  // Most often it is the lane of the last time, and the first look is at that one alone.
  Place place;
  if (!has_given && given_lane_ != 0) LookAtLane(given_lane_, log_->CursorOf(given_lane_), &place);
  bool is_one = place.lane != 0 || LookAtLanes(has_given, &place);
  // What the second look shows as well is all that came before what the first one shows.
  if (is_one && place.lane != 0 && !WatchMutantIs(WatchMutant::kClaimOneLook)) {
    is_one = LookAtLanes(has_given, &place);
  }
  sight = LookAtCursors(revision);
  if (sight != Sight::kNothing) return sight;
  if (!is_one) return Sight::kOthers;
  if (place.lane == 0) return Sight::kNothing;
  const uint64_t bytes = has_given ? 0 : ReadFirst(place, change);
  // Before the claim: what the daemon reads next has a later time.
  const uint64_t time_ms = ChangeTimeMs();
  if (bytes == 0 || !Claim(revision, place.lane)) return Sight::kOthers;
  given_revision_ = revision + 1;
  given_lane_ = place.lane;
  given_end_ = place.begin + bytes;
  change->revision = given_revision_;
  change->time_ms = time_ms;
  return Sight::kChange;
}

bool RingFollower::LookAtLane(uint32_t lane, uint64_t cursor, Place* place) const {
  const uint64_t head = RingHead(*dict_, lane);
  AtWatchPoint(WatchPoint::kFeedBetweenLanes);
  if (head == cursor || lane == place->lane) return true;
  if (place->lane != 0) return WatchMutantIs(WatchMutant::kClaimAnyLane);
  *place = {lane, cursor, head};
  return true;
}

bool RingFollower::LookAtLanes(bool has_given, Place* place) const {
  const uint32_t lanes = dict_->lane_high();
  for (uint32_t lane = 1; lane < lanes; ++lane) {
    const uint64_t cursor = has_given && lane == given_lane_ ? given_end_ : log_->CursorOf(lane);
    if (!LookAtLane(lane, cursor, place)) return false;
  }
  return true;
}

uint64_t RingFollower::ReadFirst(const Place& place, DictChange* change) {
  if (place.end < place.begin || place.end - place.begin > kChangeRingBytes) return 0;
  const uint64_t end = std::min(place.end, place.begin + kRingRecordBytesMax);
  RingRecord record;
  std::swap(record.change, *change);  // Its memory is used again.
  const bool makes_sense = CopyRing(*dict_, place.lane, place.begin, end, &bytes_) &&
                           TakeRingRecord(bytes_, &record) && record.is_inline;
  std::swap(record.change, *change);
  return makes_sense ? record.bytes : 0;
}

bool RingFollower::Claim(uint64_t revision, uint32_t lane) {
  uint64_t word = ChangeClaim::Open(revision);
  // SYNC: dict.claim — the looks come before. Another follower may have claimed the same.
  return dict_->claim().compare_exchange_strong(word, ChangeClaim::Of(revision, lane)) ||
         word == ChangeClaim::Of(revision, lane);
}

}  // namespace statehouse
