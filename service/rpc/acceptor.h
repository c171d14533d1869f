// Acceptor: takes connections from listening sockets and hands them on, up to a limit.
//
// Who owns it: the door. Threads: one of its own; Stop from any one.
// Always true: at most `connections_max` handed-on connections are open; one beyond is closed at
// once, which a client sees as UNAVAILABLE. A connection takes one descriptor, which is no longer
// ours: when the limit is reached, those are forgotten whose descriptor is closed, or is another
// socket's by now. That is looked for every 50 ms at most, so a place that has just become free may
// be found that much later.
// After a connection was ended by End or the guard, further ones of its host wait for 500 ms,
// unread, and for twice as long each time that this happens again within 10 s, up to 5 s: who
// connects again at once to go on would otherwise pile up calls faster than they are dealt with.
// Other hosts, and who comes by a unix socket, notice nothing. At most kWaitingMax connections
// wait; one beyond is closed at once. Failure: when descriptors run out, connections stay in the
// kernel's queue, and it tries again every 50 ms.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "service/rpc/turn_guard.h"

namespace statehouse {

inline constexpr size_t kWaitingMax = 256;     // Connections of hosts that are held back.
inline constexpr size_t kHeldHostsMax = 1024;  // Hosts that are; beyond, all are forgotten.

// Whether `peer`, as gRPC writes it, has a port, which tells its connection from others.
bool IsTcpPeer(std::string_view peer);

class Acceptor final {
 public:
  using HandOn = std::function<void(UniqueFd connection)>;
  using OnEnded = std::function<void(const std::string& peer)>;

  static StatusOr<std::unique_ptr<Acceptor>> Start(std::vector<UniqueFd> listeners,
                                                   uint32_t connections_max, HandOn hand_on);
  // From now on a connection is ended that keeps the guarded thread to itself: the one whose bytes
  // are being read while that is stuck, unless they come in so fast that they must be a message's,
  // or so slowly that it must be something else that takes the time. `on_ended` is told on this
  // object's thread. Once.
  void Guard(const TurnGuard& guard, OnEnded on_ended);
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // Ends the connection from `peer`, as gRPC writes it ("ipv4:127.0.0.1:51234"); its owner sees the
  // end and closes the descriptor. False: there is none, it was ended already, or it came by a unix
  // socket. Any thread.
  bool End(std::string_view peer);
  // Closes the listeners and joins the thread; connections go on. Idempotent.
  void Stop();

 private:
  Acceptor(std::vector<UniqueFd> listeners, uint32_t connections_max, HandOn hand_on);
  Status Prepare();
  void Run();
  // False when the listener cannot be read from for now.
  bool AcceptAll(int listener);
  void TakeOrHold(UniqueFd connection);
  void Take(UniqueFd connection);
  bool HasRoom();
  // How long the thread may sleep, in milliseconds; -1: until something happens.
  int LookAfterGuarded();
  // Of a connection from there: until when it waits. REQUIRES: mutex_ held.
  std::chrono::steady_clock::time_point HeldBackUntil(const std::string& host) const;
  // REQUIRES: mutex_ held.
  void HoldBack(const std::string& host);
  // Takes those whose time has come; in how many milliseconds the next one's comes, -1: none waits.
  int TakeWaiting();
  void EndGreediest();
  // How many bytes of each TCP connection have been read.
  std::unordered_map<int, uint64_t> BytesRead();
  // False: it is another socket, not that peer's, or ended already. REQUIRES: mutex_ held.
  bool EndHeld(int fd, ino_t socket, std::string_view peer);
  Status Watch(int fd, uint32_t events);

  std::vector<UniqueFd> listeners_;
  const uint32_t connections_max_;
  const HandOn hand_on_;
  UniqueFd epoll_;
  UniqueFd stop_;
  UniqueFd wake_;
  struct Connection {
    ino_t socket = 0;   // That the descriptor was then.
    uint16_t port = 0;  // Of the other side; 0: a unix socket.
  };
  std::mutex mutex_;
  std::optional<TurnGuard> guard_;  // Set under mutex_, then the thread's, as on_ended_.
  OnEnded on_ended_;
  struct Hold {
    std::chrono::milliseconds length{0};
    std::chrono::steady_clock::time_point until{};
  };
  std::map<std::string, Hold> holds_;  // By host. Under mutex_.
  struct Waiting {
    UniqueFd connection;
    std::chrono::steady_clock::time_point until{};
  };
  std::vector<Waiting> waiting_;              // The thread's.
  std::unordered_map<int, Connection> open_;  // By descriptors that were handed on. Under mutex_.
  std::chrono::steady_clock::time_point looked_{};  // For those that are closed.
  std::thread thread_;
};

}  // namespace statehouse
