// Real SIGKILLs: workers change one dict in every way there is, one of them at a time is killed at
// a random moment and its lanes are recovered while the others go on. Nothing acknowledged may be
// lost, no value may be torn, no transaction may be half there, and nobody may stay blocked.
//
// STATEHOUSE_LONG=1 makes it 10,000 kills.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <string>

#include "engine/os/futex.h"
#include "engine/os/process.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/dict_store.h"
#include "engine/state/engine.h"
#include "engine/state/test_dict.h"
#include "gtest/gtest.h"
#include "tests/soak/dict_soak_work.h"
#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

constexpr int kWorkers = 3;

class NoVault final : public DescriptorVault {
 public:
  Status Store(const std::string&, int) override { return Status(); }
  Status Remove(const std::string&) override { return Status(); }
};

struct Worker {
  pid_t pid = -1;
  uint32_t block = 0;
  UniqueFd pidfd;
};

class DictSoakTest : public testing::Test {
 protected:
  void SetUp() override {
    auto engine = Engine::Start({}, {}, &vault_);
    ASSERT_TRUE(engine.ok());
    engine_ = std::move(*engine);
    DictSpec spec;
    spec.name = "soak";
    spec.max_entries = 4000;
    spec.max_bytes = 64 << 20;
    auto made = engine_->dicts().Create(spec);
    ASSERT_TRUE(made.ok());
    dict_ = made->dict;
    for (uint64_t i = 0; i < kSoakAccounts; ++i) {
      DictResult result;
      ASSERT_TRUE(dict_->dict()
                      .Set(engine_->DaemonLane(0), SoakAccount(i),
                           DictValue::Int64(kSoakAccountStart), {}, &result)
                      .ok());
    }
    void* page =
        mmap(nullptr, kSeenBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(page, MAP_FAILED);
    seen_ = new (page) Acknowledged[kWorkers];
  }
  void TearDown() override {
    for (Worker& worker : workers_) {
      if (worker.pid > 0) {
        kill(worker.pid, SIGKILL);
        waitpid(worker.pid, nullptr, 0);
      }
    }
    munmap(seen_, kSeenBytes);
  }

  void Spawn(int index) {
    // As in the areas' soak: what matters here is the lane, and that it is recovered.
    auto lease = engine_->LeaseLanes(*OpenPidfd(getpid()));
    ASSERT_TRUE(lease.ok()) << lease.status().ToString();
    ASSERT_TRUE(engine_->dicts().OpenForWorker(*dict_, lease->block, Access::kReadWrite).ok());
    Worker& worker = workers_[index];
    worker.block = lease->block;
    worker.pid = fork();
    if (worker.pid == 0)
      DictSoakWork(dict_->dict(), lease->first_lane, index, &seen_[index]).ForEver();
    worker.pidfd = std::move(*OpenPidfd(worker.pid));
  }
  void KillAndRecover(int index) {
    Worker& worker = workers_[index];
    kill(worker.pid, SIGKILL);
    while (!ProcessHasEnded(worker.pidfd.get())) SleepNs(0);
    held_ += HeldSomething(worker.block * kLanesPerBlock) ? 1 : 0;
    engine_->RecoverBlock(worker.block);
    waitpid(worker.pid, nullptr, 0);
    worker.pid = -1;
  }
  // Whether the dead lane holds the lock that it took first.
  bool HeldSomething(uint32_t lane) const {
    Dict& dict = dict_->dict();
    const auto id = static_cast<uint32_t>(dict.LaneRecordOf(lane).intent.load());
    const std::byte* const admission = DictInternals::Base(dict) + kAdmissionLineOffset;
    const std::atomic<uint64_t>& word =
        id == kAllocatorLock   ? DictInternals::Allocator(dict).control
        : id == kAdmissionLock ? reinterpret_cast<const AdmissionLine*>(admission)->control
                               : DictInternals::Bucket(dict, id).control;
    return OwnerOf(word.load()) == lane;
  }
  uint64_t Sum(std::atomic<uint64_t> Acknowledged::*member) const {
    uint64_t sum = 0;
    for (int i = 0; i < kWorkers; ++i) sum += (seen_[i].*member).load();
    return sum;
  }
  std::string FirstFailure() const {
    for (int i = 0; i < kWorkers; ++i) {
      if (seen_[i].failures > 0) return seen_[i].failure;
    }
    return "";
  }
  uint64_t Number(std::string_view key) const {
    DictEntry entry;
    bool found = false;
    EXPECT_TRUE(dict_->dict().Get(key, &entry, &found).ok());
    return found ? entry.bits : 0;
  }
  void ExpectAllIsRight(uint64_t kills_most);

  static constexpr size_t kSeenBytes = 4096;
  static_assert(sizeof(Acknowledged) * kWorkers <= kSeenBytes);
  NoVault vault_;
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<ServedDict> dict_;
  Acknowledged* seen_ = nullptr;
  Worker workers_[kWorkers];
  int held_ = 0;  // Kills that met a worker inside a critical section.
};

// Each kill may have left one change that happened and was not acknowledged.
void DictSoakTest::ExpectAllIsRight(uint64_t kills_most) {
  EXPECT_GE(Number("counter"), Sum(&Acknowledged::counter));
  EXPECT_LE(Number("counter"), Sum(&Acknowledged::counter) + kills_most);
  uint64_t fresh = 0;
  uint64_t accounts = 0;
  uint32_t bucket = 0;
  const auto take = [&](DictEntry& entry) {
    fresh += entry.key.starts_with("fresh") ? 1 : 0;
    if (entry.key.starts_with("account")) accounts += entry.bits;
    if (entry.kind == DictKind::kBytes) {
      EXPECT_TRUE(IsTelling(entry.key, entry.bytes)) << entry.key;
    }
  };
  ASSERT_TRUE(dict_->dict().Scan(&bucket, SIZE_MAX, "", take).ok());
  EXPECT_EQ(accounts, uint64_t{kSoakAccounts * kSoakAccountStart});
  EXPECT_GE(fresh, Sum(&Acknowledged::inserts));
  EXPECT_LE(fresh, Sum(&Acknowledged::inserts) + kills_most);
  EXPECT_GT(Sum(&Acknowledged::changes), 0u);
  const DictCheck check = dict_->dict().Check(true);
  for (const std::string& fault : check.faults) ADD_FAILURE() << fault;
  EXPECT_EQ(check.entries, dict_->Stats().entries);
  EXPECT_EQ(engine_->Scrub(), 0u) << "something was left held";
}

TEST_F(DictSoakTest, KilledWorkersLoseNothingAndBlockNobody) {
  const int kills = Rounds(400, 10'000);
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int i = 0; i < kWorkers; ++i) Spawn(i);

  for (int i = 0; i < kills; ++i) {
    // Some die young, while they fault their pages in; others when they are in full swing.
    SleepNs(random() % (i % 2 == 0 ? 2'000'000 : 20'000'000));
    const int victim = static_cast<int>(random() % kWorkers);
    KillAndRecover(victim);
    Spawn(victim);
    ASSERT_EQ(FirstFailure(), "") << "after kill " << i;
  }
  for (int i = 0; i < kWorkers; ++i) KillAndRecover(i);

  ExpectAllIsRight(static_cast<uint64_t>(kills) + kWorkers);
  std::printf("%d kills, %d inside a critical section, %llu changes, %llu redos\n", kills, held_,
              static_cast<unsigned long long>(dict_->Stats().revision),
              static_cast<unsigned long long>(engine_->Totals().redos));
}

}  // namespace
}  // namespace statehouse
