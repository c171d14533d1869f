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

  wasted.Count("later", kSecond);
  EXPECT_EQ(wasted.peers(), 1u);

  for (size_t i = 1; i < kWastingPeersMax; ++i) wasted.Count(std::to_string(i), kSecond);
  EXPECT_EQ(wasted.peers(), kWastingPeersMax);
  wasted.Count("one more", kSecond);
  EXPECT_EQ(wasted.peers(), 1u);
}

}  // namespace
}  // namespace statehouse
