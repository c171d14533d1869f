// The thread that follows logs: it has turns for all, sleeps on what they wait for, and lets go.
#include "clients/c/src/follow_thread.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace statehouse {
namespace {

constexpr int kPatienceMs = 60'000;

class Counting final : public FollowThread::Follower {
 public:
  FollowThread::Sleep Turn(bool /*may_wait*/) override {
    inside = true;
    ++turns;
    if (turn_ns > 0) SleepNs(turn_ns);
    inside = false;
    return {Events(), due_ns};
  }
  FollowEvents Events() const {
    FollowEvents events;
    events.Add(event, kept);  // Any object that lives stands for the log.
    if (has_second) events.Add(second, kept);
    return events;
  }
  void Change() {
    ++event;
    FutexWakeAll(event);
  }

  std::shared_ptr<int> kept = std::make_shared<int>();
  std::atomic<uint32_t> event{0};
  std::atomic<uint32_t> second{0};
  std::atomic<bool> has_second{false};
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
  const auto followers = Add(kFollowWordsMax);
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

TEST_F(FollowThreadTest, OneWordMoreIsLookedAtFromTimeToTime) {
  const auto followers = Add(kFollowWordsMax + 1);

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
    FollowThread::Sleep Turn(bool /*may_wait*/) override {
      ++turns;
      return {with_.Events(), UINT64_MAX};
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

TEST_F(FollowThreadTest, AFollowerMaySleepOnTwoWords) {
  const auto followers = Add(1);
  Counting& follower = *followers.front();
  follower.has_second = true;
  follower.Change();  // It sleeps on both from now on.
  SleepNs(20'000'000);
  for (std::atomic<uint32_t>* const word : {&follower.second, &follower.event}) {
    const int turns = follower.turns;
    ++*word;
    FutexWakeAll(*word);
    EXPECT_TRUE(Eventually([&] { return follower.turns > turns; }));
  }
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

// Those that must wait for the daemon have their turns behind the others, one of them at a time.
TEST_F(FollowThreadTest, ThoseThatWaitForTheDaemonLetTheOthersThroughInBetween) {
  class Waiting final : public FollowThread::Follower {
   public:
    Waiting(std::string* turns, std::atomic<int>* waited) : turns_(*turns), waited_(*waited) {}
    FollowThread::Sleep Turn(bool may_wait) override {
      if (has_waited_) return {};
      if (!may_wait) return {{}, UINT64_MAX, true};
      SleepNs(2 * kFollowWaitsNs);
      turns_ += 'w';
      has_waited_ = true;
      ++waited_;
      return {};
    }

   private:
    std::string& turns_;
    std::atomic<int>& waited_;
    bool has_waited_ = false;
  };
  class Open final : public FollowThread::Follower {
   public:
    explicit Open(std::string* turns) : turns_(*turns) {}
    FollowThread::Sleep Turn(bool /*may_wait*/) override {
      turns_ += 'o';
      return {};
    }

   private:
    std::string& turns_;
  };
  std::string turns;  // The thread writes it while anybody has been added.
  std::atomic<int> waited{0};
  std::vector<std::unique_ptr<Waiting>> waiting;
  for (int i = 0; i < 4; ++i) waiting.push_back(std::make_unique<Waiting>(&turns, &waited));
  Open open(&turns);
  thread_->Add(&open);
  for (const auto& each : waiting) thread_->Add(each.get());
  ASSERT_TRUE(Eventually([&] { return waited == 4; }));
  for (const auto& each : waiting) thread_->Remove(each.get());
  thread_->Remove(&open);

  EXPECT_EQ(std::count(turns.begin(), turns.end(), 'w'), 4) << turns;
  EXPECT_EQ(turns.find("ww"), std::string::npos) << turns;
  EXPECT_EQ(turns.front(), 'o') << turns;
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

// A sanitized child of a process with threads cannot begin one.
#ifndef __SANITIZE_THREAD__
TEST_F(FollowThreadTest, AForkedChildGetsOneOfItsOwn) {
  const pid_t child = ::fork();
  if (child == 0) {
    auto own = FollowThread::OfThisProcess();
    Counting follower;
    bool turned = own.ok() && *own != thread_;
    if (turned) {
      (*own)->Add(&follower);
      turned = Eventually([&] { return follower.turns > 0; });
      (*own)->Remove(&follower);
      own->reset();
    }
    ::_exit(turned ? 0 : 1);
  }
  ASSERT_GT(child, 0);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);

  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}
#endif

}  // namespace
}  // namespace statehouse
