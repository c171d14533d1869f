#include "service/listeners.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "engine/os/errno_status.h"

namespace statehouse {
namespace {

constexpr int kBacklog = 4096;

struct SocketAddress {
  sockaddr_storage bytes{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&bytes); }
};

Status BadAddress(const std::string& address, const std::string& what) {
  return Status(Reason::kConfigInvalid, "listen address \"" + address + "\": " + what);
}

bool IsLoopback(const SocketAddress& address) {
  if (address.bytes.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address.bytes);
    return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address.bytes);
  return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) != 0;
}

StatusOr<SocketAddress> ResolveTcp(const std::string& text, bool loopback_only) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return BadAddress(text, "it needs a port, as in 127.0.0.1:7700");
  std::string host = text.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), text.c_str() + colon + 1, &hints, &found);
  if (error != 0) return BadAddress(text, gai_strerror(error));
  SocketAddress address;
  std::memcpy(&address.bytes, found->ai_addr, found->ai_addrlen);
  address.length = found->ai_addrlen;
  freeaddrinfo(found);
  if (loopback_only && !IsLoopback(address)) {
    return BadAddress(text,
                      "it is no loopback address (127.0.0.1, [::1], localhost), and what is served "
                      "there has no TLS");
  }
  return address;
}

StatusOr<SocketAddress> UnixAddress(const std::string& path) {
  SocketAddress address;
  auto& target = reinterpret_cast<sockaddr_un&>(address.bytes);
  target.sun_family = AF_UNIX;
  if (path.size() >= sizeof(target.sun_path)) {
    return BadAddress(path,
                      "a socket's path holds at most 107 bytes; choose a shorter --runtime-dir");
  }
  std::memcpy(target.sun_path, path.c_str(), path.size() + 1);
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return address;
}

StatusOr<SocketAddress> BoundTo(int fd) {
  SocketAddress address;
  address.length = sizeof(address.bytes);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address.bytes), &address.length) != 0) {
    return ErrnoStatus("asking a listening socket for its address");
  }
  return address;
}

std::string Text(const SocketAddress& address) {
  if (address.bytes.ss_family == AF_UNIX) {
    return reinterpret_cast<const sockaddr_un&>(address.bytes).sun_path;
  }
  char host[INET6_ADDRSTRLEN] = {};
  if (address.bytes.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address.bytes);
    inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
    return std::string(host) + ":" + std::to_string(ntohs(v4.sin_port));
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address.bytes);
  inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
  return "[" + std::string(host) + "]:" + std::to_string(ntohs(v6.sin6_port));
}

// Whether an inherited listener is what `wanted` asks for; port 0 takes any port.
bool Fits(const SocketAddress& bound, const SocketAddress& wanted) {
  const std::string have = Text(bound);
  const std::string want = Text(wanted);
  if (bound.bytes.ss_family == AF_UNIX) {
    struct stat facts {};
    return have == want && lstat(want.c_str(), &facts) == 0 && S_ISSOCK(facts.st_mode);
  }
  const bool any_port = want.size() > 2 && want.compare(want.size() - 2, 2, ":0") == 0;
  return any_port ? have.substr(0, have.rfind(':')) == want.substr(0, want.rfind(':'))
                  : have == want;
}

StatusOr<UniqueFd> Bind(const ListenerSpec& spec, const SocketAddress& address) {
  const int type = spec.kind == ListenerKind::kUnixPackets ? SOCK_SEQPACKET : SOCK_STREAM;
  UniqueFd fd(socket(address.bytes.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return ErrnoStatus("making a socket for " + spec.address);
  if (spec.kind == ListenerKind::kTcp) {
    const int one = 1;
    if (setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0) {
      return ErrnoStatus("setting SO_REUSEADDR for " + spec.address);
    }
  } else {
    // The mode goes on to the file that bind makes, so that there is no moment at which others may
    // connect.
    if (fchmod(fd.get(), 0600) != 0) return ErrnoStatus("setting the mode of " + spec.address);
    if (unlink(spec.address.c_str()) != 0 && errno != ENOENT) {
      return ErrnoStatus("removing the stale socket " + spec.address);
    }
  }
  if (bind(fd.get(), address.get(), address.length) != 0) {
    const int error = errno;
    const std::string advice =
        error == EADDRINUSE ? "; choose another port, or 0 for any free one" : "";
    const Status failed = ErrnoStatus("listening on " + spec.address, Reason::kUnavailable, error);
    return Status(failed.reason(), failed.message() + advice);
  }
  if (listen(fd.get(), kBacklog) != 0)
    return ErrnoStatus("listening on " + spec.address, Reason::kUnavailable);
  return fd;
}

}  // namespace

StatusOr<UniqueFd> OpenListener(const ListenerSpec& spec, InheritedDescriptors* inherited,
                                DescriptorVault* vault) {
  const bool tcp = spec.kind == ListenerKind::kTcp;
  SH_ASSIGN_OR_RETURN(const SocketAddress wanted, tcp ? ResolveTcp(spec.address, spec.loopback_only)
                                                      : UnixAddress(spec.address));
  const auto found = inherited->find(spec.vault_name);
  if (found != inherited->end()) {
    UniqueFd fd = std::move(found->second);
    inherited->erase(found);
    const StatusOr<SocketAddress> bound = BoundTo(fd.get());
    if (bound.ok() && Fits(*bound, wanted)) return fd;
  }
  SH_ASSIGN_OR_RETURN(UniqueFd fd, Bind(spec, wanted));
  SH_RETURN_IF_ERROR(vault->Store(spec.vault_name, fd.get()));
  return fd;
}

StatusOr<std::string> ListenerAddress(int fd) {
  SH_ASSIGN_OR_RETURN(const SocketAddress address, BoundTo(fd));
  return Text(address);
}

}  // namespace statehouse
