#include "service/rpc/reason_map.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <regex>
#include <string>

#include "statehouse/internal/v1/rpc_status.pb.h"
#include "statehouse/v1/error.pb.h"

namespace statehouse {
namespace {

const std::map<std::string, grpc::StatusCode> kCodes = {
    {"CANCELLED", grpc::StatusCode::CANCELLED},
    {"INVALID_ARGUMENT", grpc::StatusCode::INVALID_ARGUMENT},
    {"DEADLINE_EXCEEDED", grpc::StatusCode::DEADLINE_EXCEEDED},
    {"NOT_FOUND", grpc::StatusCode::NOT_FOUND},
    {"ALREADY_EXISTS", grpc::StatusCode::ALREADY_EXISTS},
    {"PERMISSION_DENIED", grpc::StatusCode::PERMISSION_DENIED},
    {"RESOURCE_EXHAUSTED", grpc::StatusCode::RESOURCE_EXHAUSTED},
    {"FAILED_PRECONDITION", grpc::StatusCode::FAILED_PRECONDITION},
    {"OUT_OF_RANGE", grpc::StatusCode::OUT_OF_RANGE},
    {"ABORTED", grpc::StatusCode::ABORTED},
    {"UNIMPLEMENTED", grpc::StatusCode::UNIMPLEMENTED},
    {"INTERNAL", grpc::StatusCode::INTERNAL},
    {"UNAVAILABLE", grpc::StatusCode::UNAVAILABLE},
    {"DATA_LOSS", grpc::StatusCode::DATA_LOSS},
    {"UNAUTHENTICATED", grpc::StatusCode::UNAUTHENTICATED},
};

TEST(ReasonMapTest, EveryReasonHasTheCodeThatTheCatalogueGivesInBrackets) {
  std::ifstream file(STATEHOUSE_ERROR_PROTO);
  ASSERT_TRUE(file) << STATEHOUSE_ERROR_PROTO;
  const std::regex comment(R"(^  // \[([A-Z_]+)\])");
  const std::regex value(R"(^  ERROR_REASON_([A-Z_]+) = (\d+);)");
  std::string code;
  int found = 0;
  for (std::string line; std::getline(file, line);) {
    std::smatch match;
    if (std::regex_search(line, match, comment)) code = match[1];
    if (!std::regex_search(line, match, value) || match[2] == "0") continue;
    const auto reason = static_cast<Reason>(std::stoi(match[2]));
    ASSERT_EQ(kCodes.count(code), 1u) << line << " stands below [" << code << "]";
    EXPECT_EQ(CodeOf(reason), kCodes.at(code)) << line;
    EXPECT_EQ(ReasonName(reason), match[1].str());
    ++found;
  }
  EXPECT_EQ(found, kReasonCount - 1);
  EXPECT_EQ(v1::ErrorReason_ARRAYSIZE, kReasonCount);
  EXPECT_EQ(CodeOf(Reason::kOk), grpc::StatusCode::OK);
}

TEST(ReasonMapTest, DetailsHoldReasonNameAndRetryAdvice) {
  const grpc::Status status =
      ToGrpcStatus(Status(Reason::kRateLimited, "too many tries").WithRetryAfter(250), "web/a");

  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "too many tries");
  internal::v1::RpcStatus rpc;
  ASSERT_TRUE(rpc.ParseFromString(status.error_details()));
  EXPECT_EQ(rpc.code(), status.error_code());
  EXPECT_EQ(rpc.message(), "too many tries");
  ASSERT_EQ(rpc.details_size(), 1);
  EXPECT_EQ(rpc.details(0).type_url(), "type.googleapis.com/statehouse.v1.ErrorDetail");
  v1::ErrorDetail detail;
  ASSERT_TRUE(rpc.details(0).UnpackTo(&detail));
  EXPECT_EQ(detail.reason(), v1::ERROR_REASON_RATE_LIMITED);
  EXPECT_EQ(detail.name(), "web/a");
  EXPECT_TRUE(detail.retryable());
  EXPECT_EQ(detail.retry_after_ms(), 250u);
}

TEST(ReasonMapTest, LongAndForeignTextsFitTheTrailers) {
  const grpc::Status status =
      ToGrpcStatus(Status(Reason::kInternal, std::string(100'000, '\xff')), std::string(9999, 'n'));

  internal::v1::RpcStatus rpc;
  ASSERT_TRUE(rpc.ParseFromString(status.error_details()));
  EXPECT_EQ(status.error_message().find_first_not_of('?'), std::string::npos);
  EXPECT_LT(status.error_message().size() + status.error_details().size() * 4 / 3, 6000u);
}

}  // namespace
}  // namespace statehouse
