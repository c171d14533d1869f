// A call in no hurry gets its answer while nobody else calls, while others do, and at every moment
// between the two.
#include "clients/c/src/call_traffic.h"

#include <grpc/support/time.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace statehouse {
namespace {

// An answer that comes after `ms`, as an event of a queue.
class Answer final {
 public:
  explicit Answer(int64_t ms) {
    alarm_.Set(&queue_,
               gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(ms, GPR_TIMESPAN)),
               this);
  }
  void Await(CallTraffic* traffic) { traffic->AwaitUnhurried(&queue_, this); }

 private:
  grpc::CompletionQueue queue_;
  grpc::Alarm alarm_;
};

TEST(CallTrafficTest, AnAnswerComesWhileNobodyCalls) {
  CallTraffic traffic;
  for (const int64_t ms : {0, 1, 20}) Answer(ms).Await(&traffic);
}

TEST(CallTrafficTest, AnAnswerComesWhileOthersCall) {
  CallTraffic traffic;
  const CallTraffic::Call call(&traffic);
  for (const int64_t ms : {0, 1, 20}) Answer(ms).Await(&traffic);
}

TEST(CallTrafficTest, ACallBringsOutWhoWaitsAndTheWaitGoesOnAfterIt) {
  CallTraffic traffic;
  Answer answer(300);
  std::thread waiter([&] { answer.Await(&traffic); });
  for (int i = 0; i < 20; ++i) {
    while (traffic.waiting_count() == 0) std::this_thread::yield();
    const CallTraffic::Call call(&traffic);
    EXPECT_EQ(traffic.waiting_count(), 0u);
  }
  waiter.join();
}

TEST(CallTrafficTest, SeveralWaitWhileSeveralCall) {
  constexpr int kThreads = 3;
  constexpr int kAnswers = 60;
  CallTraffic traffic;
  std::atomic<bool> done{false};
  std::vector<std::thread> callers;
  for (int i = 0; i < kThreads; ++i) {
    callers.emplace_back([&traffic, &done, i] {
      for (int pauses = 0; !done; ++pauses) {
        { const CallTraffic::Call call(&traffic); }
        // Long enough now and then for the others to wait in gRPC.
        const auto until = std::chrono::steady_clock::now() +
                           std::chrono::microseconds((pauses * 7 + i) % 5 * 800);
        while (!done && std::chrono::steady_clock::now() < until) std::this_thread::yield();
      }
    });
  }
  std::vector<std::thread> waiters;
  for (int i = 0; i < kThreads; ++i) {
    waiters.emplace_back([&traffic, i] {
      for (int answers = 0; answers < kAnswers; ++answers) {
        Answer((answers + i) % 6).Await(&traffic);
      }
    });
  }
  for (std::thread& waiter : waiters) waiter.join();
  done = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(traffic.waiting_count(), 0u);
}

}  // namespace
}  // namespace statehouse
