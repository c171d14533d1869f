// The system calls that the engine relies on, tried for real.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>

#include "engine/base/limits.h"
#include "engine/os/barrier.h"
#include "engine/os/fault_guard.h"
#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "engine/os/process.h"
#include "engine/os/record_lock.h"
#include "gtest/gtest.h"

namespace statehouse {
namespace {

// Signals that come while memory is being allocated, each after so many pages. A real one ends the
// call on most kernels, but not on all.
constexpr uint32_t kSignalsMost = 10'000;
struct Signals {
  uint64_t pages_between = 0;
  uint64_t pages_left = 0;
  uint32_t interrupted = 0;
};
std::optional<Signals> signals;

}  // namespace
}  // namespace statehouse

// In place of the C library's: as Linux does it for shared memory, whose pages are undone.
extern "C" int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  const auto pages = static_cast<uint64_t>(bytes + 4095) / 4096;
  if (auto& coming = statehouse::signals; coming.has_value()) {
    if (pages > coming->pages_left) {
      coming->pages_left = coming->pages_between;
      // The last one is for a caller that would try again for ever.
      errno = ++coming->interrupted < statehouse::kSignalsMost ? EINTR : ENOSPC;
      return -1;
    }
    coming->pages_left -= pages;
  }
  return static_cast<int>(syscall(SYS_fallocate, fd, mode, offset, bytes));
}

namespace statehouse {
namespace {

TEST(MemoryTest, SealedMemoryRefusesEveryChangeOfSize) {
  auto fd = CreateSealedMemory("test", 8192);
  ASSERT_TRUE(fd.ok());

  EXPECT_TRUE(SizeIsSealed(fd->get()));
  EXPECT_NE(ftruncate(fd->get(), 4096), 0);
  EXPECT_NE(ftruncate(fd->get(), 16384), 0);
  EXPECT_EQ(*FileBytes(fd->get()), 8192u);
}

TEST(MemoryTest, AllocateRangeHoldsMemoryAndSparseRangesDoNot) {
  auto fd = CreateSealedMemory("test", 1 << 20);
  ASSERT_TRUE(fd.ok());
  ASSERT_TRUE(AllocateRange(fd->get(), 0, 8192).ok());

  EXPECT_EQ(*AllocatedBytes(fd->get()), 8192u);
}

TEST(MemoryTest, AllocateRangeGoesOnHoweverOftenSignalsInterruptIt) {
  constexpr uint64_t kBytes = 8 << 20;
  auto fd = CreateSealedMemory("test", kBytes + kPageBytes);
  ASSERT_TRUE(fd.ok());
  signals = Signals{.pages_between = 100, .pages_left = 50};

  const Status allocated = AllocateRange(fd->get(), kPageBytes, kBytes - 100);

  const uint32_t interrupted = signals->interrupted;
  signals.reset();
  EXPECT_TRUE(allocated.ok()) << allocated.ToString();
  EXPECT_EQ(*AllocatedBytes(fd->get()), kBytes);
  EXPECT_GE(interrupted, kBytes / kPageBytes / 100);
}

TEST(MemoryTest, AReleasedRangeHoldsNothingAndReadsAsZeros) {
  auto fd = CreateSealedMemory("test", 1 << 20);
  ASSERT_TRUE(fd.ok());
  const std::string content(3 * kPageBytes, 'x');
  ASSERT_EQ(pwrite(fd->get(), content.data(), content.size(), 0),
            static_cast<ssize_t>(content.size()));

  EXPECT_TRUE(ReleaseRange(fd->get(), kPageBytes, (1 << 20) - kPageBytes).ok());

  EXPECT_EQ(*AllocatedBytes(fd->get()), kPageBytes);
  EXPECT_EQ(*FileBytes(fd->get()), 1u << 20);
  std::string left(2 * kPageBytes, '?');
  ASSERT_EQ(pread(fd->get(), left.data(), left.size(), 0), static_cast<ssize_t>(left.size()));
  EXPECT_EQ(left, std::string(kPageBytes, 'x') + std::string(kPageBytes, '\0'));
  EXPECT_FALSE(ReleaseRange(-1, 0, kPageBytes).ok());
}

TEST(MemoryTest, AnAllocationThatIsRefusedTellsOfTheWholeRange) {
  auto fd = CreateSealedMemory("test", 1 << 20);
  ASSERT_TRUE(fd.ok());

  const Status refused = AllocateRange(fd->get(), 0, (1 << 20) + 1);  // It cannot grow.

  EXPECT_EQ(refused.reason(), Reason::kMemoryExhausted);
  EXPECT_TRUE(refused.message().starts_with("allocating 1048577 bytes of shared memory"))
      << refused.message();
}

TEST(MemoryTest, ReadOnlyDescriptionCannotBeMappedForWriting) {
  auto fd = CreateSealedMemory("test", 4096);
  ASSERT_TRUE(fd.ok());
  auto reader = ReopenDescription(fd->get(), false);
  ASSERT_TRUE(reader.ok());

  EXPECT_FALSE(MapShared(reader->get(), 0, 4096, true).ok());
  auto mapped = MapShared(reader->get(), 0, 4096, false);
  ASSERT_TRUE(mapped.ok());
  Unmap(*mapped, 4096);
}

TEST(RecordLockTest, LockVanishesWithItsDescriptionAndIsSeenFromOthers) {
  auto fd = CreateSealedMemory("liveness", 64);
  ASSERT_TRUE(fd.ok());
  auto holder = ReopenDescription(fd->get(), true);
  auto rival = ReopenDescription(fd->get(), true);
  ASSERT_TRUE(holder.ok() && rival.ok());

  EXPECT_TRUE(TryLockByte(holder->get(), 5));
  EXPECT_TRUE(ByteIsLocked(fd->get(), 5));
  EXPECT_FALSE(ByteIsLocked(fd->get(), 4));
  EXPECT_FALSE(TryLockByte(rival->get(), 5));
  holder->Reset();

  EXPECT_FALSE(ByteIsLocked(fd->get(), 5));
  EXPECT_TRUE(TryLockByte(rival->get(), 5));
}

TEST(ProcessTest, PidfdTellsWhenAKilledProcessHasEnded) {
  const pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  auto pidfd = OpenPidfd(child);
  ASSERT_TRUE(pidfd.ok());
  EXPECT_FALSE(ProcessHasEnded(pidfd->get()));

  kill(child, SIGKILL);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);

  EXPECT_TRUE(ProcessHasEnded(pidfd->get()));
  waitpid(child, nullptr, 0);
}

TEST(ProcessTest, AskingForShortSlicesLeavesPolicyAndNicenessAsTheyAre) {
  errno = 0;
  const int niceness = getpriority(PRIO_PROCESS, 0);

  EXPECT_TRUE(AskForShortSlices().ok());

  EXPECT_EQ(sched_getscheduler(0), SCHED_OTHER);
  EXPECT_EQ(getpriority(PRIO_PROCESS, 0), niceness);
}

TEST(FaultGuardTest, TruncatedFileTripsTheGuardAndTheProcessGoesOn) {
  char path[] = "/tmp/statehouse-os-test-XXXXXX";
  UniqueFd fd(mkstemp(path));
  ASSERT_TRUE(fd.valid());
  unlink(path);
  ASSERT_EQ(ftruncate(fd.get(), 8192), 0);
  auto base = MapShared(fd.get(), 0, 8192, true);
  ASSERT_TRUE(base.ok());
  std::atomic<uint32_t> state{1};
  ASSERT_TRUE(FaultGuard::Register(*base, 8192, &state, 3));
  const uint64_t before = FaultGuard::TrippedCount();

  ASSERT_EQ(ftruncate(fd.get(), 0), 0);
  volatile std::byte* touched = *base + 5000;
  const std::byte seen = *touched;

  EXPECT_EQ(seen, std::byte{0});
  EXPECT_EQ(state.load(), 3u);
  EXPECT_EQ(FaultGuard::TrippedCount(), before + 1);
  FaultGuard::Unregister(*base);
  Unmap(*base, 8192);
}

TEST(FutexTest, AWaitForAnyEndsWithEachOfItsWordsAndWithItsTime) {
  std::atomic<uint32_t> words[kFutexWordsMax] = {};
  const std::atomic<uint32_t>* pointers[kFutexWordsMax];
  uint32_t expected[kFutexWordsMax] = {};
  for (uint32_t i = 0; i < kFutexWordsMax; ++i) pointers[i] = &words[i];
  constexpr uint64_t kLongNs = 60'000'000'000;
  constexpr uint64_t kBriefNs = 5'000'000;

  uint64_t began = MonotonicNs();
  ASSERT_TRUE(FutexWaitAny(pointers, expected, kBriefNs));
  EXPECT_GE(MonotonicNs() - began, kBriefNs);
  words[kFutexWordsMax - 1] = 1;  // It differs already.
  began = MonotonicNs();
  ASSERT_TRUE(FutexWaitAny(pointers, expected, kLongNs));
  words[kFutexWordsMax - 1] = 0;
  for (const uint32_t woken : {0u, 1u, kFutexWordsMax - 1}) {
    std::thread waker([&] {
      SleepNs(kBriefNs);
      words[woken] = 1;
      FutexWakeAll(words[woken]);
    });
    ASSERT_TRUE(FutexWaitAny(pointers, expected, kLongNs));
    waker.join();
    words[woken] = 0;
  }
  EXPECT_LT(MonotonicNs() - began, kLongNs);
}

// One side stores and looks without a barrier, as who writes does; the other one stores, makes the
// barrier for both and looks. One of them always sees the other.
TEST(BarrierTest, OneSidesBarrierServesBoth) {
  constexpr uint32_t kRounds = 20'000;
  ASSERT_TRUE(JoinBarriers());
  alignas(64) std::atomic<uint32_t> written{0};
  alignas(64) std::atomic<uint32_t> armed{0};
  alignas(64) std::atomic<uint32_t> seen_by_writer{0};
  alignas(64) std::atomic<uint32_t> round{0};
  alignas(64) std::atomic<uint32_t> done{0};
  std::thread writer([&] {
    for (uint32_t i = 1; i <= kRounds; ++i) {
      while (round.load() != i) CpuRelax();
      written.store(i, std::memory_order_relaxed);
      std::atomic_signal_fence(std::memory_order_seq_cst);
      seen_by_writer.store(armed.load(std::memory_order_relaxed), std::memory_order_relaxed);
      done.store(i);
    }
  });
  uint32_t missed = 0;
  for (uint32_t i = 1; i <= kRounds; ++i) {
    round.store(i);
    armed.store(i, std::memory_order_relaxed);
    const bool barrier = BarrierEverywhere();
    const bool sees = written.load(std::memory_order_relaxed) == i;
    while (done.load() != i) CpuRelax();
    if (!barrier || (!sees && seen_by_writer.load(std::memory_order_relaxed) != i)) ++missed;
  }
  writer.join();
  EXPECT_EQ(missed, 0u);
}

}  // namespace
}  // namespace statehouse
