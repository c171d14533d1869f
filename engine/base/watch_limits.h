// Bounds of watches of dicts; the others are in limits.h.
#pragma once

#include <cstdint>

namespace statehouse {

inline constexpr uint64_t kPreviousBytesDefault = 64 << 20;  // Previous values of all watches.
inline constexpr uint64_t kPreviousBytesMax = uint64_t{64} << 30;
inline constexpr uint64_t kWatchPollUsMax = 10'000;

}  // namespace statehouse
