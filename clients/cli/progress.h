// Progress: says on standard error how far a command has come; on a terminal one line that is
// written over.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>

namespace statehouse::cli {

class Progress final {
 public:
  void Tell(const std::string& text) {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return;
    next_ = now + kInterval;
    shown_ = true;
    std::fprintf(stderr, on_terminal_ ? "\r%s\x1b[K" : "%s\n", text.c_str());
  }
  void End(const std::string& text) const {
    std::fprintf(stderr, on_terminal_ && shown_ ? "\r%s\x1b[K\n" : "%s\n", text.c_str());
  }

 private:
  static constexpr auto kInterval = std::chrono::milliseconds(500);

  const bool on_terminal_ = isatty(STDERR_FILENO) != 0;
  bool shown_ = false;
  std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now();
};

}  // namespace statehouse::cli
