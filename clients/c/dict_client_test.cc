// Entries of dicts through the C library and each door of a real service: the same answers.
#include "clients/c/testing/dict_client.h"

#include <cmath>
#include <map>

namespace statehouse {
namespace {

TEST_P(DictClientTest, EveryKindOfValueComesBackAsItWasSet) {
  const DictPtr dict = Open("d");
  const std::vector<std::string> values = {
      "null",
      "true",
      "false",
      "0",
      "-1",
      "9223372036854775807",
      "-9223372036854775808",
      "123456789012345678901234567890",
      "1.5",
      "-0.0",
      "1e308",
      R"({"$float":"nan"})",
      R"({"$float":"-inf"})",
      R"("")",
      R"("Grüße")",
      R"({"$bytes":"AAEC"})",
      "[]",
      R"([1,"two",[3.5,null]])",
      "{}",
      R"({"web":{"ports":[80,443]},"on":true})",
      R"({"$timestamp":"2024-02-29T12:00:00.5Z"})",
      R"({"$tag":["tuple",[1,2]]})",
      R"({"$tensor":{"dtype":"uint8","shape":[2],"data":"AQI="}})"};
  for (const std::string& json : values) {
    ASSERT_EQ(Set(dict.get(), "k", json), SH_OK) << json;
    const std::string wire = Wire(json);
    EXPECT_EQ(Get(dict.get(), "k"), Json(Bytes(wire))) << json;
  }
}

TEST_P(DictClientTest, AnEntrySaysWhatIsKnownOfIt) {
  const DictPtr dict = Open("d");
  sh_write_options options{};
  options.ttl_ms = 3'600'000;
  options.fence = 7;
  sh_outcome outcome{};
  ASSERT_EQ(Set(dict.get(), "k", "1", &options, &outcome), SH_OK);
  EXPECT_EQ(outcome.applied, 1);
  sh_entry entry{};
  ASSERT_EQ(sh_dict_get(dict.get(), sh_text("k"), nullptr, 0, &entry, nullptr), SH_OK);
  EXPECT_EQ(entry.found, 1);
  EXPECT_EQ(entry.version, outcome.version);
  EXPECT_GT(entry.ttl_ms, 3'000'000u);
  EXPECT_LE(entry.ttl_ms, 3'600'000u);
  EXPECT_EQ(entry.fence, 7u);
  EXPECT_GT(entry.ordinal, 0u);
  options = {};
  options.fence = 6;
  EXPECT_EQ(Set(dict.get(), "k", "2", &options), SH_FENCED);
  options.fence = 0;
  options.ttl_ms = SH_TTL_KEEP;
  ASSERT_EQ(Set(dict.get(), "k", "3", &options), SH_OK);
  ASSERT_EQ(sh_dict_get(dict.get(), sh_text("k"), nullptr, 0, &entry, nullptr), SH_OK);
  EXPECT_NE(entry.ttl_ms, SH_FOREVER);
  EXPECT_EQ(entry.fence, 7u);
  ASSERT_EQ(sh_dict_touch(dict.get(), sh_text("k"), SH_FOREVER, &outcome, nullptr), SH_OK);
  EXPECT_EQ(outcome.applied, 1);
  ASSERT_EQ(sh_dict_get(dict.get(), sh_text("k"), nullptr, 0, &entry, nullptr), SH_OK);
  EXPECT_EQ(entry.ttl_ms, SH_FOREVER);
  EXPECT_EQ(Json(entry.value), "3");
  ASSERT_EQ(sh_dict_touch(dict.get(), sh_text("absent"), 1, &outcome, nullptr), SH_OK);
  EXPECT_EQ(outcome.applied, 0);
  EXPECT_EQ(sh_dict_touch(dict.get(), sh_text("k"), 0, nullptr, nullptr), SH_INVALID_ARGUMENT);
  // Its time is over soon.
  ASSERT_EQ(sh_dict_touch(dict.get(), sh_text("k"), 1, nullptr, nullptr), SH_OK);
  EXPECT_TRUE(testing::Eventually([&] { return Get(dict.get(), "k") == "absent"; }));
  sh_entry_free(&entry);
}

TEST_P(DictClientTest, ConditionsDecideAndTheEntryBeforeIsGiven) {
  const DictPtr dict = Open("d");
  sh_write_options absent{};
  absent.condition.kind = SH_IF_ABSENT;
  sh_write_options present{};
  present.condition.kind = SH_IF_PRESENT;
  sh_outcome outcome{};
  sh_entry before{};
  EXPECT_EQ(Set(dict.get(), "k", "1", &present, &outcome, &before), SH_OK);
  EXPECT_EQ(outcome.applied, 0);
  EXPECT_EQ(outcome.version, 0u);
  EXPECT_EQ(before.found, 0);
  EXPECT_EQ(Set(dict.get(), "k", "1", &absent, &outcome, &before), SH_OK);
  EXPECT_EQ(outcome.applied, 1);
  EXPECT_EQ(before.found, 0);
  const uint64_t first = outcome.version;
  EXPECT_EQ(Set(dict.get(), "k", "2", &absent, &outcome, &before), SH_OK);
  EXPECT_EQ(outcome.applied, 0);
  EXPECT_EQ(outcome.version, first);
  ASSERT_EQ(before.found, 1);
  EXPECT_EQ(Json(before.value), "1");
  sh_write_options version{};
  version.condition.kind = SH_IF_VERSION;
  version.condition.version = first;
  EXPECT_EQ(Set(dict.get(), "k", "[3]", &version, &outcome, nullptr), SH_OK);
  EXPECT_EQ(outcome.applied, 1);
  EXPECT_GT(outcome.version, first);
  EXPECT_EQ(Set(dict.get(), "k", "4", &version, &outcome, nullptr), SH_OK);
  EXPECT_EQ(outcome.applied, 0);
  const std::string three = Wire("[3]");
  sh_write_options value{};
  value.condition.kind = SH_IF_VALUE;
  value.condition.value = Bytes(three);
  EXPECT_EQ(sh_dict_delete_entry(dict.get(), sh_text("k"), &value, &outcome, &before, nullptr),
            SH_OK);
  EXPECT_EQ(outcome.applied, 1);
  EXPECT_EQ(Json(before.value), "[3]");
  EXPECT_EQ(sh_dict_delete_entry(dict.get(), sh_text("k"), nullptr, &outcome, &before, nullptr),
            SH_OK);
  EXPECT_EQ(outcome.applied, 0);
  EXPECT_EQ(before.found, 0);
  sh_entry_free(&before);
}

TEST_P(DictClientTest, NumbersAreAddedWithinTheirBounds) {
  const DictPtr dict = Open("d");
  sh_number sum{};
  uint64_t version = 0;
  ASSERT_EQ(
      sh_dict_increment(dict.get(), sh_text("n"), sh_int(5), nullptr, &sum, &version, nullptr),
      SH_OK);
  EXPECT_EQ(sum.integer, 5);
  EXPECT_GT(version, 0u);
  const sh_number ten = sh_int(10);
  const sh_number max = sh_int(12);
  sh_increment_options options{};
  options.initial = &ten;
  options.max = &max;
  ASSERT_EQ(
      sh_dict_increment(dict.get(), sh_text("m"), sh_int(2), &options, &sum, nullptr, nullptr),
      SH_OK);
  EXPECT_EQ(sum.integer, 12);
  EXPECT_EQ(
      sh_dict_increment(dict.get(), sh_text("m"), sh_int(1), &options, &sum, nullptr, nullptr),
      SH_VALUE_OUT_OF_RANGE);
  ASSERT_EQ(
      sh_dict_increment(dict.get(), sh_text("f"), sh_double(0.5), nullptr, &sum, nullptr, nullptr),
      SH_OK);
  EXPECT_TRUE(sum.is_double);
  EXPECT_EQ(sum.real, 0.5);
  EXPECT_EQ(
      sh_dict_increment(dict.get(), sh_text("n"), sh_double(1), nullptr, &sum, nullptr, nullptr),
      SH_TYPE_MISMATCH);
  options = {};
  options.must_exist = 1;
  EXPECT_EQ(
      sh_dict_increment(dict.get(), sh_text("none"), sh_int(1), &options, &sum, nullptr, nullptr),
      SH_KEY_NOT_FOUND);
  options = {};
  const sh_number half = sh_double(0.5);
  options.initial = &half;
  EXPECT_EQ(
      sh_dict_increment(dict.get(), sh_text("n"), sh_int(1), &options, &sum, nullptr, nullptr),
      SH_INVALID_ARGUMENT);
  ASSERT_EQ(Set(dict.get(), "nested", R"({"hits":[1,2]})"), SH_OK);
  const Path path{"hits", 1};
  options = {};
  options.path = path.c_steps.data();
  options.steps = path.c_steps.size();
  ASSERT_EQ(sh_dict_increment(dict.get(), sh_text("nested"), sh_int(40), &options, &sum, nullptr,
                              nullptr),
            SH_OK);
  EXPECT_EQ(sum.integer, 42);
  EXPECT_EQ(Get(dict.get(), "nested"), R"({"hits":[1,42]})");
  ASSERT_EQ(Set(dict.get(), "top", "9223372036854775807"), SH_OK);
  EXPECT_EQ(sh_dict_add(dict.get(), sh_text("top"), 1, nullptr, nullptr), SH_VALUE_OUT_OF_RANGE);
  EXPECT_EQ(Get(dict.get(), "top"), "9223372036854775807");
}

TEST_P(DictClientTest, EveryEditChangesItsPlaceAndGivesWhatItPromises) {
  const DictPtr dict = Open("d");
  sh_dict* const d = dict.get();
  ASSERT_EQ(Set(d, "k", R"({"list":[1,2,3],"map":{"a":1},"text":"x","raw":{"$bytes":"AA=="}})"),
            SH_OK);
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_SET), {"map", "b"}, "2"), "done 0");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_DELETE), {"map", "a"}), "1");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_APPEND), {"list"}, "4"), "done 4");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_EXTEND), {"list"}, "[5,6]"), "done 6");
  sh_edit insert = EditOf(SH_EDIT_INSERT);
  insert.start = 0;
  EXPECT_EQ(Edit(d, "k", insert, {"list"}, "0"), "done 7");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_POP), {"list"}), "6");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_POP), {"list", 0}), "TYPE_MISMATCH");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_REMOVE), {"list"}, "2"), "done 5");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_REMOVE), {"list"}, "99"), "PATH_NOT_FOUND");
  sh_edit slice = EditOf(SH_EDIT_SLICE);
  slice.start = 1;
  slice.stop = 3;
  EXPECT_EQ(Edit(d, "k", slice, {"list"}, R"(["s"])"), "done 4");
  EXPECT_EQ(Get(d, "k", {"list"}), R"([0,"s",4,5])");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_MERGE), {"map"}, R"({"c":3})"), "done 2");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_SET_DEFAULT), {"map", "c"}, "9"), "3");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_SET_DEFAULT), {"map", "d"}, "9"), "9");
  sh_edit text = EditOf(SH_EDIT_APPEND_STRING);
  text.value = sh_text("yz");
  EXPECT_EQ(Edit(d, "k", text, {"text"}), "done 3");
  text.kind = SH_EDIT_APPEND_BYTES;
  EXPECT_EQ(Edit(d, "k", text, {"raw"}), "done 3");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_CLEAR), {"list"}), "done 0");
  EXPECT_EQ(Get(d, "k"),
            R"({"list":[],"map":{"b":2,"c":3,"d":9},"text":"xyz","raw":{"$bytes":"AHl6"}})");
}

TEST_P(DictClientTest, AnEditThatDoesNotFitSaysWhyAndChangesNothing) {
  const DictPtr dict = Open("d");
  sh_dict* const d = dict.get();
  const std::string start = R"({"list":[1],"n":1})";
  ASSERT_EQ(Set(d, "k", start), SH_OK);
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_SET), {"list", 5}, "1"), "PATH_NOT_FOUND");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_APPEND), {"n"}, "1"), "TYPE_MISMATCH");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_SET), {"n", "x"}, "1"), "TYPE_MISMATCH");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_SET), {"x", "y"}, "1"), "PATH_NOT_FOUND");
  EXPECT_EQ(Edit(d, "absent", EditOf(SH_EDIT_SET), {"x"}, "1"), "KEY_NOT_FOUND");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_EXTEND), {"list"}, "1"), "INVALID_ARGUMENT");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_SLICE), {"list"}, "{}"), "INVALID_ARGUMENT");
  EXPECT_EQ(Edit(d, "k", EditOf(SH_EDIT_MERGE), {"list"}, "[]"), "INVALID_ARGUMENT");
  sh_edit conflict = EditOf(SH_EDIT_SET);
  conflict.if_version = 1'000'000;
  EXPECT_EQ(Edit(d, "k", conflict, {"n"}, "2"), "CONFLICT");
  sh_edit broken = EditOf(SH_EDIT_SET);
  broken.value = sh_text("\x42");
  EXPECT_EQ(Edit(d, "k", broken, {"n"}), "VALUE_INVALID");
  EXPECT_EQ(Edit(d, "k", EditOf(static_cast<sh_edit_kind>(14)), {"n"}), "INVALID_ARGUMENT");
  EXPECT_EQ(Edit(d, "k", EditOf(static_cast<sh_edit_kind>(0)), {"n"}), "INVALID_ARGUMENT");
  EXPECT_EQ(Get(d, "k"), start);
  sh_edit parents = EditOf(SH_EDIT_APPEND);
  parents.create_parents = 1;
  EXPECT_EQ(Edit(d, "absent", parents, {"x", "y"}, "1"), "done 1");
  EXPECT_EQ(Get(d, "absent"), R"({"x":{"y":[1]}})");
}

TEST_P(DictClientTest, ManyEntriesAreReadAndSetAtOnce) {
  const DictPtr dict = Open("d");
  const std::vector<std::string> names = {"a", "b", "c"};
  const std::vector<std::string> wires = {Wire("1"), Wire(R"("two")"), Wire("[3]")};
  std::vector<sh_bytes> keys;
  std::vector<sh_bytes> values;
  for (const std::string& name : names) keys.push_back(Bytes(name));
  for (const std::string& wire : wires) values.push_back(Bytes(wire));
  uint64_t versions[3] = {};
  ASSERT_EQ(sh_dict_set_many(dict.get(), keys.data(), values.data(), 3, nullptr, versions, nullptr),
            SH_OK);
  keys.push_back(sh_text("absent"));
  for (const int consistent : {0, 1}) {
    sh_entries entries{};
    ASSERT_EQ(sh_dict_get_many(dict.get(), keys.data(), 4, consistent, &entries, nullptr), SH_OK);
    ASSERT_EQ(entries.count, 4u);
    const std::vector<std::string> wanted = {"1", R"("two")", "[3]"};
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(Text(entries.items[i].key), names[i]);
      EXPECT_EQ(entries.items[i].found, 1);
      EXPECT_EQ(Json(entries.items[i].value), wanted[i]);
      EXPECT_EQ(entries.items[i].version, versions[i]);
    }
    EXPECT_EQ(Text(entries.items[3].key), "absent");
    EXPECT_EQ(entries.items[3].found, 0);
    sh_entries_free(&entries);
  }
  keys = {keys[0], keys[0]};
  EXPECT_EQ(sh_dict_set_many(dict.get(), keys.data(), values.data(), 2, nullptr, nullptr, nullptr),
            SH_INVALID_ARGUMENT);
  sh_write_options conditional{};
  conditional.condition.kind = SH_IF_ABSENT;
  EXPECT_EQ(
      sh_dict_set_many(dict.get(), keys.data(), values.data(), 1, &conditional, nullptr, nullptr),
      SH_INVALID_ARGUMENT);
  const std::vector<sh_bytes> too_many(1025, sh_text("k"));
  sh_entries entries{};
  EXPECT_EQ(sh_dict_get_many(dict.get(), too_many.data(), 1025, 0, &entries, nullptr),
            SH_LIMIT_EXCEEDED);
  EXPECT_EQ(sh_dict_get_many(dict.get(), too_many.data(), 1024, 0, &entries, nullptr), SH_OK);
  EXPECT_EQ(entries.count, 1024u);
  EXPECT_EQ(sh_dict_get_many(dict.get(), nullptr, 0, 0, &entries, nullptr), SH_OK);
  EXPECT_EQ(entries.count, 0u);
  sh_entries_free(&entries);
}

TEST_P(DictClientTest, AScanGivesEveryEntryOnceAndAPrefixIsDeletedByItself) {
  const DictPtr dict = Open("d");
  constexpr int kEntries = 700;
  for (int i = 0; i < kEntries; ++i) {
    const std::string key = (i % 2 == 0 ? "even/" : "odd/") + std::to_string(i);
    ASSERT_EQ(sh_dict_set_int(dict.get(), Bytes(key), i, nullptr, nullptr), SH_OK);
  }
  for (const char* prefix : {"", "even/", "none/"}) {
    std::map<std::string, int64_t> seen;
    size_t given = 0;
    size_t pages = 0;
    sh_cursor cursor{};
    sh_entries entries{};
    while (cursor.done == 0) {
      ASSERT_EQ(sh_dict_scan(dict.get(), sh_text(prefix), 100, &cursor, &entries, nullptr), SH_OK);
      ++pages;
      given += entries.count;
      for (size_t i = 0; i < entries.count; ++i) {
        int64_t number = -1;
        EXPECT_EQ(sh_value_as_int(entries.items[i].value, &number), 1);
        seen[Text(entries.items[i].key)] = number;
      }
    }
    const size_t wanted = *prefix == '\0' ? kEntries : *prefix == 'e' ? kEntries / 2 : 0;
    EXPECT_EQ(seen.size(), wanted) << prefix;
    EXPECT_EQ(given, wanted) << prefix;
    EXPECT_GE(pages, wanted / 200) << prefix;
    ASSERT_EQ(sh_dict_scan(dict.get(), sh_text(prefix), 100, &cursor, &entries, nullptr), SH_OK);
    EXPECT_EQ(entries.count, 0u);
    sh_cursor_free(&cursor);
    sh_entries_free(&entries);
  }
  uint64_t deleted = 0;
  ASSERT_EQ(sh_dict_delete_prefix(dict.get(), sh_text("odd/"), &deleted, nullptr), SH_OK);
  EXPECT_EQ(deleted, kEntries / 2u);
  EXPECT_EQ(sh_dict_delete_prefix(dict.get(), sh_text(""), &deleted, nullptr), SH_INVALID_ARGUMENT);
  uint64_t length = 0;
  ASSERT_EQ(sh_dict_length(dict.get(), &length, nullptr), SH_OK);
  EXPECT_EQ(length, kEntries / 2u);
  ASSERT_EQ(sh_dict_clear(dict.get(), &deleted, nullptr), SH_OK);
  EXPECT_EQ(deleted, kEntries / 2u);
  EXPECT_EQ(Get(dict.get(), "even/0"), "absent");
  ASSERT_EQ(sh_dict_length(dict.get(), &length, nullptr), SH_OK);
  EXPECT_EQ(length, 0u);
}

TEST_P(DictClientTest, ATransactionHappensWhollyOrNotAtAll) {
  const DictPtr dict = Open("d");
  ASSERT_EQ(Set(dict.get(), "a", R"("before")"), SH_OK);
  const std::string wire = Wire(R"("after")");
  sh_compare compare{};
  compare.key = sh_text("a");
  compare.condition.kind = SH_IF_PRESENT;
  sh_step then[4] = {};
  then[0].kind = SH_STEP_SET;
  then[0].key = sh_text("a");
  then[0].value = Bytes(wire);
  then[1].kind = SH_STEP_INCREMENT;
  then[1].key = sh_text("n");
  then[1].delta = sh_int(3);
  then[2].kind = SH_STEP_DELETE;
  then[2].key = sh_text("gone");
  then[3].kind = SH_STEP_GET;
  then[3].key = sh_text("nothing");
  sh_step otherwise[1] = {};
  otherwise[0].kind = SH_STEP_GET;
  otherwise[0].key = sh_text("a");
  const sh_transaction transaction = {&compare, 1, then, 4, otherwise, 1};
  int compared = -1;
  sh_entries results{};
  uint64_t versions[4] = {};
  ASSERT_EQ(sh_dict_transact(dict.get(), &transaction, &compared, &results, versions, nullptr),
            SH_OK);
  EXPECT_EQ(compared, 1);
  ASSERT_EQ(results.count, 4u);
  EXPECT_EQ(Json(results.items[0].value), R"("before")");
  EXPECT_EQ(Json(results.items[1].value), "3");
  EXPECT_EQ(results.items[2].found, 0);
  EXPECT_EQ(results.items[3].found, 0);
  EXPECT_GT(versions[0], results.items[0].version);
  EXPECT_GT(versions[1], 0u);
  EXPECT_EQ(versions[2], 0u);
  EXPECT_EQ(Get(dict.get(), "a"), R"("after")");
  // The compare fails: the other list.
  compare.condition.kind = SH_IF_ABSENT;
  ASSERT_EQ(sh_dict_transact(dict.get(), &transaction, &compared, &results, versions, nullptr),
            SH_OK);
  EXPECT_EQ(compared, 0);
  ASSERT_EQ(results.count, 1u);
  EXPECT_EQ(Json(results.items[0].value), R"("after")");
  EXPECT_EQ(Get(dict.get(), "n"), "3");
  // A step's own condition fails: nothing.
  compare.condition.kind = SH_IF_PRESENT;
  sh_write_options absent{};
  absent.condition.kind = SH_IF_ABSENT;
  then[0].options = &absent;
  EXPECT_EQ(sh_dict_transact(dict.get(), &transaction, &compared, &results, versions, nullptr),
            SH_CONFLICT);
  EXPECT_EQ(Get(dict.get(), "n"), "3");
  then[0].options = nullptr;
  then[3].key = then[0].key;
  EXPECT_EQ(sh_dict_transact(dict.get(), &transaction, nullptr, nullptr, nullptr, nullptr),
            SH_INVALID_ARGUMENT);
  sh_entries_free(&results);
}

TEST_P(DictClientTest, TheUsualCasesNeedNoMessages) {
  const DictPtr dict = Open("d");
  sh_dict* const d = dict.get();
  int64_t number = 0;
  double real = 0;
  ASSERT_EQ(sh_dict_set_int(d, sh_text("i"), -5, nullptr, nullptr), SH_OK);
  ASSERT_EQ(sh_dict_set_double(d, sh_text("d"), 2.5, nullptr, nullptr), SH_OK);
  ASSERT_EQ(sh_dict_set_string(d, sh_text("s"), sh_text("Ada"), nullptr, nullptr), SH_OK);
  ASSERT_EQ(sh_dict_get_int(d, sh_text("i"), &number, nullptr), SH_OK);
  EXPECT_EQ(number, -5);
  ASSERT_EQ(sh_dict_get_double(d, sh_text("d"), &real, nullptr), SH_OK);
  EXPECT_EQ(real, 2.5);
  EXPECT_EQ(Get(d, "s"), R"("Ada")");
  ASSERT_EQ(sh_dict_add(d, sh_text("i"), 7, &number, nullptr), SH_OK);
  EXPECT_EQ(number, 2);
  EXPECT_EQ(sh_dict_get_int(d, sh_text("d"), &number, nullptr), SH_TYPE_MISMATCH);
  EXPECT_EQ(sh_dict_get_int(d, sh_text("absent"), &number, nullptr), SH_KEY_NOT_FOUND);
  EXPECT_EQ(sh_dict_set_string(d, sh_text("s"), sh_text("\xff"), nullptr, nullptr),
            SH_VALUE_INVALID);
  ASSERT_EQ(sh_dict_add(d, sh_text("d"), 1, &number, nullptr), SH_OK);
  EXPECT_EQ(number, 3);
  ASSERT_EQ(sh_dict_get_double(d, sh_text("d"), &real, nullptr), SH_OK);
  EXPECT_EQ(real, 3.5);
  EXPECT_EQ(sh_number_as_int(sh_double(1e300)), INT64_MAX);
  EXPECT_EQ(sh_number_as_int(sh_double(-1e300)), INT64_MIN);
  EXPECT_EQ(sh_number_as_int(sh_double(std::nan(""))), 0);
  EXPECT_EQ(sh_number_as_int(sh_double(-2.9)), -2);
  EXPECT_EQ(sh_number_as_double(sh_int(-2)), -2.0);
  sh_write_options absent{};
  absent.condition.kind = SH_IF_ABSENT;
  EXPECT_EQ(sh_dict_set_int(d, sh_text("i"), 1, &absent, nullptr), SH_CONFLICT);
  EXPECT_EQ(sh_dict_set_int(d, sh_text("new"), 1, &absent, nullptr), SH_OK);
}

INSTANTIATE_TEST_SUITE_P(Doors, DictClientTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_SOCKET,
                                           SH_TRANSPORT_NETWORK),
                         DoorName);

}  // namespace
}  // namespace statehouse
