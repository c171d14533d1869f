// Floods: clients that no honest program would be, for tests and benchmarks of the network door.
//
// Each flood runs on threads of its own until its object is gone. Header and source need no test
// framework. Always true: only loopback is talked to; every connection is closed at the end.
// Failure: a connection that the service closes is opened again, and counted.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace statehouse::testing {

enum class FloodKind : uint8_t {
  kSlowReaders,  // Watches of a dict that changes all the time, which never read.
  kHalfOpen,     // Connections that stop in the middle of a frame.
  kBadTokens,    // Calls with tokens that nobody has.
  kOversize,     // Messages that are, or say to be, beyond the limit.
  kMalformed,    // Requests, frames and header blocks of random bytes.
  kRapidResets,  // Calls that are taken back at once.
  kUnreadPings,  // Pings and settings whose answers are never read.
};

// All of them, with names for reports.
struct NamedFlood {
  FloodKind kind;
  const char* name;
};
const std::vector<NamedFlood>& AllFloods();

struct FloodTarget {
  std::string address;  // "127.0.0.1:41234"
  std::string token;    // May read and write the area `area`, and watch and write the dict `dict`.
  std::string area;
  std::string dict;
  uint32_t seed = 0;
  std::string from = {};  // The flood's own address; empty: as the kernel has it.
  // Of the flood's threads, -20 to 19: at 19 it takes hardly a processor from whoever it shares the
  // machine with, as a flood of another host.
  int nice = 0;
};

class Flood final {
 public:
  Flood(FloodKind kind, FloodTarget target);
  ~Flood();
  Flood(const Flood&) = delete;
  Flood& operator=(const Flood&) = delete;

  // Calls, frames or connections, as its kind has them.
  uint64_t sent() const { return sent_; }
  uint64_t reconnects() const { return reconnects_; }

 private:
  using Body = void (Flood::*)(uint32_t number);
  void Start(int threads, Body body);
  void ReadNothing(uint32_t number);
  void Write(uint32_t number);
  void StopHalfway(uint32_t number);
  void TryTokens(uint32_t number);
  void SendTooMuch(uint32_t number);
  void SendNonsense(uint32_t number);
  void TakeBack(uint32_t number);
  void Ping(uint32_t number);

  const FloodTarget target_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> sent_{0};
  std::atomic<uint64_t> reconnects_{0};
  std::vector<std::thread> threads_;
};

// Nanoseconds of so many unary calls of a client that behaves, one after the other with a pause in
// between, sorted; shorter where one failed, or had no answer in time.
std::vector<uint64_t> MeasureCalls(
    const FloodTarget& target, size_t calls,
    std::chrono::milliseconds patience = std::chrono::milliseconds(10'000));

}  // namespace statehouse::testing
