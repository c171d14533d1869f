// What a watch is told last: before its dict is deleted, and before the service that drains ends
// it.
#include "service/watch/watch_hub_test_support.h"

namespace statehouse {
namespace {

TEST_F(WatchTurnTest, ADrainSaysFromWhereToGoOnUnlessThatWasTold) {
  WatchAsk ask = Ask();
  ask.key = "mine";
  Watcher quiet(*hub, ask);
  Sync(quiet);
  Watcher busy(*hub, Ask());
  Sync(busy);
  Put("other", "1");
  const uint64_t last = Await(busy, WatchEvent::Kind::kChanges).revision;
  WatchEvent event;
  hub->Shutdown();
  // Its own last event is older.
  ASSERT_EQ(quiet.Next(&event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, WatchEvent::Kind::kProgress);
  EXPECT_EQ(event.revision, last);
  for (Watcher* const watcher : {&quiet, &busy}) {
    EXPECT_EQ(watcher->Next(&event), Watch::Found::kEnd);
    EXPECT_EQ(watcher->status().reason(), Reason::kDraining);
  }
}

TEST_F(WatchTurnTest, WhatChangedBeforeADictWasDeletedIsToldFirst) {
  WatchAsk ask = Ask();
  ask.window_ns = kWatchWindowMsMax * 1'000'000;
  Watcher watcher(*hub, ask);
  Sync(watcher);
  Put("a", "1");
  EXPECT_EQ(Await(watcher, WatchEvent::Kind::kChanges).changes.size(), 1u);
  for (int i = 0; i < 1000; ++i) Put("a", std::to_string(i));
  ASSERT_TRUE(store->Delete("d").ok());
  (void)hub->Turn();
  WatchEvent event;
  size_t told = 0;
  Watch::Found found = watcher.Next(&event);
  for (; found == Watch::Found::kEvent; found = watcher.Next(&event)) {
    ASSERT_EQ(event.kind, WatchEvent::Kind::kChanges);
    told += event.changes.size();
  }
  EXPECT_EQ(found, Watch::Found::kEnd);
  EXPECT_EQ(told, 1000u);
  EXPECT_EQ(watcher.status().reason(), Reason::kDictNotFound);
}

TEST_F(WatchTurnTest, PreviousValuesAreToldBeforeADeletionToo) {
  WatchAsk ask = Ask();
  ask.previous = true;
  Watcher watcher(*hub, ask);
  Sync(watcher);
  for (int i = 1; i <= 6; ++i) Put("a", std::to_string(i));
  ASSERT_TRUE(store->Delete("d").ok());
  (void)hub->Turn();
  WatchEvent event;
  ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
  ASSERT_EQ(event.changes.size(), 6u);
  EXPECT_EQ(watcher.Next(&event), Watch::Found::kEnd);
  EXPECT_EQ(watcher.status().reason(), Reason::kDictNotFound);
}

class StalledWatchTest : public WatchTurnTest {
 protected:
  // Deletes the dict, of which the watcher has yet to take 1,000 changes.
  void Delete(Watcher& watcher) {
    Sync(watcher);
    for (int i = 0; i < 1000; ++i) Put("a", std::to_string(i));
    (void)hub->Turn();
    ASSERT_TRUE(store->Delete("d").ok());
    (void)hub->Turn();
  }
};

TEST_F(StalledWatchTest, IsCountedAndHearsThatItsTokenWasRevoked) {
  WatchHubOptions options;
  options.watches_max = 1;
  StartWith(options);
  WatchAsk ask = Ask();
  ask.identity = std::make_shared<const Identity>("one", "", 0, std::vector<Grant>());
  Watcher watcher(*hub, ask);
  Delete(watcher);
  EXPECT_EQ(hub->Totals().watches, 1u);
  EXPECT_EQ(hub->Totals().dicts, 0u);
  EXPECT_EQ(hub->Open(Ask(), [] {}).status().reason(), Reason::kLimitExceeded);
  hub->Recheck([](const Identity&, const std::string& dict) {
    EXPECT_EQ(dict, "d");
    return Status(Reason::kUnauthenticated, "it was revoked");
  });
  WatchEvent event;
  EXPECT_EQ(watcher.Next(&event), Watch::Found::kEnd);
  EXPECT_EQ(watcher.status().reason(), Reason::kUnauthenticated);
}

TEST_F(StalledWatchTest, NothingIsKeptForItAfterAWhileAndItIsToldSo) {
  Watcher watcher(*hub, Ask());
  Delete(watcher);
  now_ns_ += WatchHub::kLastWordsNs - 1;
  (void)hub->Turn();
  EXPECT_EQ(hub->Totals().history_changes, 1000u);
  now_ns_ += 1;
  (void)hub->Turn();
  EXPECT_EQ(hub->Totals().history_changes, 0u);
  WatchEvent event;
  ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, WatchEvent::Kind::kResync);
  EXPECT_EQ(watcher.Next(&event), Watch::Found::kEnd);
  EXPECT_EQ(watcher.status().reason(), Reason::kDictNotFound);
}

TEST_F(StalledWatchTest, ThatIsToEndWhereItFallsBehindSaysSo) {
  WatchAsk ask = Ask();
  ask.slow_policy = SlowPolicy::kCancel;
  Watcher watcher(*hub, ask);
  Delete(watcher);
  now_ns_ += WatchHub::kLastWordsNs;
  (void)hub->Turn();
  WatchEvent event;
  EXPECT_EQ(watcher.Next(&event), Watch::Found::kEnd);
  EXPECT_EQ(watcher.status().reason(), Reason::kLimitExceeded);
}

TEST_F(StalledWatchTest, ThatIsClosedLeavesNothing) {
  {
    Watcher watcher(*hub, Ask());
    Delete(watcher);
  }
  (void)hub->Turn();
  EXPECT_EQ(hub->Totals().watches, 0u);
  EXPECT_EQ(hub->Totals().history_changes, 0u);
}

}  // namespace
}  // namespace statehouse
