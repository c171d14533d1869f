#include "service/rpc/held_connections.h"

#include <algorithm>
#include <utility>

namespace statehouse {
bool HeldConnections::Hold(UniqueFd connection, const HostKey& host, uint64_t due,
                           uint64_t latest_ns) {
  if (size() >= held_max_) return false;
  hosts_[host].push_back({std::move(connection), due, latest_ns});
  size_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

HeldConnections::Next HeldConnections::TakeNext(uint64_t now_ns, HostDebts* debts,
                                                std::optional<uint64_t>* wait_ns) {
  wait_ns->reset();
  auto host = hosts_.upper_bound(last_);
  for (size_t looked = 0; looked < hosts_.size(); ++looked, ++host) {
    if (host == hosts_.end()) host = hosts_.begin();
    std::deque<Held>& held = host->second;
    const Held& first = held.front();
    const uint64_t latest = first.latest_ns > now_ns ? first.latest_ns - now_ns : 0;
    const uint64_t left = std::min(debts->DueIn(host->first, first.due, now_ns), latest);
    if (left > 0) {
      *wait_ns = std::min(wait_ns->value_or(left), left);
      continue;
    }
    last_ = host->first;
    Next next{std::move(held.front().connection), false};
    held.pop_front();
    if (held.empty()) hosts_.erase(host);
    size_.fetch_sub(1, std::memory_order_relaxed);
    next.has_left = HasLeft(next.connection.get());
    if (next.has_left) debts->Refund(last_);
    return next;
  }
  return {};
}

std::optional<uint64_t> HeldConnections::TakeTurn(const std::function<uint64_t()>& clock,
                                                  std::mutex* mutex, HostDebts* debts,
                                                  const std::function<void(UniqueFd)>& take) {
  const uint64_t until_ns = clock() + kStormTurnNs;
  do {
    Next next;
    {
      std::optional<uint64_t> wait_ns;
      const std::lock_guard<std::mutex> lock(*mutex);
      next = TakeNext(clock(), debts, &wait_ns);
      if (!next.connection.valid()) return wait_ns;
    }
    if (!next.has_left) take(std::move(next.connection));
  } while (clock() < until_ns);
  return 0;
}

void HeldConnections::Clear() {
  hosts_.clear();
  size_.store(0, std::memory_order_relaxed);
}

}  // namespace statehouse
