// The fencing token of each call that changes an area.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "service/api/api_test_support.h"
#include "statehouse/v1/area.pb.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

#define SH_STATUS_OF(service, name, request) \
  service.Call<v1::name##Response>("/statehouse.v1.Areas/" #name, request).status()

struct Change {
  const char* name;
  std::function<Status(TestService&, uint64_t fence)> call;
};

template <typename Request>
Request For(uint64_t fence) {
  Request request;
  request.set_name("a");
  request.set_pos(8);
  request.set_fence(fence);
  return request;
}

template <typename Request>
Request ForWord(uint64_t fence) {
  auto request = For<Request>(fence);
  request.set_type(v1::WORD_TYPE_U8);
  return request;
}

std::vector<Change> Changes() {
  return {
      {"WriteArea",
       [](TestService& service, uint64_t fence) {
         auto request = For<v1::WriteAreaRequest>(fence);
         request.set_data("bytes");
         return SH_STATUS_OF(service, WriteArea, request);
       }},
      {"FillArea",
       [](TestService& service, uint64_t fence) {
         auto request = For<v1::FillAreaRequest>(fence);
         request.set_len(5);
         request.set_value(7);
         return SH_STATUS_OF(service, FillArea, request);
       }},
      {"StoreWord",
       [](TestService& service, uint64_t fence) {
         auto request = ForWord<v1::StoreWordRequest>(fence);
         request.mutable_value()->set_unsigned_value(7);
         return SH_STATUS_OF(service, StoreWord, request);
       }},
      {"AddWord",
       [](TestService& service, uint64_t fence) {
         return SH_STATUS_OF(service, AddWord, ForWord<v1::AddWordRequest>(fence));
       }},
      {"CompareExchangeWord",
       [](TestService& service, uint64_t fence) {
         auto request = ForWord<v1::CompareExchangeWordRequest>(fence);
         request.mutable_expected()->set_unsigned_value(0);
         request.mutable_desired()->set_unsigned_value(0);
         return SH_STATUS_OF(service, CompareExchangeWord, request);
       }},
      {"BitwiseWord",
       [](TestService& service, uint64_t fence) {
         auto request = ForWord<v1::BitwiseWordRequest>(fence);
         request.set_operator_(v1::BITWISE_OPERATOR_OR);
         request.mutable_operand()->set_unsigned_value(1);
         return SH_STATUS_OF(service, BitwiseWord, request);
       }},
  };
}

TEST(AreaFenceVerbsTest, EveryChangeWithAnOlderTokenIsRefused) {
  for (const Change& change : Changes()) {
    TestService service;
    service.MakeArea("a", 4096);
    ASSERT_TRUE(change.call(service, 70).ok()) << change.name;

    const Status late = change.call(service, 69);

    EXPECT_EQ(late.reason(), Reason::kFenced) << change.name;
    EXPECT_THAT(late.message(), HasSubstr("area \"a\"")) << change.name;
    EXPECT_THAT(late.message(), HasSubstr("70")) << change.name;
    EXPECT_TRUE(change.call(service, 70).ok()) << change.name;
    EXPECT_TRUE(change.call(service, 0).ok()) << change.name << " without a token";
  }
}

TEST(AreaFenceVerbsTest, ALongRangeSaysHowMuchOfItWasWritten) {
  TestService service;
  service.MakeArea("a", 1 << 20);
  auto near_end = For<v1::StoreWordRequest>(9);
  near_end.set_pos(300'000);
  near_end.set_type(v1::WORD_TYPE_U8);
  near_end.mutable_value()->set_unsigned_value(1);
  ASSERT_TRUE(SH_STATUS_OF(service, StoreWord, near_end).ok());
  auto fill = For<v1::FillAreaRequest>(8);
  fill.set_pos(0);
  fill.set_value(7);

  const Status late = SH_STATUS_OF(service, FillArea, fill);

  EXPECT_EQ(late.reason(), Reason::kFenced);
  EXPECT_THAT(late.message(), HasSubstr("; the first 262144 of 1048576 bytes were filled"));
}

}  // namespace
}  // namespace statehouse
