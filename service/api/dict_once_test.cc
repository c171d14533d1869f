// Mutations with an operation id: each is carried out once and answered again as the first time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "service/api/dict_verbs_test_support.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

TEST_F(DictVerbsTest, ARepeatedOperationIsAnsweredAndNotCarriedOutAgain) {
  const auto name = [](auto* request, uint64_t sequence) {
    request->mutable_operation_id()->set_session(77);
    request->mutable_operation_id()->set_sequence(sequence);
  };
  auto add = For<v1::IncrementEntryRequest>("n");
  name(&add, 1);
  for (int i = 0; i < 3; ++i) {
    const auto added = SH_DICT_CALL(service_, IncrementEntry, add);
    ASSERT_TRUE(added.ok()) << added.status().ToString();
    EXPECT_EQ(added->value().int_value(), 1);
  }
  EXPECT_EQ(Get("n").entry().value().int_value(), 1);
  name(&add, 2);
  EXPECT_EQ(SH_DICT_CALL(service_, IncrementEntry, add)->value().int_value(), 2);

  ASSERT_TRUE(Set("cfg", Nested()).ok());
  auto pop = For<v1::EditEntryRequest>("cfg");
  AddPath(&pop, {"web", "ports"});
  pop.mutable_edit()->set_pop(true);
  name(&pop, 3);
  const auto popped = SH_DICT_CALL(service_, EditEntry, pop);
  ASSERT_TRUE(popped.ok()) << popped.status().ToString();
  EXPECT_EQ(popped->result().int_value(), 443);
  EXPECT_EQ(SH_DICT_CALL(service_, EditEntry, pop)->SerializeAsString(),
            popped->SerializeAsString());
  auto take = For<v1::DeleteEntryRequest>("cfg");
  take.set_return_previous(true);
  name(&take, 4);
  const auto taken = SH_DICT_CALL(service_, DeleteEntry, take);
  ASSERT_TRUE(taken.ok());
  EXPECT_TRUE(taken->applied());
  EXPECT_EQ(SH_DICT_CALL(service_, DeleteEntry, take)->SerializeAsString(),
            taken->SerializeAsString());
  ASSERT_TRUE(Set("cfg", Text("new")).ok());
  EXPECT_TRUE(SH_DICT_CALL(service_, DeleteEntry, take)->applied()) << "the first result, again";
  EXPECT_EQ(Get("cfg").entry().value().string_value(), "new") << "and nothing more happened";

  v1::TransactDictRequest transact;
  transact.set_name("d");
  transact.add_then_steps()->mutable_increment()->set_key("n");
  transact.add_then_steps()->mutable_increment()->set_key("m");
  name(&transact, 5);
  const auto first = SH_DICT_CALL(service_, TransactDict, transact);
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  EXPECT_EQ(SH_DICT_CALL(service_, TransactDict, transact)->SerializeAsString(),
            first->SerializeAsString());
  EXPECT_EQ(Get("n").entry().value().int_value(), 3);
}

TEST_F(DictVerbsTest, ATransactionIsAnsweredAgainWithItsEntries) {
  ASSERT_TRUE(Set("cfg", Nested()).ok());
  ASSERT_TRUE(Set("gone", Int(7)).ok());
  auto large = For<v1::SetEntryRequest>("large");
  *large.mutable_value() = Text(std::string(300'000, 'x'));
  large.set_fence(5);
  ASSERT_TRUE(SH_DICT_CALL(service_, SetEntry, large).ok());
  v1::TransactDictRequest transact;
  transact.set_name("d");
  for (const char* key : {"cfg", "none", "large"}) transact.add_then_steps()->set_get(key);
  transact.add_then_steps()->mutable_delete_()->set_key("gone");
  transact.add_then_steps()->mutable_increment()->set_key("n");
  v1::Step::Set* const set = transact.add_then_steps()->mutable_set();
  set->set_key("new");
  *set->mutable_value() = Int(1);
  transact.mutable_operation_id()->set_session(78);
  transact.mutable_operation_id()->set_sequence(1);
  const auto first = SH_DICT_CALL(service_, TransactDict, transact);
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  EXPECT_EQ(first->results(2).entry().value().string_value().size(), 300'000u);
  EXPECT_EQ(first->results(2).entry().fence(), 5u);
  EXPECT_EQ(first->results(3).entry().value().int_value(), 7);
  ASSERT_TRUE(Set("cfg", Int(1)).ok());
  ASSERT_TRUE(Set("large", Int(2)).ok());
  EXPECT_EQ(SH_DICT_CALL(service_, TransactDict, transact)->SerializeAsString(),
            first->SerializeAsString());
  v1::ClearDictRequest clear;
  clear.set_name("d");
  ASSERT_TRUE(SH_DICT_CALL(service_, ClearDict, clear).ok());
  EXPECT_EQ(SH_DICT_CALL(service_, TransactDict, transact)->SerializeAsString(),
            first->SerializeAsString())
      << "in another segment";
  const auto served = service_.engine().dicts().Find("d");
  for (const std::string& fault : (*served)->dict().Check(true).faults) ADD_FAILURE() << fault;
}

TEST_F(DictVerbsTest, AnAnswerOfATransactionThatIsTooLongToRememberIsNotMadeUp) {
  const std::string text(600'000, 'x');
  ASSERT_TRUE(Set("a", Text(text)).ok());
  ASSERT_TRUE(Set("b", Text(text)).ok());
  v1::TransactDictRequest transact;
  transact.set_name("d");
  for (const char* key : {"a", "b"}) transact.add_then_steps()->set_get(key);
  transact.add_then_steps()->mutable_increment()->set_key("n");
  transact.mutable_operation_id()->set_session(78);
  transact.mutable_operation_id()->set_sequence(1);
  const auto first = SH_DICT_CALL(service_, TransactDict, transact);
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  EXPECT_EQ(first->results(1).entry().value().string_value(), text);
  const auto again = SH_DICT_CALL(service_, TransactDict, transact);
  EXPECT_EQ(again.status().reason(), Reason::kMessageTooLarge);
  EXPECT_THAT(again.status().message(), HasSubstr("was carried out once"));
  EXPECT_EQ(Get("n").entry().value().int_value(), 1);
}

TEST_F(DictVerbsTest, EveryNamedMutationIsAnsweredAgain) {
  const auto name = [](auto* request, uint64_t sequence) {
    request->mutable_operation_id()->set_session(79);
    request->mutable_operation_id()->set_sequence(sequence);
  };
  auto set = For<v1::SetEntryRequest>("a");
  *set.mutable_value() = Text("one");
  set.set_return_previous(true);
  name(&set, 1);
  ASSERT_TRUE(Set("a", Text("zero")).ok());
  const auto was_set = SH_DICT_CALL(service_, SetEntry, set);
  ASSERT_TRUE(was_set.ok());
  EXPECT_EQ(was_set->previous().value().string_value(), "zero");
  v1::SetEntriesRequest sets;
  sets.set_name("d");
  v1::Entry* const entry = sets.add_entries();
  entry->set_key("b");
  *entry->mutable_value() = Text("two");
  name(&sets, 2);
  const auto were_set = SH_DICT_CALL(service_, SetEntries, sets);
  ASSERT_TRUE(were_set.ok());
  auto touch = For<v1::TouchEntryRequest>("a");
  touch.mutable_ttl()->mutable_duration()->set_seconds(60);
  name(&touch, 3);
  const auto touched = SH_DICT_CALL(service_, TouchEntry, touch);
  ASSERT_TRUE(touched.ok());
  for (const char* key : {"a", "b"}) ASSERT_TRUE(Set(key, Text("later")).ok());

  EXPECT_EQ(SH_DICT_CALL(service_, SetEntry, set)->SerializeAsString(),
            was_set->SerializeAsString());
  EXPECT_EQ(SH_DICT_CALL(service_, SetEntries, sets)->SerializeAsString(),
            were_set->SerializeAsString());
  EXPECT_EQ(SH_DICT_CALL(service_, TouchEntry, touch)->SerializeAsString(),
            touched->SerializeAsString());
  for (const char* key : {"a", "b"}) EXPECT_EQ(Get(key).entry().value().string_value(), "later");
  EXPECT_FALSE(Get("a").entry().has_ttl());
}

TEST_F(DictVerbsTest, WhatIsRememberedMovesWithTheDictAndHasAWindow) {
  auto add = For<v1::IncrementEntryRequest>("n");
  add.mutable_operation_id()->set_session(77);
  const auto name = [](auto* request, uint64_t sequence) {
    request->mutable_operation_id()->set_session(77);
    request->mutable_operation_id()->set_sequence(sequence);
  };
  name(&add, 2);
  EXPECT_EQ(SH_DICT_CALL(service_, IncrementEntry, add)->value().int_value(), 1);
  ASSERT_TRUE(Set("cfg", Nested()).ok());
  auto pop = For<v1::EditEntryRequest>("cfg");
  AddPath(&pop, {"web", "ports"});
  pop.mutable_edit()->set_pop(true);
  name(&pop, 3);
  EXPECT_EQ(SH_DICT_CALL(service_, EditEntry, pop)->result().int_value(), 443);
  v1::TransactDictRequest transact;
  transact.set_name("d");
  transact.add_then_steps()->mutable_increment()->set_key("n");
  name(&transact, 5);
  const auto first = SH_DICT_CALL(service_, TransactDict, transact);
  ASSERT_TRUE(first.ok());

  v1::ClearDictRequest clear;
  clear.set_name("d");
  ASSERT_TRUE(SH_DICT_CALL(service_, ClearDict, clear).ok());
  EXPECT_EQ(SH_DICT_CALL(service_, IncrementEntry, add)->value().int_value(), 1);
  EXPECT_EQ(SH_DICT_CALL(service_, EditEntry, pop)->result().int_value(), 443);
  EXPECT_EQ(SH_DICT_CALL(service_, TransactDict, transact)->SerializeAsString(),
            first->SerializeAsString());
  EXPECT_FALSE(Get("n").has_entry());

  // The window of a session is 64 operations.
  for (uint64_t i = 6; i <= 66; ++i) {
    name(&add, i);
    EXPECT_EQ(SH_DICT_CALL(service_, IncrementEntry, add)->value().int_value(),
              static_cast<int64_t>(i - 5));
  }
  name(&add, 2);
  EXPECT_EQ(SH_DICT_CALL(service_, IncrementEntry, add).status().reason(), Reason::kConflict);
  name(&add, 3);
  EXPECT_TRUE(SH_DICT_CALL(service_, IncrementEntry, add).ok());
  add.mutable_operation_id()->set_session(0);
  EXPECT_EQ(SH_DICT_CALL(service_, IncrementEntry, add).status().reason(),
            Reason::kInvalidArgument);
  const auto served = service_.engine().dicts().Find("d");
  ASSERT_TRUE(served.ok());
  for (const std::string& fault : (*served)->dict().Check(true).faults) ADD_FAILURE() << fault;
}

}  // namespace
}  // namespace statehouse
