// Listening sockets: taken over from the daemon before, or bound. They live in the keeper too, so
// that nobody is refused while the daemon restarts and a port that the system chose stays the same.
#pragma once

#include <map>
#include <string>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/state/engine.h"

namespace statehouse {

enum class ListenerKind : uint8_t { kTcp, kUnixStream, kUnixPackets };

struct ListenerSpec {
  ListenerKind kind = ListenerKind::kTcp;
  std::string vault_name;  // "listen.tcp.0"
  std::string address;     // "127.0.0.1:7700", "[::1]:0", or a path.
  bool loopback_only = true;
};

// Descriptors by name, from the daemon before.
using InheritedDescriptors = std::map<std::string, UniqueFd>;

// A bound, listening, non-blocking socket. One that was inherited under the same name is used when
// it still fits the address; it leaves `inherited`. REQUIRES: the caller holds the lock of the
// folder that a path lies in (a stale socket is removed). Errors: CONFIG_INVALID (address malformed
// or not loopback), UNAVAILABLE (address in use).
StatusOr<UniqueFd> OpenListener(const ListenerSpec& spec, InheritedDescriptors* inherited,
                                DescriptorVault* vault);

// "127.0.0.1:41234" or "[::1]:41234"; the path of a unix socket.
StatusOr<std::string> ListenerAddress(int fd);

}  // namespace statehouse
