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
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "engine/base/hash.h"
#include "engine/os/futex.h"
#include "engine/os/process.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/dict_store.h"
#include "engine/state/engine.h"
#include "engine/state/test_dict.h"
#include "gtest/gtest.h"
#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

constexpr int kWorkers = 3;
constexpr int kKeys = 48;
constexpr int kAccounts = 8;
constexpr int64_t kAccountStart = 1000;
constexpr uint64_t kPatienceNs = uint64_t{30} * 1'000'000'000;

// What one worker has seen acknowledged; it outlives the worker.
struct alignas(64) Acknowledged {
  std::atomic<uint64_t> counter{0};
  std::atomic<uint64_t> inserts{0};   // Of keys that nobody had before.
  std::atomic<uint64_t> own{0};       // What it wrote last to its own key …
  std::atomic<uint64_t> own_next{0};  // … and what it was about to write.
  std::atomic<uint64_t> changes{0};
  std::atomic<uint64_t> failures{0};
  char failure[256] = {};  // The first one.
};

class NoVault final : public DescriptorVault {
 public:
  Status Store(const std::string&, int) override { return Status(); }
  Status Remove(const std::string&) override { return Status(); }
};

std::string KeyOf(uint64_t i) { return "key" + std::to_string(i); }
std::string AccountOf(uint64_t i) { return "account" + std::to_string(i); }
std::string OwnOf(int index) { return "own" + std::to_string(index); }

uint64_t SumOf(std::string_view key, std::string_view content) {
  return HashKey({1, 2}, key) ^ HashKey({3, 4}, content);
}
// A value that tells what it has to be: a sum over its key and its content, then the content.
std::string Telling(std::string_view key, uint64_t number) {
  const size_t bytes = number % 997 == 0 ? 70'000 + number % 1000 : number % 400;
  std::string content(bytes, static_cast<char>('a' + number % 26));
  content += std::to_string(number);
  const uint64_t sum = SumOf(key, content);
  return std::string(reinterpret_cast<const char*>(&sum), sizeof sum) + content;
}
bool IsTelling(std::string_view key, std::string_view value) {
  uint64_t sum = 0;
  if (value.size() < sizeof sum) return false;
  std::memcpy(&sum, value.data(), sizeof sum);
  return sum == SumOf(key, value.substr(sizeof sum));
}

// A worker's life.
class Work final {
 public:
  Work(Dict& dict, uint32_t lane, int index, Acknowledged* seen)
      : dict_(dict),
        lane_{lane, kPatienceNs},
        index_(index),
        seen_(*seen),
        random_(std::random_device{}()) {}

  [[noreturn]] void ForEver() {
    Expect(dict_.PrepareLanes(lane_.id, 1), "preparing the lane");
    CheckOwn();
    for (;;) {
      for (int i = 0; i < 16; ++i) Count();
      for (int i = 0; i < 4; ++i) WriteOwn();
      for (int i = 0; i < 4; ++i) Transfer();
      Churn();
      InsertFresh();
      Look();
    }
  }

 private:
  void Fail(const std::string& what) {
    if (seen_.failures++ == 0) std::strncpy(seen_.failure, what.c_str(), sizeof seen_.failure - 1);
  }
  bool Expect(const Status& status, const char* what) {
    if (!status.ok()) Fail(std::string(what) + ": " + status.ToString());
    return status.ok();
  }

  void Count() {
    DictIncrement one;
    one.delta = DictValue::Int64(1);
    DictResult result;
    if (Expect(dict_.Increment(lane_, "counter", one, &result), "adding")) ++seen_.counter;
  }
  // The predecessor's last write is there; the one that it was about to make may be.
  void CheckOwn() {
    DictEntry entry;
    bool found = false;
    if (!Expect(dict_.Get(OwnOf(index_), &entry, &found, kPatienceNs), "reading")) return;
    const uint64_t number = found ? entry.bits : 0;
    if (number != seen_.own && number != seen_.own_next) {
      Fail("own key holds " + std::to_string(number) + ", acknowledged was " +
           std::to_string(seen_.own));
    }
    seen_.own = number;
    seen_.own_next = number;
  }
  void WriteOwn() {
    ++seen_.own_next;
    const auto number = static_cast<int64_t>(seen_.own_next.load());
    DictResult result;
    if (Expect(dict_.Set(lane_, OwnOf(index_), DictValue::Int64(number), {}, &result), "setting"))
      seen_.own.store(static_cast<uint64_t>(number));
    CheckOwn();
  }
  void Churn() {
    const std::string key = KeyOf(random_() % kKeys);
    DictResult result;
    if (random_() % 3 == 0) {
      if (!Expect(dict_.Delete(lane_, key, {}, &result), "deleting")) return;
    } else {
      const std::string value = Telling(key, random_() % 100'000);
      if (!Expect(dict_.Set(lane_, key, DictValue::Bytes(value), {}, &result), "setting")) return;
    }
    ++seen_.changes;
  }
  void Transfer() {
    const auto amount = static_cast<int64_t>(random_() % 9) - 4;
    const uint64_t from = random_() % kAccounts;
    const uint64_t to = (from + 1 + random_() % (kAccounts - 1)) % kAccounts;
    const std::string names[] = {AccountOf(from), AccountOf(to), KeyOf(random_() % kKeys)};
    const std::string value = Telling(names[2], random_() % 1000);
    DictOperation steps[3];
    for (int i = 0; i < 2; ++i) {
      steps[i].kind = DictOperation::Kind::kIncrement;
      steps[i].key = names[i];
      steps[i].increment.delta = DictValue::Int64(i == 0 ? -amount : amount);
    }
    steps[2].kind = DictOperation::Kind::kSet;
    steps[2].key = names[2];
    steps[2].value = DictValue::Bytes(value);
    DictTransactionResult result;
    Expect(dict_.Transact(lane_, {}, steps, {}, &result), "a transaction");
  }
  // Keys that come and stay, so that lines are hung on buckets and slabs are cut.
  void InsertFresh() {
    if (random_() % 8 != 0) return;
    const std::string key = "fresh" + std::to_string(random_() % 2000);
    DictSetOptions absent;
    absent.condition.kind = DictCondition::Kind::kAbsent;
    DictResult result;
    if (Expect(dict_.Set(lane_, key, DictValue::Bytes(Telling(key, 7)), absent, &result),
               "inserting") &&
        result.applied) {
      ++seen_.inserts;
    }
  }
  void Look() {
    DictEntry entry;
    bool found = false;
    const std::string key = KeyOf(random_() % kKeys);
    if (Expect(dict_.Get(key, &entry, &found, kPatienceNs), "reading") && found &&
        !IsTelling(key, entry.bytes)) {
      Fail("the value of " + key + " is torn");
    }
    if (random_() % 1024 == 0) LookAtAll();
    if (random_() % 16 == 0) LookAtAccounts();
  }
  void LookAtAll() {
    uint32_t bucket = 0;
    const auto take = [this](DictEntry& entry) {
      const bool tells = entry.key.starts_with("key") || entry.key.starts_with("fresh");
      if (tells && !IsTelling(entry.key, entry.bytes)) Fail("a scan sees a torn value");
    };
    Expect(dict_.Scan(&bucket, SIZE_MAX, "", take, kPatienceNs), "scanning");
  }
  void LookAtAccounts() {
    std::vector<std::string> names;
    for (uint64_t i = 0; i < kAccounts; ++i) names.push_back(AccountOf(i));
    std::vector<DictOperation> reads(kAccounts);
    for (size_t i = 0; i < kAccounts; ++i) reads[i].key = names[i];
    DictTransactionResult result;
    if (!Expect(dict_.Transact(lane_, {}, reads, {}, &result), "reading accounts")) return;
    int64_t sum = 0;
    for (const auto& read : result.results) sum += static_cast<int64_t>(read.entry.bits);
    if (sum != kAccounts * kAccountStart) Fail("the accounts hold " + std::to_string(sum));
  }

  Dict& dict_;
  const Lane lane_;
  const int index_;
  Acknowledged& seen_;
  std::mt19937_64 random_;
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
    for (uint64_t i = 0; i < kAccounts; ++i) {
      DictResult result;
      ASSERT_TRUE(dict_->dict()
                      .Set(engine_->DaemonLane(0), AccountOf(i), DictValue::Int64(kAccountStart),
                           {}, &result)
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
    if (worker.pid == 0) Work(dict_->dict(), lease->first_lane, index, &seen_[index]).ForEver();
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
  EXPECT_EQ(accounts, uint64_t{kAccounts * kAccountStart});
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
