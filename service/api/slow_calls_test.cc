// The bound of the calls that wait for held bytes.
#include "service/api/slow_calls.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace statehouse {
namespace {

// Opens once; until then every task that runs waits in it.
class Gate final {
 public:
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    is_reached_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return is_open_; });
  }
  void AwaitReached() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return is_reached_; });
  }
  void Open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_reached_ = false;
  bool is_open_ = false;
};

struct Counts {
  std::atomic<size_t> ran{0};
  std::atomic<size_t> refused{0};
  std::atomic<size_t> abandoned_otherwise{0};
};

class GatedTask final : public SlowCalls::Task {
 public:
  GatedTask(Gate* gate, Counts* counts) : gate_(gate), counts_(counts) {}
  bool Try(const Lane&) override {
    gate_->Pass();
    ++counts_->ran;
    return true;
  }
  void Abandon(const Status& why) override {
    ++(why.reason() == Reason::kLimitExceeded ? counts_->refused : counts_->abandoned_otherwise);
  }

 private:
  Gate* const gate_;
  Counts* const counts_;
};

TEST(SlowCallsTest, TheLimitIsTakenAndOnePastItIsRefusedAndAFreedPlaceIsUsed) {
  Gate gate;
  Counts counts;
  SlowCalls calls(Lane{2});
  const auto post = [&] { calls.Post(std::make_unique<GatedTask>(&gate, &counts)); };
  post();
  gate.AwaitReached();  // The one that runs counts too.

  for (size_t i = 1; i < kSlowCallsMax; ++i) post();
  EXPECT_EQ(counts.refused, 0u);
  post();
  EXPECT_EQ(counts.refused, 1u);

  gate.Open();
  while (counts.ran < kSlowCallsMax) std::this_thread::yield();
  post();
  while (counts.ran < kSlowCallsMax + 1) std::this_thread::yield();
  EXPECT_EQ(counts.refused, 1u);
  EXPECT_EQ(counts.abandoned_otherwise, 0u);
}

TEST(SlowCallsTest, ShutdownAnswersWhatStillWaits) {
  Gate gate;
  Counts counts;
  SlowCalls calls(Lane{2});
  for (int i = 0; i < 10; ++i) calls.Post(std::make_unique<GatedTask>(&gate, &counts));
  gate.AwaitReached();

  gate.Open();
  calls.Shutdown();

  EXPECT_EQ(counts.ran + counts.abandoned_otherwise, 10u);
  calls.Post(std::make_unique<GatedTask>(&gate, &counts));
  EXPECT_EQ(counts.ran + counts.abandoned_otherwise, 11u);
  EXPECT_EQ(counts.refused, 0u);
}

}  // namespace
}  // namespace statehouse
