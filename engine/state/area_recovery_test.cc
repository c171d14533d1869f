// What recovery does with the words that a dead lane left, sane and insane. The test of every
// instruction boundary is in tests/crash; here each case is set up by hand.
#include <cstring>
#include <random>

#include "engine/shm/owned_lock.h"
#include "engine/state/test_area.h"
#include "gtest/gtest.h"

namespace statehouse {
namespace {

constexpr uint32_t kDead = 3;
const Lane kLane{1, kOperationTimeoutNsDefault};

uint64_t Packed(uint32_t first, uint32_t count) { return first | uint64_t{count} << 32; }

// Leaves stripes [first, first + count) owned by the dead lane with odd range counters, as a writer
// between arming and release.
void LeaveOwned(Area& area, uint32_t first, uint32_t count) {
  AreaInternals::Record(area, kDead).intent = Packed(first, count);
  for (uint32_t i = 0; i < count; ++i) {
    StripeLine& stripe = AreaInternals::Stripe(area, first + i);
    stripe.control = stripe.control.load() | kDead;
    ++stripe.range_counter;
  }
}

void Arm(Area& area, uint32_t first, uint64_t pos, std::string_view bytes) {
  LaneRecord& record = AreaInternals::Record(area, kDead);
  std::memcpy(AreaInternals::Journal(area, kDead), bytes.data(), bytes.size());
  record.redo_pos = pos;
  record.redo_len = bytes.size();
  record.tag = AreaInternals::Stripe(area, first).control.load();
}

TEST(AreaRecoveryTest, ArmedRedoIsRolledForward) {
  TestArea test(3 * 4096);
  LeaveOwned(*test.area, 0, 2);
  Arm(*test.area, 0, 4090, "across stripes");

  const RecoveryReport report = test.area->RecoverLane(kDead);

  EXPECT_TRUE(report.redo_applied);
  EXPECT_FALSE(report.repaired);
  EXPECT_EQ(report.stripes_released, 2u);
  EXPECT_EQ(ReadString(*test.area, 4090, 14), "across stripes");
  uint64_t bits = 0;
  EXPECT_TRUE(test.area->Load(WordType::kU64, 4096, &bits).ok());
}

TEST(AreaRecoveryTest, UnarmedWriterIsUndoneByReleasingOnly) {
  TestArea test(3 * 4096);
  LeaveOwned(*test.area, 0, 2);

  const RecoveryReport report = test.area->RecoverLane(kDead);

  EXPECT_FALSE(report.redo_applied);
  EXPECT_EQ(report.stripes_released, 2u);
  EXPECT_EQ(ReadString(*test.area, 0, 8192), std::string(8192, '\0'));
}

TEST(AreaRecoveryTest, RecoveringTwiceChangesNothingMore) {
  TestArea test(3 * 4096);
  LeaveOwned(*test.area, 0, 2);
  Arm(*test.area, 0, 0, "once");
  (void)test.area->RecoverLane(kDead);
  ASSERT_TRUE(test.area->Write(kLane, 0, Bytes("next")).ok());
  const uint64_t updates = test.area->Updates();

  const RecoveryReport report = test.area->RecoverLane(kDead);

  EXPECT_EQ(report.stripes_released, 0u);
  EXPECT_FALSE(report.redo_applied);
  EXPECT_EQ(ReadString(*test.area, 0, 4), "next");
  EXPECT_EQ(test.area->Updates(), updates);
}

TEST(AreaRecoveryTest, OtherLanesStripesAreLeftAlone) {
  TestArea test(3 * 4096);
  uint64_t locked = 0;
  ASSERT_TRUE(TryLockOwned(AreaInternals::Stripe(*test.area, 2).control, 5, &locked));
  LeaveOwned(*test.area, 0, 1);

  (void)test.area->RecoverLane(kDead);

  EXPECT_EQ(AreaInternals::Stripe(*test.area, 2).control.load(), locked);
}

TEST(AreaRecoveryTest, TagOfAnotherStripeIsNotTakenForArmed) {
  TestArea test(3 * 4096);
  // Both stripes stand at the same sequence, so the old tag of stripe 0 equals the word of
  // stripe 1.
  LeaveOwned(*test.area, 1, 1);
  Arm(*test.area, 1, 0, "old redo of stripe 0");

  const RecoveryReport report = test.area->RecoverLane(kDead);

  EXPECT_FALSE(report.redo_applied);
  EXPECT_EQ(ReadString(*test.area, 0, 8192), std::string(8192, '\0'));
}

TEST(AreaRecoveryTest, OwedWakeUpIsReplayed) {
  TestArea test(4096);
  AreaLine& line = AreaInternals::Line(*test.area);
  line.armed = 1;
  AreaInternals::Record(*test.area, kDead).pending_wake = Packed(0, 1);
  const uint32_t event = line.event.load();

  const RecoveryReport report = test.area->RecoverLane(kDead);

  EXPECT_TRUE(report.wake_replayed);
  EXPECT_EQ(line.armed.load(), 0u);
  EXPECT_EQ(line.event.load(), event + 1);
  EXPECT_EQ(AreaInternals::Record(*test.area, kDead).pending_wake.load(), 0u);
}

TEST(AreaRecoveryTest, DamagedIntentIsRepairedByAFullScan) {
  TestArea test(8 * 4096);
  LeaveOwned(*test.area, 2, 3);
  AreaInternals::Record(*test.area, kDead).intent = Packed(7, 0xffffffff);

  const RecoveryReport report = test.area->RecoverLane(kDead);

  EXPECT_TRUE(report.repaired);
  EXPECT_EQ(report.stripes_released, 3u);
  EXPECT_TRUE(test.area->Write(kLane, 0, Bytes(std::string(8 * 4096, 'x'))).ok());
}

TEST(AreaRecoveryTest, ScrubFreesWhatNobodyCanHold) {
  TestArea test(4 * 4096);
  AreaInternals::Stripe(*test.area, 0).control = 14;                // A lane that nobody leased.
  AreaInternals::Stripe(*test.area, 1).range_counter = 7;           // Odd, with no holder.
  AreaInternals::Stripe(*test.area, 2).control = kSequenceOne | 2;  // A living holder.

  const uint32_t mended =
      test.area->Scrub([](uint32_t, uint64_t word) { return OwnerOf(word) != 2; });

  EXPECT_EQ(mended, 2u);
  EXPECT_EQ(OwnerOf(AreaInternals::Stripe(*test.area, 0).control.load()), 0u);
  EXPECT_EQ(AreaInternals::Stripe(*test.area, 1).range_counter.load() & 1, 0u);
  EXPECT_EQ(AreaInternals::Stripe(*test.area, 2).control.load(), kSequenceOne | 2);
}

// A writer that ignores the protocol may leave anything. Recovery, scrubbing, scanning and reading
// must come to an end, touch nothing outside the segment (the sanitizer builds watch), and leave an
// area that works.
TEST(AreaRecoveryTest, ArbitraryControlMemoryNeitherCrashesNorHangs) {
  constexpr int kImages = 100'000;
  constexpr uint64_t kSeed = 20'240'607;
  TestArea test(6 * 4096 + 17, 8192);
  std::mt19937_64 random(kSeed);
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  const auto any = [&]() -> uint64_t {
    switch (random() % 4) {
      case 0: return random();
      case 1: return random() % 32;
      case 2: return (random() % 8) | (random() % 8) << 32;
      default: return (random() % 64) << kLaneBits | random() % 16;
    }
  };
  for (int image = 0; image < kImages; ++image) {
    for (uint32_t i = 0; i < test.geometry.stripe_count; ++i) {
      StripeLine& stripe = AreaInternals::Stripe(*test.area, i);
      stripe.control = any();
      stripe.range_counter = any();
      stripe.armed = static_cast<uint32_t>(random() & 1);
      stripe.event = static_cast<uint32_t>(random());
    }
    for (uint32_t lane = 0; lane < TestArea::kLanes; ++lane) {
      LaneRecord& record = AreaInternals::Record(*test.area, lane);
      record.intent = any();
      record.redo_pos = any();
      record.redo_len = any();
      record.pending_wake = any();
      const uint32_t stripe = static_cast<uint32_t>(random() % test.geometry.stripe_count);
      record.tag =
          random() % 2 == 0 ? AreaInternals::Stripe(*test.area, stripe).control.load() : any();
    }

    for (uint32_t lane = 0; lane < TestArea::kLanes + 2; ++lane) (void)test.area->RecoverLane(lane);
    (void)test.area->Scrub([](uint32_t, uint64_t) { return true; });
    (void)test.area->Poll(0);
    (void)test.area->CountersOf(static_cast<uint32_t>(random() % 32));
    (void)test.area->HolderOf(random() % (7 * 4096));

    uint64_t bits = 0;
    ASSERT_TRUE(test.area->Add(kLane, WordType::kU64, random() % (6 * 4096), 1, &bits).ok())
        << "image " << image;
    ASSERT_TRUE(test.area->Write(kLane, 4000, Bytes(std::string(200, 'x'))).ok())
        << "image " << image;
    ASSERT_TRUE(test.area->Load(WordType::kU64, 4096, &bits).ok()) << "image " << image;
  }
}

}  // namespace
}  // namespace statehouse
