#include "engine/state/dict.h"

#include <bit>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "engine/shm/owned_lock.h"
#include "engine/state/test_dict.h"

namespace statehouse {
namespace {

DictSetOptions If(DictCondition::Kind kind, uint64_t version = 0) {
  DictSetOptions options;
  options.condition.kind = kind;
  options.condition.version = version;
  return options;
}

TEST(DictTest, WhatWasSetIsReadAndWhatWasDeletedIsGone) {
  TestDict t;
  EXPECT_EQ(t.Text("a"), "(absent)");
  const DictResult first = t.Put("a", "one");
  EXPECT_TRUE(first.applied);
  EXPECT_FALSE(first.existed);
  EXPECT_EQ(t.Text("a"), "one");
  const DictResult second = t.Put("a", "two");
  EXPECT_TRUE(second.existed);
  EXPECT_GT(second.version, first.version);
  EXPECT_EQ(t.Text("a"), "two");
  EXPECT_TRUE(t.Delete("a").applied);
  EXPECT_EQ(t.Text("a"), "(absent)");
  EXPECT_FALSE(t.Delete("a").applied);
  const DictResult third = t.Put("a", "three");
  EXPECT_GT(third.version, second.version) << "a version is never used again";
  EXPECT_EQ(t.dict->Stats().entries, 1u);
  EXPECT_EQ(t.dict->Stats().revision, 4u);
  t.ExpectSound();
}

TEST(DictTest, AReadOnlyMappingReadsAndIsRefusedWrites) {
  TestDict t;
  t.Put("a", "one");
  const auto reader = t.Map(Access::kReadOnly);
  DictEntry entry;
  bool found = false;
  ASSERT_TRUE(reader->Get("a", &entry, &found).ok());
  EXPECT_TRUE(found);
  EXPECT_EQ(entry.bytes, "one");
  DictResult result;
  EXPECT_EQ(reader->Set(t.lane, "a", DictValue::Bytes("x"), {}, &result).reason(),
            Reason::kReadOnly);
  EXPECT_EQ(reader->Delete(t.lane, "a", {}, &result).reason(), Reason::kReadOnly);
  EXPECT_EQ(reader->Increment(t.lane, "a", {}, &result).reason(), Reason::kReadOnly);
  EXPECT_EQ(t.Text("a"), "one");
}

TEST(DictTest, KeysAndValuesAtTheLimitAreTakenAndOnePastIsRefused) {
  TestDict t;
  const std::string key(kDictKeyBytesMax, 'k');
  const std::string value(kDictValueBytesMax, 'v');
  EXPECT_TRUE(t.Put(key, value).applied);
  EXPECT_EQ(t.Text(key), value);
  DictResult result;
  EXPECT_EQ(t.dict->Set(t.lane, key + "k", DictValue::Bytes("x"), {}, &result).reason(),
            Reason::kKeyInvalid);
  EXPECT_EQ(t.dict->Set(t.lane, "", DictValue::Bytes("x"), {}, &result).reason(),
            Reason::kKeyInvalid);
  EXPECT_EQ(t.dict->Set(t.lane, "k", DictValue::Bytes(value + "v"), {}, &result).reason(),
            Reason::kValueInvalid);
  EXPECT_EQ(t.Text(key), value);
  EXPECT_EQ(t.dict->Stats().entries, 1u);
  t.ExpectSound();
}

TEST(DictTest, AConditionThatDoesNotHoldChangesNothingAndSaysWhatIsThere) {
  TestDict t;
  EXPECT_FALSE(t.Set("a", DictValue::Bytes("x"), If(DictCondition::Kind::kPresent)).applied);
  const DictResult made = t.Set("a", DictValue::Bytes("1"), If(DictCondition::Kind::kAbsent));
  EXPECT_TRUE(made.applied);
  const DictResult again = t.Set("a", DictValue::Bytes("2"), If(DictCondition::Kind::kAbsent));
  EXPECT_FALSE(again.applied);
  EXPECT_EQ(again.version, made.version);
  EXPECT_FALSE(
      t.Set("a", DictValue::Bytes("2"), If(DictCondition::Kind::kVersion, made.version + 1))
          .applied);
  const DictResult next =
      t.Set("a", DictValue::Bytes("2"), If(DictCondition::Kind::kVersion, made.version));
  EXPECT_TRUE(next.applied);
  EXPECT_TRUE(t.Set("b", DictValue::Bytes("0"), If(DictCondition::Kind::kVersion, 0)).applied)
      << "version 0 means absent";
  DictSetOptions by_value;
  by_value.condition.kind = DictCondition::Kind::kValue;
  by_value.condition.value = DictValue::Bytes("1");
  EXPECT_FALSE(t.Set("a", DictValue::Bytes("3"), by_value).applied);
  by_value.condition.value = DictValue::Bytes("2");
  DictEntry previous;
  by_value.previous = &previous;
  EXPECT_TRUE(t.Set("a", DictValue::Bytes("3"), by_value).applied);
  EXPECT_EQ(previous.bytes, "2");
  EXPECT_EQ(previous.version, next.version);
  DictDeleteOptions erase;
  erase.condition.kind = DictCondition::Kind::kValue;
  erase.condition.value = DictValue::Bytes("2");
  EXPECT_FALSE(t.Delete("a", erase).applied);
  EXPECT_EQ(t.Text("a"), "3");
  t.ExpectSound();
}

TEST(DictTest, AnOlderFenceIsRefusedAndANewerOneIsKept) {
  TestDict t;
  DictSetOptions fenced;
  fenced.fence = 7;
  EXPECT_TRUE(t.Set("a", DictValue::Bytes("1"), fenced).applied);
  DictResult result;
  fenced.fence = 6;
  EXPECT_EQ(t.dict->Set(t.lane, "a", DictValue::Bytes("2"), fenced, &result).reason(),
            Reason::kFenced);
  DictDeleteOptions erase;
  erase.fence = 6;
  EXPECT_EQ(t.dict->Delete(t.lane, "a", erase, &result).reason(), Reason::kFenced);
  EXPECT_EQ(t.Text("a"), "1");
  EXPECT_TRUE(t.Put("a", "3").applied) << "who claims no fence is not checked";
  fenced.fence = 6;
  EXPECT_EQ(t.dict->Set(t.lane, "a", DictValue::Bytes("2"), fenced, &result).reason(),
            Reason::kFenced)
      << "and does not lower it";
  t.Set("n", DictValue::Int64(1), [] {
    DictSetOptions o;
    o.fence = 5;
    return o;
  }());
  DictIncrement add;
  add.delta = DictValue::Int64(1);
  add.fence = 9;
  EXPECT_TRUE(t.dict->Increment(t.lane, "n", add, &result).ok());
  add.fence = 8;
  EXPECT_EQ(t.dict->Increment(t.lane, "n", add, &result).reason(), Reason::kFenced);
  EXPECT_EQ(t.Text("n"), "2");
  t.ExpectSound();
}

TEST(DictTest, IncrementsCountWithDefaultsBoundsAndKinds) {
  TestDict t;
  EXPECT_EQ(static_cast<int64_t>(t.Add("n", 5).bits), 5);
  EXPECT_EQ(static_cast<int64_t>(t.Add("n", -7).bits), -2);
  DictResult result;
  DictIncrement add;
  add.delta = DictValue::Int64(1);
  add.initial = DictValue::Int64(100);
  ASSERT_TRUE(t.dict->Increment(t.lane, "m", add, &result).ok());
  EXPECT_EQ(result.bits, 101u);
  add.bounded = true;
  add.min = DictValue::Int64(0);
  add.max = DictValue::Int64(102);
  ASSERT_TRUE(t.dict->Increment(t.lane, "m", add, &result).ok());
  EXPECT_EQ(t.dict->Increment(t.lane, "m", add, &result).reason(), Reason::kValueOutOfRange);
  EXPECT_EQ(t.Text("m"), "102");
  add.must_exist = true;
  EXPECT_EQ(t.dict->Increment(t.lane, "none", add, &result).reason(), Reason::kKeyNotFound);
  EXPECT_EQ(t.Text("none"), "(absent)");
  t.Set("top", DictValue::Int64(std::numeric_limits<int64_t>::max()));
  DictIncrement one;
  one.delta = DictValue::Int64(1);
  EXPECT_EQ(t.dict->Increment(t.lane, "top", one, &result).reason(), Reason::kValueOutOfRange);
  t.Put("text", "x");
  EXPECT_EQ(t.dict->Increment(t.lane, "text", one, &result).reason(), Reason::kTypeMismatch);
  DictIncrement half;
  half.delta = DictValue::Float64(0.5);
  ASSERT_TRUE(t.dict->Increment(t.lane, "f", half, &result).ok());
  ASSERT_TRUE(t.dict->Increment(t.lane, "f", one, &result).ok());
  EXPECT_EQ(std::bit_cast<double>(result.bits), 1.5);
  EXPECT_EQ(t.dict->Increment(t.lane, "n", half, &result).reason(), Reason::kTypeMismatch);
  EXPECT_EQ(t.Text("n"), "-2");
  t.ExpectSound();
}

TEST(DictTest, EachIncrementHasAVersionOfItsOwn) {
  TestDict t;
  uint64_t last = 0;
  for (int i = 0; i < 10; ++i) {
    const DictResult result = t.Add("n", 1);
    EXPECT_GT(result.version, last);
    last = result.version;
    DictEntry entry;
    bool found = false;
    ASSERT_TRUE(t.dict->Get("n", &entry, &found).ok());
    EXPECT_EQ(entry.version, last);
    EXPECT_EQ(entry.bits, static_cast<uint64_t>(i + 1));
  }
}

TEST(DictTest, AnEntryIsAbsentOnceItsTimeIsOver) {
  TestDict t;
  DictSetOptions brief;
  brief.ttl = {DictTtl::Kind::kSet, 1};
  t.Set("a", DictValue::Bytes("x"), brief);
  t.Set("n", DictValue::Int64(41), brief);
  const uint64_t deadline = t.dict->NowMs() + 2;
  while (t.dict->NowMs() < deadline) {
  }
  EXPECT_EQ(t.Text("a"), "(absent)");
  EXPECT_FALSE(t.Delete("a").applied);
  EXPECT_EQ(static_cast<int64_t>(t.Add("n", 1).bits), 1) << "an expired number starts anew";
  EXPECT_FALSE(t.Set("a", DictValue::Bytes("y"), If(DictCondition::Kind::kPresent)).applied);
  EXPECT_EQ(t.dict->Stats().entries, 2u);
  uint32_t bucket = 0;
  EXPECT_EQ(*t.dict->Expire(t.lane, &bucket, t.geometry.bucket_count), 1u);
  EXPECT_EQ(t.dict->Stats().entries, 1u);
  EXPECT_EQ(t.dict->Stats().expirations, 1u);
  DictSetOptions keep;
  keep.ttl.kind = DictTtl::Kind::kKeep;
  DictSetOptions hour;
  hour.ttl = {DictTtl::Kind::kSet, 3'600'000};
  t.Set("k", DictValue::Bytes("1"), hour);
  t.Set("k", DictValue::Bytes("2"), keep);
  DictEntry entry;
  bool found = false;
  ASSERT_TRUE(t.dict->Get("k", &entry, &found).ok());
  EXPECT_GT(entry.expires_ms, t.dict->NowMs());
  t.Put("k", "3");
  ASSERT_TRUE(t.dict->Get("k", &entry, &found).ok());
  EXPECT_EQ(entry.expires_ms, 0u) << "a plain set takes the time to live away";
  t.ExpectSound();
}

TEST(DictTest, TheLimitOfEntriesIsExact) {
  TestDict t(10);
  for (int i = 0; i < 10; ++i) t.Put("k" + std::to_string(i), "v");
  DictResult result;
  const Status full = t.dict->Set(t.lane, "k10", DictValue::Bytes("v"), {}, &result);
  EXPECT_EQ(full.reason(), Reason::kLimitExceeded) << full.ToString();
  EXPECT_TRUE(t.Put("k3", "w").applied) << "what exists can be set";
  t.Delete("k3");
  EXPECT_TRUE(t.Put("k10", "v").applied);
  EXPECT_EQ(t.dict->Stats().entries, 10u);
  t.ExpectSound();
}

TEST(DictTest, TheLimitOfEntriesIsExactWithBudgetsToo) {
  TestDict t(5000, 64 << 20);
  Lane other{2, kOperationTimeoutNsDefault};
  DictResult result;
  uint64_t made = 0;
  for (int i = 0; i < 5100; ++i) {
    const Lane& lane = i % 2 == 0 ? t.lane : other;
    const Status status =
        t.dict->Set(lane, "key" + std::to_string(i), DictValue::Bytes("v"), {}, &result);
    made += status.ok() ? 1 : 0;
  }
  EXPECT_EQ(made, 5000u);
  EXPECT_EQ(t.dict->Stats().entries, 5000u);
  t.ExpectSound();
}

TEST(DictTest, WhenItsBytesAreUsedUpADictRefusesAndStaysSound) {
  TestDict t(100000, 256 << 10);
  DictResult result;
  Status status;
  const std::string value(1000, 'v');
  int made = 0;
  for (; made < 10000; ++made) {
    status = t.dict->Set(t.lane, "k" + std::to_string(made), DictValue::Bytes(value), {}, &result);
    if (!status.ok()) break;
  }
  EXPECT_EQ(status.reason(), Reason::kMemoryExhausted) << status.ToString();
  EXPECT_GT(made, 150);
  for (int i = 0; i < made; ++i) EXPECT_EQ(t.Text("k" + std::to_string(i)), value);
  t.ExpectSound();
  EXPECT_TRUE(t.Delete("k0").applied);
  EXPECT_TRUE(t.Put("again", value).applied);
  t.ExpectSound();
}

TEST(DictTest, ADictThatEvictsMakesRoomAndCountsIt) {
  TestDict t(100, 16 << 20, true);
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(t.Put("k" + std::to_string(i), "v").applied);
  EXPECT_EQ(t.dict->Stats().entries, 100u);
  EXPECT_EQ(t.dict->Stats().evictions, 900u);
  EXPECT_EQ(t.Text("k999"), "v") << "the newest is not what goes";
  TestDict small(100000, 256 << 10, true);
  for (int i = 0; i < 3000; ++i) {
    EXPECT_TRUE(small.Put("k" + std::to_string(i), std::string(1000, 'v')).applied);
  }
  EXPECT_GT(small.dict->Stats().evictions, 2000u);
  small.ExpectSound();
  t.ExpectSound();
}

TEST(DictTest, ManyKeysInOneBucketHangOnIt) {
  TestDict t(64);
  std::vector<std::string> keys;
  for (int i = 0; keys.size() < 60; ++i) {
    std::string key = "k" + std::to_string(i);
    if (DictInternals::BucketOf(*t.dict, key) == 3) keys.push_back(std::move(key));
  }
  for (const std::string& key : keys) t.Put(key, key);
  for (const std::string& key : keys) EXPECT_EQ(t.Text(key), key);
  t.ExpectSound();
  for (const std::string& key : keys) t.Delete(key);
  EXPECT_EQ(t.dict->Stats().entries, 0u);
  t.ExpectSound();
}

TEST(DictTest, LargeValuesComeAndGo) {
  TestDict t(100, 8 << 20);
  for (const size_t bytes : {65'000u, 65'500u, 66'000u, 200'000u, 900'000u, 1'048'576u, 10u}) {
    const std::string value(bytes, static_cast<char>('a' + bytes % 26));
    t.Put("big", value);
    EXPECT_EQ(t.Text("big"), value);
    t.ExpectSound();
  }
  for (int round = 0; round < 20; ++round) {
    t.Put("x" + std::to_string(round % 3), std::string(300'000, 'x'));
    t.Delete("x" + std::to_string((round + 1) % 3));
  }
  t.Set("x0", DictValue::Bytes(std::string(500'000, 'y')), If(DictCondition::Kind::kVersion, 1));
  t.ExpectSound();
}

TEST(DictTest, AScanGivesEachEntryOnceAPageAtATime) {
  TestDict t;
  std::set<std::string> expected;
  for (int i = 0; i < 500; ++i) {
    const std::string key = (i % 2 == 0 ? "even/" : "odd/") + std::to_string(i);
    t.Add(key, i);
    expected.insert(key);
  }
  std::set<std::string> seen;
  uint32_t bucket = 0;
  int pages = 0;
  while (bucket < t.geometry.bucket_count) {
    ASSERT_TRUE(t.dict
                    ->Scan(&bucket, 10, "",
                           [&](DictEntry& entry) { EXPECT_TRUE(seen.insert(entry.key).second); })
                    .ok());
    ++pages;
  }
  EXPECT_EQ(seen, expected);
  EXPECT_GT(pages, 20);
  size_t odd = 0;
  bucket = 0;
  ASSERT_TRUE(t.dict->Scan(&bucket, 10000, "odd/", [&](DictEntry&) { ++odd; }).ok());
  EXPECT_EQ(odd, 250u);
}

TEST(DictTest, OrdinalsGrowInTheOrderOfInsertion) {
  TestDict t;
  for (int i = 0; i < 100; ++i) t.Put("k" + std::to_string(i), "v");
  t.Put("k5", "changed");
  t.Delete("k7");
  t.Put("k7", "back");
  std::map<uint64_t, std::string> order;
  uint32_t bucket = 0;
  ASSERT_TRUE(
      t.dict->Scan(&bucket, 1000, "", [&](DictEntry& e) { order[e.ordinal] = e.key; }).ok());
  ASSERT_EQ(order.size(), 100u);
  auto at = order.begin();
  for (int i = 0; i < 100; ++i) {
    if (i == 7) continue;
    EXPECT_EQ((at++)->second, "k" + std::to_string(i));
  }
  EXPECT_EQ(at->second, "k7");
}

TEST(DictTest, AGetPassesABucketThatSomebodyHolds) {
  TestDict t;
  t.Put("a", "one");
  BucketLine& bucket = DictInternals::Bucket(*t.dict, DictInternals::BucketOf(*t.dict, "a"));
  bucket.control.fetch_or(5);
  EXPECT_EQ(t.Text("a"), "one");
  const Lane hasty{2, 1'000'000};
  DictResult result;
  const Status stalled = t.dict->Set(hasty, "a", DictValue::Bytes("x"), {}, &result);
  EXPECT_EQ(stalled.reason(), Reason::kStalled);
  EXPECT_NE(stalled.message().find("lane 5"), std::string::npos) << stalled.message();
  EXPECT_EQ(t.dict->RecoverLane(5).stripes_released, 0u) << "its intent does not name the bucket";
  uint32_t at = 0;
  EXPECT_EQ(t.dict->Scrub(&at, t.geometry.bucket_count, [](uint32_t lane) { return lane != 5; }),
            1u);
  EXPECT_TRUE(t.Put("a", "two").applied);
}

TEST(DictTest, AMarkThatNoTransactionOwnsIsScrubbed) {
  TestDict t;
  t.Put("a", "one");
  DictInternals::Bucket(*t.dict, DictInternals::BucketOf(*t.dict, "a"))
      .link.fetch_or(kLinkTransaction);
  DictEntry entry;
  bool found = false;
  EXPECT_EQ(t.dict->Get("a", &entry, &found, 1'000'000).reason(), Reason::kStalled);
  uint32_t at = 0;
  EXPECT_EQ(t.dict->Scrub(&at, t.geometry.bucket_count, [](uint32_t) { return true; }), 1u);
  EXPECT_EQ(t.Text("a"), "one");
}

TEST(DictTest, ADeletedDictRefusesAndSaysSo) {
  TestDict t;
  t.Put("a", "one");
  t.dict->SetState(DictState::kDeleted);
  DictEntry entry;
  bool found = false;
  DictResult result;
  EXPECT_EQ(t.dict->Get("a", &entry, &found).reason(), Reason::kDictNotFound);
  EXPECT_EQ(t.dict->Set(t.lane, "a", DictValue::Bytes("x"), {}, &result).reason(),
            Reason::kDictNotFound);
  t.dict->SetState(DictState::kMoved);
  EXPECT_EQ(t.dict->Get("a", &entry, &found).reason(), Reason::kDictMoved);
  t.dict->SetState(DictState::kQuarantined);
  EXPECT_EQ(t.dict->Get("a", &entry, &found).reason(), Reason::kDataLoss);
}

TEST(DictTest, ACopyHasTheSameEntriesAndHigherVersionsFromThenOn) {
  TestDict t(100);
  DictSetOptions options;
  options.fence = 4;
  options.ttl = {DictTtl::Kind::kSet, 3'600'000};
  t.Set("fenced", DictValue::Bytes("f"), options);
  for (int i = 0; i < 90; ++i) t.Add("n" + std::to_string(i), i);
  const uint64_t version = t.Add("n5", 1).version;
  t.dict->SetState(DictState::kMoving);
  ASSERT_TRUE(t.dict->WaitUntilIdle(1'000'000'000).ok());

  TestDict bigger(10000);
  DictGeometry geometry = bigger.geometry;
  auto segment = CreateSealedMemory("copy", geometry.segment_bytes());
  ASSERT_TRUE(segment.ok());
  const uint64_t uuid[2] = {3, 4};
  ASSERT_TRUE(Dict::Format(geometry, uuid, segment->get(), t.dict->HighestVersion() + 1).ok());
  auto copy = Dict::Map("t", geometry, segment->get(), Access::kReadWrite);
  ASSERT_TRUE(copy.ok());
  ASSERT_TRUE((*copy)->PrepareLanes(0, 8).ok());
  const auto dropped = t.dict->CopyInto(t.lane, **copy);
  ASSERT_TRUE(dropped.ok()) << dropped.status().ToString();
  EXPECT_EQ(*dropped, 0u);
  DictEntry before;
  DictEntry after;
  bool found = false;
  for (const char* key : {"fenced", "n5", "n89"}) {
    ASSERT_TRUE(t.dict->Get(key, &before, &found).ok());
    ASSERT_TRUE(found);
    ASSERT_TRUE((*copy)->Get(key, &after, &found).ok());
    ASSERT_TRUE(found);
    EXPECT_EQ(after.bytes, before.bytes);
    EXPECT_EQ(after.bits, before.bits);
    EXPECT_EQ(after.version, before.version);
    EXPECT_EQ(after.fence, before.fence);
    EXPECT_EQ(after.expires_ms, before.expires_ms);
    EXPECT_EQ(after.ordinal, before.ordinal);
  }
  DictResult result;
  ASSERT_TRUE((*copy)
                  ->Set(t.lane, "n5", DictValue::Int64(0),
                        If(DictCondition::Kind::kVersion, version), &result)
                  .ok());
  EXPECT_TRUE(result.applied) << "the version that a caller holds stays good";
  EXPECT_GT(result.version, version);
  EXPECT_TRUE((*copy)->Check(true).faults.empty());
}

TEST(DictTest, EveryChangeIsInTheLanesRing) {
  TestDict t;
  t.Put("a", "one");
  t.Add("n", 3);
  t.Add("n", 4);
  t.Put("big", std::string(1000, 'x'));
  t.Delete("a");
  const auto ring = t.dict->RingOf(t.lane.id);
  const DictLaneRecord& record = t.dict->LaneRecordOf(t.lane.id);
  std::vector<std::string> seen;
  uint64_t at = 0;
  while (at < record.ring_head.load()) {
    ChangeHeader header;
    std::memcpy(&header, ring.data() + at, sizeof header);
    std::string text(reinterpret_cast<const char*>(ring.data() + at + sizeof header),
                     header.key_bytes);
    text += header.operation == static_cast<uint8_t>(ChangeOperation::kPut) ? "=" : "-";
    if (header.kind == static_cast<uint8_t>(DictKind::kInt64)) {
      text += std::to_string(header.bits);
    } else if (header.value_bytes == kValueNotInline) {
      text += "...";
    } else {
      text.append(
          reinterpret_cast<const char*>(ring.data() + at + sizeof header) + header.key_bytes,
          header.value_bytes);
    }
    seen.push_back(text);
    at += header.record_bytes;
  }
  EXPECT_EQ(seen, (std::vector<std::string>{"a=one", "n=3", "n=7", "big=...", "a-"}));
}

// Random operations against a plain map; the seed is printed on failure.
TEST(DictModelTest, RandomOperationsAgreeWithAMap) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  TestDict t(600, 4 << 20);
  std::map<std::string, std::pair<std::string, uint64_t>> model;  // key -> bytes, version
  uint64_t highest = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string key = "key" + std::to_string(random() % 700);
    const auto at = model.find(key);
    const bool present = at != model.end();
    switch (random() % 5) {
      case 0: {
        DictEntry entry;
        bool found = false;
        ASSERT_TRUE(t.dict->Get(key, &entry, &found).ok());
        ASSERT_EQ(found, present);
        if (found) {
          ASSERT_EQ(entry.bytes, at->second.first);
          ASSERT_EQ(entry.version, at->second.second);
        }
        break;
      }
      case 1: {
        const DictResult result = t.Delete(key);
        ASSERT_EQ(result.applied, present);
        model.erase(key);
        break;
      }
      default: {
        const size_t bytes = random() % 20 == 0 ? random() % 100'000 : random() % 300;
        const std::string value(bytes, static_cast<char>('a' + i % 26));
        DictSetOptions options;
        if (random() % 3 == 0) options = If(DictCondition::Kind::kAbsent);
        if (random() % 7 == 0) {
          options = If(DictCondition::Kind::kVersion, present ? at->second.second : 0);
        }
        DictResult result;
        const Status status = t.dict->Set(t.lane, key, DictValue::Bytes(value), options, &result);
        if (!status.ok()) {
          ASSERT_EQ(status.reason(), Reason::kMemoryExhausted) << status.ToString();
          break;
        }
        ASSERT_EQ(result.applied,
                  options.condition.kind != DictCondition::Kind::kAbsent || !present);
        if (result.applied) model[key] = {value, result.version};
        break;
      }
    }
    ASSERT_EQ(t.dict->Stats().entries, model.size());
    highest = std::max(highest, t.dict->HighestVersion());
  }
  t.ExpectSound();
  uint32_t bucket = 0;
  size_t seen = 0;
  ASSERT_TRUE(t.dict
                  ->Scan(&bucket, 1'000'000, "",
                         [&](DictEntry& entry) {
                           ++seen;
                           EXPECT_EQ(model[entry.key].first, entry.bytes);
                         })
                  .ok());
  EXPECT_EQ(seen, model.size());
}

TEST(DictGeometryTest, RefusesWhatDoesNotFitTogether) {
  DictGeometry geometry = DictGeometry::For(1000, 1 << 20, 16);
  EXPECT_TRUE(geometry.Validate().ok());
  DictGeometry bad = geometry;
  bad.bucket_count = 3;
  EXPECT_FALSE(bad.Validate().ok());
  bad = geometry;
  bad.lane_count = kLanesMax + 1;
  EXPECT_FALSE(bad.Validate().ok());
  bad = geometry;
  bad.data_bytes += 1;
  EXPECT_FALSE(bad.Validate().ok());
  bad = geometry;
  bad.entries_max = kDictEntriesMax + 1;
  EXPECT_FALSE(bad.Validate().ok());
}

}  // namespace
}  // namespace statehouse
