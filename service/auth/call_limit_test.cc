#include "service/auth/call_limit.h"

#include <gmock/gmock.h>

#include <atomic>
#include <thread>
#include <vector>

namespace statehouse {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kNow = 5 * kSecond;

int LetIn(CallLimit* limit, int calls, uint64_t now_ns) {
  int in = 0;
  for (int i = 0; i < calls; ++i) {
    if (!limit->Begin("testtest", now_ns).ok()) continue;
    ++in;
    limit->End();
  }
  return in;
}

TEST(CallLimitTest, ASecondsWorthMayComeAtOnceAndNoMore) {
  CallLimit limit({10, 0});
  EXPECT_EQ(LetIn(&limit, 10, kNow), 10);
  const Status refused = limit.Begin("testtest", kNow);
  EXPECT_EQ(refused.reason(), Reason::kRateLimited);
  EXPECT_THAT(refused.message(),
              HasSubstr("token testtest makes more than 10 calls a second (calls_per_second)"));
  EXPECT_EQ(limit.at_once(), 0u);
  // After what the refusal says, one is let in; just before that, none.
  EXPECT_EQ(refused.retry_after_ms(), 1u);
  EXPECT_EQ(LetIn(&limit, 5, kNow + refused.retry_after_ms() * 1'000'000), 1);
}

TEST(CallLimitTest, InTheLongRunTheRateHolds) {
  CallLimit limit({1000, 0});
  int in = 0;
  for (uint64_t ms = 0; ms < 10'000; ++ms) in += LetIn(&limit, 3, kNow + ms * 1'000'000);
  EXPECT_GE(in, 10'990);
  EXPECT_LE(in, 11'010);
}

TEST(CallLimitTest, WhatFollowsABatchWaitsForItsOperations) {
  CallLimit limit({10, 0});
  ASSERT_TRUE(limit.Begin("testtest", kNow).ok());
  limit.Spend(49, kNow);  // 50 are 5 seconds' worth.
  limit.End();
  const Status refused = limit.Begin("testtest", kNow);
  EXPECT_EQ(refused.reason(), Reason::kRateLimited);
  EXPECT_GE(refused.retry_after_ms(), 4000u);
  EXPECT_LE(refused.retry_after_ms(), 4001u);
  EXPECT_EQ(LetIn(&limit, 1, kNow + 3 * kSecond), 0);
  EXPECT_EQ(LetIn(&limit, 1, kNow + 4 * kSecond + 1), 1);
}

TEST(CallLimitTest, CallsAtOnceAreCountedUntilTheyEnd) {
  CallLimit limit({0, 2});
  EXPECT_TRUE(limit.Begin("testtest", kNow).ok());
  EXPECT_TRUE(limit.Begin("testtest", kNow).ok());
  const Status refused = limit.Begin("testtest", kNow);
  EXPECT_EQ(refused.reason(), Reason::kRateLimited);
  EXPECT_THAT(refused.message(), HasSubstr("2 calls at once (calls_at_once)"));
  EXPECT_EQ(refused.retry_after_ms(), 100u);
  limit.End();
  EXPECT_TRUE(limit.Begin("testtest", kNow).ok());
  EXPECT_EQ(limit.at_once(), 2u);
}

TEST(CallLimitTest, AChangedLimitCountsFromThen) {
  CallLimit limit({1, 0});
  EXPECT_EQ(LetIn(&limit, 5, kNow), 1);
  limit.Configure({0, 0});
  EXPECT_EQ(LetIn(&limit, 5, kNow), 5);
  limit.Configure({10, 0});
  ASSERT_TRUE(limit.Begin("testtest", kNow).ok());
  limit.Spend(4'095, kNow);
  limit.End();
  EXPECT_EQ(LetIn(&limit, 1, kNow), 0);
  limit.Configure({1'000, 0});
  EXPECT_EQ(LetIn(&limit, 5, kNow), 5);
  limit.Configure({0, 1});
  ASSERT_TRUE(limit.Begin("testtest", kNow).ok());
  EXPECT_FALSE(limit.Begin("testtest", kNow).ok());
}

TEST(CallLimitTest, ManyThreadsGetNoMoreThanTheLimit) {
  CallLimit limit({1000, 3});
  std::atomic<int> in{0};
  std::atomic<int> most{0};
  std::atomic<int> inside{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int call = 0; call < 1000; ++call) {
        if (!limit.Begin("testtest", kNow).ok()) continue;
        const int now = ++inside;
        for (int seen = most.load(); seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        --inside;
        ++in;
        limit.End();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(in, 1000);
  EXPECT_LE(most, 3);
  EXPECT_EQ(limit.at_once(), 0u);
}

}  // namespace
}  // namespace statehouse
