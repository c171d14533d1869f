// WastedCalls: which connections make the service work for nothing.
//
// A call is wasted when its access token is refused, or when its client takes it back before it is
// answered. Each costs the polling thread as much as a call that is served, and a client can send
// them faster than they are dealt with, without ever reading an answer. So a connection has a limit
// of them for a second.
//
// Owned by the door and used by its polling thread only. Always true: at most kWastingPeersMax
// connections are remembered; a new one takes the place of that with the fewest calls among some,
// so however many there are, those that stay reach the limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace statehouse {

inline constexpr size_t kWastingPeersMax = 1024;
inline constexpr size_t kWastingPeersCompared = 8;  // For the place of a new one.
inline constexpr uint32_t kWastedCallsPerSecondMax = 1'000'000;

class WastedCalls final {
 public:
  // 0: no limit.
  explicit WastedCalls(uint32_t per_second_max) : per_second_max_(per_second_max) {}

  // Counts one of `peer` (with its port: a connection) at the steady clock's `now_ns`. True: it is
  // beyond the limit; then it is forgotten.
  bool Count(std::string_view peer, uint64_t now_ns);
  size_t peers() const { return windows_.size(); }

 private:
  struct Window {
    uint64_t began_ns = 0;
    uint32_t calls = 0;
    size_t place = 0;  // In places_.
  };
  using Windows = std::map<std::string, Window, std::less<>>;
  void Forget(Windows::iterator window);
  // Of the next kWastingPeersCompared: whose second is over, or else who has the fewest calls.
  // REQUIRES: so many are remembered.
  Windows::iterator Least(uint64_t now_ns);

  const uint32_t per_second_max_;
  Windows windows_;
  std::vector<Windows::iterator> places_;  // Of all of them, in no order.
  size_t next_compared_ = 0;
};

}  // namespace statehouse
