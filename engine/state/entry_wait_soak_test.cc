// Waits for entries, each ended by one change: nobody changes the dict again before all are awake,
// so a wake-up that is lost leaves its waiter asleep until its time is over, and is counted. The
// seeded bugs of watch_mutant.h must be found so. STATEHOUSE_LONG=1 makes it 10,000,000 waits.
#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "engine/base/watch_mutant.h"
#include "engine/os/barrier.h"
#include "engine/os/futex.h"
#include "engine/state/entry_wait.h"
#include "engine/state/test_dict.h"
#include "engine/value/value_writer.h"
#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

constexpr int kWaiters = 4;
constexpr uint64_t kPatienceNs = 60'000'000'000;
#ifdef SH_WATCH_MUTANT
constexpr int kRounds = 3'000;
constexpr uint64_t kShortPatienceNs = 500'000'000;
#else
constexpr int kRounds = 10'000;
constexpr int kRoundsLong = 2'500'000;
#endif

std::string Wire(int64_t number) {
  std::string wire;
  ValueWriter(&wire).Int(number);
  return wire;
}

void Spin(uint64_t times) {
  for (; times > 0; --times) CpuRelax();
}

class EntryWaitSoak {
 public:
  EntryWaitSoak(int rounds, uint64_t patience_ns) : rounds_(rounds), patience_ns_(patience_ns) {
    EXPECT_TRUE(JoinBarriers());
  }

  // Until all rounds are over, or a wait ended by its time.
  void Run() {
    std::vector<std::thread> waiters;
    for (int i = 0; i < kWaiters; ++i) waiters.emplace_back([this, i] { Wait(i); });
    Change();
    for (std::thread& waiter : waiters) waiter.join();
  }
  uint64_t waits() const { return waits_.load(); }
  uint64_t ended_by_time() const { return ended_by_time_.load(); }

 private:
  // In even rounds the number alone is changed, in odd ones another entry comes or goes with it.
  static bool ChangesBoth(int64_t round) { return round % 2 == 1; }
  static bool IsThere(int64_t round) { return round % 4 == 1; }

  void Change() {
    const std::unique_ptr<Dict> dict = t_.Map(Access::kReadWrite);
    std::mt19937_64 random(1);
    DictIncrement one;
    one.delta = DictValue::Int64(1);
    one.initial = DictValue::Int64(0);
    std::array<DictOperation, 2> steps;
    steps[0].kind = DictOperation::Kind::kIncrement;
    steps[0].key = "n";
    steps[0].increment = one;
    steps[1].key = "p";
    steps[1].value = DictValue::Int64(1);
    for (int64_t round = 1; round <= rounds_; ++round) {
      for (uint64_t awake = awake_.load(); awake < Waits(round - 1); awake = awake_.load()) {
        awake_.wait(awake);
      }
      if (ended_by_time_.load() > 0) return;
      Spin(random() % 1000);
      if (ChangesBoth(round)) {
        steps[1].kind = IsThere(round) ? DictOperation::Kind::kSet : DictOperation::Kind::kDelete;
        DictTransactionResult result;
        const Status status = dict->Transact(kLane, {}, steps, {}, &result);
        ASSERT_TRUE(status.ok()) << status.ToString();
      } else {
        DictResult result;
        const Status status = dict->Increment(kLane, "n", one, &result);
        ASSERT_TRUE(status.ok()) << status.ToString();
      }
    }
  }
  static uint64_t Waits(int64_t rounds) { return static_cast<uint64_t>(rounds) * kWaiters; }

  void Wait(int index) {
    const std::unique_ptr<Dict> dict = t_.Map(Access::kReadWrite);
    uint64_t version = 0;
    for (int64_t round = 1; round <= rounds_ && ended_by_time_.load() == 0; ++round) {
      const bool waits_for_other = index == 3 && ChangesBoth(round);
      EntryWait wait;
      wait.version = version;
      switch (index) {
        case 0: wait.kind = EntryWait::Kind::kVersionAbove; break;
        case 1: wait.kind = EntryWait::Kind::kVersionDiffers; break;
        default: wait.kind = EntryWait::Kind::kValue; wait.value = Wire(round);
      }
      if (waits_for_other) {
        wait.kind = IsThere(round) ? EntryWait::Kind::kPresent : EntryWait::Kind::kAbsent;
      }
      EntryLook look;
      const uint64_t begin_ns = MonotonicNs();
      const Status status =
          WaitForEntry(*dict, waits_for_other ? "p" : "n", wait, patience_ns_, &look);
      ASSERT_TRUE(status.ok()) << status.ToString();
      if (!look.met || MonotonicNs() - begin_ns >= patience_ns_) ++ended_by_time_;
      if (look.found) version = look.entry.version;
      ++waits_;
      awake_.fetch_add(1);
      awake_.notify_one();
    }
  }

  static constexpr Lane kLane{2, kOperationTimeoutNsDefault};
  const int rounds_;
  const uint64_t patience_ns_;
  TestDict t_;
  std::atomic<uint64_t> awake_{0};
  std::atomic<uint64_t> waits_{0};
  std::atomic<uint64_t> ended_by_time_{0};
};

#ifndef SH_WATCH_MUTANT
TEST(EntryWaitSoakTest, EveryWaitIsEndedByItsChange) {
  const int rounds = Rounds(kRounds, kRoundsLong);
  EntryWaitSoak soak(rounds, kPatienceNs);

  soak.Run();

  EXPECT_EQ(soak.waits(), static_cast<uint64_t>(rounds) * kWaiters);
  EXPECT_EQ(soak.ended_by_time(), 0u);
}

#else
// What a wait does when the change comes at its step `step`: whether its change ended it.
bool IsEndedByAChangeAt(int step, uint64_t patience_ns) {
  EXPECT_TRUE(JoinBarriers());
  TestDict t;
  int steps = 0;
  at_watch_point = [&](WatchPoint) {
    if (++steps == step) t.Set("k", DictValue::Int64(1));
  };
  EntryLook look;
  const uint64_t begin_ns = MonotonicNs();
  EXPECT_TRUE(WaitForEntry(*t.dict, "k", EntryWait(), patience_ns, &look).ok());
  at_watch_point = nullptr;
  return look.met && MonotonicNs() - begin_ns < patience_ns;
}

class EntryWaitMutantsTest : public testing::Test {
 protected:
  static constexpr int kSteps = 3;
  ~EntryWaitMutantsTest() override { chosen_watch_mutant = WatchMutant::kNone; }
};

TEST_F(EntryWaitMutantsTest, AChangeAtAnyStepEndsTheWait) {
  for (int step = 1; step <= kSteps; ++step) {
    EXPECT_TRUE(IsEndedByAChangeAt(step, kPatienceNs)) << "step " << step;
  }
}

TEST_F(EntryWaitMutantsTest, EverySeededBugIsFound) {
  for (const WatchMutant mutant : {WatchMutant::kWaitNotArmed, WatchMutant::kWaitEventReadLate,
                                   WatchMutant::kWaitNotLookedAgain}) {
    chosen_watch_mutant = mutant;
    int found = 0;
    for (int step = 1; step <= kSteps; ++step) {
      found += IsEndedByAChangeAt(step, kShortPatienceNs) ? 0 : 1;
    }
    EXPECT_GT(found, 0) << "mutant " << static_cast<int>(mutant);
  }
}

TEST_F(EntryWaitMutantsTest, TheSoakCountsWhatEndsByTime) {
  chosen_watch_mutant = WatchMutant::kWaitNotArmed;
  EntryWaitSoak soak(kRounds, kShortPatienceNs);
  soak.Run();
  EXPECT_GT(soak.ended_by_time(), 0u);
}
#endif

}  // namespace
}  // namespace statehouse
