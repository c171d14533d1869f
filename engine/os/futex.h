// Sleeping and waking on a 32-bit word in shared memory. Shared futexes key on the file, so they
// work across processes, users and namespaces.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

namespace statehouse {

// Sleeps while *word == expected, at most `timeout_ns`. May return early (a wake-up, a signal, a
// changed word): look again.
void FutexWait(const std::atomic<uint32_t>& word, uint32_t expected, uint64_t timeout_ns);

// Sleeps while every words[i] == expected[i], at most `timeout_ns`; as FutexWait otherwise. At most
// kFutexWordsMax words, at least one. False where the kernel cannot wait for several (before 5.16):
// it did not sleep.
inline constexpr uint32_t kFutexWordsMax = 128;
bool FutexWaitAny(std::span<const std::atomic<uint32_t>* const> words,
                  std::span<const uint32_t> expected, uint64_t timeout_ns);

// Wakes everybody who sleeps on the word.
void FutexWakeAll(std::atomic<uint32_t>& word);

// Nanoseconds on the monotonic clock.
uint64_t MonotonicNs();

// Gives way to another thread for about `ns`; 0 yields once.
void SleepNs(uint64_t ns);

// Tells the CPU that this is a spin loop.
inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace statehouse
