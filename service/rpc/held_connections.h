// HeldConnections: new connections whose host has to wait before they are taken.
//
// Those of a host are taken in the order in which they came, when HostDebts says that it is time.
// Who has left meanwhile is closed, and the next one may come.
//
// Owned by the acceptor. Threads: one at a time, but for size. Always true: at most `held_max` are
// held. Failure: one beyond is closed at once.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>

#include "engine/os/unique_fd.h"
#include "service/rpc/host_debts.h"
#include "service/rpc/tcp_peer.h"

namespace statehouse {

inline constexpr size_t kHeldMax = 8192;
// While connections are held, what there is to do is done for so long, and then others have the
// processor for so long: a wake-up for each new connection would cost them more than it waits, and
// all that have left by then at once would keep them out for milliseconds.
inline constexpr uint64_t kStormTurnNs = 200'000;
inline constexpr uint64_t kStormPauseNs = 500'000;

class HeldConnections final {
 public:
  explicit HeldConnections(size_t held_max = kHeldMax) : held_max_(held_max) {}

  // Holds a connection of the host until HostDebts says that `due` has come, `latest_ns` at the
  // latest. False: there is no room, and it is closed.
  bool Hold(UniqueFd connection, const HostKey& host, uint64_t due, uint64_t latest_ns);
  struct Next {
    UniqueFd connection;    // Not valid: nobody's time has come.
    bool has_left = false;  // Its client: the next one of its host may come in its place.
  };
  // One whose time has come; hosts take turns. `wait_ns`, where there is none: until then nobody's
  // comes, none when nobody waits.
  Next TakeNext(uint64_t now_ns, HostDebts* debts, std::optional<uint64_t>* wait_ns);
  // Takes one after another whose time has come until a turn is over, by `clock`: each whose client
  // has not left. `debts` is used under `mutex`, and nothing else is. In how many nanoseconds the
  // next one's time comes (0: the turn was over before), none when nobody waits.
  std::optional<uint64_t> TakeTurn(const std::function<uint64_t()>& clock, std::mutex* mutex,
                                   HostDebts* debts, const std::function<void(UniqueFd)>& take);
  size_t size() const { return size_.load(std::memory_order_relaxed); }
  void Clear();

 private:
  struct Held {
    UniqueFd connection;
    uint64_t due = 0;        // As HostDebts has it.
    uint64_t latest_ns = 0;  // Then in any case: its host may be forgotten meanwhile.
  };
  const size_t held_max_;
  std::map<HostKey, std::deque<Held>> hosts_;  // None of them empty.
  HostKey last_{};                             // The host that had the last turn.
  std::atomic<size_t> size_{0};
};

}  // namespace statehouse
