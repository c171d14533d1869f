#include "service/auth/call_limit.h"

#include <algorithm>
#include <string>

namespace statehouse {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;
// Of a token with too many calls at once: nobody knows when one ends.
constexpr uint32_t kAtOnceRetryAfterMs = 100;

Status Refuse(std::string_view token_id, const std::string& why, uint64_t retry_after_ms) {
  return Status(Reason::kRateLimited, "token " + std::string(token_id) + " " + why +
                                          "; try again after " + std::to_string(retry_after_ms) +
                                          " ms, or have its limit raised")
      .WithRetryAfter(static_cast<uint32_t>(std::min<uint64_t>(retry_after_ms, UINT32_MAX)));
}

}  // namespace

void CallLimit::Configure(const CallLimits& limits) {
  const uint32_t before =
      calls_per_second_.exchange(limits.calls_per_second, std::memory_order_relaxed);
  // What was spent at the old rate is no debt at a new one.
  if (before != limits.calls_per_second) busy_until_ns_.store(0, std::memory_order_relaxed);
  calls_at_once_max_.store(limits.calls_at_once, std::memory_order_relaxed);
}

Status CallLimit::Begin(std::string_view token_id, uint64_t now_ns) {
  const uint32_t at_once_max = calls_at_once_max_.load(std::memory_order_relaxed);
  const uint32_t before = at_once_.fetch_add(1, std::memory_order_relaxed);
  if (at_once_max != 0 && before >= at_once_max) {
    End();
    return Refuse(token_id, "has " + std::to_string(at_once_max) + " calls at once (calls_at_once)",
                  kAtOnceRetryAfterMs);
  }
  const uint32_t rate = calls_per_second_.load(std::memory_order_relaxed);
  if (rate == 0) return Status();
  uint64_t until = busy_until_ns_.load(std::memory_order_relaxed);
  for (;;) {
    if (until >= now_ns + kSecondNs) {
      End();
      const uint64_t wait_ns = until - now_ns - kSecondNs + 1;
      return Refuse(
          token_id,
          "makes more than " + std::to_string(rate) + " calls a second (calls_per_second)",
          (wait_ns + 999'999) / 1'000'000);
    }
    const uint64_t next = std::max(until, now_ns) + kSecondNs / rate;
    if (busy_until_ns_.compare_exchange_weak(until, next, std::memory_order_relaxed)) {
      return Status();
    }
  }
}

void CallLimit::Spend(uint64_t count, uint64_t now_ns) {
  const uint32_t rate = calls_per_second_.load(std::memory_order_relaxed);
  if (rate == 0 || count == 0) return;
  uint64_t until = busy_until_ns_.load(std::memory_order_relaxed);
  while (!busy_until_ns_.compare_exchange_weak(
      until, std::max(until, now_ns) + count * (kSecondNs / rate), std::memory_order_relaxed)) {
  }
}

}  // namespace statehouse
