// Real SIGKILLs under a limit of memory: two dicts begin with few slabs and get more while workers
// fill them, ask the service, and are killed. One of them refuses what goes beyond the limit, and
// the other one makes room. No slab is used that has no memory, the kernel counts no more than the
// limit and what lanes fill as they work, and the next service finds all of that.
//
// STATEHOUSE_LONG=1 makes it 500 rounds. Compiled with SH_MUTANT_AT_RUN_TIME the same program seeds
// one bug after the other, and each must be found.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "engine/base/mutant.h"
#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "engine/os/process.h"
#include "engine/state/engine.h"
#include "engine/state/test_keeping_vault.h"
#include "gtest/gtest.h"
#include "tests/soak/dict_soak_work.h"
#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

constexpr int kWorkers = 3;
constexpr int kKillsMost = 3000;   // Of one round, should it never come to a refusal.
constexpr uint32_t kKept = 0;      // The dict that refuses …
constexpr uint32_t kEvicting = 1;  // … and the one that makes room.
constexpr uint32_t kDicts = 2;
constexpr uint64_t kLimitMin = 4 << 20;
constexpr uint64_t kLimitMore = 5 << 20;
// What is not in the promise: in each dict, record and ring of a lane that works, and what recovery
// looks at of the others that its process had.
constexpr uint64_t kBeyondOfLease =
    kDicts * (kLaneRecordBytes + kChangeRingBytes + kLanesPerBlock * 4 * kPageBytes);
constexpr uint64_t kUpkeepEveryNs = 3'000'000;
constexpr size_t kEvictedBytes = 1000;  // Of one size: room is made among blocks of a class.

// A worker's wish, as it goes through the attach socket: the n-th one is answered when `answered`
// is n.
struct alignas(64) Wish {
  std::atomic<uint32_t> asked{0};
  std::atomic<uint32_t> answered{0};
  std::atomic<uint32_t> dict{0};
  std::atomic<bool> granted{false};
};

struct Shared {
  Acknowledged seen[kWorkers];
  Wish wishes[kWorkers];
  std::atomic<uint32_t> bell{0};
};

struct Counts {
  int rounds = 0;
  int kills = 0;
  int killed_asking = 0;
  uint64_t granted = 0;
  uint64_t refusals = 0;
  uint64_t evictions = 0;
  uint64_t changes = 0;
};

struct Worker {
  pid_t pid = -1;
  uint32_t block = 0;
  UniqueFd pidfd;
};

// One service with its two dicts, from their creation to the next service. What is wrong is told,
// not asserted: a seeded bug has to have something wrong.
class Round final {
 public:
  Round(uint32_t seed, Counts* counts) : random_(seed), counts_(*counts) {
    void* page =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(page, MAP_FAILED);
    shared_ = new (page) Shared;
    limit_ = kLimitMin + random_() % kLimitMore;
    StartService();
    for (uint32_t i = 0; i < kDicts; ++i) {
      DictSpec spec;
      spec.name = std::to_string(i);
      spec.max_entries = 8000;
      spec.max_bytes = 64 << 20;
      spec.evict = i == kEvicting;
      auto made = engine_->dicts().Create(spec);
      EXPECT_TRUE(made.ok());
      dicts_[i] = made->dict;
    }
    Begin();
  }
  ~Round() {
    StopServing();
    for (Worker& worker : workers_) {
      if (worker.pid <= 0) continue;
      kill(worker.pid, SIGKILL);
      waitpid(worker.pid, nullptr, 0);
    }
    munmap(shared_, sizeof(Shared));
  }

  // What is wrong first; empty: nothing.
  std::string Run(int kills) {
    server_ = std::thread([this] { Serve(); });
    for (int i = 0; i < kWorkers; ++i) Spawn(i);
    int killed = 0;
    while (wrong_.empty() && (killed < kills || Refusals() == 0) && killed < kKillsMost) {
      SleepNs(random_() % 1'500'000);
      const int victim = static_cast<int>(random_() % kWorkers);
      KillAndRecover(victim);
      ++killed;
      Look();
      Spawn(victim);
    }
    for (int i = 0; i < kWorkers; ++i) KillAndRecover(i);
    StopServing();
    if (Refusals() == 0) Tell("nothing was ever refused");
    LookAtAll(static_cast<uint64_t>(killed) + kWorkers);
    WriteOverWords();
    LookAtNextService();
    counts_.rounds += 1;
    counts_.kills += killed + kWorkers;
    counts_.refusals += Refusals();
    return wrong_;
  }

 private:
  void Tell(const std::string& what) {
    if (wrong_.empty()) wrong_ = what;
  }
  void StartService() {
    EngineOptions options;
    options.memory_bytes_max = limit_;
    for (auto& dict : dicts_) dict.reset();
    engine_.reset();
    auto engine = Engine::Start(options, vault_.GiveAll(), &vault_);
    ASSERT_TRUE(engine.ok()) << engine.status().ToString();
    engine_ = std::move(*engine);
    for (uint32_t i = 0; i < kDicts; ++i) {
      if (auto found = engine_->dicts().Find(std::to_string(i)); found.ok()) dicts_[i] = *found;
    }
  }
  // The accounts, and a slab for each kind of entry that must never be refused.
  void Begin() {
    const auto set = [this](uint32_t dict, const std::string& key, const DictValue& value) {
      EXPECT_TRUE(Set(dict, engine_->DaemonLane(0), key, value).ok());
    };
    for (uint64_t i = 0; i < kSoakAccounts; ++i)
      set(kKept, SoakAccount(i), DictValue::Int64(kSoakAccountStart));
    set(kKept, "counter", DictValue::Int64(0));
    for (int i = 0; i < 200; ++i) {
      const std::string key = EvictedKey(static_cast<uint64_t>(i));
      set(kEvicting, key, DictValue::Bytes(Telling(key, 1, kEvictedBytes)));
    }
  }
  static std::string EvictedKey(uint64_t i) { return "e" + std::to_string(10'000 + i); }
  // In the service's own process.
  Status Set(uint32_t which, const Lane& lane, const std::string& key, const DictValue& value) {
    Dict& dict = dicts_[which]->dict();
    for (;;) {
      DictResult result;
      const Status set = dict.Set(lane, key, value, {}, &result);
      if (set.reason() != Reason::kMemoryExhausted || !dict.AwaitsBacking()) return set;
      if (!engine_->dicts().BackMore(*dicts_[which]).ok()) return set;
    }
  }

  // The service: answers wishes, and tends what there is.
  void Serve() {
    uint64_t tended = 0;
    while (!stopping_) {
      const uint32_t rung = shared_->bell;
      for (Wish& wish : shared_->wishes) {
        const uint32_t asked = wish.asked;
        if (asked == wish.answered) continue;
        wish.granted = engine_->dicts().BackMore(*dicts_[wish.dict % kDicts]).ok();
        counts_.granted += wish.granted ? 1 : 0;
        wish.answered = asked;
        FutexWakeAll(wish.answered);
      }
      FutexWait(shared_->bell, rung, kUpkeepEveryNs);
      if (MonotonicNs() - tended < kUpkeepEveryNs) continue;
      (void)engine_->Scrub();
      tended = MonotonicNs();
    }
  }
  void StopServing() {
    if (!server_.joinable()) return;
    stopping_ = true;
    ++shared_->bell;
    FutexWakeAll(shared_->bell);
    server_.join();
  }

  // In a worker: as clients/c does (LocalDict::FollowUntil).
  Status WithHelp(uint32_t which, const Lane& lane, int index,
                  const std::function<Status()>& change) {
    Dict& dict = dicts_[which]->dict();
    for (;;) {
      const Status status = change();
      if (status.reason() != Reason::kMemoryExhausted || !dict.AwaitsBacking()) return status;
      Wish& wish = shared_->wishes[index];
      wish.dict = which;
      const uint32_t asked = ++wish.asked;
      ++shared_->bell;
      FutexWakeAll(shared_->bell);
      for (uint32_t now = wish.answered; now != asked; now = wish.answered)
        FutexWait(wish.answered, now, kSoakPatienceNs);
      if (!wish.granted && !dict.BackingIsNews(lane)) return status;
    }
  }
  // In a worker: both dicts grow.
  void Grow(const Lane& lane, int index, std::mt19937_64& random) {
    Acknowledged& seen = shared_->seen[index];
    DictResult result;
    const std::string large = "large" + std::to_string(random() % 3000);
    const std::string value = Telling(large, random() % 1000, random() % 3000);
    const Status kept = WithHelp(kKept, lane, index, [&] {
      return dicts_[kKept]->dict().Set(lane, large, DictValue::Bytes(value), {}, &result);
    });
    if (kept.reason() == Reason::kMemoryExhausted) ++seen.refusals;
    const std::string key = EvictedKey(random() % 20'000);
    const std::string other = Telling(key, random() % 10, kEvictedBytes);
    const Status evicting = WithHelp(kEvicting, lane, index, [&] {
      return dicts_[kEvicting]->dict().Set(lane, key, DictValue::Bytes(other), {}, &result);
    });
    if (!evicting.ok()) seen.Fail("a dict that evicts: " + evicting.ToString());
    DictEntry entry;
    bool found = false;
    const Status read = dicts_[kEvicting]->dict().Get(key, &entry, &found, kSoakPatienceNs);
    if (!read.ok() || (found && !IsTelling(key, entry.bytes))) seen.Fail("torn: " + key);
    if (random() % 4 != 0) return;
    const std::string gone = "large" + std::to_string(random() % 3000);
    const Status deleted = dicts_[kKept]->dict().Delete(lane, gone, {}, &result);
    if (!deleted.ok()) seen.Fail("deleting: " + deleted.ToString());
  }
  [[noreturn]] void Work(uint32_t lane_id, int index) {
    const Lane lane{lane_id, kSoakPatienceNs};
    std::mt19937_64 random(std::random_device{}());
    (void)dicts_[kEvicting]->dict().PrepareLanes(lane_id, 1);
    DictSoakOptions options;
    options.may_be_refused = true;
    options.with_help = [&](const std::function<Status()>& change) {
      return WithHelp(kKept, lane, index, change);
    };
    options.more = [&] {
      for (int i = 0; i < 12; ++i) Grow(lane, index, random);
    };
    DictSoakWork(dicts_[kKept]->dict(), lane_id, index, &shared_->seen[index], options).ForEver();
  }

  void Spawn(int index) {
    auto lease = engine_->LeaseLanes(*OpenPidfd(getpid()));
    ASSERT_TRUE(lease.ok()) << lease.status().ToString();
    ++leases_;
    for (const auto& dict : dicts_)
      ASSERT_TRUE(engine_->dicts().OpenForWorker(*dict, lease->block, Access::kReadWrite).ok());
    Worker& worker = workers_[index];
    worker.block = lease->block;
    worker.pid = fork();
    if (worker.pid == 0) Work(lease->first_lane, index);
    worker.pidfd = std::move(*OpenPidfd(worker.pid));
  }
  void KillAndRecover(int index) {
    Worker& worker = workers_[index];
    kill(worker.pid, SIGKILL);
    while (!ProcessHasEnded(worker.pidfd.get())) SleepNs(0);
    const Wish& wish = shared_->wishes[index];
    counts_.killed_asking += wish.asked != wish.answered ? 1 : 0;
    engine_->RecoverBlock(worker.block);
    waitpid(worker.pid, nullptr, 0);
    worker.pid = -1;
  }

  // What the dicts had at first, and their slabs.
  uint64_t Given() const {
    uint64_t bytes = 0;
    for (const auto& dict : dicts_) {
      const uint64_t slabs = dict->dict().slabs_backed() & ~kBackingRefused;
      bytes += dict->record().geometry.first_bytes() + (slabs - 1) * kSlabBytes;
    }
    return bytes;
  }
  std::string AgainstLimit() const { return "the limit is " + std::to_string(limit_); }
  uint64_t Refusals() const {
    uint64_t sum = 0;
    for (const Acknowledged& seen : shared_->seen) sum += seen.refusals;
    return sum;
  }
  uint64_t Kernel() const {
    uint64_t bytes = 0;
    for (const auto& [name, fd] : vault_.kept) {
      if (name.starts_with("dict.")) bytes += *AllocatedBytes(fd.get());
    }
    return bytes;
  }
  // At any moment, whoever is at work.
  void Look() {
    for (const Acknowledged& seen : shared_->seen) {
      if (seen.failures > 0) Tell(seen.failure);
    }
    for (const auto& dict : dicts_) {
      const uint64_t used = dict->dict().SlabsInUse();
      const uint64_t slabs = dict->dict().slabs_backed() & ~kBackingRefused;
      if (used > slabs) {
        Tell("dict " + dict->record().name + " uses " + std::to_string(used) + " slabs, but only " +
             std::to_string(slabs) + " have memory");
      }
      if (*dict->MemoryBytes() < (slabs - 1) * kSlabBytes) Tell("slabs without memory may be used");
    }
    const uint64_t held = Kernel();
    if (held > limit_ + leases_ * kBeyondOfLease)
      Tell(std::to_string(held) + " bytes are held, " + AgainstLimit());
    if (Given() > limit_) Tell(std::to_string(Given()) + " bytes were given, " + AgainstLimit());
  }
  // When all is quiet. Each kill may have left one change that happened and was not acknowledged.
  void LookAtAll(uint64_t kills) {
    Look();
    if (Kernel() > Given() + leases_ * kBeyondOfLease) {
      Tell(std::to_string(Kernel()) + " bytes are held, " + std::to_string(Given()) +
           " were given");
    }
    uint64_t counted = 0;
    uint64_t inserted = 0;
    for (const Acknowledged& seen : shared_->seen) {
      counted += seen.counter;
      inserted += seen.inserts;
    }
    uint64_t fresh = 0;
    uint64_t accounts = 0;
    uint64_t counter = 0;
    for (const auto& dict : dicts_) {
      uint32_t bucket = 0;
      const auto take = [&](DictEntry& entry) {
        fresh += entry.key.starts_with("fresh") ? 1 : 0;
        if (entry.key.starts_with("account")) accounts += entry.bits;
        if (entry.key == "counter") counter = entry.bits;
        if (entry.kind == DictKind::kBytes && !IsTelling(entry.key, entry.bytes))
          Tell("torn: " + entry.key);
      };
      if (!dict->dict().Scan(&bucket, SIZE_MAX, "", take).ok()) Tell("a scan was refused");
      const DictCheck check = dict->dict().Check(true);
      if (!check.faults.empty()) Tell(check.faults[0]);
      if (check.entries != dict->Stats().entries) Tell("the entries are miscounted");
      counts_.changes += dict->Stats().revision;
      counts_.evictions += dict->Stats().evictions;
    }
    if (accounts != uint64_t{kSoakAccounts * kSoakAccountStart}) Tell("a transfer is half there");
    if (counter < counted || counter > counted + kills) Tell("the counter is wrong");
    if (fresh < inserted || fresh > inserted + kills) Tell("inserts were lost or were made up");
    if (dicts_[kKept]->Stats().evictions != 0) Tell("the dict that refuses evicted");
    if (engine_->Scrub() != 0) Tell("something was left held");
  }
  // A worker that ignores the protocol.
  void WriteOverWords() {
    for (const auto& served : dicts_) {
      Dict& dict = served->dict();
      const uint64_t slabs = dict.slabs_backed();
      for (const uint64_t word : {uint64_t{0}, uint64_t{1}, slabs + 1, UINT64_MAX}) {
        dict.SetSlabsBacked(word);
        (void)engine_->Scrub();
        if (dict.slabs_backed() != slabs) Tell("the word stays " + std::to_string(word));
      }
    }
  }
  void LookAtNextService() {
    if (!wrong_.empty()) return;
    const uint64_t before = Kernel();
    const uint64_t slabs[] = {dicts_[0]->dict().slabs_backed(), dicts_[1]->dict().slabs_backed()};
    StartService();
    for (uint32_t i = 0; i < kDicts; ++i) {
      if (dicts_[i]->dict().slabs_backed() != slabs[i]) Tell("the next service has other slabs");
    }
    // It may give back what the last one had too much, and its own lanes are new to some pages.
    const uint64_t after = Kernel();
    if (after > before + kBeyondOfLease) {
      Tell("the next service holds " + std::to_string(after) + " bytes, not " +
           std::to_string(before));
    }
    if (after < Given()) {
      Tell("the next service holds " + std::to_string(after) + " bytes, where " +
           std::to_string(Given()) + " were given");
    }
    const uint64_t counted = engine_->Totals().memory_bytes;
    if (counted != after) {
      Tell("the next service counts " + std::to_string(counted) + " bytes, the kernel " +
           std::to_string(after));
    }
    for (int i = 0;; ++i) {
      const std::string key = "last" + std::to_string(i);
      const std::string value = Telling(key, 1, 2500);
      if (!Set(kKept, engine_->DaemonLane(0), key, DictValue::Bytes(value)).ok()) break;
    }
    Look();
    for (uint32_t i = 0; i < kDicts; ++i) {
      if (!dicts_[i]->dict().Check(true).faults.empty()) Tell("the next service finds faults");
      if (!engine_->dicts().Delete(std::to_string(i)).ok()) Tell("a dict cannot be deleted");
    }
    if (engine_->Totals().memory_bytes != 0) Tell("deleted dicts are counted");
  }

  std::mt19937 random_;
  Counts& counts_;
  Shared* shared_ = nullptr;
  uint64_t limit_ = 0;
  uint64_t leases_ = 1;  // And what the service has.
  KeepingVault vault_;
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<ServedDict> dicts_[kDicts];
  Worker workers_[kWorkers];
  std::thread server_;
  std::atomic<bool> stopping_{false};
  std::string wrong_;
};

constexpr int kKillsPerRound = 12;

#if SH_MUTANT == 0

TEST(DictLimitSoakTest, KilledWorkersUseNoMemoryBeyondTheLimitAndLoseNothing) {
  const int rounds = Rounds(8, 500);
  const uint32_t seed = std::random_device{}();
  Counts counts;

  for (int i = 0; i < rounds; ++i) {
    Round round(seed + static_cast<uint32_t>(i), &counts);
    ASSERT_EQ(round.Run(kKillsPerRound), "") << "round " << i << ", seed " << seed;
  }

  EXPECT_GT(counts.granted, static_cast<uint64_t>(rounds));
  EXPECT_GT(counts.evictions, 0u);
  std::printf(
      "%d kills, %d of workers that waited for memory; %llu wishes granted; %llu changes, "
      "%llu refusals, %llu evictions\n",
      counts.kills, counts.killed_asking, static_cast<unsigned long long>(counts.granted),
      static_cast<unsigned long long>(counts.changes),
      static_cast<unsigned long long>(counts.refusals),
      static_cast<unsigned long long>(counts.evictions));
}

#else

class DictLimitSoakMutantTest : public testing::TestWithParam<Mutant> {};

TEST_P(DictLimitSoakMutantTest, IsFoundByTheFirstRounds) {
  chosen_mutant = GetParam();
  std::string found;
  Counts counts;
  for (uint32_t i = 0; i < 3 && found.empty(); ++i) found = Round(i, &counts).Run(kKillsPerRound);
  chosen_mutant = Mutant::kNone;

  EXPECT_NE(found, "") << "the seeded bug " << static_cast<int>(GetParam()) << " was not found";
  std::printf("round %d: %s\n", counts.rounds, found.c_str());
}

INSTANTIATE_TEST_SUITE_P(EverySeededBug, DictLimitSoakMutantTest,
                         testing::Values(Mutant::kDictUnbackedUsed, Mutant::kDictWordKept));

#endif

}  // namespace
}  // namespace statehouse
