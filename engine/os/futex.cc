#include "engine/os/futex.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <ctime>

namespace statehouse {

static_assert(sizeof(std::atomic<uint32_t>) == 4 && std::atomic<uint32_t>::is_always_lock_free);

namespace {

timespec ToTimespec(uint64_t ns) {
  return timespec{static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
}

}  // namespace

void FutexWait(const std::atomic<uint32_t>& word, uint32_t expected, uint64_t timeout_ns) {
  const timespec timeout = ToTimespec(timeout_ns);
  syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&word), FUTEX_WAIT, expected, &timeout,
          nullptr, 0);
}

bool FutexWaitAny(std::span<const std::atomic<uint32_t>* const> words,
                  std::span<const uint32_t> expected, uint64_t timeout_ns) {
  futex_waitv waiters[kFutexWordsMax];
  const size_t count = std::min<size_t>(words.size(), kFutexWordsMax);
  for (size_t i = 0; i < count; ++i) {
    waiters[i] = {expected[i], reinterpret_cast<uintptr_t>(words[i]), FUTEX_32, 0};
  }
  const timespec until = ToTimespec(MonotonicNs() + timeout_ns);
  const long woken = syscall(SYS_futex_waitv, waiters, count, 0, &until, CLOCK_MONOTONIC);
  // A filter may answer EPERM for a call that it does not know.
  return woken >= 0 || errno == EAGAIN || errno == EINTR || errno == ETIMEDOUT;
}

void FutexWakeAll(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

uint64_t MonotonicNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

void SleepNs(uint64_t ns) {
  if (ns == 0) {
    sched_yield();
    return;
  }
  const timespec duration = ToTimespec(ns);
  nanosleep(&duration, nullptr);
}

}  // namespace statehouse
