#include "service/rpc/wasted_calls.h"

namespace statehouse {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;

}  // namespace

bool WastedCalls::Count(std::string_view peer, uint64_t now_ns) {
  if (per_second_max_ == 0) return false;
  auto found = windows_.find(peer);
  if (found == windows_.end()) {
    if (windows_.size() >= kWastingPeersMax) {
      std::erase_if(windows_, [now_ns](const auto& window) {
        return now_ns - window.second.began_ns >= kSecondNs;
      });
    }
    if (windows_.size() >= kWastingPeersMax) windows_.clear();
    found = windows_.emplace(std::string(peer), Window{now_ns, 0}).first;
  }
  Window& window = found->second;
  if (now_ns - window.began_ns >= kSecondNs) window = {now_ns, 0};
  if (++window.calls <= per_second_max_) return false;
  windows_.erase(found);
  return true;
}

}  // namespace statehouse
