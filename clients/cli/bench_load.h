// The load of `statehouse bench`: connections that carry out one operation for a while.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "clients/cli/connection.h"
#include "clients/cli/histogram.h"
#include "clients/cli/stop_signal.h"

namespace statehouse::cli {

inline constexpr uint32_t kBenchConnectionsMax = 1024;
inline constexpr uint64_t kBenchKeysMax = 1'000'000;
inline constexpr double kBenchRateMax = 10'000'000;

enum class BenchOperation : uint8_t { kGet = 0, kSet = 1, kIncrement = 2, kLock = 3 };
inline constexpr const char* kBenchOperationNames[] = {"get", "set", "incr", "lock"};

struct BenchPlan {
  BenchOperation operation = BenchOperation::kGet;
  std::chrono::nanoseconds duration{};
  double rate = 0;  // Of all connections together, a second; 0: each goes on as soon as it can.
  uint64_t keys = 0;
  uint64_t value_bytes = 0;
  std::string dict;    // Which is there.
  std::string prefix;  // Of keys and of locks.
};

struct BenchResult {
  Histogram latencies;  // Of what succeeded and, in an open loop, of what was due and not sent.
  uint64_t completed = 0;
  uint64_t unsent = 0;
  std::map<std::string, uint64_t> errors;  // By reason, with the first one's message.
  double seconds = 0;
};

// When the operations of one connection are due in an open loop: every connection has its turn in
// equal distances, whatever the others do.
class BenchSchedule final {
 public:
  using Clock = std::chrono::steady_clock;
  BenchSchedule(Clock::time_point begin, double rate, uint32_t connection, uint32_t connections)
      : begin_(begin), rate_(rate), at_(connection), step_(connections) {}
  // The time of the next one; the first call gives the first.
  Clock::time_point Next() {
    const auto due = begin_ + std::chrono::nanoseconds(
                                  static_cast<int64_t>(static_cast<double>(at_) / rate_ * 1e9));
    at_ += step_;
    return due;
  }

 private:
  const Clock::time_point begin_;
  const double rate_;
  uint64_t at_;
  const uint64_t step_;
};

// The key or lock of that number.
std::string BenchKey(const BenchPlan& plan, uint64_t number);

// A thread for each client. Ends early when the signal comes. Throws Failed where a client cannot
// open the dict.
BenchResult RunBench(const BenchPlan& plan, const std::vector<Client>& clients, StopSignal* stop);

}  // namespace statehouse::cli
