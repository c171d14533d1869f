// StopSignal: SIGINT and SIGTERM as an answer to waiting, for commands that clear up after
// themselves.
//
// Made on the main thread before any other begins: threads inherit that the signals are blocked.
// Gone with the object, unless one has come: then they stay blocked until the process ends, which
// is soon. A second one, as timeout(1) sends it, does not kill what has cleared up.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>

namespace statehouse::cli {

class StopSignal final {
 public:
  StopSignal() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals_, &before_);
  }
  ~StopSignal() {
    if (!came_) pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // True as soon as a signal has come, also in an earlier call; false when it is `until`.
  bool WaitUntil(std::chrono::steady_clock::time_point until) {
    while (!came_) {
      const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(
                            until - std::chrono::steady_clock::now())
                            .count();
      const int64_t wait = std::max<int64_t>(left, 0);
      const timespec timeout{static_cast<time_t>(wait / 1'000'000'000),
                             static_cast<long>(wait % 1'000'000'000)};
      came_ = sigtimedwait(&signals_, nullptr, &timeout) > 0;
      if (left <= 0) break;
    }
    return came_;
  }

 private:
  sigset_t signals_{};
  sigset_t before_{};
  bool came_ = false;
};

}  // namespace statehouse::cli
