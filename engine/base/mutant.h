// Test mutants: seeded protocol bugs that the crash tests must find. SH_MUTANT is 0 in every
// library and program, so that each `if` below is decided at compile time. tests/crash compiles the
// engine's sources again with SH_MUTANT_AT_RUN_TIME, so that one program has them all.
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
  kFenceAfterData = 7,   // A fenced write raises the fences after its bytes are there.
  // Of dicts.
  kDictRedoNotArmed = 11,         // The redo record is never armed.
  kDictTagKept = 12,              // Locks are released while the redo is still armed.
  kDictMarkLeft = 13,             // Recovery leaves a transaction's mark on its buckets.
  kDictRingFirst = 14,            // A change record is counted before its change is armed.
  kDictSlotBeforeArmed = 15,      // An entry is published before the redo record is armed.
  kDictMagazineBeforeArmed = 16,  // A magazine's count changes before the redo record is armed.
  kDictMarkNotCleared = 17,       // A transaction leaves its own mark.
  kDictVersionBeforeNumber = 18,  // An increment publishes the cell before it holds the number.
  kDictLockBeforeIntent = 19,     // A lock is taken before it is noted whose it is.
  kDictArmedBeforeRedo = 20,      // The tag is stored before the redo record is counted.
  kDictWatchNotTold = 21,         // A change does not wake who waits for it.
  kDictBackedBeforeMemory = 22,   // Slabs may be used before they have their memory.
  kDictUnbackedUsed = 23,         // A lane uses slabs that have no memory.
  kDictWordKept = 24,             // What a worker writes over the word of backed slabs stays …
  kDictWordTrusted = 25,          // … or is what the next daemon goes by.
  kDictSpareKept = 26,            // Memory that a killed daemon allocated is never given back.
  // Of locks.
  kLockRedoNotArmed = 31,     // The redo record is never armed.
  kLockTagKept = 32,          // The bucket is released while the redo is still armed.
  kLockWakeNotNoted = 33,     // An owed wake-up is not noted before the release.
  kLockStateFirst = 34,       // A request says that it holds before the redo record is armed.
  kLockBeforeIntent = 35,     // The bucket is taken before it is noted whose it is.
  kLockArmedBeforeRedo = 36,  // The tag is stored before the redo record is counted.
  kLockTokenRepeated = 37,    // A grant shows the last token instead of taking the next.
  kLockQueueSkipped = 38,     // A release grants nobody, and recovery does not either.
  kLockNextFirst = 39,        // A queue's head moves on before the redo record is armed.
};

#define SH_MUTANT_AT_RUN_TIME (-1)
#if SH_MUTANT == SH_MUTANT_AT_RUN_TIME
inline Mutant chosen_mutant = Mutant::kNone;
inline bool MutantIs(Mutant mutant) { return mutant == chosen_mutant; }
#else
constexpr bool MutantIs(Mutant mutant) { return static_cast<int>(mutant) == SH_MUTANT; }
#endif

}  // namespace statehouse
