// Edits: each kind, each refusal, each limit. edit_model_test.cc compares random edits with a
// model.
#include "engine/value/edit.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/value/json.h"
#include "engine/value/testing/value_tree.h"
#include "engine/value/value.h"
#include "engine/value/value_writer.h"

namespace statehouse {
namespace {

std::string FromJson(const std::string& json) {
  std::string wire;
  if (json.empty()) return wire;  // No value.
  const Status status = ValueFromJson(json, &wire);
  EXPECT_TRUE(status.ok()) << json << ": " << status.ToString();
  return wire;
}

std::string ToJson(std::string_view wire) {
  std::string json;
  if (wire.empty()) return json;
  const Status status = ValueToJson(wire, &json);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return json;
}

// One edit of a value that is given as JSON.
struct Editing {
  explicit Editing(EditKind kind, const std::string& value = "") : operand(value) {
    edit.kind = kind;
  }

  // The new value as JSON, or the reason why there is none.
  std::string On(const std::string& json, const std::string& path_text = "") {
    current = FromJson(json);
    const bool is_raw = edit.kind == EditKind::kStringAppend || edit.kind == EditKind::kBytesAppend;
    const std::string wire = is_raw ? operand : FromJson(operand);
    edit.value = wire;
    StatusOr<Path> path = ParsePath(path_text);
    EXPECT_TRUE(path.ok()) << path.status().ToString();
    std::string next = "untouched";
    result = EditResult();
    status = EditValue(current, path->steps(), edit, &next, &result);
    if (status.ok()) {
      EXPECT_TRUE(CheckValue(next).ok()) << CheckValue(next).ToString();
      return ToJson(next);
    }
    EXPECT_EQ(next, "untouched");
    return std::string(ReasonName(status.reason()));
  }

  Edit edit;
  std::string operand;
  std::string current;
  EditResult result;
  Status status;
};

TEST(EditTest, SetReplacesAndAdds) {
  Editing set(EditKind::kSet, "7");

  EXPECT_EQ(set.On("1"), "7");
  EXPECT_EQ(ToJson(set.result.removed), "1");
  EXPECT_EQ(set.On(R"({"a":1,"b":2})", "a"), R"({"a":7,"b":2})");
  EXPECT_EQ(set.On(R"({"a":1})", "b"), R"({"a":1,"b":7})");
  EXPECT_EQ(set.result.removed, "");
  EXPECT_EQ(set.On(R"({"a":1})", "\"\""), R"({"a":1,"":7})");
  EXPECT_EQ(set.On("[1,2,3]", "[-1]"), "[1,2,7]");
  EXPECT_EQ(set.On("[1,2,3]", "[3]"), "PATH_NOT_FOUND");
  EXPECT_EQ(set.On(R"({"a":[{"b":"x"},2]})", "a[0].b"), R"({"a":[{"b":7},2]})");
  EXPECT_EQ(set.On("1", "a"), "TYPE_MISMATCH");
  EXPECT_EQ(set.On("", ""), "7");
  EXPECT_EQ(set.On("", "a"), "PATH_NOT_FOUND");
}

TEST(EditTest, MissingParentsAreMadeWhenAsked) {
  Editing set(EditKind::kSet, "7");

  EXPECT_EQ(set.On("{}", "a.b"), "PATH_NOT_FOUND");
  set.edit.create_parents = true;
  EXPECT_EQ(set.On("{}", "a.b.c"), R"({"a":{"b":{"c":7}}})");
  EXPECT_EQ(set.On(R"({"a":{"x":1}})", "a.b.c"), R"({"a":{"x":1,"b":{"c":7}}})");
  EXPECT_EQ(set.On("", "a.b"), R"({"a":{"b":7}})");
  EXPECT_EQ(set.On("{}", "a[0]"), "PATH_NOT_FOUND");
  EXPECT_EQ(set.On("", "[0]"), "PATH_NOT_FOUND");
  EXPECT_EQ(set.On(R"({"a":1})", "a.b"), "TYPE_MISMATCH");
}

TEST(EditTest, SetDefaultKeepsWhatIsThere) {
  Editing set(EditKind::kSetDefault, "7");

  EXPECT_EQ(set.On(R"({"a":1})", "a"), R"({"a":1})");
  EXPECT_FALSE(set.result.changed);
  EXPECT_EQ(ToJson(set.result.found), "1");
  EXPECT_EQ(set.On(R"({"a":1})", "b"), R"({"a":1,"b":7})");
  EXPECT_TRUE(set.result.changed);
  EXPECT_EQ(set.result.found, "");
  EXPECT_EQ(set.On(""), "7");
}

TEST(EditTest, DeleteTakesKeysAndItemsAway) {
  Editing del(EditKind::kDelete);

  EXPECT_EQ(del.On(R"({"a":1,"b":2})", "a"), R"({"b":2})");
  EXPECT_EQ(ToJson(del.result.removed), "1");
  EXPECT_EQ(del.On(R"({"":1})", "\"\""), "{}");
  EXPECT_EQ(del.On("[1,2,3]", "[1]"), "[1,3]");
  EXPECT_EQ(del.On(R"({"a":[1,2]})", "a[-1]"), R"({"a":[1]})");
  EXPECT_EQ(del.On("{}", "a"), "PATH_NOT_FOUND");
  EXPECT_EQ(del.On("{}", "a.b"), "PATH_NOT_FOUND");
  EXPECT_EQ(del.On("[]", "[0]"), "PATH_NOT_FOUND");
  EXPECT_EQ(del.On("", "a"), "PATH_NOT_FOUND");
  EXPECT_EQ(del.On("1", "a"), "TYPE_MISMATCH");
  EXPECT_EQ(del.On("1", ""), "INVALID_ARGUMENT");
}

TEST(EditTest, IncrementAddsIntsAndFloats) {
  Editing add(EditKind::kIncrement);
  add.edit.delta = Number::Int(5);

  EXPECT_EQ(add.On("1"), "6");
  EXPECT_EQ(add.result.number, Number::Int(6));
  EXPECT_EQ(add.On("1.5"), "6.5");
  EXPECT_EQ(add.result.number, Number::Float(6.5));
  EXPECT_EQ(add.On(R"({"a":[127]})", "a[0]"), R"({"a":[132]})");
  EXPECT_EQ(add.On("-5"), "0");
  EXPECT_EQ(add.On("9223372036854775802"), "9223372036854775807");
  EXPECT_EQ(add.On("9223372036854775803"), "VALUE_OUT_OF_RANGE");
  EXPECT_EQ(add.On("9223372036854775808"), "TYPE_MISMATCH");
  EXPECT_EQ(add.On("true"), "TYPE_MISMATCH");
  EXPECT_EQ(add.On("\"1\""), "TYPE_MISMATCH");
  EXPECT_EQ(add.On("{}", "a"), "PATH_NOT_FOUND");
  EXPECT_EQ(add.On(""), "PATH_NOT_FOUND");
  add.edit.delta = Number::Float(0.5);
  EXPECT_EQ(add.On("1.0"), "1.5");
  EXPECT_EQ(add.On("1"), "TYPE_MISMATCH");
}

TEST(EditTest, IncrementBeginsAtTheInitialNumber) {
  Editing add(EditKind::kIncrement);
  add.edit.delta = Number::Int(5);
  add.edit.initial = Number::Int(10);

  EXPECT_EQ(add.On("{}", "a"), R"({"a":15})");
  EXPECT_EQ(add.result.number, Number::Int(15));
  EXPECT_EQ(add.On(""), "15");
  EXPECT_EQ(add.On("{}", "a.b"), "PATH_NOT_FOUND");
  add.edit.create_parents = true;
  EXPECT_EQ(add.On("{}", "a.b"), R"({"a":{"b":15}})");
  EXPECT_EQ(add.On("[]", "[0]"), "PATH_NOT_FOUND");
  add.edit.initial = Number::Float(0.5);
  EXPECT_EQ(add.On(""), "5.5");
  add.edit.initial = Number::Int(0);
  add.edit.delta = Number::Float(1);
  EXPECT_EQ(add.On(""), "TYPE_MISMATCH");
}

TEST(EditTest, IncrementStaysBetweenMinAndMax) {
  Editing add(EditKind::kIncrement);
  add.edit.delta = Number::Int(1);
  add.edit.min = Number::Int(-3);
  add.edit.max = Number::Int(10);

  EXPECT_EQ(add.On("9"), "10");
  EXPECT_EQ(add.On("10"), "VALUE_OUT_OF_RANGE");
  EXPECT_EQ(add.On("-4"), "-3");
  EXPECT_EQ(add.On("-5"), "VALUE_OUT_OF_RANGE");
  EXPECT_EQ(add.On("9.5"), "VALUE_OUT_OF_RANGE");
  EXPECT_EQ(add.On(R"({"$float":"nan"})"), "VALUE_OUT_OF_RANGE");
  // 2^53 + 1 is no double; compared as doubles it would equal 2^53.
  add.edit.min.reset();
  add.edit.max = Number::Float(9007199254740992.0);
  EXPECT_EQ(add.On("9007199254740991"), "9007199254740992");
  EXPECT_EQ(add.On("9007199254740992"), "VALUE_OUT_OF_RANGE");
  add.edit.max = Number::Float(std::nan(""));
  EXPECT_EQ(add.On("1"), "VALUE_OUT_OF_RANGE");
}

TEST(EditTest, AppendExtendAndInsertGrowLists) {
  Editing append(EditKind::kAppend, "7");
  EXPECT_EQ(append.On("[]"), "[7]");
  EXPECT_EQ(append.On(R"({"a":[1,2],"b":3})", "a"), R"({"a":[1,2,7],"b":3})");
  EXPECT_EQ(append.result.length, 3u);
  EXPECT_EQ(append.On("{}"), "TYPE_MISMATCH");
  EXPECT_EQ(append.On("{}", "a"), "PATH_NOT_FOUND");
  append.edit.create_missing = true;
  EXPECT_EQ(append.On("{}", "a"), R"({"a":[7]})");
  EXPECT_EQ(append.result.length, 1u);
  EXPECT_EQ(append.On(""), "[7]");

  Editing extend(EditKind::kExtend, "[7,8]");
  EXPECT_EQ(extend.On("[1]"), "[1,7,8]");
  EXPECT_EQ(extend.result.length, 3u);
  extend.edit.create_missing = true;
  EXPECT_EQ(extend.On("{}", "a"), R"({"a":[7,8]})");
  EXPECT_EQ(extend.result.length, 2u);
  EXPECT_EQ(Editing(EditKind::kExtend, "7").On("[1]"), "TYPE_MISMATCH");

  Editing insert(EditKind::kInsert, "7");
  const std::pair<int64_t, const char*> cases[] = {
      {0, "[7,1,2]"},  {1, "[1,7,2]"},  {2, "[1,2,7]"},         {99, "[1,2,7]"},
      {-1, "[1,7,2]"}, {-2, "[7,1,2]"}, {INT64_MIN, "[7,1,2]"}, {INT64_MAX, "[1,2,7]"},
  };
  for (const auto& [start, expected] : cases) {
    insert.edit.start = start;
    EXPECT_EQ(insert.On("[1,2]"), expected) << start;
    EXPECT_EQ(insert.result.length, 3u);
  }
}

TEST(EditTest, PopTakesTheLastOrTheNamedItem) {
  Editing pop(EditKind::kPop);
  EXPECT_EQ(pop.On("[1,2,3]"), "[1,2]");
  EXPECT_EQ(ToJson(pop.result.removed), "3");
  EXPECT_EQ(pop.result.length, 2u);
  EXPECT_EQ(pop.On(R"({"a":1,"b":2})"), R"({"a":1})");
  EXPECT_EQ(pop.result.removed_key, "b");
  EXPECT_EQ(ToJson(pop.result.removed), "2");
  EXPECT_EQ(pop.On("[]"), "PATH_NOT_FOUND");
  EXPECT_EQ(pop.On("{}"), "PATH_NOT_FOUND");
  EXPECT_EQ(pop.On("1"), "TYPE_MISMATCH");
  EXPECT_EQ(pop.On(""), "PATH_NOT_FOUND");
  pop.edit.item = PathStep::Index(-3);
  EXPECT_EQ(pop.On("[1,2,3]"), "[2,3]");
  EXPECT_EQ(pop.On("[1,2]"), "PATH_NOT_FOUND");
  EXPECT_EQ(pop.On(R"({"a":1})"), "TYPE_MISMATCH");
  pop.edit.item = PathStep::Key("a");
  EXPECT_EQ(pop.On(R"({"x":{"a":1,"b":2}})", "x"), R"({"x":{"b":2}})");
  EXPECT_EQ(pop.result.length, 1u);
  EXPECT_EQ(pop.On("[1]"), "TYPE_MISMATCH");
}

TEST(EditTest, RemoveTakesTheFirstEqualValue) {
  Editing remove(EditKind::kRemoveValue, R"({"a":1,"b":2})");
  EXPECT_EQ(remove.On(R"([1,{"b":2,"a":1},{"a":1,"b":2}])"), R"([1,{"a":1,"b":2}])");
  EXPECT_EQ(ToJson(remove.result.removed), R"({"b":2,"a":1})");
  EXPECT_EQ(remove.result.length, 2u);
  EXPECT_EQ(remove.On("[1]"), "PATH_NOT_FOUND");
  EXPECT_EQ(remove.On(R"({"a":1})"), "TYPE_MISMATCH");
  EXPECT_EQ(Editing(EditKind::kRemoveValue, "1").On("[1.0,true,1]"), "[1.0,true]");
}

TEST(EditTest, MergeSetsEachKeyAndKeepsTheOrder) {
  Editing merge(EditKind::kMergeMap, R"({"c":30,"a":10,"d":40})");
  EXPECT_EQ(merge.On(R"({"a":1,"b":2,"c":3})"), R"({"a":10,"b":2,"c":30,"d":40})");
  EXPECT_EQ(merge.result.length, 4u);
  EXPECT_EQ(merge.On(R"({"x":{"a":{}}})", "x"), R"({"x":{"a":10,"c":30,"d":40}})");
  EXPECT_EQ(merge.On("[]"), "TYPE_MISMATCH");
  EXPECT_EQ(merge.On("{}", "x"), "PATH_NOT_FOUND");
  merge.edit.create_missing = true;
  EXPECT_EQ(merge.On("{}", "x"), R"({"x":{"c":30,"a":10,"d":40}})");
  EXPECT_EQ(merge.result.length, 3u);
  EXPECT_EQ(Editing(EditKind::kMergeMap, "[]").On("{}"), "TYPE_MISMATCH");
}

TEST(EditTest, ClearEmptiesListsAndMaps) {
  Editing clear(EditKind::kClear);
  EXPECT_EQ(clear.On("[1,2]"), "[]");
  EXPECT_EQ(clear.On(R"({"a":{"b":1},"c":2})", "a"), R"({"a":{},"c":2})");
  EXPECT_EQ(clear.result.length, 0u);
  EXPECT_EQ(clear.On("\"text\""), "TYPE_MISMATCH");
  clear.edit.create_missing = true;
  EXPECT_EQ(clear.On("{}", "a"), "PATH_NOT_FOUND");
}

TEST(EditTest, SliceIsReplacedAsInPython) {
  struct Case {
    int64_t start;
    int64_t stop;
    const char* expected;
  };
  const Case cases[] = {
      {0, INT64_MAX, "[8,9]"},  {1, 3, "[1,8,9,4]"},     {-2, INT64_MAX, "[1,2,8,9]"},
      {0, 0, "[8,9,1,2,3,4]"},  {3, 1, "[1,2,3,8,9,4]"}, {99, 100, "[1,2,3,4,8,9]"},
      {-99, -3, "[8,9,2,3,4]"}, {1, -1, "[1,8,9,4]"},
  };
  for (const Case& c : cases) {
    Editing slice(EditKind::kSetSlice, "[8,9]");
    slice.edit.start = c.start;
    slice.edit.stop = c.stop;
    EXPECT_EQ(slice.On("[1,2,3,4]"), c.expected) << c.start << " " << c.stop;
    EXPECT_EQ(slice.result.length, testing::DecodeTree(FromJson(c.expected)).items.size());
  }
  Editing remove(EditKind::kSetSlice, "[]");
  remove.edit.start = 1;
  EXPECT_EQ(remove.On("[1,2,3]"), "[1]");
}

TEST(EditTest, TextsAndBytesGrow) {
  Editing text(EditKind::kStringAppend, "ä!");
  EXPECT_EQ(text.On(R"({"a":"x"})", "a"), R"({"a":"xä!"})");
  EXPECT_EQ(text.result.length, 4u);
  EXPECT_EQ(text.On(R"({"$bytes":""})"), "TYPE_MISMATCH");
  EXPECT_EQ(text.On("{}", "a"), "PATH_NOT_FOUND");
  text.edit.create_missing = true;
  EXPECT_EQ(text.On("{}", "a"), R"({"a":"ä!"})");
  EXPECT_EQ(text.result.length, 3u);
  // Half a character is refused, also when the other half is there already.
  EXPECT_EQ(Editing(EditKind::kStringAppend, "\xa4").On("\"a\""), "VALUE_INVALID");

  Editing bytes(EditKind::kBytesAppend, "\xff");
  EXPECT_EQ(bytes.On(R"({"$bytes":"AAE="})"), R"({"$bytes":"AAH/"})");
  EXPECT_EQ(bytes.On("\"a\""), "TYPE_MISMATCH");
  bytes.edit.create_missing = true;
  EXPECT_EQ(bytes.On(""), R"({"$bytes":"/w=="})");
}

TEST(EditTest, TaggedValuesAreReplacedAsAWhole) {
  const std::string json = R"({"a":{"$tag":["tuple",[1,[2]]]}})";

  EXPECT_EQ(Editing(EditKind::kSet, "7").On(json, "a[0]"), "TYPE_MISMATCH");
  EXPECT_EQ(Editing(EditKind::kSet, "7").On(json, "a[1][0]"), "TYPE_MISMATCH");
  EXPECT_EQ(Editing(EditKind::kDelete).On(json, "a[0]"), "TYPE_MISMATCH");
  EXPECT_EQ(Editing(EditKind::kAppend, "7").On(json, "a"), "TYPE_MISMATCH");
  EXPECT_EQ(Editing(EditKind::kPop).On(json, "a"), "TYPE_MISMATCH");
  EXPECT_EQ(Editing(EditKind::kSetDefault, "7").On(json, "a.x"), "TYPE_MISMATCH");
  EXPECT_EQ(Editing(EditKind::kSet, "7").On(json, "a"), R"({"a":7})");
  EXPECT_EQ(Editing(EditKind::kDelete).On(json, "a"), "{}");
}

TEST(EditTest, WhatIsPutInIsChecked) {
  for (const EditKind kind :
       {EditKind::kSet, EditKind::kSetDefault, EditKind::kAppend, EditKind::kExtend,
        EditKind::kInsert, EditKind::kRemoveValue, EditKind::kMergeMap, EditKind::kSetSlice}) {
    Edit edit;
    edit.kind = kind;
    EditResult result;
    std::string next;
    edit.value = "\x10\x02";
    EXPECT_EQ(EditValue(FromJson("[]"), {}, edit, &next, &result).reason(), Reason::kValueInvalid);
    edit.value = "";
    EXPECT_EQ(EditValue(FromJson("[]"), {}, edit, &next, &result).reason(), Reason::kValueInvalid);
  }
  Edit unknown;
  unknown.kind = static_cast<EditKind>(99);
  EditResult result;
  std::string next;
  EXPECT_EQ(EditValue(FromJson("1"), {}, unknown, &next, &result).reason(),
            Reason::kInvalidArgument);
}

TEST(EditTest, DepthStaysWithinItsLimit) {
  const auto nested = [](size_t depth) {
    return std::string(depth - 1, '[') + "1" + std::string(depth - 1, ']');
  };
  const std::string list = "[[]]";

  EXPECT_NE(Editing(EditKind::kSet, nested(kValueDepthMax - 1)).On(list, "[0]"), "VALUE_INVALID");
  EXPECT_EQ(Editing(EditKind::kSet, nested(kValueDepthMax)).On(list, "[0]"), "VALUE_INVALID");
  EXPECT_NE(Editing(EditKind::kAppend, nested(kValueDepthMax - 2)).On(list, "[0]"),
            "VALUE_INVALID");
  EXPECT_EQ(Editing(EditKind::kAppend, nested(kValueDepthMax - 1)).On(list, "[0]"),
            "VALUE_INVALID");
  EXPECT_NE(Editing(EditKind::kExtend, nested(kValueDepthMax - 1)).On(list, "[0]"),
            "VALUE_INVALID");
  EXPECT_EQ(Editing(EditKind::kExtend, nested(kValueDepthMax)).On(list, "[0]"), "VALUE_INVALID");
  std::string path = "a";
  for (size_t i = 2; i < kValueDepthMax; ++i) path += ".a";
  Editing set(EditKind::kSet, "1");
  set.edit.create_parents = true;
  EXPECT_NE(set.On("{}", path), "VALUE_INVALID");
  EXPECT_EQ(set.On("{}", path + ".a"), "VALUE_INVALID");
  Editing add(EditKind::kIncrement);
  add.edit.initial = Number::Int(0);
  add.edit.create_parents = true;
  EXPECT_NE(add.On("{}", path), "VALUE_INVALID");
  EXPECT_EQ(add.On("{}", path + ".a"), "VALUE_INVALID");
}

TEST(EditTest, SizeStaysWithinItsLimit) {
  std::string current;
  ValueWriter(&current).String(std::string(kValueBytesMax - 5, 'x'));
  ASSERT_EQ(current.size(), kValueBytesMax - 1);
  Edit edit;
  edit.kind = EditKind::kStringAppend;
  edit.value = "y";
  std::string next;
  EditResult result;

  EXPECT_TRUE(EditValue(current, {}, edit, &next, &result).ok());
  EXPECT_EQ(next.size(), kValueBytesMax);
  edit.value = "yz";
  EXPECT_EQ(EditValue(current, {}, edit, &next, &result).reason(), Reason::kValueInvalid);
  // The same for what is made where nothing was.
  const std::string huge(kValueBytesMax, 'x');
  edit.value = huge;
  edit.create_missing = true;
  EXPECT_EQ(EditValue("", {}, edit, &next, &result).reason(), Reason::kValueInvalid);
}

TEST(EditTest, LengthsThatNeedMoreBytesMoveWhatFollows) {
  // A change that makes each enclosing length one byte longer or shorter.
  const std::string json = R"({"a":[{"b":"TEXT"},1],"z":2})";
  for (size_t size = 90; size < 130; ++size) {
    const std::string text(size, 'x');
    std::string expected = json;
    expected.replace(expected.find("TEXT"), 4, text);

    EXPECT_EQ(Editing(EditKind::kSet, '"' + text + '"').On(json, "a[0].b"), expected);
    EXPECT_EQ(Editing(EditKind::kSet, "\"TEXT\"").On(expected, "a[0].b"), json);
  }
}

}  // namespace
}  // namespace statehouse
