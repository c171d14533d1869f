// Previous values: what a key had before each change, from a scan, from the history, and from what
// left it; what is not known is said to be; and the memory for it is bounded and given back.
#include <algorithm>
#include <string>
#include <vector>

#include "service/watch/watch_hub_test_support.h"

namespace statehouse {
namespace {

using Kind = WatchEvent::Kind;
using Texts = std::vector<std::string>;

std::string TextOf(const PreviousValue& previous) {
  switch (previous.kind) {
    case PreviousValue::Kind::kUnknown: return "?";
    case PreviousValue::Kind::kAbsent: return "-";
    case PreviousValue::Kind::kValue: return ValueText(*previous.put);
  }
  return "";
}

class WatchPreviousTest : public WatchTurnTest {
 protected:
  WatchAsk Previous() const {
    WatchAsk ask = Ask();
    ask.previous = true;
    return ask;
  }
  // Of everything that is told now: "key:before".
  Texts Told(Watcher& watcher) {
    Texts texts;
    WatchEvent event;
    while (Poll(watcher, &event) == Watch::Found::kEvent) {
      for (const WatchEvent::Told& told : event.changes) {
        texts.push_back(told.change->change.key + ":" + TextOf(told.previous));
      }
    }
    return texts;
  }
  // As many changes as the smallest history does not have.
  void RollHistory() {
    for (int i = 0; i < 1000; ++i) {
      Put("other", std::string(100, 'x'));
      hub->Turn();
    }
  }
  // All that the feed has is lost for its watchers.
  void Clear() {
    uint64_t entries = 0;
    bool cleared = false;
    ASSERT_TRUE(store->ClearDict(At(3), served, &entries, &cleared).ok());
    served = *store->Find("d");
  }
  uint64_t bytes() const { return hub->Totals().previous_bytes; }
};

TEST_F(WatchPreviousTest, EachChangeComesWithTheValueBeforeIt) {
  Put("a", "1");
  DictIncrement increment;
  increment.delta = DictValue::Int64(5);
  DictResult result;
  ASSERT_TRUE(served->dict().Increment(At(1), "n", increment, &result).ok());
  Watcher watcher(*hub, Previous());
  Sync(watcher);
  Put("a", "2");
  Put("new", "3");
  Delete("a");
  Put("a", "4");
  ASSERT_TRUE(served->dict().Increment(At(1), "n", increment, &result).ok());
  ASSERT_TRUE(served->dict().Increment(At(1), "n", increment, &result).ok());

  EXPECT_EQ(Told(watcher), (Texts{"a:1", "new:-", "a:2", "a:-", "n:5", "n:10"}));
}

TEST_F(WatchPreviousTest, OneWithoutItGetsNone) {
  Put("a", "1");
  Watcher watcher(*hub, Ask());
  Sync(watcher);
  Put("a", "2");
  EXPECT_EQ(Told(watcher), (Texts{"a:?"}));
  EXPECT_EQ(bytes(), 0u);
}

TEST_F(WatchPreviousTest, ExpiredAndEvictedEntriesHadTheirValue) {
  ASSERT_TRUE(store->Delete("d").ok());
  Make(/*max_entries=*/16, /*evict=*/true);
  DictSetOptions options;
  options.ttl = {DictTtl::Kind::kSet, 1};
  Watcher watcher(*hub, Previous());
  Sync(watcher);
  DictResult result;
  ASSERT_TRUE(served->dict().Set(At(1), "a", DictValue::Bytes("1"), options, &result).ok());
  Texts told;
  for (int i = 0; told.size() < 3 || i < 100; ++i) {
    uint32_t bucket = 0;
    ASSERT_TRUE(served->dict().Expire(At(1), &bucket, UINT32_MAX).ok());
    Put("k" + std::to_string(i), std::to_string(i));
    hub->Turn();
    WatchEvent event;
    while (Poll(watcher, &event) == Watch::Found::kEvent) {
      for (const WatchEvent::Told& change : event.changes) {
        const DictChange& what = change.change->change;
        if (what.operation == FeedOperation::kPut) continue;
        const std::string before = TextOf(change.previous);
        EXPECT_EQ(before, what.key == "a" ? "1" : what.key.substr(1)) << what.key;
        told.push_back(what.key);
      }
    }
  }
  EXPECT_NE(std::find(told.begin(), told.end(), "a"), told.end());
}

TEST_F(WatchPreviousTest, WithoutASnapshotTheDictIsReadAllTheSame) {
  for (int i = 0; i < 2000; ++i) Put("k" + std::to_string(i), std::to_string(i));
  WatchAsk ask = Previous();
  ask.snapshot = false;
  ask.kinds = 1u << static_cast<uint32_t>(FeedOperation::kDelete);
  Watcher watcher(*hub, ask);
  WatchEvent event;
  ASSERT_EQ(Poll(watcher, &event), Watch::Found::kEvent);
  EXPECT_EQ(event.kind, Kind::kSynced);
  Delete("k7");
  Put("k8", "changed");
  Delete("k8");
  Put("new", "1");
  Delete("new");
  EXPECT_EQ(Told(watcher), (Texts{"k7:7", "k8:changed", "new:1"}));
}

// The history rolls over while it reads a long dict, of which it tells nothing.
TEST_F(WatchPreviousTest, ALongSilentScanIsGivenUpBeforeThePlaceIsLost) {
  WatchHubOptions options;
  options.feed.log_bytes = kFeedLogBytesMin;
  StartWith(options);
  for (int i = 0; i < 5000; ++i) {
    Put("k" + std::to_string(i), "v");
    if (i % 100 == 0) hub->Turn();
  }
  WatchAsk ask = Previous();
  ask.snapshot = false;
  Watcher watcher(*hub, ask);
  bool is_synced = false;
  size_t known = 0;
  uint64_t last = 0;
  for (int page = 0; page < 100; ++page) {
    for (int i = 0; i < 40; ++i) Put("k1", std::string(100, 'x'));
    hub->Turn();
    WatchEvent event;
    if (watcher.TryNext(&event) != Watch::Found::kEvent) continue;
    ASSERT_NE(event.kind, Kind::kResync) << "page " << page;
    is_synced = is_synced || event.kind == Kind::kSynced;
    for (const WatchEvent::Told& told : event.changes) {
      const uint64_t version = told.change->change.version;
      if (last != 0) {
        EXPECT_EQ(version, last + 1);
      }
      last = version;
      known += TextOf(told.previous) == "?" ? 0 : 1;
    }
  }
  EXPECT_TRUE(is_synced);
  EXPECT_GT(known, 100u);
}

TEST_F(WatchPreviousTest, OneThatGoesOnGetsWhatTheHistoryHas) {
  Put("old", "1");
  uint64_t revision = 0;
  {
    Watcher watcher(*hub, Ask());
    revision = Await(watcher, Kind::kSynced).revision;
  }
  Put("old", "2");
  Put("old", "3");
  Put("new", "4");
  Put("new", "5");
  for (const bool is_next_daemon : {false, true}) {
    if (is_next_daemon) StartWith({});
    WatchAsk ask = Previous();
    ask.from_revision = revision;
    Watcher watcher(*hub, ask);
    // What was before the first ones only their entries knew.
    EXPECT_EQ(Told(watcher), (Texts{"old:?", "old:2", "new:?", "new:4"}));
    ask.from_revision = revision + 1;
    Watcher later(*hub, ask);
    EXPECT_EQ(Told(later), (Texts{"old:2", "new:?", "new:4"}));
  }
  WatchAsk ask = Previous();
  ask.from_revision = revision + 4;
  Watcher watcher(*hub, ask);
  Sync(watcher);
  Put("old", "6");
  Put("newest", "7");
  EXPECT_EQ(Told(watcher), (Texts{"old:3", "newest:-"}));
}

TEST_F(WatchPreviousTest, WhatLeavesTheHistoryIsStillKnown) {
  WatchHubOptions options;
  options.feed.log_bytes = kFeedLogBytesMin;
  StartWith(options);
  WatchAsk ask = Previous();
  ask.prefix = "a";
  Watcher watcher(*hub, ask);
  Sync(watcher);
  Put("a/kept", "1");
  Put("a/gone", "2");
  Delete("a/gone");
  EXPECT_EQ(Told(watcher), (Texts{"a/kept:-", "a/gone:-", "a/gone:2"}));
  RollHistory();
  EXPECT_TRUE(Told(watcher).empty());
  // Of what is gone nothing is kept.
  EXPECT_EQ(bytes(), PreviousTable::kKeyBytes + 6 + sizeof(DictChange) + 1);
  Put("a/kept", "3");
  Put("a/gone", "4");
  EXPECT_EQ(Told(watcher), (Texts{"a/kept:1", "a/gone:-"}));
}

TEST_F(WatchPreviousTest, WatchesOfAScopeShareATableThatGoesWithTheLast) {
  for (int i = 0; i < 100; ++i) Put("k" + std::to_string(i), std::string(100, 'v'));
  WatchAsk of_key = Previous();
  of_key.key = "k5";
  auto key = std::make_unique<Watcher>(*hub, of_key);
  Sync(*key);
  const uint64_t of_one = bytes();
  EXPECT_EQ(of_one, PreviousTable::kKeyBytes + 2 + sizeof(DictChange) + 100);
  auto first = std::make_unique<Watcher>(*hub, Previous());
  Sync(*first);
  const uint64_t of_two = bytes();
  EXPECT_GT(of_two, 100 * of_one);
  auto second = std::make_unique<Watcher>(*hub, Previous());
  Sync(*second);
  EXPECT_EQ(bytes(), of_two);
  first.reset();
  EXPECT_EQ(bytes(), of_two);
  Put("k5", "new");
  EXPECT_EQ(Told(*second), (Texts{"k5:" + std::string(100, 'v')}));
  EXPECT_EQ(Told(*key), (Texts{"k5:" + std::string(100, 'v')}));
  second.reset();
  EXPECT_EQ(bytes(), of_one + PreviousTable::kLinkBytes);
  key.reset();
  EXPECT_EQ(bytes(), 0u);
}

TEST_F(WatchPreviousTest, WhatDoesNotFitIsNotKnown) {
  constexpr uint64_t kKey = PreviousTable::kKeyBytes + 1;
  constexpr uint64_t kValue = sizeof(DictChange) + 10;
  struct Row {
    uint64_t bytes_max;
    uint64_t scanned;  // Bytes, after the scan.
    const char* before;
  };
  for (const Row& row :
       {Row{kKey + kValue + PreviousTable::kLinkBytes, kKey + kValue, "a:vvvvvvvvvv"},
        Row{kKey + kValue + PreviousTable::kLinkBytes - 1, kKey + kValue, "a:?"},
        Row{kKey + kValue - 1, kKey, "a:?"}, Row{kKey - 1, 0, "a:?"}}) {
    WatchHubOptions options;
    options.previous_bytes_max = row.bytes_max;
    hub->Shutdown();
    for (const auto& [name, fd] : vault.Inherit("feed.")) ASSERT_TRUE(vault.Remove(name).ok());
    StartWith(options);
    Put("a", std::string(10, 'v'));
    auto watcher = std::make_unique<Watcher>(*hub, Previous());
    Sync(*watcher);
    EXPECT_EQ(bytes(), row.scanned);
    Put("a", "x");
    Put("b", "y");  // Absent, which nobody remembers.
    EXPECT_EQ(Told(*watcher), (Texts{row.before, "b:?"}));
    EXPECT_LE(bytes(), options.previous_bytes_max);
    watcher.reset();
    EXPECT_EQ(bytes(), 0u);
    Delete("b");
  }
}

TEST_F(WatchPreviousTest, AResyncBeginsAnewAndFreesWhatWas) {
  auto watcher = std::make_unique<Watcher>(*hub, Previous());
  for (int i = 0; i < 50; ++i) Put("k" + std::to_string(i), std::string(100, 'v'));
  Sync(*watcher);
  const uint64_t before = bytes();
  Clear();
  Put("k2", "2");
  EXPECT_EQ(Await(*watcher, Kind::kResync).reason, ResyncReason::kReplaced);
  Sync(*watcher);
  Put("k1", "3");
  Put("k2", "4");
  EXPECT_EQ(Told(*watcher), (Texts{"k1:-", "k2:2"}));
  EXPECT_LT(bytes(), before / 10);
  watcher.reset();
  EXPECT_EQ(bytes(), 0u);
}

TEST_F(WatchPreviousTest, WhatStandsForOlderChangesComesWithTheValueBeforeTheOldest) {
  Put("a", "0");
  Put("b", "0");
  WatchAsk ask = Previous();
  ask.slow_policy = SlowPolicy::kLatest;
  ask.window_ns = 1'000'000;
  Watcher watcher(*hub, ask);
  Sync(watcher);
  Put("first", "1");
  EXPECT_EQ(Told(watcher), (Texts{"first:-"}));
  Put("a", "1");
  Put("a", "2");
  Put("b", "1");
  Put("a", "3");
  now_ns_ += ask.window_ns;
  EXPECT_EQ(Told(watcher), (Texts{"b:0", "a:0"}));
  Put("a", "4");
  Delete("a");
  now_ns_ += ask.window_ns;
  EXPECT_EQ(Told(watcher), (Texts{"a:3"}));
}

TEST_F(WatchPreviousTest, AValueThatWasGoneIsNotKnown) {
  WatchHubOptions options;
  options.feed.log_bytes = kFeedLogBytesMin;
  StartWith(options);
  Watcher watcher(*hub, Previous());
  Sync(watcher);
  // Not inline, and changed again before its change is read.
  Put("a", std::string(kInlineValueBytesMax + 1, 'x'));
  Put("a", "2");
  Put("a", "3");
  EXPECT_EQ(Told(watcher), (Texts{"a:-", "a:?", "a:2"}));
}

// Of the table alone.

SharedChange Change(uint64_t revision, uint64_t version, const std::string& key,
                    const std::string& value) {
  auto change = std::make_shared<WatchedChange>();
  change->change.revision = revision;
  change->change.version = version;
  change->change.key = key;
  change->change.bytes = value;
  if (value.empty()) change->change.operation = FeedOperation::kDelete;
  return change;
}

DictEntry Entry(uint64_t version, const std::string& key, const std::string& value) {
  DictEntry entry;
  entry.version = version;
  entry.key = key;
  entry.bytes = value;
  return entry;
}

class PreviousTableTest : public testing::Test {
 protected:
  static constexpr uint64_t kTail = 100;

  void Add(uint64_t version, const std::string& key, const std::string& value) {
    history.push_back(Change(kTail + history.size(), version, key, value));
    EXPECT_TRUE(table.Advance(history, kTail, kTail + history.size() - 1));
  }
  std::string Before(size_t i, bool after_scan = false) const {
    return TextOf(table.Before(history, kTail, history[i]->change, after_scan));
  }

  std::shared_ptr<PreviousBudget> budget = std::make_shared<PreviousBudget>(1 << 20);
  PreviousTable table{WatchScope{}, kTail - 1, budget};
  WatchHistory history;
};

TEST_F(PreviousTableTest, AScanCountsForWhatCameAfterItOnly) {
  Add(5, "a", "5");
  table.TakeScanned(Entry(5, "a", "5"));  // It has read what the change did.
  table.TakeScanned(Entry(3, "b", "3"));
  Add(4, "b", "4");
  Add(6, "a", "6");

  EXPECT_EQ(Before(0), "?");
  EXPECT_EQ(Before(1), "3");
  EXPECT_EQ(Before(2), "5");
}

TEST_F(PreviousTableTest, AnAbsentKeyIsKnownAfterAWholeScanOnly) {
  Add(5, "a", "5");
  EXPECT_EQ(Before(0), "?");
  EXPECT_EQ(Before(0, /*after_scan=*/true), "-");
  table.Settle(kTail);
  EXPECT_EQ(Before(0, true), "?");  // It may have been before that scan.
  Add(6, "b", "6");
  EXPECT_EQ(Before(1), "-");
  Add(7, "c", "");
  EXPECT_EQ(Before(2), "?");  // Something was there to be removed.
  table.MissScanned();
  EXPECT_EQ(Before(1), "?");
}

TEST_F(PreviousTableTest, TheBudgetIsKeptExactly) {
  PreviousBudget small(100);
  EXPECT_FALSE(small.Take(101));
  EXPECT_TRUE(small.Take(60));
  EXPECT_FALSE(small.Take(41));
  EXPECT_TRUE(small.Take(40));
  EXPECT_FALSE(small.Take(1));
  small.Give(100);
  EXPECT_EQ(small.used(), 0u);
  EXPECT_FALSE(small.Take(UINT64_MAX));
}

TEST_F(PreviousTableTest, ALongHistoryIsLinkedInTurns) {
  for (uint64_t i = 0; i <= PreviousTable::kChangesPerTurn; ++i) {
    history.push_back(Change(kTail + i, 1 + i, "a", std::to_string(i)));
  }
  const uint64_t end = kTail + PreviousTable::kChangesPerTurn;
  EXPECT_FALSE(table.Advance(history, kTail, end));
  EXPECT_EQ(Before(history.size() - 1), "?");
  EXPECT_TRUE(table.Advance(history, kTail, end));
  EXPECT_EQ(Before(history.size() - 1), std::to_string(history.size() - 2));
  PreviousTable other(WatchScope{}, kTail - 1, budget);
  EXPECT_TRUE(other.Advance(history, kTail, end - 1));
}

TEST_F(PreviousTableTest, ABrokenOneKnowsWhatItKnewAndNothingOfLater) {
  table.TakeScanned(Entry(1, "a", "1"));
  Add(2, "a", "2");
  table.Break();
  Add(4, "a", "4");
  table.TakeScanned(Entry(3, "a", "3"));

  EXPECT_EQ(Before(0), "1");
  EXPECT_EQ(Before(1), "?");
}

TEST(PreviousTablesTest, NoneBeginsBeforeTheDrainAfterAGapIsOver) {
  const auto budget = std::make_shared<PreviousBudget>(1 << 20);
  PreviousTables tables(budget);
  EXPECT_TRUE(tables.is_ready());
  auto table = tables.Join(WatchScope{}, 100);
  tables.EndDrain(/*has_gap=*/true, 110);
  EXPECT_TRUE(table->is_broken());
  EXPECT_FALSE(tables.is_ready());
  tables.EndDrain(/*has_gap=*/true, 115);
  EXPECT_FALSE(tables.is_ready());
  tables.EndDrain(/*has_gap=*/false, 120);
  EXPECT_TRUE(tables.is_ready());
  EXPECT_NE(tables.Part(std::move(table)), nullptr);
  // What came up to then it does not connect.
  WatchHistory history;
  for (uint64_t i = 0; i < 3; ++i) {
    history.push_back(Change(119 + i, 1 + i, "a", std::to_string(i)));
  }
  table = tables.Join(WatchScope{}, 119);
  ASSERT_TRUE(table->Advance(history, 119, 121));
  EXPECT_EQ(TextOf(table->Before(history, 119, history[1]->change, true)), "?");
  EXPECT_EQ(TextOf(table->Before(history, 119, history[2]->change, true)), "-");
  EXPECT_EQ(tables.Part(std::move(table)).use_count(), 1);
  EXPECT_EQ(budget->used(), 0u);
}

}  // namespace
}  // namespace statehouse
