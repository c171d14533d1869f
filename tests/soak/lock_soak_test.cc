// Real processes that take turns at locks. One of them at a time is killed at a random moment,
// while it holds or waits or is in the middle of an operation, or is stopped past the end of its
// lease; its lanes and requests are recovered while the others go on. The locks protect words that
// refuse an older token: no add may be lost, nobody whose lease is good may be refused, nobody may
// stay blocked, and nothing of the dead is left.
//
// STATEHOUSE_LONG=1 makes it 40,000 kills.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <iterator>
#include <random>
#include <string>

#include "engine/os/futex.h"
#include "engine/os/process.h"
#include "engine/state/test_locks.h"
#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

constexpr uint32_t kWorkers = 3;
constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kTtlNs = kLockTtlNsMin;
constexpr uint64_t kStopNs = kTtlNs + 50 * kMs;
constexpr uint64_t kPatienceNs = 60'000 * kMs;
constexpr const char* kNames[] = {"one", "two"};

// Takes adds under rising tokens only: | token (36) | sum (28) |. What is behind a lock.
struct alignas(64) Resource {
  std::atomic<uint64_t> word{0};
  std::atomic<uint64_t> inside{0};  // The latest token with which somebody came in.

  void Enter(uint64_t token) {
    uint64_t latest = inside.load();
    while (latest < token && !inside.compare_exchange_weak(latest, token)) {
    }
  }

  bool Add(uint64_t token) {
    uint64_t word_now = word.load();
    do {
      if (word_now >> 28 > token) return false;
    } while (!word.compare_exchange_weak(word_now, token << 28 | (word_now + 1) % (1 << 28)));
    return true;
  }
};

// What one worker did; it outlives the worker.
struct alignas(64) Done {
  std::atomic<uint64_t> adds{0};
  std::atomic<uint64_t> refused{0};  // With a lease that was over.
  std::atomic<uint64_t> waits{0};
  std::atomic<uint64_t> cancels{0};
  std::atomic<uint64_t> failures{0};
  std::atomic<uint64_t> turns{0};
};

struct SharedPage {
  Resource resources[std::size(kNames)];
  Done done[kWorkers];
};
static_assert(sizeof(SharedPage) <= 4096);

class Worker final {
 public:
  Worker(LockSpace& space, uint32_t block, SharedPage& page)
      : space_(space),
        page_(page),
        done_(page.done[block - 1]),
        lane_{block * kLanesPerBlock, kPatienceNs},
        random_(static_cast<uint32_t>(getpid())) {}

  [[noreturn]] void WorkForEver() {
    for (;;) {
      Turn();
      ++done_.turns;
    }
  }

 private:
  void Fail(const char* what) {
    ++done_.failures;
    std::fprintf(stderr, "lane %u: %s\n", lane_.id, what);
  }
  void Turn() {
    const size_t which = random_() % std::size(kNames);
    LockRequest request;
    request.ttl_ns = kTtlNs;
    request.queue = random_() % 8 != 0;
    const bool shared = random_() % 4 == 0;
    if (shared) request.mode = LockMode::kShared;
    LockPlace place = 0;
    LockLook look;
    const Status asked = space_.Acquire(lane_, kNames[which], request, &place, &look);
    if (!asked.ok()) return Fail(asked.ToString().c_str());
    if (place == 0) return;
    if (look.phase == LockPhase::kWaiting) {
      ++done_.waits;
      // Some give up soon.
      const bool patient = random_() % 8 != 0;
      const auto waited = space_.Wait(lane_, place, patient ? kPatienceNs : 1000);
      if (!waited.ok()) return Fail(waited.status().ToString().c_str());
      look = *waited;
      if (look.phase == LockPhase::kWaiting && patient) Fail("it waited too long");
      if (look.phase == LockPhase::kWaiting) ++done_.cancels;
    }
    if (look.phase == LockPhase::kHolding) {
      if (!shared) Use(page_.resources[which], look);
      if (random_() % 4 == 0) {
        const Status renewed = space_.Renew(lane_, place, 0, &look);
        if (!renewed.ok() && renewed.reason() != Reason::kLockLost)
          Fail(renewed.ToString().c_str());
      }
      if (!shared) Use(page_.resources[which], look);
    }
    bool held = false;
    const Status released = space_.Release(lane_, place, &held);
    if (!released.ok()) Fail(released.ToString().c_str());
  }
  void Use(Resource& resource, const LockLook& look) {
    if (look.phase != LockPhase::kHolding) return;
    resource.Enter(look.token);
    const bool added = resource.Add(look.token);
    if (added) ++done_.adds;
    for (uint32_t i = random_() % 200; i > 0; --i) CpuRelax();
    const bool alone = resource.inside.load() == look.token;
    if (added && alone) return;
    // Its lease was over at the latest now, or somebody else was let in too early.
    if (space_.NowNs() < look.expires_ns) Fail(added ? "it was not alone" : "it was refused");
    ++done_.refused;
  }

  LockSpace& space_;
  SharedPage& page_;
  Done& done_;
  const Lane lane_;
  std::mt19937 random_;
};

class LockSoakTest : public testing::Test {
 protected:
  void SetUp() override {
    void* memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    page_ = new (memory) SharedPage;
  }
  void TearDown() override {
    for (const pid_t pid : pids_) {
      if (pid <= 0) continue;
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
    munmap(page_, 4096);
  }

  void Spawn(uint32_t block) {
    ASSERT_TRUE(locks_.space->PrepareLanes(block * kLanesPerBlock, kLanesPerBlock).ok());
    pids_[block] = fork();
    if (pids_[block] == 0) Worker(*locks_.space, block, *page_).WorkForEver();
    ASSERT_GT(pids_[block], 0);
  }
  void KillAndRecover(uint32_t block) {
    const UniqueFd pidfd = std::move(*OpenPidfd(pids_[block]));
    kill(pids_[block], SIGKILL);
    while (!ProcessHasEnded(pidfd.get())) SleepNs(0);
    waitpid(pids_[block], nullptr, 0);
    pids_[block] = 0;
    for (uint32_t i = 0; i < kLanesPerBlock; ++i) {
      const RecoveryReport report = locks_.space->RecoverLane(own_, block * kLanesPerBlock + i);
      redos_ += report.redo_applied ? 1 : 0;
      buckets_ += report.stripes_released;
    }
    held_ += locks_.space->RecoverBlock(own_, block);
  }
  void LookAfter() {
    locks_.space->ScanRequests(own_);
    ASSERT_EQ(locks_.space->Sweep(own_, &next_, 64, [](uint32_t) { return true; }), 0u);
  }
  uint64_t Sum(std::atomic<uint64_t> Done::*member) const {
    uint64_t sum = 0;
    for (const Done& done : page_->done) sum += (done.*member).load();
    return sum;
  }
  // Everybody has another turn.
  void ExpectTurns() {
    uint64_t before[kWorkers];
    for (uint32_t i = 0; i < kWorkers; ++i) before[i] = page_->done[i].turns;
    const uint64_t deadline = MonotonicNs() + kPatienceNs;
    for (uint32_t i = 0; i < kWorkers; ++i) {
      while (page_->done[i].turns.load() < before[i] + 2 && MonotonicNs() < deadline) {
        SleepNs(kMs);
      }
      EXPECT_GE(page_->done[i].turns.load(), before[i] + 2) << "worker " << i << " is blocked";
    }
  }

  TestLocks locks_{16};
  // Who is stopped may have what the parent needs: it does not wait for that.
  const Lane own_{1, 20 * kMs};
  SharedPage* page_ = nullptr;
  pid_t pids_[kWorkers + 1] = {};
  uint32_t next_ = 0;
  uint64_t redos_ = 0;
  uint64_t buckets_ = 0;
  uint64_t held_ = 0;
};

TEST_F(LockSoakTest, KilledAndStoppedProcessesBlockNobodyAndLoseNothing) {
  const int kills = Rounds(1200, 40'000);
  const int kills_per_stop = 80;
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (uint32_t block = 1; block <= kWorkers; ++block) Spawn(block);

  int stops = 0;
  for (int i = 0; i < kills; ++i) {
    SleepNs(random() % (2 * kMs));
    const uint32_t victim = 1 + random() % kWorkers;
    if (i % kills_per_stop == 0) {
      kill(pids_[victim], SIGSTOP);
      SleepNs(kStopNs);
      ++stops;
      // Every other one is killed where it stands.
      if (stops % 2 == 0) kill(pids_[victim], SIGCONT);
      if (stops % 2 == 0) continue;
    }
    KillAndRecover(victim);
    Spawn(victim);
    LookAfter();
    ASSERT_EQ(Sum(&Done::failures), 0u) << "after kill " << i;
  }
  ExpectTurns();
  for (uint32_t block = 1; block <= kWorkers; ++block) KillAndRecover(block);
  LookAfter();

  EXPECT_EQ(Sum(&Done::failures), 0u);
  locks_.ExpectSound();
  for (LockPlace place = 1; place <= locks_.geometry.requests_max; ++place) {
    EXPECT_EQ(LockInternals::Request(*locks_.space, place).state.load(), 0u) << place;
  }
  // Each kill may have left one add that happened and was not counted.
  uint64_t added = 0;
  for (const Resource& resource : page_->resources) added += resource.word.load() % (1 << 28);
  EXPECT_GE(added, Sum(&Done::adds));
  EXPECT_LE(added, Sum(&Done::adds) + static_cast<uint64_t>(kills) + kWorkers);
  std::printf(
      "%d kills, %d stops: %llu turns, %llu waits, %llu given up, %llu adds, %llu refused after "
      "their lease; the dead had %llu locks, %llu buckets, %llu redos\n",
      kills, stops, static_cast<unsigned long long>(Sum(&Done::turns)),
      static_cast<unsigned long long>(Sum(&Done::waits)),
      static_cast<unsigned long long>(Sum(&Done::cancels)),
      static_cast<unsigned long long>(Sum(&Done::adds)),
      static_cast<unsigned long long>(Sum(&Done::refused)), static_cast<unsigned long long>(held_),
      static_cast<unsigned long long>(buckets_), static_cast<unsigned long long>(redos_));
}

}  // namespace
}  // namespace statehouse
