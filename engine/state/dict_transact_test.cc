#include "engine/state/dict.h"
#include "engine/state/test_dict.h"

namespace statehouse {
namespace {

TEST(DictTransactionTest, TransactionsCompareThenChangeAllOrNothing) {
  TestDict t;
  t.Add("balance/a", 100);
  t.Add("balance/b", 0);
  const auto add = [](std::string_view key, int64_t delta) {
    DictOperation operation;
    operation.kind = DictOperation::Kind::kIncrement;
    operation.key = key;
    operation.increment.delta = DictValue::Int64(delta);
    operation.increment.bounded = true;
    operation.increment.min = DictValue::Int64(0);
    operation.increment.max = DictValue::Int64(1000);
    return operation;
  };
  DictTransactionResult result;
  const DictOperation transfer[] = {add("balance/a", -30), add("balance/b", 30)};
  ASSERT_TRUE(t.dict->Transact(t.lane, {}, transfer, {}, &result).ok());
  EXPECT_EQ(t.Text("balance/a"), "70");
  EXPECT_EQ(t.Text("balance/b"), "30");
  const DictOperation too_much[] = {add("balance/b", 80), add("balance/a", -80)};
  EXPECT_EQ(t.dict->Transact(t.lane, {}, too_much, {}, &result).reason(), Reason::kValueOutOfRange);
  EXPECT_EQ(t.Text("balance/a"), "70");
  EXPECT_EQ(t.Text("balance/b"), "30");

  DictCompare compare;
  compare.key = "balance/a";
  compare.condition.kind = DictCondition::Kind::kValue;
  compare.condition.value = DictValue::Int64(70);
  DictOperation set;
  set.kind = DictOperation::Kind::kSet;
  set.key = "note";
  set.value = DictValue::Bytes("seventy");
  DictOperation get;
  get.key = "balance/b";
  DictOperation erase;
  erase.kind = DictOperation::Kind::kDelete;
  erase.key = "balance/a";
  const DictOperation then[] = {set, get, erase};
  DictOperation other = set;
  other.value = DictValue::Bytes("something else");
  ASSERT_TRUE(t.dict->Transact(t.lane, {&compare, 1}, then, {&other, 1}, &result).ok());
  EXPECT_TRUE(result.compared);
  ASSERT_EQ(result.results.size(), 3u);
  EXPECT_EQ(result.results[1].entry.bits, 30u);
  EXPECT_EQ(t.Text("note"), "seventy");
  EXPECT_EQ(t.Text("balance/a"), "(absent)");
  ASSERT_TRUE(t.dict->Transact(t.lane, {&compare, 1}, then, {&other, 1}, &result).ok());
  EXPECT_FALSE(result.compared);
  EXPECT_EQ(t.Text("note"), "something else");
  t.ExpectSound();
}

TEST(DictTransactionTest, TransactionsOfManyKeysAtTheLimitAndOnePast) {
  TestDict t(4000, 32 << 20);
  std::vector<std::string> keys;
  for (uint32_t i = 0; i <= kTransactionOpsMax; ++i) keys.push_back("key" + std::to_string(i));
  std::vector<DictOperation> sets;
  for (const std::string& key : keys) {
    DictOperation set;
    set.kind = DictOperation::Kind::kSet;
    set.key = key;
    set.value = DictValue::Bytes(key);
    sets.push_back(set);
  }
  DictTransactionResult result;
  EXPECT_EQ(t.dict->Transact(t.lane, {}, sets, {}, &result).reason(), Reason::kLimitExceeded);
  EXPECT_EQ(t.dict->Stats().entries, 0u);
  sets.pop_back();
  const Status status = t.dict->Transact(t.lane, {}, sets, {}, &result);
  ASSERT_TRUE(status.ok()) << status.ToString();
  for (uint32_t i = 0; i < kTransactionOpsMax; ++i) EXPECT_EQ(t.Text(keys[i]), keys[i]);
  t.ExpectSound();
  ASSERT_TRUE(t.dict->Transact(t.lane, {}, sets, {}, &result).ok()) << "over what is there";
  for (DictOperation& operation : sets) operation.kind = DictOperation::Kind::kDelete;
  ASSERT_TRUE(t.dict->Transact(t.lane, {}, sets, {}, &result).ok());
  EXPECT_EQ(t.dict->Stats().entries, 0u);
  t.ExpectSound();
  const DictOperation twice[] = {sets[0], sets[0]};
  EXPECT_EQ(t.dict->Transact(t.lane, {}, twice, {}, &result).reason(), Reason::kInvalidArgument);
}

TEST(DictTransactionTest, ATransactionThatDoesNotFitChangesNothing) {
  TestDict t(10);
  for (int i = 0; i < 9; ++i) t.Put("k" + std::to_string(i), "v");
  DictOperation one;
  one.kind = DictOperation::Kind::kSet;
  one.value = DictValue::Bytes("w");
  one.key = "x";
  DictOperation two = one;
  two.key = "y";
  const DictOperation both[] = {one, two};
  DictTransactionResult result;
  EXPECT_EQ(t.dict->Transact(t.lane, {}, both, {}, &result).reason(), Reason::kLimitExceeded);
  EXPECT_EQ(t.Text("x"), "(absent)");
  ASSERT_TRUE(t.dict->Transact(t.lane, {}, {both, 1}, {}, &result).ok());
  EXPECT_EQ(t.Text("x"), "w");
  t.ExpectSound();
}

}  // namespace
}  // namespace statehouse
