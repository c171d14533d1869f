// ReadGate: how much of each connection is read in a turn, and when its next turn is.
//
// gRPC reads a connection for as long as there are bytes. Those of messages are held back by its
// flow control; frames that begin calls, take them back or ask are not, so a client that sends them
// faster than they are dealt with would be read for ever: nobody else is served, and its calls pile
// up in memory. The gate stands between gRPC and the kernel: the program's own recvmsg
// (gated_calls.cc) says "nothing there for now" (EAGAIN) when a connection has had its turn, and
// has the kernel's epoll report it again, behind those that are ready by then.
//
//   socket ──► recvmsg ──► [share of this turn left?] ── yes ──► gRPC
//                             │ no                  │ paused
//                             ▼                     ▼
//                      EPOLL_CTL_MOD: next      not asked for until RearmDue
//                      round of epoll_wait      finds that its pause is over
//
// What is not read stays in the kernel, and TCP makes its sender wait. A turn is meant to take
// kTurnNs, a stranger's kStrangerTurnNs: one that was cut off and took longer halves the
// connection's share, one that took less than half of that doubles it, from kShareMin up to
// kShareMax for those whose caller is known, and to kStrangerShareMax for others. A pause is for
// connections whose calls come to nothing, and for strangers who have had kStrangerTurns turns cut
// off: nobody needs so much to say who they are. Who has wasted a call and not been of use since is
// paused for a moment after each kWastefulBytes: what follows a message that was refused for its
// size is nobody's.
//
// Who owns it: the acceptor. Its descriptors are the process's, and so is the table of them, which
// has one lock for all gates. Threads: any. Always true: whenever a read was refused, epoll is
// asked to report the descriptor after that, at once or by RearmDue; a number whose descriptor was
// closed is free of the gate before the kernel can give it to another. Reading within a share takes
// no lock. Failure: a descriptor that no epoll has been asked about, or cannot be, is read on
// without limit; so are those beyond kGatedDescriptorsMax. With GRPC_POLL_STRATEGY=poll that is
// all.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <queue>
#include <unordered_map>
#include <vector>

#include "service/rpc/tcp_peer.h"

struct epoll_event;

namespace statehouse {

inline constexpr uint64_t kTurnNs = 250'000;  // Shorter ones cost streams of batches a tenth.
inline constexpr uint64_t kStrangerTurnNs = 100'000;
inline constexpr uint32_t kShareMin = 64;  // Bytes: some two calls, if they are as short as can be.
inline constexpr uint32_t kStrangerShareMax = 512;
inline constexpr uint32_t kShareMax = 256 << 10;
inline constexpr uint32_t kStrangerTurns = 24;  // Enough for TLS and the longest access token.
inline constexpr uint64_t kWastefulBytes = 64 << 10;
inline constexpr uint64_t kTurnPauseNs = 2'000'000;  // At least.
inline constexpr size_t kGatedDescriptorsMax = 1 << 18;
// Connections of a gate that have bytes and are paused; one beyond is ended.
inline constexpr size_t kPausedMax = 1024;
// Of a connection that is of no use in between; then it is ended: its client may be gone long
// since, and only the kernel still sends.
inline constexpr uint32_t kPausesMax = 500;

class ReadGate final {
 public:
  // `wake` is called when RearmDue is to be called earlier than it said; `on_open`, which may be
  // null, with +1 for each descriptor that is admitted and -1 when it is closed. They must not
  // block, nor use the gate.
  explicit ReadGate(std::function<void()> wake, std::function<void(int)> on_open = nullptr);
  ~ReadGate();
  ReadGate(const ReadGate&) = delete;
  ReadGate& operator=(const ReadGate&) = delete;

  // Gates the descriptor until it is closed. REQUIRES: it is a connected socket that nobody reads
  // from yet, and no epoll knows it.
  void Admit(int fd, const std::optional<TcpPeer>& peer);
  // Descriptors that were admitted and are not closed.
  size_t open() const { return open_.load(std::memory_order_relaxed); }
  // What is known of the other side: nothing, who the caller is, or that it has been of use.
  enum class Standing : uint8_t { kStranger, kKnown, kUseful };
  // Whether there may be connections that have not been of use.
  bool any_to_raise() const { return to_raise_.load(std::memory_order_relaxed) != 0; }
  // The connection has at least that standing. True: it is of use for the first time.
  bool Raise(const TcpPeer& peer, Standing standing);
  // The connection has wasted time: its share is small again. Unless `until_ns` is 0, it is also a
  // stranger's again, and is not read before the steady clock is there. True: its first pause.
  bool Pause(const TcpPeer& peer, uint64_t until_ns);
  // Connections that were ended because kPausedMax were waiting, or after kPausesMax.
  uint64_t ended() const { return ended_.load(std::memory_order_relaxed); }
  // What a turn costs whom it is paused after: for how many nanoseconds from now it is paused
  // further.
  using Charge = std::function<uint64_t(const TcpPeer& peer, bool is_first_pause)>;
  // Lets those be read whose pause is over, and ends those whose client has left meanwhile. In how
  // many nanoseconds it is to be called again; none: not before `wake`. `charge` must not use the
  // gate.
  std::optional<uint64_t> RearmDue(uint64_t now_ns, const Charge& charge);
  // No connection is paused any more; turns go on.
  void EndPauses();
  // How often gRPC has asked the kernel which connections are ready; 0 where it does so without
  // epoll.
  static uint64_t round();
  // Whether none was when it asked last.
  static bool IsIdle();

  // Whether ReportNow has an effect: the descriptor is gated, and an epoll knows it.
  static bool Reports(int fd);
  // Has the descriptor's epoll report it once more, with all that it is ready for.
  static void ReportNow(int fd);

  // For gated_calls.cc, which is what the program calls instead of the kernel's.
  static ssize_t Receive(int fd, msghdr* message, int flags);
  static void OnEpollControl(int epoll, int operation, int fd, const ::epoll_event* event);
  static void BeforeEpollWait(int epoll);
  static void AfterEpollWait(int epoll, int count);
  static void BeforeClose(int fd);

 private:
  struct Slot;
  struct Table;
  // That a connection was refused in.
  struct Wait {
    uint64_t until_ns = 0;
    int fd = -1;
    uint64_t generation = 0;
    bool operator>(const Wait& other) const { return until_ns > other.until_ns; }
  };
  // All REQUIRE the table's lock.
  bool Refuse(int fd, Slot* slot);
  bool RefusePaused(int fd, Slot* slot);
  void Detach(int fd, Slot* slot);
  void SetStanding(Slot* slot, Standing standing);
  void EndPause(int fd, Slot* slot, uint64_t now_ns, const Charge& charge);
  bool PauseOne(Slot* slot, uint64_t until_ns);
  void AddWait(int fd, Slot* slot);

  const std::function<void()> wake_;
  const std::function<void(int)> on_open_;
  std::atomic<size_t> open_{0};
  std::atomic<size_t> to_raise_{0};
  std::atomic<uint64_t> ended_{0};
  // Under the table's lock.
  std::unordered_multimap<TcpPeer, int, TcpPeerHash> by_peer_;
  std::priority_queue<Wait, std::vector<Wait>, std::greater<>> waits_;
  bool pauses_are_over_ = false;
};

}  // namespace statehouse
