#include "engine/shm/owned_lock.h"

#include <algorithm>

#include "engine/os/futex.h"

namespace statehouse {

bool Backoff::Pause() {
  ++rounds_;
  if (rounds_ <= kSpins) {
    const uint32_t pauses = 1U << std::min(kSpinShiftMin + rounds_ - 1, kSpinShiftMax);
    for (uint32_t i = 0; i < pauses; ++i) CpuRelax();
    return true;
  }
  const uint64_t now = MonotonicNs();
  if (deadline_ns_ == 0) deadline_ns_ = now + timeout_ns_;
  if (now >= deadline_ns_) return false;
  if (rounds_ <= kSpins + kYields) {
    SleepNs(0);
    return true;
  }
  SleepNs(std::min(sleep_ns_, deadline_ns_ - now));
  sleep_ns_ = std::min(sleep_ns_ * 2, kSleepNsMax);
  return true;
}

bool LockOwnedSlow(std::atomic<uint64_t>& control, uint32_t lane, uint64_t timeout_ns,
                   uint64_t* locked) {
  Backoff backoff(timeout_ns);
  do {
    if (TryLockOwned(control, lane, locked)) return true;
  } while (backoff.Pause());
  return false;
}

}  // namespace statehouse
