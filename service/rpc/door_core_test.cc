#include "service/rpc/door_core.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

#include "engine/os/futex.h"

namespace statehouse {
namespace {

// Takes more than a turn each time it is woken.
class SlowStream final : public OpenStream {
 public:
  explicit SlowStream(int* wakes) : wakes_(wakes) {}
  void OnHealthChange() override {}
  void OnShutdown() override {}
  void SendKept() override {}
  void OnReady() override {
    ++*wakes_;
    const uint64_t until_ns = MonotonicNs() + kWakesTurnNs + 1;
    while (MonotonicNs() < until_ns) continue;
  }

 private:
  int* const wakes_;
};

// This thread polls. Nobody listens: no epoll is asked, so one round of the gate lasts for ever.
class DoorCoreTest : public ::testing::Test {
 protected:
  static constexpr int kStreams = 10;

  DoorCoreTest() : core_({}, nullptr, nullptr, Lane{}) {
    grpc::ServerBuilder builder;
    builder.RegisterAsyncGenericService(&core_.service());
    core_.set_queue(builder.AddCompletionQueue());
    server_ = builder.BuildAndStart();
    core_.BeginPolling();
    for (int i = 0; i < kStreams; ++i) {
      streams_.push_back(std::make_unique<SlowStream>(&wakes_));
      wakers_.push_back(std::make_shared<StreamWaker>(streams_.back().get()));
    }
  }
  ~DoorCoreTest() override {
    server_->Shutdown();
    core_.ClosePosting();
    core_.queue()->Shutdown();
    while (Next()) continue;
  }
  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    if (!core_.NextEvent(&tag, &ok)) return false;
    static_cast<Event*>(tag)->OnEvent(ok);
    return true;
  }

  DoorCore core_;
  std::unique_ptr<grpc::Server> server_;
  int wakes_ = 0;
  std::vector<std::unique_ptr<SlowStream>> streams_;
  std::vector<std::shared_ptr<StreamWaker>> wakers_;
};

TEST_F(DoorCoreTest, AnAudienceIsSentToInTurnsWithOtherEvents) {
  for (const auto& waker : wakers_) core_.Wake(waker);
  EXPECT_LE(wakes_, 1) << "of those, one takes the whole turn";

  int events = 0;
  while (wakes_ < kStreams) {
    const int before = wakes_;
    core_.Post([&events] { ++events; });
    ASSERT_TRUE(Next());
    EXPECT_LE(wakes_, before + 1);
  }

  EXPECT_GE(events, kStreams - 1);
}

TEST_F(DoorCoreTest, OfAnotherThreadNoneIsWokenThereWhileSoManyMessagesAreUnderWay) {
  core_.foreign_writes() = kForeignWritesMax;
  std::thread([this] {
    for (const auto& waker : wakers_) core_.Wake(waker);
  }).join();
  EXPECT_EQ(wakes_, 0);

  while (wakes_ < kStreams) {
    core_.Post([] {});
    ASSERT_TRUE(Next());
  }

  EXPECT_EQ(wakes_, kStreams);
}

TEST_F(DoorCoreTest, OfAnotherThreadThoseBelowTheLimitAreWokenThere) {
  core_.foreign_writes() = kForeignWritesMax - 1;

  std::thread([this] { core_.Wake(wakers_.front()); }).join();

  EXPECT_EQ(wakes_, 1);
}

TEST_F(DoorCoreTest, OneThatIsGoneBeforeItsTurnIsNotWoken) {
  for (const auto& waker : wakers_) core_.Wake(waker);
  const int before = wakes_;
  for (const auto& waker : wakers_) waker->Forget();

  core_.Post([] {});
  ASSERT_TRUE(Next());

  EXPECT_EQ(wakes_, before);
}

}  // namespace
}  // namespace statehouse
