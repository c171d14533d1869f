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

inline constexpr size_t kMessageDescriptorsMax = 8;  // In one message; more are closed and refused.

enum class SendResult : uint8_t {
  kSent,
  kFull,    // The socket's buffer is full: try again when it is writable.
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
