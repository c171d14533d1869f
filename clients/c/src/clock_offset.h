// How far this process's monotonic clock is from the daemon's: time namespaces give the processes
// of one host different ones.
#pragma once

#include <cstdint>

#include "engine/os/futex.h"

namespace statehouse {

// What an answer took is far below what tells two clocks apart.
inline constexpr int64_t kClockDifferenceNsMin = 1'000'000'000;

// `daemon_ns`: the daemon's clock a moment ago. To be added to this process's; 0 where they are
// one.
inline int64_t ClockOffset(uint64_t daemon_ns) {
  const auto offset = static_cast<int64_t>(daemon_ns - MonotonicNs());
  return offset < kClockDifferenceNsMin && offset > -kClockDifferenceNsMin ? 0 : offset;
}

}  // namespace statehouse
