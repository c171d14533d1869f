// Writers of the service and workers of the host, watchers that come and go, resume anywhere and
// read slowly, a dict that moves and is cleared, and a hub that is restarted: each watch tells what
// was done. STATEHOUSE_LONG=1 makes it 200 rounds.
#include <atomic>
#include <set>
#include <thread>

#include "service/watch/dict_replay_test_support.h"
#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

constexpr uint32_t kWriters = 4;
constexpr uint32_t kWatchers = 5;
constexpr auto kFor = milliseconds(3000);
constexpr int kRestartsMin = 3;  // However slow the machine is.

class WatchSoak : public DictReplayTest {
 public:
  explicit WatchSoak(uint64_t seed) : random_(seed) {
    // Small enough that a slow watcher falls behind.
    options_.feed.log_bytes = kFeedLogBytesMin * 4;
    Start(options_);
    for (uint32_t i = 0; i < kWatchers; ++i) {
      WatchAsk ask = i == 0 ? WatchAsk() : AnyAsk(random_);
      followers_.push_back(std::make_unique<Follower>(&ledger, std::move(ask), fault_));
    }
  }
  void TestBody() override {}

  std::set<std::string> Run() {
    std::vector<std::thread> threads;
    for (uint32_t writer = 0; writer < kWriters; ++writer) {
      threads.emplace_back([this, writer, seed = random_()] { Write(writer, seed); });
    }
    for (const auto& follower : followers_) {
      threads.emplace_back([this, &follower, seed = random_()] { Follow(*follower, seed); });
    }
    const auto until = std::chrono::steady_clock::now() + kFor;
    while (std::chrono::steady_clock::now() < until || restarts_ < kRestartsMin) {
      SleepNs(random_() % 60'000'000);
      Disturb();
    }
    stops_ = true;
    for (std::thread& thread : threads) thread.join();
    served = *store->Find("d");
    options_.has_thread = false;
    Start(options_);
    Finish(followers_, fault_);
    return faults_;
  }
  uint64_t changes() const {
    uint64_t changes = 0;
    for (const auto& follower : followers_) changes += follower->changes();
    return changes;
  }

 private:
  std::shared_ptr<WatchHub> CurrentHub() {
    const std::lock_guard<std::mutex> lock(hub_mutex_);
    return hub;
  }
  void Disturb() {
    const uint64_t what = random_() % 8;
    if (what < 3) {
      const std::lock_guard<std::mutex> lock(hub_mutex_);
      Start(options_);  // The next daemon's.
      ++restarts_;
    } else if (what < 5) {
      const Status moved = Move(/*clears=*/what == 4);
      EXPECT_TRUE(moved.ok()) << moved.ToString();
      served = *store->Find("d");
    } else {
      Expire();
    }
  }
  void Write(uint32_t index, uint64_t seed) {
    const bool is_worker = index % 2 == 1;
    NotingWriter writer(&ledger, LaneOf(index, is_worker), seed);
    for (uint64_t i = 0; !stops_.load(); ++i) {
      const std::shared_ptr<ServedDict> now = *store->Find("d");
      const Status status = writer.Step(is_worker ? writer.Mapped(*store, now) : now->dict());
      // It has moved meanwhile, or is about to.
      if (status.reason() == Reason::kDictMoved || status.reason() == Reason::kStalled) continue;
      ASSERT_TRUE(status.ok()) << status.ToString();
      if (!is_worker) CurrentHub()->LookNow(now->record().id);
      if (i % 50 == 0) SleepNs(writer.random()() % 1'000'000);
    }
  }
  void Follow(Follower& follower, uint64_t seed) {
    std::mt19937_64 random(seed);
    while (!stops_.load()) {
      if (!follower.is_open()) {
        follower.Open(*CurrentHub(), *store->Find("d"), /*is_lost=*/random() % 20 == 0);
      }
      for (uint64_t events = random() % 200 + 3; events > 0 && follower.is_open(); --events) {
        (void)follower.Take(milliseconds(10));
        if (random() % 100 == 0) SleepNs(random() % 50'000'000);
      }
      if (random() % 2 == 0) follower.Close();
    }
    follower.Close();
  }

  std::mt19937_64 random_;
  WatchHubOptions options_;
  std::mutex fault_mutex_;
  std::set<std::string> faults_;
  const Replayer::Fault fault_ = [this](const std::string& what) {
    const std::lock_guard<std::mutex> lock(fault_mutex_);
    faults_.insert(what);
  };
  std::vector<std::unique_ptr<Follower>> followers_;
  std::mutex hub_mutex_;  // Of the pointer.
  int restarts_ = 0;
  std::atomic<bool> stops_{false};
};

TEST(WatchSoakTest, EveryWatchTellsWhatWasDoneWhateverHappened) {
  const int rounds = Rounds(1, 200);
  for (int round = 1; round <= rounds; ++round) {
    WatchSoak soak(static_cast<uint64_t>(round));
    for (const std::string& fault : soak.Run()) ADD_FAILURE() << "round " << round << ": " << fault;
    EXPECT_GT(soak.changes(), 1000u);
  }
}

}  // namespace
}  // namespace statehouse
