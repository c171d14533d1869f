#include "service/rpc/turn_guard.h"

namespace statehouse {

uint64_t TurnGuard::CpuNs() const {
  timespec time{};
  if (clock_gettime(cpu_, &time) != 0) return last_cpu_ns_;  // The thread has ended.
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

bool TurnGuard::IsStuck() {
  const uint64_t turns = turns_->load(std::memory_order_relaxed);
  const uint64_t cpu = CpuNs();
  is_busy_ = cpu != last_cpu_ns_;
  last_cpu_ns_ = cpu;
  if (turns != seen_turns_) {
    seen_turns_ = turns;
    cpu_then_ns_ = cpu;
  }
  return cpu - cpu_then_ns_ >= kTurnCpuNsMax;
}

}  // namespace statehouse
