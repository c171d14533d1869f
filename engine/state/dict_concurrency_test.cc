// Threads on one dict, with a lane each: nothing acknowledged is lost and nothing is seen half
// done, also while the dict moves to other segments under them.
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <random>
#include <thread>

#include "engine/os/futex.h"
#include "engine/state/dict_store.h"
#include "engine/state/test_dict.h"
#include "gtest/gtest.h"

namespace statehouse {
namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kScale = 1;
#else
constexpr int kScale = 25;
#endif

constexpr uint64_t kPatienceNs = uint64_t{30} * 1'000'000'000;

void RunThreads(int count, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

DictIncrement AddOf(int64_t delta) {
  DictIncrement increment;
  increment.delta = DictValue::Int64(delta);
  return increment;
}
DictOperation AddStep(std::string_view key, int64_t delta) {
  DictOperation step;
  step.kind = DictOperation::Kind::kIncrement;
  step.key = key;
  step.increment = AddOf(delta);
  return step;
}

TEST(DictConcurrencyTest, IncrementsOfAllThreadsCount) {
  constexpr int kEach = 5000 * kScale;
  TestDict t;
  RunThreads(3, [&](int i) {
    const Lane lane{static_cast<uint32_t>(i + 1), kPatienceNs};
    for (int n = 0; n < kEach; ++n) {
      DictResult result;
      const std::string key = "n" + std::to_string(n % 3);
      ASSERT_TRUE(t.dict->Increment(lane, key, AddOf(1), &result).ok());
    }
  });
  int64_t sum = 0;
  for (int k = 0; k < 3; ++k) sum += std::stoll(t.Text("n" + std::to_string(k)));
  EXPECT_EQ(sum, 3 * kEach);
  EXPECT_EQ(t.dict->Stats().revision, 3u * kEach);
  t.ExpectSound();
}

TEST(DictConcurrencyTest, TransfersKeepTheSumForWhoeverReadsInATransaction) {
  constexpr int kAccounts = 12;
  constexpr int kEach = 1500 * kScale;
  TestDict t;
  std::vector<std::string> keys;
  for (int k = 0; k < kAccounts; ++k) keys.push_back("account" + std::to_string(k));
  for (const std::string& key : keys) t.Add(key, 100);
  std::atomic<int> writers{2};
  RunThreads(3, [&](int i) {
    const Lane lane{static_cast<uint32_t>(i + 1), kPatienceNs};
    std::mt19937 random(static_cast<uint32_t>(i));
    DictTransactionResult result;
    for (int n = 0; i < 2 && n < kEach; ++n) {
      const size_t from = random() % kAccounts;
      const size_t to = (from + 1 + random() % (kAccounts - 1)) % kAccounts;
      const DictOperation steps[] = {AddStep(keys[from], -3), AddStep(keys[to], 3)};
      ASSERT_TRUE(t.dict->Transact(lane, {}, steps, {}, &result).ok());
    }
    if (i < 2) --writers;
    std::vector<DictOperation> reads(kAccounts);
    for (size_t k = 0; k < kAccounts; ++k) reads[k].key = keys[k];
    while (i == 2 && writers > 0) {
      ASSERT_TRUE(t.dict->Transact(lane, {}, reads, {}, &result).ok());
      int64_t sum = 0;
      for (const auto& read : result.results) sum += static_cast<int64_t>(read.entry.bits);
      ASSERT_EQ(sum, 100 * kAccounts);
    }
  });
  t.ExpectSound();
}

// A transaction sets "first" and "second" to the same number. Whoever reads one after the other, in
// either order, never sees the later one older.
TEST(DictConcurrencyTest, WhoSeesOneKeyOfATransactionSeesTheOthers) {
  constexpr uint64_t kRounds = 5000 * kScale;
  TestDict t;
  t.Add("first", 1);
  t.Add("second", 1);
  std::atomic<bool> done{false};
  RunThreads(3, [&](int i) {
    if (i == 0) {
      DictTransactionResult result;
      for (uint64_t n = 0; n < kRounds; ++n) {
        const DictOperation steps[] = {AddStep("first", 1), AddStep("second", 1)};
        ASSERT_TRUE(t.dict->Transact({1, kPatienceNs}, {}, steps, {}, &result).ok());
      }
      done = true;
      return;
    }
    const char* const earlier = i == 1 ? "first" : "second";
    const char* const later = i == 1 ? "second" : "first";
    DictEntry before;
    DictEntry after;
    bool found = false;
    while (!done) {
      ASSERT_TRUE(t.dict->Get(earlier, &before, &found, kPatienceNs).ok() && found);
      ASSERT_TRUE(t.dict->Get(later, &after, &found, kPatienceNs).ok() && found);
      ASSERT_GE(after.bits, before.bits);
    }
  });
}

// A value tells how often its first letter stands in it; what is read must be whole.
std::string Telling(uint32_t number) {
  const size_t bytes = 1 + number * 37 % 1500;
  return std::to_string(number) + ":" + std::string(bytes, static_cast<char>('a' + number % 26));
}
bool IsTelling(const std::string& value) {
  const uint32_t number = static_cast<uint32_t>(std::strtoul(value.c_str(), nullptr, 10));
  return value == Telling(number);
}

TEST(DictConcurrencyTest, ReadersAndScansSeeWholeValuesAndVersionsThatOnlyGrow) {
  constexpr int kKeys = 40;
  constexpr int kEach = 4000 * kScale;
  TestDict t;
  std::atomic<int> writers{2};
  RunThreads(4, [&](int i) {
    const Lane lane{static_cast<uint32_t>(i + 1), kPatienceNs};
    std::mt19937 random(static_cast<uint32_t>(i));
    DictResult result;
    for (int n = 0; i < 2 && n < kEach; ++n) {
      const std::string key = "key" + std::to_string(random() % kKeys);
      const Status status =
          random() % 4 == 0
              ? t.dict->Delete(lane, key, {}, &result)
              : t.dict->Set(lane, key, DictValue::Bytes(Telling(random() % 5000)), {}, &result);
      ASSERT_TRUE(status.ok()) << status.ToString();
    }
    if (i < 2) --writers;
    uint64_t versions[kKeys] = {};
    DictEntry entry;
    while (i == 2 && writers > 0) {
      const size_t k = random() % kKeys;
      bool found = false;
      ASSERT_TRUE(t.dict->Get("key" + std::to_string(k), &entry, &found, kPatienceNs).ok());
      if (!found) continue;
      ASSERT_TRUE(IsTelling(entry.bytes)) << entry.bytes.substr(0, 40);
      ASSERT_GE(entry.version, versions[k]);
      versions[k] = entry.version;
    }
    while (i == 3 && writers > 0) {
      uint32_t bucket = 0;
      std::vector<std::string> seen;
      const auto take = [&](DictEntry& one) {
        ASSERT_TRUE(IsTelling(one.bytes)) << one.bytes.substr(0, 40);
        seen.push_back(one.key);
      };
      ASSERT_TRUE(t.dict->Scan(&bucket, SIZE_MAX, "key", take, kPatienceNs).ok());
      std::sort(seen.begin(), seen.end());
      ASSERT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end()) << "a key came twice";
    }
  });
  t.ExpectSound();
}

TEST(DictConcurrencyTest, InsertsOfAllThreadsStopAtTheLimitOfEntries) {
  constexpr uint64_t kMax = 600;
  TestDict t(kMax);
  std::atomic<uint64_t> inserted{0};
  std::atomic<uint64_t> refused{0};
  RunThreads(3, [&](int i) {
    const Lane lane{static_cast<uint32_t>(i + 1), kPatienceNs};
    for (int n = 0; n < 400; ++n) {
      DictResult result;
      const std::string key = std::to_string(i) + "/" + std::to_string(n);
      const Status status = t.dict->Set(lane, key, DictValue::Int64(n), {}, &result);
      ASSERT_TRUE(status.ok() || status.reason() == Reason::kLimitExceeded) << status.ToString();
      ++(status.ok() ? inserted : refused);
    }
  });
  EXPECT_EQ(inserted, kMax);
  EXPECT_EQ(refused, 1200 - kMax);
  EXPECT_EQ(t.dict->Stats().entries, kMax);
  t.ExpectSound();
}

class NoVault final : public DescriptorVault {
 public:
  Status Store(const std::string&, int) override { return Status(); }
  Status Remove(const std::string&) override { return Status(); }
};

// What a worker does: it works on a segment until that is closed, and then finds the next one.
class Follower final {
 public:
  Follower(DictStore& store, uint32_t lane) : store_(store), lane_{lane, kPatienceNs} {}

  // Until it was carried out, or refused for a reason that is not a move.
  Status Carry(const std::function<Status(Dict&, const Lane&)>& operation) {
    for (;;) {
      if (served_ == nullptr) {
        SH_ASSIGN_OR_RETURN(served_, store_.Find("a"));
        SH_RETURN_IF_ERROR(served_->dict().PrepareLanes(lane_.id, 1));
      }
      const Status status = operation(served_->dict(), lane_);
      if (status.reason() == Reason::kLimitExceeded && DictStore::CanGrow(*served_)) {
        SH_RETURN_IF_ERROR(store_.MoveDict(lane_, served_, DictStore::Move::kGrow));
      } else if (status.reason() != Reason::kDictMoved) {
        return status;
      }
      served_ = nullptr;
    }
  }
  const std::shared_ptr<ServedDict>& served() const { return served_; }

 private:
  DictStore& store_;
  const Lane lane_;
  std::shared_ptr<ServedDict> served_;
};

constexpr uint32_t kMoves = 40;
constexpr int kWriters = 3;
constexpr int64_t kOwnKeys = 4000;  // Together more than a first segment holds.

struct Written {
  std::atomic<bool> moving{true};
  std::atomic<int64_t> shared{0};
  int64_t rounds[kWriters] = {};
};

// Adds to the shared number, sets and reads its own, and sets one of its own keys, until the moves
// are over and all own keys are there.
void WriteWhileMoving(DictStore& store, int index, Written* written) {
  Follower follower(store, kLanesPerBlock * static_cast<uint32_t>(index + 1));
  const std::string own = "own" + std::to_string(index);
  uint64_t version = 0;
  DictResult result;
  const auto set = [&](const std::string& key, int64_t number) {
    return follower.Carry([&](Dict& dict, const Lane& lane) {
      return dict.Set(lane, key, DictValue::Int64(number), {}, &result);
    });
  };
  int64_t n = 0;
  for (; written->moving || n < kOwnKeys; ++n) {
    const Status added = follower.Carry([&](Dict& dict, const Lane& lane) {
      return dict.Increment(lane, "shared", AddOf(1), &result);
    });
    ASSERT_TRUE(added.ok()) << added.ToString();
    ++written->shared;
    const Status own_set = set(own, n);
    ASSERT_TRUE(own_set.ok()) << own_set.ToString();
    ASSERT_GT(result.version, version);
    version = result.version;
    DictEntry entry;
    bool found = false;
    const Status read = follower.Carry(
        [&](Dict& dict, const Lane&) { return dict.Get(own, &entry, &found, kPatienceNs); });
    ASSERT_TRUE(read.ok() && found) << read.ToString();
    ASSERT_EQ(entry.bits, static_cast<uint64_t>(n)) << "an own write is not seen";
    const Status key_set = set(own + "/" + std::to_string(n % kOwnKeys), n);
    ASSERT_TRUE(key_set.ok()) << key_set.ToString();
  }
  written->rounds[index] = n;
}

void MoveAllTheTime(DictStore& store, Written* written) {
  for (uint32_t i = 0; i < kMoves; ++i) {
    const int64_t next = written->shared + 100;
    while (written->shared < next && !testing::Test::HasFailure()) SleepNs(0);
    const Status moved =
        store.MoveDict({1, kPatienceNs}, *store.Find("a"), DictStore::Move::kSalvage);
    EXPECT_TRUE(moved.ok()) << moved.ToString();
  }
  written->moving = false;
}

TEST(DictConcurrencyTest, NothingAcknowledgedIsLostWhileTheDictMovesAndGrows) {
  NoVault vault;
  std::map<std::string, UniqueFd> none;
  std::vector<std::string> warnings;
  auto store = std::move(*DictStore::Start({}, &none, &vault, &warnings));
  DictSpec spec;
  spec.name = "a";
  spec.max_entries = 1'000'000;
  spec.max_bytes = 256 << 20;
  ASSERT_TRUE(store->Create(spec).ok());
  Written written;

  RunThreads(kWriters + 1, [&](int i) {
    if (i == kWriters) {
      MoveAllTheTime(*store, &written);
    } else {
      WriteWhileMoving(*store, i, &written);
    }
  });

  const auto served = *store->Find("a");
  DictEntry entry;
  bool found = false;
  ASSERT_TRUE(served->dict().Get("shared", &entry, &found).ok());
  EXPECT_EQ(static_cast<int64_t>(entry.bits), written.shared);
  EXPECT_EQ(served->Stats().entries, 1u + kWriters + kWriters * kOwnKeys);
  EXPECT_EQ(served->Stats().revision, 3u * static_cast<uint64_t>(written.shared));
  EXPECT_GT(served->record().generation, kMoves / 2);
  EXPECT_GT(served->record().geometry.entries_max, uint64_t{8192}) << "it did not grow";
  for (int i = 0; i < kWriters; ++i) {
    const int64_t rounds = written.rounds[i];
    for (int64_t n = rounds - kOwnKeys; n < rounds; ++n) {
      const std::string key = "own" + std::to_string(i) + "/" + std::to_string(n % kOwnKeys);
      ASSERT_TRUE(served->dict().Get(key, &entry, &found).ok());
      ASSERT_TRUE(found && static_cast<int64_t>(entry.bits) == n) << key;
    }
  }
  for (const std::string& fault : served->dict().Check(true).faults) ADD_FAILURE() << fault;
}

}  // namespace
}  // namespace statehouse
