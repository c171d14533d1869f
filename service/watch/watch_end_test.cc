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

}  // namespace
}  // namespace statehouse
