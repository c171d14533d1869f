// The owned sequence lock: one 64-bit word that is a lock, a version, a change counter and the
// holder's identity at once.
//
//   63                    12 11        0
//   | sequence (52 bits)     | owner    |     owner 0 = free, else the lane that holds it
//
// A holder releases with sequence + 1, so equal words mean that nothing happened in between, and a
// word that names a dead lane tells recovery whose intent to read. The sequence would need a year
// and a half of one change per ten nanoseconds to wrap. Nothing here may assume that the words are
// sane: another process can have written anything.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine/base/limits.h"

namespace statehouse {

inline constexpr uint64_t kOwnerMask = (uint64_t{1} << kLaneBits) - 1;
inline constexpr uint64_t kSequenceOne = uint64_t{1} << kLaneBits;

constexpr uint32_t OwnerOf(uint64_t word) { return static_cast<uint32_t>(word & kOwnerMask); }
constexpr uint64_t SequenceOf(uint64_t word) { return word >> kLaneBits; }
// The word that releases `locked` as changed, and as unchanged.
constexpr uint64_t ReleasedChanged(uint64_t locked) {
  return (locked & ~kOwnerMask) + kSequenceOne;
}
constexpr uint64_t ReleasedUnchanged(uint64_t locked) { return locked & ~kOwnerMask; }

// One attempt. On success *locked is the word as this lane holds it.
// SYNC: stripe.lock — acquire side of the previous holder's release; seq_cst against a waiter's
// arming (area.wait).
inline bool TryLockOwned(std::atomic<uint64_t>& control, uint32_t lane, uint64_t* locked) {
  uint64_t word = control.load(std::memory_order_relaxed);
  if (OwnerOf(word) != 0) return false;
  if (!control.compare_exchange_strong(word, word | lane, std::memory_order_seq_cst,
                                       std::memory_order_relaxed)) {
    return false;
  }
  *locked = word | lane;
  return true;
}

// Tries until `timeout_ns` has passed: spins, yields, then sleeps in growing steps. False: still
// held.
bool LockOwnedSlow(std::atomic<uint64_t>& control, uint32_t lane, uint64_t timeout_ns,
                   uint64_t* locked);

// A growing pause for a loop that waits for another process; Expired() once `timeout_ns` has
// passed.
class Backoff final {
 public:
  explicit Backoff(uint64_t timeout_ns) : timeout_ns_(timeout_ns) {}
  // False when the time is over.
  bool Pause();

 private:
  // Looks at the word while spinning, and the pauses between two of them as powers of two, from the
  // first to the longest. A waiter that looks less often takes the line from its holder less often:
  // on a word that two processes want all the time this halves what an operation takes. Some 30 to
  // 100 microseconds in all.
  static constexpr uint32_t kSpins = 9;
  static constexpr uint32_t kSpinShiftMin = 3;
  static constexpr uint32_t kSpinShiftMax = 10;
  static constexpr uint32_t kYields = 16;
  static constexpr uint64_t kSleepNsMin = 50'000;
  static constexpr uint64_t kSleepNsMax = 1'000'000;

  uint64_t timeout_ns_;
  uint64_t deadline_ns_ = 0;  // Read from the clock when spinning ends.
  uint64_t sleep_ns_ = kSleepNsMin;
  uint32_t rounds_ = 0;
};

// Orders stores as a killed thread leaves them: the kernel makes every executed store visible, so
// only the compiler must not move them.
inline void CrashFence() { std::atomic_signal_fence(std::memory_order_seq_cst); }

}  // namespace statehouse
