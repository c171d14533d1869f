// The reader of answers to batches against what protobuf writes.
#include "clients/c/src/batch_answer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>

#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

template <typename Message>
ShortResult Read(uint32_t field, const Message& message) {
  ShortResult result;
  static std::string bytes;  // The result points into it.
  bytes = message.SerializeAsString();
  EXPECT_TRUE(ReadShortResult(field, bytes, &result));
  return result;
}

TEST(BatchAnswerTest, ResultsAreFoundInTheirOrder) {
  v1::RunBatchResponse response;
  response.mutable_result()->add_results()->mutable_set()->set_version(7);
  response.mutable_result()->add_results()->mutable_failure()->set_message("no");
  response.mutable_result()->add_results()->mutable_renew_session();
  std::vector<BatchAnswered> answered;
  const std::string bytes = response.SerializeAsString();
  ASSERT_TRUE(ReadBatchAnswer(bytes, &answered));
  ASSERT_EQ(answered.size(), 3u);
  EXPECT_EQ(answered[0].field, kShortSet);
  EXPECT_EQ(answered[1].field, uint32_t{v1::OperationResult::kFailure});
  EXPECT_EQ(answered[2].field, uint32_t{v1::OperationResult::kRenewSession});
  EXPECT_TRUE(answered[2].message.empty());
  for (size_t size = 1; size < bytes.size(); ++size) {
    answered.clear();
    EXPECT_FALSE(ReadBatchAnswer(std::string_view(bytes).substr(0, size), &answered)) << size;
  }
  answered.clear();
  EXPECT_TRUE(ReadBatchAnswer("", &answered));
  EXPECT_TRUE(answered.empty());
  EXPECT_FALSE(ReadBatchAnswer(bytes + "x", &answered));
}

TEST(BatchAnswerTest, ShortResultsHaveTheNumbersThatWereWritten) {
  v1::EntryIncrementResult sum;
  for (const int64_t number :
       {int64_t{0}, int64_t{1}, int64_t{-1}, int64_t{300}, std::numeric_limits<int64_t>::min(),
        std::numeric_limits<int64_t>::max()}) {
    sum.set_number(number);
    sum.set_version(9);
    const ShortResult result = Read(kShortIncrement, sum);
    EXPECT_EQ(static_cast<int64_t>(result.bits), number);
    EXPECT_EQ(result.version, 9u);
    EXPECT_FALSE(result.is_float);
  }
  sum.set_number(0);
  sum.set_float_number(-0.5);
  const ShortResult real = Read(kShortIncrement, sum);
  double number = 0;
  std::memcpy(&number, &real.bits, sizeof number);
  EXPECT_TRUE(real.is_float);
  EXPECT_EQ(number, -0.5);

  v1::WordAddResult word;
  word.mutable_value()->set_signed_value(-3);
  EXPECT_EQ(static_cast<int64_t>(Read(kShortAdd, word).bits), -3);
  word.mutable_value()->set_unsigned_value(0);
  EXPECT_EQ(Read(kShortAdd, word).bits, 0u);

  v1::EntryGetResult entry;
  EXPECT_FALSE(Read(kShortGet, entry).has_value);
  entry.mutable_value()->set_string_value("x");
  entry.set_version(5);
  const ShortResult got = Read(kShortGet, entry);
  EXPECT_TRUE(got.has_value);
  EXPECT_EQ(got.value, entry.value().SerializeAsString());
  EXPECT_EQ(got.version, 5u);
}

TEST(BatchAnswerTest, WhatIsNoResultIsRefused) {
  ShortResult result;
  EXPECT_FALSE(ReadShortResult(0, "", &result));
  EXPECT_FALSE(ReadShortResult(v1::OperationResult::kFailure, "", &result));
  EXPECT_FALSE(ReadShortResult(kShortAdd, "", &result));
  EXPECT_FALSE(ReadShortResult(kShortSet, "x", &result));
  EXPECT_FALSE(ReadShortResult(kShortIncrement, "\x19\x01", &result));  // A float that is cut.
  EXPECT_FALSE(ReadShortResult(kShortGet, "\x0a\x05x", &result));
}

}  // namespace
}  // namespace statehouse
