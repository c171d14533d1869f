// CallLimit: how much the calls of one token may be, so that no one takes the service from all
// others.
//
// Calls are let in at `calls_per_second`, of which a second's worth may come at once (the generic
// cell rate algorithm, ITU-T I.371, with a burst of one second). A call is let in while the token
// is not ahead of its rate; a batch then counts with all its operations, and what follows waits for
// them. `calls_at_once` counts calls that have not ended, waits included.
//
// Who owns it: the identities of one token, over reloads of the tokens file. Threads: any.
// Always true: each call that Begin let in is ended by one End.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "engine/base/limits.h"
#include "engine/base/status.h"

namespace statehouse {

// 0: no limit. At most kCallsPerSecondMax and kCallsAtOnceMax.
struct CallLimits {
  uint32_t calls_per_second = 0;
  uint32_t calls_at_once = 0;

  bool any() const { return calls_per_second != 0 || calls_at_once != 0; }
  friend bool operator==(const CallLimits&, const CallLimits&) = default;
};

class CallLimit final {
 public:
  explicit CallLimit(const CallLimits& limits) { Configure(limits); }
  // From now on. What has begun stays.
  void Configure(const CallLimits& limits);

  // A call begins at the steady clock's `now_ns`, or is refused with RATE_LIMITED, which says when
  // to try again and which setting it is, as `statehouse doctor` looks for it.
  Status Begin(std::string_view token_id, uint64_t now_ns);
  // The call that began does `count` more.
  void Spend(uint64_t count, uint64_t now_ns);
  void End() { at_once_.fetch_sub(1, std::memory_order_relaxed); }

  uint32_t at_once() const { return at_once_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint32_t> calls_per_second_{0};
  std::atomic<uint32_t> calls_at_once_max_{0};
  std::atomic<uint32_t> at_once_{0};
  // When the calls that were let in are through at the rate of the token.
  std::atomic<uint64_t> busy_until_ns_{0};
};

}  // namespace statehouse
