#include "service/keeper/descriptor_message.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

namespace statehouse {

SendResult SendMessage(int socket, std::string_view bytes, std::span<const int> descriptors) {
  if (descriptors.size() > kMessageDescriptorsMax) {
    errno = EINVAL;
    return SendResult::kFailed;
  }
  constexpr int kFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMessageDescriptorsMax)];
  msghdr message{};
  if (!descriptors.empty()) {
    std::memset(control, 0, sizeof(control));
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
  }
  // The kernel has less to copy and to check without a msghdr.
  while ((descriptors.empty() ? send(socket, bytes.data(), bytes.size(), kFlags)
                              : sendmsg(socket, &message, kFlags)) < 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return SendResult::kFull;
    if (errno == ETOOMANYREFS || errno == ENOBUFS || errno == ENOMEM) return SendResult::kBusy;
    const bool closed =
        errno == EPIPE || errno == ECONNRESET || errno == ECONNREFUSED || errno == ENOTCONN;
    return closed ? SendResult::kClosed : SendResult::kFailed;
  }
  return SendResult::kSent;
}

namespace {

void TakeDescriptors(msghdr* message, ReceivedMessage* received) {
  for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr;
       header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      received->descriptors.emplace_back(fd);
    }
  }
}

}  // namespace

ReceivedMessage ReceiveMessage(int socket, std::span<char> buffer) {
  ReceivedMessage received;
  iovec part{buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kReceivedDescriptorsMax)];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t bytes = -1;
  do {
    bytes = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (bytes < 0 && errno == EINTR);
  if (bytes < 0) {
    if (errno == EAGAIN) return received;
    received.kind =
        errno == ECONNRESET ? ReceivedMessage::Kind::kClosed : ReceivedMessage::Kind::kFailed;
    return received;
  }
  TakeDescriptors(&message, &received);
  // Both kinds of socket that are used here never carry an empty message of ours, so 0 bytes mean
  // that the peer has closed.
  if (bytes == 0 && received.descriptors.empty()) {
    received.kind = ReceivedMessage::Kind::kClosed;
    return received;
  }
  received.kind = ReceivedMessage::Kind::kMessage;
  received.bytes = static_cast<size_t>(bytes);
  received.truncated = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
  return received;
}

}  // namespace statehouse
