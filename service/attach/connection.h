// Connection: one worker's socket at the attach door: packets in, packets out, calls in flight.
//
// Who owns it: AttachLoop. Threads: the loop's only. Always true: at most kAttachCallsInFlightMax
// answers are owed, and nothing is read while answers wait for a slow reader, so its memory is
// bounded. Failure: closing() turns true and the loop drops it.
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/attach/protocol.h"
#include "engine/os/unique_fd.h"
#include "service/api/dispatcher.h"
#include "service/auth/authenticator.h"

namespace statehouse {

// How long a packet with descriptors is tried while the kernel refuses it; then its request fails.
inline constexpr std::chrono::milliseconds kSendBusyMax{5'000};

// Who is at the other end, for the log.
struct UnixPeer {
  uid_t uid = 0;
  pid_t pid = 0;  // 0: of another PID namespace.
  // "unix:uid=1000,pid=4711"
  std::string ToString() const {
    return "unix:uid=" + std::to_string(uid) + ",pid=" + std::to_string(pid);
  }
};

class Connection final {
 public:
  Connection(uint64_t id, UniqueFd socket, std::chrono::steady_clock::time_point hello_deadline);

  uint64_t id() const { return id_; }
  int socket() const { return socket_.get(); }
  const ucred& peer() const { return peer_; }
  UnixPeer peer_name() const { return {peer_.uid, peer_.pid}; }
  bool closing() const { return closing_; }
  // Packets wait to go out.
  bool owes() const { return !outgoing_.empty(); }
  // They wait for room in the socket, and not for retry_at().
  bool wants_write() const { return owes() && !retry_at_.has_value(); }
  // When to call Flush again: the kernel was short of something that no poll announces.
  std::optional<std::chrono::steady_clock::time_point> retry_at() const { return retry_at_; }
  // A connection that ends after its last packet has gone out.
  bool finished() const { return closing_ || (closing_when_sent_ && outgoing_.empty()); }
  bool greeted() const { return identity_ != nullptr; }
  bool reads() const { return !closing_ && !closing_when_sent_ && outgoing_.empty(); }
  std::chrono::steady_clock::time_point hello_deadline() const { return hello_deadline_; }

  // Sends now what the socket takes and keeps the rest.
  void Send(const AttachPacket& packet, std::vector<UniqueFd> descriptors = {});
  // Of a Call. `scratch`: memory that is used again.
  void SendReply(uint64_t request_id, std::string_view response, std::string* scratch);
  void SendError(uint64_t request_id, const Status& status);
  // As SendError, and the connection ends once the error has gone out.
  void SendErrorAndClose(uint64_t request_id, const Status& status);
  // Sends what waits, as far as the socket takes it. `now`: if it is not now.
  void Flush(std::optional<std::chrono::steady_clock::time_point> now = std::nullopt);
  void Close() { closing_ = true; }
  // Ends both directions, so that the peer sees it, and gives the socket to who closes it: closing
  // may block, because packets that nobody read may carry descriptors.
  UniqueFd TakeSocket();

  // Set by Hello.
  std::shared_ptr<const Identity> identity_;
  uint64_t identity_generation_ = 0;
  std::string client_name_;
  std::optional<uint32_t> block_;

  // Calls that were not answered yet; the value is null for one that cannot be cancelled.
  std::map<uint64_t, std::shared_ptr<PendingCall>> calls_;
  uint32_t parted_calls_ = 0;  // Of them, those whose responses may come in parts.
  // The loop's: what epoll watches for, and whether several packets are likely to be there.
  uint32_t interest_ = EPOLLIN;
  bool sends_bursts_ = false;
  bool is_timed_ = false;  // Time alone may change something about it.

 private:
  struct Outgoing {
    uint64_t request_id = 0;
    std::string bytes;
    std::vector<UniqueFd> descriptors;
  };

  void OnBusy(std::chrono::steady_clock::time_point now);

  const uint64_t id_;
  UniqueFd socket_;
  ucred peer_{};
  const std::chrono::steady_clock::time_point hello_deadline_;
  std::deque<Outgoing> outgoing_;
  std::optional<std::chrono::steady_clock::time_point> retry_at_;
  std::chrono::steady_clock::time_point busy_since_;  // Of the packet in front, with retry_at_.
  std::chrono::milliseconds pause_{0};
  bool closing_ = false;
  bool closing_when_sent_ = false;
};

}  // namespace statehouse
