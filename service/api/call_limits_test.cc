// The limit of a token's calls, as every door's calls meet it.
#include <gmock/gmock.h>

#include "service/api/api_test_support.h"
#include "statehouse/v1/admin.pb.h"
#include "statehouse/v1/area.pb.h"
#include "statehouse/v1/batch.pb.h"
#include "statehouse/v1/dict.pb.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

constexpr char kGetStatus[] = "/statehouse.v1.Admin/GetStatus";
constexpr char kWaitArea[] = "/statehouse.v1.Areas/WaitArea";

class CallLimitsTest : public testing::Test {
 protected:
  std::shared_ptr<const Identity> CallerWith(const CallLimits& limits) {
    limit_ = std::make_shared<CallLimit>(limits);
    return std::make_shared<const Identity>(
        "testtest", "", 0,
        std::vector<Grant>{*ParseGrant("area:*:read,write"), *ParseGrant("dict:*:read,write")},
        limit_);
  }
  Status Ask(const std::shared_ptr<const Identity>& caller) {
    return service_.CallAs<v1::GetStatusResponse>(caller, kGetStatus, v1::GetStatusRequest())
        .status();
  }

  TestService service_;
  std::shared_ptr<CallLimit> limit_;
};

TEST_F(CallLimitsTest, CallsBeyondTheRateAreRefusedAndCounted) {
  const auto caller = CallerWith({5, 0});
  int refused = 0;
  for (int i = 0; i < 20; ++i) {
    const Status status = Ask(caller);
    if (status.ok()) continue;
    ++refused;
    EXPECT_EQ(status.reason(), Reason::kRateLimited);
    EXPECT_GT(status.retry_after_ms(), 0u);
    EXPECT_LE(status.retry_after_ms(), 201u);
  }
  EXPECT_GE(refused, 10);
  EXPECT_EQ(service_.observer().count(kGetStatus, Reason::kRateLimited),
            static_cast<uint64_t>(refused));
  // Nobody else is concerned.
  EXPECT_TRUE(Ask(IdentityOf({})).ok());
}

TEST_F(CallLimitsTest, WaitsCountAsLongAsTheyLast) {
  const auto area = service_.MakeArea("a", 64);
  const auto caller = CallerWith({0, 2});
  v1::WaitAreaRequest wait;
  wait.set_name("a");
  wait.set_since(area->area().Updates());
  Answer first;
  Answer second;
  for (Answer* const answer : {&first, &second}) {
    service_.dispatcher().Dispatch(service_.Context(caller), kWaitArea, wait.SerializeAsString(),
                                   answer->Callback());
  }
  const Status refused = Ask(caller);
  EXPECT_EQ(refused.reason(), Reason::kRateLimited);
  EXPECT_THAT(refused.message(), HasSubstr("2 calls at once"));
  ASSERT_TRUE(area->area().Fill(service_.engine().DaemonLane(0), 0, 8, std::byte{1}).ok());
  EXPECT_TRUE(first.Await().ok());
  EXPECT_TRUE(second.Await().ok());
  EXPECT_TRUE(Eventually([&] { return limit_->at_once() == 0; }));
  EXPECT_TRUE(Ask(caller).ok());
}

TEST_F(CallLimitsTest, ABatchCountsWithAllItsOperations) {
  const auto caller = CallerWith({10, 1});
  service_.MakeArea("a", 64);
  v1::RunBatchRequest batch;
  for (int i = 0; i < 100; ++i) {
    batch.mutable_batch()->add_operations()->mutable_describe_area()->set_name("a");
  }
  const auto done =
      service_.CallAs<v1::RunBatchResponse>(caller, "/statehouse.v1.Batches/RunBatch", batch);
  ASSERT_TRUE(done.ok()) << done.status().ToString();
  for (const v1::OperationResult& result : done->result().results()) {
    EXPECT_FALSE(result.has_failure());
  }
  const Status refused = Ask(caller);
  EXPECT_EQ(refused.reason(), Reason::kRateLimited);
  EXPECT_GT(refused.retry_after_ms(), 5000u);
  EXPECT_EQ(limit_->at_once(), 0u);
}

TEST_F(CallLimitsTest, AStreamCountsWhenItBegins) {
  service_.MakeArea("a", 64);
  const auto caller = CallerWith({2, 1});
  v1::WatchAreaRequest watch;
  watch.set_name("a");
  std::vector<std::unique_ptr<ServedStream>> streams;
  int refused = 0;
  for (int i = 0; i < 5; ++i) {
    auto stream =
        service_.dispatcher().OpenStream(service_.Context(caller), "/statehouse.v1.Areas/WatchArea",
                                         watch.SerializeAsString(), [] {});
    if (stream.ok()) {
      streams.push_back(*std::move(stream));
    } else {
      ++refused;
      EXPECT_EQ(stream.status().reason(), Reason::kRateLimited);
    }
  }
  EXPECT_GE(streams.size(), 2u);
  EXPECT_GE(refused, 1);
  EXPECT_EQ(limit_->at_once(), 0u);
}

// Else a token beyond its limit loses what it holds.
TEST_F(CallLimitsTest, WhatKeepsAndGivesBackLeasesIsNeverHeldUp) {
  const auto caller = CallerWith({1, 1});
  ASSERT_TRUE(limit_->Begin("testtest", 0).ok());  // For good.
  EXPECT_EQ(Ask(caller).reason(), Reason::kRateLimited);
  for (const char* const method :
       {"Locks/RenewLock", "Locks/ReleaseLock", "Sessions/RenewSession", "Sessions/HoldSession",
        "Sessions/CloseSession", "Admin/Drain"}) {
    Answer answer;
    service_.dispatcher().Dispatch(service_.Context(caller),
                                   "/statehouse.v1." + std::string(method), "", answer.Callback());
    EXPECT_NE(answer.Await().status().reason(), Reason::kRateLimited) << method;
  }
  EXPECT_EQ(limit_->at_once(), 1u);
}

}  // namespace
}  // namespace statehouse
