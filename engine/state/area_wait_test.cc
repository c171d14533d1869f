// Waiting: nothing is missed between looking and sleeping, and a waiter that goes away leaves
// nothing behind.
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "engine/os/futex.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/test_area.h"
#include "gtest/gtest.h"

namespace statehouse {
namespace {

constexpr uint64_t kForever = uint64_t{60} * 1'000'000'000;
const Lane kLane{1, kOperationTimeoutNsDefault};

TEST(AreaWaitTest, ChangeBeforeTheWaitIsSeenAtOnce) {
  TestArea test(4096);
  const uint64_t since = test.area->Updates();
  ASSERT_TRUE(test.area->Write(kLane, 0, Bytes("x")).ok());

  const auto result = test.area->Wait(since, kForever);

  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->changed);
  EXPECT_EQ(result->updates, test.area->Updates());
}

TEST(AreaWaitTest, TimeoutIsNoChangeAndNoError) {
  TestArea test(4096);

  const auto result = test.area->Wait(test.area->Updates(), 2'000'000);

  ASSERT_TRUE(result.ok());
  EXPECT_FALSE(result->changed);
}

TEST(AreaWaitTest, EveryKindOfMutationWakes) {
  TestArea test(3 * 4096);
  uint64_t bits = 0;
  CompareExchangeResult exchange;
  const std::vector<std::function<Status()>> mutations = {
      [&] { return test.area->Write(kLane, 10, Bytes("x")); },
      [&] { return test.area->Write(kLane, 10, {}); },
      [&] { return test.area->Fill(kLane, 0, 9000, std::byte{1}); },
      [&] { return test.area->Store(kLane, WordType::kU8, 0, 1); },
      [&] { return test.area->Add(kLane, WordType::kU64, 4092, 1, &bits); },
      [&] { return test.area->Bitwise(kLane, BitwiseOperator::kXor, WordType::kU8, 0, 1, &bits); },
      [&] { return test.area->CompareExchange(kLane, WordType::kU8, 0, 0, 1, &exchange); },
  };
  for (const auto& mutate : mutations) {
    const uint64_t since = test.area->Updates();
    StatusOr<WaitResult> result = Status(Reason::kInternal, "not run");
    std::thread waiter([&] { result = test.area->Wait(since, kForever); });
    while (AreaInternals::Line(*test.area).armed.load() == 0) SleepNs(0);

    ASSERT_TRUE(mutate().ok());
    waiter.join();

    ASSERT_TRUE(result.ok());
    EXPECT_TRUE(result->changed);
  }
}

TEST(AreaWaitTest, RangeWaiterSleepsThroughChangesElsewhere) {
  TestArea test(4 * 4096);
  const auto since = test.area->UpdatesOfRange(8192, 8);
  ASSERT_TRUE(since.ok());
  ASSERT_TRUE(test.area->Write(kLane, 0, Bytes("elsewhere")).ok());

  const auto elsewhere = test.area->Wait(*since, 1'000'000, 8192, 8);
  ASSERT_TRUE(test.area->Write(kLane, 8195, Bytes("here")).ok());
  const auto here = test.area->Wait(*since, kForever, 8192, 8);

  ASSERT_TRUE(elsewhere.ok() && here.ok());
  EXPECT_FALSE(elsewhere->changed);
  EXPECT_TRUE(here->changed);
}

TEST(AreaWaitTest, RangeWaiterIsWokenThroughItsStripe) {
  TestArea test(4 * 4096);
  const auto since = test.area->UpdatesOfRange(8192, 8);
  StatusOr<WaitResult> result = Status(Reason::kInternal, "not run");
  std::thread waiter([&] { result = test.area->Wait(*since, kForever, 8192, 8); });
  while (AreaInternals::Stripe(*test.area, 2).armed.load() == 0) SleepNs(0);

  uint64_t bits = 0;
  ASSERT_TRUE(test.area->Add(kLane, WordType::kU32, 8192, 1, &bits).ok());
  waiter.join();

  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->changed);
}

TEST(AreaWaitTest, DeletionEndsTheWait) {
  TestArea test(2 * 4096);
  Status status;
  std::thread waiter([&] { status = test.area->Wait(test.area->Updates(), kForever).status(); });
  while (AreaInternals::Line(*test.area).armed.load() == 0) SleepNs(0);

  test.area->Retire(AreaState::kDeleted);
  waiter.join();

  EXPECT_EQ(status.reason(), Reason::kAreaNotFound);
}

TEST(AreaWaitTest, TimedOutWaiterCostsTheNextWriterOneWakeUpAndNoMore) {
  TestArea test(2 * 4096);
  ASSERT_TRUE(test.area->Wait(test.area->Updates(), 1'000'000).ok());

  ASSERT_TRUE(test.area->Write(kLane, 0, Bytes("a")).ok());
  ASSERT_TRUE(test.area->Write(kLane, 0, Bytes("b")).ok());

  EXPECT_EQ(test.area->CountersOf(kLane.id).wakes, 1u);
}

TEST(AreaWaitTest, WaiterDoesNotSleepOverAHeldStripe) {
  TestArea test(4096);
  uint64_t locked = 0;
  std::atomic<uint64_t>& control = AreaInternals::Stripe(*test.area, 0).control;
  ASSERT_TRUE(TryLockOwned(control, 2, &locked));
  const uint64_t since = test.area->Updates();
  StatusOr<WaitResult> result = Status(Reason::kInternal, "not run");
  std::thread waiter([&] { result = test.area->Wait(since, kForever); });
  while (AreaInternals::Stripe(*test.area, 0).armed.load() == 0) SleepNs(0);

  // A writer that looked at the flag before it was armed releases without waking anybody.
  control.store(ReleasedChanged(locked));
  waiter.join();

  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->changed);
}

// Two threads take turns, each waiting for the other's update: one lost wake-up would stop the game
// until the sleep's own limit, which the round count would show as a time-out of the test.
void PingPong(uint64_t size, uint64_t pos_a, uint64_t pos_b, int rounds) {
  TestArea test(size);
  const auto play = [&](uint32_t lane, uint64_t mine, uint64_t theirs) {
    uint64_t bits = 0;
    for (int i = 1; i <= rounds; ++i) {
      ASSERT_TRUE(test.area->Store(Lane{lane, kForever}, WordType::kU64, mine, i).ok());
      for (;;) {
        const uint64_t since = test.area->Updates();
        ASSERT_TRUE(test.area->Load(WordType::kU64, theirs, &bits).ok());
        if (bits >= static_cast<uint64_t>(i)) break;
        ASSERT_TRUE(test.area->Wait(since, kForever).ok());
      }
    }
  };
  std::thread other([&] { play(2, pos_b, pos_a); });
  play(1, pos_a, pos_b);
  other.join();
  uint64_t bits = 0;
  ASSERT_TRUE(test.area->Load(WordType::kU64, pos_b, &bits).ok());
  EXPECT_EQ(bits, static_cast<uint64_t>(rounds));
}

TEST(AreaWaitTest, NoWakeUpIsLostOnOneStripe) { PingPong(4096, 0, 8, 20'000); }
TEST(AreaWaitTest, NoWakeUpIsLostBetweenStripes) { PingPong(64 << 10, 0, 40'000, 20'000); }

}  // namespace
}  // namespace statehouse
