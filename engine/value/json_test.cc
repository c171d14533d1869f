// Values as JSON: the mapping, what is refused, and that nothing is lost on the way.
#include "engine/value/json.h"

#include <gtest/gtest.h>

#include "engine/value/encodings.h"
#include "engine/value/testing/value_tree.h"
#include "engine/value/value_writer.h"

namespace statehouse {
namespace {

using testing::DecodeTree;
using testing::EncodeTree;
using testing::ValueTree;

std::string FromJson(const std::string& json) {
  std::string wire;
  const Status status = ValueFromJson(json, &wire);
  EXPECT_TRUE(status.ok()) << json << ": " << status.ToString();
  return wire;
}

std::string ToJson(const std::string& wire) {
  std::string json;
  const Status status = ValueToJson(wire, &json);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return json;
}

TEST(JsonTest, WhatIsWrittenShortestComesBackAsItIs) {
  for (const char* json : {
           "null",
           "true",
           "false",
           "0",
           "-1",
           "9223372036854775807",
           "-9223372036854775808",
           "9223372036854775808",
           "-9223372036854775809",
           "123456789012345678901234567890",
           "-123456789012345678901234567890",
           "1.0",
           "-0.0",
           "1e+20",
           "0.1",
           "5e-324",
           "1.7976931348623157e+308",
           R"({"$float":"nan"})",
           R"({"$float":"nan:fff8000000000000"})",
           R"({"$float":"nan:7ff0000000000001"})",
           R"({"$float":"inf"})",
           R"({"$float":"-inf"})",
           R"("")",
           R"("a\"\\\n\u0001\u007fä€😀")",
           "[]",
           "[1,[2,[]],null]",
           "{}",
           R"({"b":1,"a":{"":2}})",
           R"({"$bytes":""})",
           R"({"$bytes":"AA=="})",
           R"({"$bytes":"AAE="})",
           R"({"$bytes":"+/+/"})",
           R"({"$timestamp":"1970-01-01T00:00:00Z"})",
           R"({"$timestamp":"0001-01-01T00:00:00Z"})",
           R"({"$timestamp":"9999-12-31T23:59:59.999999999Z"})",
           R"({"$timestamp":"2024-02-29T12:30:59.05Z"})",
           R"({"$tensor":{"dtype":"uint8","shape":[2,1],"data":"AQI="}})",
           R"({"$tensor":{"dtype":"float64","shape":[0],"data":""}})",
           R"({"$tag":["tuple",[1,{"$tag":["decimal","1.10"]}]]})",
           R"({"$map":{"$bytes":"x"}})",
           R"({"$map":{"$map":{"$map":{"$":1}}}})",
           R"({"$map":{"$map":1}})",
           R"({"$bytes":1,"a":2})",
           R"({"a":1,"$b":2})",
       }) {
    EXPECT_EQ(ToJson(FromJson(json)), json);
  }
}

TEST(JsonTest, TheExampleOfTheFormatHasItsBytes) {
  // docs/formats/value.md
  EXPECT_EQ(FromJson(R"({"a": [1, -1]})"),
            std::string("\x4a\x1a\x0a\x18\x0a\x01\x61\x12\x13\x42\x11\x0a\x02\x18\x01"
                        "\x0a\x0b\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));
}

TEST(JsonTest, OtherSpellingsAreUnderstood) {
  const std::pair<const char*, const char*> cases[] = {
      {" [ 1 ,\t2\r\n] ", "[1,2]"},
      {"1e3", "1000.0"},
      {"-0", "0"},
      {"1E-2", "0.01"},
      {R"("\u00e4\ud83d\ude00\/")", R"("ä😀/")"},
      {R"({"$int":"0xff"})", "255"},
      {R"({"$int":"-0x8000000000000000"})", "-9223372036854775808"},
      {R"({"$int":"-0x8000000000000001"})", "-9223372036854775809"},
      {R"({"$int":"0x10000000000000000"})", "18446744073709551616"},
      {R"({"$timestamp":"2024-02-29T01:00:00+01:00"})", R"({"$timestamp":"2024-02-29T00:00:00Z"})"},
      {R"({"$timestamp":"2024-02-28t23:00:00.10-01:30"})",
       R"({"$timestamp":"2024-02-29T00:30:00.1Z"})"},
      {R"({ "$tensor" : { "data":"AQ==" , "shape":[ ] , "dtype":"int8" } })",
       R"({"$tensor":{"dtype":"int8","shape":[],"data":"AQ=="}})"},
      {R"({"$map":{"a":1,"b":2}})", R"({"a":1,"b":2})"},
      {R"({"$map":{}})", "{}"},
  };
  for (const auto& [json, shortest] : cases) EXPECT_EQ(ToJson(FromJson(json)), shortest);
}

TEST(JsonTest, WhatIsWrongIsNamedWithLineAndColumn) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "column 1: a value is missing"},
      {"[1,\n 2", "line 2, column 3: a ']' is missing"},
      {"[1,]", "a value is missing"},
      {"{\"a\" 1}", "a ':' is missing"},
      {"{a:1}", "a quote is missing"},
      {"{\"a\":1,}", "a quote is missing"},
      {"1 2", "behind the value"},
      {"'a'", "texts need double quotes"},
      {"nul", "a value is missing"},
      {"01", "leading zeros"},
      {"-", "a digit"},
      {"1.", "a digit"},
      {"1e", "exponent"},
      {"1e999", "a float cannot hold"},
      {"\"a", "closing quote"},
      {"\"\n\"", "control character"},
      {"\"\xff\"", "UTF-8"},
      {"\"\\x\"", "no such escape"},
      {"\"\\u12g4\"", "four hex digits"},
      {"\"\\ud800\"", "surrogate"},
      {"\"\\udc00\\ud800\"", "surrogate"},
      {"\"\\ud800\\u0041\"", "surrogate"},
      {R"({"a":1,"a":2})", "twice"},
      {R"({"$what":1})", "there is no $what"},
      {R"({"$":1})", "there is no $"},
      {R"({"$bytes":"A"})", "base64"},
      {R"({"$bytes":"AB=="})", "base64"},
      {R"({"$bytes":"A==="})", "base64"},
      {R"({"$bytes":1})", "a quote is missing"},
      {R"({"$int":"12"})", "hex"},
      {R"({"$int":"0xG"})", "hex"},
      {R"({"$float":"NaN"})", "$float is"},
      {R"({"$float":"nan:7ff0000000000000"})", "16 hex digits"},
      {R"({"$timestamp":"2023-02-29T00:00:00Z"})", "$timestamp needs"},
      {R"({"$timestamp":"2024-01-01T00:00:00"})", "$timestamp needs"},
      {R"({"$timestamp":"2024-01-01T24:00:00Z"})", "$timestamp needs"},
      {R"({"$timestamp":"2024-01-01T00:00:00.1234567890Z"})", "$timestamp needs"},
      {R"({"$timestamp":"0001-01-01T00:00:00+00:01"})", "$timestamp needs"},
      {R"({"$tensor":{"dtype":"int8"}})", "needs dtype, shape and data"},
      {R"({"$tensor":{"dtype":"int8","dtype":"int8"}})", "each once"},
      {R"({"$tensor":{"dtype":"int8","shape":[-1],"data":""}})", "length of a shape"},
      {R"({"$tensor":{"dtype":"int8","shape":[2],"data":"AQ=="}})", "tensor"},
      {R"({"$tag":["Tuple",1]})", "a tag that is not"},
      {R"({"$tag":["tuple"]})", "a ',' is missing"},
      {R"({"$map":1})", "$map needs an object"},
  };
  for (const auto& [json, says] : cases) {
    std::string wire = "untouched";

    const Status refused = ValueFromJson(json, &wire);

    EXPECT_EQ(refused.reason(), Reason::kValueInvalid) << json;
    EXPECT_NE(refused.message().find(says), std::string::npos) << json << ": " << refused.message();
    EXPECT_EQ(wire, "untouched");
  }
  std::string wire;
  EXPECT_FALSE(ValueFromJson(std::string_view("1\0", 2), &wire).ok());
}

TEST(JsonTest, LimitsHoldAtTheirEdge) {
  const auto nested = [](size_t depth) {
    return std::string(depth - 1, '[') + "1" + std::string(depth - 1, ']');
  };
  const std::string longest(kJsonIntDigitsMax, '7');
  std::string wire;

  EXPECT_TRUE(ValueFromJson(nested(kValueDepthMax), &wire).ok());
  EXPECT_FALSE(ValueFromJson(nested(kValueDepthMax + 1), &wire).ok());
  EXPECT_FALSE(ValueFromJson(std::string(1'000'000, '['), &wire).ok());
  std::string hostile;
  for (int i = 0; i < 100'000; ++i) hostile += R"({"$map":{"$a":)";
  EXPECT_FALSE(ValueFromJson(hostile, &wire).ok());
  EXPECT_TRUE(ValueFromJson(longest, &wire).ok());
  EXPECT_FALSE(ValueFromJson(longest + "7", &wire).ok());
  EXPECT_TRUE(ValueFromJson(std::string(kJsonBytesMax - 1, ' ') + "1", &wire).ok());
  EXPECT_FALSE(ValueFromJson(std::string(kJsonBytesMax, ' ') + "1", &wire).ok());
}

TEST(JsonTest, BigIntsTurnToHexWhereDecimalWouldTakeLong) {
  std::string decimal;
  ValueWriter(&decimal).BigInt(std::string(kBigIntDecimalBytesMax, '\x7f'));
  std::string hex;
  ValueWriter(&hex).BigInt(std::string(kBigIntDecimalBytesMax + 1, '\x7f'));

  EXPECT_EQ(ToJson(decimal).find("$int"), std::string::npos);
  EXPECT_NE(ToJson(hex).find("$int"), std::string::npos);
  EXPECT_EQ(FromJson(ToJson(decimal)), decimal);
  EXPECT_EQ(FromJson(ToJson(hex)), hex);
}

TEST(JsonTest, RandomValuesComeBackWithTheSameBytes) {
  const uint64_t seed = 7;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 3000; ++i) {
    const std::string wire = EncodeTree(testing::RandomTree(random, 5));

    EXPECT_EQ(FromJson(ToJson(wire)), wire) << ToJson(wire);
  }
}

TEST(JsonTest, DamagedTextIsRefusedOrMakesAValue) {
  const uint64_t seed = 8;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  size_t refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string json = ToJson(EncodeTree(testing::RandomTree(random, 3)));
    for (int changes = 1 + static_cast<int>(random() % 3); changes > 0; --changes) {
      json[random() % json.size()] = "[]{}\",:0\\$a"[random() % 11];
    }
    std::string wire;
    if (!ValueFromJson(json, &wire).ok()) {
      ++refused;
      continue;
    }
    EXPECT_EQ(FromJson(ToJson(wire)), wire) << json;
  }
  EXPECT_GT(refused, 1000u);
  EXPECT_LT(refused, 20'000u);
}

TEST(JsonTest, BytesThatAreNoValueAreNoJson) {
  std::string json = "untouched";

  EXPECT_EQ(ValueToJson("\x10\x02", &json).reason(), Reason::kValueInvalid);
  EXPECT_EQ(json, "untouched");
}

TEST(EncodingsTest, TimestampsAgreeWithTheCalendar) {
  const std::pair<int64_t, const char*> cases[] = {
      {0, "1970-01-01T00:00:00Z"},
      {-1, "1969-12-31T23:59:59Z"},
      {951'827'696, "2000-02-29T12:34:56Z"},
      {4'107'542'400, "2100-03-01T00:00:00Z"},
      {-62'135'596'800, "0001-01-01T00:00:00Z"},
      {253'402'300'799, "9999-12-31T23:59:59Z"},
  };
  for (const auto& [seconds, text] : cases) {
    std::string written;
    internal::AppendTimestamp(&written, {seconds, 0});
    TimestampValue read;

    EXPECT_EQ(written, text);
    ASSERT_TRUE(internal::ReadTimestampText(text, &read));
    EXPECT_EQ(read.seconds, seconds);
  }
}

}  // namespace
}  // namespace statehouse
