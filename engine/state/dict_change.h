// DictChange: a change of a dict with its place in the order of all its changes.
#pragma once

#include <cstdint>
#include <ctime>
#include <string>

#include "engine/shm/feed_layout.h"
#include "engine/state/dict.h"

namespace statehouse {

struct DictChange {
  uint64_t revision = 0;
  uint64_t version = 0;  // The entry's, also of one that is gone.
  FeedOperation operation = FeedOperation::kPut;
  DictKind kind = DictKind::kBytes;
  bool value_gone = false;  // Of a put: it had changed again, so a newer change follows.
  uint64_t bits = 0;        // Of a number; of a gap FeedGap.
  uint64_t time_ms = 0;     // Unix time.
  std::string key;
  std::string bytes;

  DictValue value() const { return {kind, bytes, bits}; }
};

// The time_ms of a change that is read now. For all readers the kernel's coarse clock, some
// milliseconds old, so that the times of one dict's changes do not go back from one to the next.
inline uint64_t ChangeTimeMs() {
  timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
}

}  // namespace statehouse
