// Connections of the operator's commands that are no calls: is anybody there, and plain HTTP.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse::cli {

// "host:port" or "[::1]:port" in its two parts; INVALID_ARGUMENT for any other text.
struct HostAndPort {
  std::string host;
  std::string port;
};
StatusOr<HostAndPort> SplitAddress(const std::string& address);

// A connection, made within the time. UNAVAILABLE says what the system said; PERMISSION_DENIED of
// a unix socket that this user may not use.
StatusOr<UniqueFd> ConnectTcp(const std::string& address, uint64_t timeout_ms);
// `type`: SOCK_STREAM or SOCK_SEQPACKET.
StatusOr<UniqueFd> ConnectUnix(const std::string& path, int type, uint64_t timeout_ms);

// The answer to a GET, of at most kHttpAnswerBytesMax.
inline constexpr size_t kHttpAnswerBytesMax = 64 << 20;
struct HttpAnswer {
  int code = 0;
  std::string body;
};
StatusOr<HttpAnswer> HttpGet(const std::string& address, const std::string& path,
                             uint64_t timeout_ms);

}  // namespace statehouse::cli
