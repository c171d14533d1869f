// The daemon's side of dicts: they outlive a daemon, move to other segments without a loss, and
// what is damaged is left behind.
#include "engine/state/dict_store.h"

#include <unistd.h>

#include <thread>

#include "engine/os/futex.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/test_dict.h"

namespace statehouse {
namespace {

constexpr uint64_t kFirstEntries = 8192;  // What a first segment is made for.
const Lane kLane{1, kOperationTimeoutNsDefault};
#if defined(__SANITIZE_THREAD__)
constexpr int kClosings = 200;
#else
constexpr int kClosings = 2000;  // To meet a moment of some nanoseconds.
#endif
constexpr uint32_t kWorkerBlock = 3;
constexpr uint32_t kWorkerLane = kWorkerBlock * kLanesPerBlock;

// Keeps duplicates, as the keeper does, and refuses from a certain call on.
class CountingVault final : public DescriptorVault {
 public:
  Status Store(const std::string& name, int fd) override {
    if (calls_left-- == 0) return Status(Reason::kUnavailable, "the vault refuses");
    kept[name] = UniqueFd(dup(fd));
    return Status();
  }
  Status Remove(const std::string& name) override {
    if (calls_left-- == 0) return Status(Reason::kUnavailable, "the vault refuses");
    kept.erase(name);
    return Status();
  }
  std::map<std::string, UniqueFd> Inherit() const {
    std::map<std::string, UniqueFd> copies;
    for (const auto& [name, fd] : kept) copies[name] = UniqueFd(dup(fd.get()));
    return copies;
  }

  std::map<std::string, UniqueFd> kept;
  int calls_left = -1;  // 0: the next call is refused.
};

class DictStoreTest : public testing::Test {
 protected:
  DictStoreTest() { Start(); }

  // A new daemon takes over.
  void Start(const DictStoreOptions& options = {}) {
    store.reset();
    warnings.clear();
    auto inherited = vault.Inherit();
    auto started = DictStore::Start(options, &inherited, &vault, &warnings);
    ASSERT_TRUE(started.ok()) << started.status().ToString();
    store = std::move(*started);
    // As Engine does with what no record claims.
    for (const auto& [name, fd] : inherited) {
      if (name.starts_with("dict.") && fd.valid()) vault.kept.erase(name);
    }
  }
  static DictSpec Spec(std::string name, uint64_t max_entries = 100'000,
                       uint64_t max_bytes = 64 << 20) {
    DictSpec spec;
    spec.name = std::move(name);
    spec.max_entries = max_entries;
    spec.max_bytes = max_bytes;
    return spec;
  }
  std::shared_ptr<ServedDict> Create(const DictSpec& spec) {
    auto created = store->Create(spec);
    EXPECT_TRUE(created.ok()) << created.status().ToString();
    return created.ok() ? created->dict : nullptr;
  }
  std::shared_ptr<ServedDict> Find(std::string_view name) {
    auto found = store->Find(name);
    EXPECT_TRUE(found.ok()) << found.status().ToString();
    return found.ok() ? *found : nullptr;
  }
  DictResult Put(ServedDict& served, std::string_view key, const DictValue& value,
                 const DictSetOptions& options = {}) {
    DictResult result;
    const Status status = served.dict().Set(kLane, key, value, options, &result);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return result;
  }
  static DictEntry Get(ServedDict& served, std::string_view key) {
    DictEntry entry;
    bool found = false;
    const Status status = served.dict().Get(key, &entry, &found);
    EXPECT_TRUE(status.ok() && found) << key << ": " << status.ToString();
    return entry;
  }
  static bool Has(ServedDict& served, std::string_view key) {
    DictEntry entry;
    bool found = false;
    EXPECT_TRUE(served.dict().Get(key, &entry, &found).ok());
    return found;
  }
  static void ExpectSound(ServedDict& served) {
    for (const std::string& fault : served.dict().Check(true).faults) ADD_FAILURE() << fault;
  }
  std::vector<std::string> VaultNames() const {
    std::vector<std::string> names;
    for (const auto& [name, fd] : vault.kept) names.push_back(name);
    return names;
  }
  void Move(const std::shared_ptr<ServedDict>& served, DictStore::Move how) {
    const Status moved = store->MoveDict(kLane, served, how);
    ASSERT_TRUE(moved.ok()) << moved.ToString();
  }

  CountingVault vault;
  std::unique_ptr<DictStore> store;
  std::vector<std::string> warnings;
};

TEST_F(DictStoreTest, ADictIsMadeFoundListedAndDeleted) {
  const auto a = Create(Spec("a"));
  const auto b = Create(Spec("b"));

  EXPECT_EQ(Find("a"), a);
  EXPECT_EQ(Find("#" + std::to_string(b->record().index)), b);
  EXPECT_EQ(store->List("", 0, 10).size(), 2u);
  EXPECT_EQ(store->List("b", 0, 10), std::vector<std::shared_ptr<ServedDict>>{b});
  EXPECT_EQ(store->List("", b->record().index, 10).size(), 1u);
  EXPECT_EQ(store->List("", 0, 1), std::vector<std::shared_ptr<ServedDict>>{a});
  ASSERT_TRUE(store->Delete("a").ok());
  EXPECT_EQ(store->Find("a").status().reason(), Reason::kDictNotFound);
  EXPECT_EQ(store->Delete("a").reason(), Reason::kDictNotFound);
  DictResult result;
  EXPECT_EQ(a->dict().Set(kLane, "k", DictValue::Bytes("v"), {}, &result).reason(),
            Reason::kDictNotFound)
      << "whoever still holds it is told";
  EXPECT_EQ(VaultNames(), (std::vector<std::string>{"dict.2.1", "dicts"}));
}

TEST_F(DictStoreTest, TheSameLimitsAreTheSameDictAndOthersAreRefused) {
  DictSpec spec = Spec("a", 1000, 1 << 20);
  spec.default_ttl_ms = 5000;
  spec.evict = true;
  const auto made = Create(spec);

  const auto again = store->Create(spec);
  DictSpec open;
  open.name = "a";
  const auto any = store->Create(open);
  ASSERT_TRUE(again.ok() && any.ok());
  EXPECT_FALSE(again->created);
  EXPECT_EQ(again->dict, made);
  EXPECT_EQ(any->dict, made);
  const auto refused = [&](auto change) {
    DictSpec other = spec;
    change(&other);
    return store->Create(other).status().reason();
  };
  EXPECT_EQ(refused([](DictSpec* s) { s->max_entries = 1001; }), Reason::kDictExists);
  EXPECT_EQ(refused([](DictSpec* s) { s->max_bytes = 2 << 20; }), Reason::kDictExists);
  EXPECT_EQ(refused([](DictSpec* s) { s->default_ttl_ms = 0; }), Reason::kDictExists);
  EXPECT_EQ(refused([](DictSpec* s) { s->evict = false; }), Reason::kDictExists);
  EXPECT_EQ(refused([](DictSpec* s) { s->exclusive = true; }), Reason::kDictExists);
}

TEST_F(DictStoreTest, LimitsHoldAtTheLimitAndRefuseOnePast) {
  Start({2, 8 << 20});
  EXPECT_EQ(store->Create(Spec("")).status().reason(), Reason::kNameInvalid);
  EXPECT_EQ(store->Create(Spec("a", 0)).status().reason(), Reason::kSizeInvalid);
  EXPECT_EQ(store->Create(Spec("a", kDictEntriesMax + 1)).status().reason(), Reason::kSizeInvalid);
  EXPECT_EQ(store->Create(Spec("a", 1, kSlabBytes - 1)).status().reason(), Reason::kSizeInvalid);
  EXPECT_EQ(store->Create(Spec("a", 1, (8 << 20) + 1)).status().reason(), Reason::kSizeInvalid);
  EXPECT_TRUE(store->Create(Spec("a", 1, kSlabBytes)).ok());
  EXPECT_TRUE(store->Create(Spec("b", kDictEntriesMax, 8 << 20)).ok());
  EXPECT_EQ(store->Create(Spec("c", 1, kSlabBytes)).status().reason(), Reason::kLimitExceeded);
  ASSERT_TRUE(store->Delete("a").ok());
  EXPECT_TRUE(store->Create(Spec("c", 1, kSlabBytes)).ok());
}

TEST_F(DictStoreTest, ARestartKeepsEverything) {
  Create(Spec("first"));
  DictSpec spec = Spec("a", 1000, 4 << 20);
  spec.default_ttl_ms = 3'600'000;
  auto before = Create(spec);
  DictSetOptions fenced;
  fenced.fence = 7;
  Put(*before, "key", DictValue::Bytes("value"), fenced);
  Put(*before, "number", DictValue::Int64(5));
  Put(*before, "gone", DictValue::Int64(5));
  DictResult result;
  ASSERT_TRUE(before->dict().Delete(kLane, "gone", {}, &result).ok());
  const DictEntry key = Get(*before, "key");
  const DictStats stats = before->Stats();
  const DictRecord record = before->record();
  before.reset();

  Start();

  EXPECT_TRUE(warnings.empty());
  const auto after = Find("a");
  const DictEntry kept = Get(*after, "key");
  EXPECT_EQ(kept.bytes, "value");
  EXPECT_EQ(kept.version, key.version);
  EXPECT_EQ(kept.expires_ms, key.expires_ms);
  EXPECT_EQ(kept.fence, 7u);
  EXPECT_EQ(kept.ordinal, key.ordinal);
  EXPECT_EQ(Get(*after, "number").bits, 5u);
  EXPECT_EQ(after->Stats().revision, stats.revision);
  EXPECT_EQ(after->Stats().entries, 2u);
  EXPECT_EQ(after->record().index, record.index);
  EXPECT_EQ(after->record().geometry, record.geometry);
  EXPECT_EQ(after->record().create_time_ns, record.create_time_ns);
  EXPECT_EQ(Create(Spec("next"))->record().index, record.index + 1) << "numbers are not reused";
  ExpectSound(*after);
}

TEST_F(DictStoreTest, ADictGrowsAndKeepsEntriesVersionsOrderAndRevision) {
  const auto first = Create(Spec("a"));
  DictResult result;
  Status status;
  uint64_t inserted = 0;
  for (; status.ok(); ++inserted) {
    status = first->dict().Set(kLane, "k" + std::to_string(inserted),
                               DictValue::Int64(static_cast<int64_t>(inserted)), {}, &result);
  }
  --inserted;
  EXPECT_EQ(status.reason(), Reason::kLimitExceeded);
  EXPECT_EQ(inserted, kFirstEntries);
  ASSERT_TRUE(DictStore::CanGrow(*first));
  const DictStats before = first->Stats();
  const uint64_t highest = first->dict().HighestVersion();

  Move(first, DictStore::Move::kGrow);

  const auto second = Find("a");
  ASSERT_NE(second, first);
  EXPECT_EQ(first->dict().state(), DictState::kMoved);
  EXPECT_EQ(second->Stats().entries, kFirstEntries);
  EXPECT_EQ(second->Stats().revision, before.revision);
  uint64_t ordinal = 0;
  for (uint64_t i = 0; i < kFirstEntries; ++i) {
    const DictEntry entry = Get(*second, "k" + std::to_string(i));
    ASSERT_EQ(entry.bits, i);
    ASSERT_LE(entry.version, highest);
    ASSERT_GT(entry.ordinal, ordinal);
    ordinal = entry.ordinal;
  }
  EXPECT_GT(Put(*second, "k0", DictValue::Int64(0)).version, highest);
  EXPECT_GT(Put(*second, "one more", DictValue::Int64(0)).version, highest);
  EXPECT_EQ(second->Stats().revision, before.revision + 2);
  ExpectSound(*second);
  EXPECT_EQ(VaultNames(), (std::vector<std::string>{"dict.1.2", "dicts"}));
  Move(first, DictStore::Move::kGrow);
  EXPECT_EQ(Find("a"), second) << "who comes late changes nothing";
}

TEST_F(DictStoreTest, ADictThatHasItsLimitGrowsNoFurther) {
  const auto first = Create(Spec("a", kFirstEntries + 1));
  Move(first, DictStore::Move::kGrow);
  const auto second = Find("a");
  EXPECT_EQ(second->record().geometry.entries_max, kFirstEntries + 1);
  EXPECT_FALSE(DictStore::CanGrow(*second));
  Move(second, DictStore::Move::kGrow);
  EXPECT_EQ(Find("a"), second);
}

TEST_F(DictStoreTest, AClearedDictIsEmptyAndGoesOnWithHigherVersions) {
  const auto first = Create(Spec("a"));
  const uint64_t version = Put(*first, "k", DictValue::Bytes("v")).version;
  Put(*first, "l", DictValue::Bytes("v"));
  const uint64_t revision = first->Stats().revision;

  uint64_t entries = 0;
  bool cleared = false;
  ASSERT_TRUE(store->ClearDict(kLane, first, &entries, &cleared).ok());

  EXPECT_TRUE(cleared);
  EXPECT_EQ(entries, 2u);
  const auto second = Find("a");
  EXPECT_FALSE(Has(*second, "k"));
  EXPECT_GT(Put(*second, "k", DictValue::Bytes("w")).version, version);
  EXPECT_GE(second->Stats().revision, revision + 1);
  ASSERT_TRUE(store->ClearDict(kLane, first, &entries, &cleared).ok());
  EXPECT_FALSE(cleared);
  EXPECT_TRUE(Has(*second, "k"));
}

TEST_F(DictStoreTest, AMoveThatTheVaultRefusesLeavesADictThatWorks) {
  auto served = Create(Spec("a"));
  Put(*served, "k", DictValue::Bytes("v"));
  for (int calls = 0; calls < 2; ++calls) {
    vault.calls_left = calls;
    EXPECT_EQ(store->MoveDict(kLane, served, DictStore::Move::kSalvage).reason(),
              Reason::kUnavailable);
    vault.calls_left = -1;

    served = Find("a");
    EXPECT_EQ(Get(*served, "k").bytes, "v");
    Put(*served, "again", DictValue::Int64(calls));
    Start();
    EXPECT_TRUE(warnings.empty());
    served = Find("a");
    EXPECT_EQ(Get(*served, "k").bytes, "v");
    EXPECT_EQ(Get(*served, "again").bits, static_cast<uint64_t>(calls));
    EXPECT_EQ(vault.kept.size(), 2u) << "no segment is left over";
  }
}

TEST_F(DictStoreTest, AWriterThatIsStuckInsideStopsAMoveAndNothingElse) {
  const auto served = Create(Spec("a"));
  Put(*served, "k", DictValue::Bytes("v"));
  const uint32_t bucket = DictInternals::BucketOf(served->dict(), "k");
  std::atomic<uint64_t>& control = DictInternals::Bucket(served->dict(), bucket).control;
  control = control.load() | kWorkerLane;

  EXPECT_EQ(store->MoveDict(kLane, served, DictStore::Move::kSalvage).reason(), Reason::kStalled);

  EXPECT_EQ(Find("a"), served);
  EXPECT_EQ(served->dict().state(), DictState::kLive);
  EXPECT_EQ(Get(*served, "k").bytes, "v");
  control = ReleasedUnchanged(control.load());
  Put(*served, "k", DictValue::Bytes("w"));
  Move(served, DictStore::Move::kSalvage);
  EXPECT_EQ(Get(*Find("a"), "k").bytes, "w");
}

TEST_F(DictStoreTest, WhoeverFindsTheNextSegmentFindsTheOneBeforeClosed) {
  auto served = Create(Spec("a"));
  std::atomic<bool> done{false};
  std::atomic<int> seen{-1};
  std::thread watcher([&] {
    std::shared_ptr<ServedDict> last = *store->Find("a");
    seen = 0;
    for (int i = 0; !done; ++i) {
      if (i % 64 == 0) SleepNs(0);  // The mover must get its turn.
      std::shared_ptr<ServedDict> now = *store->Find("a");
      if (now == last) continue;
      EXPECT_EQ(last->dict().state(), DictState::kMoved);
      last = std::move(now);
      ++seen;
    }
  });
  for (int i = 0; i < kClosings; ++i) {
    while (seen < i) CpuRelax();
    Move(Find("a"), DictStore::Move::kClear);
  }
  done = true;
  watcher.join();
}

TEST_F(DictStoreTest, ARestartWhileAStoppedWorkerHoldsTheAllocatorLosesNoDict) {
  auto served = Create(Spec("a"));
  Put(*served, "k", DictValue::Bytes("v"));
  // The last daemon died within a transaction, whose block waits for the allocator.
  DictLaneRecord& record = DictInternals::Record(served->dict(), kLane.id);
  Magazine& magazine = record.magazines[2];
  ASSERT_GT(magazine.count.load(), 0u);
  record.staged[0] = magazine.refs[--magazine.count].load();
  record.staged_count = 1;
  std::atomic<uint64_t>& control = DictInternals::Allocator(served->dict()).control;
  control = control.load() | kWorkerLane;
  served.reset();

  Start();

  EXPECT_TRUE(warnings.empty());
  served = Find("a");
  EXPECT_EQ(Get(*served, "k").bytes, "v");
  std::atomic<uint64_t>& now = DictInternals::Allocator(served->dict()).control;
  now = ReleasedUnchanged(now.load());
  Put(*served, "k", DictValue::Bytes("w"));
  ExpectSound(*served);
}

TEST_F(DictStoreTest, ADeletionThatWasCutShortIsFinishedByTheNextDaemon) {
  auto served = Create(Spec("a"));
  Create(Spec("b"));
  served->dict().SetState(DictState::kDeleted);
  served.reset();

  Start();

  EXPECT_EQ(store->Find("a").status().reason(), Reason::kDictNotFound);
  EXPECT_NE(Find("b"), nullptr);
  EXPECT_EQ(VaultNames(), (std::vector<std::string>{"dict.2.1", "dicts"}));
}

TEST_F(DictStoreTest, ADictWhoseSegmentWasNotKeptIsToldAndTakesNoOtherWithIt) {
  Create(Spec("a"));
  Create(Spec("b"));
  vault.kept.erase("dict.1.1");

  Start();

  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("\"a\""), std::string::npos);
  EXPECT_NE(Find("b"), nullptr);
}

TEST_F(DictStoreTest, LanesOfADeadWorkerAreRecoveredInEveryDictTheyCanHaveChanged) {
  const auto a = Create(Spec("a"));
  const auto b = Create(Spec("b"));
  ASSERT_TRUE(store->OpenForWorker(*a, kWorkerBlock, Access::kReadWrite).ok());
  EXPECT_EQ(store->AttachedProcesses(a->record().id), 1u);
  EXPECT_EQ(store->AttachedProcesses(b->record().id), 0u);
  ASSERT_TRUE(a->dict().PrepareLanes(kWorkerLane, kLanesPerBlock).ok());
  std::atomic<uint64_t>& control = DictInternals::Bucket(a->dict(), 5).control;
  DictLaneRecord& record = DictInternals::Record(a->dict(), kWorkerLane);
  record.intent = 5 | uint64_t{1} << 32;
  control = control.load() | kWorkerLane;

  EXPECT_EQ(store->RecoverLanes(kWorkerLane, kLanesPerBlock), 0u) << "nothing was half done";

  EXPECT_EQ(OwnerOf(control.load()), 0u);
  EXPECT_EQ(store->AttachedProcesses(a->record().id), 0u);
}

TEST_F(DictStoreTest, UpkeepRemovesWhatExpiredAndMendsWhatNobodyHolds) {
  const auto served = Create(Spec("a"));
  DictSetOptions brief;
  brief.ttl = {DictTtl::Kind::kSet, 1};
  Put(*served, "brief", DictValue::Bytes("v"), brief);
  Put(*served, "lasting", DictValue::Bytes("v"));
  const uint64_t until = served->dict().NowMs() + 1;
  while (served->dict().NowMs() <= until) CpuRelax();
  std::atomic<uint64_t>& control = DictInternals::Bucket(served->dict(), 5).control;
  control = control.load() | 99;

  uint32_t mended = 0;
  for (int i = 0; i < 20; ++i) {
    mended += store->Maintain(kLane, [](uint32_t lane) { return lane < kLanesPerBlock; });
  }

  EXPECT_EQ(mended, 1u);
  EXPECT_EQ(served->Stats().expirations, 1u);
  EXPECT_EQ(served->Stats().entries, 1u);
  EXPECT_EQ(store->Totals().expirations, 1u);
  EXPECT_EQ(store->Totals().repairs, 1u);
}

}  // namespace
}  // namespace statehouse
