// FaultGuard: keeps the daemon alive when a file that backs a mapping is truncated by somebody
// else.
//
// The kernel answers a touch beyond the file's end with SIGBUS. For a guarded range the handler
// lays zeroed private memory over the whole range and stores `tripped_value` to the range's word
// (an area's state), so that operations see a quarantined area and the process goes on. A SIGBUS
// anywhere else ends the process as before.
//
// Threads: Register and Unregister from any thread. The table is process-wide because a signal
// handler is.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace statehouse {

class FaultGuard final {
 public:
  static constexpr int kRangesMax = 4096;

  // Guards [base, base + bytes); false when the table is full. Installs the handler on first use.
  static bool Register(std::byte* base, uint64_t bytes, std::atomic<uint32_t>* word,
                       uint32_t tripped_value);
  static void Unregister(std::byte* base);
  // Ranges that tripped since the process started.
  static uint64_t TrippedCount();
};

}  // namespace statehouse
