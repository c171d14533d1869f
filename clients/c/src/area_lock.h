// The lock of a range of an area: several leases that are one.
//
// A range is locked by the stripes that it touches, because they carry the fences: shared
// "area/<name>", then "area/<name>/#<stripe>" in rising order, in the mode that was asked for. As
// everybody takes them in this order, two that ask for ranges never wait for each other in a
// circle. The area as a whole is "area/<name>" exclusively, which is also what a range of more than
// kAreaLockStripesMax stripes takes. No area's name has a '#' in it, so that no area inside
// another's name meets these locks.
#pragma once

#include <memory>
#include <string>

#include "clients/c/src/client_locks.h"
#include "clients/c/src/held_lock.h"
#include "engine/base/status.h"

namespace statehouse {

inline constexpr uint32_t kAreaLockStripesMax = 32;

struct AreaRange {
  std::string area;
  uint64_t area_size = 0;
  uint64_t pos = 0;
  uint64_t len = 0;
};

// All of them or none: what was taken is given back where one is not had in time; *lock stays empty
// then. `ask.name` is not looked at. The token of the lock is the highest of its leases; where one
// of them is lost, the lock is. What was taken first is renewed while the rest is waited for.
// Errors: OUT_OF_BOUNDS, INVALID_ARGUMENT (no bytes, a limit), LOCK_LOST (meanwhile), and those of
// any lock.
Status AcquireAreaLock(ClientLocks* locks, const AreaRange& range, LockAsk ask,
                       std::unique_ptr<HeldLock>* lock);

}  // namespace statehouse
