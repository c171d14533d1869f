// TurnGuard: notices that one connection keeps the polling thread to itself.
//
// gRPC reads a connection for as long as there is something to read, and serves nobody meanwhile.
// The bytes of messages are held back by flow control; frames that begin, take back or ask are not,
// so a client that sends those faster than they are taken in is read for ever, and its calls pile
// up in memory. The guard counts the processor time that the polling thread has used since it last
// came round with an event.
//
// Owned by the acceptor and used by its thread. Always true: a thread that sleeps, or waits for a
// processor, is not stuck.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>

namespace statehouse {

// Without an event. Enough for a client that opens some thousands of watches at once.
inline constexpr uint64_t kTurnCpuNsMax = 100'000'000;

class TurnGuard final {
 public:
  // `turns` grows with each event of the thread whose processor time `cpu` tells. Both outlive it.
  TurnGuard(const std::atomic<uint64_t>* turns, clockid_t cpu) : turns_(turns), cpu_(cpu) {}

  // Looks now. True: the thread has used kTurnCpuNsMax since the last look that saw it come round.
  bool IsStuck();
  // Whether the thread did anything between the last two looks.
  bool is_busy() const { return is_busy_; }
  // Of the thread, in nanoseconds.
  uint64_t CpuNs() const;

 private:
  const std::atomic<uint64_t>* const turns_;
  const clockid_t cpu_;
  uint64_t seen_turns_ = 0;
  uint64_t cpu_then_ns_ = 0;  // When it was seen to have come round.
  uint64_t last_cpu_ns_ = 0;
  bool is_busy_ = false;
};

}  // namespace statehouse
