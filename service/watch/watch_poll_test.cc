// A hub that polls behind a change: no writer is asked to wake it meanwhile, nothing is missed, and
// afterwards it sleeps as ever.
#include "engine/os/futex.h"
#include "service/watch/watch_hub_test_support.h"

namespace statehouse {
namespace {

constexpr uint64_t kPollNs = 1'000'000;

class WatchPollTest : public WatchTurnTest {
 protected:
  WatchPollTest() {
    WatchHubOptions options;
    options.poll_ns = kPollNs;
    StartWith(options);
  }
  // Looks until there is nothing left.
  void Settle() {
    while (hub->Turn() == 0) continue;
  }
  // Whether the next change would wake the hub: a writer that is asked to moves the event word.
  bool PutWakes() {
    const uint32_t before = served->dict().watch_event().load();
    Put("key", std::to_string(++puts_));
    return served->dict().watch_event().load() != before;
  }
  // Puts a change, and the hub looks twice: it finds it, and then nothing.
  void Change() {
    (void)PutWakes();
    Settle();
    Settle();
  }

 private:
  int puts_ = 0;
};

TEST_F(WatchPollTest, NoWriterWakesItUntilThatTimeIsOver) {
  Watcher watcher(*hub, Ask());
  Sync(watcher);
  Change();
  now_ns_ += kPollNs - 1;
  Settle();
  EXPECT_FALSE(PutWakes());
  Settle();  // That change was news: its time begins anew.
  EXPECT_EQ(Await(watcher, WatchEvent::Kind::kChanges).changes.size(), 2u);
  now_ns_ += kPollNs - 1;
  Settle();
  EXPECT_FALSE(PutWakes());
  Change();
  now_ns_ += kPollNs;
  Settle();
  EXPECT_TRUE(PutWakes());
}

TEST_F(WatchPollTest, ADictThatNobodyWatchesAnyMoreIsNotPolled) {
  {
    Watcher watcher(*hub, Ask());
    Sync(watcher);
    now_ns_ += kPollNs;
  }
  Change();
  EXPECT_TRUE(PutWakes());
}

TEST_F(WatchPollTest, WithoutItAWriterWakesTheHubAtOnce) {
  StartWith({});
  Watcher watcher(*hub, Ask());
  Sync(watcher);
  Change();
  EXPECT_TRUE(PutWakes());
}

class WatchPollThreadTest : public WatchHubTest {};

TEST_F(WatchPollThreadTest, EveryChangeIsToldWhetherItPollsOrSleeps) {
  WatchHubOptions options;
  options.poll_ns = 500'000;
  Start(options);
  Replayer replayer;
  Watcher watcher(*hub, Ask());
  CatchUp(watcher, replayer);
  for (int i = 0; i < 600; ++i) {
    Put("k" + std::to_string(i % 13), std::to_string(i));
    // At once, within its time to poll, and when it has gone to sleep.
    if (i % 3 == 1) SleepNs(100'000);
    if (i % 20 == 19) SleepNs(2'000'000);
    if (i % 50 == 49) CatchUp(watcher, replayer);
  }
  CatchUp(watcher, replayer);
  EXPECT_EQ(replayer.resyncs, 0u);
  ExpectIsTheDict(replayer);
}

TEST_F(WatchPollThreadTest, AHubThatPollsHearsOfNewWatchesAndOfItsEnd) {
  WatchHubOptions options;
  options.poll_ns = 3'600'000'000'000;  // For ever, as far as this test goes.
  Start(options);
  Replayer first;
  Watcher watcher(*hub, Ask());
  CatchUp(watcher, first);
  Replayer second;
  Watcher other(*hub, Ask());
  CatchUp(other, second);
  ExpectIsTheDict(second);
  hub->Shutdown();
  WatchEvent event;
  Watch::Found found = Watch::Found::kEvent;
  while (found == Watch::Found::kEvent) found = watcher.Next(&event);
  EXPECT_EQ(watcher.status().reason(), Reason::kDraining);
}

}  // namespace
}  // namespace statehouse
