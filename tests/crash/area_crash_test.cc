// The crash test: every area operation is stopped at every instruction boundary; each time the
// segment is cloned, the clone is recovered as the daemon would (twice), and must then hold the
// state before the operation or after it, whole, with nothing held, no wake-up lost, and an area
// that works. Recovery itself is stepped and recovered in the same way.
//
// Compiled with SH_MUTANT_AT_RUN_TIME the same program seeds one bug after the other, and each must
// be found.
#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "engine/base/mutant.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/test_area.h"
#include "gtest/gtest.h"
#include "tests/crash/stepper.h"

namespace statehouse {
namespace {

constexpr uint64_t kSize = 5 * 4096;
constexpr uint64_t kAtomicRange = 12 << 10;
constexpr uint32_t kVictim = 2;
// What every stripe was written with before, and what the operations with a fence show.
constexpr uint64_t kOldFence = 3;
constexpr uint64_t kFence = 9;
const Lane kVictimLane{kVictim, kOperationTimeoutNsDefault};
const Lane kSurvivor{
    1, 20'000'000};  // Patient enough for a loaded machine, too hasty to hide a held stripe.

struct Operation {
  const char* name;
  std::function<Status(Area&)> run;
  // What the data may be after a crash, in the order in which it may become so; the first is
  // "nothing happened".
  std::vector<std::function<void(std::string&)>> outcomes;
  bool counts = true;  // A completed run moves the update counter.
  uint64_t fence = 0;
};

void Put(std::string& data, uint64_t pos, const std::string& bytes) {
  data.replace(pos, bytes.size(), bytes);
}

template <typename T>
void PutWord(std::string& data, uint64_t pos, T value) {
  std::memcpy(data.data() + pos, &value, sizeof value);
}

std::string Pattern(uint64_t len, char seed) {
  std::string bytes(len, '\0');
  for (uint64_t i = 0; i < len; ++i) bytes[i] = static_cast<char>(seed + static_cast<char>(i % 23));
  return bytes;
}

Operation WriteOf(const char* name, uint64_t pos, uint64_t len, uint64_t fence = 0) {
  const std::string bytes = Pattern(len, 'A');
  Operation operation{name,
                      [=](Area& area) { return area.Write(kVictimLane, pos, Bytes(bytes), fence); },
                      {},
                      true,
                      fence};
  for (uint64_t done = std::min(len, kAtomicRange);; done = std::min(len, done + kAtomicRange)) {
    operation.outcomes.push_back([=](std::string& data) { Put(data, pos, bytes.substr(0, done)); });
    if (done == len) return operation;
  }
}

template <typename T>
Operation AddOf(const char* name, uint64_t pos, T result, uint64_t fence = 0) {
  return Operation{name,
                   [=](Area& area) {
                     T value = 0;
                     return area.AddAs<T>(kVictimLane, pos, T{5}, &value, fence);
                   },
                   {[=](std::string& data) { PutWord<T>(data, pos, result); }},
                   true,
                   fence};
}

std::vector<Operation> FencedOperations() {
  std::vector<Operation> operations;
  operations.push_back(AddOf<uint8_t>("fenced add u8", 9, 0x7f, kFence));
  operations.push_back(AddOf<uint32_t>("fenced add u32 unaligned", 4097, 0x7a7a7a7f, kFence));
  operations.push_back(
      AddOf<uint64_t>("fenced add u64 with an equal fence", 4096, 0x7a7a7a7a7a7a7a7f, kOldFence));
  operations.push_back(
      AddOf<uint64_t>("fenced add u64 across two stripes", 4093, 0x7a7a7a7a7a7a7a7f, kFence));
  operations.push_back({"fenced compare_exchange that does not",
                        [](Area& a) {
                          CompareExchangeResult result;
                          return a.CompareExchange(kVictimLane, WordType::kU8, 100, 'q', 'y',
                                                   &result, kFence);
                        },
                        {[](std::string&) {}},
                        false,
                        kFence});
  operations.push_back(WriteOf("fenced write 1 byte", 4095, 1, kFence));
  operations.push_back(WriteOf("fenced write over three stripes", 4000, 8500, kFence));
  operations.push_back(WriteOf("fenced write of two pieces", 100, kAtomicRange + 3000, kFence));
  operations.push_back(
      {"fenced fill over two stripes",
       [](Area& a) { return a.Fill(kVictimLane, 4000, 300, std::byte{'f'}, kFence); },
       {[](std::string& data) { Put(data, 4000, std::string(300, 'f')); }},
       true,
       kFence});
  operations.push_back({"fenced empty write",
                        [](Area& a) { return a.Write(kVictimLane, 0, {}, kFence); },
                        {[](std::string&) {}},
                        true,
                        kFence});
  return operations;
}

std::vector<Operation> Operations() {
  std::vector<Operation> operations;
  // The background is 'z' (0x7a) everywhere.
  operations.push_back(AddOf<uint8_t>("add u8", 9, 0x7f));
  operations.push_back(AddOf<uint16_t>("add u16", 10, 0x7a7f));
  operations.push_back(AddOf<uint32_t>("add u32 unaligned", 4097, 0x7a7a7a7f));
  operations.push_back(AddOf<uint64_t>("add u64", 4096, 0x7a7a7a7a7a7a7a7f));
  operations.push_back(AddOf<uint64_t>("add u64 across two stripes", 4093, 0x7a7a7a7a7a7a7a7f));
  operations.push_back({"store u32",
                        [](Area& a) { return a.StoreAs<uint32_t>(kVictimLane, 64, 7); },
                        {[](std::string& data) { PutWord<uint32_t>(data, 64, 7); }}});
  operations.push_back({"store u16 across two stripes",
                        [](Area& a) { return a.StoreAs<uint16_t>(kVictimLane, 8191, 7); },
                        {[](std::string& data) { PutWord<uint16_t>(data, 8191, 7); }}});
  operations.push_back({"compare_exchange that exchanges",
                        [](Area& a) {
                          CompareExchangeResult result;
                          return a.CompareExchange(kVictimLane, WordType::kU8, 100, 'z', 'y',
                                                   &result);
                        },
                        {[](std::string& data) { data[100] = 'y'; }}});
  operations.push_back({"compare_exchange that does not",
                        [](Area& a) {
                          CompareExchangeResult result;
                          return a.CompareExchange(kVictimLane, WordType::kU8, 100, 'q', 'y',
                                                   &result);
                        },
                        {[](std::string&) {}},
                        false});
  operations.push_back({"compare_exchange across two stripes that does not",
                        [](Area& a) {
                          CompareExchangeResult result;
                          return a.CompareExchange(kVictimLane, WordType::kU64, 4090, 1, 2,
                                                   &result);
                        },
                        {[](std::string&) {}},
                        false});
  operations.push_back(
      {"xor u64",
       [](Area& a) {
         uint64_t bits = 0;
         return a.Bitwise(kVictimLane, BitwiseOperator::kXor, WordType::kU64, 200, 0xff, &bits);
       },
       {[](std::string& data) { PutWord<uint64_t>(data, 200, 0x7a7a7a7a7a7a7a85); }}});
  operations.push_back(WriteOf("write 1 byte", 4095, 1));
  operations.push_back(WriteOf("write 50 bytes in the second stripe", 5000, 50));
  operations.push_back(WriteOf("write over three stripes", 4000, 8500));
  operations.push_back(WriteOf("write of two pieces", 100, kAtomicRange + 3000));
  operations.push_back({"fill over two stripes",
                        [](Area& a) { return a.Fill(kVictimLane, 4000, 300, std::byte{'f'}); },
                        {[](std::string& data) { Put(data, 4000, std::string(300, 'f')); }}});
  operations.push_back(
      {"empty write", [](Area& a) { return a.Write(kVictimLane, 0, {}); }, {[](std::string&) {}}});
  for (Operation& operation : FencedOperations()) operations.push_back(std::move(operation));
  return operations;
}

// An area with a past: every lane field has been used, so that stale values can do harm.
struct Scene {
  Scene() : live(kSize, kAtomicRange), clone(kSize, kAtomicRange) {
    EXPECT_TRUE(live.area->Fill(kSurvivor, 0, kSize, std::byte{'z'}).ok());
    // The victim's last write went to the last stripe. Then every stripe stands at the sequence
    // which that one had, so that the old tag equals the word that the victim is about to write
    // elsewhere, and its journal holds other bytes.
    const uint32_t last = live.geometry.stripe_count - 1;
    const uint64_t sequence = AreaInternals::Stripe(*live.area, last).control.load();
    EXPECT_TRUE(
        live.area->Write(kVictimLane, uint64_t{last} * 4096, Bytes(Pattern(900, 'a'))).ok());
    for (uint32_t i = 0; i < live.geometry.stripe_count; ++i) {
      StripeLine& stripe = AreaInternals::Stripe(*live.area, i);
      if (i < last) stripe.control = sequence;
      stripe.fence = kOldFence;
      stripe.armed = 1;  // A waiter may sleep on each stripe and on the area.
    }
    AreaInternals::Line(*live.area).armed = 1;
    updates = live.area->Updates();
    event = AreaInternals::Line(*live.area).event.load();
    data = ReadString(*live.area, 0, kSize);
  }

  static void Copy(const TestArea& from, const TestArea& to) {
    const uint64_t shared = from.geometry.control_bytes - uint64_t{TestArea::kLanes} * kAtomicRange;
    std::memcpy(AreaInternals::Control(*to.area), AreaInternals::Control(*from.area), shared);
    std::memcpy(AreaInternals::Journal(*to.area, kVictim),
                AreaInternals::Journal(*from.area, kVictim), kAtomicRange);
    std::memcpy(to.area->data(), from.area->data(), kSize);
  }

  TestArea live;
  TestArea clone;
  std::string data;
  uint64_t updates = 0;
  uint32_t event = 0;
};

// Which outcome the recovered image shows (0: nothing happened), or the violation that it is.
class ImageChecker {
 public:
  ImageChecker(const Operation& operation, const Scene& scene)
      : operation_(operation), scene_(scene) {
    states_.push_back(scene.data);
    for (const auto& outcome : operation.outcomes) {
      states_.push_back(scene.data);
      outcome(states_.back());
    }
  }

  // Empty when the image is right.
  std::string Check(TestArea& image, bool finished) {
    Area& area = *image.area;
    const std::string undone = CheckWritesBeforeRecovery(image);
    if (!undone.empty()) return undone;
    (void)area.RecoverLane(kVictim);
    const RecoveryReport again = area.RecoverLane(kVictim);
    if (again.stripes_released != 0 || again.redo_applied || again.repaired)
      return "a second recovery found work";
    for (uint32_t i = 0; i < image.geometry.stripe_count; ++i) {
      const StripeLine& stripe = AreaInternals::Stripe(area, i);
      if (OwnerOf(stripe.control.load()) != 0) return "a stripe is still held";
      if ((stripe.range_counter.load() & 1) != 0) return "a range counter is still odd";
    }
    const std::string seen(reinterpret_cast<const char*>(area.data()), kSize);
    const std::string unfenced = CheckFences(area, seen);
    if (!unfenced.empty()) return unfenced;
    // The latest state that fits, because an operation may leave the bytes as they were.
    size_t state = states_.size();
    while (state > 0 && states_[state - 1] != seen) --state;
    if (state == 0) return "the bytes are neither those before nor those after";
    if (seen != states_[0] && state - 1 < furthest_) return "an outcome was taken back";
    if (seen != states_[0]) furthest_ = state - 1;
    if (seen == states_[0] && furthest_ > 0 && states_[furthest_] != seen)
      return "an outcome was taken back";
    if (finished && seen != states_.back()) return "a finished operation is lost";
    const bool changed = area.Updates() != scene_.updates;
    if (seen != states_[0] && !changed) return "the bytes changed and the update counter did not";
    if (finished && operation_.counts && !changed) return "a finished operation did not count";
    const AreaLine& line = AreaInternals::Line(area);
    if (changed && line.event.load() == scene_.event) return "an update woke nobody";
    return FollowUp(area);
  }

 private:
  // Bytes of a token stand only where the fence shows it, so that an older one is refused there;
  // the fence may be ahead of the bytes.
  std::string CheckFences(Area& area, const std::string& seen) const {
    constexpr uint64_t kStripe = 4096;
    for (uint64_t pos = 0; pos < kSize; pos += kStripe) {
      const uint64_t fence =
          AreaInternals::Stripe(area, static_cast<uint32_t>(pos / kStripe)).fence.load();
      if (fence != kOldFence && fence != operation_.fence) return "a fence that nobody raised";
      const bool written = seen.compare(pos, kStripe, scene_.data, pos, kStripe) != 0;
      if (written && fence < operation_.fence) return "bytes of a token that the fence lacks";
    }
    return "";
  }
  // What others write into stripes that are free while the dead lane waits for its recovery must
  // outlive that recovery. Works on a copy of the image.
  std::string CheckWritesBeforeRecovery(const TestArea& image) {
    constexpr uint8_t kMark = 0x5c;
    Scene::Copy(image, between_);
    Area& area = *between_.area;
    std::vector<uint64_t> written;
    for (uint32_t i = 0; i < image.geometry.stripe_count; ++i) {
      if (OwnerOf(AreaInternals::Stripe(area, i).control.load()) != 0) continue;
      written.push_back(uint64_t{i} * 4096 + 50);
      if (!area.StoreAs<uint8_t>(kSurvivor, written.back(), kMark).ok())
        return "a free stripe refuses a store";
    }
    (void)area.RecoverLane(kVictim);
    for (const uint64_t pos : written) {
      if (static_cast<uint8_t>(area.data()[pos]) != kMark)
        return "recovery undid what another lane wrote";
    }
    return "";
  }
  static std::string FollowUp(Area& area) {
    uint64_t value = 0;
    if (!area.Write(kSurvivor, 0, Bytes(std::string(10'000, 'w'))).ok())
      return "a later range write is refused";
    if (!area.AddAs<uint64_t>(kSurvivor, 4096, 1, &value).ok()) return "a later add is refused";
    if (value != 0x7777777777777778) return "a later add finds other bytes";
    return "";
  }

  const Operation& operation_;
  const Scene& scene_;
  TestArea between_{kSize, kAtomicRange};
  std::vector<std::string> states_;
  size_t furthest_ = 0;
};

// Steps one operation; returns the violations, at most a few.
std::vector<std::string> StepOperation(const Operation& operation, int64_t* boundaries) {
  Scene scene;
  ImageChecker checker(operation, scene);
  std::vector<std::string> violations;
  int64_t at = 0;
  *boundaries = StepThrough(
      [&] {
        if (!operation.run(*scene.live.area).ok()) _exit(4);
      },
      [&](bool finished) {
        Scene::Copy(scene.live, scene.clone);
        const std::string violation = checker.Check(scene.clone, finished);
        if (!violation.empty()) {
          violations.push_back(std::string(operation.name) + ", boundary " + std::to_string(at) +
                               ": " + violation);
        }
        ++at;
        return violations.size() < 3;
      });
  return violations;
}

#if SH_MUTANT == 0

TEST(AreaCrashTest, EveryBoundaryOfEveryOperationRecovers) {
  int64_t total = 0;
  for (const Operation& operation : Operations()) {
    int64_t boundaries = 0;
    const std::vector<std::string> violations = StepOperation(operation, &boundaries);
    ASSERT_GT(boundaries, 10) << operation.name
                              << ": the process could not be stepped; allow ptrace";
    total += boundaries;
    for (const std::string& violation : violations) ADD_FAILURE() << violation;
  }
  RecordProperty("boundaries", std::to_string(total));
  std::printf("%lld boundaries stepped\n", static_cast<long long>(total));
}

// Crashes the operation at chosen boundaries, steps the recovery of each image, and recovers that
// at each of its boundaries.
std::vector<std::string> StepRecovery(const Operation& operation, int64_t boundaries,
                                      int64_t samples) {
  std::vector<std::string> violations;
  for (int64_t sample = 0; sample < samples; ++sample) {
    const int64_t crash_at = boundaries * sample / samples;
    Scene scene;
    TestArea crashed(kSize, kAtomicRange);
    int64_t at = 0;
    StepThrough([&] { (void)operation.run(*scene.live.area); },
                [&](bool) {
                  if (at++ < crash_at) return true;
                  Scene::Copy(scene.live, crashed);
                  return false;
                });
    ImageChecker checker(operation, scene);
    StepThrough([&] { (void)crashed.area->RecoverLane(kVictim); },
                [&](bool) {
                  Scene::Copy(crashed, scene.clone);
                  const std::string violation = checker.Check(scene.clone, false);
                  if (!violation.empty()) {
                    violations.push_back(std::string(operation.name) + ", crashed at " +
                                         std::to_string(crash_at) +
                                         ", recovery killed: " + violation);
                  }
                  return violations.size() < 3;
                });
    if (violations.size() >= 3) break;
  }
  return violations;
}

TEST(AreaCrashTest, RecoveryThatIsItselfKilledIsRecovered) {
  for (const Operation& operation : Operations()) {
    int64_t boundaries = 0;
    ASSERT_TRUE(StepOperation(operation, &boundaries).empty());
    for (const std::string& violation : StepRecovery(operation, boundaries, 24))
      ADD_FAILURE() << violation;
  }
}

#else

class AreaCrashMutantTest : public testing::TestWithParam<Mutant> {};

TEST_P(AreaCrashMutantTest, IsFound) {
  chosen_mutant = GetParam();
  size_t found = 0;
  for (const Operation& operation : Operations()) {
    int64_t boundaries = 0;
    const std::vector<std::string> violations = StepOperation(operation, &boundaries);
    found = violations.size();
    if (found > 0) std::printf("%s\n", violations[0].c_str());
    if (found > 0) break;
  }
  chosen_mutant = Mutant::kNone;

  EXPECT_GT(found, 0u) << "the seeded bug " << static_cast<int>(GetParam()) << " was not found";
}

INSTANTIATE_TEST_SUITE_P(EverySeededBug, AreaCrashMutantTest,
                         testing::Values(Mutant::kRedoNotArmed, Mutant::kJournalSkipped,
                                         Mutant::kWakeNotNoted, Mutant::kTagKept,
                                         Mutant::kCountersLeftOdd, Mutant::kArmedBeforeRedo,
                                         Mutant::kFenceAfterData));

#endif

}  // namespace
}  // namespace statehouse
