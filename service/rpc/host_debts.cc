#include "service/rpc/host_debts.h"

#include <algorithm>

namespace statehouse {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;
constexpr uint64_t kConnectAtOnceNs = kConnectionsAtOnce * kConnectionNs;

uint64_t Beyond(uint64_t amount, uint64_t limit) { return amount > limit ? amount - limit : 0; }

}  // namespace

HostDebts::HostDebts(uint32_t wasted_calls_per_second_max)
    : waste_each_ns_(wasted_calls_per_second_max == 0 ? 0
                                                      : kSecondNs / wasted_calls_per_second_max),
      waste_at_once_ns_(waste_each_ns_ *
                        std::min<uint64_t>(wasted_calls_per_second_max, kWasteAtOnce)) {}

uint64_t HostDebts::OwedNs(const Debt& debt, uint64_t now_ns) {
  return Beyond(debt.waste_ns, now_ns) + Beyond(debt.connect_ns, now_ns + debt.refunded_ns);
}

HostDebts::Debt& HostDebts::Of(const HostKey& host, uint64_t now_ns) {
  const auto found = debts_.find(host);
  if (found != debts_.end()) return found->second;
  if (debts_.size() >= kHostsMax) {
    std::erase_if(debts_, [now_ns](const auto& one) { return OwedNs(one.second, now_ns) == 0; });
  }
  if (debts_.size() >= kHostsMax) {
    debts_.erase(
        std::min_element(debts_.begin(), debts_.end(), [now_ns](const auto& a, const auto& b) {
          return OwedNs(a.second, now_ns) < OwedNs(b.second, now_ns);
        }));
  }
  return debts_[host];
}

uint64_t HostDebts::Waste(const HostKey& host, uint64_t now_ns) {
  if (waste_each_ns_ == 0) return 0;
  Debt& debt = Of(host, now_ns);
  debt.waste_ns = std::max(debt.waste_ns, now_ns) + waste_each_ns_;
  debt.waste_ns = std::min(debt.waste_ns, now_ns + waste_at_once_ns_ + kPauseNsMax);
  return Beyond(debt.waste_ns, now_ns + waste_at_once_ns_);
}

uint64_t HostDebts::Enter(const HostKey& host, uint64_t now_ns) {
  if (waste_each_ns_ == 0) return 0;
  Debt& debt = Of(host, now_ns);
  debt.connect_ns = std::max(debt.connect_ns, now_ns + debt.refunded_ns) + kConnectionNs;
  return Beyond(debt.connect_ns, kConnectAtOnceNs);
}

uint64_t HostDebts::DueIn(const HostKey& host, uint64_t due, uint64_t now_ns) const {
  const auto found = debts_.find(host);
  return found == debts_.end() ? 0 : Beyond(due, now_ns + found->second.refunded_ns);
}

void HostDebts::Refund(const HostKey& host) {
  const auto found = debts_.find(host);
  if (found != debts_.end()) found->second.refunded_ns += kConnectionNs;
}

}  // namespace statehouse
