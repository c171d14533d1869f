#include "service/rpc/wasted_calls.h"

#include <gtest/gtest.h>

namespace statehouse {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

TEST(WastedCallsTest, TheLimitOfASecondIsAllowedAndOneBeyondIsNot) {
  WastedCalls wasted(3);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(wasted.Count("ipv4:127.0.0.1:1", kSecond));
  EXPECT_FALSE(wasted.Count("ipv4:127.0.0.1:2", kSecond));

  EXPECT_TRUE(wasted.Count("ipv4:127.0.0.1:1", 2 * kSecond - 1));

  EXPECT_FALSE(wasted.Count("ipv4:127.0.0.1:1", 2 * kSecond - 1));  // Forgotten.
}

TEST(WastedCallsTest, EachSecondBeginsAnew) {
  WastedCalls wasted(3);
  for (uint64_t second = 0; second < 5; ++second) {
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(wasted.Count("a", second * kSecond));
  }
}

TEST(WastedCallsTest, ZeroIsNoLimit) {
  WastedCalls wasted(0);
  for (int i = 0; i < 100'000; ++i) ASSERT_FALSE(wasted.Count("a", 0));
  EXPECT_EQ(wasted.peers(), 0u);
}

TEST(WastedCallsTest, NoMoreConnectionsThanTheLimitAreRemembered) {
  WastedCalls wasted(1);
  for (size_t i = 0; i < kWastingPeersMax; ++i) wasted.Count(std::to_string(i), 0);
  EXPECT_EQ(wasted.peers(), kWastingPeersMax);

  wasted.Count("one more", 0);

  EXPECT_EQ(wasted.peers(), kWastingPeersMax);
}

TEST(WastedCallsTest, WhoHasManyCallsIsNotForgottenForWhoHasFew) {
  WastedCalls wasted(3);
  for (int i = 0; i < 3; ++i) wasted.Count("busy", 0);

  for (size_t i = 0; i < 4 * kWastingPeersMax; ++i) wasted.Count(std::to_string(i), 0);

  EXPECT_TRUE(wasted.Count("busy", kSecond - 1));
}

TEST(WastedCallsTest, WhoseSecondIsOverIsForgottenFirst) {
  WastedCalls wasted(3);
  for (int i = 0; i < 3; ++i) wasted.Count("was busy", 0);
  for (size_t i = 1; i < kWastingPeersMax; ++i) wasted.Count(std::to_string(i), kSecond);

  // Enough to have compared each of them.
  for (size_t i = 0; i < kWastingPeersMax / kWastingPeersCompared; ++i) {
    wasted.Count("later " + std::to_string(i), kSecond);
  }

  for (int i = 0; i < 3; ++i) EXPECT_FALSE(wasted.Count("was busy", kSecond));
}

TEST(WastedCallsTest, MoreConnectionsThanAreRememberedReachTheLimitAllTheSame) {
  constexpr uint32_t kLimit = 100;
  WastedCalls wasted(kLimit);
  size_t ended = 0;

  for (uint32_t call = 0; call < 2 * kLimit; ++call) {
    for (size_t i = 0; i < kWastingPeersMax + 76; ++i) {
      ended += wasted.Count(std::to_string(i), kSecond) ? 1 : 0;
    }
  }

  EXPECT_GT(ended, kWastingPeersMax / 2);
}

}  // namespace
}  // namespace statehouse
