// Acceptor: takes connections from listening sockets and hands them on, up to a limit, and sees to
// it that those who waste the door's time wait for their next turn.
//
//   listener ──► [host has its connections at once?] ── yes ──► read gate ──► handed on
//                    │ no                                           ▲
//                    └──► held, in order, a while apart ────────────┘
//
// Who comes by a unix socket is handed on after the first thing it says, or kSilentNs.
//
// Who owns it: the door. Threads: one of its own; OnWasted, Raise and Stop from any one.
// Always true: at most `connections_max` connections are open that are handed on or have said
// nothing; one beyond is closed at once, which a client sees as UNAVAILABLE. A connection takes one
// descriptor, which is no longer ours once it is handed on. How fast a host may connect, and how
// long a connection whose calls come to nothing is not read, is HostDebts'; other hosts, other
// connections of the same host that waste nothing, and who comes by a unix socket, notice nothing.
// Failure: when descriptors run out, connections stay in the kernel's queue, and it tries again
// every 50 ms.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "service/rpc/held_connections.h"
#include "service/rpc/host_debts.h"
#include "service/rpc/read_gate.h"
#include "service/rpc/tcp_peer.h"

namespace statehouse {

// Bytes that the kernel takes for a connection beyond what its client's window lets it send: who
// does not read costs that, not megabytes that are copied for nobody.
inline constexpr int kUnsentBytesMax = 128 << 10;
// Who has said nothing for so long is taken all the same; so is whoever comes by a unix socket
// while kSilentMax others there have said nothing.
inline constexpr uint64_t kSilentNs = 1'000'000'000;
inline constexpr size_t kSilentMax = 1024;

struct AcceptorOptions {
  uint32_t connections_max = 0;
  uint32_t wasted_calls_per_second_max = 0;  // Of a host; 0: nobody waits for anything.
  bool raise_priority = false;               // Of its thread (door_thread.h).
  // Whoever says nothing is not taken at once, so that what a client says first is there when it
  // is handed on: by TCP, and by unix sockets.
  bool waits_for_first = false;
  bool waits_for_first_of_unix = false;
  uint64_t silent_ns = kSilentNs;  // Of unix sockets.
  size_t silent_max = kSilentMax;
  // Each may be called on any thread, and not use the acceptor. Null: nobody wants to know.
  std::function<void(const std::string& peer)> on_throttled;  // A connection has its first pause.
  std::function<void(const std::string& peer)> on_held;       // A new one waits to be taken.
  std::function<void()> on_ended;           // One was ended that would have been paused further.
  std::function<void(int change)> on_open;  // +1: one is handed on; -1: it is closed.
  std::function<void(const std::string& peer)> on_refused;  // One beyond `connections_max`.
};

class Acceptor final {
 public:
  using HandOn = std::function<void(UniqueFd connection)>;

  static StatusOr<std::unique_ptr<Acceptor>> Start(std::vector<UniqueFd> listeners,
                                                   AcceptorOptions options, HandOn hand_on);
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // A call that came from `peer`, as gRPC writes it ("ipv4:127.0.0.1:51234"), came to nothing.
  void OnWasted(std::string_view peer);
  // Its caller is known, or it was of use. Cheap to ask first whether anybody wants to know.
  bool WantsStandings() const { return gate_.any_to_raise(); }
  void Raise(std::string_view peer, ReadGate::Standing standing);
  // Joins the thread and closes the listeners, what is held and who has said nothing; connections
  // go on, and none is paused any more. Idempotent.
  void Stop();

 private:
  struct Silent {
    UniqueFd connection;
    uint64_t until_ns = 0;
  };

  Acceptor(std::vector<UniqueFd> listeners, AcceptorOptions options, HandOn hand_on);
  Status Prepare();
  void Run();
  // What is there, or a turn's worth of it. False when the listener cannot be read from for now.
  bool AcceptSome(int listener);
  void TakeOrHold(UniqueFd connection);
  // One by a unix socket, when it has said something.
  void AwaitFirst(UniqueFd connection);
  // Whether the descriptor is that of one that was silent: it says something, or has left.
  bool TakeSilent(int fd);
  // Those that are silent for too long, or a turn's worth of them. In how many nanoseconds there is
  // a next one.
  std::optional<uint64_t> TakeLongSilent(uint64_t now_ns);
  void Take(UniqueFd connection, const std::optional<TcpPeer>& peer);
  // How long the thread may sleep, in milliseconds; -1: until something happens.
  int DoWhatIsDue();
  void Wake();
  Status Watch(int fd, uint32_t events);

  std::vector<UniqueFd> listeners_;
  const AcceptorOptions options_;
  const HandOn hand_on_;
  UniqueFd epoll_;
  UniqueFd stop_;
  UniqueFd wake_;
  ReadGate gate_;
  std::mutex mutex_;           // Taken before the gate's.
  HostDebts debts_;            // Under mutex_.
  HeldConnections held_;       // The thread's.
  std::deque<Silent> silent_;  // By unix sockets, the oldest first. The thread's.
  uint64_t ended_ = 0;         // Of the gate's, those that were told. The thread's.
  std::thread thread_;
};

}  // namespace statehouse
