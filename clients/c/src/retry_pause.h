// RetryPause: the pauses between tries, growing from 5 ms, or another length, to 200 ms, each drawn
// between half and all of its length so that many clients do not come back in step.
#pragma once

#include <algorithm>
#include <chrono>
#include <optional>
#include <random>
#include <thread>

namespace statehouse {

// Owned by one retry loop on one thread.
class RetryPause final {
 public:
  explicit RetryPause(std::chrono::microseconds first = kLengthFirst) : length_(first) {}
  // Sleeps, but not beyond `deadline`. False when the deadline has passed.
  bool Pause(std::chrono::steady_clock::time_point deadline) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) return false;
    std::this_thread::sleep_until(std::min(deadline, now + Draw()));
    return true;
  }
  // The next pause's length, for who waits by himself.
  std::chrono::microseconds Draw() {
    if (!random_.has_value()) random_.emplace(std::random_device()());
    std::uniform_int_distribution<int64_t> draw(length_.count() / 2, length_.count());
    const std::chrono::microseconds drawn(draw(*random_));
    length_ = std::min(length_ * 2, kLengthMax);
    return drawn;
  }

 private:
  static constexpr std::chrono::microseconds kLengthFirst{5'000};
  static constexpr std::chrono::microseconds kLengthMax{200'000};
  std::chrono::microseconds length_;
  // Seeded when it is needed: that takes microseconds, and hardly any call is tried twice.
  std::optional<std::minstd_rand> random_;
};

}  // namespace statehouse
