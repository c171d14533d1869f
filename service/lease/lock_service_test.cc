// LockService over a real engine: what a successor finds, limits, and buckets that are held.
#include "service/lease/lock_service.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <optional>

#include "engine/os/futex.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/test_locks.h"

namespace statehouse {
namespace {

class ForgetfulVault final : public DescriptorVault {
 public:
  Status Store(const std::string& name, int fd) override { return Status(); }
  Status Remove(const std::string& name) override { return Status(); }
};

class Reply final {
 public:
  LockService::Done Callback() {
    return [state = state_](StatusOr<LockAnswer> result) {
      const std::lock_guard<std::mutex> lock(state->mutex);
      EXPECT_FALSE(state->result.has_value()) << "a second answer";
      state->result.emplace(std::move(result));
      state->changed.notify_all();
    };
  }
  bool has_come() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->result.has_value();
  }
  StatusOr<LockAnswer> Await() const {
    std::unique_lock<std::mutex> lock(state_->mutex);
    state_->changed.wait(lock, [this] { return state_->result.has_value(); });
    return *state_->result;
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<StatusOr<LockAnswer>> result;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

class LockServiceTest : public ::testing::Test {
 protected:
  LockServiceTest() {
    EngineOptions options;
    options.locks_max = 64;
    auto engine = Engine::Start(options, {}, &vault_);
    EXPECT_TRUE(engine.ok()) << engine.status().ToString();
    engine_ = *std::move(engine);
  }
  ~LockServiceTest() override { Stop(); }
  void Start(const std::vector<uint64_t>& sessions, LockService::Options options = {}) {
    Stop();
    service_ = LockService::Start(options, engine_.get(), sessions);
    service_->SetOnLoss([this](const LockLoss& loss) {
      const std::lock_guard<std::mutex> lock(mutex_);
      losses_.push_back(loss);
    });
  }
  void Stop() {
    if (service_ != nullptr) service_->Shutdown();
    service_.reset();
  }
  static LockAsk Ask(uint64_t session, uint64_t request_id, const std::string& name = "x") {
    LockAsk ask;
    ask.name = name;
    ask.session = session;
    ask.request_id = request_id;
    return ask;
  }
  StatusOr<LockAnswer> Acquire(LockAsk ask) {
    Reply reply;
    EXPECT_EQ(service_->Acquire(std::move(ask), reply.Callback()), 0u);
    return reply.Await();
  }
  uint64_t Wait(LockAsk ask, Reply* reply) {
    const uint64_t call = service_->Acquire(std::move(ask), reply->Callback());
    EXPECT_NE(call, 0u);
    return call;
  }
  LockDescription Describe(const std::string& name = "x") {
    LockDescription description;
    bool found = false;
    EXPECT_TRUE(
        engine_->locks().Describe(engine_->DaemonLane(0), name, 10, &description, &found).ok());
    return description;
  }

  ForgetfulVault vault_;
  std::unique_ptr<Engine> engine_;
  std::mutex mutex_;
  std::vector<LockLoss> losses_;  // Guarded by mutex_.
  std::shared_ptr<LockService> service_;
};

TEST_F(LockServiceTest, AWaitThatOutlivesItsCallKeepsItsPlaceForTheNextOne) {
  constexpr uint64_t kCallNs = 20'000'000;
  Start({1, 2, 3});
  const auto held = Acquire(Ask(1, 1));
  ASSERT_TRUE(held.ok());
  LockAsk first = Ask(2, 1);
  first.deadline_ns = MonotonicNs() + kCallNs;
  first.outlives_call = true;
  Reply ended, second, again;
  Wait(first, &ended);
  Wait(Ask(3, 1), &second);

  EXPECT_EQ(ended.Await().status().reason(), Reason::kTimeout);
  EXPECT_EQ(Describe().waiter_count, 2u);
  first.deadline_ns = UINT64_MAX;
  Wait(first, &again);
  ASSERT_TRUE(*service_->Release(1, "x", held->token));

  const auto granted = again.Await();
  ASSERT_TRUE(granted.ok() && granted->acquired);
  EXPECT_FALSE(second.has_come());
  ASSERT_TRUE(*service_->Release(2, "x", granted->token));
  EXPECT_TRUE(second.Await()->acquired);
}

TEST_F(LockServiceTest, APlaceThatNobodyAsksForAgainIsGivenUp) {
  Start({1, 2, 3});
  const auto held = Acquire(Ask(1, 1));
  ASSERT_TRUE(held.ok());
  LockAsk cancelled = Ask(2, 1);
  cancelled.deadline_ns = MonotonicNs() + 600'000'000'000;
  cancelled.outlives_call = true;
  LockAsk given_up = Ask(2, 2);
  given_up.deadline_ns = MonotonicNs() + 1'000'000;
  given_up.outlives_call = true;
  Reply gone, ended, next;
  const uint64_t call = Wait(cancelled, &gone);
  EXPECT_EQ(Describe().waiter_count, 1u);

  service_->Cancel(call);
  EXPECT_EQ(Describe().waiter_count, 0u) << "long before its deadline: the caller is gone";
  Wait(given_up, &ended);
  Wait(Ask(3, 1), &next);
  EXPECT_EQ(ended.Await().status().reason(), Reason::kTimeout);
  ASSERT_TRUE(*service_->Release(1, "x", held->token));

  EXPECT_TRUE(next.Await()->acquired);
}

TEST_F(LockServiceTest, ASuccessorFindsLeasesAndPlaces) {
  Start({1, 2, 3});
  const auto held = Acquire(Ask(1, 1));
  ASSERT_TRUE(held.ok());
  std::vector<Reply> cut_off(3);
  Wait(Ask(2, 1), &cut_off[0]);
  Wait(Ask(3, 1), &cut_off[1]);
  Wait(Ask(2, 2), &cut_off[2]);

  Start({1, 2});  // Session 3 is gone.

  for (const Reply& reply : cut_off) EXPECT_EQ(reply.Await().status().reason(), Reason::kDraining);
  EXPECT_EQ(Acquire(Ask(1, 1))->token, held->token);
  EXPECT_TRUE(service_->Renew(1, "x", held->token, 0).ok());
  EXPECT_EQ(service_->Renew(1, "y", held->token, 0).status().reason(), Reason::kLockLost);
  EXPECT_EQ(service_->Renew(2, "x", held->token, 0).status().reason(), Reason::kLockLost);
  EXPECT_EQ(service_->HeldBy(1), 1u);
  Reply second;
  Reply first;
  Wait(Ask(2, 2), &second);
  Wait(Ask(2, 1), &first);
  EXPECT_TRUE(*service_->Release(1, "x", held->token));
  EXPECT_TRUE(first.Await()->acquired);
  EXPECT_GT(first.Await()->token, held->token);
  EXPECT_FALSE(second.has_come());
  EXPECT_EQ(Acquire(Ask(3, 1)).status().reason(), Reason::kSessionNotFound);
}

TEST_F(LockServiceTest, ALeaseThatEndedMeanwhileIsTold) {
  Start({1});
  LockAsk ask = Ask(1, 1);
  ask.ttl_ns = kLockTtlNsMin;
  const auto held = Acquire(ask);
  ASSERT_TRUE(held.ok());
  Stop();
  const uint64_t until = MonotonicNs() + 2 * kLockTtlNsMin;
  while (MonotonicNs() < until) SleepNs(1'000'000);

  Start({1});

  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ASSERT_EQ(losses_.size(), 1u);
    EXPECT_EQ(losses_[0].session, 1u);
    EXPECT_EQ(losses_[0].name, "x");
    EXPECT_EQ(losses_[0].token, held->token);
  }
  EXPECT_EQ(Acquire(ask).status().reason(), Reason::kLockLost);
  EXPECT_TRUE(Acquire(Ask(1, 2))->acquired);
}

TEST_F(LockServiceTest, LimitsAreTold) {
  Start({1, 2}, {.waiters_max = 1, .locks_per_session_max = 2});
  ASSERT_TRUE(Acquire(Ask(1, 1))->acquired);
  Reply waits;
  Wait(Ask(1, 2), &waits);

  EXPECT_EQ(Acquire(Ask(1, 3, "y")).status().reason(), Reason::kLimitExceeded);
  EXPECT_EQ(Acquire(Ask(2, 1)).status().reason(), Reason::kLimitExceeded);
  EXPECT_TRUE(Acquire(Ask(2, 2, "y"))->acquired) << "it need not wait";
  EXPECT_EQ(Describe().waiter_count, 1u);
}

TEST_F(LockServiceTest, AHeldBucketIsTriedAgainAndTold) {
  Start({1});
  LockSpace& space = engine_->locks();
  std::atomic<uint64_t>& control =
      LockInternals::Bucket(space, LockInternals::BucketOf(space, "x")).control;
  const uint64_t free = control.load();
  uint64_t locked = 0;
  ASSERT_TRUE(TryLockOwned(control, 9, &locked));  // A worker that was stopped.
  Reply refused;
  Reply granted;
  Reply other;
  Wait(Ask(1, 1), &refused);
  EXPECT_EQ(refused.Await().status().reason(), Reason::kStalled);
  std::string elsewhere = "y";
  while (LockInternals::BucketOf(space, elsewhere) == LockInternals::BucketOf(space, "x")) {
    elsewhere += "y";
  }
  EXPECT_TRUE(Acquire(Ask(1, 2, elsewhere))->acquired) << "others go on";
  Wait(Ask(1, 3), &granted);
  const uint64_t gone = Wait(Ask(1, 4), &other);

  service_->Cancel(gone);
  EXPECT_EQ(other.Await().status().reason(), Reason::kCancelled);
  control.store(free);

  EXPECT_TRUE(granted.Await()->acquired);
  EXPECT_EQ(Describe().waiter_count, 0u);
}

TEST_F(LockServiceTest, ASessionEndsWithAllThatItHasAndTakesNothingNew) {
  Start({1, 2});
  for (uint64_t i = 0; i < 50; ++i) {
    ASSERT_TRUE(Acquire(Ask(1, 1 + i, "lock " + std::to_string(i)))->acquired);
  }
  std::vector<Reply> waits(50);
  for (uint64_t i = 0; i < waits.size(); ++i) {
    Wait(Ask(1, 100 + i, "lock " + std::to_string(i)), &waits[i]);
  }
  Reply next;
  Wait(Ask(2, 1, "lock 7"), &next);

  EXPECT_EQ(service_->EndSession(1), 50u);

  EXPECT_TRUE(next.Await()->acquired);
  for (const Reply& wait : waits) {
    EXPECT_EQ(wait.Await().status().reason(), Reason::kSessionNotFound);
  }
  EXPECT_EQ(Acquire(Ask(1, 200)).status().reason(), Reason::kSessionNotFound);
  EXPECT_EQ(service_->EndSession(1), 0u);
  uint32_t bucket = 0;
  size_t left = 0;
  ASSERT_TRUE(
      engine_->locks()
          .List(engine_->DaemonLane(0), "", &bucket, 1000, 10, [&](LockDescription&) { ++left; })
          .ok());
  EXPECT_EQ(left, 1u);
}

TEST_F(LockServiceTest, WhatCannotBeGivenBackNowIsGivenBackLater) {
  Start({1, 2});
  ASSERT_TRUE(Acquire(Ask(1, 1))->acquired);
  Reply own;
  Reply next;
  Wait(Ask(1, 2), &own);
  Wait(Ask(2, 1), &next);
  LockSpace& space = engine_->locks();
  std::atomic<uint64_t>& control =
      LockInternals::Bucket(space, LockInternals::BucketOf(space, "x")).control;
  const uint64_t free = control.load();
  uint64_t locked = 0;
  ASSERT_TRUE(TryLockOwned(control, 9, &locked));

  EXPECT_EQ(service_->EndSession(1), 1u);
  EXPECT_EQ(own.Await().status().reason(), Reason::kSessionNotFound);
  EXPECT_FALSE(next.has_come());
  control.store(free);

  EXPECT_TRUE(next.Await()->acquired);
  EXPECT_EQ(Describe().holder_count, 1u);
}

TEST_F(LockServiceTest, AWorkersReleaseServesACall) {
  Start({1});
  const Lane worker{16, kOperationTimeoutNsDefault};
  LockSpace& space = engine_->locks();
  ASSERT_TRUE(space.PrepareLanes(16, 1).ok());
  LockPlace place = 0;
  LockLook look;
  ASSERT_TRUE(space.Acquire(worker, "x", {}, &place, &look).ok());
  ASSERT_EQ(look.phase, LockPhase::kHolding);
  Reply reply;
  Wait(Ask(1, 1), &reply);

  bool held = false;
  ASSERT_TRUE(space.Release(worker, place, &held).ok());

  EXPECT_TRUE(reply.Await()->acquired);
}

TEST_F(LockServiceTest, AWorkersLeaseThatEndsServesACall) {
  Start({1});
  const Lane worker{16, kOperationTimeoutNsDefault};
  LockSpace& space = engine_->locks();
  ASSERT_TRUE(space.PrepareLanes(16, 1).ok());
  LockPlace place = 0;
  LockLook look;
  LockRequest brief;
  brief.ttl_ns = kLockTtlNsMin;
  ASSERT_TRUE(space.Acquire(worker, "x", brief, &place, &look).ok());
  Reply reply;

  Wait(Ask(1, 1), &reply);

  EXPECT_TRUE(reply.Await()->acquired);
  EXPECT_GE(space.NowNs(), look.expires_ns);
}

}  // namespace
}  // namespace statehouse
