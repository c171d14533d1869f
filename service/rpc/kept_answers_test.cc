// Answers that are kept back: who may keep one, for how long, and that each goes out once.
#include "service/rpc/door_core.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace statehouse {
namespace {

class Stream final : public OpenStream {
 public:
  Stream(int number, std::vector<int>* sent) : number_(number), sent_(sent) {}
  void OnHealthChange() override {}
  void OnReady() override {}
  void OnShutdown() override {}
  void SendKept() override { sent_->push_back(number_); }

 private:
  const int number_;
  std::vector<int>* const sent_;
};

class KeptAnswersTest : public ::testing::Test {
 protected:
  KeptAnswersTest() : core_(GrpcDoorOptions(), nullptr, nullptr, Lane()) { core_.BeginPolling(); }

  std::vector<int> sent_;
  DoorCore core_;
};

TEST_F(KeptAnswersTest, GoOutOnceInTheirOrder) {
  Stream first(1, &sent_);
  Stream second(2, &sent_);
  EXPECT_FALSE(core_.keeps());
  core_.Keep(&first);
  core_.Keep(&second);
  EXPECT_TRUE(core_.keeps());

  core_.SendKept();
  core_.SendKept();

  EXPECT_EQ(sent_, (std::vector<int>{1, 2}));
  EXPECT_FALSE(core_.keeps());
}

TEST_F(KeptAnswersTest, AreNotMoreThanTheLimit) {
  Stream stream(1, &sent_);
  for (size_t i = 0; i < kKeptAnswersMax; ++i) {
    ASSERT_TRUE(core_.MayKeep());
    core_.Keep(&stream);
  }

  EXPECT_FALSE(core_.MayKeep());
  EXPECT_TRUE(core_.KeepsEnough());
}

TEST_F(KeptAnswersTest, WaitNoLongerThanTheFirstMay) {
  Stream stream(1, &sent_);
  EXPECT_FALSE(core_.KeepsEnough());
  core_.Keep(&stream);

  // By the clock: nothing else ends this.
  while (!core_.KeepsEnough()) std::this_thread::yield();

  core_.SendKept();
  EXPECT_FALSE(core_.KeepsEnough());
}

TEST_F(KeptAnswersTest, AreThePollingThreadsAlone) {
  bool may_keep = true;

  std::thread([&] { may_keep = core_.MayKeep(); }).join();

  EXPECT_FALSE(may_keep);
  EXPECT_TRUE(core_.MayKeep());
}

}  // namespace
}  // namespace statehouse
