// Watchers of every kind replay what they are told: once the range rests they have the range, and
// never half of a write. The seeded bugs of watch_mutant.h must be found by the same scene.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>

#include "engine/base/watch_mutant.h"
#include "service/watch/area_hub_test_support.h"

namespace statehouse {
namespace {

// Records that lie across the edges of stripes; each is written at once, with one byte.
constexpr uint64_t kRecords = 12;
constexpr uint64_t kRecordBytes = 300;
constexpr uint64_t kWatchedBytes = 64 << 10;  // What the area reads at once.
constexpr uint64_t kCounterPos = kStripeBytesMin / 2;

uint64_t PosOf(uint64_t record) { return (record + 1) * kStripeBytesMin - kRecordBytes / 2; }

class AreaReplayTest : public AreaTurnTest {
 protected:
  // Everything that a watcher of the range is told up to now, at the last also after its window.
  void Take(AreaWatcher& watcher, AreaReplayer& replayer) {
    AreaWatchEvent event;
    while (Poll(watcher, &event) == Watch::Found::kEvent) replayer.Apply(event);
  }
  // True when every watcher ended with the range.
  bool RunScene(uint64_t seed) {
    std::mt19937_64 random(seed);
    AreaWatchAsk small = Ask(100, 3 * kStripeBytesMin);
    AreaWatchAsk in_window = Ask(0, kWatchedBytes);
    in_window.window_ns = 1'000'000;
    std::vector<AreaWatchAsk> asks = {Ask(0, kWatchedBytes), small, in_window};
    std::vector<std::unique_ptr<AreaWatcher>> watchers;
    std::vector<AreaReplayer> replayers;
    for (const AreaWatchAsk& ask : asks) {
      watchers.push_back(std::make_unique<AreaWatcher>(*hub, ask));
      replayers.emplace_back(ask.part);
    }
    for (int step = 0; step < 300; ++step) {
      const std::string bytes(kRecordBytes, static_cast<char>('a' + random() % 26));
      Write(PosOf(random() % kRecords), bytes);
      now_ns_ += random() % 600'000;
      const uint64_t i = random() % asks.size();
      Take(*watchers[i], replayers[i]);
      if (random() % 20 != 0 || !replayers[i].updates) continue;
      asks[i].from_updates = replayers[i].updates;  // Goes on as another watch.
      watchers[i] = std::make_unique<AreaWatcher>(*hub, asks[i]);
      replayers[i].synced = false;
    }
    now_ns_ += in_window.window_ns;
    bool is_good = true;
    for (size_t i = 0; i < asks.size(); ++i) {
      Take(*watchers[i], replayers[i]);
      is_good = is_good && replayers[i].synced && replayers[i].bytes == Now(asks[i].part);
    }
    return is_good;
  }
};

TEST_F(AreaReplayTest, EveryWatcherEndsWithTheRange) {
  for (uint64_t seed = 1; seed <= 20; ++seed) EXPECT_TRUE(RunScene(seed)) << "seed " << seed;
}

#ifdef SH_WATCH_MUTANT
TEST_F(AreaReplayTest, EverySeededBugIsFound) {
  for (const WatchMutant mutant : {WatchMutant::kStripeSkipped, WatchMutant::kOldBytesRepeated,
                                   WatchMutant::kLastChangeLost}) {
    chosen_watch_mutant = mutant;
    bool found = false;
    for (uint64_t seed = 1; seed <= 20 && !found; ++seed) found = !RunScene(seed);
    chosen_watch_mutant = WatchMutant::kNone;
    EXPECT_TRUE(found) << "mutant " << static_cast<int>(mutant);
  }
}
#else

class AreaSoakTest : public AreaHubTest {
 protected:
  static constexpr int kWatchers = 4;
  static constexpr uint32_t kKilledLane = 24;

  std::shared_ptr<AreaHub> CurrentHub() {
    const std::lock_guard<std::mutex> lock(hub_mutex_);
    return hub;
  }
  void RestartHub() {  // The next daemon's.
    const std::lock_guard<std::mutex> lock(hub_mutex_);
    Start();
  }
  void WriteRecords(uint32_t lane) {
    std::mt19937_64 random(lane);
    while (!stop_.load()) {
      Write(PosOf(random() % kRecords),
            std::string(kRecordBytes, static_cast<char>('a' + random() % 26)), lane);
      if (random() % 20 == 0) SleepNs(random() % 300'000);
    }
  }
  // A counter that never pauses.
  void Count(uint32_t lane) {
    uint64_t value = 0;
    while (!stop_.load()) {
      ASSERT_TRUE(served->area().AddAs<uint64_t>(At(lane), kCounterPos, 1, &value).ok());
    }
  }
  // A process that writes records until it is killed, and what the daemon does then.
  void KillAWriter(std::mt19937_64& random) {
    std::array<std::byte, kRecordBytes> bytes;
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (uint64_t i = 0;; ++i) {
        bytes.fill(static_cast<std::byte>('a' + i % 26));
        (void)served->area().Write(At(kKilledLane), PosOf(i % kRecords), bytes);
      }
    }
    SleepNs(random() % 3'000'000);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    served->area().RecoverLane(kKilledLane);
  }
  void ExpectWholeRecords(const AreaReplayer& replayer) {
    for (uint64_t record = 0; record < kRecords; ++record) {
      const std::string_view bytes(replayer.bytes.data() + PosOf(record), kRecordBytes);
      ASSERT_EQ(bytes.find_first_not_of(bytes.front()), std::string_view::npos)
          << "half of a write of record " << record;
    }
  }
  // Watches a while and goes on as another watch, until the end; sometimes slowly.
  void WatchUntilTheEnd(int seed, AreaReplayer& replayer) {
    std::mt19937_64 random(seed);
    while (!stop_.load()) {
      AreaWatchAsk ask = Ask(0, kWatchedBytes);
      ask.window_ns = random() % 3 * 1'000'000;
      ask.from_updates = replayer.updates;
      replayer.synced = false;
      AreaWatcher watcher(*CurrentHub(), ask);
      if (!watcher.is_open()) continue;  // The hub is being restarted.
      for (uint64_t events = random() % 200 + 3; events > 0; --events) {
        AreaWatchEvent event;
        const Watch::Found found = watcher.Next(&event, milliseconds(50));
        if (found == Watch::Found::kEnd) break;
        if (found != Watch::Found::kEvent) continue;
        const uint64_t before = replayer.changes;
        replayer.Apply(event);
        told_.fetch_add(replayer.changes - before);
        if (!event.more) ExpectWholeRecords(replayer);
        if (random() % 50 == 0) SleepNs(20'000'000);
      }
    }
  }

  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> told_{0};  // Changes, to all watchers.

 private:
  std::mutex hub_mutex_;  // Of the pointer.
};

TEST_F(AreaSoakTest, EveryWatcherEndsWithTheRangeWhateverHappened) {
  constexpr uint64_t kToldMin = 100;
  constexpr int kRounds = 30;
  constexpr int kRoundsMax = 600;
  Start();
  std::vector<std::thread> threads;
  for (const uint32_t lane : {8, 9}) threads.emplace_back([this, lane] { WriteRecords(lane); });
  threads.emplace_back([this] { Count(10); });
  std::vector<AreaReplayer> replayers(kWatchers, AreaReplayer({0, kWatchedBytes}));
  for (int i = 0; i < kWatchers; ++i) {
    threads.emplace_back([this, i, &replayers] { WatchUntilTheEnd(100 + i, replayers[i]); });
  }
  std::mt19937_64 random(7);
  // As long as it takes on a machine that is busy otherwise.
  for (int i = 0; i < kRounds || (told_.load() <= kToldMin && i < kRoundsMax); ++i) {
    KillAWriter(random);
    if (i % 6 == 5) RestartHub();
    SleepNs(30'000'000);
  }
  stop_ = true;
  for (std::thread& thread : threads) thread.join();
  uint64_t changes = 0;
  for (AreaReplayer& replayer : replayers) {
    AreaWatchAsk ask = Ask(0, kWatchedBytes);
    ask.from_updates = replayer.updates;
    replayer.synced = false;
    AreaWatcher watcher(*hub, ask);
    CatchUp(watcher, replayer);
    ExpectWholeRecords(replayer);
    changes += replayer.changes;
  }
  EXPECT_GT(changes, kToldMin);
}
#endif

}  // namespace
}  // namespace statehouse
