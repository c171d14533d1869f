// What the tests of lock and session verbs share: a service and its calls.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "service/api/api_test_support.h"
#include "service/api/lock_verbs.h"
#include "statehouse/v1/lock.pb.h"
#include "statehouse/v1/session.pb.h"

namespace statehouse {

inline constexpr char kAcquire[] = "/statehouse.v1.Locks/AcquireLock";
inline constexpr char kRenew[] = "/statehouse.v1.Locks/RenewLock";
inline constexpr char kRelease[] = "/statehouse.v1.Locks/ReleaseLock";
inline constexpr char kDescribe[] = "/statehouse.v1.Locks/DescribeLock";
inline constexpr char kList[] = "/statehouse.v1.Locks/ListLocks";
inline constexpr char kForce[] = "/statehouse.v1.Locks/ForceReleaseLock";
inline constexpr char kOpen[] = "/statehouse.v1.Sessions/OpenSession";
inline constexpr char kRenewSession[] = "/statehouse.v1.Sessions/RenewSession";
inline constexpr char kHold[] = "/statehouse.v1.Sessions/HoldSession";
inline constexpr char kClose[] = "/statehouse.v1.Sessions/CloseSession";
inline constexpr char kListSessions[] = "/statehouse.v1.Sessions/ListSessions";

inline void SetMs(int64_t ms, google::protobuf::Duration* duration) {
  duration->set_seconds(ms / 1000);
  duration->set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
}

class LockVerbsFixture : public ::testing::Test {
 protected:
  uint64_t Open(const std::string& name = "client", int64_t ttl_ms = 60'000) {
    v1::OpenSessionRequest request;
    request.set_client_name(name);
    SetMs(ttl_ms, request.mutable_ttl());
    const auto opened = service_.Call<v1::OpenSessionResponse>(kOpen, request);
    EXPECT_TRUE(opened.ok()) << opened.status().ToString();
    return opened.ok() ? opened->session_id() : 0;
  }
  v1::AcquireLockRequest Ask(uint64_t session, const std::string& name = "deploy") {
    v1::AcquireLockRequest request;
    request.set_name(name);
    request.set_session_id(session);
    request.set_request_id(next_request_++);
    request.set_mode(v1::LOCK_MODE_EXCLUSIVE);
    return request;
  }
  v1::AcquireLockRequest Try(uint64_t session, const std::string& name = "deploy") {
    v1::AcquireLockRequest request = Ask(session, name);
    SetMs(0, request.mutable_timeout());
    return request;
  }
  StatusOr<v1::AcquireLockResponse> Acquire(const v1::AcquireLockRequest& request) {
    return service_.Call<v1::AcquireLockResponse>(kAcquire, request);
  }
  // A lock that is free: its token.
  uint64_t Take(const v1::AcquireLockRequest& request) {
    const auto acquired = Acquire(request);
    EXPECT_TRUE(acquired.ok()) << acquired.status().ToString();
    if (!acquired.ok()) return 0;
    EXPECT_TRUE(acquired->acquired());
    EXPECT_GT(acquired->token(), 0u);
    return acquired->token();
  }
  StatusOr<v1::ReleaseLockResponse> Release(uint64_t session, uint64_t token,
                                            const std::string& name = "deploy") {
    v1::ReleaseLockRequest request;
    request.set_name(name);
    request.set_session_id(session);
    request.set_token(token);
    return service_.Call<v1::ReleaseLockResponse>(kRelease, request);
  }
  StatusOr<v1::RenewLockResponse> Renew(uint64_t session, uint64_t token,
                                        const std::string& name = "deploy") {
    v1::RenewLockRequest request;
    request.set_name(name);
    request.set_session_id(session);
    request.set_token(token);
    return service_.Call<v1::RenewLockResponse>(kRenew, request);
  }
  v1::Lock Describe(const std::string& name = "deploy") {
    v1::DescribeLockRequest request;
    request.set_name(name);
    const auto described = service_.Call<v1::DescribeLockResponse>(kDescribe, request);
    EXPECT_TRUE(described.ok()) << described.status().ToString();
    return described.ok() ? described->lock() : v1::Lock();
  }
  // A call that waits.
  std::shared_ptr<PendingCall> Wait(const v1::AcquireLockRequest& request, Answer* answer) {
    auto pending = service_.Send(kAcquire, request.SerializeAsString(), answer);
    EXPECT_NE(pending, nullptr);
    EXPECT_FALSE(answer->has_come());
    return pending;
  }
  static v1::AcquireLockResponse Acquired(const Answer& answer) {
    v1::AcquireLockResponse response;
    const StatusOr<std::string> bytes = answer.Await();
    EXPECT_TRUE(bytes.ok()) << bytes.status().ToString();
    EXPECT_TRUE(bytes.ok() && response.ParseFromString(*bytes));
    return response;
  }
  std::shared_ptr<PendingCall> Hold(uint64_t session, Answer* answer) {
    v1::HoldSessionRequest request;
    request.set_session_id(session);
    return service_.Send(kHold, request.SerializeAsString(), answer);
  }
  static v1::HoldSessionResponse Told(const Answer& answer) {
    v1::HoldSessionResponse response;
    const StatusOr<std::string> bytes = answer.Await();
    EXPECT_TRUE(bytes.ok()) << bytes.status().ToString();
    EXPECT_TRUE(bytes.ok() && response.ParseFromString(*bytes));
    return response;
  }

  TestService service_;
  uint64_t next_request_ = 1;
};

}  // namespace statehouse
