// OnCore: while it lives its thread runs on one processor, and so do the threads and processes that
// are started by it. What two of them take to wake each other is another time, several times as
// long on a virtual machine, where they sleep on different processors; which one it is else, the
// scheduler decides anew all the time.
#pragma once

#include <sched.h>

namespace statehouse::bench {

class OnCore final {
 public:
  static constexpr int kAny = -1;

  // kAny, and a processor that is not there: wherever the scheduler likes.
  explicit OnCore(int core) {
    CPU_ZERO(&before_);
    restores_ = core != kAny && sched_getaffinity(0, sizeof before_, &before_) == 0;
    if (!restores_) return;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(core), &one);
    is_there_ = sched_setaffinity(0, sizeof one, &one) == 0;
  }
  ~OnCore() {
    if (restores_) sched_setaffinity(0, sizeof before_, &before_);
  }
  OnCore(const OnCore&) = delete;
  OnCore& operator=(const OnCore&) = delete;
  bool is_there() const { return is_there_; }

 private:
  cpu_set_t before_;
  bool restores_ = false;
  bool is_there_ = true;
};

}  // namespace statehouse::bench
