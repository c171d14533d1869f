#include "engine/os/fault_guard.h"

#include <signal.h>
#include <sys/mman.h>

#include <mutex>

namespace statehouse {
namespace {

// A slot is free while base is 0. Written under g_table_mutex, read by the handler: base is stored
// last and cleared first.
struct GuardedRange {
  std::atomic<uintptr_t> base{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<std::atomic<uint32_t>*> word{nullptr};
  std::atomic<uint32_t> tripped_value{0};
};

GuardedRange g_ranges[FaultGuard::kRangesMax];
std::mutex g_table_mutex;
std::atomic<uint64_t> g_tripped{0};
struct sigaction g_previous;

bool CoverRange(uintptr_t address) {
  for (GuardedRange& range : g_ranges) {
    const uintptr_t base = range.base.load(std::memory_order_acquire);
    const uint64_t bytes = range.bytes.load(std::memory_order_relaxed);
    if (base == 0 || address < base || address - base >= bytes) continue;
    void* laid = mmap(reinterpret_cast<void*>(base), bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (laid == MAP_FAILED) return false;
    range.word.load(std::memory_order_relaxed)
        ->store(range.tripped_value.load(std::memory_order_relaxed), std::memory_order_release);
    g_tripped.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  return false;
}

void OnBusError(int signal_number, siginfo_t* info, void*) {
  if (CoverRange(reinterpret_cast<uintptr_t>(info->si_addr))) return;
  // Not ours: restore what was there and let the faulting instruction run again.
  sigaction(signal_number, &g_previous, nullptr);
}

}  // namespace

bool FaultGuard::Register(std::byte* base, uint64_t bytes, std::atomic<uint32_t>* word,
                          uint32_t tripped_value) {
  static std::once_flag installed;
  std::call_once(installed, [] {
    struct sigaction action = {};
    action.sa_sigaction = OnBusError;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &g_previous);
  });
  const std::lock_guard<std::mutex> lock(g_table_mutex);
  for (GuardedRange& range : g_ranges) {
    if (range.base.load(std::memory_order_relaxed) != 0) continue;
    range.bytes.store(bytes, std::memory_order_relaxed);
    range.word.store(word, std::memory_order_relaxed);
    range.tripped_value.store(tripped_value, std::memory_order_relaxed);
    range.base.store(reinterpret_cast<uintptr_t>(base), std::memory_order_release);
    return true;
  }
  return false;
}

void FaultGuard::Unregister(std::byte* base) {
  const std::lock_guard<std::mutex> lock(g_table_mutex);
  for (GuardedRange& range : g_ranges) {
    if (range.base.load(std::memory_order_relaxed) == reinterpret_cast<uintptr_t>(base)) {
      range.base.store(0, std::memory_order_release);
      return;
    }
  }
}

uint64_t FaultGuard::TrippedCount() { return g_tripped.load(std::memory_order_relaxed); }

}  // namespace statehouse
