// HostDebts: what each host still owes for calls that came to nothing, and for connections.
//
// A call is wasted when its access token is refused, when its client takes it back before it is
// answered, or when it brings no request. Each costs the polling thread about as much as a call
// that is served, and a client can send them without ever reading an answer. So a host may have so
// many a second, some of them at once; each beyond that puts off what comes next from there. In the
// same way a host may open kConnectionsAtOnce connections at once, and further ones a kConnectionNs
// apart; one that turns out to be of use (Refund) does not count.
//
//   now ──────────┬───── at once ─────┐
//                 │ paid for          │ this much later may the next one come
//   debt ─────────┴───────────────────┴─────────►
//
// Owned by the acceptor. Threads: one at a time. Always true: at most kHostsMax hosts are
// remembered; beyond, those go that owe nothing, else the one that owes least. Nobody is put off by
// more than kPauseNsMax for waste.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "service/rpc/tcp_peer.h"

namespace statehouse {

inline constexpr size_t kHostsMax = 1024;
inline constexpr uint32_t kWastedCallsPerSecondMax = 1'000'000;
inline constexpr uint64_t kWasteAtOnce = 100;  // Calls; a second's, if that is less.
inline constexpr uint64_t kPauseNsMax = 1'000'000'000;
inline constexpr uint64_t kConnectionNs = 2'000'000;
inline constexpr uint64_t kConnectionsAtOnce = 64;

class HostDebts final {
 public:
  // 0: nobody is put off.
  explicit HostDebts(uint32_t wasted_calls_per_second_max);

  // Counts a wasted call of the host at the steady clock's `now_ns`. For how many nanoseconds the
  // connection that it came by is not to be read.
  uint64_t Waste(const HostKey& host, uint64_t now_ns);

  // Counts a new connection of the host, which may be taken when DueIn says so of what this
  // returns.
  uint64_t Enter(const HostKey& host, uint64_t now_ns);
  // In how many nanoseconds; 0: now. Forgotten hosts owe nothing.
  uint64_t DueIn(const HostKey& host, uint64_t due, uint64_t now_ns) const;
  // A connection of the host is of use, or was not taken: the next one may come as if it had not
  // been there.
  void Refund(const HostKey& host);

  size_t hosts() const { return debts_.size(); }

 private:
  struct Debt {
    uint64_t waste_ns = 0;     // Until then what was wasted is not paid for,
    uint64_t connect_ns = 0;   // and connections, by a clock that is ahead of ours by
    uint64_t refunded_ns = 0;  // so much.
  };
  using Debts = std::map<HostKey, Debt>;
  Debt& Of(const HostKey& host, uint64_t now_ns);
  static uint64_t OwedNs(const Debt& debt, uint64_t now_ns);

  const uint64_t waste_each_ns_;  // 0: no limit.
  const uint64_t waste_at_once_ns_;
  Debts debts_;
};

}  // namespace statehouse
