// The crash test of dicts: every operation is stopped at every instruction boundary. Each image
// that differs from the one before is copied; readers look at the copy, others write to a second
// one before it is recovered; then it is recovered as the daemon does and used further. Recovery
// itself is stepped and recovered in the same way.
//
// Compiled with SH_MUTANT_AT_RUN_TIME the same program seeds one bug after the other, and each must
// be found.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/mutant.h"
#include "gtest/gtest.h"
#include "tests/crash/dict_crash_checker.h"
#include "tests/crash/dict_crash_operations.h"
#include "tests/crash/dict_crash_scene.h"
#include "tests/crash/stepper.h"

namespace statehouse {
namespace {

constexpr size_t kViolationsMax = 3;
// Of the boundaries at which nothing but the contents of blocks can have changed.
constexpr int64_t kBulkEvery = 4999;
// Of the images that a crash left, one in so many has its recovery stepped.
constexpr int64_t kImagesPerRecovery = 24;

struct Stepped {
  int64_t boundaries = 0;
  int64_t images = 0;
  std::vector<std::string> violations;
};

// `crashed`: where to keep every so-manieth image as the crash left it.
Stepped StepOperation(const CrashOperation& operation, DictScene& scene,
                      std::vector<std::unique_ptr<DictSegment>>* crashed = nullptr) {
  DictCrashChecker checker(operation, scene);
  Stepped stepped;
  int64_t at = 0;
  const auto work = [&] {
    const Status answer = operation.run(scene, scene.dict());
    if (answer.reason() == operation.answer) return;
    std::fprintf(stderr, "%s: %s\n", operation.name, answer.ToString().c_str());
    _exit(4);
  };
  const auto look = [&](bool finished) {
    const bool bulk = !operation.bulk || at % kBulkEvery == 0;
    if (scene.Changed(bulk) || finished || at == 0) {
      if (crashed != nullptr && stepped.images % kImagesPerRecovery == kImagesPerRecovery / 2) {
        crashed->push_back(std::make_unique<DictSegment>(scene.live.geometry));
        scene.Copy(scene.live, *crashed->back());
      }
      ++stepped.images;
      const std::string violation = checker.Check(scene.live, finished);
      if (!violation.empty()) {
        stepped.violations.push_back(std::string(operation.name) + ", boundary " +
                                     std::to_string(at) + ": " + violation);
      }
    }
    ++at;
    return stepped.violations.size() < kViolationsMax;
  };
  stepped.boundaries = StepThrough(work, look);
  return stepped;
}

#if SH_MUTANT == 0

// Steps the recovery of a crashed image and the first use of the lane after it, and recovers that
// at each boundary.
Stepped StepRecovery(const CrashOperation& operation, DictScene& scene,
                     const DictSegment& crashed) {
  scene.Copy(crashed, scene.live);
  (void)scene.Changed(true);
  DictCrashChecker checker(operation, scene);
  Stepped stepped;
  const auto work = [&] {
    (void)scene.dict().RecoverLane(kVictimLane);
    if (!scene.dict().PrepareLanes(kVictimLane, 1).ok()) _exit(4);
  };
  stepped.boundaries = StepThrough(work, [&](bool finished) {
    if (!scene.Changed(true) && !finished) return true;
    ++stepped.images;
    const std::string violation = checker.Check(scene.live, false);
    if (!violation.empty()) {
      stepped.violations.push_back(std::string(operation.name) + ", recovery killed: " + violation);
    }
    return stepped.violations.empty();
  });
  return stepped;
}

TEST(DictCrashTest, EveryBoundaryOfEveryOperationAndOfItsRecoveryRecovers) {
  Stepped operations;
  Stepped recoveries;
  const auto add = [](const Stepped& stepped, Stepped* sum) {
    sum->boundaries += stepped.boundaries;
    sum->images += stepped.images;
    for (const std::string& violation : stepped.violations) ADD_FAILURE() << violation;
  };
  for (const CrashOperation& operation : CrashOperations()) {
    DictScene scene(operation.shape, operation.prepare);
    std::vector<std::unique_ptr<DictSegment>> crashed;
    const Stepped stepped = StepOperation(operation, scene, operation.bulk ? nullptr : &crashed);
    ASSERT_GT(stepped.boundaries, 10)
        << operation.name << ": it gave another answer, or the process could not be stepped; "
        << "allow ptrace";
    add(stepped, &operations);
    for (const auto& image : crashed) {
      const Stepped recovered = StepRecovery(operation, scene, *image);
      ASSERT_GT(recovered.boundaries, 10) << operation.name << ": a recovery was not stepped";
      add(recovered, &recoveries);
    }
  }
  RecordProperty("boundaries", std::to_string(operations.boundaries));
  std::printf("%lld boundaries of operations, %lld of recoveries; %lld and %lld images recovered\n",
              static_cast<long long>(operations.boundaries),
              static_cast<long long>(recoveries.boundaries),
              static_cast<long long>(operations.images), static_cast<long long>(recoveries.images));
}

#else

class DictCrashMutantTest : public testing::TestWithParam<Mutant> {};

TEST_P(DictCrashMutantTest, IsFound) {
  chosen_mutant = GetParam();
  size_t found = 0;
  for (const CrashOperation& operation : CrashOperations()) {
    if (operation.bulk) continue;
    DictScene scene(operation.shape, operation.prepare);
    const Stepped stepped = StepOperation(operation, scene);
    found = stepped.violations.size();
    if (found > 0) std::printf("%s\n", stepped.violations[0].c_str());
    if (found > 0) break;
  }
  chosen_mutant = Mutant::kNone;

  EXPECT_GT(found, 0u) << "the seeded bug " << static_cast<int>(GetParam()) << " was not found";
}

INSTANTIATE_TEST_SUITE_P(
    EverySeededBug, DictCrashMutantTest,
    testing::Values(Mutant::kDictRedoNotArmed, Mutant::kDictTagKept, Mutant::kDictMarkLeft,
                    Mutant::kDictRingFirst, Mutant::kDictSlotBeforeArmed,
                    Mutant::kDictMagazineBeforeArmed, Mutant::kDictMarkNotCleared,
                    Mutant::kDictVersionBeforeNumber, Mutant::kDictLockBeforeIntent,
                    Mutant::kDictArmedBeforeRedo, Mutant::kDictWatchNotTold));

#endif

}  // namespace
}  // namespace statehouse
