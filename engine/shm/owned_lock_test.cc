#include "engine/shm/owned_lock.h"

#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace statehouse {
namespace {

TEST(OwnedLockTest, LockingNamesTheOwnerAndReleasingCounts) {
  std::atomic<uint64_t> control{0};
  uint64_t locked = 0;

  ASSERT_TRUE(TryLockOwned(control, 7, &locked));
  EXPECT_EQ(OwnerOf(control.load()), 7u);
  control.store(ReleasedChanged(locked));

  EXPECT_EQ(OwnerOf(control.load()), 0u);
  EXPECT_EQ(SequenceOf(control.load()), 1u);
}

TEST(OwnedLockTest, HeldLockIsRefusedAndTimesOut) {
  std::atomic<uint64_t> control{0};
  uint64_t locked = 0;
  ASSERT_TRUE(TryLockOwned(control, 1, &locked));
  const uint64_t before = control.load();

  uint64_t other = 0;
  EXPECT_FALSE(TryLockOwned(control, 2, &other));
  EXPECT_FALSE(LockOwnedSlow(control, 2, 1'000'000, &other));

  EXPECT_EQ(control.load(), before);
}

TEST(OwnedLockTest, UnchangedReleaseKeepsTheSequence) {
  std::atomic<uint64_t> control{5 * kSequenceOne};
  uint64_t locked = 0;
  ASSERT_TRUE(TryLockOwned(control, 4095, &locked));

  control.store(ReleasedUnchanged(locked));

  EXPECT_EQ(control.load(), 5 * kSequenceOne);
}

// The same checker, first with one thread, then with four.
void CountUnderLock(int threads, int rounds) {
  std::atomic<uint64_t> control{0};
  uint64_t plain = 0;
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back([&, lane = static_cast<uint32_t>(t + 1)] {
      for (int i = 0; i < rounds; ++i) {
        uint64_t locked = 0;
        ASSERT_TRUE(LockOwnedSlow(control, lane, uint64_t{60} * 1'000'000'000, &locked));
        ++plain;
        control.store(ReleasedChanged(locked), std::memory_order_release);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();

  EXPECT_EQ(plain, static_cast<uint64_t>(threads) * rounds);
  EXPECT_EQ(SequenceOf(control.load()), plain);
}

TEST(OwnedLockTest, OneThreadCountsExactly) { CountUnderLock(1, 10'000); }
TEST(OwnedLockTest, FourThreadsCountExactly) { CountUnderLock(4, 20'000); }

}  // namespace
}  // namespace statehouse
