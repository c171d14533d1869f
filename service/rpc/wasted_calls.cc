#include "service/rpc/wasted_calls.h"

namespace statehouse {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;

}  // namespace

bool WastedCalls::Count(std::string_view peer, uint64_t now_ns) {
  if (per_second_max_ == 0) return false;
  auto found = windows_.find(peer);
  if (found == windows_.end()) {
    if (windows_.size() >= kWastingPeersMax) Forget(Least(now_ns));
    found = windows_.emplace(std::string(peer), Window{now_ns, 0, places_.size()}).first;
    places_.push_back(found);
  }
  Window& window = found->second;
  if (now_ns - window.began_ns >= kSecondNs) {
    window.began_ns = now_ns;
    window.calls = 0;
  }
  if (++window.calls <= per_second_max_) return false;
  Forget(found);
  return true;
}

void WastedCalls::Forget(Windows::iterator window) {
  const size_t place = window->second.place;
  places_[place] = places_.back();
  places_[place]->second.place = place;
  places_.pop_back();
  windows_.erase(window);
}

WastedCalls::Windows::iterator WastedCalls::Least(uint64_t now_ns) {
  const auto calls_of = [now_ns](const Window& window) {
    return now_ns - window.began_ns >= kSecondNs ? 0 : window.calls;
  };
  Windows::iterator least = windows_.end();
  for (size_t i = 0; i < kWastingPeersCompared; ++i) {
    next_compared_ = (next_compared_ + 1) % places_.size();
    const Windows::iterator one = places_[next_compared_];
    if (least == windows_.end() || calls_of(one->second) < calls_of(least->second)) least = one;
  }
  return least;
}

}  // namespace statehouse
