// The system calls that the engine relies on, tried for real.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "engine/os/fault_guard.h"
#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "engine/os/process.h"
#include "engine/os/record_lock.h"
#include "gtest/gtest.h"

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

}  // namespace
}  // namespace statehouse
