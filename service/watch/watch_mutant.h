// Test mutants of area watches: seeded bugs that the replayer must find. They are compiled in for
// the test that has SH_WATCH_MUTANT, and nowhere else.
#pragma once

namespace statehouse {

enum class WatchMutant {
  kNone = 0,
  kStripeSkipped = 1,     // A look passes the second stripe of a range by.
  kOldBytesRepeated = 2,  // A change is told with the bytes that were there before it.
  kLastChangeLost = 3,    // What came inside a window is forgotten at its end.
};

#ifdef SH_WATCH_MUTANT
inline WatchMutant chosen_watch_mutant = WatchMutant::kNone;
inline bool WatchMutantIs(WatchMutant mutant) { return mutant == chosen_watch_mutant; }
#else
constexpr bool WatchMutantIs(WatchMutant) { return false; }
#endif

}  // namespace statehouse
