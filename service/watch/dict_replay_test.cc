// A dict is changed in every way there is while all kinds of watches are drained, closed and gone
// on with: what each was told is what was done, and nothing is missing that was not said to be. One
// thread does everything, so a seed gives the same scene each time, but for what expires meanwhile.
// The seeded bugs of watch_mutant.h must be found by the same scenes. STATEHOUSE_LONG=1 makes it
// 2,000 scenes.
#include <array>
#include <atomic>
#include <set>
#include <thread>

#include "engine/base/watch_mutant.h"
#include "service/watch/dict_replay_test_support.h"
#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

constexpr int kSeeds = 24;
constexpr int kSeedsLong = 2000;
constexpr int kSteps = 700;
constexpr uint32_t kWriters = 4;  // Two of them are workers, with mappings of their own.
constexpr size_t kFollowers = 7;

// What happened in some scenes.
struct Seen {
  uint64_t changes = 0;
  uint64_t followed = 0;
  uint64_t fallbacks = 0;
  uint64_t coalesced = 0;
  uint64_t previous_values = 0;
  uint64_t previous_gone = 0;
  uint64_t evictions = 0;
  uint64_t expirations = 0;
  uint64_t moves = 0;
  std::array<uint64_t, kResyncReasons> resyncs{};
};

class Scene : public DictReplayTest {
 public:
  explicit Scene(int seed) : random_(static_cast<uint64_t>(seed)), has_room_(seed % 3 != 0) {
    if (!has_room_) {
      EXPECT_TRUE(store->Delete("d").ok());
      Make(/*max_entries=*/24, /*evict=*/true);
    }
#ifdef SH_WATCH_MUTANT
    if (chosen_watch_mutant != WatchMutant::kNone) patience = milliseconds(1000);
#endif
    options_.has_thread = false;
    options_.feed.log_bytes = seed % 2 == 0 ? kFeedLogBytesMin : kFeedLogBytesMin * 16;
    Start(options_);
    for (uint32_t i = 0; i < kWriters; ++i) {
      writers_.push_back(
          std::make_unique<NotingWriter>(&ledger, LaneOf(i, IsWorker(i)), random_()));
    }
    for (size_t i = 0; i < kFollowers; ++i) {
      WatchAsk ask = i == 0 ? WatchAsk() : AnyAsk(random_);
      followers_.push_back(std::make_unique<Follower>(&ledger, std::move(ask), fault_));
    }
  }
  void TestBody() override {}

  // Returns what was found wrong, each kind once.
  const std::set<std::string>& Run() {
#ifdef SH_WATCH_MUTANT
    at_watch_point = [this](WatchPoint point) {
      if (point == WatchPoint::kFeedBeforeStore) return;
      // There are many more buckets than lanes.
      if (random_() % (point == WatchPoint::kFeedBetweenLanes ? 60 : 3000) == 0) Change();
    };
#endif
    for (int step = 0; step < kSteps && faults_.empty(); ++step) {
      Change();
      Do(random_() % 200);
    }
#ifdef SH_WATCH_MUTANT
    at_watch_point = nullptr;
#endif
    Finish(followers_, fault_);
    return faults_;
  }
  void AddTo(Seen* seen) const {
    for (const auto& follower : followers_) {
      seen->changes += follower->changes();
      seen->followed += follower->followed();
      seen->fallbacks += follower->fallbacks();
      seen->coalesced += follower->coalesced();
      seen->previous_values += follower->previous_values();
      seen->previous_gone += follower->previous_gone();
      for (size_t i = 0; i < kResyncReasons; ++i) {
        seen->resyncs[i] += follower->resyncs(static_cast<ResyncReason>(i));
      }
    }
    const DictTotals totals = store->Totals();
    seen->evictions += totals.evictions;
    seen->expirations += totals.expirations;
    seen->moves += totals.moves;
  }

 private:
  static bool IsWorker(uint32_t writer) { return writer % 2 == 1; }
  Dict& DictOf(uint32_t writer) {
    return IsWorker(writer) ? writers_[writer]->Mapped(*store, served) : served->dict();
  }
  void Change() {
    const uint32_t writer = static_cast<uint32_t>(random_() % kWriters);
    const Status status = writers_[writer]->Step(DictOf(writer));
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  // More than a ring holds, while the hub does not look.
  void Overrun() {
    const uint32_t writer = static_cast<uint32_t>(random_() % kWriters);
    for (uint64_t i = 100 + random_() % 500; i > 0; --i) {
      const Status status = writers_[writer]->Put(DictOf(writer), "a/1", 200);
      EXPECT_TRUE(status.ok()) << status.ToString();
    }
  }
  // More than a message holds, or the history of some, while no watch is looked at.
  void LeaveBehind() {
    for (int i = 0; i < 2000; ++i) {
      Change();
      if (i % 50 == 0) hub->Turn();
    }
  }
  // Those that know all are told of a change before the hub knows it, and others follow.
  void TellFromRings() {
    hub->Turn();
    TakeAll();
    Change();
    TakeAll();
    for (int i = 0; i < 3; ++i) Change();
  }
  void TakeAll() {
    for (const auto& follower : followers_) {
      for (int i = 0; i < 100 && follower->is_open(); ++i) {
        if (follower->Take() == Watch::Found::kNothing) break;
      }
    }
  }
  void Do(uint64_t what) {
    const size_t i = random_() % kFollowers;
    if (what < 90) {
      if (!followers_[i]->is_open()) return Open(i);
      (void)followers_[i]->Take();
    } else if (what < 120) {
      hub->Turn();
    } else if (what < 130) {
      hub->LookNow(served->record().id);
    } else if (what < 136) {
      followers_[i]->Close();
    } else if (what < 139) {
      Expire();
    } else if (what < 141) {
      Start(options_);  // The next daemon.
    } else if (what < 143) {
      const Status moved = Move(/*clears=*/what == 142);
      EXPECT_TRUE(moved.ok()) << moved.ToString();
      served = *store->Find("d");
    } else if (what == 143) {
      Overrun();
    } else if (what == 144) {
      LeaveBehind();
    } else if (what < 155) {
      TellFromRings();
    }
  }
  void Open(size_t i) { followers_[i]->Open(*hub, served, /*is_lost=*/random_() % 20 == 0); }

  std::mt19937_64 random_;
  const bool has_room_;
  WatchHubOptions options_;
  std::vector<std::unique_ptr<NotingWriter>> writers_;
  std::set<std::string> faults_;
  const Replayer::Fault fault_ = [this](const std::string& what) { faults_.insert(what); };
  std::vector<std::unique_ptr<Follower>> followers_;
};

TEST(DictReplayScenes, EveryWatchTellsWhatWasDone) {
  Seen seen;
  const int seeds = Rounds(kSeeds, kSeedsLong);
  for (int seed = 1; seed <= seeds; ++seed) {
    Scene scene(seed);
    for (const std::string& fault : scene.Run()) ADD_FAILURE() << "seed " << seed << ": " << fault;
    scene.AddTo(&seen);
  }
  EXPECT_GT(seen.changes, 10'000u);
  EXPECT_GT(seen.followed, 1'000u);
  EXPECT_GT(seen.fallbacks, 0u);
  EXPECT_GT(seen.coalesced, 0u);
  EXPECT_GT(seen.previous_values, 10'000u);
  // Most that is not known comes before a gap, and is forgotten there.
  EXPECT_LT(seen.previous_gone, 2 * seen.previous_values);
  EXPECT_GT(seen.evictions, 0u);
  EXPECT_GT(seen.expirations, 0u);
  EXPECT_GT(seen.moves, 0u);
  for (const ResyncReason reason :
       {ResyncReason::kHistoryGone, ResyncReason::kRevisionUnknown, ResyncReason::kSlowWatcher,
        ResyncReason::kOverrun, ResyncReason::kReplaced}) {
    EXPECT_GT(seen.resyncs[static_cast<size_t>(reason)], 0u) << ResyncReasonName(reason);
  }
}

#ifdef SH_WATCH_MUTANT
// Not under the thread sanitizer: a scene takes as much real time, and does a tenth in it.
#ifndef __SANITIZE_THREAD__
// How much a scene does depends on the machine; most bugs are found by the first one.
constexpr int kSeedsForMutants = 10 * kSeeds;

TEST(DictReplayScenes, EverySeededBugIsFound) {
  for (const WatchMutant mutant :
       {WatchMutant::kFeedGapNotTold,         WatchMutant::kFeedBatchEndLost,
        WatchMutant::kFeedBucketOrderLost,    WatchMutant::kFeedOneLook,
        WatchMutant::kFeedOldCursors,         WatchMutant::kFeedCursorsAtHeads,
        WatchMutant::kFeedReplacedAsMoved,    WatchMutant::kFeedSegmentBeginLost,
        WatchMutant::kWatchResumesTooFar,     WatchMutant::kWatchResumesTooEarly,
        WatchMutant::kWatchHistoryGoneHidden, WatchMutant::kWatchGapHidden,
        WatchMutant::kWatchSlowHidden,        WatchMutant::kWatchSnapshotRepeated,
        WatchMutant::kWatchPlaceAfterScan,    WatchMutant::kWatchSyncedTooEarly,
        WatchMutant::kWatchPassedTooFar,      WatchMutant::kWatchCoalescedHidden,
        WatchMutant::kWatchNotNotified,       WatchMutant::kWatchSleptTooLong,
        WatchMutant::kWatchSleeperForgotten,  WatchMutant::kPreviousLags,
        WatchMutant::kPreviousNotReset,       WatchMutant::kPreviousOfNewest,
        WatchMutant::kPreviousOfAnyScan,      WatchMutant::kFollowHandOverLate,
        WatchMutant::kFollowHandOverEarly,    WatchMutant::kFollowOverrunHidden,
        WatchMutant::kClaimIgnored}) {
    chosen_watch_mutant = mutant;
    bool found = false;
    for (int seed = 1; seed <= kSeedsForMutants && !found; ++seed)
      found = !Scene(seed).Run().empty();
    chosen_watch_mutant = WatchMutant::kNone;
    EXPECT_TRUE(found) << "mutant " << static_cast<int>(mutant);
  }
}
#endif

class HubAtWatchPointTest : public WatchHubTest {
 protected:
  ~HubAtWatchPointTest() override { at_watch_point = nullptr; }
};

// Else two daemons write to one feed.
TEST_F(HubAtWatchPointTest, AShutdownWaitsForWhoTellsWatchesOnHisOwnThread) {
  WatchHubOptions options;
  options.has_thread = false;
  Start(options);
  Watcher watcher(*hub, Ask());
  WatchEvent event;
  ASSERT_EQ(watcher.TryNext(&event), Watch::Found::kNothing);
  hub->Turn();
  Put("k", "1");
  std::atomic<bool> is_down{false};
  std::thread ender;
  at_watch_point = [&](WatchPoint) {
    if (ender.joinable()) return;
    ender = std::thread([&] {
      hub->Shutdown();
      is_down = true;
    });
    const auto until = std::chrono::steady_clock::now() + milliseconds(100);
    while (!is_down && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    EXPECT_FALSE(is_down);
  };

  hub->LookNow(served->record().id);

  ASSERT_TRUE(ender.joinable());
  ender.join();
  EXPECT_TRUE(is_down);
}
#endif

}  // namespace
}  // namespace statehouse
