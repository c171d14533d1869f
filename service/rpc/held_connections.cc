#include "service/rpc/held_connections.h"

#include <poll.h>

#include <algorithm>
#include <utility>

namespace statehouse {
namespace {

bool HasLeft(int fd) {
  pollfd left{fd, POLLRDHUP, 0};
  return ::poll(&left, 1, 0) == 1 && (left.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace

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

void HeldConnections::Clear() {
  hosts_.clear();
  size_.store(0, std::memory_order_relaxed);
}

}  // namespace statehouse
