// Writers, watchers that come and go and resume anywhere, and a hub that is restarted: nobody
// misses or repeats anything.
#include <array>
#include <atomic>
#include <random>
#include <thread>

#include "engine/os/futex.h"
#include "service/watch/watch_hub_test_support.h"

namespace statehouse {
namespace {

constexpr int kWatchers = 4;
constexpr uint32_t kWriters = 3;
constexpr int kRestartsMin = 3;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr auto kFor = milliseconds(1500);
#else
constexpr auto kFor = milliseconds(3000);
#endif

class WatchSoakTest : public WatchHubTest {
 protected:
  std::shared_ptr<WatchHub> CurrentHub() {
    const std::lock_guard<std::mutex> lock(hub_mutex_);
    return hub;
  }
  // The next daemon's.
  void RestartHub() {
    const std::lock_guard<std::mutex> lock(hub_mutex_);
    hub->Shutdown();
    hub = WatchHub::Start({}, store.get(), &vault, vault.Inherit("feed."));
  }
  // Goes on where the replayer stands, or begins anew where it stands in the middle of a snapshot.
  WatchAsk AskToGoOn(Replayer& replayer) const {
    WatchAsk ask = Ask();
    if (replayer.revision != 0 && replayer.synced) {
      ask.from_revision = replayer.revision;
    } else {
      replayer.entries.clear();
      replayer.versions.clear();
    }
    replayer.synced = false;
    return ask;
  }

  void Write(uint32_t writer) {
    std::mt19937_64 random(writer);
    for (uint64_t i = 0; !stop_.load(); ++i) {
      const std::string key = "k" + std::to_string(random() % 50);
      if (random() % 5 == 0) {
        Delete(key, 8 + writer);
      } else {
        Put(key, std::to_string(i), 8 + writer);
      }
      if (i % 50 == 0) SleepNs(random() % 300'000);
    }
  }
  void WatchUntilTheEnd(int seed, Replayer& replayer) {
    std::mt19937_64 random(seed);
    while (std::chrono::steady_clock::now() < until_) {
      Watcher watcher(*CurrentHub(), AskToGoOn(replayer));
      if (!watcher.is_open()) continue;  // The hub is being restarted.
      for (uint64_t events = random() % 200 + 3; events > 0; --events) {
        WatchEvent event;
        const Watch::Found found = watcher.Next(&event, milliseconds(50));
        if (found == Watch::Found::kEnd) break;
        if (found == Watch::Found::kEvent) replayer.Apply(event);
      }
    }
  }

  const std::chrono::steady_clock::time_point until_ = std::chrono::steady_clock::now() + kFor;
  std::atomic<bool> stop_{false};

 private:
  std::mutex hub_mutex_;  // Of the pointer.
};

TEST_F(WatchSoakTest, EveryWatcherEndsWithTheDictWhateverHappened) {
  Start();
  std::vector<std::thread> writers;
  for (uint32_t writer = 0; writer < kWriters; ++writer) {
    writers.emplace_back([this, writer] { Write(writer); });
  }
  std::array<Replayer, kWatchers> replayers;
  std::vector<std::thread> watchers;
  for (int i = 0; i < kWatchers; ++i) {
    watchers.emplace_back([this, i, &replayers] { WatchUntilTheEnd(100 + i, replayers[i]); });
  }
  int restarts = 0;
  for (; std::chrono::steady_clock::now() < until_; ++restarts) {
    SleepNs(300'000'000);
    RestartHub();
  }
  for (std::thread& watcher : watchers) watcher.join();
  stop_ = true;
  for (std::thread& writer : writers) writer.join();
  uint64_t changes = 0;
  for (Replayer& replayer : replayers) {
    Watcher watcher(*hub, AskToGoOn(replayer));
    CatchUp(watcher, replayer);
    changes += replayer.changes;
  }
  // All are quiet now but for the marks.
  for (Replayer& replayer : replayers) replayer.entries.erase("zz-mark");
  Delete("zz-mark");
  for (Replayer& replayer : replayers) ExpectIsTheDict(replayer);
  EXPECT_GT(changes, 1000u);
  EXPECT_GE(restarts, kRestartsMin);
}

}  // namespace
}  // namespace statehouse
