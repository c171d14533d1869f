// Real SIGKILLs: workers loop over one area, one of them at a time is killed at a random moment and
// its lanes are recovered while the others go on. Nothing acknowledged may be lost, no range may be
// torn, and nobody may stay blocked.
//
// STATEHOUSE_LONG=1 makes it 10,000 kills.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "engine/os/process.h"
#include "engine/state/engine.h"
#include "gtest/gtest.h"
#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

constexpr int kWorkers = 3;
constexpr uint64_t kSize = 64 << 10;
constexpr uint64_t kCounterPos = 0;      // Added to by everybody, aligned.
constexpr uint64_t kStraddlePos = 4093;  // The same across two stripes.
constexpr uint64_t kRangePos = 8000;     // Written whole, each time with one byte value.
constexpr uint64_t kRangeBytes = 20'000;

// What one worker has seen acknowledged; it outlives the worker.
struct alignas(64) Acknowledged {
  std::atomic<uint64_t> counter{0};
  std::atomic<uint64_t> straddle{0};
  std::atomic<uint64_t> ranges{0};
  std::atomic<uint64_t> failures{0};  // Refused operations and torn ranges.
};

class NoVault final : public DescriptorVault {
 public:
  Status Store(const std::string&, int) override { return Status(); }
  Status Remove(const std::string&) override { return Status(); }
};

struct Worker {
  pid_t pid = -1;
  uint32_t block = 0;
  UniqueFd pidfd;
};

[[noreturn]] void WorkForEver(Area& area, uint32_t lane_id, Acknowledged& seen) {
  const Lane lane{lane_id, uint64_t{30} * 1'000'000'000};
  std::vector<std::byte> bytes(kRangeBytes);
  uint64_t value = 0;
  for (uint64_t round = lane_id;; ++round) {
    if (area.AddAs<uint64_t>(lane, kCounterPos, 1, &value).ok())
      ++seen.counter;
    else
      ++seen.failures;
    if (area.AddAs<uint64_t>(lane, kStraddlePos, 1, &value).ok())
      ++seen.straddle;
    else
      ++seen.failures;
    std::memset(bytes.data(), static_cast<int>(round), bytes.size());
    if (area.Write(lane, kRangePos, bytes).ok())
      ++seen.ranges;
    else
      ++seen.failures;
    if (!area.Read(kRangePos, bytes, &lane).ok()) ++seen.failures;
    for (const std::byte byte : bytes) {
      if (byte != bytes[0]) {
        ++seen.failures;
        break;
      }
    }
  }
}

class AreaSoakTest : public testing::Test {
 protected:
  void SetUp() override {
    auto engine = Engine::Start({}, {}, &vault_);
    ASSERT_TRUE(engine.ok());
    engine_ = std::move(*engine);
    AreaSpec spec;
    spec.name = "soak";
    spec.size = kSize;
    auto made = engine_->CreateArea(std::move(spec));
    ASSERT_TRUE(made.ok());
    area_ = made->area;
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(page, MAP_FAILED);
    seen_ = new (page) Acknowledged[kWorkers];
  }
  void TearDown() override {
    for (Worker& worker : workers_) {
      if (worker.pid > 0) {
        kill(worker.pid, SIGKILL);
        waitpid(worker.pid, nullptr, 0);
      }
    }
    munmap(seen_, 4096);
  }

  void Spawn(int index) {
    // The lease is the parent's until the child says otherwise: what matters here is the lane, and
    // that it is recovered.
    auto lease = engine_->LeaseLanes(*OpenPidfd(getpid()));
    ASSERT_TRUE(lease.ok()) << lease.status().ToString();
    ASSERT_TRUE(engine_->OpenForWorker(*area_, lease->block, Access::kReadWrite).ok());
    Worker& worker = workers_[index];
    worker.block = lease->block;
    worker.pid = fork();
    if (worker.pid == 0) WorkForEver(area_->area(), lease->first_lane, seen_[index]);
    worker.pidfd = std::move(*OpenPidfd(worker.pid));
  }

  void KillAndRecover(int index) {
    Worker& worker = workers_[index];
    kill(worker.pid, SIGKILL);
    while (!ProcessHasEnded(worker.pidfd.get())) SleepNs(0);
    engine_->RecoverBlock(worker.block);
    waitpid(worker.pid, nullptr, 0);
  }

  uint64_t Sum(std::atomic<uint64_t> Acknowledged::*member) const {
    uint64_t sum = 0;
    for (int i = 0; i < kWorkers; ++i) sum += (seen_[i].*member).load();
    return sum;
  }

  NoVault vault_;
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<ServedArea> area_;
  Acknowledged* seen_ = nullptr;
  Worker workers_[kWorkers];
};

TEST_F(AreaSoakTest, KilledWorkersLoseNothingAndBlockNobody) {
  const int kills = Rounds(400, 10'000);
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int i = 0; i < kWorkers; ++i) Spawn(i);

  for (int i = 0; i < kills; ++i) {
    SleepNs(random() % 3'000'000);
    const int victim = static_cast<int>(random() % kWorkers);
    KillAndRecover(victim);
    Spawn(victim);
    ASSERT_EQ(Sum(&Acknowledged::failures), 0u) << "after kill " << i;
  }
  for (int i = 0; i < kWorkers; ++i) KillAndRecover(i);

  // Every worker was killed, so each kill may have left one add that happened and was not
  // acknowledged.
  const uint64_t slack = static_cast<uint64_t>(kills) + kWorkers;
  uint64_t counter = 0;
  uint64_t straddle = 0;
  ASSERT_TRUE(area_->area().LoadAs(kCounterPos, &counter).ok());
  ASSERT_TRUE(area_->area().LoadAs(kStraddlePos, &straddle).ok());
  EXPECT_GE(counter, Sum(&Acknowledged::counter));
  EXPECT_LE(counter, Sum(&Acknowledged::counter) + slack);
  EXPECT_GE(straddle, Sum(&Acknowledged::straddle));
  EXPECT_LE(straddle, Sum(&Acknowledged::straddle) + slack);
  EXPECT_GT(Sum(&Acknowledged::ranges), 0u);
  EXPECT_EQ(engine_->Scrub(), 0u) << "a stripe was left held";
  const EngineTotals totals = engine_->Totals();
  EXPECT_EQ(totals.repairs, 0u);
  std::printf("%d kills, %llu adds, %llu ranges, %llu redos on behalf of the dead\n", kills,
              static_cast<unsigned long long>(counter),
              static_cast<unsigned long long>(Sum(&Acknowledged::ranges)),
              static_cast<unsigned long long>(totals.redos));
}

}  // namespace
}  // namespace statehouse
