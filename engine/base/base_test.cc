// Reasons, Status, StatusOr and words: the small types that everything else is built from.
#include <set>

#include "engine/base/reason.h"
#include "engine/base/status.h"
#include "engine/base/word.h"
#include "gtest/gtest.h"

namespace statehouse {
namespace {

TEST(ReasonTest, EveryReasonHasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (uint16_t number = 0; number < kReasonCount; ++number) {
    names.insert(ReasonName(static_cast<Reason>(number)));
  }

  EXPECT_EQ(names.size(), kReasonCount);
  EXPECT_EQ(names.count("UNKNOWN"), 0u);
}

TEST(ReasonTest, NumberPastTheCatalogueIsUnknown) {
  EXPECT_EQ(ReasonName(static_cast<Reason>(kReasonCount)), "UNKNOWN");
}

TEST(ReasonTest, OnlyTransientReasonsAreRetryable) {
  EXPECT_TRUE(ReasonIsRetryable(Reason::kStalled));
  EXPECT_TRUE(ReasonIsRetryable(Reason::kUnavailable));
  EXPECT_FALSE(ReasonIsRetryable(Reason::kOutOfBounds));
  EXPECT_FALSE(ReasonIsRetryable(Reason::kOk));
}

TEST(StatusTest, DefaultIsSuccess) {
  const Status status;

  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.reason(), Reason::kOk);
  EXPECT_EQ(status.message(), "");
  EXPECT_EQ(status.ToString(), "OK");
}

TEST(StatusTest, CopyKeepsReasonAndMessage) {
  const Status status(Reason::kOutOfBounds, "pos 8");

  Status copy = status;
  Status assigned;
  assigned = copy;

  EXPECT_EQ(copy.ToString(), "OUT_OF_BOUNDS: pos 8");
  EXPECT_EQ(assigned.ToString(), "OUT_OF_BOUNDS: pos 8");
}

StatusOr<int> Half(int number) {
  if (number % 2 != 0) return Status(Reason::kInvalidArgument, "odd");
  return number / 2;
}

StatusOr<int> Quarter(int number) {
  SH_ASSIGN_OR_RETURN(const int half, Half(number));
  return Half(half);
}

TEST(StatusOrTest, MacroPassesTheFirstFailureOn) {
  EXPECT_EQ(*Quarter(12), 3);
  EXPECT_EQ(Quarter(5).status().message(), "odd");
  EXPECT_EQ(Quarter(6).status().message(), "odd");
}

struct WordCase {
  WordType type;
  uint32_t bytes;
  uint64_t mask;
  bool is_signed;
};

TEST(WordTest, WidthMaskAndSignFollowFromTheType) {
  const WordCase cases[] = {
      {WordType::kU8, 1, 0xff, false},        {WordType::kU16, 2, 0xffff, false},
      {WordType::kU32, 4, 0xffffffff, false}, {WordType::kU64, 8, ~uint64_t{0}, false},
      {WordType::kI8, 1, 0xff, true},         {WordType::kI16, 2, 0xffff, true},
      {WordType::kI32, 4, 0xffffffff, true},  {WordType::kI64, 8, ~uint64_t{0}, true},
  };
  for (const WordCase& c : cases) {
    EXPECT_EQ(WordBytes(c.type), c.bytes);
    EXPECT_EQ(WordMask(c.type), c.mask);
    EXPECT_EQ(IsSigned(c.type), c.is_signed);
  }
}

TEST(WordTest, SignExtendReadsTwosComplement) {
  EXPECT_EQ(SignExtend(WordType::kI8, 0xff), -1);
  EXPECT_EQ(SignExtend(WordType::kI8, 0x7f), 127);
  EXPECT_EQ(SignExtend(WordType::kI32, 0x80000000), -2147483648LL);
  EXPECT_EQ(SignExtend(WordType::kI64, ~uint64_t{0}), -1);
}

TEST(WordTest, FitChecksBothEndsOfEachType) {
  EXPECT_TRUE(FitsUnsigned(WordType::kU8, 255));
  EXPECT_FALSE(FitsUnsigned(WordType::kU8, 256));
  EXPECT_TRUE(FitsUnsigned(WordType::kI8, 127));
  EXPECT_FALSE(FitsUnsigned(WordType::kI8, 128));
  EXPECT_TRUE(FitsSigned(WordType::kI8, -128));
  EXPECT_FALSE(FitsSigned(WordType::kI8, -129));
  EXPECT_FALSE(FitsSigned(WordType::kU64, -1));
  EXPECT_TRUE(FitsSigned(WordType::kI64, INT64_MIN));
  EXPECT_TRUE(FitsUnsigned(WordType::kU64, UINT64_MAX));
  EXPECT_FALSE(FitsUnsigned(WordType::kI64, UINT64_MAX));
}

TEST(WordTest, OnlyOneToEightAreTypes) {
  EXPECT_FALSE(IsWordType(0));
  EXPECT_TRUE(IsWordType(1));
  EXPECT_TRUE(IsWordType(8));
  EXPECT_FALSE(IsWordType(9));
}

}  // namespace
}  // namespace statehouse
