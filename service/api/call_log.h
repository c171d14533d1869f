// CallLog: what the service's log says of calls: those that took long, and those that make, empty
// or remove objects or take them from others, with who made them and from where. Names and token
// ids, never values, keys of dicts or tokens.
//
// Who owns it: the composition root, which changes its settings; the dispatcher tells it of calls.
// Threads: any.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string_view>

#include "engine/base/reason.h"
#include "service/api/dispatcher.h"

namespace statehouse {

inline constexpr uint32_t kSlowCallMsDefault = 1000;
// Lines of slow calls in a second, and of refused calls in the audit; of the others only their
// number is logged. What was done is always logged.
inline constexpr uint32_t kCallLinesMax = 10;

struct LoggedCall {
  Door door = Door::kNetwork;
  std::string_view method;
  std::string_view name;      // Of the object; empty where the method names none.
  std::string_view token_id;  // Of the caller, …
  std::string_view peer;      // … who is there; empty where nobody knows.
  Reason reason = Reason::kOk;
  std::chrono::nanoseconds took{};
};

class CallLog final {
 public:
  // Of a call that took at least so long; 0: of none.
  void SetSlowCall(std::chrono::milliseconds at_least) {
    slow_ms_.store(static_cast<uint32_t>(at_least.count()), std::memory_order_relaxed);
  }
  void SetAudit(bool audit) { audit_.store(audit, std::memory_order_relaxed); }

  // Whether the method is one of those that are always logged.
  static bool IsAudited(std::string_view method);
  // Whether it waits for something by its nature, so that a long time says nothing.
  static bool Waits(std::string_view method);

  bool audits() const { return audit_.load(std::memory_order_relaxed); }
  bool IsSlow(std::chrono::nanoseconds took) const {
    const uint32_t ms = slow_ms_.load(std::memory_order_relaxed);
    return ms != 0 && took >= std::chrono::milliseconds(ms);
  }
  bool looks_for_slow() const { return slow_ms_.load(std::memory_order_relaxed) != 0; }

  // At the steady clock's second `now_s`. The audit is logged whatever the log's level is.
  void Audit(const LoggedCall& call, int64_t now_s);
  void Slow(const LoggedCall& call, int64_t now_s);

 private:
  // Lets kCallLinesMax lines through in a second. Any thread.
  class Lines final {
   public:
    // *missed: how many were not, in the second before this one; else 0.
    bool Take(int64_t now_s, uint32_t* missed);

   private:
    std::atomic<int64_t> second_{0};  // Whose lines are counted …
    std::atomic<uint32_t> count_{0};  // … here.
  };

  std::atomic<uint32_t> slow_ms_{kSlowCallMsDefault};
  std::atomic<bool> audit_{true};
  Lines slow_lines_;
  Lines refused_lines_;
};

}  // namespace statehouse
