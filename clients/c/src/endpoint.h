// Endpoint: from what a caller wrote (or did not write) to where the service is, how to talk to it
// and with which token.
//
//   statehouse+unix://<runtime dir>      the service of this host whose sockets are in that folder
//   statehouse://host[:port]             over TCP; port 7700 unless given
//   statehouse+tls://host[:port]         the same with TLS
//   …?transport=local|socket|network|auto&timeout=2s
//   …?ca_file=F&certificate_file=F&key_file=F   of TLS: who signs the service's certificate (else
//                                        the system's authorities), and the client's own
//
// Precedence: arguments, then the URL's query, then the environment (STATEHOUSE_URL,
// STATEHOUSE_TOKEN, STATEHOUSE_TOKEN_FILE, STATEHOUSE_TLS_CA_FILE, STATEHOUSE_TLS_CERTIFICATE_FILE,
// STATEHOUSE_TLS_KEY_FILE), then defaults. Without a URL: the default runtime dir when a service's
// sockets are there, else 127.0.0.1:7700. Everything here is pure but for reading files and looking
// for sockets. Threads: any.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "engine/base/status.h"

namespace statehouse {

enum class TransportChoice : uint8_t { kAuto = 0, kLocal = 1, kNetwork = 2, kSocket = 3 };

// What the caller gave; unset means "not given".
struct ConnectArguments {
  std::optional<std::string> url;
  std::optional<std::string> token;
  std::optional<std::string> token_file;
  std::optional<TransportChoice> transport;  // kAuto counts as not given.
  std::optional<std::chrono::nanoseconds> timeout;
};

// What a client needs for TLS, as PEM texts.
struct TlsIdentity {
  bool enabled = false;
  std::string authorities;  // Empty: the system's.
  std::string certificate;  // Empty: none; else with the key.
  std::string key;
};

struct Endpoint {
  bool local = false;       // The door to use.
  bool socket = false;      // Not local: calls over the local socket where they fit.
  bool chosen = false;      // Somebody asked for this door by name.
  std::string runtime_dir;  // Where local is possible.
  std::string grpc_target;  // "unix:/run/statehouse/grpc.sock" or "127.0.0.1:7700".
  std::string token;        // Empty: none.
  TlsIdentity tls;
  std::chrono::nanoseconds timeout{std::chrono::seconds(5)};
};

// Looks a variable up; null where it is not set.
using Environment = std::function<const char*(const char* name)>;
Environment ProcessEnvironment();

// Errors: INVALID_ARGUMENT (malformed URL, unknown query key, unreadable file, local over TCP),
// PERMISSION_DENIED (a default runtime dir that belongs to another user).
StatusOr<Endpoint> ResolveEndpoint(const ConnectArguments& arguments,
                                   const Environment& environment);

// "2s", "150ms", "1m", "500us" or a plain number of seconds ("0.5"). INVALID_ARGUMENT otherwise.
StatusOr<std::chrono::nanoseconds> ParseDuration(const std::string& text);

}  // namespace statehouse
