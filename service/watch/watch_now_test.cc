// Watches that are told by whoever changed their dict, without the hub's thread; and what the hub
// counts of wake-ups.
#include <numeric>
#include <thread>

#include "engine/os/futex.h"
#include "service/watch/watch_hub_test_support.h"

namespace statehouse {
namespace {

class WatchNowTest : public WatchHubTest {
 protected:
  // Stops the hub's thread until the object goes: in the notification of a watch of another dict.
  class StoppedHub final {
   public:
    explicit StoppedHub(WatchNowTest* test) : test_(test) {
      DictSpec spec;
      spec.name = "other";
      spec.max_entries = 100;
      spec.max_bytes = 1 << 20;
      auto created = test->store->Create(spec);
      EXPECT_TRUE(created.ok()) << created.status().ToString();
      other_ = created->dict;
      EXPECT_TRUE(other_->dict().PrepareLanes(8, 8).ok());
      WatchAsk ask;
      ask.served = other_;
      watch_ = test->hub->Open(std::move(ask), [this] { Notified(); }).value();
      AwaitQuiet();
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        stops_ = true;
      }
      DictResult result;
      EXPECT_TRUE(other_->dict().Set(At(1), "k", DictValue::Bytes("v"), {}, &result).ok());
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return stopped_; });
    }
    ~StoppedHub() {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        stops_ = false;
        changed_.notify_all();
      }
      watch_->Close();
    }

   private:
    void Notified() {
      std::unique_lock<std::mutex> lock(mutex_);
      notified_ = true;
      stopped_ = stops_;
      changed_.notify_all();
      changed_.wait(lock, [this] { return !stops_; });
    }
    // Until it is live and waits.
    void AwaitQuiet() {
      bool synced = false;
      for (;;) {
        {
          const std::lock_guard<std::mutex> lock(mutex_);
          notified_ = false;
        }
        WatchEvent event;
        const Watch::Found found = watch_->Poll(&event);
        if (found == Watch::Found::kEvent) {
          synced = event.kind == WatchEvent::Kind::kSynced;
          continue;
        }
        if (synced) return;
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return notified_; });
      }
    }

    WatchNowTest* const test_;
    std::shared_ptr<ServedDict> other_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool stops_ = false;
    bool stopped_ = false;
    bool notified_ = false;
    std::shared_ptr<Watch> watch_;
  };

  void AwaitSynced(Watcher& watcher, Replayer& replayer) {
    WatchEvent event;
    while (!replayer.synced) {
      ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
      replayer.Apply(event);
    }
    ASSERT_EQ(watcher.Next(&event, milliseconds(1)), Watch::Found::kNothing);
  }
  uint64_t id() const { return served->record().id; }
};

TEST_F(WatchNowTest, WhoeverChangedADictTellsItsWatches) {
  Start();
  Watcher watcher(*hub, Ask());
  Replayer replayer;
  AwaitSynced(watcher, replayer);
  {
    const StoppedHub stopped(this);
    Put("a", "1");
    Put("b", "2");
    WatchEvent event;
    EXPECT_EQ(watcher.Next(&event, milliseconds(1)), Watch::Found::kNothing);

    hub->LookNow(id());

    ASSERT_EQ(watcher.Next(&event, milliseconds(0)), Watch::Found::kEvent);
    EXPECT_EQ(event.changes.size(), 2u);
    replayer.Apply(event);
    EXPECT_EQ(watcher.Next(&event, milliseconds(0)), Watch::Found::kNothing);
  }
  // The hub goes on where the other one ended.
  CatchUp(watcher, replayer);
  ExpectIsTheDict(replayer);
}

TEST_F(WatchNowTest, ADictThatNobodyFollowsIsLeftAlone) {
  Start();
  EXPECT_FALSE(hub->FollowsAny());
  hub->LookNow(id());
  Watcher watcher(*hub, Ask());
  EXPECT_TRUE(hub->FollowsAny());
  hub->LookNow(id() + 1);
  Replayer replayer;
  CatchUp(watcher, replayer);
  hub->Shutdown();
  hub->LookNow(id());
  WatchEvent event;
  EXPECT_EQ(watcher.Next(&event), Watch::Found::kEnd);
}

TEST_F(WatchNowTest, LagAndWakeUpsAreCounted) {
  Start();
  Watcher watcher(*hub, Ask());
  Replayer replayer;
  AwaitSynced(watcher, replayer);
  const WatchTotals before = hub->Totals();
  EXPECT_EQ(std::accumulate(before.wakes.begin(), before.wakes.end(), uint64_t{0}), 0u);
  EXPECT_EQ(before.lag_ns, 0u);
  const uint64_t began_ns = MonotonicNs();
  Put("a", "1");
  while (hub->Totals().lag_revisions == 0) std::this_thread::yield();
  const uint64_t lagged_ns = MonotonicNs();
  while (MonotonicNs() - lagged_ns < 3'000'000) std::this_thread::yield();
  EXPECT_GE(hub->Totals().lag_ns, 3'000'000u);

  WatchEvent event;
  ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);

  const WatchTotals told = hub->Totals();
  EXPECT_EQ(told.lag_revisions, 0u);
  EXPECT_EQ(told.lag_ns, 0u);
  EXPECT_EQ(std::accumulate(told.wakes.begin(), told.wakes.end(), uint64_t{0}), 1u);
  EXPECT_GE(told.wakes_ns, 3'000'000u);
  EXPECT_LE(told.wakes_ns, MonotonicNs() - began_ns);
}

TEST_F(WatchNowTest, ManyThreadsTellTogetherAndNothingIsLostOrRepeated) {
  constexpr int kThreads = 4;
  constexpr int kChanges = 300;
  Start();
  Watcher watcher(*hub, Ask());
  Replayer replayer;
  AwaitSynced(watcher, replayer);
  std::vector<std::thread> writers;
  for (int i = 0; i < kThreads; ++i) {
    writers.emplace_back([this, i] {
      for (int change = 0; change < kChanges; ++change) {
        Put("k" + std::to_string(change % 7), std::to_string(change), static_cast<uint32_t>(i + 1));
        if (i % 2 == 0) hub->LookNow(id());
      }
    });
  }
  WatchEvent event;
  while (replayer.changes < kThreads * kChanges && replayer.resyncs == 0) {
    ASSERT_EQ(watcher.Next(&event), Watch::Found::kEvent);
    replayer.Apply(event);
  }
  for (std::thread& writer : writers) writer.join();
  CatchUp(watcher, replayer);
  EXPECT_EQ(replayer.resyncs, 0u);
  ExpectIsTheDict(replayer);
}

}  // namespace
}  // namespace statehouse
