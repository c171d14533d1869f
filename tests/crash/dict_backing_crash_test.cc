// A service that has a limit of memory is killed wherever it gives a dict more: after it reserved,
// between any two pieces that it allocates, after the word is written. The next one uses no slab
// without memory, keeps no memory that no slab may use, counts what the kernel counts, and ends
// with as much in the dict as if nobody had been killed.
//
// Compiled with SH_MUTANT_AT_RUN_TIME the same program seeds one bug after the other, and each must
// be found.
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>

#include "engine/base/mutant.h"
#include "engine/os/memory.h"
#include "engine/state/dict_store.h"
#include "engine/state/test_keeping_vault.h"
#include "gtest/gtest.h"
#include "tests/crash/stepper.h"

namespace statehouse {
namespace {

constexpr uint64_t kSlabsGiven = 8;     // What the limit leaves a dict beside what every one has.
constexpr size_t kValueBytes = 30'000;  // Two of them fill a slab.
const Lane kLane{1, kOperationTimeoutNsDefault};

// A dict and the service that has it. Violations are told, not asserted: a seeded bug has to have
// some.
class Scene final {
 public:
  explicit Scene(bool evict) {
    DictSpec spec;
    spec.name = "a";
    spec.max_entries = 1000;
    spec.max_bytes = 4 << 20;
    spec.evict = evict;
    Start(0);
    // As large as its fixed part ever gets: a lane fills its ring and its record as it works.
    served_ = store->Create(spec)->dict;
    for (int i = 0; i < 1000; ++i) {
      DictResult result;
      const std::string filler(200, 'f');
      (void)served_->dict().Set(kLane, "k0", DictValue::Bytes(filler), {}, &result);
      (void)served_->dict().Delete(kLane, "k0", {}, &result);
    }
    limit_ = Kernel() + kSlabsGiven * kSlabBytes;
    Start(limit_);
    base_ = Kernel();
    first_slabs_ = Slabs();
  }

  // The next service takes over what there is.
  void Start(uint64_t limit) {
    served_.reset();
    store.reset();
    budget = std::make_unique<MemoryBudget>(limit, [this] { return store->MemoryBytes(); });
    DictStoreOptions options;
    options.memory = budget.get();
    std::vector<std::string> warnings;
    std::map<std::string, UniqueFd> inherited = vault_.GiveAll();
    auto started = DictStore::Start(options, &inherited, &vault_, &warnings);
    if (!started.ok()) return Tell("it does not start: " + started.status().ToString());
    store = std::move(*started);
    const auto found = store->Find("a");
    if (found.ok()) served_ = *found;
  }
  void StartAgain() { Start(limit_); }

  // By the word in the segment.
  uint64_t Slabs() const { return served_->dict().slabs_backed() & ~kBackingRefused; }
  uint64_t Kernel() const {
    uint64_t bytes = 0;
    for (const auto& [name, fd] : vault_.kept) {
      if (name.starts_with("dict.")) bytes += *AllocatedBytes(fd.get());
    }
    return bytes;
  }
  // What the segment shows of the service that is at work.
  std::string Look() const {
    return std::to_string(served_->dict().slabs_backed()) + " slabs, " + std::to_string(Kernel());
  }
  void Tell(const std::string& what) {
    if (violation.empty()) violation = what;
  }
  // At any moment.
  void CheckWord() {
    if (Kernel() < base_ + (Slabs() - first_slabs_) * kSlabBytes) {
      Tell("slabs may be used that have no memory: " + Look());
    }
    if (Kernel() > limit_) Tell("it holds more than the limit: " + Look());
  }
  // Of a service that has nothing to do.
  void CheckCounts() {
    CheckWord();
    if (Kernel() != base_ + (Slabs() - first_slabs_) * kSlabBytes) {
      Tell("slabs that may not be used have memory: " + Look() + ", base " + std::to_string(base_) +
           " with " + std::to_string(first_slabs_));
    }
    if (budget->Used() != Kernel()) {
      Tell("it counts " + std::to_string(budget->Used()) + " instead of " +
           std::to_string(Kernel()));
    }
    if (served_->dict().BackingIsRefused()) Tell("a refusal outlives the service that gave it");
  }
  // Sets one key after another, as a door does, until that is refused or something is evicted.
  // Returns how many that were.
  int Fill() {
    const std::string value(kValueBytes, 'v');
    for (int i = 0;; ++i) {
      Status set;
      do {
        DictResult result;
        set = served_->dict().Set(kLane, std::to_string(i), DictValue::Bytes(value), {}, &result);
      } while (set.reason() == Reason::kMemoryExhausted && store->BackMore(*served_).ok());
      CheckWord();
      if (!set.ok() || served_->Stats().evictions > 0) return i;
    }
  }
  Dict& dict() { return served_->dict(); }
  ServedDict& served() { return *served_; }

  std::unique_ptr<DictStore> store;
  std::unique_ptr<MemoryBudget> budget;
  std::string violation;  // The first one.

 private:
  KeepingVault vault_;
  std::shared_ptr<ServedDict> served_;
  uint64_t limit_ = 0;
  uint64_t base_ = 0;
  uint64_t first_slabs_ = 0;
};

struct Killed {
  int kills = 0;
  std::string violation;
};

// Kills the service when it has changed the dict's memory or its word for the n-th time, beginning
// with none, and looks at the next one.  `times`: how often it gives memory before that.
Killed KillWhileBacking(bool evict, int times) {
  Killed killed;
  int filled = -1;
  for (bool cut = true; cut && killed.violation.empty(); ++killed.kills) {
    Scene scene(evict);
    for (int i = 0; i < times; ++i) (void)scene.store->BackMore(scene.served());
    int changes = 0;
    std::string last = scene.Look();
    const auto work = [&scene] { (void)scene.store->BackMore(scene.served()); };
    const int64_t boundaries = StepThrough(work, [&](bool finished) {
      scene.CheckWord();
      std::string now = scene.Look();
      if (now != last) ++changes;
      last = std::move(now);
      cut = !finished;
      return changes < killed.kills || finished;
    });
    EXPECT_GT(boundaries, 0) << "the service could not be stepped; allow ptrace";
    scene.StartAgain();
    scene.CheckCounts();
    const int fills = scene.Fill();
    if (filled < 0) filled = fills;
    if (fills != filled) {
      scene.Tell("after " + std::to_string(killed.kills) + " changes " + std::to_string(fills) +
                 " values fit, not " + std::to_string(filled));
    }
    for (const std::string& fault : scene.dict().Check(true).faults) scene.Tell(fault);
    if (!scene.violation.empty()) {
      killed.violation =
          "killed at change " + std::to_string(killed.kills) + ": " + scene.violation;
    }
  }
  return killed;
}

// The same with each word that a worker may have written before the service was killed.
std::string RestartWithWords() {
  int filled = -1;
  for (const uint64_t word : {uint64_t{0}, uint64_t{1}, uint64_t{3}, uint64_t{20}, uint64_t{63},
                              uint64_t{64}, uint64_t{65}, kBackingRefused | 30, UINT64_MAX}) {
    Scene scene(false);
    (void)scene.store->BackMore(scene.served());
    scene.dict().SetSlabsBacked(word);
    scene.StartAgain();
    scene.CheckWord();
    const int fills = scene.Fill();
    if (filled < 0) filled = fills;
    if (fills != filled) {
      scene.Tell(std::to_string(fills) + " values fit, not " + std::to_string(filled));
    }
    if (!scene.violation.empty()) return "word " + std::to_string(word) + ": " + scene.violation;
  }
  return "";
}

// And with words that the upkeep finds.
std::string TendWords() {
  Scene scene(false);
  (void)scene.store->BackMore(scene.served());
  const uint64_t slabs = scene.Slabs();
  for (const uint64_t word : {uint64_t{0}, uint64_t{1}, slabs + 1, UINT64_MAX}) {
    scene.dict().SetSlabsBacked(word);
    (void)scene.store->Maintain(kLane, [](uint32_t) { return true; });
    if (scene.dict().slabs_backed() != slabs) return "the word stays " + std::to_string(word);
  }
  scene.CheckCounts();
  return scene.violation;
}

#if SH_MUTANT == 0

TEST(DictBackingCrashTest, MemoryIsGivenWhollyOrNotAtAllWhereverTheServiceIsKilled) {
  for (const int times : {0, 1}) {
    const Killed killed = KillWhileBacking(/*evict=*/false, times);
    EXPECT_EQ(killed.violation, "");
    EXPECT_GE(killed.kills, 5) << "before all, after each of some slabs, after the word";
  }
}

TEST(DictBackingCrashTest, AnEvictingDictIsToldToMakeRoomOrNotWhereverTheServiceIsKilled) {
  const Killed killed = KillWhileBacking(/*evict=*/true, 2);
  EXPECT_EQ(killed.violation, "");
  EXPECT_GE(killed.kills, 2);
}

TEST(DictBackingCrashTest, AWordThatAWorkerWroteOverIsNotBelievedByTheNextService) {
  EXPECT_EQ(RestartWithWords(), "");
}

TEST(DictBackingCrashTest, AWordThatAWorkerWroteOverDoesNotStay) { EXPECT_EQ(TendWords(), ""); }

#else

class DictBackingMutantTest : public testing::TestWithParam<Mutant> {};

TEST_P(DictBackingMutantTest, IsFound) {
  chosen_mutant = GetParam();
  std::string found = KillWhileBacking(false, 0).violation;
  if (found.empty()) found = RestartWithWords();
  if (found.empty()) found = TendWords();
  chosen_mutant = Mutant::kNone;

  EXPECT_NE(found, "") << "the seeded bug " << static_cast<int>(GetParam()) << " was not found";
  std::printf("%s\n", found.c_str());
}

INSTANTIATE_TEST_SUITE_P(EverySeededBug, DictBackingMutantTest,
                         testing::Values(Mutant::kDictBackedBeforeMemory, Mutant::kDictUnbackedUsed,
                                         Mutant::kDictWordKept, Mutant::kDictWordTrusted,
                                         Mutant::kDictSpareKept));

#endif

}  // namespace
}  // namespace statehouse
