// FaultProxy: stands between a client and the network door, passes bytes on, and makes a bad
// network of it: connections cut at random moments, replies that get lost, delays, directions that
// stall, little bandwidth.
//
// Who owns it: the test. Threads: any may call it; one of its own does the work. Always true: bytes
// keep their order; a connection is cut within `life_ms_max` of its beginning, between two bytes of
// either direction, half of them by a reset and half by an orderly end; what was read before may be
// lost. What is random comes from `seed`, which is printed. When the object is gone, no connection,
// socket file or thread of it is left. Failure: a target that does not answer ends the connection.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse::testing {

// A connection beyond is closed at once.
inline constexpr size_t kProxyConnectionsMax = 256;

class FaultProxy final {
 public:
  struct Options {
    std::string target;           // "127.0.0.1:41234", or the path of a unix socket.
    uint32_t life_ms_max = 1000;  // 0: none is cut for its age.
    uint32_t seed = 0;
    std::string listen_path = {};  // A unix socket to listen at; empty: a free port of loopback.
    // How likely it is, each time that bytes come from the target, that they are thrown away and
    // the connection is reset: the request went through, its reply is lost. 0 to 1.
    double reply_loss = 0;
    uint32_t delay_ms = 0;          // Bytes wait so long, in each direction.
    uint64_t bytes_per_second = 0;  // Of each direction of a connection; 0: no limit.
  };
  // Of bytes: from the client to the target, and back.
  enum class Direction : uint8_t { kUp, kDown };

  static StatusOr<std::unique_ptr<FaultProxy>> Start(Options options);
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  // Where clients connect to: "127.0.0.1:port", or the socket's path.
  std::string address() const;
  // From now on no connection is cut and no reply lost.
  void StopCutting() { cuts_on_ = false; }
  // From now on nothing is read from that side, not even its end: the connection is half open.
  void Stall(Direction direction) { SetStalled(direction, true); }
  void Resume(Direction direction) { SetStalled(direction, false); }
  uint64_t cuts() const { return cuts_; }
  uint64_t lost_replies() const { return lost_replies_; }

 private:
  struct Piece {
    std::string bytes;
    uint64_t due_ns = 0;  // When it may go on.
  };
  // One direction: what was read and is not written yet.
  struct Flow {
    std::deque<Piece> pieces;
    size_t bytes = 0;      // Of all of them.
    uint64_t free_ns = 0;  // When the bandwidth allows the next byte.
    bool ended = false;
  };
  struct Connection {
    UniqueFd client;
    UniqueFd server;
    Flow up;
    Flow down;
    uint64_t cut_ns = 0;
  };

  explicit FaultProxy(Options options) : options_(std::move(options)), random_(options_.seed) {}
  Status Listen();
  void Run();
  void Accept();
  void SetStalled(Direction direction, bool stalled);
  bool IsStalled(Direction direction) const { return stalled_[static_cast<size_t>(direction)]; }
  // What to wait for at `fd`, which `in` is read from and `out` written to; and until when.
  short EventsOf(const Flow& in, Direction read, const Flow& out, uint64_t now,
                 uint64_t* next) const;
  // False: the connection is over.
  bool Pass(Connection& connection);
  // False: one side is gone.
  bool Read(int from, Direction direction, Flow* flow);
  bool Write(int to, Flow* flow) const;
  bool LosesReply();
  void Cut(Connection& connection, bool by_reset);

  const Options options_;
  UniqueFd listener_;
  UniqueFd wake_;
  uint16_t port_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> cuts_on_{true};
  std::atomic<bool> stalled_[2] = {false, false};
  std::atomic<uint64_t> cuts_{0};
  std::atomic<uint64_t> lost_replies_{0};
  std::mt19937 random_;  // Of the thread, as what follows.
  std::vector<Connection> connections_;
  std::thread thread_;
};

}  // namespace statehouse::testing
