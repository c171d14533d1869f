// The feed of a dict: every change once, in an order that holds for keys and for lanes, also for
// the next daemon; and a gap wherever something is missing.
#include <array>
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/test_dict_feed.h"

namespace statehouse {
namespace {

TEST_F(DictFeedTest, GivesEachChangeOnceInItsOrder) {
  Put("before", "0");
  Begin({}, 100);
  EXPECT_EQ(feed->head_revision(), 99u);
  EXPECT_EQ(Texts(Drain()), Strings{});
  const uint64_t version = Put("a", "x");
  DictIncrement increment;
  increment.delta = DictValue::Int64(5);
  DictResult result;
  ASSERT_TRUE(dict().Increment(At(2), "n", increment, &result).ok());
  Delete("a");
  DictSetOptions brief;
  brief.ttl = {DictTtl::Kind::kSet, 1};
  ASSERT_TRUE(dict().Set(At(2), "t", DictValue::Bytes("y"), brief, &result).ok());
  SleepNs(30'000'000);
  uint32_t bucket = 0;
  ASSERT_TRUE(dict().Expire(At(1), &bucket, UINT32_MAX).ok());
  const std::vector<DictChange> changes = Drain();
  // Of different keys in different lanes the order is free; here each lane was idle meanwhile.
  EXPECT_EQ(changes.size(), 5u);
  std::map<std::string, Strings> by_key;
  for (const DictChange& change : changes) by_key[change.key].push_back(Text(change).substr(4));
  EXPECT_EQ(by_key["a"], (Strings{"put a=x", "delete a"}));
  EXPECT_EQ(by_key["n"], (Strings{"put n=5"}));
  EXPECT_EQ(by_key["t"], (Strings{"put t=y", "expire t"}));
  EXPECT_EQ(changes.front().revision, 100u);
  EXPECT_EQ(changes.back().revision, 104u);
  EXPECT_EQ(feed->head_revision(), 104u);
  for (const DictChange& change : changes) {
    if (Text(change).ends_with("a=x")) {
      EXPECT_EQ(change.version, version);
    }
  }
  EXPECT_EQ(Texts(Drain()), Strings{});
}

TEST_F(DictFeedTest, StepsOfATransactionStandInTheirOrder) {
  Begin();
  std::vector<DictOperation> steps(4);
  const std::array<std::string, 4> keys = {"k0", "k1", "k2", "k3"};
  for (size_t i = 0; i < steps.size(); ++i) {
    steps[i].kind = DictOperation::Kind::kSet;
    steps[i].key = keys[i];
    steps[i].value = DictValue::Int64(static_cast<int64_t>(i));
  }
  DictTransactionResult result;
  ASSERT_TRUE(dict().Transact(At(1), {}, steps, {}, &result).ok());
  EXPECT_EQ(Texts(Drain()), (Strings{"1:put k0=0", "2:put k1=1", "3:put k2=2", "4:put k3=3"}));
}

TEST_F(DictFeedTest, ALargeValueComesWithItsChangeUnlessItChangedAgain) {
  Begin();
  const std::string small(kInlineValueBytesMax, 's');
  const std::string large(kInlineValueBytesMax + 1, 'l');
  Put("small", small);
  Put("large", large);
  Put("twice", large + "1");
  Put("twice", large + "2");
  Put("deleted", large);
  Delete("deleted");
  EXPECT_EQ(Texts(Drain()),
            (Strings{"1:put small=" + small, "2:put large=" + large, "3:put twice gone",
                     "4:put twice=" + large + "2", "5:put deleted gone", "6:delete deleted"}));
  // Nor where it would fill the log.
  Begin({kFeedLogBytesMin, 600'000}, 7);
  Put("huge", std::string(kFeedLogBytesMin / 4, 'h'));
  EXPECT_EQ(Texts(Drain()), Strings{"7:put huge gone"});
}

TEST_F(DictFeedTest, AnOverrunIsAGapAndNothingIsMissingAfterIt) {
  Begin();
  for (int i = 0; i < 5000; ++i) Put("k", "value");
  Put("other", "lane", 2);
  std::vector<DictChange> changes = Drain();
  EXPECT_EQ(Texts(changes), (Strings{"1:gap 1", "2:put other=lane"}));
  EXPECT_EQ(feed->gaps(), 1u);
  Put("k", "after");
  EXPECT_EQ(Texts(Drain()), Strings{"3:put k=after"});
  // Exactly a full ring is no gap.
  const uint64_t bytes = sizeof(ChangeHeader) + 8;  // "k" and "1234567".
  for (uint64_t i = 0; i < kChangeRingBytes / bytes; ++i) Put("k", "1234567");
  EXPECT_LE(feed->gaps(), 1u + (kChangeRingBytes % bytes == 0 ? 0u : 1u));
  changes = Drain();
  EXPECT_EQ(changes.size(), kChangeRingBytes / bytes);
  EXPECT_EQ(feed->gaps(), 1u);
  for (uint64_t i = 0; i <= kChangeRingBytes / bytes; ++i) Put("k", "1234567");
  EXPECT_EQ(Texts(Drain()), Strings{std::to_string(changes.back().revision + 1) + ":gap 1"});
}

TEST_F(DictFeedTest, ForgedRecordsAreAGap) {
  Begin();
  std::mt19937_64 random(20261128);
  for (int round = 0; round < 3000; ++round) {
    Put("a", std::to_string(round), 1);
    Put("b", std::to_string(round), 2);
    DictLaneRecord& record = DictInternals::Record(dict(), 2);
    auto* const ring = const_cast<std::byte*>(dict().RingOf(2).data());
    const uint64_t head = record.ring_head.load();
    if (round % 3 == 0) {
      // Somewhere in the last record.
      ring[(head - 1 - random() % 40) % kChangeRingBytes] = static_cast<std::byte>(random());
    } else if (round % 3 == 1) {
      record.ring_head.store(head + random() % 200'000 - 100'000);
    }
    std::vector<DictChange> fresh;
    feed->Drain(&fresh);
    feed->Drain(&fresh);
    EXPECT_FALSE(feed->HasNews());
    for (size_t i = 1; i < fresh.size(); ++i) {
      EXPECT_EQ(fresh[i].revision, fresh[i - 1].revision + 1);
    }
    // The honest lane's change is there.
    EXPECT_TRUE(std::any_of(fresh.begin(), fresh.end(), [&](const DictChange& change) {
      return change.key == "a" && change.bytes == std::to_string(round);
    })) << round;
  }
}

TEST_F(DictFeedTest, TheNextDaemonGoesOnWhereTheLastOneStood) {
  Begin({}, 10);
  std::vector<DictChange> all;
  std::mt19937_64 random(4711);
  uint64_t count = 0;
  for (int round = 0; round < 200; ++round) {
    for (uint64_t i = random() % 8; i > 0; --i) {
      Put("k" + std::to_string(random() % 5), std::to_string(count++), 1 + random() % 3);
    }
    for (DictChange& change : Drain()) all.push_back(std::move(change));
    for (uint64_t i = random() % 4; i > 0; --i) Put("z", std::to_string(count++), 2);
    std::vector<DictChange> history;
    auto adopted = Adopt(feed->fd(), &history);
    ASSERT_TRUE(adopted.ok()) << adopted.status().ToString();
    EXPECT_EQ(Texts(history), Texts(all));
    EXPECT_EQ((*adopted)->head_revision(), feed->head_revision());
    feed = std::move(*adopted);
  }
  for (DictChange& change : Drain()) all.push_back(std::move(change));
  EXPECT_EQ(all.size(), count);
  EXPECT_EQ(feed->gaps(), 0u);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i].revision, 10 + i);
}

// The daemon dies after any store of a batch but the last: the batch is read again, and gets the
// same revisions.
TEST_F(DictFeedTest, ABatchThatDoesNotStandIsReadAgain) {
  Begin();
  std::mt19937_64 random(99);
  std::vector<DictChange> all;
  for (int round = 0; round < 100; ++round) {
    std::vector<std::byte> before(kPageBytes);
    ASSERT_EQ(pread(feed->fd(), before.data(), before.size(), 0),
              static_cast<ssize_t>(before.size()));
    for (uint32_t lane = 1; lane < 4; ++lane) {
      if (random() % 2 == 0) Put("k" + std::to_string(lane), std::to_string(round), lane);
    }
    const std::vector<DictChange> given = Drain();
    // As if the marks had never been stored, while log and cursors were.
    ASSERT_EQ(pwrite(feed->fd(), before.data(), before.size(), 0),
              static_cast<ssize_t>(before.size()));
    std::vector<DictChange> history;
    auto adopted = Adopt(feed->fd(), &history);
    ASSERT_TRUE(adopted.ok()) << adopted.status().ToString();
    feed = std::move(*adopted);
    EXPECT_EQ(Texts(history), Texts(all));
    EXPECT_EQ(Texts(Drain()), Texts(given));
    all.insert(all.end(), given.begin(), given.end());
  }
}

TEST_F(DictFeedTest, HistoryIsBoundedInBytesAndInTime) {
  Begin({kFeedLogBytesMin, 600'000});
  std::vector<DictChange> history;
  for (int i = 0; i < 2000; ++i) {
    Put("key", std::string(200, 'v'));
    ASSERT_EQ(Drain().size(), 1u);
  }
  EXPECT_EQ(feed->head_revision(), 2000u);
  const uint64_t record_bytes = sizeof(FeedRecord) + 208;
  EXPECT_GE(feed->tail_revision(), 2001 - kFeedLogBytesMin / record_bytes);
  EXPECT_LE(feed->tail_revision(), 2002 - kFeedLogBytesMin / record_bytes);
  auto adopted = Adopt(feed->fd(), &history);
  ASSERT_TRUE(adopted.ok()) << adopted.status().ToString();
  EXPECT_EQ(history.front().revision, feed->tail_revision());
  EXPECT_EQ(history.back().revision, 2000u);

  history.clear();
  auto brief = Adopt(feed->fd(), &history, {kFeedLogBytesMin, 0});
  ASSERT_TRUE(brief.ok()) << brief.status().ToString();
  feed = std::move(*brief);
  SleepNs(5'000'000);
  Put("key", "last");
  EXPECT_EQ(Drain().size(), 1u);
  EXPECT_EQ(feed->tail_revision(), 2001u);
}

TEST_F(DictFeedTest, FollowsADictThatGrowsAndTellsWhenItWasReplaced) {
  Begin();
  Put("a", "1");
  const std::shared_ptr<ServedDict> first = served;
  ASSERT_TRUE(store->MoveDict(At(3), served, DictStore::Move::kGrow).ok());
  served = *store->Find("d");
  ASSERT_NE(served, first);
  Put("a", "2");
  std::vector<DictChange> changes = Drain();
  feed->Follow(served, &changes);
  for (DictChange& change : Drain()) changes.push_back(std::move(change));
  EXPECT_EQ(Texts(changes), (Strings{"1:put a=1", "2:moved", "3:put a=2"}));
  uint64_t entries = 0;
  bool cleared = false;
  ASSERT_TRUE(store->ClearDict(At(3), served, &entries, &cleared).ok());
  served = *store->Find("d");
  Put("b", "3");
  changes.clear();
  feed->Follow(served, &changes);
  for (DictChange& change : Drain()) changes.push_back(std::move(change));
  EXPECT_EQ(Texts(changes), (Strings{"4:gap 3", "5:put b=3"}));
  // A daemon that died before it followed cannot know what the segment before had.
  ASSERT_TRUE(store->MoveDict(At(3), served, DictStore::Move::kGrow).ok());
  served = *store->Find("d");
  Put("c", "4");
  std::vector<DictChange> history;
  auto adopted = Adopt(feed->fd(), &history);
  ASSERT_TRUE(adopted.ok()) << adopted.status().ToString();
  feed = std::move(*adopted);
  // The next revision may have been given to somebody in the segment before.
  EXPECT_EQ(Texts({history.end() - 2, history.end()}), (Strings{"6:moved", "7:gap 3"}));
  EXPECT_EQ(Texts(Drain()), Strings{"8:put c=4"});
}

// Else whoever follows the dict has the entry for ever.
TEST_F(DictFeedTest, WhatExpiredBeforeAMoveIsToldAfterIt) {
  Begin();
  DictSetOptions brief;
  brief.ttl = {DictTtl::Kind::kSet, 1};
  DictResult result;
  ASSERT_TRUE(dict().Set(At(1), "t", DictValue::Bytes("y"), brief, &result).ok());
  for (bool found = true; found;) {
    DictEntry entry;
    ASSERT_TRUE(dict().Get("t", &entry, &found).ok());
  }
  ASSERT_TRUE(store->MoveDict(At(3), served, DictStore::Move::kGrow).ok());
  served = *store->Find("d");
  std::vector<DictChange> changes = Drain();
  feed->Follow(served, &changes);

  uint32_t bucket = 0;
  ASSERT_TRUE(dict().Expire(At(1), &bucket, UINT32_MAX).ok());

  for (DictChange& change : Drain()) changes.push_back(std::move(change));
  EXPECT_EQ(Texts(changes), (Strings{"1:put t=y", "2:moved", "3:expire t"}));
}

TEST_F(DictFeedTest, ADamagedFeedIsRefused) {
  Begin({kFeedLogBytesMin, 600'000});
  for (int i = 0; i < 40; ++i) Put("key", "value");
  (void)Drain();
  std::vector<std::byte> sound(kFeedLogOffset + kFeedLogBytesMin);
  ASSERT_EQ(pread(feed->fd(), sound.data(), sound.size(), 0), static_cast<ssize_t>(sound.size()));
  std::mt19937_64 random(5);
  int refused = 0;
  for (int round = 0; round < 4000; ++round) {
    // In the head, or in the first records.
    const uint64_t at = round % 2 == 0 ? random() % 192 : kFeedLogOffset + random() % 2000;
    const auto byte = static_cast<std::byte>(random());
    ASSERT_EQ(pwrite(feed->fd(), &byte, 1, static_cast<off_t>(at)), 1);
    std::vector<DictChange> history;
    auto adopted = Adopt(feed->fd(), &history);
    if (!adopted.ok()) {
      EXPECT_EQ(adopted.status().reason(), Reason::kDataLoss);
      ++refused;
    } else {
      for (size_t i = 1; i < history.size(); ++i) {
        EXPECT_EQ(history[i].revision, history[i - 1].revision + 1);
      }
    }
    ASSERT_EQ(pwrite(feed->fd(), sound.data(), sound.size(), 0),
              static_cast<ssize_t>(sound.size()));
  }
  EXPECT_GT(refused, 1000);
  // Of another dict, or of a size that no feed has.
  UniqueFd small = *CreateSealedMemory("test", kFeedLogOffset);
  std::vector<DictChange> history;
  EXPECT_EQ(Adopt(small.get(), &history).status().reason(), Reason::kDataLoss);
}

// Four lanes on few keys while the feed is drained: every key's versions grow one by one, every
// lane's own numbers too, and nothing is missing.
TEST_F(DictFeedTest, TheOrderHoldsForKeysAndForLanesWhileTheyWrite) {
  constexpr uint32_t kWriters = 4;
  constexpr uint64_t kEach = 20'000;
  constexpr uint64_t kAheadMax = 400;  // Of one writer: less than its ring holds.
  Begin();
  std::array<std::atomic<uint64_t>, kWriters> seen{};
  std::vector<std::thread> writers;
  for (uint32_t writer = 0; writer < kWriters; ++writer) {
    writers.emplace_back([&, writer] {
      std::mt19937_64 random(writer);
      for (uint64_t i = 1; i <= kEach; ++i) {
        while (i > seen[writer].load(std::memory_order_relaxed) + kAheadMax) SleepNs(0);
        Put("k" + std::to_string(random() % 6), std::to_string(writer) + " " + std::to_string(i),
            8 + writer);
      }
    });
  }
  std::map<std::string, uint64_t> versions;
  uint64_t count = 0;
  while (count < kWriters * kEach) {
    std::vector<DictChange> fresh;
    feed->Drain(&fresh);
    if (fresh.empty()) SleepNs(0);
    for (const DictChange& change : fresh) {
      ASSERT_EQ(change.operation, FeedOperation::kPut);
      ASSERT_EQ(change.revision, ++count);
      ASSERT_GT(change.version, versions[change.key]);
      versions[change.key] = change.version;
      const uint32_t writer = static_cast<uint32_t>(change.bytes[0] - '0');
      const uint64_t number = std::stoull(change.bytes.substr(2));
      ASSERT_EQ(number, seen[writer].load() + 1);
      seen[writer].store(number);
    }
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_FALSE(feed->HasNews());
  // The last change of each key is what the entry holds.
  for (const auto& [key, version] : versions) {
    DictEntry entry;
    bool found = false;
    ASSERT_TRUE(dict().Get(key, &entry, &found).ok());
    EXPECT_EQ(entry.version, version);
  }
}

TEST_F(DictFeedTest, AScanOfABucketWaitsForWhoIsInside) {
  const uint64_t version = Put("a", "x");
  const uint32_t bucket = dict().BucketOfKey("a");
  std::atomic<uint64_t>& control = DictInternals::Bucket(dict(), bucket).control;
  uint64_t sequence = 0;
  size_t seen = 0;
  const auto scan = [&](bool accept_held) {
    seen = 0;
    return dict().ScanBucket(
        bucket, "", accept_held, [&](DictEntry&) { ++seen; }, &sequence, 1'000'000);
  };
  EXPECT_TRUE(scan(false).ok());
  EXPECT_EQ(seen, 1u);
  EXPECT_EQ(sequence, version);
  control.fetch_or(5);
  EXPECT_EQ(scan(false).reason(), Reason::kStalled);
  EXPECT_EQ(seen, 0u);
  EXPECT_TRUE(scan(true).ok());
  EXPECT_EQ(seen, 1u);
  EXPECT_EQ(sequence, version);
  control.fetch_and(~kOwnerMask);
  EXPECT_TRUE(scan(false).ok());
}

// Whoever sleeps after ArmWatch is woken by the next change, however close it comes.
TEST_F(DictFeedTest, AChangeWakesWhoSleeps) {
  Begin();
  ASSERT_TRUE(dict().ArmWatch()) << "this kernel has no membarrier";
  constexpr uint64_t kRounds = 20'000;
  std::atomic<uint64_t> seen{0};
  std::thread writer([&] {
    std::mt19937_64 random(7);
    for (uint64_t i = 1; i <= kRounds; ++i) {
      Put("k", std::to_string(i), 8);
      for (uint64_t spins = random() % 200; spins > 0; --spins) CpuRelax();
      while (seen.load() < i) SleepNs(0);
    }
  });
  uint64_t late = 0;
  for (uint64_t count = 0; count < kRounds;) {
    std::vector<DictChange> fresh;
    const std::atomic<uint32_t>& event = dict().watch_event();
    const uint32_t before = event.load();
    ASSERT_TRUE(dict().ArmWatch());
    feed->Drain(&fresh);
    if (fresh.empty()) {
      const uint64_t began = MonotonicNs();
      FutexWait(event, before, 2'000'000'000);
      if (MonotonicNs() - began > 1'900'000'000) ++late;
    }
    count += fresh.size();
    seen.store(count);
  }
  writer.join();
  EXPECT_EQ(late, 0u);
}

}  // namespace
}  // namespace statehouse
