// Watches: snapshot, synced, changes; resumes; slow watchers; moves, gaps and restarts.
#include <array>
#include <random>

#include "engine/os/futex.h"
#include "service/watch/watch_hub_test_support.h"

namespace statehouse {
namespace {

TEST_F(WatchHubTest, ASnapshotThenSyncedThenChanges) {
  Put("a", "1");
  Put("b", "2");
  Start();
  Watcher watcher(*hub, Ask());
  WatchEvent event;
  Replayer replayer;
  ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, WatchEvent::Kind::kSnapshot);
  EXPECT_EQ(event.entries.size(), 2u);
  EXPECT_EQ(event.revision, 0u);
  replayer.Apply(event);
  ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, WatchEvent::Kind::kSynced);
  EXPECT_GT(event.revision, 0u);
  replayer.Apply(event);
  EXPECT_EQ(watcher.Next(&event, milliseconds(20)), Watch::Found::kNothing);
  Put("a", "3");
  Delete("b");
  while (replayer.changes < 2) {
    ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
    replayer.Apply(event);
  }
  ExpectIsTheDict(replayer);
  const WatchTotals totals = hub->Totals();
  EXPECT_EQ(totals.watches, 1u);
  EXPECT_EQ(totals.dicts, 1u);
  EXPECT_EQ(totals.changes, 2u);
}

TEST_F(WatchHubTest, AnEmptyDictIsSyncedToo) {
  Start();
  Watcher watcher(*hub, Ask());
  WatchEvent event;
  ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, WatchEvent::Kind::kSynced);
}

TEST_F(WatchHubTest, OneKeyAPrefixKindsAndNoSnapshot) {
  Put("web/a", "1");
  Put("web/b", "2");
  Put("db/a", "3");
  Start();
  WatchAsk one = Ask();
  one.key = "web/a";
  WatchAsk prefix = Ask();
  prefix.prefix = "web/";
  WatchAsk deletes = Ask();
  deletes.snapshot = false;
  deletes.kinds = 1u << static_cast<int>(FeedOperation::kDelete);
  std::array<Watcher*, 3> watchers = {new Watcher(*hub, one), new Watcher(*hub, prefix),
                                      new Watcher(*hub, deletes)};
  std::array<Replayer, 3> replayers;
  WatchEvent event;
  for (size_t i = 0; i < watchers.size(); ++i) {
    while (!replayers[i].synced) {
      ASSERT_EQ(watchers[i]->Next(&event), Watch::Found::kEvent);
      replayers[i].Apply(event);
    }
  }
  EXPECT_EQ(replayers[0].entries.size(), 1u);
  EXPECT_EQ(replayers[1].entries.size(), 2u);
  EXPECT_EQ(replayers[2].entries.size(), 0u);
  Put("db/a", "4");
  Put("web/a", "5");
  Put("web/ab", "6");
  Delete("web/b");
  ASSERT_EQ(watchers[0]->Next(&event), Watch::Found::kEvent);
  ASSERT_EQ(event.changes.size(), 1u);
  EXPECT_EQ(event.changes[0].change->change.bytes, "5");
  EXPECT_EQ(watchers[0]->Next(&event, milliseconds(20)), Watch::Found::kNothing);
  while (replayers[1].changes < 3) {
    ASSERT_EQ(watchers[1]->Next(&event), Watch::Found::kEvent);
    replayers[1].Apply(event);
  }
  ExpectIsTheDict(replayers[1], "web/");
  ASSERT_EQ(watchers[2]->Next(&event), Watch::Found::kEvent);
  ASSERT_EQ(event.changes.size(), 1u);
  EXPECT_EQ(event.changes[0].change->change.key, "web/b");
  for (Watcher* watcher : watchers) delete watcher;
}

TEST_F(WatchHubTest, AWatchGoesOnAfterItsLastRevisionAlsoInTheNextDaemon) {
  Start();
  std::mt19937_64 random(11);
  Replayer replayer;
  uint64_t count = 0;
  for (int round = 0; round < 60; ++round) {
    WatchAsk ask = Ask();
    if (replayer.revision != 0) ask.from_revision = replayer.revision;
    Watcher watcher(*hub, ask);
    replayer.synced = false;
    CatchUp(watcher, replayer);
    ExpectIsTheDict(replayer);
    for (uint64_t i = random() % 20; i > 0; --i) {
      const std::string key = "k" + std::to_string(random() % 10);
      if (random() % 4 == 0) {
        Delete(key);
      } else {
        Put(key, std::to_string(count++), 8 + random() % 3);
      }
    }
    WatchEvent event;
    // Some of what came, so that the next watch begins in the middle.
    if (random() % 2 == 0 && watcher.Next(&event, milliseconds(1)) == Watch::Found::kEvent) {
      replayer.Apply(event);
    }
    if (round % 3 == 2) Start();  // The next daemon.
  }
  EXPECT_EQ(replayer.resyncs, 0u);
}

TEST_F(WatchHubTest, RevisionsThatNobodyKnowsOrThatAreGoneMeanResync) {
  WatchHubOptions options;
  options.feed.log_bytes = kFeedLogBytesMin;
  Start(options);
  Replayer first;
  {
    Watcher watcher(*hub, Ask());
    CatchUp(watcher, first);
  }
  for (int i = 0; i < 3000; ++i) {
    Put("k" + std::to_string(i % 7), std::to_string(i));
    if (i % 100 == 99) SleepNs(2'000'000);
  }
  WatchAsk old = Ask();
  old.from_revision = first.revision;
  Replayer replayer;
  Watcher watcher(*hub, old);
  CatchUp(watcher, replayer);
  EXPECT_EQ(replayer.resyncs, 1u);
  EXPECT_EQ(replayer.last_reason, ResyncReason::kHistoryGone);
  ExpectIsTheDict(replayer);
  WatchAsk future = Ask();
  future.from_revision = replayer.revision + 1000;
  Replayer other;
  Watcher from_future(*hub, future);
  CatchUp(from_future, other);
  EXPECT_EQ(other.resyncs, 1u);
  EXPECT_EQ(other.last_reason, ResyncReason::kRevisionUnknown);
  ExpectIsTheDict(other);
}

TEST_F(WatchHubTest, AFollowedDictIsGivenUpAndLaterRevisionsAreHigher) {
  WatchHubOptions options;
  options.keep_ms = 30;
  Start(options);
  Replayer replayer;
  {
    Watcher watcher(*hub, Ask());
    CatchUp(watcher, replayer);
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (hub->Totals().dicts > 0 && std::chrono::steady_clock::now() < until) SleepNs(1'000'000);
  EXPECT_EQ(hub->Totals().dicts, 0u);
  EXPECT_TRUE(vault.Inherit("feed.").empty());
  WatchAsk again = Ask();
  again.from_revision = replayer.revision;
  Replayer later;
  Watcher watcher(*hub, again);
  CatchUp(watcher, later);
  EXPECT_EQ(later.resyncs, 1u);
  EXPECT_GT(later.revision, replayer.revision);
}

TEST_F(WatchHubTest, SlowWatchersAreTreatedAsTheyAsked) {
  WatchHubOptions options;
  options.feed.log_bytes = kFeedLogBytesMin;
  Start(options);
  WatchAsk latest = Ask();
  latest.slow_policy = SlowPolicy::kLatest;
  WatchAsk cancel = Ask();
  cancel.slow_policy = SlowPolicy::kCancel;
  Watcher resyncs(*hub, Ask());
  Watcher cancels(*hub, cancel);
  Replayer of_resyncs;
  Replayer of_cancels;
  CatchUp(resyncs, of_resyncs);
  CatchUp(cancels, of_cancels);
  // Never so fast that a ring is written over before the hub has read it.
  const auto write = [&](int changes) {
    WatchAsk ask = Ask();
    ask.key = "zz-mark";
    Watcher follower(*hub, ask);
    Replayer of_follower;
    for (int i = 0; i < changes; ++i) {
      Put("k" + std::to_string(i % 7), std::to_string(i));
      if (i % 100 == 99) CatchUp(follower, of_follower);
    }
    EXPECT_EQ(of_follower.resyncs, 0u);
  };
  write(4000);
  CatchUp(resyncs, of_resyncs);
  EXPECT_EQ(of_resyncs.resyncs, 1u);
  EXPECT_EQ(of_resyncs.last_reason, ResyncReason::kSlowWatcher);
  ExpectIsTheDict(of_resyncs);
  WatchEvent event;
  ASSERT_EQ(cancels.Next(&event), Watch::Found::kEnd);
  EXPECT_EQ(cancels.status().reason(), Reason::kLimitExceeded);
  EXPECT_EQ(hub->Totals().resyncs[static_cast<size_t>(ResyncReason::kSlowWatcher)], 1u);

  options.feed.log_bytes = 4 << 20;
  hub->Shutdown();
  for (const auto& [name, fd] : vault.Inherit("feed.")) ASSERT_TRUE(vault.Remove(name).ok());
  Start(options);
  Watcher latest_watcher(*hub, latest);
  Replayer of_latest;
  CatchUp(latest_watcher, of_latest);
  write(4000);
  const uint64_t before = of_latest.changes;
  CatchUp(latest_watcher, of_latest);
  EXPECT_EQ(of_latest.resyncs, 0u);
  EXPECT_LT(of_latest.changes - before, 4000u);
  EXPECT_GT(hub->Totals().coalesced, 0u);
  ExpectIsTheDict(of_latest);
}

TEST_F(WatchHubTest, AnOverrunIsToldToEveryWatcher) {
  Start();
  Watcher watcher(*hub, Ask());
  Replayer replayer;
  CatchUp(watcher, replayer);
  // The hub cannot follow what it does not get to see: the ring is written over many times at once.
  for (int round = 0; round < 100 && replayer.resyncs == 0; ++round) {
    for (int i = 0; i < 20'000; ++i) Put("k" + std::to_string(i % 7), std::to_string(i));
    CatchUp(watcher, replayer);
  }
  EXPECT_GT(replayer.resyncs, 0u);
  EXPECT_EQ(replayer.last_reason, ResyncReason::kOverrun);
  EXPECT_GT(hub->Totals().gaps, 0u);
  ExpectIsTheDict(replayer);
}

TEST_F(WatchHubTest, AGrowingDictIsFollowedAClearedOneIsToldAndADeletedOneEnds) {
  Start();
  Watcher watcher(*hub, Ask());
  Replayer replayer;
  Put("a", "1");
  CatchUp(watcher, replayer);
  ASSERT_TRUE(store->MoveDict(At(3), served, DictStore::Move::kGrow).ok());
  served = *store->Find("d");
  Put("b", "2");
  CatchUp(watcher, replayer);
  EXPECT_EQ(replayer.resyncs, 0u);
  EXPECT_EQ(replayer.entries.count("b"), 1u);
  uint64_t entries = 0;
  bool cleared = false;
  ASSERT_TRUE(store->ClearDict(At(3), served, &entries, &cleared).ok());
  served = *store->Find("d");
  CatchUp(watcher, replayer);
  EXPECT_EQ(replayer.resyncs, 1u);
  EXPECT_EQ(replayer.last_reason, ResyncReason::kReplaced);
  ExpectIsTheDict(replayer);
  ASSERT_TRUE(store->Delete("d").ok());
  WatchEvent event;
  Watch::Found found = Watch::Found::kEvent;
  while (found == Watch::Found::kEvent) found = watcher.Next(&event);
  EXPECT_EQ(found, Watch::Found::kEnd);
  EXPECT_EQ(watcher.status().reason(), Reason::kDictNotFound);
}

// A look that follows a dict has not seen what the next segment has.
TEST_F(WatchHubTest, SyncedComesAfterWhatAMovedDictHasAlready) {
  WatchHubOptions options;
  options.has_thread = false;
  Start(options);
  Replayer replayer;
  WatchAsk ask = Ask();
  const auto sync = [&] {
    Watcher watcher(*hub, ask);
    replayer.synced = false;
    WatchEvent event;
    while (!replayer.synced) {
      if (watcher.TryNext(&event) == Watch::Found::kEvent) {
        replayer.Apply(event);
      } else {
        hub->Turn();
      }
    }
    ask.from_revision = replayer.revision;
  };
  sync();
  ASSERT_TRUE(store->MoveDict(At(3), served, DictStore::Move::kGrow).ok());
  served = *store->Find("d");
  Put("late", "1");

  sync();

  ExpectIsTheDict(replayer);
}

TEST_F(WatchHubTest, ValuesThatTheHistoryCannotKeepAreTakenFromTheirEntries) {
  constexpr size_t kMessageBytesMax = 8 << 20;
  WatchHubOptions options;
  options.feed.log_bytes = kFeedLogBytesMin;
  Start(options);
  Watcher watcher(*hub, Ask());
  Replayer replayer;
  CatchUp(watcher, replayer);
  const std::string large(kDictValueBytesMax, 'x');
  for (int i = 0; i < 12; ++i) Put("large" + std::to_string(i), large);
  uint64_t with_value = 0;
  for (uint64_t changes = 0; changes < 12;) {
    WatchEvent event;
    ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
    size_t bytes = 0;
    for (const WatchEvent::Told& told : event.changes) {
      bytes += told.change->change.bytes.size();
      with_value += told.change->change.value_gone ? 0 : 1;
    }
    EXPECT_LE(bytes, kMessageBytesMax);
    changes += event.changes.size();
  }
  EXPECT_GT(with_value, 0u);
}

TEST_F(WatchHubTest, ProgressComesWhenAskedForAndNothingHappens) {
  Start();
  WatchAsk ask = Ask();
  ask.key = "mine";
  ask.progress_ms = kProgressMsMin;
  Watcher watcher(*hub, ask);
  Replayer replayer;
  WatchEvent event;
  while (replayer.progress < 1) {
    ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
    replayer.Apply(event);
  }
  const uint64_t before = replayer.revision;
  for (int i = 0; i < 5; ++i) Put("another", "x");
  while (replayer.progress < 3) {
    ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
    replayer.Apply(event);
  }
  EXPECT_EQ(replayer.revision, before + 5);
  EXPECT_EQ(replayer.changes, 0u);
}

TEST_F(WatchHubTest, LimitsGrantsAndTheEnd) {
  WatchHubOptions options;
  options.watches_max = 2;
  Start(options);
  WatchAsk ask = Ask();
  ask.identity = std::make_shared<const Identity>("token", "", 0, std::vector<Grant>());
  auto first = std::make_unique<Watcher>(*hub, ask);
  Watcher second(*hub, Ask());
  const Status refused = hub->Open(Ask(), [] {}).status();
  EXPECT_EQ(refused.reason(), Reason::kLimitExceeded);
  EXPECT_EQ(refused.retry_after_ms(), kWatchesFullRetryMs);
  Replayer replayer;
  CatchUp(*first, replayer);
  hub->Recheck([](const Identity&, const std::string&) {
    return Status(Reason::kPermissionDenied, "not any more");
  });
  WatchEvent event;
  ASSERT_EQ(first->Next(&event), Watch::Found::kEnd);
  EXPECT_EQ(first->status().reason(), Reason::kPermissionDenied);
  first.reset();
  EXPECT_EQ(hub->Open(ask, [] {}).status().reason(), Reason::kPermissionDenied);
  Replayer other;
  CatchUp(second, other);
  hub->Shutdown();
  ASSERT_EQ(second.Next(&event), Watch::Found::kEnd);
  EXPECT_EQ(second.status().reason(), Reason::kDraining);
  EXPECT_EQ(hub->Open(Ask(), [] {}).status().reason(), Reason::kDraining);
}

}  // namespace
}  // namespace statehouse
