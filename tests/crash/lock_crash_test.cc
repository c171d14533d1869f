// The crash test of locks: every operation is stopped at every instruction boundary. Each image
// that differs from the one before is copied twice: in one copy others go on before it is
// recovered, the other is recovered as the daemon does, the dead process's requests are ended, and
// it is used further. Recovery itself is stepped and recovered in the same way.
//
// Compiled with SH_MUTANT_AT_RUN_TIME the same program seeds one bug after the other, and each must
// be found.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/mutant.h"
#include "gtest/gtest.h"
#include "tests/crash/lock_crash_scene.h"
#include "tests/crash/stepper.h"

namespace statehouse {
namespace {

constexpr size_t kViolationsMax = 3;
// Of the images that a crash left, one in so many has its recovery stepped.
constexpr int64_t kImagesPerRecovery = 8;

struct Stepped {
  int64_t boundaries = 0;
  int64_t images = 0;
  std::vector<std::string> violations;
};

// `crashed`: where to keep every so-manieth image as the crash left it.
Stepped StepOperation(const LockCrashOperation& operation, LockScene& scene,
                      std::vector<std::unique_ptr<LockSegment>>* crashed = nullptr) {
  LockCrashChecker checker(operation, scene, false);
  Stepped stepped;
  int64_t at = 0;
  const auto work = [&] {
    const Status answer = operation.run(scene, *scene.live.space);
    if (answer.reason() == operation.answer) return;
    std::fprintf(stderr, "%s: %s\n", operation.name, answer.ToString().c_str());
    _exit(4);
  };
  stepped.boundaries = StepThrough(work, [&](bool finished) {
    if (scene.Changed() || finished || at == 0) {
      if (crashed != nullptr && stepped.images % kImagesPerRecovery == kImagesPerRecovery / 2) {
        crashed->push_back(std::make_unique<LockSegment>());
        LockScene::Copy(scene.live, *crashed->back());
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
  });
  return stepped;
}

#if SH_MUTANT == 0

// Steps the recovery of a crashed image and recovers that at each boundary.
Stepped StepRecovery(const LockCrashOperation& operation, LockScene& scene,
                     const LockSegment& crashed) {
  LockScene::Copy(crashed, scene.live);
  (void)scene.Changed();
  LockCrashChecker checker(operation, scene, true);
  Stepped stepped;
  const auto work = [&] {
    LockSpace& space = *scene.live.space;
    (void)space.RecoverLane(kRecoveryLane, operation.lane);
    if (operation.dead_block != 0) (void)space.RecoverBlock(kRecoveryLane, operation.dead_block);
  };
  stepped.boundaries = StepThrough(work, [&](bool finished) {
    if (!scene.Changed() && !finished) return true;
    ++stepped.images;
    const std::string violation = checker.Check(scene.live, false);
    if (!violation.empty()) {
      stepped.violations.push_back(std::string(operation.name) + ", recovery killed: " + violation);
    }
    return stepped.violations.empty();
  });
  return stepped;
}

TEST(LockCrashTest, EveryBoundaryOfEveryOperationAndOfItsRecoveryRecovers) {
  Stepped operations;
  Stepped recoveries;
  const auto add = [](const Stepped& stepped, Stepped* sum) {
    sum->boundaries += stepped.boundaries;
    sum->images += stepped.images;
    for (const std::string& violation : stepped.violations) ADD_FAILURE() << violation;
  };
  for (const LockCrashOperation& operation : LockCrashOperations()) {
    LockScene scene(operation);
    std::vector<std::unique_ptr<LockSegment>> crashed;
    const Stepped stepped = StepOperation(operation, scene, &crashed);
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

class LockCrashMutantTest : public testing::TestWithParam<Mutant> {};

TEST_P(LockCrashMutantTest, IsFound) {
  size_t found = 0;
  for (const LockCrashOperation& operation : LockCrashOperations()) {
    LockScene scene(operation);
    chosen_mutant = GetParam();
    const Stepped stepped = StepOperation(operation, scene);
    chosen_mutant = Mutant::kNone;
    found = stepped.violations.size();
    if (found > 0) std::printf("%s\n", stepped.violations[0].c_str());
    if (found > 0) break;
  }

  EXPECT_GT(found, 0u) << "the seeded bug " << static_cast<int>(GetParam()) << " was not found";
}

INSTANTIATE_TEST_SUITE_P(EverySeededBug, LockCrashMutantTest,
                         testing::Values(Mutant::kLockRedoNotArmed, Mutant::kLockTagKept,
                                         Mutant::kLockWakeNotNoted, Mutant::kLockStateFirst,
                                         Mutant::kLockBeforeIntent, Mutant::kLockArmedBeforeRedo,
                                         Mutant::kLockTokenRepeated, Mutant::kLockQueueSkipped,
                                         Mutant::kLockNextFirst));

#endif

}  // namespace
}  // namespace statehouse
