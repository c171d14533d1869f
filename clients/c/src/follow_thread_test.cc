// The thread that follows logs: it has turns for all, sleeps on what they wait for, and lets go.
#include "clients/c/src/follow_thread.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace statehouse {
namespace {

constexpr int kPatienceMs = 60'000;

class Counting final : public FollowThread::Follower {
 public:
  FollowThread::Sleep Turn() override {
    inside = true;
    ++turns;
    if (turn_ns > 0) SleepNs(turn_ns);
    inside = false;
    // Any object that lives stands for the log.
    return {kept, &event, event.load(), due_ns};
  }
  void Change() {
    ++event;
    FutexWakeAll(event);
  }

  std::shared_ptr<int> kept = std::make_shared<int>();
  std::atomic<uint32_t> event{0};
  std::atomic<uint64_t> due_ns{UINT64_MAX};
  std::atomic<uint64_t> turn_ns{0};
  std::atomic<int> turns{0};
  std::atomic<bool> inside{false};
};

template <typename Holds>
bool Eventually(const Holds& holds) {
  for (int i = 0; i < kPatienceMs; ++i) {
    if (holds()) return true;
    SleepNs(1'000'000);
  }
  return false;
}

class FollowThreadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(FollowThread::IsSupported()) << "tests need futex_waitv: Linux 5.16";
    auto thread = FollowThread::OfThisProcess();
    ASSERT_TRUE(thread.ok()) << thread.status().ToString();
    thread_ = *std::move(thread);
  }
  // Followers with words of their own that the thread sleeps on, or as many as it can.
  std::vector<std::unique_ptr<Counting>> Add(size_t count) {
    std::vector<std::unique_ptr<Counting>> followers;
    for (size_t i = 0; i < count; ++i) {
      followers.push_back(std::make_unique<Counting>());
      thread_->Add(followers.back().get());
    }
    for (const auto& each : followers) {
      EXPECT_TRUE(Eventually([&] { return each->turns > 0; }));
    }
    SleepNs(20'000'000);  // What was rung for is over.
    return followers;
  }
  void RemoveAll(const std::vector<std::unique_ptr<Counting>>& followers) {
    for (const auto& each : followers) thread_->Remove(each.get());
  }

  std::shared_ptr<FollowThread> thread_;
};

TEST_F(FollowThreadTest, IsOneForTheProcessAndEndsWithItsLastOwner) {
  auto other = FollowThread::OfThisProcess();
  ASSERT_TRUE(other.ok());

  EXPECT_EQ(*other, thread_);
}

TEST_F(FollowThreadTest, EveryWordUpToTheLimitWakesItAndNothingElseDoes) {
  const auto followers = Add(kFollowLogsMax);
  const int before = followers.front()->turns;
  SleepNs(50'000'000);
  EXPECT_EQ(followers.front()->turns, before);

  for (const auto& each : followers) {
    const int turns = each->turns;
    each->Change();
    EXPECT_TRUE(Eventually([&] { return each->turns > turns; }));
  }
  RemoveAll(followers);
}

TEST_F(FollowThreadTest, OneLogMoreIsLookedAtFromTimeToTime) {
  const auto followers = Add(kFollowLogsMax + 1);

  for (const auto& each : followers) {
    const int turns = each->turns;
    EXPECT_TRUE(Eventually([&] { return each->turns > turns + 2; }));  // Nobody changed anything.
  }
  RemoveAll(followers);
}

TEST_F(FollowThreadTest, FollowersOfOneLogShareAWord) {
  const auto followers = Add(2);
  class Sharing final : public FollowThread::Follower {
   public:
    explicit Sharing(Counting* with) : with_(*with) {}
    FollowThread::Sleep Turn() override {
      ++turns;
      return {with_.kept, &with_.event, with_.event.load(), UINT64_MAX};
    }
    std::atomic<int> turns{0};

   private:
    Counting& with_;
  } sharing(followers[0].get());
  thread_->Add(&sharing);
  ASSERT_TRUE(Eventually([&] { return sharing.turns > 0; }));
  SleepNs(20'000'000);
  const int turns = sharing.turns;

  followers[0]->Change();

  EXPECT_TRUE(Eventually([&] { return sharing.turns > turns; }));
  thread_->Remove(&sharing);
  RemoveAll(followers);
}

TEST_F(FollowThreadTest, WhatIsDueComesWithoutAWord) {
  Counting follower;
  follower.due_ns = MonotonicNs() + 30'000'000;
  thread_->Add(&follower);
  ASSERT_TRUE(Eventually([&] { return follower.turns > 0; }));

  EXPECT_TRUE(Eventually([&] { return follower.turns > 1 && MonotonicNs() >= follower.due_ns; }));

  thread_->Remove(&follower);
}

TEST_F(FollowThreadTest, RemovingWaitsForTheTurnAndEndsWhatItHolds) {
  Counting follower;
  follower.turn_ns = 50'000'000;
  thread_->Add(&follower);
  ASSERT_TRUE(Eventually([&] { return follower.inside.load(); }));

  thread_->Remove(&follower);

  EXPECT_FALSE(follower.inside);
  const int turns = follower.turns;
  EXPECT_TRUE(Eventually([&] { return follower.kept.use_count() == 1; }));
  EXPECT_EQ(follower.turns, turns);
}

TEST_F(FollowThreadTest, RingingGivesEverybodyATurn) {
  const auto followers = Add(3);
  std::vector<int> before;
  for (const auto& each : followers) before.push_back(each->turns);

  thread_->Ring();

  for (size_t i = 0; i < followers.size(); ++i) {
    EXPECT_TRUE(Eventually([&] { return followers[i]->turns > before[i]; }));
  }
  RemoveAll(followers);
}

}  // namespace
}  // namespace statehouse
