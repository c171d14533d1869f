#include "clients/cli/sockets.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>

namespace statehouse::cli {
namespace {

using Clock = std::chrono::steady_clock;

int LeftMs(Clock::time_point deadline) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 1'000'000));
}

Status Refused(const std::string& what, int error) {
  const Reason reason =
      error == EACCES || error == EPERM ? Reason::kPermissionDenied : Reason::kUnavailable;
  return Status(reason, what + ": " + std::strerror(error));
}

// False when the time was over; then errno is ETIMEDOUT.
bool Await(int fd, short events, Clock::time_point deadline) {
  pollfd entry = {fd, events, 0};
  for (;;) {
    const int got = poll(&entry, 1, LeftMs(deadline));
    if (got > 0) return true;
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = ETIMEDOUT;
    return false;
  }
}

// 0, or why not.
int Connect(int fd, const sockaddr* address, socklen_t bytes, Clock::time_point deadline) {
  if (connect(fd, address, bytes) == 0) return 0;
  // Of a unix socket EAGAIN means that its queue is full.
  if (errno != EINPROGRESS) return errno;
  if (!Await(fd, POLLOUT, deadline)) return errno;
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

}  // namespace

StatusOr<HostAndPort> SplitAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  HostAndPort parts;
  if (colon != std::string::npos) {
    parts = {address.substr(0, colon), address.substr(colon + 1)};
  }
  if (parts.host.size() >= 2 && parts.host.front() == '[' && parts.host.back() == ']') {
    parts.host = parts.host.substr(1, parts.host.size() - 2);
  } else if (parts.host.find(':') != std::string::npos) {
    parts.host.clear();
  }
  if (parts.host.empty() || parts.port.empty() ||
      parts.port.find_first_not_of("0123456789") != std::string::npos) {
    return Status(Reason::kInvalidArgument, "\"" + address + "\" is no host:port");
  }
  return parts;
}

StatusOr<UniqueFd> ConnectTcp(const std::string& address, uint64_t timeout_ms) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
  SH_ASSIGN_OR_RETURN(const HostAndPort parts, SplitAddress(address));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(parts.host.c_str(), parts.port.c_str(), &hints, &found);
  if (code != 0) {
    return Status(Reason::kUnavailable, "looking up " + parts.host + ": " + gai_strerror(code));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
  int error = EADDRNOTAVAIL;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    UniqueFd fd(socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    error = fd.valid() ? Connect(fd.get(), at->ai_addr, at->ai_addrlen, deadline) : errno;
    if (error == 0) return fd;
  }
  return Refused("connecting to " + address, error);
}

StatusOr<UniqueFd> ConnectUnix(const std::string& path, int type, uint64_t timeout_ms) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Status(Reason::kInvalidArgument, path + " is too long for a unix socket");
  }
  std::copy(path.begin(), path.end(), address.sun_path);
  UniqueFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int error =
      fd.valid() ? Connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address,
                           Clock::now() + std::chrono::milliseconds(timeout_ms))
                 : errno;
  if (error == 0) return fd;
  return Refused("connecting to " + path, error);
}

StatusOr<HttpAnswer> HttpGet(const std::string& address, const std::string& path,
                             uint64_t timeout_ms) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
  SH_ASSIGN_OR_RETURN(const UniqueFd fd, ConnectTcp(address, timeout_ms));
  const std::string request =
      "GET " + path + " HTTP/1.1\r\nHost: " + address + "\r\nConnection: close\r\n\r\n";
  const std::string what = "asking http://" + address + path;
  // Shorter than any socket's buffer.
  if (send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    return Refused(what, errno);
  }
  std::string answer;
  std::array<char, 16'384> buffer;
  for (;;) {
    if (!Await(fd.get(), POLLIN, deadline)) return Refused(what, errno);
    const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
    if (got == 0) break;
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) return Refused(what, errno);
    answer.append(buffer.data(), static_cast<size_t>(got));
    if (answer.size() > kHttpAnswerBytesMax) {
      return Status(Reason::kMessageTooLarge, what + ": the answer is longer than 64 MiB");
    }
  }
  const size_t body = answer.find("\r\n\r\n");
  if (answer.rfind("HTTP/1.", 0) != 0 || body == std::string::npos || answer.size() < 12) {
    return Status(Reason::kUnavailable, what + ": what answered speaks no HTTP");
  }
  return HttpAnswer{std::atoi(answer.c_str() + 9), answer.substr(body + 4)};
}

}  // namespace statehouse::cli
