// TurnGuard: notices that one connection keeps the polling thread to itself.
//
// gRPC reads a connection for as long as there is something to read, and serves nobody meanwhile.
// The bytes of messages are held back by flow control; frames that begin, take back or ask are not,
// so a client that sends those faster than they are taken in is read for ever, and its calls pile
// up in memory. The guard counts the processor time that the polling thread has used since it last
// came round: with an event, or to its sleep. Pings and handshakes are no events, and however
// little time they take, it would add up.
//
// Owned by the acceptor and used by its thread. Always true: a thread that sleeps half of the time
// is not stuck; one that waits for a processor neither sleeps nor works. Failure: where the kernel
// does not tell how long it waited (schedstat), waiting counts as sleep.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <ctime>

namespace statehouse {

// Without an event. Enough for a client that opens some thousands of watches at once.
inline constexpr uint64_t kTurnCpuNsMax = 100'000'000;
// Of sleep, if that was more than work, since the thread last came round: it has again.
inline constexpr uint64_t kTurnRestNs = 50'000'000;

class TurnGuard final {
 public:
  // `turns` grows with each event of the thread `tid` (the kernel's number of it, 0 while it is not
  // known) whose processor time `cpu` tells. All outlive it.
  TurnGuard(const std::atomic<uint64_t>* turns, const std::atomic<pid_t>* tid, clockid_t cpu)
      : turns_(turns), tid_(tid), cpu_(cpu) {}

  // Looks now. True: the thread has used kTurnCpuNsMax since the last look that saw it come round.
  bool IsStuck();
  // Whether the thread did anything between the last two looks.
  bool is_busy() const { return is_busy_; }
  // Of the thread, in nanoseconds.
  uint64_t CpuNs() const;

 private:
  // Times in nanoseconds: of the thread since it began, and of the steady clock.
  struct Times {
    uint64_t cpu = 0;
    uint64_t waited = 0;  // For a processor.
    uint64_t steady = 0;
  };
  Times Now() const;

  const std::atomic<uint64_t>* const turns_;
  const std::atomic<pid_t>* const tid_;
  const clockid_t cpu_;
  uint64_t seen_turns_ = 0;
  Times then_;  // When it was seen to have come round.
  uint64_t last_cpu_ns_ = 0;
  bool is_busy_ = false;
};

}  // namespace statehouse
