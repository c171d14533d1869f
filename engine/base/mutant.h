// Test mutants: seeded protocol bugs that the crash test must find. SH_MUTANT is 0 in every library
// and program; tests/crash compiles the area's sources again with another number, so that each `if`
// below is decided at compile time.
#pragma once

#ifndef SH_MUTANT
#define SH_MUTANT 0
#endif

namespace statehouse {

enum class Mutant {
  kNone = 0,
  kRedoNotArmed = 1,     // A range write never stores its tag.
  kJournalSkipped = 2,   // A range write leaves old bytes in its journal.
  kWakeNotNoted = 3,     // An owed wake-up is not noted before the release.
  kCountersLeftOdd = 5,  // Recovery releases a stripe and leaves its range counter odd.
  kTagKept = 4,          // Stripes are released while the redo is still armed.
  kArmedBeforeRedo = 6,  // The tag is stored before the redo record is complete.
  kDictRedoNotArmed = 11,  // A dict's redo record is never armed.
  kDictTagKept = 12,       // A dict's locks are released while the redo is still armed.
  kDictMarkLeft = 13,      // Recovery leaves a transaction's mark on its buckets.
  kDictRingFirst = 14,     // A change record is counted before its change is armed.
};

constexpr bool MutantIs(Mutant mutant) { return static_cast<int>(mutant) == SH_MUTANT; }

}  // namespace statehouse
