// Test mutants of watches and of waits: seeded bugs that replayers and soaks must find, and places
// where such a test may do something of its own. They are compiled in for tests that have
// SH_WATCH_MUTANT, and nowhere else: those compile the sources that have them again.
#pragma once

#ifdef SH_WATCH_MUTANT
#include <functional>
#endif

namespace statehouse {

enum class WatchMutant {
  kNone = 0,
  // Of areas.
  kStripeSkipped = 1,     // A look passes the second stripe of a range by.
  kOldBytesRepeated = 2,  // A change is told with the bytes that were there before it.
  kLastChangeLost = 3,    // What came inside a window is forgotten at its end.
  // Of a dict's feed.
  kFeedGapNotTold = 11,           // What a ring has lost is passed by without a gap.
  kFeedBatchEndLost = 12,         // The change that fills a batch is left out.
  kFeedBucketOrderLost = 13,      // Lane after lane, whatever happened in a bucket between.
  kFeedOneLook = 14,              // What only the second look shows is given at once.
  kFeedOldCursors = 15,           // The next daemon goes on at the cursors before the last.
  kFeedCursorsAtHeads = 16,       // The next daemon goes on at the rings' ends.
  kFeedReplacedAsMoved = 17,      // A dict that was cleared counts as one that grew.
  kFeedSegmentBeginLost = 18,     // The next segment is read from where its rings end.
  kFeedNextGenerationEarly = 19,  // Marks name the next segment before the cursors lead into it.
  // Of watches.
  kWatchResumesTooFar = 31,      // A watch that goes on leaves the next change out.
  kWatchResumesTooEarly = 32,    // A watch that goes on repeats the last change.
  kWatchHistoryGoneHidden = 33,  // A watch that goes on too late begins with what is left.
  kWatchGapHidden = 34,          // A gap is passed by.
  kWatchSlowHidden = 35,         // A slow watcher goes on with what is left.
  kWatchSnapshotRepeated = 36,   // Changes that the snapshot had are told again.
  kWatchPlaceAfterScan = 37,     // The place in the history is taken when the scan is over.
  kWatchSyncedTooEarly = 38,     // `synced` does not wait for the drain.
  kWatchPassedTooFar = 39,       // A watch is moved past what concerns it.
  kWatchCoalescedHidden = 40,    // What stands for older changes is not flagged.
  kWatchNotNotified = 41,        // A watcher that waits is not told that there is something.
  kWatchSleptTooLong = 42,       // A watch that a change of its key wakes is moved past it.
  kWatchSleeperForgotten = 43,   // A watch that sleeps is not woken by a change of its key.
  // Of previous values.
  kPreviousLags = 51,       // It is the value before the one before.
  kPreviousNotReset = 52,   // A gap is no end of what is known.
  kPreviousOfNewest = 53,   // What stands for older changes comes with the value between.
  kPreviousOfAnyScan = 54,  // A scan counts for changes that it has read already.
  // Of waits for entries.
  kWaitNotArmed = 61,        // A waiter sleeps without arming.
  kWaitEventReadLate = 62,   // The event word is read when the entry has been looked at.
  kWaitNotLookedAgain = 63,  // The entry is not looked at after arming.
  kWaitQueuedLate = 64,      // The daemon's wait is not woken while it is being looked at.
  kWaitLeftBehind = 65,      // A wait that is over stays among those that wait.
  kWaitForgotten = 66,       // A shutdown answers none of those whose turn it is.
  // Of follow logs.
  kFollowTailNotMoved = 71,   // Old records are written over without being given up first.
  kFollowOverrunHidden = 72,  // A reader does not look whether it was overrun.
  kFollowHandOverLate = 73,   // A watch hands over a place one change too far …
  kFollowHandOverEarly = 74,  // … or one change too early.
  // Of changes that are followed before they have their revision.
  kClaimIgnored = 81,     // The feed gives the claimed revision to any change …
  kClaimGivenToGap = 82,  // … or to a gap.
  kClaimAnyLane = 83,     // A change is claimed whatever the other lanes have.
  kClaimOneLook = 84,     // … or whatever they got while they were looked at.
  kClaimNotArmed = 85,    // A follower sleeps without arming.
};

enum class WatchPoint {
  kFeedBetweenLanes,    // Of a look at the heads of all rings.
  kFeedBeforeStore,     // Of a daemon that may be killed: each store that the next one would see.
  kScanBetweenBuckets,  // Of a snapshot.
  kWaitBetweenSteps,    // Of a wait for an entry: it looks, arms, looks again, sleeps.
};

#ifdef SH_WATCH_MUTANT
inline WatchMutant chosen_watch_mutant = WatchMutant::kNone;
inline bool WatchMutantIs(WatchMutant mutant) { return mutant == chosen_watch_mutant; }
// What a test does there; set before the threads start that come past it.
inline std::function<void(WatchPoint)> at_watch_point;
inline void AtWatchPoint(WatchPoint point) {
  if (at_watch_point) at_watch_point(point);
}
#else
constexpr bool WatchMutantIs(WatchMutant) { return false; }
constexpr void AtWatchPoint(WatchPoint) {}
#endif

}  // namespace statehouse
