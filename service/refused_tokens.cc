#include "service/refused_tokens.h"

#include <algorithm>

#include "service/api/log_fields.h"
#include "service/log.h"
#include "service/rpc/tcp_peer.h"

namespace statehouse {
namespace {

// Without what differs between two connections of one host: the port, or the process.
std::string HostOf(std::string_view peer) {
  if (auto tcp = ParsePeer(peer)) {
    tcp->host = tcp->Host().bytes;
    const std::string text = tcp->ToString();
    return text.substr(0, text.rfind(':'));
  }
  return ShownPeer(peer.substr(0, peer.find(",pid=")));
}

}  // namespace

void RefusedTokens::Add(Door door, std::string_view peer, Reason reason, int64_t now_s) {
  const std::string name = HostOf(peer) + " at the " + std::string(DoorName(door)) + " door";
  const std::lock_guard<std::mutex> lock(mutex_);
  auto found = hosts_.find(name);
  if (found == hosts_.end() && hosts_.size() >= kRefusedHostsMax) {
    if (others_++ == 0) others_told_s_ = now_s;
    return;
  }
  const bool is_new = found == hosts_.end();
  if (is_new) found = hosts_.emplace(name, Host()).first;
  Host& host = found->second;
  ++host.counts[reason];
  host.door = door;
  host.latest = ShownPeer(peer);
  host.reason = reason;
  if (!is_new && now_s - host.told_s < kRefusedLineIntervalS) return;
  TellOne(name, &host);
  host.told_s = now_s;
}

void RefusedTokens::Tell(int64_t now_s) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto it = hosts_.begin(); it != hosts_.end();) {
    const auto current = it++;
    if (now_s - current->second.told_s < kRefusedLineIntervalS) continue;
    if (current->second.counts.empty()) {
      hosts_.erase(current);
      continue;
    }
    TellOne(current->first, &current->second);
    current->second.told_s = now_s;
  }
  if (now_s - others_told_s_ >= kRefusedLineIntervalS) TellOthers();
}

void RefusedTokens::TellAll() {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [name, host] : hosts_) {
    if (!host.counts.empty()) TellOne(name, &host);
  }
  TellOthers();
}

void RefusedTokens::TellOne(const std::string& name, Host* host) {
  uint64_t total = 0;
  std::string reasons;
  for (const auto& [reason, count] : host->counts) {
    total += count;
    reasons += (reasons.empty() ? "" : ", ") + std::to_string(count) + " " +
               std::string(ReasonName(reason));
  }
  LogFields fields;
  fields.Text("kind", "refused_tokens")
      .Text("door", DoorName(host->door))
      .Text("peer", host->latest)
      .Text("reason", ReasonName(host->reason))
      .Number("count", total)
      .Log(*spdlog::default_logger(), spdlog::level::warn,
           fmt::format(
               "refused access tokens of {}: {} since its last line ({}), the latest from {}", name,
               total, reasons, host->latest));
  host->counts.clear();
}

void RefusedTokens::TellOthers() {
  if (others_ == 0) return;
  spdlog::warn("refused access tokens of other hosts than the {} that have lines of their own: {}",
               kRefusedHostsMax, others_);
  others_ = 0;
}

}  // namespace statehouse
