// One message with descriptors beside it (SCM_RIGHTS), over a unix socket that keeps message
// boundaries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse {

inline constexpr size_t kMessageDescriptorsMax = 8;  // In one message that is sent.
// In one message that is received: what the kernel lets through. With room for fewer the kernel
// would close the rest by itself, on the receiving thread.
inline constexpr size_t kReceivedDescriptorsMax = 253;

enum class SendResult : uint8_t {
  kSent,
  kFull,  // The socket's buffer is full: try again when it is writable.
  kBusy,  // The kernel is short of something that no poll announces: try again after a pause. Too
          // many descriptors of this user wait in unix sockets (ETOOMANYREFS), or memory (ENOBUFS).
  kClosed,  // Nobody will ever read this.
  kFailed,  // errno says why.
};

// Sends without waiting and without SIGPIPE. Copies of the descriptors travel; the caller keeps its
// own.
SendResult SendMessage(int socket, std::string_view bytes, std::span<const int> descriptors);

struct ReceivedMessage {
  enum class Kind : uint8_t { kMessage, kNothing, kClosed, kFailed } kind = Kind::kNothing;
  size_t bytes = 0;  // Of the buffer.
  bool truncated =
      false;  // The message or its descriptors did not fit; what came is not to be used.
  std::vector<UniqueFd> descriptors;  // Close-on-exec.
};

// Takes one message without waiting. kNothing: none is there. kFailed: errno says why.
ReceivedMessage ReceiveMessage(int socket, std::span<char> buffer);

}  // namespace statehouse
