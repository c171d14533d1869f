#include "service/api/words.h"

#include <gtest/gtest.h>

namespace statehouse {
namespace {

struct Row {
  v1::WordType type;
  int64_t number;
  bool fits;
};

TEST(WordsTest, SignedNumbersAreCheckedAtBothEnds) {
  const Row rows[] = {
      {v1::WORD_TYPE_U8, 0, true},
      {v1::WORD_TYPE_U8, 255, true},
      {v1::WORD_TYPE_U8, 256, false},
      {v1::WORD_TYPE_U8, -1, false},
      {v1::WORD_TYPE_I8, 127, true},
      {v1::WORD_TYPE_I8, 128, false},
      {v1::WORD_TYPE_I8, -128, true},
      {v1::WORD_TYPE_I8, -129, false},
      {v1::WORD_TYPE_U16, 65'535, true},
      {v1::WORD_TYPE_U16, 65'536, false},
      {v1::WORD_TYPE_I16, -32'768, true},
      {v1::WORD_TYPE_I16, 32'768, false},
      {v1::WORD_TYPE_U32, 4'294'967'295, true},
      {v1::WORD_TYPE_U32, 4'294'967'296, false},
      {v1::WORD_TYPE_I32, -2'147'483'648, true},
      {v1::WORD_TYPE_I32, 2'147'483'648, false},
      {v1::WORD_TYPE_U64, INT64_MAX, true},
      {v1::WORD_TYPE_U64, -1, false},
      {v1::WORD_TYPE_I64, INT64_MIN, true},
      {v1::WORD_TYPE_I64, INT64_MAX, true},
  };
  for (const Row& row : rows) {
    const WordType type = *ToWordType(row.type);
    v1::WordValue value;
    value.set_signed_value(row.number);
    const auto bits = ToBits(type, value, "value");
    EXPECT_EQ(bits.ok(), row.fits) << row.type << " " << row.number;
    if (!bits.ok()) {
      EXPECT_EQ(bits.status().reason(), Reason::kValueOutOfRange);
      continue;
    }
    v1::WordValue back;
    FromBits(type, *bits, &back);
    EXPECT_EQ(back.has_signed_value(), IsSigned(type));
    EXPECT_EQ(
        back.has_signed_value() ? back.signed_value() : static_cast<int64_t>(back.unsigned_value()),
        row.number);
  }
}

TEST(WordsTest, UnsignedNumbersAreCheckedAgainstSignedTypes) {
  v1::WordValue value;
  value.set_unsigned_value(UINT64_MAX);
  EXPECT_EQ(*ToBits(WordType::kU64, value, "value"), UINT64_MAX);
  EXPECT_EQ(ToBits(WordType::kI64, value, "value").status().reason(), Reason::kValueOutOfRange);
  value.set_unsigned_value(128);
  EXPECT_EQ(ToBits(WordType::kI8, value, "value").status().reason(), Reason::kValueOutOfRange);
}

TEST(WordsTest, MissingNumberIsInvalid) {
  EXPECT_EQ(ToBits(WordType::kU8, v1::WordValue(), "value").status().reason(),
            Reason::kInvalidArgument);
}

TEST(WordsTest, UnknownTypesAreRefused) {
  for (const int number : {0, 9, -1, 1000}) {
    EXPECT_EQ(ToWordType(static_cast<v1::WordType>(number)).status().reason(),
              Reason::kWidthInvalid);
  }
}

}  // namespace
}  // namespace statehouse
