// The dicts that dict_bench measures: each in a segment of its own, without a daemon.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/os/unique_fd.h"
#include "engine/state/dict.h"

namespace statehouse::bench {

constexpr uint32_t kManyKeys = 1'000'000;

[[noreturn]] void Die(const std::string& what);

inline void Require(const Status& status) {
  if (!status.ok()) [[unlikely]]
    Die(status.ToString());
}

// The compiler must have the value ready here.
template <typename T>
void Keep(const T& value) {
  asm volatile("" : : "r,m"(value) : "memory");
}

// Lane 0 is the daemon's.
inline Lane LaneOf(int process) { return Lane{static_cast<uint32_t>(1 + process)}; }

struct BenchDict {
  // With so many keys (KeyOf) and values of kValueBytes.
  static BenchDict Filled(uint32_t keys);
  double AllocatedBytesNow() const;

  UniqueFd segment;
  std::unique_ptr<Dict> dict;
};

}  // namespace statehouse::bench
