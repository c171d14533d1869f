#include "clients/c/src/attach_connection.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace statehouse {
namespace {

constexpr std::chrono::milliseconds kInterruptPeriod{100};
// Most answers come within it: they are slept for in the call that receives, which saves a poll.
constexpr std::chrono::milliseconds kReceiveTimeout{50};
constexpr int kSendFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
constexpr size_t kPacketBytesMax = kAttachHeaderBytes + kAttachBodyBytesMax;

Status HungUp(const std::string& during) {
  return Status(Reason::kUnavailable, "the daemon closed the attach connection while " + during +
                                          "; it is restarting or stopped, try again");
}

std::vector<UniqueFd> TakeDescriptors(msghdr* header) {
  std::vector<UniqueFd> descriptors;
  for (cmsghdr* c = CMSG_FIRSTHDR(header); c != nullptr; c = CMSG_NXTHDR(header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      descriptors.emplace_back(descriptor);
    }
  }
  return descriptors;
}

}  // namespace

std::string DescribeErrno(const std::string& what, int error_number) {
  return what + ": " + std::generic_category().message(error_number);
}

StatusOr<AttachConnection> AttachConnection::Open(const std::string& runtime_dir) {
  const std::string path = runtime_dir + "/attach.sock";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return Status(Reason::kInvalidArgument, "socket path \"" + path + "\" has " +
                                                std::to_string(path.size()) +
                                                " bytes; choose a runtime dir so that it has "
                                                "at most 107");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) {
    return Status(Reason::kLimitExceeded, DescribeErrno("creating a unix socket", errno));
  }
  if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    const int error_number = errno;
    const std::string what = DescribeErrno("connecting to " + path, error_number);
    if (error_number == EACCES || error_number == EPERM) {
      return Status(Reason::kPermissionDenied,
                    what + "; the local door is open to the service's own user only");
    }
    return Status(Reason::kUnavailable, what + "; is statehoused running with this runtime dir?");
  }
  // Connecting must not wait; receiving may, for so long.
  const timeval timeout{0, std::chrono::microseconds(kReceiveTimeout).count()};
  const int flags = ::fcntl(socket.get(), F_GETFL);
  if (flags < 0 || ::fcntl(socket.get(), F_SETFL, flags & ~O_NONBLOCK) != 0 ||
      ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) != 0) {
    return Status(Reason::kInternal, DescribeErrno("preparing the attach socket", errno));
  }
  return AttachConnection(std::move(socket));
}

Status AttachConnection::WaitFor(short events, Deadline deadline,
                                 const Interrupt& interrupted) const {
  for (;;) {
    if (interrupted && interrupted()) {
      return Status(Reason::kCancelled, "the caller gave up while waiting for the daemon");
    }
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= left.zero()) {
      return Status(Reason::kTimeout,
                    "the daemon did not answer on the attach socket before the deadline");
    }
    const auto left_ms = std::chrono::ceil<std::chrono::milliseconds>(left);
    const auto period = interrupted ? kInterruptPeriod : std::chrono::milliseconds(60'000);
    pollfd entry{socket_.get(), events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::min(left_ms, period).count()));
    if (ready > 0) return Status();
    if (ready < 0 && errno != EINTR) {
      return Status(Reason::kInternal, DescribeErrno("waiting on the attach socket", errno));
    }
  }
}

template <typename Try>
Status AttachConnection::UntilSent(Deadline deadline, const Try& attempt) const {
  for (;;) {
    if (attempt() >= 0) return Status();
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return HungUp("a request was being sent");
    SH_RETURN_IF_ERROR(WaitFor(POLLOUT, deadline, Interrupt()));
  }
}

Status AttachConnection::Send(const AttachPacket& packet, int descriptor, Deadline deadline) {
  SH_ASSIGN_OR_RETURN(std::string bytes, EncodeAttachPacket(packet));
  if (descriptor < 0) return SendBytes(bytes, deadline);
  iovec part{bytes.data(), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  cmsghdr* c = CMSG_FIRSTHDR(&header);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(c), &descriptor, sizeof(int));
  return UntilSent(deadline, [&] { return ::sendmsg(socket_.get(), &header, kSendFlags); });
}

Status AttachConnection::SendBytes(std::string_view bytes, Deadline deadline) const {
  return UntilSent(deadline,
                   [&] { return ::send(socket_.get(), bytes.data(), bytes.size(), kSendFlags); });
}

StatusOr<AttachConnection::Received> AttachConnection::Receive(Deadline deadline,
                                                               const Interrupt& interrupted) {
  Received received;
  SH_ASSIGN_OR_RETURN(const std::span<const std::byte> bytes,
                      ReceiveBytes(deadline, interrupted, &received.descriptors));
  SH_ASSIGN_OR_RETURN(received.packet, DecodeAttachPacket(bytes));
  return received;
}

ssize_t AttachConnection::ReceiveOnce(int flags, std::vector<UniqueFd>* descriptors,
                                      bool* truncated) const {
  if (descriptors == nullptr) {
    const ssize_t got = ::recv(socket_.get(), buffer_.get(), kPacketBytesMax, flags | MSG_TRUNC);
    *truncated = got > static_cast<ssize_t>(kPacketBytesMax);
    return got;
  }
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kAttachDescriptorsMax)];
  iovec part{buffer_.get(), kPacketBytesMax};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  const ssize_t got = ::recvmsg(socket_.get(), &header, flags | MSG_CMSG_CLOEXEC);
  if (got <= 0) return got;
  *descriptors = TakeDescriptors(&header);
  *truncated = (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
  return got;
}

StatusOr<std::span<const std::byte>> AttachConnection::ReceiveBytes(
    Deadline deadline, const Interrupt& interrupted, std::vector<UniqueFd>* descriptors) {
  if (buffer_ == nullptr) buffer_.reset(new std::byte[kPacketBytesMax]);
  bool sleeps = std::chrono::steady_clock::now() + kReceiveTimeout < deadline;
  for (;; sleeps = false) {
    if (!sleeps) SH_RETURN_IF_ERROR(WaitFor(POLLIN, deadline, interrupted));
    bool truncated = false;
    const ssize_t got = ReceiveOnce(sleeps ? 0 : MSG_DONTWAIT, descriptors, &truncated);
    if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK)) continue;
    if (got <= 0) return HungUp("an answer was awaited");
    if (truncated) {
      return Status(Reason::kInvalidArgument,
                    "the daemon sent a packet beyond the attach protocol's limits, or this "
                    "process is out of descriptors");
    }
    return std::span<const std::byte>(buffer_.get(), static_cast<size_t>(got));
  }
}

bool AttachConnection::peer_is_gone() const {
  pollfd entry{socket_.get(), POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) == 1 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace statehouse
