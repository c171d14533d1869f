#include "service/rpc/turn_guard.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "engine/os/futex.h"

namespace statehouse {
namespace {

// Of this thread; the guard looks from it, too.
void UseCpu(uint64_t ns, const TurnGuard& guard) {
  for (const uint64_t until = guard.CpuNs() + ns; guard.CpuNs() < until;) continue;
}

TEST(TurnGuardTest, AThreadThatComesRoundIsNotStuckHoweverBusyItIs) {
  std::atomic<uint64_t> turns{0};
  const std::atomic<pid_t> tid{gettid()};
  TurnGuard guard(&turns, &tid, CLOCK_THREAD_CPUTIME_ID);
  for (int i = 0; i < 10; ++i) {
    ++turns;
    EXPECT_FALSE(guard.IsStuck());
    UseCpu(kTurnCpuNsMax / 4, guard);
    EXPECT_FALSE(guard.IsStuck());
    EXPECT_TRUE(guard.is_busy());
  }
}

TEST(TurnGuardTest, OneThatUsesItsTimeWithoutAnEventIsAndNoLongerAfterTheNext) {
  std::atomic<uint64_t> turns{1};
  const std::atomic<pid_t> tid{gettid()};
  TurnGuard guard(&turns, &tid, CLOCK_THREAD_CPUTIME_ID);
  EXPECT_FALSE(guard.IsStuck());

  UseCpu(kTurnCpuNsMax, guard);
  EXPECT_TRUE(guard.IsStuck());
  EXPECT_TRUE(guard.IsStuck());

  ++turns;
  EXPECT_FALSE(guard.IsStuck());
}

TEST(TurnGuardTest, AThreadThatSleepsMoreThanItWorksIsNotStuckHoweverLongThatGoesOn) {
  std::atomic<uint64_t> turns{1};
  const std::atomic<pid_t> tid{gettid()};
  TurnGuard guard(&turns, &tid, CLOCK_THREAD_CPUTIME_ID);
  EXPECT_FALSE(guard.IsStuck());
  for (int i = 0; i < 12; ++i) {
    UseCpu(kTurnCpuNsMax / 8, guard);
    EXPECT_FALSE(guard.IsStuck());
    SleepNs(kTurnRestNs);
    EXPECT_FALSE(guard.IsStuck());
  }
}

TEST(TurnGuardTest, ShortSleepsDoNotHideWhoWorksAllTheTime) {
  std::atomic<uint64_t> turns{1};
  const std::atomic<pid_t> tid{gettid()};
  TurnGuard guard(&turns, &tid, CLOCK_THREAD_CPUTIME_ID);
  EXPECT_FALSE(guard.IsStuck());
  for (int i = 0; i < 10; ++i) {
    UseCpu(kTurnCpuNsMax / 10, guard);
    SleepNs(kTurnCpuNsMax / 100);
  }
  EXPECT_TRUE(guard.IsStuck());
}

}  // namespace
}  // namespace statehouse
