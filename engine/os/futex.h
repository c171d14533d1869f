// Sleeping and waking on a 32-bit word in shared memory. Shared futexes key on the file, so they
// work across processes, users and namespaces.
#pragma once

#include <atomic>
#include <cstdint>

namespace statehouse {

// Sleeps while *word == expected, at most `timeout_ns`. May return early (a wake-up, a signal, a
// changed word): look again.
void FutexWait(const std::atomic<uint32_t>& word, uint32_t expected, uint64_t timeout_ns);

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
