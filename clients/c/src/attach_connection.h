// AttachConnection: one connection of a worker to the daemon's attach door
// (engine/attach/protocol.h).
//
// Who owns it: LocalSession, which also closes its descriptor in a forked child.
// Threads: one at a time. Always true: the descriptor is close-on-exec, and nothing waits beyond
// its deadline. Failure: UNAVAILABLE means that the peer is away or hung up; Send then delivered
// nothing.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/attach/protocol.h"
#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse {

using Deadline = std::chrono::steady_clock::time_point;

// Asked every 100 ms at most while a call waits; true gives the call up with CANCELLED. May be
// empty.
using Interrupt = std::function<bool()>;

class AttachConnection final {
 public:
  struct Received {
    AttachPacket packet;
    std::vector<UniqueFd> descriptors;
  };

  AttachConnection() = default;
  AttachConnection(AttachConnection&&) = default;
  AttachConnection& operator=(AttachConnection&&) = default;

  // Connects to <runtime_dir>/attach.sock. Errors: UNAVAILABLE (nobody listens there now),
  // PERMISSION_DENIED, INVALID_ARGUMENT (the path is too long for a socket).
  static StatusOr<AttachConnection> Open(const std::string& runtime_dir);

  // Sends one packet, with `descriptor` beside it unless that is negative. Errors: UNAVAILABLE,
  // TIMEOUT, MESSAGE_TOO_LARGE.
  Status Send(const AttachPacket& packet, int descriptor, Deadline deadline);

  // Sends the bytes of one packet. Errors: as Send.
  Status SendBytes(std::string_view bytes, Deadline deadline) const;

  // The next packet. Errors: UNAVAILABLE (hung up), TIMEOUT, CANCELLED (interrupted),
  // INVALID_ARGUMENT (garbled).
  StatusOr<Received> Receive(Deadline deadline, const Interrupt& interrupted);
  // Its bytes, until the next one is received, and in *descriptors what came beside it. Without
  // `descriptors` the kernel drops what does, and has less to do. Errors: as Receive.
  StatusOr<std::span<const std::byte>> ReceiveBytes(Deadline deadline, const Interrupt& interrupted,
                                                    std::vector<UniqueFd>* descriptors);

  bool open() const { return socket_.valid(); }
  // Whether the other side is gone. False also where that cannot be known.
  bool peer_is_gone() const;
  int descriptor() const { return socket_.get(); }
  void Close() { socket_.Reset(); }
  // Forgets the descriptor without closing it: somebody else did.
  void Forget() { static_cast<void>(socket_.Release()); }

 private:
  explicit AttachConnection(UniqueFd socket) : socket_(std::move(socket)) {}
  // Waits for `events` (poll) on the socket.
  Status WaitFor(short events, Deadline deadline, const Interrupt& interrupted) const;
  // Calls `attempt`, which sends, again until it has or cannot.
  template <typename Try>
  Status UntilSent(Deadline deadline, const Try& attempt) const;
  // One packet into buffer_, as recvmsg gives it; *truncated where it or its descriptors did not
  // fit.
  ssize_t ReceiveOnce(int flags, std::vector<UniqueFd>* descriptors, bool* truncated) const;

  UniqueFd socket_;
  // For one packet; kept, because so much memory is asked of the kernel each time otherwise.
  std::unique_ptr<std::byte[]> buffer_;
};

// "what: No such file or directory"
std::string DescribeErrno(const std::string& what, int error_number);

}  // namespace statehouse
