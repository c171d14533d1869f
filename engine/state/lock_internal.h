// What the lock space's source files share. Included by engine/state/lock_*.cc only.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/base/mutant.h"
#include "engine/os/futex.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/lock_space.h"

namespace statehouse {

// SYNC: lock.state — a request's other fields are stored before its state; its owner loads the
// state with acquire.
inline uint64_t LoadLock(const std::atomic<uint64_t>& word) {
  return word.load(std::memory_order_relaxed);
}
inline void StoreLock(std::atomic<uint64_t>& word, uint64_t value) {
  word.store(value, std::memory_order_relaxed);
}

// Two numbers in one word.
constexpr uint32_t LowOf(uint64_t word) { return static_cast<uint32_t>(word); }
constexpr uint32_t HighOf(uint64_t word) { return static_cast<uint32_t>(word >> 32); }
constexpr uint64_t Pack(uint32_t low, uint32_t high) { return low | uint64_t{high} << 32; }

constexpr RequestKind KindOf(uint64_t state) {
  return static_cast<RequestKind>(state & kRequestKindMask);
}
constexpr uint64_t WithKind(uint64_t state, RequestKind kind) {
  return (state & ~kRequestKindMask) | static_cast<uint64_t>(kind);
}
constexpr uint32_t LockNumberOf(uint64_t state) {
  return static_cast<uint32_t>(state >> kRequestLockShift);
}
// Block + 1.
constexpr uint32_t BlockWordOf(uint64_t state) {
  return static_cast<uint32_t>(state >> kRequestBlockShift) & 0xffff;
}
constexpr uint64_t ClaimedBy(uint32_t lane_id) {
  return static_cast<uint64_t>(RequestKind::kClaimed) | uint64_t{lane_id / kLanesPerBlock + 1}
                                                            << kRequestBlockShift;
}
// Without the lock and what it was asked for: the request is its process's again, or nobody's.
constexpr uint64_t Unbound(uint64_t state, RequestKind kind) {
  const uint64_t owner = uint64_t{BlockWordOf(state)} << kRequestBlockShift;
  return kind == RequestKind::kFree ? 0 : owner | static_cast<uint64_t>(kind);
}

// The coarse clock is at most this much behind.
inline constexpr uint64_t kCoarseLagNs = 10'000'000;
// Nobody sleeps longer than this without looking again.
inline constexpr uint64_t kLockSleepNsMax = 1'000'000'000;

// RequestSlot::session of a request whose process or session is gone while its bucket was stuck.
inline constexpr uint64_t kGoneSession = UINT64_MAX;

// A critical section: one bucket, and what it owes when it ends.
struct LockSpace::Section {
  Section(const Lane& lane_in, LockLaneRecord& record_in) : lane(lane_in), record(record_in) {}

  const Lane& lane;
  LockLaneRecord& record;
  uint32_t bucket = 0;
  uint64_t locked = 0;        // The bucket's word as this lane holds it; 0: not held.
  uint32_t stores = 0;        // In the redo record.
  uint32_t granted_lock = 0;  // Whose new holders are owed a wake-up.
  // They, and who lost its place; whether the daemon is told for it.
  std::vector<std::pair<uint32_t, bool>> woken;
  std::vector<LockPlace>* told = nullptr;  // Where to tell of the daemon's among them.
  uint64_t look_ns = UINT64_MAX;           // The daemon has to look by then.
};

}  // namespace statehouse
