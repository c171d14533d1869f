// A watch of one key sleeps while only other keys change, and costs nothing meanwhile; whatever
// concerns it wakes it, and it is told as if it had looked at everything.
#include "service/watch/watch_hub_test_support.h"

namespace statehouse {
namespace {

constexpr uint32_t kSleepers = 50;

class WatchSleepTest : public WatchHubTest {
 protected:
  void SetUp() override {
    WatchHubTest::SetUp();
    WatchHubOptions options;
    options.has_thread = false;
    options.feed.log_bytes = kFeedLogBytesMin;
    Start(options);
  }

  // A live watch of a key.
  std::unique_ptr<Watcher> Live(const std::string& key, WatchAsk ask) {
    ask.key = key;
    auto watcher = std::make_unique<Watcher>(*hub, ask);
    WatchEvent event;
    for (int turn = 0; turn < 100; ++turn) {
      while (watcher->TryNext(&event) == Watch::Found::kEvent) {
        if (event.kind != WatchEvent::Kind::kSynced) continue;
        EXPECT_EQ(watcher->TryNext(&event), Watch::Found::kNothing);
        return watcher;
      }
      hub->Turn();
    }
    ADD_FAILURE() << "the watch of " << key << " is not live";
    return watcher;
  }
  std::unique_ptr<Watcher> Live(const std::string& key) { return Live(key, Ask()); }

  // As many batches as it takes until whoever may sleep does.
  void ChangeOthers() {
    for (int i = 0; i < 8; ++i) {
      Put("other", std::to_string(i));
      hub->Turn();
    }
  }

  void ExpectTold(Watcher& watcher, const std::string& key, const std::string& value) {
    WatchEvent event;
    ASSERT_EQ(watcher.TryNext(&event), Watch::Found::kEvent) << key;
    ASSERT_EQ(event.kind, WatchEvent::Kind::kChanges) << key;
    ASSERT_EQ(event.changes.size(), 1u) << key;
    EXPECT_EQ(event.changes[0].change->change.key, key);
    EXPECT_EQ(event.changes[0].change->change.bytes, value);
    EXPECT_GE(event.revision, event.changes[0].change->change.revision);
    EXPECT_EQ(watcher.TryNext(&event), Watch::Found::kNothing) << key;
  }
};

TEST_F(WatchSleepTest, OnlyAChangeOfItsKeyWakesASleeper) {
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (uint32_t i = 0; i < kSleepers; ++i) watchers.push_back(Live("k" + std::to_string(i)));
  const auto twin = Live("k7");
  ChangeOthers();
  ASSERT_EQ(hub->Totals().asleep, kSleepers + 1);
  EXPECT_EQ(hub->Totals().lag_revisions, 0u);

  Put("k7", "seven");
  Put("other", "between");
  Put("k8", "eight");
  hub->Turn();

  EXPECT_EQ(hub->Totals().asleep, kSleepers - 2);
  ExpectTold(*watchers[7], "k7", "seven");
  ExpectTold(*twin, "k7", "seven");
  ExpectTold(*watchers[8], "k8", "eight");
  for (uint32_t i = 0; i < kSleepers; ++i)
    EXPECT_FALSE(i != 7 && i != 8 && watchers[i]->is_notified());
  ChangeOthers();
  EXPECT_EQ(hub->Totals().asleep, kSleepers + 1);
}

TEST_F(WatchSleepTest, ASleeperThatLooksByItselfMissesNothing) {
  const auto watcher = Live("k");
  ChangeOthers();
  ASSERT_EQ(hub->Totals().asleep, 1u);
  WatchEvent event;

  // Without being notified.
  ASSERT_EQ(watcher->Next(&event, milliseconds(0)), Watch::Found::kNothing);

  EXPECT_EQ(hub->Totals().asleep, 0u);
  Put("k", "mine");
  hub->Turn();
  ExpectTold(*watcher, "k", "mine");
}

TEST_F(WatchSleepTest, TheHistoryMayLeaveItsPlaceBehind) {
  const auto watcher = Live("k");
  ChangeOthers();
  ASSERT_EQ(hub->Totals().asleep, 1u);
  const std::string large(4000, 'x');
  for (uint64_t bytes = 0; bytes < 2 * kFeedLogBytesMin; bytes += large.size()) {
    Put("other", large);
    hub->Turn();
  }

  Put("k", "mine");
  hub->Turn();

  ExpectTold(*watcher, "k", "mine");
}

TEST_F(WatchSleepTest, AGapAndTheEndOfTheDictConcernEverySleeper) {
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (uint32_t i = 0; i < kSleepers; ++i) watchers.push_back(Live("k" + std::to_string(i)));
  ChangeOthers();
  ASSERT_EQ(hub->Totals().asleep, kSleepers);

  // More than a ring holds, between two looks.
  for (int i = 0; i < 10'000; ++i) Put("other", std::to_string(i));
  hub->Turn();

  WatchEvent event;
  for (const auto& watcher : watchers) {
    ASSERT_TRUE(watcher->is_notified());
    ASSERT_EQ(watcher->TryNext(&event), Watch::Found::kEvent);
    EXPECT_EQ(event.kind, WatchEvent::Kind::kResync);
    for (int turn = 0; turn < 100 && event.kind != WatchEvent::Kind::kSynced; ++turn) {
      if (watcher->TryNext(&event) != Watch::Found::kEvent) hub->Turn();
    }
    EXPECT_EQ(watcher->TryNext(&event), Watch::Found::kNothing);
  }
  ChangeOthers();
  ASSERT_EQ(hub->Totals().asleep, kSleepers);
  ASSERT_TRUE(store->Delete(served->record().name).ok());
  hub->Turn();
  for (const auto& watcher : watchers) {
    EXPECT_EQ(watcher->TryNext(&event), Watch::Found::kEnd);
    EXPECT_EQ(watcher->status().reason(), Reason::kDictNotFound);
  }
}

// Else the hub would take the rings' cache lines from their writers all the time.
TEST_F(WatchSleepTest, AStormIsReadInStrides) {
  const auto watcher = Live("k");
  while (hub->Turn() == 0) continue;
  int at_once = 0;
  for (; at_once < 100; ++at_once) {
    Put("other", "again");
    if (hub->Turn() != 0) break;
  }
  EXPECT_EQ(at_once, 4);
  Put("k", "mine");
  const uint64_t before_ns = MonotonicNs();
  const uint64_t next_ns = hub->Turn();
  EXPECT_GE(next_ns, before_ns + 100'000);
  EXPECT_LE(next_ns, MonotonicNs() + 100'000);
  ExpectTold(*watcher, "k", "mine");
  // Nothing came: it is over, and the next change wakes the hub.
  EXPECT_GT(hub->Turn(), MonotonicNs() + 10'000'000);
  Put("other", "again");
  EXPECT_EQ(hub->Turn(), 0u);
}

// A look without changes does not concern it, though its window waits for the next one.
TEST_F(WatchSleepTest, OneWithAWindowSleepsUntilItsKeyChanges) {
  WatchAsk with_window = Ask();
  with_window.window_ns = 1'000'000;
  const auto watcher = Live("k", with_window);
  ChangeOthers();
  ASSERT_EQ(hub->Totals().asleep, 1u);

  Put("other", "again");
  while (hub->Turn() == 0) continue;
  EXPECT_GT(hub->Turn(), MonotonicNs() + 10'000'000) << "nothing is due";
  EXPECT_FALSE(watcher->is_notified());
  EXPECT_EQ(hub->Totals().asleep, 1u);

  Put("k", "mine");
  for (int turn = 0; turn < 1'000 && !watcher->is_notified(); ++turn) {
    (void)hub->Turn();
    SleepNs(100'000);
  }
  ExpectTold(*watcher, "k", "mine");
}

TEST_F(WatchSleepTest, WhatIsToldByTimeOrOfManyKeysStaysAwake) {
  WatchAsk with_progress = Ask();
  with_progress.progress_ms = kProgressMsMax;
  WatchAsk with_previous = Ask();
  with_previous.previous = true;
  const auto progress = Live("k", with_progress);
  const auto previous = Live("k", with_previous);
  const auto closed = Live("k");
  ChangeOthers();
  EXPECT_EQ(hub->Totals().asleep, 1u);
  EXPECT_EQ(hub->Totals().watches, 3u);
}

}  // namespace
}  // namespace statehouse
