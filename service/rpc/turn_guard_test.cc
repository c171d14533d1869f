#include "service/rpc/turn_guard.h"

#include <gtest/gtest.h>

namespace statehouse {
namespace {

// Of this thread; the guard looks from it, too.
void UseCpu(uint64_t ns, const TurnGuard& guard) {
  for (const uint64_t until = guard.CpuNs() + ns; guard.CpuNs() < until;) continue;
}

TEST(TurnGuardTest, AThreadThatComesRoundIsNotStuckHoweverBusyItIs) {
  std::atomic<uint64_t> turns{0};
  TurnGuard guard(&turns, CLOCK_THREAD_CPUTIME_ID);
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
  TurnGuard guard(&turns, CLOCK_THREAD_CPUTIME_ID);
  EXPECT_FALSE(guard.IsStuck());

  UseCpu(kTurnCpuNsMax, guard);
  EXPECT_TRUE(guard.IsStuck());
  EXPECT_TRUE(guard.IsStuck());

  ++turns;
  EXPECT_FALSE(guard.IsStuck());
}

}  // namespace
}  // namespace statehouse
