// Values as bytes: what CheckValue takes and refuses, what views read, what is equal.
#include "engine/value/value.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "engine/value/key_index.h"
#include "engine/value/testing/value_tree.h"
#include "engine/value/value_writer.h"
#include "engine/value/wire.h"

namespace statehouse {
namespace {

using testing::EncodeTree;
using testing::ValueTree;

// A length-delimited field.
std::string Field(char tag, const std::string& bytes) {
  std::string field(1, tag);
  internal::AppendVarint(&field, bytes.size());
  return field + bytes;
}

std::string Bytes(std::initializer_list<int> bytes) {
  std::string text;
  for (const int byte : bytes) text.push_back(static_cast<char>(byte));
  return text;
}

const std::string kNull = Bytes({0x08, 0});

std::string Entry(const std::string& key, const std::string& value) {
  return Field(0x0a, Field(0x0a, key) + Field(0x12, value));
}
std::string ListOf(const std::string& values) { return Field(0x42, values); }
std::string MapOf(const std::string& entries) { return Field(0x4a, entries); }

std::string Nested(size_t depth, char tag) {
  std::string wire = kNull;
  for (size_t i = 1; i < depth; ++i) {
    if (tag == 0x42) wire = ListOf(Field(0x0a, wire));
    if (tag == 0x4a) wire = MapOf(Entry("k", wire));
    if (tag == 0x62) wire = Field(0x62, Field(0x0a, "t") + Field(0x12, wire));
  }
  return wire;
}

Status Check(const std::string& wire) { return CheckValue(wire); }

TEST(ValueTest, EachKindHasItsBytesAndReadsBack) {
  struct Case {
    ValueKind kind;
    std::string wire;
  };
  const Case cases[] = {
      {ValueKind::kNull, kNull},
      {ValueKind::kBool, Bytes({0x10, 1})},
      {ValueKind::kInt, Bytes({0x18, 0xac, 0x02})},
      {ValueKind::kBigInt, Field(0x22, Bytes({0, 0x80, 0, 0, 0, 0, 0, 0, 0}))},
      {ValueKind::kFloat, Bytes({0x29, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f})},
      {ValueKind::kString, Field(0x32, "text")},
      {ValueKind::kBytes, Field(0x3a, Bytes({0xff, 0}))},
      {ValueKind::kList, ListOf(Field(0x0a, kNull))},
      {ValueKind::kMap, MapOf(Entry("a", kNull))},
      {ValueKind::kTimestamp, Field(0x52, Bytes({0x08, 5, 0x10, 7}))},
      {ValueKind::kTensor,
       Field(0x5a, Field(0x0a, "uint8") + Field(0x12, Bytes({2, 1})) + Field(0x1a, "ab"))},
      {ValueKind::kTagged, Field(0x62, Field(0x0a, "tuple") + Field(0x12, ListOf("")))},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(ValueKindName(c.kind));

    const Status checked = Check(c.wire);

    EXPECT_TRUE(checked.ok()) << checked.ToString();
    EXPECT_EQ(ValueView(c.wire).kind(), c.kind);
    EXPECT_EQ(EncodeTree(testing::DecodeTree(c.wire)), c.wire);
  }
  EXPECT_EQ(ValueView(cases[2].wire).AsInt(), 300);
  EXPECT_EQ(ValueView(cases[4].wire).AsFloat(), 1.0);
}

TEST(ValueTest, DefaultsMayBeWrittenOut) {
  for (const std::string& wire : {
           Field(0x52, Bytes({0x08, 0, 0x10, 0})),
           MapOf(Entry("", kNull)),
           Field(0x5a, Field(0x0a, "int8") + Field(0x12, "") + Field(0x1a, "x")),
       }) {
    EXPECT_TRUE(Check(wire).ok()) << Check(wire).ToString();
    EXPECT_TRUE(ValuesEqual(wire, EncodeTree(testing::DecodeTree(wire))));
  }
}

TEST(ValueTest, WhatIsNotWellFormedIsRefusedAndNamed) {
  const std::string big = Bytes({0, 0x80, 0, 0, 0, 0, 0, 0, 0});
  struct Case {
    std::string wire;
    const char* says;
  };
  const Case cases[] = {
      {"", "without a kind"},
      {Bytes({0x08}), "varint"},
      {Bytes({0x08, 1}), "another number"},
      {Bytes({0x10, 2}), "another number"},
      {Bytes({0x10, 0x81, 0}), "varint"},
      {Bytes({0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2}), "varint"},
      {Bytes({0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0}), "varint"},
      {kNull + kNull, "behind the one kind"},
      {kNull + Bytes({0x10, 1}), "behind the one kind"},
      {Bytes({0x6a, 0}), "does not have"},
      {Bytes({0x43, 0x44}), "does not have"},
      {Bytes({0x09, 0}), "does not have"},
      {Bytes({0x29, 0, 0}), "float that is cut off"},
      {Bytes({0x32, 5, 'a'}), "length"},
      {Bytes({0x32, 0x81, 0, 'a'}), "length"},
      {Field(0x32, Bytes({0xc0, 0x80})), "UTF-8"},
      {Field(0x32, Bytes({0xed, 0xa0, 0x80})), "UTF-8"},
      {Field(0x32, Bytes({0xf4, 0x90, 0x80, 0x80})), "UTF-8"},
      {Field(0x32, Bytes({0xe2, 0x82})), "UTF-8"},
      {Field(0x22, big.substr(1)), "big int"},
      {Field(0x22, Bytes({0, 0x7f, 0, 0, 0, 0, 0, 0, 0})), "big int"},
      {Field(0x22, Bytes({0xff, 0x80, 0, 0, 0, 0, 0, 0, 0})), "big int"},
      {Field(0x22, "\1"), "big int"},
      {ListOf(Field(0x0a, "")), "without a kind"},
      {ListOf(Field(0x12, kNull)), "a list with something else"},
      {ListOf(Field(0x0a, kNull) + "\x0a"), "a list with something else"},
      {MapOf(Field(0x0a, Field(0x0a, "a"))), "a map with something else"},
      {MapOf(Field(0x0a, Field(0x12, kNull) + Field(0x0a, "a"))), "a map with something else"},
      {MapOf(Entry("a", kNull) + Entry("b", kNull) + Entry("a", kNull)), "twice"},
      {MapOf(Field(0x0a, Field(0x12, kNull)) + Entry("", kNull)), "twice"},
      {MapOf(Entry("\xff", kNull)), "key that is not UTF-8"},
      {Field(0x52, Bytes({0x10, 7, 0x08, 5})), "timestamp"},
      {Field(0x52, Bytes({0x18, 7})), "timestamp"},
      {Field(0x5a, Field(0x0a, "uint9")), "tensor"},
      {Field(0x5a, Field(0x0a, "uint8") + Field(0x1a, "ab")), "tensor"},
      {Field(0x5a, Field(0x0a, "uint8") + Bytes({0x10, 1}) + Field(0x1a, "a")), "tensor"},
      {Field(0x62, Field(0x12, kNull)), "one tag and one value"},
      {Field(0x62, Field(0x0a, "Tuple") + Field(0x12, kNull)), "a tag that is not"},
      {Field(0x62, Field(0x0a, "") + Field(0x12, kNull)), "a tag that is not"},
  };
  for (const Case& c : cases) {
    const Status refused = Check(c.wire);

    EXPECT_EQ(refused.reason(), Reason::kValueInvalid) << c.says;
    EXPECT_NE(refused.message().find(c.says), std::string::npos)
        << refused.message() << " should say " << c.says;
  }
}

TEST(ValueTest, TheMessageSaysAtWhichByteAndPath) {
  const std::string wire =
      MapOf(Entry("a", ListOf(Field(0x0a, kNull) + Field(0x0a, Bytes({0x10, 2})))));

  const Status refused = Check(wire);

  EXPECT_NE(refused.message().find("(a[1])"), std::string::npos) << refused.message();
  EXPECT_NE(refused.message().find("byte " + std::to_string(wire.size() - 2)), std::string::npos)
      << refused.message();
}

TEST(ValueTest, DepthHasALimit) {
  for (const char tag : {0x42, 0x4a, 0x62}) {
    EXPECT_TRUE(Check(Nested(kValueDepthMax, tag)).ok());
    EXPECT_EQ(Check(Nested(kValueDepthMax + 1, tag)).reason(), Reason::kValueInvalid);
  }
  // Far beyond the limit it neither recurses nor takes long.
  EXPECT_EQ(Check(Nested(5000, 0x42)).reason(), Reason::kValueInvalid);
}

TEST(ValueTest, SizeHasALimit) {
  std::string text(kValueBytesMax - 4, 'x');  // With a tag and a length of three bytes.

  EXPECT_TRUE(Check(Field(0x32, text)).ok());
  EXPECT_EQ(Field(0x32, text).size(), kValueBytesMax);
  EXPECT_EQ(Check(Field(0x32, text + "x")).reason(), Reason::kValueInvalid);
}

TEST(ValueTest, KeysAndTagsHaveLimits) {
  const auto tagged = [](const std::string& tag) {
    return Field(0x62, Field(0x0a, tag) + Field(0x12, kNull));
  };

  EXPECT_TRUE(Check(MapOf(Entry(std::string(kMapKeyBytesMax, 'k'), kNull))).ok());
  EXPECT_FALSE(Check(MapOf(Entry(std::string(kMapKeyBytesMax + 1, 'k'), kNull))).ok());
  EXPECT_TRUE(Check(tagged(std::string(kTagBytesMax, 't'))).ok());
  EXPECT_FALSE(Check(tagged(std::string(kTagBytesMax + 1, 't'))).ok());
}

TEST(ValueTest, BigIntsBeginWhereInt64Ends) {
  const std::string beyond[] = {
      Bytes({0, 0x80, 0, 0, 0, 0, 0, 0, 0}),
      Bytes({0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}),
      Bytes({1, 0, 0, 0, 0, 0, 0, 0, 0}),
  };
  for (const std::string& bytes : beyond) EXPECT_TRUE(Check(Field(0x22, bytes)).ok());

  std::string wire;
  ValueWriter writer(&wire);
  writer.BeginList();
  writer.BigInt(Bytes({0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}));
  writer.BigInt(Bytes({0xff, 0x80, 0, 0, 0, 0, 0, 0, 0}));
  writer.BigInt(Bytes({0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0}));
  writer.EndList();
  ASSERT_TRUE(writer.Finish().ok());
  const ValueTree tree = testing::DecodeTree(wire);
  EXPECT_EQ(tree.items[0], ValueTree::Int(INT64_MAX));
  EXPECT_EQ(tree.items[1], ValueTree::Int(INT64_MIN));
  EXPECT_EQ(tree.items[2].bytes, beyond[0]);
}

TEST(ValueTest, TimestampsReachFromYear1To9999) {
  const auto timestamp = [](int64_t seconds, int64_t nanos) {
    std::string payload(1, 0x08);
    internal::AppendVarint(&payload, static_cast<uint64_t>(seconds));
    payload.push_back(0x10);
    internal::AppendVarint(&payload, static_cast<uint64_t>(nanos));
    return Field(0x52, payload);
  };

  EXPECT_TRUE(Check(timestamp(kTimestampSecondsMin, 0)).ok());
  EXPECT_FALSE(Check(timestamp(kTimestampSecondsMin - 1, 0)).ok());
  EXPECT_TRUE(Check(timestamp(kTimestampSecondsMax, 999'999'999)).ok());
  EXPECT_FALSE(Check(timestamp(kTimestampSecondsMax + 1, 0)).ok());
  EXPECT_FALSE(Check(timestamp(0, 1'000'000'000)).ok());
  EXPECT_FALSE(Check(timestamp(0, -1)).ok());
}

TEST(ValueTest, TensorDataIsAsLongAsDtypeAndShapeSay) {
  struct Case {
    const char* dtype;
    std::vector<uint64_t> shape;
    size_t data_bytes;
    bool is_taken;
  };
  const Case cases[] = {
      {"bool", {}, 1, true},
      {"complex128", {2}, 32, true},
      {"float16", {3, 2}, 12, true},
      {"float16", {3, 2}, 11, false},
      {"float32", {0, 5}, 0, true},
      {"float32", {0, 5}, 4, false},
      {"uint8", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, false},
      {"uint8", {0, uint64_t{1} << 32, uint64_t{1} << 32}, 0, false},
      {"uint8", {uint64_t{1} << 63}, 0, false},
      {"uint8", std::vector<uint64_t>(kTensorDimensionsMax, 1), 1, true},
      {"uint8", std::vector<uint64_t>(kTensorDimensionsMax + 1, 1), 1, false},
      {"", {}, 0, false},
  };
  for (const Case& c : cases) {
    std::string wire;
    ValueWriter writer(&wire);
    writer.Tensor(c.dtype, c.shape, std::string(c.data_bytes, 'x'));

    EXPECT_EQ(Check(wire).ok(), c.is_taken) << c.dtype << " " << c.shape.size();
  }
}

TEST(ValueTest, RepeatedKeysAreFoundInLargeMaps) {
  std::string entries;
  for (int i = 0; i < 20'000; ++i) entries += Entry("key" + std::to_string(i), kNull);

  EXPECT_TRUE(Check(MapOf(entries)).ok());
  EXPECT_FALSE(Check(MapOf(entries + Entry("key7", kNull))).ok());
  // At each size around the switches between the ways of looking.
  entries.clear();
  for (int i = 0; i < 80; ++i) {
    EXPECT_EQ(Check(MapOf(entries + Entry("key0", kNull))).ok(), i == 0) << i;
    entries += Entry("key" + std::to_string(i), kNull);
    EXPECT_TRUE(Check(MapOf(entries)).ok()) << i;
    EXPECT_FALSE(Check(MapOf(entries + Entry("key" + std::to_string(i), kNull))).ok()) << i;
  }
}

TEST(ValueTest, EqualMeansWhatPythonMeans) {
  const auto map = [](std::vector<std::pair<std::string, ValueTree>> entries) {
    ValueTree tree = ValueTree::Map();
    for (auto& [key, value] : entries) {
      tree.keys.push_back(key);
      tree.items.push_back(value);
    }
    return EncodeTree(tree);
  };
  const ValueTree one = ValueTree::Int(1);
  const ValueTree two = ValueTree::Int(2);

  EXPECT_TRUE(ValuesEqual(map({{"a", one}, {"b", two}}), map({{"b", two}, {"a", one}})));
  EXPECT_FALSE(ValuesEqual(map({{"a", one}, {"b", two}}), map({{"b", one}, {"a", two}})));
  EXPECT_FALSE(ValuesEqual(map({{"a", one}}), map({{"a", one}, {"b", two}})));
  EXPECT_FALSE(ValuesEqual(map({{"a", one}, {"b", two}}), map({{"a", one}})));
  EXPECT_FALSE(ValuesEqual(EncodeTree(one), EncodeTree(ValueTree::Float(1))));
  EXPECT_TRUE(ValuesEqual(EncodeTree(ValueTree::Float(0.0)), EncodeTree(ValueTree::Float(-0.0))));
  const ValueTree nan = ValueTree::Float(std::bit_cast<double>(uint64_t{0x7ff8000000000000}));
  const ValueTree other_nan = ValueTree::Float(std::bit_cast<double>(uint64_t{0x7ff8000000000001}));
  EXPECT_TRUE(ValuesEqual(EncodeTree(nan), EncodeTree(nan)));
  EXPECT_FALSE(ValuesEqual(EncodeTree(nan), EncodeTree(other_nan)));
  EXPECT_FALSE(ValuesEqual(EncodeTree(ValueTree::List({one, two})),
                           EncodeTree(ValueTree::List({two, one}))));
}

TEST(ValueTest, AKeyTwiceEqualsNothingElse) {
  const std::string twice = MapOf(Entry("y", kNull) + Entry("y", kNull));
  const std::string once_each = MapOf(Entry("x", kNull) + Entry("y", kNull));

  EXPECT_FALSE(ValuesEqual(twice, once_each));
  EXPECT_FALSE(ValuesEqual(once_each, twice));
  EXPECT_TRUE(ValuesEqual(twice, twice));
}

TEST(ValueTest, EqualAgreesWithTheModelOnRandomTrees) {
  const uint64_t seed = 20240229;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  size_t equal = 0;
  for (int i = 0; i < 4000; ++i) {
    const ValueTree a = testing::RandomTree(random, 4);
    ValueTree b = random() % 2 ? a : testing::RandomTree(random, 4);
    if (b.kind == ValueKind::kMap && b.items.size() > 1) {
      std::swap(b.items.front(), b.items.back());
      std::swap(b.keys.front(), b.keys.back());
    } else if (!b.items.empty() && random() % 2) {
      b.items[0] = testing::RandomTree(random, 2);
    }
    const bool expected = testing::TreesEqual(a, b);
    equal += expected ? 1 : 0;

    EXPECT_EQ(ValuesEqual(EncodeTree(a), EncodeTree(b)), expected);
    EXPECT_EQ(ValuesEqual(EncodeTree(b), EncodeTree(a)), expected);
  }
  EXPECT_GT(equal, 1000u);
}

TEST(KeyIndexTest, FindsEachKeyAndNoOther) {
  for (const int count : {0, 1, 31, 32, 33, 500}) {
    std::string entries;
    for (int i = 0; i < count; ++i) entries += Entry("k" + std::to_string(i), kNull);

    internal::KeyIndex index(entries);

    EXPECT_TRUE(index.ok());
    EXPECT_EQ(index.size(), static_cast<size_t>(count));
    EXPECT_EQ(index.Repeated(), nullptr);
    for (int i = 0; i < count; ++i) EXPECT_NE(index.Find("k" + std::to_string(i)), nullptr);
    EXPECT_EQ(index.Find("k" + std::to_string(count)), nullptr);
  }
}

TEST(KeyIndexTest, KeysThatWereChosenToCollideAreKeptApart) {
  // Keys of two words: the second one undoes what the first one did to the hash.
  constexpr uint64_t kMultiplier = 0x9e3779b97f4a7c15;
  std::string entries;
  std::vector<std::string> keys;
  for (uint64_t first = 0; first < 200; ++first) {
    uint64_t hash = (16 * kMultiplier ^ first) * kMultiplier;
    hash ^= hash >> 32;
    std::string key(16, '\0');
    std::memcpy(key.data(), &first, 8);
    std::memcpy(key.data() + 8, &hash, 8);
    ASSERT_EQ(internal::HashKey(key), 0u);
    entries += Entry(key, kNull);
    keys.push_back(key);
  }

  internal::KeyIndex index(entries);

  EXPECT_EQ(index.Repeated(), nullptr);
  for (const std::string& key : keys) ASSERT_NE(index.Find(key), nullptr);
  EXPECT_EQ(index.Find(keys[0] + "x"), nullptr);
  EXPECT_NE(internal::KeyIndex(entries + Entry(keys[7], kNull)).Repeated(), nullptr);
}

TEST(WireTest, Utf8IsWhatUnicodeSays) {
  const auto encode = [](uint32_t code, int bytes) {
    static constexpr int kMarks[] = {0, 0, 0xc0, 0xe0, 0xf0};
    std::string text;
    for (int i = bytes - 1; i > 0; --i) {
      text.insert(text.begin(), static_cast<char>(0x80 | (code & 0x3f)));
      code >>= 6;
    }
    text.insert(text.begin(), static_cast<char>(kMarks[bytes] | code));
    return text;
  };
  static constexpr uint32_t kFirst[] = {0, 0, 0x80, 0x800, 0x10000};
  for (uint32_t code = 0; code < 0x120000; code += code < 0x11000 ? 1 : 37) {
    for (int bytes = 1; bytes <= 4; ++bytes) {
      if (bytes == 1 && code >= 0x80) continue;
      if (bytes == 2 && code >= 0x800) continue;
      if (bytes == 3 && code >= 0x10000) continue;
      const bool is_surrogate = code >= 0xd800 && code < 0xe000;
      const bool is_good = code >= kFirst[bytes] && code <= 0x10ffff && !is_surrogate;

      ASSERT_EQ(internal::IsUtf8("padding!" + encode(code, bytes)), is_good)
          << code << " in " << bytes << " bytes";
    }
  }
}

TEST(ValueWriterTest, LengthsAreRightAroundEachSize) {
  // Around the sizes at which a length needs one byte more.
  for (const size_t size :
       {0, 1, 120, 121, 122, 123, 124, 125, 126, 127, 128, 16370, 16380, 16384}) {
    ValueTree inner = ValueTree::String(std::string(size, 'x'));
    ValueTree map = ValueTree::Map();
    map.keys = {"", "key"};
    map.items = {inner, ValueTree::List({inner, ValueTree::List()})};
    ValueTree tagged;
    tagged.kind = ValueKind::kTagged;
    tagged.name = "t";
    tagged.items = {map};

    const std::string wire = EncodeTree(tagged);

    ASSERT_TRUE(Check(wire).ok()) << size << " " << Check(wire).ToString();
    EXPECT_EQ(testing::DecodeTree(wire), tagged);
  }
}

TEST(ValueWriterTest, AnOrderThatMakesNoValueIsToldAtTheEnd) {
  using Steps = void (*)(ValueWriter&);
  const Steps wrong[] = {
      [](ValueWriter&) {},
      [](ValueWriter& w) { w.Null(), w.Null(); },
      [](ValueWriter& w) { w.BeginList(); },
      [](ValueWriter& w) { w.BeginList(), w.EndMap(); },
      [](ValueWriter& w) { w.EndList(); },
      [](ValueWriter& w) { w.Key("a"), w.Null(); },
      [](ValueWriter& w) { w.BeginMap(), w.Null(), w.EndMap(); },
      [](ValueWriter& w) { w.BeginMap(), w.Key("a"), w.EndMap(); },
      [](ValueWriter& w) { w.BeginMap(), w.Key("a"), w.Key("b"), w.Null(), w.EndMap(); },
      [](ValueWriter& w) { w.BeginList(), w.Key("a"), w.EndList(); },
      [](ValueWriter& w) { w.BeginTagged("t"), w.EndTagged(); },
      [](ValueWriter& w) { w.BeginTagged("t"), w.Null(), w.Null(), w.EndTagged(); },
  };
  for (const Steps steps : wrong) {
    std::string wire;
    ValueWriter writer(&wire);
    steps(writer);

    EXPECT_EQ(writer.Finish().reason(), Reason::kInternal);
  }
}

}  // namespace
}  // namespace statehouse
