// Entries that are bound to sessions, as the engine keeps them.
#include <set>

#include "engine/state/test_dict.h"

namespace statehouse {
namespace {

DictSetOptions BoundTo(uint64_t session) {
  DictSetOptions options;
  options.bind_session = session;
  return options;
}

uint64_t SessionOf(const TestDict& t, std::string_view key) {
  DictEntry entry;
  bool found = false;
  EXPECT_TRUE(t.dict->Get(key, &entry, &found).ok());
  EXPECT_TRUE(found) << key;
  return entry.bound_session;
}

bool RemoveIfBoundTo(TestDict& t, std::string_view key, uint64_t session) {
  DictDeleteOptions options;
  options.bound_session = session;
  return t.Delete(key, options).applied;
}

TEST(DictBoundTest, ASetBindsAndTheNextPlainOneUnbinds) {
  TestDict t;
  t.Set("bytes", DictValue::Bytes("one"), BoundTo(7));
  t.Set("number", DictValue::Int64(5), BoundTo(UINT64_MAX));
  t.Put("plain", "x");

  EXPECT_EQ(SessionOf(t, "bytes"), 7u);
  EXPECT_EQ(t.Text("bytes"), "one");
  EXPECT_EQ(SessionOf(t, "number"), UINT64_MAX);
  EXPECT_EQ(t.Text("number"), "5");
  EXPECT_EQ(SessionOf(t, "plain"), 0u);
  EXPECT_EQ(t.dict->Stats().bound_entries, 2u);
  t.ExpectSound();

  t.Set("bytes", DictValue::Bytes("two"), BoundTo(8));
  EXPECT_EQ(SessionOf(t, "bytes"), 8u);
  t.Put("bytes", "three");
  EXPECT_EQ(SessionOf(t, "bytes"), 0u);
  EXPECT_EQ(t.dict->Stats().bound_entries, 1u);
  t.ExpectSound();
}

TEST(DictBoundTest, AnIncrementKeepsTheBindingAndADeleteEndsIt) {
  TestDict t;
  t.Set("n", DictValue::Int64(1), BoundTo(7));
  t.Add("n", 4);
  EXPECT_EQ(t.Text("n"), "5");
  EXPECT_EQ(SessionOf(t, "n"), 7u);
  t.Delete("n");
  EXPECT_EQ(t.dict->Stats().bound_entries, 0u);
  t.Add("n", 1);
  EXPECT_EQ(SessionOf(t, "n"), 0u);
  t.ExpectSound();
}

TEST(DictBoundTest, ARemovalForASessionTakesOnlyWhatIsBoundToIt) {
  TestDict t;
  t.Set("mine", DictValue::Bytes("a"), BoundTo(7));
  t.Set("rebound", DictValue::Bytes("b"), BoundTo(7));
  t.Set("rebound", DictValue::Bytes("b"), BoundTo(8));
  t.Set("unbound", DictValue::Bytes("c"), BoundTo(7));
  t.Put("unbound", "c");

  EXPECT_TRUE(RemoveIfBoundTo(t, "mine", 7));
  EXPECT_FALSE(RemoveIfBoundTo(t, "rebound", 7));
  EXPECT_FALSE(RemoveIfBoundTo(t, "unbound", 7));
  EXPECT_FALSE(RemoveIfBoundTo(t, "absent", 7));

  EXPECT_EQ(t.Text("mine"), "(absent)");
  EXPECT_EQ(t.Text("rebound"), "b");
  EXPECT_EQ(t.Text("unbound"), "c");
  EXPECT_EQ(t.dict->Stats().bound_entries, 1u);
  t.ExpectSound();
}

TEST(DictBoundTest, TransactionsBindUnbindAndTellTheEntryBefore) {
  TestDict t;
  t.Set("was", DictValue::Bytes("x"), BoundTo(7));
  t.Set("gone", DictValue::Int64(1), BoundTo(7));
  DictOperation operations[4];
  operations[0].kind = DictOperation::Kind::kSet;
  operations[0].key = "was";
  operations[0].value = DictValue::Bytes("y");
  operations[1].kind = DictOperation::Kind::kSet;
  operations[1].key = "new";
  operations[1].value = DictValue::Float64(2.5);
  operations[1].set.bind_session = 8;
  operations[2].kind = DictOperation::Kind::kDelete;
  operations[2].key = "gone";
  operations[3].kind = DictOperation::Kind::kIncrement;
  operations[3].key = "added";
  operations[3].increment.delta = DictValue::Int64(1);
  DictTransactionResult result;
  DictTransactOptions options;
  options.operation = {1, 1};
  ASSERT_TRUE(t.dict->Transact(t.lane, {}, operations, {}, &result, options).ok());

  EXPECT_EQ(result.results[0].entry.bound_session, 7u);
  EXPECT_EQ(SessionOf(t, "was"), 0u);
  EXPECT_EQ(SessionOf(t, "new"), 8u);
  EXPECT_EQ(SessionOf(t, "added"), 0u);
  EXPECT_EQ(t.dict->Stats().bound_entries, 1u);
  t.ExpectSound();

  DictRemembered remembered;
  bool found = false;
  ASSERT_TRUE(t.dict->Recall({1, 1}, &remembered, &found).ok());
  ASSERT_TRUE(found && remembered.steps.size() == 4);
  EXPECT_EQ(remembered.steps[0].entry.bound_session, 7u);
  EXPECT_EQ(remembered.steps[0].entry.bytes, "x");
  EXPECT_EQ(remembered.steps[2].entry.bound_session, 7u);
  EXPECT_EQ(remembered.steps[2].entry.bits, 1u);
}

TEST(DictBoundTest, AMoveKeepsBindings) {
  TestDict from;
  TestDict to;
  from.Set("a", DictValue::Bytes(std::string(300, 'x')), BoundTo(7));
  from.Set("n", DictValue::Int64(3), BoundTo(8));
  from.Put("plain", "y");
  ASSERT_EQ(*from.dict->CopyInto(from.lane, *to.dict), 0u);
  EXPECT_EQ(SessionOf(to, "a"), 7u);
  EXPECT_EQ(SessionOf(to, "n"), 8u);
  EXPECT_EQ(to.Text("n"), "3");
  EXPECT_EQ(SessionOf(to, "plain"), 0u);
  EXPECT_EQ(to.dict->Stats().bound_entries, 2u);
  to.ExpectSound();
}

TEST(DictBoundTest, EveryBoundEntryIsFoundAndNoOther) {
  TestDict t;
  std::set<std::pair<std::string, uint64_t>> expected;
  for (uint64_t i = 0; i < 600; ++i) {
    const std::string key = "key/" + std::to_string(i);
    const uint64_t session = i % 3;  // 0: it is not bound.
    t.Set(key, i % 2 == 0 ? DictValue::Int64(1) : DictValue::Bytes("v"), BoundTo(session));
    if (session != 0) expected.emplace(key, session);
  }
  std::set<std::pair<std::string, uint64_t>> found;
  std::vector<DictBinding> bound;
  for (uint32_t bucket = 0; bucket < t.geometry.bucket_count; ++bucket) {
    ASSERT_TRUE(t.dict->FindBound(bucket, &bound).ok());
    for (const DictBinding& binding : bound) found.emplace(binding.key, binding.session);
  }
  EXPECT_EQ(found, expected);
  EXPECT_EQ(t.dict->Stats().bound_entries, expected.size());
  t.ExpectSound();
}

TEST(DictBoundTest, TheLargestKeyAndValueCanBeBound) {
  TestDict t(1000, 64 << 20);
  const std::string key(kDictKeyBytesMax, 'k');
  const std::string value(kDictValueBytesMax, 'v');
  t.Set(key, DictValue::Bytes(value), BoundTo(7));
  EXPECT_EQ(t.Text(key), value);
  EXPECT_EQ(SessionOf(t, key), 7u);
  t.ExpectSound();
}

TEST(DictBoundTest, EvictionAndExpiryCountWhatWasBound) {
  TestDict full(64, 4 << 20, true);
  for (int i = 0; i < 200; ++i) full.Set(std::to_string(i), DictValue::Int64(i), BoundTo(7));
  EXPECT_EQ(full.dict->Stats().bound_entries, full.dict->Stats().entries);
  full.ExpectSound();

  TestDict t;
  DictSetOptions options = BoundTo(7);
  options.ttl = {DictTtl::Kind::kSet, 1};
  t.Set("short", DictValue::Bytes("x"), options);
  uint32_t bucket = 0;
  while (t.Text("short") != "(absent)") {
  }
  ASSERT_EQ(*t.dict->Expire(t.lane, &bucket, t.geometry.bucket_count), 1u);
  EXPECT_EQ(t.dict->Stats().bound_entries, 0u);
  t.ExpectSound();
}

TEST(DictBoundTest, DamagedWordsOfABindingHarmOnlyTheirEntry) {
  TestDict t(64, 4 << 20);
  t.Set("zero", DictValue::Bytes("a"), BoundTo(7));
  t.Set("flags", DictValue::Bytes("b"), BoundTo(7));
  t.Put("other", "c");
  const auto header_of = [&](std::string_view key) {
    // The slot's block, by the low bits of the hash.
    const uint64_t hash = HashKey(t.geometry.seed, key);
    BucketLine& bucket = DictInternals::Bucket(*t.dict, DictInternals::BucketOf(*t.dict, key));
    for (const auto& slot : bucket.slots) {
      const uint64_t word = slot.load();
      if (word == 0 || word >> kSlotTagShift != (hash & kSlotTagMask)) continue;
      return reinterpret_cast<EntryHeader*>(DictInternals::Base(*t.dict) +
                                            t.geometry.data_offset() + PositionOf(word & kRefMask));
    }
    return static_cast<EntryHeader*>(nullptr);
  };
  EntryHeader* const zero = header_of("zero");
  ASSERT_NE(zero, nullptr);
  reinterpret_cast<std::atomic<uint64_t>*>(zero + 1)->store(0);
  EXPECT_EQ(SessionOf(t, "zero"), 0u) << "bound to nobody is not bound";
  std::vector<DictBinding> bound;
  ASSERT_TRUE(t.dict->FindBound(DictInternals::BucketOf(*t.dict, "zero"), &bound).ok());
  for (const DictBinding& binding : bound) EXPECT_NE(binding.key, "zero");
  EXPECT_TRUE(t.Delete("zero").applied);

  EntryHeader* const flags = header_of("flags");
  ASSERT_NE(flags, nullptr);
  flags->shape.store(flags->shape.load() | 0xfe00);
  DictEntry entry;
  bool found = false;
  EXPECT_EQ(t.dict->Get("flags", &entry, &found).reason(), Reason::kDataLoss);
  EXPECT_EQ(t.Text("other"), "c");
}

}  // namespace
}  // namespace statehouse
