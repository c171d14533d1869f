// Watches that hand over to the follow log of their dict, and the log itself.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "engine/os/barrier.h"
#include "engine/os/futex.h"
#include "engine/state/ring_follower.h"
#include "service/watch/watch_hub_test_support.h"

namespace statehouse {
namespace {

using Found = Watch::Found;
using Kind = WatchEvent::Kind;

class WatchFollowTest : public WatchTurnTest {
 protected:
  WatchAsk Offer() const {
    WatchAsk ask = Ask();
    ask.hand_over = true;
    return ask;
  }
  FollowLogReader ReaderAt(const WatchEvent& event) {
    const FollowLogFacts facts{served->record().id, event.log_id};
    auto fd = hub->OpenFollowLog(facts);
    EXPECT_TRUE(fd.ok()) << fd.status().ToString();
    auto log = FollowLog::Map(facts, fd->get());
    EXPECT_TRUE(log.ok()) << log.status().ToString();
    return FollowLogReader(*log, event.position, event.revision);
  }
  static std::vector<std::string> Keys(FollowLogReader& reader) {
    std::vector<std::string> keys;
    DictChange change;
    while (reader.Next(&change) == FollowLogReader::Found::kChange) keys.push_back(change.key);
    return keys;
  }
  // Makes `count` changes that the hub reads, and leaves the watches alone.
  void PutMany(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      Put("many", "v");
      if (i % 100 == 99 || i + 1 == count) hub->Turn();
    }
  }
  using Strings = std::vector<std::string>;
};

// Else each of many would be woken by every change of any key.
TEST_F(WatchFollowTest, BeyondEightFollowersAWatchOfOneKeyKeepsItsStream) {
  std::vector<std::unique_ptr<Watcher>> watchers;
  const auto open = [&](bool is_key) -> Watcher& {
    WatchAsk ask = Offer();
    if (is_key) ask.key = "k";
    watchers.push_back(std::make_unique<Watcher>(*hub, ask));
    Await(*watchers.back(), Kind::kSynced);
    return *watchers.back();
  };
  for (int i = 0; i < 8; ++i) Await(open(true), Kind::kHandedOver);
  Watcher& ninth = open(true);
  Await(open(false), Kind::kHandedOver);
  WatchEvent event;
  EXPECT_EQ(Poll(ninth, &event), Found::kNothing);
  EXPECT_EQ(hub->Totals().local_followers, 9u);
  Put("k", "1");
  ASSERT_EQ(Poll(ninth, &event), Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kChanges);
}

TEST_F(WatchFollowTest, HandsOverOnceItIsLiveAndTellsNothingMore) {
  Put("a", "1");
  Watcher watcher(*hub, Offer());
  WatchEvent synced = Await(watcher, Kind::kSynced);
  WatchEvent event = Await(watcher, Kind::kHandedOver);

  EXPECT_EQ(event.revision, synced.revision);
  FollowLogReader reader = ReaderAt(event);
  EXPECT_EQ(Keys(reader), Strings());
  Put("b", "1");
  EXPECT_EQ(Poll(watcher, &event), Found::kNothing);
  EXPECT_EQ(Keys(reader), Strings{"b"});
  const WatchTotals totals = hub->Totals();
  EXPECT_EQ(totals.local_followers, 1u);
  EXPECT_EQ(totals.handed_over, 1u);
  EXPECT_EQ(totals.follow_fallbacks, 0u);
  EXPECT_EQ(totals.lag_revisions, 0u);
}

TEST_F(WatchFollowTest, OneThatWasNotAskedStaysAndThereIsNoLog) {
  Watcher watcher(*hub, Ask());
  Sync(watcher);
  WatchEvent event;
  EXPECT_EQ(Poll(watcher, &event), Found::kNothing);

  Put("a", "1");

  ASSERT_EQ(Poll(watcher, &event), Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kChanges);
  EXPECT_EQ(hub->Totals().handed_over, 0u);
}

TEST_F(WatchFollowTest, AWatchThatIsAlittleBehindHandsOverThatPlace) {
  Watcher watcher(*hub, Offer());
  Sync(watcher);
  for (const char* key : {"a", "b", "c"}) Put(key, "1");
  hub->Turn();

  WatchEvent event;
  ASSERT_EQ(Poll(watcher, &event), Found::kEvent);

  ASSERT_EQ(event.kind, Kind::kHandedOver);
  FollowLogReader reader = ReaderAt(event);
  EXPECT_EQ(Keys(reader), (Strings{"a", "b", "c"}));
}

TEST_F(WatchFollowTest, AWatchThatIsFarBehindCatchesUpFirst) {
  constexpr uint64_t kFar = 4096;  // As kHandOverLagMax.
  for (const uint64_t behind : {kFar, kFar + 1}) {
    Watcher watcher(*hub, Offer());
    Sync(watcher);
    PutMany(behind);
    WatchEvent event;
    ASSERT_EQ(Poll(watcher, &event), Found::kEvent);

    EXPECT_EQ(event.kind, behind == kFar ? Kind::kHandedOver : Kind::kChanges);
    const uint64_t told = event.changes.size();
    if (event.kind == Kind::kChanges) event = Await(watcher, Kind::kHandedOver);
    FollowLogReader reader = ReaderAt(event);
    EXPECT_EQ(told + Keys(reader).size(), behind);
  }
}

TEST_F(WatchFollowTest, TheLogGoesWithItsLastWatch) {
  auto first = std::make_unique<Watcher>(*hub, Offer());
  const WatchEvent event = Await(*first, Kind::kHandedOver);
  auto second = std::make_unique<Watcher>(*hub, Offer());
  EXPECT_EQ(Await(*second, Kind::kHandedOver).log_id, event.log_id);
  const FollowLogFacts facts{served->record().id, event.log_id};

  first.reset();
  EXPECT_TRUE(hub->OpenFollowLog(facts).ok());
  EXPECT_EQ(hub->OpenFollowLog({facts.dict_id, facts.log_id + 1}).status().reason(),
            Reason::kUnavailable);
  EXPECT_EQ(hub->OpenFollowLog({facts.dict_id + 1, facts.log_id}).status().reason(),
            Reason::kUnavailable);
  second.reset();
  EXPECT_EQ(hub->OpenFollowLog(facts).status().reason(), Reason::kUnavailable);

  Watcher third(*hub, Offer());
  EXPECT_NE(Await(third, Kind::kHandedOver).log_id, event.log_id);
}

TEST_F(WatchFollowTest, EveryEndReachesOneThatWasHandedOver) {
  WatchEvent event;
  WatchAsk of_token = Offer();
  of_token.identity = std::make_shared<const Identity>("id", "", 0, std::vector<Grant>());
  Watcher revoked(*hub, of_token);
  (void)Await(revoked, Kind::kHandedOver);
  ASSERT_EQ(Poll(revoked, &event), Found::kNothing);
  hub->Recheck([](const Identity&, const std::string&) {
    return Status(Reason::kPermissionDenied, "not any more");
  });
  EXPECT_EQ(Poll(revoked, &event), Found::kEnd);
  EXPECT_EQ(revoked.status().reason(), Reason::kPermissionDenied);

  Watcher drained(*hub, Offer());
  (void)Await(drained, Kind::kHandedOver);
  ASSERT_EQ(Poll(drained, &event), Found::kNothing);
  hub->Shutdown();
  EXPECT_EQ(Poll(drained, &event), Found::kEnd);
  EXPECT_EQ(drained.status().reason(), Reason::kDraining);

  StartWith({});
  Watcher deleted(*hub, Offer());
  (void)Await(deleted, Kind::kHandedOver);
  ASSERT_EQ(Poll(deleted, &event), Found::kNothing);
  ASSERT_TRUE(store->Delete("d").ok());
  EXPECT_EQ(Poll(deleted, &event), Found::kEnd);
  EXPECT_EQ(deleted.status().reason(), Reason::kDictNotFound);
}

TEST_F(WatchFollowTest, OneThatFellBehindInTheLogIsASlowWatcher) {
  WatchHubOptions options;
  options.feed.log_bytes = kFeedLogBytesMin;
  StartWith(options);
  Watcher watcher(*hub, Offer());
  const WatchEvent event = Await(watcher, Kind::kHandedOver);
  FollowLogReader reader = ReaderAt(event);
  PutMany(3'000);
  DictChange change;
  ASSERT_EQ(reader.Next(&change), FollowLogReader::Found::kOverrun);

  WatchAsk back = Offer();
  back.from_revision = reader.revision();
  back.has_followed = true;
  Watcher resyncs(*hub, back);
  EXPECT_EQ(Await(resyncs, Kind::kResync).reason, ResyncReason::kSlowWatcher);
  EXPECT_GT(Await(resyncs, Kind::kHandedOver).revision, reader.revision());
  back.slow_policy = SlowPolicy::kCancel;
  Watcher ends(*hub, back);
  WatchEvent end;
  ASSERT_EQ(Poll(ends, &end), Found::kEnd);
  EXPECT_EQ(ends.status().reason(), Reason::kLimitExceeded);
  back.has_followed = false;
  Watcher other(*hub, back);
  EXPECT_EQ(Await(other, Kind::kResync).reason, ResyncReason::kHistoryGone);
  EXPECT_EQ(hub->Totals().follow_fallbacks, 2u);
}

// The log has a change before the history does.
TEST_F(WatchFollowTest, AWatchFromARevisionThatIsOnItsWayIsNoStranger) {
  Watcher watcher(*hub, Offer());
  WatchEvent event = Await(watcher, Kind::kHandedOver);
  Put("a", "1");  // Not drained yet.

  WatchAsk back = Offer();
  back.from_revision = event.revision + 1;
  Watcher early(*hub, back);
  event = Await(early, Kind::kHandedOver);

  EXPECT_EQ(event.revision, *back.from_revision);
  EXPECT_EQ(hub->Totals().resyncs[static_cast<size_t>(ResyncReason::kRevisionUnknown)], 0u);
  back.from_revision = event.revision + 1;
  Watcher stranger(*hub, back);
  EXPECT_EQ(Await(stranger, Kind::kResync).reason, ResyncReason::kRevisionUnknown);
}

// Whoever follows the rings is woken first, and wakes the hub; all others are told by the hub.
TEST_F(WatchFollowTest, TheHubIsLateWhileAllWhoWatchFollowTheRings) {
  const Dict& dict = served->dict();
  const auto arms = [&](uint32_t who) {
    Put("a", "1");  // Wakes all who sleep.
    while (hub->Turn() == 0) continue;
    return dict.IsArmed(who) && !dict.IsArmed(who ^ kArmedLate ^ kArmedWatch);
  };
  WatchAsk of_rings = Offer();
  of_rings.follows_rings = true;
  auto follower = std::make_unique<Watcher>(*hub, of_rings);
  (void)Await(*follower, Kind::kSynced);
  EXPECT_TRUE(arms(kArmedWatch)) << "it is not handed over yet";
  (void)Await(*follower, Kind::kHandedOver);
  EXPECT_TRUE(arms(kArmedLate));
  {
    Watcher stream(*hub, Ask());
    Sync(stream);
    EXPECT_TRUE(arms(kArmedWatch));
  }
  EXPECT_TRUE(arms(kArmedLate));
  {
    Watcher of_log(*hub, Offer());
    (void)Await(of_log, Kind::kHandedOver);
    EXPECT_TRUE(arms(kArmedWatch));
  }
  EXPECT_TRUE(arms(kArmedLate));
  follower.reset();
  EXPECT_TRUE(arms(kArmedWatch)) << "nobody else would wake it";
}

TEST_F(WatchFollowTest, AChangeThatAFollowerTookEarlyHasItsRevisionForAll) {
  ASSERT_TRUE(JoinBarriers()) << "this kernel has no membarrier";
  WatchAsk of_rings = Offer();
  of_rings.follows_rings = true;
  Watcher follower(*hub, of_rings);
  FollowLogReader reader = ReaderAt(Await(follower, Kind::kHandedOver));
  Watcher stream(*hub, Ask());
  Sync(stream);
  RingFollower rings(std::shared_ptr<Dict>(served, &served->dict()), reader.log());
  DictChange early;
  DictChange logged;
  for (int round = 0; round < 3; ++round) {
    Put("a", std::to_string(round));
    ASSERT_EQ(reader.Next(&logged), FollowLogReader::Found::kNothing);
    ASSERT_EQ(rings.Next(reader.revision(), &early), RingFollower::Found::kChange);
    WatchEvent event;
    ASSERT_EQ(Poll(stream, &event), Found::kEvent);
    EXPECT_EQ(event.revision, early.revision);
    ASSERT_EQ(reader.Next(&logged), FollowLogReader::Found::kChange);
    EXPECT_EQ(logged.revision, early.revision);
    EXPECT_EQ(logged.version, early.version);
    EXPECT_EQ(hub->Totals().early_changes, static_cast<uint64_t>(round) + 1);
  }
}

// For a change that was taken early nobody is woken again, but a little later: a writer may not
// have woken those who sleep.
TEST_F(WatchFollowTest, AWakeUpThatWasLeftOutIsMadeUpFor) {
  ASSERT_TRUE(JoinBarriers()) << "this kernel has no membarrier";
  WatchAsk of_rings = Offer();
  of_rings.follows_rings = true;
  Watcher follower(*hub, of_rings);
  FollowLogReader reader = ReaderAt(Await(follower, Kind::kHandedOver));
  const std::shared_ptr<const FollowLog> log = reader.log();
  RingFollower rings(std::shared_ptr<Dict>(served, &served->dict()), log);
  DictChange change;
  Put("a", "1");
  ASSERT_EQ(rings.Next(reader.revision(), &change), RingFollower::Found::kChange);
  while (hub->Turn() == 0) continue;
  ASSERT_EQ(hub->Totals().early_changes, 1u);

  std::atomic<bool> is_woken{false};
  std::thread sleeper([&] {
    const uint64_t began_ns = MonotonicNs();
    constexpr uint64_t kLongNs = 20'000'000'000;
    FutexWait(log->event(), log->event().load(), kLongNs);
    is_woken = MonotonicNs() - began_ns < kLongNs;
  });
  SleepNs(100'000'000);  // It sleeps.
  now_ns_ += WatchedDict::kOwedWakeNs - 1;
  while (hub->Turn() == 0) continue;
  SleepNs(20'000'000);
  EXPECT_FALSE(is_woken);
  now_ns_ += 1;
  while (hub->Turn() == 0) continue;
  sleeper.join();
  EXPECT_TRUE(is_woken);
}

}  // namespace
}  // namespace statehouse
