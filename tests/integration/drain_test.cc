// What others see of a service that drains: probes, callers with something new, callers with
// something old.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "service/exit_codes.h"
#include "statehouse/internal/v1/rpc_status.pb.h"
#include "statehouse/v1/admin.grpc.pb.h"
#include "statehouse/v1/area.grpc.pb.h"
#include "statehouse/v1/batch.grpc.pb.h"
#include "statehouse/v1/dict.grpc.pb.h"
#include "statehouse/v1/error.pb.h"
#include "statehouse/v1/lock.grpc.pb.h"
#include "statehouse/v1/session.grpc.pb.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

using HealthStatus = grpc::health::v1::HealthCheckResponse;

// Beyond every patience: a service that lingers so long is ended by a signal.
constexpr const char* kForEver = "3600000";
constexpr const char* kHint = "the service is draining before it stops; try its successor";

v1::ErrorReason ReasonOf(const grpc::Status& status) {
  internal::v1::RpcStatus rich;
  v1::ErrorDetail detail;
  if (!rich.ParseFromString(status.error_details()) || rich.details_size() == 0 ||
      !rich.details(0).UnpackTo(&detail)) {
    return v1::ERROR_REASON_UNSPECIFIED;
  }
  return detail.reason();
}

void ExpectDraining(const grpc::Status& status) {
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_DRAINING);
  EXPECT_NE(status.error_message().find(kHint), std::string::npos) << status.error_message();
}

class DrainTest : public ::testing::Test {
 protected:
  using DictWatch = std::unique_ptr<grpc::ClientReader<v1::WatchDictResponse>>;

  void Start(std::vector<std::string> arguments) {
    DaemonOptions options;
    options.arguments = std::move(arguments);
    auto daemon = Daemon::Start(std::move(options));
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
    channel_ = grpc::CreateChannel(daemon_->tcp_address(), grpc::InsecureChannelCredentials());
    dicts_ = v1::Dicts::NewStub(channel_);
    areas_ = v1::Areas::NewStub(channel_);
    locks_ = v1::Locks::NewStub(channel_);
    sessions_ = v1::Sessions::NewStub(channel_);
  }
  grpc::ClientContext* Context() {
    contexts_.push_back(std::make_unique<grpc::ClientContext>());
    contexts_.back()->AddMetadata("authorization", "Bearer " + daemon_->token());
    contexts_.back()->set_deadline(std::chrono::system_clock::now() + kPatience);
    return contexts_.back().get();
  }
  void CreateObjects() {
    v1::CreateDictRequest dict;
    dict.set_name("d");
    v1::CreateDictResponse made_dict;
    ASSERT_TRUE(dicts_->CreateDict(Context(), dict, &made_dict).ok());
    v1::CreateAreaRequest area;
    area.set_name("a");
    area.set_size(64);
    v1::CreateAreaResponse made_area;
    ASSERT_TRUE(areas_->CreateArea(Context(), area, &made_area).ok());
  }
  grpc::Status Open(uint64_t* session) {
    v1::OpenSessionResponse response;
    const grpc::Status status = sessions_->OpenSession(Context(), {}, &response);
    *session = response.session_id();
    return status;
  }
  v1::AcquireLockRequest LockRequest(uint64_t session, const std::string& name) {
    v1::AcquireLockRequest request;
    request.set_name(name);
    request.set_session_id(session);
    request.set_request_id(next_request_++);
    request.set_mode(v1::LOCK_MODE_EXCLUSIVE);
    request.mutable_ttl()->set_seconds(3600);
    return request;
  }
  grpc::Status Acquire(uint64_t session, const std::string& name, uint64_t* token) {
    v1::AcquireLockResponse response;
    const grpc::Status status =
        locks_->AcquireLock(Context(), LockRequest(session, name), &response);
    *token = response.token();
    return status;
  }
  grpc::Status Set(const std::string& key) {
    v1::SetEntryRequest request;
    request.set_name("d");
    request.set_key(key);
    request.mutable_value()->set_int_value(1);
    v1::SetEntryResponse response;
    return dicts_->SetEntry(Context(), request, &response);
  }
  DictWatch Watch() {
    v1::WatchDictRequest request;
    request.set_name("d");
    return dicts_->WatchDict(Context(), request);
  }
  // Reads until the watch has told all there is.
  static bool ReadUntilSynced(const DictWatch& watch) {
    v1::WatchDictResponse message;
    while (watch->Read(&message)) {
      if (message.has_synced()) return true;
    }
    return false;
  }
  HealthStatus::ServingStatus Health() {
    HealthStatus response;
    const auto health = grpc::health::v1::Health::NewStub(channel_);
    const grpc::Status status = health->Check(Context(), {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.status();
  }
  bool ProbeSees(const std::string& status) {
    return daemon_->HttpGet("/readyz").starts_with("HTTP/1.1 " + status);
  }
  // SIGTERM to the keeper, and waits until a probe sees it.
  void BeginDrain() {
    keeper_ = daemon_->keeper_pid();
    ASSERT_EQ(kill(keeper_, SIGTERM), 0);
    ASSERT_TRUE(Eventually([&] { return ProbeSees("503"); })) << daemon_->errors();
  }
  // After a call of Drain.
  void ExpectTheFirstSignalCutsNothing() {
    ASSERT_NO_FATAL_FAILURE(BeginDrain());
    ASSERT_TRUE(Eventually([&] {
      return daemon_->errors().find("Terminated received") != std::string::npos;
    })) << daemon_->errors();
  }
  // A second signal.
  void ExpectCutShort() {
    ASSERT_EQ(kill(keeper_, SIGTERM), 0);
    EXPECT_EQ(WaitForExit(keeper_), kExitCutShort) << daemon_->errors();
    daemon_->Forget();
    EXPECT_FALSE(HasDescendants());
  }

  std::unique_ptr<Daemon> daemon_;
  pid_t keeper_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Dicts::Stub> dicts_;
  std::unique_ptr<v1::Areas::Stub> areas_;
  std::unique_ptr<v1::Locks::Stub> locks_;
  std::unique_ptr<v1::Sessions::Stub> sessions_;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts_;  // Of watches, too.
  uint64_t next_request_ = 1;
};

TEST_F(DrainTest, WhatIsNewIsRefusedWhileItLingersAndASecondSignalEndsIt) {
  ASSERT_NO_FATAL_FAILURE(Start({"--drain-linger", kForEver, "--drain-grace", kForEver}));
  ASSERT_NO_FATAL_FAILURE(CreateObjects());
  uint64_t session = 0;
  uint64_t token = 0;
  ASSERT_TRUE(Open(&session).ok());
  ASSERT_TRUE(Acquire(session, "held", &token).ok());
  EXPECT_TRUE(ProbeSees("200"));
  EXPECT_EQ(Health(), HealthStatus::SERVING);

  ASSERT_NO_FATAL_FAILURE(BeginDrain());

  EXPECT_EQ(Health(), HealthStatus::NOT_SERVING);
  EXPECT_TRUE(daemon_->HttpGet("/healthz").starts_with("HTTP/1.1 200"));
  ExpectDraining(Watch()->Finish());
  v1::WatchAreaRequest area;
  area.set_name("a");
  ExpectDraining(areas_->WatchArea(Context(), area)->Finish());
  uint64_t none = 0;
  ExpectDraining(Acquire(session, "new", &none));
  ExpectDraining(Open(&none));
  ASSERT_NO_FATAL_FAILURE(ExpectCutShort());
}

TEST_F(DrainTest, WhatIsThereIsServedWhileItLingers) {
  ASSERT_NO_FATAL_FAILURE(Start({"--drain-linger", kForEver, "--drain-grace", kForEver}));
  ASSERT_NO_FATAL_FAILURE(CreateObjects());
  uint64_t session = 0;
  uint64_t token = 0;
  ASSERT_TRUE(Open(&session).ok());
  ASSERT_TRUE(Acquire(session, "held", &token).ok());
  const DictWatch watch = Watch();
  ASSERT_TRUE(ReadUntilSynced(watch));

  ASSERT_NO_FATAL_FAILURE(BeginDrain());

  EXPECT_TRUE(Set("late").ok());
  v1::WatchDictResponse change;
  ASSERT_TRUE(watch->Read(&change));
  ASSERT_EQ(change.changes().changes_size(), 1) << change.DebugString();
  EXPECT_EQ(change.changes().changes(0).key(), "late");
  v1::RenewLockRequest renew;
  renew.set_name("held");
  renew.set_session_id(session);
  renew.set_token(token);
  v1::RenewLockResponse renewed;
  const grpc::Status kept = locks_->RenewLock(Context(), renew, &renewed);
  EXPECT_TRUE(kept.ok()) << kept.error_message();
  v1::RenewSessionRequest heard;
  heard.set_session_id(session);
  v1::RenewSessionResponse lengthened;
  EXPECT_TRUE(sessions_->RenewSession(Context(), heard, &lengthened).ok());
  v1::GetStatusResponse status;
  const auto admin = v1::Admin::NewStub(channel_);
  EXPECT_TRUE(admin->GetStatus(Context(), {}, &status).ok());
  EXPECT_EQ(status.state(), v1::SERVING_STATE_DRAINING);
  ASSERT_NO_FATAL_FAILURE(ExpectCutShort());
  EXPECT_FALSE(watch->Read(&change));
}

TEST_F(DrainTest, OfABatchOnlyWhatTakesALockIsRefused) {
  ASSERT_NO_FATAL_FAILURE(Start({"--drain-linger", kForEver, "--drain-grace", kForEver}));
  ASSERT_NO_FATAL_FAILURE(CreateObjects());
  ASSERT_NO_FATAL_FAILURE(BeginDrain());
  v1::RunBatchRequest request;
  request.mutable_batch()->add_names("d");
  request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
  request.mutable_batch()->add_operations()->mutable_acquire_lock()->set_name("l");
  request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
  v1::RunBatchResponse response;

  const grpc::Status status =
      v1::Batches::NewStub(channel_)->RunBatch(Context(), request, &response);

  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.result().results_size(), 3);
  EXPECT_EQ(response.result().results(0).increment().number(), 1);
  EXPECT_EQ(response.result().results(1).failure().detail().reason(), v1::ERROR_REASON_DRAINING);
  EXPECT_EQ(response.result().results(2).increment().number(), 2);
  ASSERT_NO_FATAL_FAILURE(ExpectCutShort());
}

TEST_F(DrainTest, ItTellsHowManyOtherCallsAreInFlight) {
  ASSERT_NO_FATAL_FAILURE(Start({"--drain-linger", kForEver, "--drain-grace", kForEver}));
  ASSERT_NO_FATAL_FAILURE(CreateObjects());
  uint64_t session = 0;
  uint64_t token = 0;
  ASSERT_TRUE(Open(&session).ok());
  ASSERT_TRUE(Acquire(session, "held", &token).ok());
  const auto admin = v1::Admin::NewStub(channel_);
  v1::DrainResponse response;

  v1::AcquireLockResponse acquired;
  std::thread waiter([&, context = Context(), request = LockRequest(session, "held")] {
    EXPECT_TRUE(locks_->AcquireLock(context, request, &acquired).ok());
  });
  const bool waits = Eventually([&] {
    v1::GetStatusResponse status;
    return admin->GetStatus(Context(), {}, &status).ok() && status.lock_waiters() == 1;
  });
  const grpc::Status with_one = admin->Drain(Context(), {}, &response);
  const uint32_t beside_one = response.calls_in_flight();
  v1::ReleaseLockRequest release;
  release.set_name("held");
  release.set_session_id(session);
  release.set_token(token);
  v1::ReleaseLockResponse released;
  EXPECT_TRUE(locks_->ReleaseLock(Context(), release, &released).ok());
  waiter.join();
  EXPECT_TRUE(acquired.acquired());
  const grpc::Status alone = admin->Drain(Context(), {}, &response);

  EXPECT_TRUE(waits);
  EXPECT_TRUE(with_one.ok()) << with_one.error_message();
  EXPECT_EQ(beside_one, 1u);
  EXPECT_TRUE(alone.ok()) << alone.error_message();
  EXPECT_EQ(response.calls_in_flight(), 0u);
  ASSERT_NO_FATAL_FAILURE(ExpectTheFirstSignalCutsNothing());
  ASSERT_NO_FATAL_FAILURE(ExpectCutShort());
}

TEST_F(DrainTest, TheFirstSignalAfterACallOfDrainCutsNothingShort) {
  ASSERT_NO_FATAL_FAILURE(Start({"--drain-linger", kForEver, "--drain-grace", kForEver}));
  ASSERT_NO_FATAL_FAILURE(CreateObjects());
  v1::DrainResponse response;
  ASSERT_TRUE(v1::Admin::NewStub(channel_)->Drain(Context(), {}, &response).ok());
  ASSERT_TRUE(Eventually([&] { return ProbeSees("503"); })) << daemon_->errors();

  ASSERT_NO_FATAL_FAILURE(ExpectTheFirstSignalCutsNothing());

  EXPECT_TRUE(Set("served").ok());
  ASSERT_NO_FATAL_FAILURE(ExpectCutShort());
}

// Also over a connection that says nothing: the watch and the wait end when it has lingered.
TEST_F(DrainTest, ItEndsByItselfWhenItHasLingered) {
  ASSERT_NO_FATAL_FAILURE(Start({"--drain-linger", "2000", "--drain-grace", kForEver}));
  ASSERT_NO_FATAL_FAILURE(CreateObjects());
  const DictWatch watch = Watch();
  ASSERT_TRUE(ReadUntilSynced(watch));
  ASSERT_NO_FATAL_FAILURE(BeginDrain());

  v1::WatchDictResponse message;
  while (watch->Read(&message)) continue;
  const grpc::Status ended = watch->Finish();
  const int code = WaitForExit(keeper_);
  daemon_->Forget();

  EXPECT_EQ(ReasonOf(ended), v1::ERROR_REASON_DRAINING) << ended.error_message();
  EXPECT_EQ(code, kExitOk) << daemon_->errors();
  EXPECT_FALSE(HasDescendants());
}

TEST_F(DrainTest, ItLingersNoLongerThanTheGrace) {
  ASSERT_NO_FATAL_FAILURE(Start({"--drain-linger", kForEver, "--drain-grace", "20"}));
  EXPECT_EQ(daemon_->Stop(), kExitOk) << daemon_->errors();

  ASSERT_NO_FATAL_FAILURE(Start({"--drain-linger", kForEver, "--drain-grace", kForEver}));
  const pid_t keeper = daemon_->keeper_pid();
  v1::DrainRequest at_once;
  at_once.mutable_grace();
  v1::DrainResponse response;
  const grpc::Status asked = v1::Admin::NewStub(channel_)->Drain(Context(), at_once, &response);
  const int code = WaitForExit(keeper);
  daemon_->Forget();

  EXPECT_TRUE(asked.ok()) << asked.error_message();
  EXPECT_EQ(code, kExitOk) << daemon_->errors();
}

}  // namespace
}  // namespace statehouse::testing
