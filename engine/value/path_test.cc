// Paths: what they lead to, what they say when they lead nowhere, and their text.
#include "engine/value/path.h"

#include <gtest/gtest.h>

#include "engine/value/json.h"
#include "engine/value/testing/value_tree.h"
#include "engine/value/value.h"

namespace statehouse {
namespace {

std::string FromJson(const std::string& json) {
  std::string wire;
  const Status status = ValueFromJson(json, &wire);
  EXPECT_TRUE(status.ok()) << json << ": " << status.ToString();
  return wire;
}

Path Parse(const std::string& text) {
  StatusOr<Path> path = ParsePath(text);
  EXPECT_TRUE(path.ok()) << path.status().ToString();
  return path.ok() ? *std::move(path) : Path();
}

// What the path leads to as JSON, or the reason why nowhere.
std::string Get(const std::string& json, const std::string& path_text) {
  const std::string wire = FromJson(json);
  const Path path = Parse(path_text);
  std::string_view found;
  const Status status = GetPath(wire, path.steps(), &found);
  if (!status.ok()) return std::string(ReasonName(status.reason()));
  std::string result;
  EXPECT_TRUE(ValueToJson(found, &result).ok());
  return result;
}

TEST(PathTest, StepsLeadThroughMapsAndLists) {
  const std::string json = R"({"a":{"b":[10,[20,30]],"":"empty"},"x.y":{"$tag":["tuple",[1,2]]}})";
  const std::pair<const char*, const char*> cases[] = {
      {"a.b[0]", "10"},
      {"a.b[1][1]", "30"},
      {"a.b[-1][-2]", "20"},
      {"a.\"\"", "\"empty\""},
      {"\"x.y\"[1]", "2"},
      {"\"x.y\"", R"({"$tag":["tuple",[1,2]]})"},
      {"a.b[2]", "PATH_NOT_FOUND"},
      {"a.b[-3]", "PATH_NOT_FOUND"},
      {"a.c", "PATH_NOT_FOUND"},
      {"b", "PATH_NOT_FOUND"},
      {"a[0]", "TYPE_MISMATCH"},
      {"a.b.c", "TYPE_MISMATCH"},
      {"a.b[0].c", "TYPE_MISMATCH"},
      {"a.b[0][0]", "TYPE_MISMATCH"},
      {"\"x.y\".a", "TYPE_MISMATCH"},
  };
  for (const auto& [path, expected] : cases) EXPECT_EQ(Get(json, path), expected) << path;
  EXPECT_EQ(Get(json, ""), json);
}

TEST(PathTest, TheMessageNamesTheStepThatFailed) {
  const std::string wire = FromJson(R"({"a":{"b":[1]}})");
  const Path path = Parse("a.b[7].c");
  std::string_view found;

  const Status status = GetPath(wire, path.steps(), &found);

  EXPECT_NE(status.message().find("a.b[7]: "), std::string::npos) << status.message();
}

TEST(PathTest, LongPathsAreCutInMessages) {
  const std::string wire = FromJson("{}");
  std::string key;
  for (int i = 0; i < 300; ++i) key += "ä";
  const PathStep path[] = {PathStep::Key(key)};
  std::string_view found;

  const Status status = GetPath(wire, path, &found);

  EXPECT_EQ(status.reason(), Reason::kPathNotFound);
  EXPECT_LT(status.message().size(), 300u);
  EXPECT_NE(status.message().find("…"), std::string::npos);
}

TEST(PathTest, LimitsHoldAtTheirEdge) {
  std::string_view found;
  const std::string wire = FromJson("{}");
  const std::vector<PathStep> steps(kPathStepsMax + 1, PathStep::Key("a"));
  const std::span<const PathStep> many(steps);
  const std::string key(kMapKeyBytesMax + 1, 'k');
  const PathStep longest[] = {PathStep::Key(std::string_view(key).substr(1))};
  const PathStep longer[] = {PathStep::Key(key)};
  const PathStep ill[] = {PathStep::Key("\xff")};

  EXPECT_EQ(GetPath(wire, many.first(kPathStepsMax), &found).reason(), Reason::kPathNotFound);
  EXPECT_EQ(GetPath(wire, many, &found).reason(), Reason::kInvalidArgument);
  EXPECT_EQ(GetPath(wire, longest, &found).reason(), Reason::kPathNotFound);
  EXPECT_EQ(GetPath(wire, longer, &found).reason(), Reason::kKeyInvalid);
  EXPECT_EQ(GetPath(wire, ill, &found).reason(), Reason::kKeyInvalid);
}

TEST(PathTest, BytesThatAreNoValueAreRefused) {
  const PathStep key[] = {PathStep::Key("a")};
  const PathStep index[] = {PathStep::Index(1)};
  const PathStep last[] = {PathStep::Index(-1)};
  std::string_view found;

  for (const std::string_view wire : {std::string_view(), std::string_view("\x4a\x05\x0a"),
                                      std::string_view("\x4a\x02\x0a\x7f")}) {
    EXPECT_EQ(GetPath(wire, key, &found).reason(), Reason::kValueInvalid);
  }
  const std::string_view list("\x42\x02\x0a\x7f");
  EXPECT_EQ(GetPath(list, index, &found).reason(), Reason::kValueInvalid);
  EXPECT_EQ(GetPath(list, last, &found).reason(), Reason::kValueInvalid);
}

TEST(PathTextTest, WhatIsWrittenIsRead) {
  for (const char* text : {"", "a", "a.b", "a[1]", "[0]", "[-1].b", "a[1][2].c", "0.1.-_", "\"\"",
                           "a.\"odd key\"", "\"a.b\"[3]", "\"\\\"\\\\\\n\\u0000\"", "\"ä€😀\".x",
                           "[9223372036854775807]", "[-9223372036854775808]"}) {
    const Path path = Parse(text);

    EXPECT_EQ(PathText(path.steps()), text);
  }
}

TEST(PathTextTest, APathMovesWithItsKeys) {
  Path first = Parse("key.other[3]");

  const Path second = std::move(first);

  EXPECT_EQ(PathText(second.steps()), "key.other[3]");
}

TEST(PathTextTest, WhatIsWrongIsNamedWithItsByte) {
  const std::pair<const char*, const char*> cases[] = {
      {".", "byte 0: a key is missing"},
      {"a.", "byte 2: a key is missing"},
      {"a..b", "byte 2: a key is missing"},
      {"a b", "byte 1: a '.' or a '['"},
      {"a[1]b", "byte 4: a '.' or a '['"},
      {"a[1", "byte 1: the ']' is missing"},
      {"a[]", "byte 2: a position is"},
      {"a[x]", "a position is"},
      {"a[1x]", "a position is"},
      {"a[01]", "a position is"},
      {"a[-0]", "a position is"},
      {"a[+1]", "a position is"},
      {"a[9223372036854775808]", "a position is"},
      {"\"a", "closing quote"},
      {"\"\\q\"", "no such escape"},
      {"a.\xc3\xa4", "a key is missing"},
      {"\"\xff\"", "UTF-8"},
  };
  for (const auto& [text, says] : cases) {
    const StatusOr<Path> path = ParsePath(text);

    ASSERT_FALSE(path.ok()) << text;
    EXPECT_EQ(path.status().reason(), Reason::kInvalidArgument);
    EXPECT_NE(path.status().message().find(says), std::string::npos)
        << text << ": " << path.status().message();
  }
}

TEST(PathTextTest, LimitsHoldAtTheirEdge) {
  std::string steps = "a";
  for (size_t i = 1; i < kPathStepsMax; ++i) steps += ".a";
  const std::string key(kMapKeyBytesMax, 'k');
  // The longest path there can be: each byte of each key written as \u0001.
  const std::string controls(kMapKeyBytesMax, '\1');
  const std::vector<PathStep> longest(kPathStepsMax, PathStep::Key(controls));

  EXPECT_TRUE(ParsePath(steps).ok());
  EXPECT_FALSE(ParsePath(steps + ".a").ok());
  EXPECT_TRUE(ParsePath(key).ok());
  EXPECT_FALSE(ParsePath(key + "k").ok());
  EXPECT_TRUE(ParsePath(PathText(longest)).ok());
  const StatusOr<Path> at_limit = ParsePath(std::string(kPathTextBytesMax, 'k'));
  const StatusOr<Path> past_limit = ParsePath(std::string(kPathTextBytesMax + 1, 'k'));
  EXPECT_EQ(at_limit.status().message().find("262,144"), std::string::npos);
  EXPECT_NE(past_limit.status().message().find("262,144"), std::string::npos);
}

TEST(PathTextTest, RandomPathsComeBack) {
  const uint64_t seed = 11;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 5000; ++i) {
    std::vector<std::string> keys;
    for (int k = 0; k < 4; ++k) keys.push_back(testing::RandomText(random));
    std::vector<PathStep> steps;
    for (const std::string& key : keys) {
      steps.push_back(random() % 2 ? PathStep::Key(key)
                                   : PathStep::Index(static_cast<int64_t>(random())));
    }
    const Path path = Parse(PathText(steps));

    EXPECT_TRUE(std::equal(steps.begin(), steps.end(), path.steps().begin(), path.steps().end()));
  }
}

TEST(PathTextTest, KeysThatAreNotUtf8AreShownAllTheSame) {
  const PathStep path[] = {
      PathStep::Key("a\xff"
                    "b\xe2\x82")};

  EXPECT_EQ(PathText(path),
            "\"a\xef\xbf\xbd"
            "b\xef\xbf\xbd\xef\xbf\xbd\"");
}

}  // namespace
}  // namespace statehouse
