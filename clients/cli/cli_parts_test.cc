#include <gtest/gtest.h>

#include <random>

#include "clients/cli/area_until.h"
#include "clients/cli/import_line.h"
#include "clients/cli/quantity.h"
#include "engine/value/json.h"

namespace statehouse::cli {
namespace {

TEST(QuantityTest, DurationsAndSizesAsPeopleWriteThem) {
  EXPECT_EQ(ParseMilliseconds("250ms"), 250u);
  EXPECT_EQ(ParseMilliseconds("1.5s"), 1500u);
  EXPECT_EQ(ParseMilliseconds("10"), 10'000u);
  EXPECT_EQ(ParseMilliseconds("2h"), 7'200'000u);
  EXPECT_EQ(ParseMilliseconds("7d"), 604'800'000u);
  EXPECT_EQ(ParseByteCount("64k"), 65'536u);
  EXPECT_EQ(ParseByteCount("1G"), uint64_t{1} << 30);
  EXPECT_EQ(ParseByteCount("0"), 0u);
  for (const char* bad : {"", "s", "-1s", "1x", "1 s", "0", "0.0001ms", "1e3s", "nan", "inf",
                          "99999999999999999999d"}) {
    EXPECT_EQ(ParseMilliseconds(bad), std::nullopt) << bad;
  }
  for (const char* bad : {"", "k", "-1", "1T", "1kb", "99999999999999G"}) {
    EXPECT_EQ(ParseByteCount(bad), std::nullopt) << bad;
  }
}

TEST(ImportLineTest, ALineComesBackAsItWent) {
  for (const char* text :
       {R"({"key":"a","value":1})", R"({"key":"grüße/\"x\"","value":{"web":[80,443]}})",
        R"({"key":"b","value":123456789012345678901234567890,"ttl_ms":5000})",
        R"({"key":"c","value":{"$bytes":"AP8="}})", R"({"key":"d","value":null})",
        R"({"key":"e","value":1,"ttl_ms":null})", R"({"key":"f","value":1,"fence":7})",
        R"({"key":"g","value":[],"ttl_ms":1,"fence":18446744073709551615})"}) {
    ImportLine line;
    const Status parsed = ParseImportLine(text, &line);
    ASSERT_TRUE(parsed.ok()) << text << ": " << parsed.ToString();
    std::string again;
    ASSERT_TRUE(FormatImportLine(line, &again).ok());
    EXPECT_EQ(again, text);
  }
}

TEST(ImportLineTest, TheTimeToLiveIsSetForEverOrTheDictsDefault) {
  ImportLine line;
  ASSERT_TRUE(ParseImportLine(R"({"key":"a","value":1})", &line).ok());
  EXPECT_EQ(line.ttl_ms, std::nullopt);
  EXPECT_FALSE(line.for_ever);
  ASSERT_TRUE(ParseImportLine(R"({"key":"a","value":1,"ttl_ms":null})", &line).ok());
  EXPECT_EQ(line.ttl_ms, std::nullopt);
  EXPECT_TRUE(line.for_ever);
  ASSERT_TRUE(ParseImportLine(R"({"key":"a","value":1,"ttl_ms":2})", &line).ok());
  EXPECT_EQ(line.ttl_ms, 2u);
  EXPECT_FALSE(line.for_ever);
}

TEST(ImportLineTest, WhatIsWrongIsSaid) {
  ImportLine line;
  for (const char* bad :
       {"", "[]", "{}", "1", R"({"key":"a"})", R"({"value":1})", R"({"key":1,"value":1})",
        R"({"key":"a","value":1,"ttl_ms":0})", R"({"key":"a","value":1,"ttl_ms":"1s"})",
        R"({"key":"a","value":1,"other":1})", R"({"key":"a","value":1,"fence":-1})",
        R"({"key":"a","value":1,"fence":18446744073709551616})",
        R"({"key":"a","value":1,"fence":1.5})", R"({"key":"a","value":1,"fence":"1"})",
        R"({"key":"a","value":1,"fence":null})", R"({"key":"a","value":1} x)", "{\"key\":"}) {
    EXPECT_FALSE(ParseImportLine(bad, &line).ok()) << bad;
  }
  std::string padded = R"({"key":"a","value":1})";
  padded.insert(1, kImportLineBytesMax - padded.size(), ' ');
  EXPECT_TRUE(ParseImportLine(padded, &line).ok()) << "at the limit";
  EXPECT_FALSE(ParseImportLine(padded + " ", &line).ok()) << "one past it";
}

TEST(ImportLineTest, DamagedLinesAreRefusedOrComeBack) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::string sound =
      R"({"key":"a/b","value":{"x":[1,2.5,"t",null,true]},"ttl_ms":77,"fence":9})";
  for (int i = 0; i < 50'000; ++i) {
    std::string text = sound;
    for (uint64_t edits = random() % 4 + 1; edits > 0; --edits) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text.erase(at, random() % 4); break;
        default: text.insert(at, 1, "{}[],:\"\\0tn"[random() % 11]); break;
      }
      if (text.empty()) text = "{";
    }
    ImportLine line;
    if (!ParseImportLine(text, &line).ok()) continue;
    std::string written;
    ASSERT_TRUE(FormatImportLine(line, &written).ok()) << text;
    ImportLine again;
    ASSERT_TRUE(ParseImportLine(written, &again).ok()) << written;
    EXPECT_EQ(again.key, line.key);
    EXPECT_EQ(again.value, line.value);
    EXPECT_EQ(again.ttl_ms, line.ttl_ms);
    EXPECT_EQ(again.for_ever, line.for_ever);
    EXPECT_EQ(again.fence, line.fence);
  }
}

TEST(AreaUntilTest, ComparesAWordOnceItIsKnown) {
  struct Row {
    std::string_view text;
    std::string_view bytes;  // At 16.
    bool is_met;
  };
  const std::string minus_two("\xfe\xff", 2);
  for (const Row& row : std::vector<Row>{{"u8@16=5", "\x05", true},
                                         {"u8@16!=5", "\x05", false},
                                         {"u16@16<=258", "\x02\x01", true},
                                         {"u16@16<258", "\x02\x01", false},
                                         {"u16@16>257", "\x02\x01", true},
                                         {"i16@16=-2", minus_two, true},
                                         {"i16@16<0", minus_two, true},
                                         {"i16@16>=-2", minus_two, true},
                                         {"u16@16<0", minus_two, false},
                                         {"u64@16>=0", "1234567", false},
                                         {"16>=0", "12345678", true}}) {
    StatusOr<AreaUntil> until = AreaUntil::Parse(row.text);
    ASSERT_TRUE(until.ok()) << row.text;
    EXPECT_FALSE(until->IsMet()) << row.text;
    until->Take(0, "0123456789abcdef");  // Before the word.
    EXPECT_FALSE(until->IsMet()) << row.text;
    until->Take(16, row.bytes);
    EXPECT_EQ(until->IsMet(), row.is_met) << row.text;
  }
}

TEST(AreaUntilTest, RefusesWhatIsNoComparison) {
  for (const std::string_view text :
       {"", "5", "u8@", "u8@1", "u8@1=", "u8@1=256", "u8@1=-1", "i8@1=128", "i8@1=-129", "u9@1=1",
        "u8@-1=1", "u8@1==1", "u8@1=1x", "u8@1!1", "u8@18446744073709551616=1"}) {
    EXPECT_FALSE(AreaUntil::Parse(text).ok()) << text;
  }
}

}  // namespace
}  // namespace statehouse::cli
