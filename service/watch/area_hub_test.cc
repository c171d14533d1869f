// Watches of areas: snapshot, synced, exact parts, windows, resumes, limits and ends. The replayers
// and the seeded bugs are in area_replay_test.cc.
#include "service/watch/area_hub_test_support.h"

namespace statehouse {
namespace {

using Kind = AreaWatchEvent::Kind;
using Parts = std::vector<AreaPart>;

Parts PartsOf(const AreaWatchEvent& event) {
  Parts parts;
  for (const AreaWatchEvent::Told& told : event.parts) parts.push_back(told.part);
  return parts;
}

TEST_F(AreaTurnTest, ASnapshotThenSyncedThenExactlyWhatChanged) {
  Write(10, "hello");
  AreaWatcher watcher(*hub, Ask(8, 100));
  AreaWatchEvent event;
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kSnapshot);
  ASSERT_EQ(event.parts.size(), 1u);
  EXPECT_EQ(event.parts[0].part, (AreaPart{8, 100}));
  EXPECT_EQ(event.parts[0].bytes, std::string(2, '\0') + "hello" + std::string(93, '\0'));
  EXPECT_FALSE(event.updates.has_value());
  EXPECT_FALSE(event.more);
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kSynced);
  EXPECT_EQ(event.updates, 1u);
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  Write(11, "E");
  Write(70, "xyz");  // Over the edge of two cells.
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kChanges);
  EXPECT_EQ(PartsOf(event), (Parts{{11, 1}, {70, 3}}));
  EXPECT_EQ(event.parts[1].bytes, "xyz");
  EXPECT_EQ(event.updates, 3u);
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  EXPECT_EQ(hub->Totals().changes, 1u);
  EXPECT_EQ(hub->Totals().coalesced, 1u);
  EXPECT_EQ(hub->Totals().watches, 1u);
}

TEST_F(AreaTurnTest, WhatChangesNoByteOrAnotherRangeIsNotTold) {
  AreaWatcher watcher(*hub, Ask(0, 64));
  Sync(watcher);
  AreaWatchEvent event;
  Write(0, std::string(64, '\0'));
  Write(0, "");
  Write(100, "neighbour");
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  EXPECT_EQ(hub->Totals().lag_updates, 3u);
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  EXPECT_EQ(hub->Totals().lag_updates, 0u);
}

TEST_F(AreaTurnTest, ManySmallPartsOfACellAreTwo) {
  AreaWatcher watcher(*hub, Ask(0, 64));
  Sync(watcher);
  AreaWatchEvent event;
  for (const uint64_t pos : {3, 9, 20, 40}) Write(pos, "x");
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(PartsOf(event), (Parts{{3, 1}, {9, 32}}));
  Write(0, std::string(64, 'y'));
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(PartsOf(event), (Parts{{0, 64}}));
}

TEST_F(AreaTurnTest, AWindowMakesOneEventAndTheLastChangeIsTold) {
  AreaWatchAsk ask = Ask(0, 8);
  ask.window_ns = kWatchWindowMsMax * 1'000'000;
  AreaWatcher watcher(*hub, ask);
  Sync(watcher);
  AreaWatchEvent event;
  now_ns_ += ask.window_ns;
  Write(0, "1");
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);  // At once: the window was over.
  EXPECT_EQ(event.parts[0].bytes, "1");
  for (const char* text : {"2", "3"}) {
    Write(0, text);
    EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  }
  now_ns_ += ask.window_ns - 1;
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  EXPECT_LE(hub->Turn(), now_ns_ + 1);
  now_ns_ += 1;
  hub->Turn();
  ASSERT_TRUE(watcher.TakeNotified());
  ASSERT_EQ(watcher.watch().Poll(&event), Watch::Found::kEvent);
  EXPECT_EQ(event.parts[0].bytes, "3");
  EXPECT_EQ(hub->Totals().coalesced, 1u);
}

TEST_F(AreaTurnTest, NobodyIsArmedWhileNobodyWaits) {
  AreaWatcher watcher(*hub, Ask());
  Sync(watcher);
  AreaWatchEvent event;
  Write(0, "1");
  EXPECT_EQ(AreaInternals::Record(served->area(), 8).wakes.load(), 0u);
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  hub->Turn();
  Write(0, "2");  // The watcher has not come back for more.
  EXPECT_EQ(AreaInternals::Record(served->area(), 8).wakes.load(), 0u);
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  Write(0, "3");
  EXPECT_EQ(AreaInternals::Record(served->area(), 8).wakes.load(), 1u);
  Write(0, "4");
  EXPECT_EQ(AreaInternals::Record(served->area(), 8).wakes.load(), 1u);
}

TEST_F(AreaTurnTest, AWatchGoesOnFromItsUpdatesWithWhatChanged) {
  AreaReplayer replayer({0, kSize});
  AreaWatchAsk ask = Ask();
  {
    AreaWatcher watcher(*hub, ask);
    Sync(watcher, &replayer);
  }
  ask.from_updates = replayer.updates;
  ask.from_incarnation = IncarnationOf(*served);
  AreaWatchEvent event;
  {
    AreaWatcher same(*hub, ask);  // Nothing happened: nothing but `synced`.
    ASSERT_EQ(Poll(same, &event), Watch::Found::kEvent);
    EXPECT_EQ(event.kind, Kind::kSynced);
  }
  Write(5000, "later");
  AreaWatcher later(*hub, ask);
  ASSERT_EQ(Poll(later, &event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kChanges);
  EXPECT_EQ(PartsOf(event), (Parts{{5000, 5}}));
  ASSERT_EQ(Poll(later, &event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kSynced);
  // The next daemon knows only that something changed, and tells all of it.
  StartWith({});
  AreaWatcher next(*hub, ask);
  ASSERT_EQ(Poll(next, &event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kChanges);
  EXPECT_EQ(PartsOf(event), (Parts{{0, kSize}}));
  ask.from_updates = event.updates;
  AreaWatcher same(*hub, ask);
  ASSERT_EQ(Poll(same, &event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kSynced);
}

TEST_F(AreaTurnTest, UpdatesOfAnotherAreaMeanResync) {
  AreaWatchAsk ask = Ask(0, 64);
  ask.from_updates = 0;
  ask.from_incarnation = IncarnationOf(*served) - 1;
  AreaWatcher other(*hub, ask);
  AreaWatchEvent event;
  for (const Kind kind : {Kind::kResync, Kind::kSnapshot, Kind::kSynced}) {
    ASSERT_EQ(Poll(other, &event), Watch::Found::kEvent);
    EXPECT_EQ(event.kind, kind);
    if (kind != Kind::kResync) continue;
    EXPECT_EQ(event.reason, ResyncReason::kReplaced);
  }
  ask.from_incarnation = 0;
  ask.from_updates = 1;
  ask.snapshot = false;
  AreaWatcher unknown(*hub, ask);
  for (const Kind kind : {Kind::kResync, Kind::kSynced}) {
    ASSERT_EQ(Poll(unknown, &event), Watch::Found::kEvent);
    EXPECT_EQ(event.kind, kind);
    if (kind != Kind::kResync) continue;
    EXPECT_EQ(event.reason, ResyncReason::kRevisionUnknown);
  }
  EXPECT_EQ(hub->Totals().resyncs[static_cast<size_t>(ResyncReason::kReplaced)], 1u);
}

TEST_F(AreaTurnTest, RangesOnlyNoSnapshotAndProgress) {
  AreaWatchAsk ask = Ask(0, 4096);
  ask.ranges_only = true;
  ask.progress_ms = kProgressMsMin;
  AreaWatcher watcher(*hub, ask);
  AreaWatchEvent event;
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kSynced);
  Write(7, "abc");
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(PartsOf(event), (Parts{{7, 3}}));
  EXPECT_EQ(event.parts[0].bytes, "");
  Write(7, "abc");
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  now_ns_ += kProgressMsMin * 1'000'000;
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kProgress);
  EXPECT_EQ(event.updates, 2u);
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
}

TEST_F(AreaTurnTest, LongEventsComeInPieces) {
  AreaWatchAsk ask = Ask();
  ask.piece_bytes = 4096;
  AreaReplayer replayer(ask.part);
  AreaWatcher watcher(*hub, ask);
  Sync(watcher, &replayer);
  EXPECT_EQ(replayer.snapshots, kSize / 4096);
  Write(100, std::string(10'000, 'x'));
  AreaWatchEvent event;
  for (const bool more : {true, true, false}) {
    ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
    EXPECT_EQ(event.more, more);
    EXPECT_EQ(event.updates.has_value(), !more);
    replayer.Apply(event);
    // What changes between two pieces is told, now or later.
    if (more) Write(9000, std::string(10, more ? 'y' : 'z'));
  }
  while (Poll(watcher, &event) == Watch::Found::kEvent) replayer.Apply(event);
  EXPECT_EQ(replayer.bytes, Now(ask.part));
}

TEST_F(AreaTurnTest, WithoutACopyStripesAreTold) {
  AreaHubOptions options;
  options.copy_bytes_max = WatchedRange::CopyCost(64);
  StartWith(options);
  AreaWatcher small(*hub, Ask(0, 64));  // At the limit.
  AreaWatchAsk ask = Ask(100, 20'000);  // Beyond it.
  ask.piece_bytes = 3000;
  AreaReplayer replayer(ask.part);
  AreaWatcher large(*hub, ask);
  Sync(small);
  Sync(large, &replayer);
  EXPECT_EQ(hub->Totals().copy_bytes, options.copy_bytes_max);
  Write(5000, "x");
  AreaWatchEvent event;
  ASSERT_EQ(Poll(large, &event), Watch::Found::kEvent);
  EXPECT_EQ(PartsOf(event), (Parts{{4096, 3000}}));
  EXPECT_TRUE(event.more);
  replayer.Apply(event);
  ASSERT_EQ(Poll(large, &event), Watch::Found::kEvent);
  EXPECT_EQ(PartsOf(event), (Parts{{7096, 1096}}));
  replayer.Apply(event);
  EXPECT_EQ(replayer.bytes, Now(ask.part));
  // A range that is longer than any copy may be.
  served = Make("long", kAreaCopyRangeBytesMax + 1);
  StartWith({});
  AreaWatcher longest(*hub, Ask(0, kAreaCopyRangeBytesMax));
  EXPECT_EQ(hub->Totals().copy_bytes, WatchedRange::CopyCost(kAreaCopyRangeBytesMax));
  AreaWatcher longer(*hub, Ask(0, kAreaCopyRangeBytesMax + 1));
  EXPECT_EQ(hub->Totals().copy_bytes, WatchedRange::CopyCost(kAreaCopyRangeBytesMax));
  EXPECT_EQ(hub->Totals().ranges, 2u);
}

TEST_F(AreaTurnTest, IdleRangesMakeRoomAndAreForgotten) {
  AreaHubOptions options;
  options.copy_bytes_max = WatchedRange::CopyCost(64);
  options.keep_ms = 10;
  StartWith(options);
  { AreaWatcher first(*hub, Ask(0, 64)); }
  EXPECT_EQ(hub->Totals().ranges, 1u);
  { AreaWatcher second(*hub, Ask(64, 64)); }
  EXPECT_EQ(hub->Totals().ranges, 1u);
  EXPECT_EQ(hub->Totals().copy_bytes, options.copy_bytes_max);
  now_ns_ += options.keep_ms * 1'000'000 - 1;
  EXPECT_EQ(hub->Turn(), now_ns_ + 1);
  EXPECT_EQ(hub->Totals().ranges, 1u);
  now_ns_ += 1;
  hub->Turn();
  EXPECT_EQ(hub->Totals().ranges, 0u);
  EXPECT_EQ(hub->Totals().copy_bytes, 0u);
}

TEST_F(AreaTurnTest, AHeldStripeIsWaitedForAndOthersAreToldMeanwhile) {
  AreaReplayer replayer({0, kSize});
  AreaWatcher watcher(*hub, Ask());
  Sync(watcher, &replayer);
  AreaWatchEvent event;
  StripeLine& held = AreaInternals::Stripe(served->area(), 3);
  held.control.fetch_add(9);  // Lane 9 is inside and does not move.
  Write(0, "x");
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(PartsOf(event), (Parts{{0, 1}}));
  EXPECT_EQ(Poll(watcher, &event), Watch::Found::kNothing);
  EXPECT_LE(hub->Turn(), now_ns_ + 10'000'000);  // It looks again by time.
  std::byte* const bytes = served->area().data() + 3 * kStripeBytesMin;
  *bytes = std::byte{'y'};
  held.control.fetch_add((uint64_t{1} << kLaneBits) - 9);
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(PartsOf(event), (Parts{{3 * kStripeBytesMin, 1}}));
}

TEST_F(AreaTurnTest, SomebodyWhoIsStuckWithNewsHoldsHisStripeBackAndNoOther) {
  AreaReplayer replayer({0, 4 * kStripeBytesMin});
  AreaWatcher watcher(*hub, Ask(0, 4 * kStripeBytesMin));
  Sync(watcher, &replayer);
  Write(2 * kStripeBytesMin, "x");
  Write(3 * kStripeBytesMin, "y");
  AreaInternals::Stripe(served->area(), 3).control.fetch_add(9);  // Lane 9 does not move.
  AreaWatchEvent event;
  Watch::Found found = Watch::Found::kNothing;
  for (int i = 0; i < 200 && found == Watch::Found::kNothing; ++i) found = Poll(watcher, &event);
  ASSERT_EQ(found, Watch::Found::kEvent);
  EXPECT_EQ(PartsOf(event), (Parts{{2 * kStripeBytesMin, 1}}));
}

TEST_F(AreaTurnTest, LimitsGrantsAndTheEnd) {
  AreaHubOptions options;
  options.watches_max = 2;
  StartWith(options);
  AreaWatchAsk ask = Ask();
  ask.identity = std::make_shared<const Identity>("token", "", 0, std::vector<Grant>());
  auto first = std::make_unique<AreaWatcher>(*hub, ask);
  AreaWatcher second(*hub, Ask());
  const Status refused = hub->Open(Ask(), [] {}).status();
  EXPECT_EQ(refused.reason(), Reason::kLimitExceeded);
  EXPECT_EQ(refused.retry_after_ms(), kWatchesFullRetryMs);
  Sync(*first);
  Sync(second);
  hub->Recheck([](const Identity&, const std::string&) {
    return Status(Reason::kPermissionDenied, "not any more");
  });
  AreaWatchEvent event;
  ASSERT_EQ(Poll(*first, &event), Watch::Found::kEnd);
  EXPECT_EQ(first->status().reason(), Reason::kPermissionDenied);
  first.reset();
  EXPECT_EQ(hub->Open(ask, [] {}).status().reason(), Reason::kPermissionDenied);
  EXPECT_EQ(Poll(second, &event), Watch::Found::kNothing);
  ASSERT_TRUE(engine->DeleteArea("a").ok());
  hub->Turn();
  EXPECT_TRUE(second.TakeNotified());
  ASSERT_EQ(second.watch().Poll(&event), Watch::Found::kEnd);
  EXPECT_EQ(second.status().reason(), Reason::kAreaNotFound);
  served = Make("a", kSize);
  AreaWatcher third(*hub, Ask());
  Sync(third);
  hub->Shutdown();
  ASSERT_EQ(third.watch().Poll(&event), Watch::Found::kEnd);
  EXPECT_EQ(third.status().reason(), Reason::kDraining);
  EXPECT_EQ(hub->Open(Ask(), [] {}).status().reason(), Reason::kDraining);
}

TEST_F(AreaHubTest, AWaitingWatchIsWokenByAWriteAndByADelete) {
  Start();
  AreaReplayer one({0, 64});
  AreaReplayer all({0, kSize});
  AreaWatcher of_one(*hub, Ask(0, 64));
  AreaWatcher of_all(*hub, Ask());
  CatchUp(of_one, one);
  CatchUp(of_all, all);
  for (int i = 0; i < 200; ++i) {
    Write(i % 64, std::to_string(i % 10));
    CatchUp(of_one, one);
    CatchUp(of_all, all);
  }
  ASSERT_TRUE(engine->DeleteArea("a").ok());
  AreaWatchEvent event;
  for (AreaWatcher* watcher : {&of_one, &of_all}) {
    Watch::Found found = Watch::Found::kEvent;
    while (found == Watch::Found::kEvent) found = watcher->Next(&event);
    EXPECT_EQ(found, Watch::Found::kEnd);
    EXPECT_EQ(watcher->status().reason(), Reason::kAreaNotFound);
  }
}

TEST_F(AreaHubTest, MoreRangesThanItCanSleepOn) {
  Start();
  std::vector<std::unique_ptr<AreaWatcher>> watchers;
  std::vector<std::unique_ptr<AreaReplayer>> replayers;
  std::vector<std::shared_ptr<ServedArea>> areas;
  constexpr int kAreas = 140;
  for (int i = 0; i < kAreas; ++i) {
    served = Make("many" + std::to_string(i), 64);
    areas.push_back(served);
    watchers.push_back(std::make_unique<AreaWatcher>(*hub, Ask(0, 64)));
    replayers.push_back(std::make_unique<AreaReplayer>(AreaPart{0, 64}));
    CatchUp(*watchers.back(), *replayers.back());
  }
  for (int i = 0; i < kAreas; ++i) {
    served = areas[i];
    Write(0, "x");
    CatchUp(*watchers[i], *replayers[i]);
  }
}

}  // namespace
}  // namespace statehouse
