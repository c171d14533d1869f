#include "service/api/dict_verbs.h"

#include <gtest/gtest.h>

#include <set>

#include "service/api/dict_verbs_test_support.h"

namespace statehouse {
namespace {

TEST_F(DictVerbsTest, ADictIsMadeDescribedListedAndDeleted) {
  v1::CreateDictRequest create;
  create.set_name("web/sessions");
  create.set_max_entries(100);
  create.mutable_default_ttl()->set_seconds(60);
  const auto created = SH_DICT_CALL(service_, CreateDict, create);
  ASSERT_TRUE(created.ok()) << created.status().ToString();
  EXPECT_TRUE(created->created());
  EXPECT_EQ(created->dict().max_entries(), 100u);
  EXPECT_EQ(created->dict().default_ttl().seconds(), 60);
  EXPECT_FALSE(SH_DICT_CALL(service_, CreateDict, create)->created());
  create.set_max_entries(101);
  EXPECT_EQ(SH_DICT_CALL(service_, CreateDict, create).status().reason(), Reason::kDictExists);
  create.set_max_entries(kDictEntriesMax + 1);
  EXPECT_EQ(SH_DICT_CALL(service_, CreateDict, create).status().reason(), Reason::kSizeInvalid);

  v1::ListDictsRequest list;
  list.set_page_size(1);
  const auto first = SH_DICT_CALL(service_, ListDicts, list);
  ASSERT_TRUE(first.ok());
  ASSERT_EQ(first->dicts_size(), 1);
  EXPECT_EQ(first->dicts(0).name(), "d");
  list.set_page_token(first->next_page_token());
  const auto second = SH_DICT_CALL(service_, ListDicts, list);
  ASSERT_EQ(second->dicts_size(), 1);
  EXPECT_EQ(second->dicts(0).name(), "web/sessions");
  EXPECT_EQ(second->next_page_token(), "");

  v1::DeleteDictRequest erase;
  erase.set_name("#" + std::to_string(created->dict().index()));
  EXPECT_TRUE(SH_DICT_CALL(service_, DeleteDict, erase).ok());
  v1::DescribeDictRequest describe;
  describe.set_name("web/sessions");
  EXPECT_EQ(SH_DICT_CALL(service_, DescribeDict, describe).status().reason(),
            Reason::kDictNotFound);
}

TEST_F(DictVerbsTest, EveryKindOfValueComesBackAsItWent) {
  std::vector<v1::Value> values(9);
  values[0].set_null_value(google::protobuf::NULL_VALUE);
  values[1].set_bool_value(true);
  values[2].set_int_value(-5);
  values[3].set_float_value(0.25);
  values[4].set_string_value("grüße");
  values[5].set_bytes_value(std::string("\0\xff", 2));
  values[6] = Nested();
  values[7].mutable_timestamp_value()->set_seconds(1);
  values[8].mutable_tagged_value()->set_tag("tuple");
  values[8].mutable_tagged_value()->mutable_value()->mutable_list_value();
  for (size_t i = 0; i < values.size(); ++i) {
    const auto set = Set("k" + std::to_string(i), values[i]);
    ASSERT_TRUE(set.ok()) << set.status().ToString();
    const v1::GetEntryResponse got = Get("k" + std::to_string(i));
    EXPECT_EQ(got.entry().value().SerializeAsString(), values[i].SerializeAsString()) << i;
    EXPECT_EQ(got.entry().version(), set->version());
  }
}

TEST_F(DictVerbsTest, ConditionsPreviousAndTtl) {
  auto set = For<v1::SetEntryRequest>("a");
  *set.mutable_value() = Text("one");
  set.mutable_condition()->set_absent(true);
  set.set_return_previous(true);
  auto response = SH_DICT_CALL(service_, SetEntry, set);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  EXPECT_TRUE(response->applied());
  EXPECT_FALSE(response->has_previous());
  *set.mutable_value() = Text("two");
  response = SH_DICT_CALL(service_, SetEntry, set);
  EXPECT_FALSE(response->applied()) << "get-or-set";
  EXPECT_EQ(response->previous().value().string_value(), "one");
  *set.mutable_condition()->mutable_value() = Text("one");
  set.mutable_ttl()->mutable_duration()->set_seconds(3600);
  response = SH_DICT_CALL(service_, SetEntry, set);
  EXPECT_TRUE(response->applied());
  EXPECT_GT(Get("a").entry().ttl().seconds(), 3590);
  auto touch = For<v1::TouchEntryRequest>("a");
  touch.mutable_ttl()->set_none(true);
  EXPECT_TRUE(SH_DICT_CALL(service_, TouchEntry, touch)->applied());
  EXPECT_FALSE(Get("a").entry().has_ttl());
  EXPECT_EQ(Get("a").entry().value().string_value(), "two");
  auto pop = For<v1::DeleteEntryRequest>("a");
  pop.set_return_previous(true);
  const auto popped = SH_DICT_CALL(service_, DeleteEntry, pop);
  EXPECT_EQ(popped->previous().value().string_value(), "two");
  EXPECT_FALSE(Get("a").has_entry());
}

TEST_F(DictVerbsTest, EditsReachIntoValues) {
  ASSERT_TRUE(Set("cfg", Nested()).ok());
  auto edit = For<v1::EditEntryRequest>("cfg");
  AddPath(&edit, {"web", "ports"});
  *edit.mutable_edit()->mutable_append() = Int(8080);
  const auto appended = SH_DICT_CALL(service_, EditEntry, edit);
  ASSERT_TRUE(appended.ok()) << appended.status().ToString();
  EXPECT_EQ(appended->length(), 3u);

  auto get = For<v1::GetEntryRequest>("cfg");
  AddPath(&get, {"web", "ports"});
  get.add_path_steps()->set_index(-1);
  EXPECT_EQ(SH_DICT_CALL(service_, GetEntry, get)->entry().value().int_value(), 8080);

  edit.mutable_edit()->set_pop(true);
  const auto popped = SH_DICT_CALL(service_, EditEntry, edit);
  ASSERT_TRUE(popped.ok()) << popped.status().ToString();
  EXPECT_EQ(popped->result().int_value(), 8080);
  EXPECT_EQ(popped->length(), 2u);

  auto by_position = edit;
  by_position.add_path_steps()->set_index(0);
  *by_position.mutable_edit()->mutable_set() = Int(81);
  by_position.set_if_version(appended->version());
  EXPECT_EQ(SH_DICT_CALL(service_, EditEntry, by_position).status().reason(), Reason::kConflict);
  by_position.set_if_version(popped->version());
  EXPECT_TRUE(SH_DICT_CALL(service_, EditEntry, by_position).ok());

  auto increment = For<v1::IncrementEntryRequest>("cfg");
  AddPath(&increment, {"web", "hits"});
  const auto hits = SH_DICT_CALL(service_, IncrementEntry, increment);
  ASSERT_TRUE(hits.ok()) << hits.status().ToString();
  EXPECT_EQ(hits->value().int_value(), 1);

  auto missing = For<v1::EditEntryRequest>("none");
  AddPath(&missing, {"x"});
  *missing.mutable_edit()->mutable_set() = Int(1);
  EXPECT_EQ(SH_DICT_CALL(service_, EditEntry, missing).status().reason(), Reason::kKeyNotFound);
  missing.set_create_parents(true);
  EXPECT_TRUE(SH_DICT_CALL(service_, EditEntry, missing).ok());
  EXPECT_EQ(Get("none").entry().value().map_value().entries(0).key(), "x");
  auto wrong = For<v1::EditEntryRequest>("cfg");
  AddPath(&wrong, {"web"});
  *wrong.mutable_edit()->mutable_append() = Int(1);
  EXPECT_EQ(SH_DICT_CALL(service_, EditEntry, wrong).status().reason(), Reason::kTypeMismatch);
  EXPECT_EQ(SH_DICT_CALL(service_, EditEntry, For<v1::EditEntryRequest>("cfg")).status().reason(),
            Reason::kInvalidArgument);
}

TEST_F(DictVerbsTest, IncrementsCheckTheirNumbers) {
  auto add = For<v1::IncrementEntryRequest>("n");
  *add.mutable_initial() = Int(10);
  EXPECT_EQ(SH_DICT_CALL(service_, IncrementEntry, add)->value().int_value(), 11);
  *add.mutable_max() = Int(11);
  EXPECT_EQ(SH_DICT_CALL(service_, IncrementEntry, add).status().reason(),
            Reason::kValueOutOfRange);
  add.mutable_max()->set_float_value(20);
  EXPECT_EQ(SH_DICT_CALL(service_, IncrementEntry, add).status().reason(),
            Reason::kInvalidArgument);
  *add.mutable_delta() = Text("1");
  EXPECT_EQ(SH_DICT_CALL(service_, IncrementEntry, add).status().reason(),
            Reason::kInvalidArgument);
  EXPECT_EQ(Get("n").entry().value().int_value(), 11);
}

TEST_F(DictVerbsTest, ManyEntriesGrowTheDictAndAScanMeetsEachOnce) {
  std::set<std::string> expected;
  for (int base = 0; base < 20'000; base += 1000) {
    v1::SetEntriesRequest sets;
    sets.set_name("d");
    for (int i = base; i < base + 1000; ++i) {
      v1::Entry* const entry = sets.add_entries();
      entry->set_key((i % 2 == 0 ? "even/" : "odd/") + std::to_string(i));
      entry->mutable_value()->set_int_value(i);
      expected.insert(entry->key());
    }
    const auto set = SH_DICT_CALL(service_, SetEntries, sets);
    ASSERT_TRUE(set.ok()) << set.status().ToString();
    EXPECT_EQ(set->versions_size(), 1000);
  }
  v1::DescribeDictRequest describe;
  describe.set_name("d");
  const auto described = SH_DICT_CALL(service_, DescribeDict, describe);
  EXPECT_EQ(described->dict().entries(), 20'000u);
  EXPECT_EQ(described->dict().revision(), 20'000u);
  EXPECT_EQ(described->dict().moves(), 1u) << "the first segment is made for 8,192 entries";

  std::set<std::string> seen;
  v1::ScanEntriesRequest scan;
  scan.set_name("d");
  for (int page = 0;; ++page) {
    const auto response = SH_DICT_CALL(service_, ScanEntries, scan);
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    for (const v1::Entry& entry : response->entries()) {
      EXPECT_TRUE(seen.insert(entry.key()).second) << entry.key();
    }
    if (response->next_page_token().empty()) break;
    scan.set_page_token(response->next_page_token());
    if (page != 3) continue;
    // In the middle of it the dict moves to a larger segment.
    for (int i = 0; i < 60'000; i += 1000) {
      v1::SetEntriesRequest more;
      more.set_name("d");
      for (int j = i; j < i + 1000; ++j) {
        v1::Entry* const entry = more.add_entries();
        entry->set_key("more/" + std::to_string(j));
        entry->mutable_value()->set_int_value(j);
      }
      ASSERT_TRUE(SH_DICT_CALL(service_, SetEntries, more).ok());
    }
  }
  EXPECT_EQ(SH_DICT_CALL(service_, DescribeDict, describe)->dict().moves(), 2u);
  for (const std::string& key : expected) EXPECT_EQ(seen.count(key), 1u) << key;

  scan.clear_page_token();
  scan.set_page_token("scan1.5.other");
  EXPECT_EQ(SH_DICT_CALL(service_, ScanEntries, scan).status().reason(), Reason::kInvalidArgument);
  v1::DeletePrefixRequest erase;
  erase.set_name("d");
  erase.set_prefix("even/");
  EXPECT_EQ(SH_DICT_CALL(service_, DeletePrefix, erase)->deleted(), 10'000u);
  v1::ClearDictRequest clear;
  clear.set_name("d");
  EXPECT_EQ(SH_DICT_CALL(service_, ClearDict, clear)->deleted(), 70'000u);
  EXPECT_EQ(SH_DICT_CALL(service_, DescribeDict, describe)->dict().entries(), 0u);
  EXPECT_EQ(Get("odd/1").has_entry(), false);
}

TEST_F(DictVerbsTest, TransactionsAndManyReads) {
  v1::TransactDictRequest transact;
  transact.set_name("d");
  v1::Compare* const compare = transact.add_compares();
  compare->set_key("lock");
  compare->mutable_condition()->set_absent(true);
  v1::Step::Set* const set = transact.add_then_steps()->mutable_set();
  set->set_key("lock");
  *set->mutable_value() = Text("me");
  transact.add_then_steps()->mutable_increment()->set_key("epoch");
  transact.add_else_steps()->set_get("lock");
  auto response = SH_DICT_CALL(service_, TransactDict, transact);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  EXPECT_TRUE(response->compared());
  ASSERT_EQ(response->results_size(), 2);
  EXPECT_EQ(response->results(1).value().int_value(), 1);
  response = SH_DICT_CALL(service_, TransactDict, transact);
  EXPECT_FALSE(response->compared());
  EXPECT_EQ(response->results(0).entry().value().string_value(), "me");
  v1::GetEntriesRequest get;
  get.set_name("d");
  for (const char* key : {"epoch", "none", "lock"}) get.add_keys(key);
  for (const bool consistent : {false, true}) {
    get.set_consistent(consistent);
    const auto many = SH_DICT_CALL(service_, GetEntries, get);
    ASSERT_TRUE(many.ok());
    ASSERT_EQ(many->entries_size(), 2);
    EXPECT_EQ(many->entries(0).key(), "epoch");
    EXPECT_EQ(many->entries(1).value().string_value(), "me");
  }
  transact.add_then_steps();
  EXPECT_EQ(SH_DICT_CALL(service_, TransactDict, transact).status().reason(),
            Reason::kInvalidArgument);
}

TEST_F(DictVerbsTest, GrantsDecide) {
  const auto reader = IdentityOf({"dict:d:read"});
  const auto get = For<v1::GetEntryRequest>("k");
  EXPECT_TRUE(
      service_.CallAs<v1::GetEntryResponse>(reader, "/statehouse.v1.Dicts/GetEntry", get).ok());
  auto set = For<v1::SetEntryRequest>("k");
  *set.mutable_value() = Int(1);
  EXPECT_EQ(service_.CallAs<v1::SetEntryResponse>(reader, "/statehouse.v1.Dicts/SetEntry", set)
                .status()
                .reason(),
            Reason::kPermissionDenied);
  const auto other = IdentityOf({"dict:e:read,write", "area:*:read,write"});
  EXPECT_EQ(service_.CallAs<v1::GetEntryResponse>(other, "/statehouse.v1.Dicts/GetEntry", get)
                .status()
                .reason(),
            Reason::kPermissionDenied);
  auto by_index = get;
  by_index.set_name("#0");
  EXPECT_EQ(service_.CallAs<v1::GetEntryResponse>(other, "/statehouse.v1.Dicts/GetEntry", by_index)
                .status()
                .reason(),
            Reason::kDictNotFound);
}

}  // namespace
}  // namespace statehouse
