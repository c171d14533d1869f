// One limit of memory for areas and dicts: what counts, when it refuses, and when it no longer
// does.
#include "engine/state/memory_budget.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <optional>

#include "engine/state/engine.h"
#include "engine/state/test_keeping_vault.h"
#include "gtest/gtest.h"

namespace statehouse {
namespace {

// How many calls of the system's allocation still succeed.
std::optional<int> allocations_left;

}  // namespace
}  // namespace statehouse

// In place of the C library's.
extern "C" int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  if (auto& left = statehouse::allocations_left; mode == 0 && left.has_value() && (*left)-- <= 0) {
    errno = ENOSPC;
    return -1;
  }
  return static_cast<int>(syscall(SYS_fallocate, fd, mode, offset, bytes));
}

namespace statehouse {
namespace {

constexpr uint64_t kMebibyte = 1 << 20;
const Lane kLane{1, kOperationTimeoutNsDefault};

TEST(MemoryBudgetTest, ReservesUpToTheLimitAndRefusesOnePast) {
  uint64_t held = 40;
  MemoryBudget budget(100, [&] { return held; });

  EXPECT_EQ(budget.Reserve(61, "this").status().reason(), Reason::kMemoryExhausted);
  auto first = budget.Reserve(60, "this");
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(budget.Used(), 100u);
  const Status refused = budget.Reserve(1, "that").status();
  EXPECT_EQ(refused.message(),
            "that needs 1 bytes: 100 of 100 (areas.memory_max) are in use; nothing was evicted");
  first = MemoryBudget::Reservation();
  EXPECT_EQ(budget.Used(), 40u);
  held = 200;  // A worker touched what nobody had to ask for.
  EXPECT_EQ(budget.Reserve(1, "this").status().reason(), Reason::kMemoryExhausted);
}

TEST(MemoryBudgetTest, GivesAsManyUnitsAsThereIsRoomFor) {
  MemoryBudget budget(100, [] { return uint64_t{25}; });

  const auto some = budget.ReserveUpTo(80, 20, "this");
  ASSERT_TRUE(some.ok());
  EXPECT_EQ(some->bytes(), 60u);
  EXPECT_FALSE(budget.ReserveUpTo(80, 20, "this").ok());
  const MemoryBudget::Reservation beyond = budget.Count(1000);
  EXPECT_EQ(budget.Used(), 1085u);
}

TEST(MemoryBudgetTest, WithoutALimitEverythingIsGivenAndCounted) {
  MemoryBudget budget(0, [] { return uint64_t{5}; });

  const auto much = budget.Reserve(uint64_t{1} << 40, "this");

  ASSERT_TRUE(much.ok());
  EXPECT_EQ(budget.Used(), (uint64_t{1} << 40) + 5);
}

class MemoryLimitTest : public testing::Test {
 protected:
  // A new daemon takes over what there is, as after a kill.
  void Start(uint64_t limit) {
    engine_.reset();
    EngineOptions options;
    options.memory_bytes_max = limit;
    auto started = Engine::Start(options, vault_.GiveAll(), &vault_);
    ASSERT_TRUE(started.ok()) << started.status().ToString();
    engine_ = std::move(*started);
  }
  // One without any state.
  void StartEmpty(uint64_t limit) {
    engine_.reset();
    vault_.kept.clear();
    Start(limit);
  }
  Status MakeArea(const std::string& name, uint64_t size) {
    AreaSpec spec;
    spec.name = name;
    spec.size = size;
    return engine_->CreateArea(std::move(spec)).status();
  }
  Status MakeDict(const std::string& name, bool evict = false, uint64_t max_entries = 1 << 20) {
    DictSpec spec;
    spec.name = name;
    spec.max_entries = max_entries;
    spec.evict = evict;
    return engine_->dicts().Create(spec).status();
  }
  std::shared_ptr<ServedDict> Find(const std::string& name) {
    auto found = engine_->dicts().Find(name);
    EXPECT_TRUE(found.ok());
    return found.ok() ? *found : nullptr;
  }
  uint64_t Used() const { return engine_->Totals().memory_bytes; }

  // As a door does: a dict that has no memory asks for some.
  Status Put(const std::string& name, Dict* dict, const std::string& key, size_t bytes) {
    const std::string value(bytes, 'v');
    for (;;) {
      DictResult result;
      const Status set = dict->Set(kLane, key, DictValue::Bytes(value), {}, &result);
      if (set.reason() != Reason::kMemoryExhausted || !dict->AwaitsBacking()) return set;
      const Status backed = engine_->dicts().BackMore(*Find(name));
      if (!backed.ok()) return backed;
    }
  }
  // Sets one key after another until that is refused, and how many that were.
  int Fill(const std::string& name, Dict* dict, size_t bytes, Status* refused, int most = 5000) {
    for (int i = 0; i < most; ++i) {
      *refused = Put(name, dict, "key" + std::to_string(i), bytes);
      if (!refused->ok()) return i;
    }
    return most;
  }
  int Fill(const std::string& name, size_t bytes, Status* refused, int most = 5000) {
    return Fill(name, &Find(name)->dict(), bytes, refused, most);
  }
  // The two numbers of "needs N bytes: U of …", together.
  static uint64_t Needed(const Status& refused) {
    const std::string text(refused.message());
    const size_t needs = text.find("needs ");
    const size_t used = text.find("bytes: ");
    EXPECT_TRUE(needs != std::string::npos && used != std::string::npos) << text;
    if (needs == std::string::npos || used == std::string::npos) return 0;
    return std::strtoull(text.c_str() + needs + 6, nullptr, 10) +
           std::strtoull(text.c_str() + used + 7, nullptr, 10);
  }

  KeepingVault vault_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(MemoryLimitTest, CreatingHoldsAtTheLimitAndIsRefusedOnePast) {
  Start(0);
  ASSERT_TRUE(MakeArea("a", 3 * kMebibyte).ok());
  const uint64_t area = Used();
  ASSERT_TRUE(MakeDict("d").ok());
  const uint64_t dict = Used() - area;
  ASSERT_GE(area, 3 * kMebibyte);
  ASSERT_GT(dict, 100u << 10);

  StartEmpty(dict);
  EXPECT_TRUE(MakeDict("d").ok());
  EXPECT_EQ(Used(), dict);
  StartEmpty(dict - 1);
  const Status refused = MakeDict("d");
  EXPECT_EQ(refused.reason(), Reason::kMemoryExhausted);
  EXPECT_EQ(Needed(refused), dict);
  EXPECT_EQ(Used(), 0u);
  EXPECT_FALSE(engine_->dicts().Find("d").ok());
  StartEmpty(area);
  EXPECT_TRUE(MakeArea("a", 3 * kMebibyte).ok());
  EXPECT_EQ(Used(), area);
  StartEmpty(area - 1);
  EXPECT_EQ(Needed(MakeArea("a", 3 * kMebibyte)), area);
}

TEST_F(MemoryLimitTest, AreasAndDictsTakeFromOneLimitAndDeletingGivesBack) {
  Start(0);
  ASSERT_TRUE(MakeArea("a", kMebibyte).ok() && MakeDict("d").ok());
  const uint64_t both = Used();

  for (const uint64_t limit : {both, both - 1}) {
    StartEmpty(limit);
    ASSERT_TRUE(MakeArea("a", kMebibyte).ok());
    EXPECT_EQ(MakeDict("d").ok(), limit == both);
    StartEmpty(limit);
    ASSERT_TRUE(MakeDict("d").ok());
    EXPECT_EQ(MakeArea("a", kMebibyte).ok(), limit == both);
  }

  EXPECT_FALSE(MakeArea("a", kMebibyte).ok());
  ASSERT_TRUE(engine_->dicts().Delete("d").ok());
  EXPECT_EQ(Used(), 0u);
  EXPECT_TRUE(MakeArea("a", kMebibyte).ok());
  EXPECT_FALSE(MakeDict("d").ok());
  ASSERT_TRUE(engine_->DeleteArea("a").ok());
  EXPECT_TRUE(MakeDict("d").ok());
}

TEST_F(MemoryLimitTest, AFilledDictStopsAtTheLimitAndCountsWhatItHolds) {
  constexpr uint64_t kLimit = 8 * kMebibyte;
  Start(kLimit);
  ASSERT_TRUE(MakeDict("d").ok());
  Status refused;

  const int entries = Fill("d", 16'000, &refused);

  EXPECT_EQ(refused.reason(), Reason::kMemoryExhausted);
  EXPECT_NE(refused.message().find("of 8388608 (areas.memory_max)"), std::string::npos)
      << refused.message();
  EXPECT_LE(Used(), kLimit + 64 * kMebibyte / 1024);  // And the ring of the lane that writes.
  EXPECT_GT(Used(), kLimit - kSlabBytes);
  EXPECT_GT(entries, 400);  // 6.4 MB of them.
  EXPECT_EQ(Find("d")->dict().Stats().entries, static_cast<uint64_t>(entries));
  EXPECT_EQ(Used(), *Find("d")->MemoryBytes());
  // There is room again for what is deleted.
  DictResult result;
  ASSERT_TRUE(Find("d")->dict().Delete(kLane, "key1", {}, &result).ok());
  EXPECT_TRUE(Put("d", &Find("d")->dict(), "other", 16'000).ok());
  EXPECT_FALSE(MakeDict("e").ok());
}

TEST_F(MemoryLimitTest, AWorkerInMappedMemoryStopsAtTheLimitToo) {
  Start(4 * kMebibyte);
  ASSERT_TRUE(MakeDict("d").ok());
  ASSERT_TRUE(MakeArea("a", kMebibyte).ok());
  const auto served = Find("d");
  auto segment = engine_->dicts().OpenForWorker(*served, 0, Access::kReadWrite);
  ASSERT_TRUE(segment.ok());
  auto mapped = Dict::Map("d", served->record().geometry, segment->get(), Access::kReadWrite);
  ASSERT_TRUE(mapped.ok());
  Status refused;

  const int entries = Fill("d", mapped->get(), 1000, &refused);

  EXPECT_EQ(refused.reason(), Reason::kMemoryExhausted);
  EXPECT_GT(entries, 1500);
  EXPECT_LE(Used(), 4 * kMebibyte + 64 * kMebibyte / 1024);
  ASSERT_TRUE(engine_->DeleteArea("a").ok());
  Status again;
  EXPECT_GT(Fill("d", mapped->get(), 1000, &again), entries + 700);
}

TEST_F(MemoryLimitTest, ADictThatGrowsCountsTwiceAtTheLimitAndOnePast) {
  // Fills the first table of 8,192 entries, and asks for the next one.
  const auto grow = [this] {
    EXPECT_TRUE(MakeDict("d").ok());
    Status full;
    EXPECT_EQ(Fill("d", 100, &full, 10'000), 8192);
    EXPECT_EQ(full.reason(), Reason::kLimitExceeded);
    return engine_->dicts().MoveDict(kLane, Find("d"), DictStore::Move::kGrow);
  };
  Start(3 * kMebibyte);
  const Status refused = grow();
  ASSERT_EQ(refused.reason(), Reason::kMemoryExhausted) << refused.ToString();
  EXPECT_NE(refused.message().find("growing dict \"d\""), std::string::npos);
  const uint64_t needed = Needed(refused);
  // It is as it was, and goes on.
  EXPECT_EQ(Find("d")->record().generation, 1u);
  EXPECT_TRUE(Put("d", &Find("d")->dict(), "key7", 100).ok());
  EXPECT_EQ(Find("d")->dict().Stats().entries, 8192u);

  StartEmpty(needed - 1);
  EXPECT_EQ(Needed(grow()), needed);
  StartEmpty(needed);
  const Status grown = grow();
  EXPECT_TRUE(grown.ok()) << grown.ToString();

  EXPECT_EQ(Find("d")->record().generation, 2u);
  EXPECT_EQ(Find("d")->dict().Stats().entries, 8192u);
  EXPECT_LT(Used(), needed);  // The old one is gone.
  EXPECT_EQ(Used(), *Find("d")->MemoryBytes());
  EXPECT_TRUE(Find("d")->dict().AwaitsBacking());
  EXPECT_TRUE(Put("d", &Find("d")->dict(), "one more", 100).ok());
}

TEST_F(MemoryLimitTest, AFullServiceCanClear) {
  Start(4 * kMebibyte);
  ASSERT_TRUE(MakeDict("d").ok());
  Status refused;
  const int entries = Fill("d", 2000, &refused);
  ASSERT_EQ(refused.reason(), Reason::kMemoryExhausted);

  uint64_t gone = 0;
  bool cleared = false;
  ASSERT_TRUE(engine_->dicts().ClearDict(kLane, Find("d"), &gone, &cleared).ok());

  EXPECT_TRUE(cleared);
  EXPECT_EQ(gone, static_cast<uint64_t>(entries));
  EXPECT_LT(Used(), kMebibyte);
  EXPECT_GT(Fill("d", 2000, &refused), entries - 50);
  EXPECT_LE(Used(), 4 * kMebibyte + 64 * kMebibyte / 1024);
}

TEST_F(MemoryLimitTest, TheNextDaemonCountsTheSameAndRefusesTheSame) {
  Start(4 * kMebibyte);
  ASSERT_TRUE(MakeArea("a", kMebibyte).ok() && MakeDict("d").ok());
  Status refused;
  const int entries = Fill("d", 2000, &refused);
  const uint64_t used = Used();

  Start(4 * kMebibyte);

  EXPECT_EQ(Used(), used);
  EXPECT_FALSE(MakeDict("e").ok());
  EXPECT_EQ(Put("d", &Find("d")->dict(), "more", 2000).reason(), Reason::kMemoryExhausted);
  ASSERT_TRUE(engine_->DeleteArea("a").ok());
  EXPECT_TRUE(Put("d", &Find("d")->dict(), "more", 2000).ok());
  EXPECT_EQ(Find("d")->dict().Stats().entries, static_cast<uint64_t>(entries) + 1);
}

TEST_F(MemoryLimitTest, ALimitMayComeAndGoWithADaemon) {
  Start(0);
  ASSERT_TRUE(MakeDict("d").ok());
  Status status;
  EXPECT_EQ(Fill("d", 2000, &status, 3000), 3000);
  EXPECT_EQ(Find("d")->dict().slabs_backed(), 0u);
  const uint64_t used = Used();
  EXPECT_GT(used, 6'000'000u);

  Start(4 * kMebibyte);
  EXPECT_GE(Used(), used);
  EXPECT_LT(Used(), used + kMebibyte);
  EXPECT_TRUE(Find("d")->dict().AwaitsBacking());
  const std::string large(200'000, 'v');
  EXPECT_EQ(Put("d", &Find("d")->dict(), "large", large.size()).reason(), Reason::kMemoryExhausted);

  Start(0);
  EXPECT_TRUE(Put("d", &Find("d")->dict(), "large", large.size()).ok());
}

TEST_F(MemoryLimitTest, ADictThatEvictsMakesRoomWithinWhatItHas) {
  Start(4 * kMebibyte);
  ASSERT_TRUE(MakeArea("a", 2 * kMebibyte).ok());
  ASSERT_TRUE(MakeDict("d", true).ok());
  Status status;

  EXPECT_EQ(Fill("d", 1000, &status, 4000), 4000) << status.ToString();

  const DictStats stats = Find("d")->Stats();
  EXPECT_GT(stats.evictions, 2000u);
  EXPECT_EQ(stats.entries + stats.evictions, 4000u);
  EXPECT_LE(Used(), 4 * kMebibyte + 64 * kMebibyte / 1024);
  EXPECT_TRUE(Find("d")->dict().BackingIsRefused());
  // A value of a size that nothing can make room for is refused, not tried for ever.
  const Status large = Put("d", &Find("d")->dict(), "large", 40'000);
  EXPECT_EQ(large.reason(), Reason::kMemoryExhausted) << large.ToString();

  ASSERT_TRUE(engine_->DeleteArea("a").ok());
  engine_->Scrub();
  EXPECT_FALSE(Find("d")->dict().BackingIsRefused());
  EXPECT_TRUE(Put("d", &Find("d")->dict(), "large", 40'000).ok());
}

TEST_F(MemoryLimitTest, WhoWasRefusedBeforeADictWasToldToMakeRoomTriesAgain) {
  Start(4 * kMebibyte);
  ASSERT_TRUE(MakeArea("a", 2 * kMebibyte).ok() && MakeDict("d", true, 8192).ok());
  Dict& dict = Find("d")->dict();
  const auto set = [&](const std::string& key) {
    const std::string value(1000, 'v');
    DictResult result;
    return dict.Set(kLane, key, DictValue::Bytes(value), {}, &result);
  };
  int i = 0;
  for (Status filled; filled.ok(); filled = engine_->dicts().BackMore(*Find("d"))) {
    if (dict.BackingIsRefused()) break;
    while (set("key" + std::to_string(i)).ok()) ++i;
  }
  engine_->Scrub();
  ASSERT_EQ(set("one more").reason(), Reason::kMemoryExhausted);

  // Somebody else was refused too, and asks first.
  ASSERT_TRUE(engine_->dicts().BackMore(*Find("d")).ok());
  EXPECT_FALSE(engine_->dicts().BackMore(*Find("d")).ok());
  EXPECT_TRUE(dict.BackingIsNews(kLane));
  engine_->Scrub();  // The word is as it was.
  EXPECT_TRUE(dict.BackingIsNews(kLane));
  ASSERT_TRUE(engine_->dicts().BackMore(*Find("d")).ok());
  EXPECT_TRUE(set("one more").ok());
  // What nothing can make room for has seen that.
  DictResult result;
  const std::string large(40'000, 'v');
  ASSERT_FALSE(dict.Set(kLane, "large", DictValue::Bytes(large), {}, &result).ok());
  EXPECT_FALSE(dict.BackingIsNews(kLane));
}

TEST_F(MemoryLimitTest, WhoWasRefusedBeforeADictGotMemoryTriesAgain) {
  Start(4 * kMebibyte);
  ASSERT_TRUE(MakeDict("d").ok());
  Dict& dict = Find("d")->dict();
  const std::string value(1000, 'v');
  DictResult result;
  ASSERT_EQ(dict.Set(kLane, "k", DictValue::Bytes(value), {}, &result).reason(),
            Reason::kMemoryExhausted);
  EXPECT_FALSE(dict.BackingIsNews(kLane));

  ASSERT_TRUE(engine_->dicts().BackMore(*Find("d")).ok());

  EXPECT_TRUE(dict.BackingIsNews(kLane));
  EXPECT_TRUE(dict.Set(kLane, "k", DictValue::Bytes(value), {}, &result).ok());
}

TEST_F(MemoryLimitTest, AnAllocationThatFailsHalfWayLeavesNothingBehind) {
  Start(4 * kMebibyte);
  ASSERT_TRUE(MakeDict("d").ok());
  const uint64_t slabs = Find("d")->dict().slabs_backed();
  const uint64_t used = Used();

  allocations_left = 2;
  const Status refused = engine_->dicts().BackMore(*Find("d"));
  allocations_left.reset();

  EXPECT_EQ(refused.reason(), Reason::kMemoryExhausted);
  EXPECT_EQ(Find("d")->dict().slabs_backed(), slabs);
  EXPECT_GT(Used(), used);
  engine_->Scrub();
  EXPECT_EQ(Used(), used);
  EXPECT_TRUE(engine_->dicts().BackMore(*Find("d")).ok());
}

TEST_F(MemoryLimitTest, ADictThatEvictsAndCannotGrowMakesRoomForEntriesToo) {
  Start(2 * kMebibyte + 512 * 1024);  // For one table of 8,192 entries, not for the next one.
  ASSERT_TRUE(MakeDict("d", true).ok());
  Status status;
  ASSERT_EQ(Fill("d", 100, &status, 10'000), 8192);
  ASSERT_EQ(status.reason(), Reason::kLimitExceeded);

  const Status grown = engine_->dicts().MoveDict(kLane, Find("d"), DictStore::Move::kGrow);
  EXPECT_TRUE(grown.ok()) << grown.ToString();

  EXPECT_EQ(Find("d")->record().generation, 1u);
  EXPECT_TRUE(Put("d", &Find("d")->dict(), "one more", 100).ok());
  EXPECT_EQ(Find("d")->Stats().evictions, 1u);
  // As long as it was told so, asking again is refused.
  EXPECT_EQ(engine_->dicts().MoveDict(kLane, Find("d"), DictStore::Move::kGrow).reason(),
            Reason::kMemoryExhausted);
}

TEST_F(MemoryLimitTest, AWordThatAWorkerWroteOverDoesNotStay) {
  Start(4 * kMebibyte);
  ASSERT_TRUE(MakeDict("d").ok());
  ASSERT_TRUE(Put("d", &Find("d")->dict(), "k", 100).ok());
  Dict& dict = Find("d")->dict();
  const uint64_t backed = dict.slabs_backed();

  for (const uint64_t word : {uint64_t{0}, uint64_t{1}, kBackingRefused, UINT64_MAX}) {
    dict.SetSlabsBacked(word);
    Status status;
    Fill("d", 100, &status, 50);
    engine_->Scrub();
    EXPECT_GE(dict.slabs_backed(), backed);
    EXPECT_LT(dict.slabs_backed(), 64u);
  }

  // And not for a daemon that takes over.
  dict.SetSlabsBacked(UINT64_MAX);
  Start(4 * kMebibyte);
  EXPECT_LT(Find("d")->dict().slabs_backed(), 64u);
}

TEST_F(MemoryLimitTest, AskingMendsAWordThatAWorkerWroteOverWhereAllHasItsMemory) {
  Start(16 * kMebibyte);
  DictSpec spec;
  spec.name = "d";
  spec.max_bytes = kMebibyte;
  ASSERT_TRUE(engine_->dicts().Create(spec).ok());
  Status full;
  (void)Fill("d", 30'000, &full);
  ASSERT_EQ(full.reason(), Reason::kMemoryExhausted);
  Dict& dict = Find("d")->dict();
  ASSERT_FALSE(dict.AwaitsBacking());
  const uint64_t backed = dict.slabs_backed();

  dict.SetSlabsBacked(1);
  ASSERT_TRUE(dict.AwaitsBacking());
  EXPECT_TRUE(engine_->dicts().BackMore(*Find("d")).ok());

  EXPECT_EQ(dict.slabs_backed(), backed);
}

TEST_F(MemoryLimitTest, ALargeValueGetsItsMemoryInOnePiece) {
  Start(3 * kMebibyte);
  ASSERT_TRUE(MakeDict("d").ok());

  EXPECT_TRUE(Put("d", &Find("d")->dict(), "large", kDictValueBytesMax).ok());
  const Status refused = Put("d", &Find("d")->dict(), "second", 2 * kDictValueBytesMax);
  EXPECT_EQ(refused.reason(), Reason::kValueInvalid);
  Status full;
  EXPECT_EQ(Fill("d", kDictValueBytesMax, &full), 1);
  EXPECT_EQ(full.reason(), Reason::kMemoryExhausted);
}

}  // namespace
}  // namespace statehouse
