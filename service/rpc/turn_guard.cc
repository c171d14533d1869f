#include "service/rpc/turn_guard.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string>
#include <string_view>

#include "engine/os/futex.h"
#include "engine/os/unique_fd.h"

namespace statehouse {
namespace {

// How long a thread of this process was ready to run and did not, in nanoseconds: the second number
// of what the kernel tells of its scheduling. 0 where it tells nothing.
uint64_t WaitedNs(pid_t tid) {
  if (tid == 0) return 0;
  const std::string path = "/proc/self/task/" + std::to_string(tid) + "/schedstat";
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 128> bytes{};
  const ssize_t count = file.valid() ? ::read(file.get(), bytes.data(), bytes.size()) : -1;
  if (count <= 0) return 0;
  std::string_view text(bytes.data(), static_cast<size_t>(count));
  text.remove_prefix(std::min(text.find(' ') + 1, text.size()));
  uint64_t waited = 0;
  (void)std::from_chars(text.data(), text.data() + text.size(), waited);
  return waited;
}

}  // namespace

uint64_t TurnGuard::CpuNs() const {
  timespec time{};
  if (clock_gettime(cpu_, &time) != 0) return last_cpu_ns_;  // The thread has ended.
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

TurnGuard::Times TurnGuard::Now() const {
  Times now;
  now.cpu = CpuNs();
  now.waited = WaitedNs(tid_->load(std::memory_order_relaxed));
  now.steady = MonotonicNs();
  return now;
}

bool TurnGuard::IsStuck() {
  const uint64_t turns = turns_->load(std::memory_order_relaxed);
  const Times now = Now();
  is_busy_ = now.cpu != last_cpu_ns_;
  last_cpu_ns_ = now.cpu;
  const uint64_t worked = now.cpu - then_.cpu;
  const uint64_t awake = worked + (now.waited - then_.waited);
  const uint64_t passed = now.steady - then_.steady;
  const uint64_t rested = passed > awake ? passed - awake : 0;
  if (turns != seen_turns_ || (rested >= kTurnRestNs && rested > worked)) {
    seen_turns_ = turns;
    then_ = now;
  }
  return now.cpu - then_.cpu >= kTurnCpuNsMax;
}

}  // namespace statehouse
