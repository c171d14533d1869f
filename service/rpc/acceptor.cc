#include "service/rpc/acceptor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

namespace statehouse {
namespace {

constexpr int kRetryMs = 50;
constexpr int kAcceptsPerTurn = 64;
constexpr std::chrono::milliseconds kLookInterval(50);

// Numbers the socket behind a descriptor; 0 where there is none.
ino_t SocketOf(int fd) {
  struct stat facts {};
  return ::fstat(fd, &facts) == 0 && S_ISSOCK(facts.st_mode) ? facts.st_ino : 0;
}

Status SystemError(const std::string& what) {
  return Status(Reason::kUnavailable, "network door: " + what + ": " + std::strerror(errno));
}

// The other side's address; false for a unix socket, and where there is none any more.
bool PeerOf(int fd, std::string* host, uint16_t* port) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof(address);
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return false;
  char text[INET6_ADDRSTRLEN] = {};
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    *port = ntohs(v4.sin_port);
    *host = ::inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    return true;
  }
  if (address.ss_family != AF_INET6) return false;
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  *port = ntohs(v6.sin6_port);
  *host = ::inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
  return true;
}

uint16_t PortOf(int fd) {
  std::string host;
  uint16_t port = 0;
  return PeerOf(fd, &host, &port) ? port : 0;
}

// gRPC writes an IPv4 address that came by an IPv6 socket without its prefix.
bool IsFrom(int fd, std::string_view peer) {
  std::string host;
  uint16_t port = 0;
  if (!PeerOf(fd, &host, &port)) return false;
  if (host.starts_with("::ffff:")) host.erase(0, 7);
  const std::string_view address = peer.substr(5, peer.rfind(':') - 5);
  return address == host || address == "[" + host + "]" || address == "%5B" + host + "%5D";
}

}  // namespace

Acceptor::Acceptor(std::vector<UniqueFd> listeners, uint32_t connections_max, HandOn hand_on)
    : listeners_(std::move(listeners)),
      connections_max_(connections_max),
      hand_on_(std::move(hand_on)) {}

Acceptor::~Acceptor() { Stop(); }

StatusOr<std::unique_ptr<Acceptor>> Acceptor::Start(std::vector<UniqueFd> listeners,
                                                    uint32_t connections_max, HandOn hand_on) {
  std::unique_ptr<Acceptor> acceptor(
      new Acceptor(std::move(listeners), connections_max, std::move(hand_on)));
  SH_RETURN_IF_ERROR(acceptor->Prepare());
  acceptor->thread_ = std::thread([raw = acceptor.get()] { raw->Run(); });
  return acceptor;
}

Status Acceptor::Watch(int fd, uint32_t events) {
  epoll_event event = {};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return SystemError("watching descriptor " + std::to_string(fd));
  }
  return Status();
}

Status Acceptor::Prepare() {
  epoll_.Reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return SystemError("making an epoll descriptor");
  stop_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_.valid()) return SystemError("making an event descriptor");
  SH_RETURN_IF_ERROR(Watch(stop_.get(), EPOLLIN));
  for (const UniqueFd& listener : listeners_) {
    const int flags = ::fcntl(listener.get(), F_GETFL);
    if (flags < 0 || ::fcntl(listener.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
      return SystemError("making a listening socket non-blocking");
    }
    SH_RETURN_IF_ERROR(Watch(listener.get(), EPOLLIN));
  }
  return Status();
}

void Acceptor::Run() {
  std::array<epoll_event, 64> events;
  bool retry = false;
  for (;;) {
    const int count =
        ::epoll_wait(epoll_.get(), events.data(), events.size(), retry ? kRetryMs : -1);
    if (count < 0 && errno != EINTR) return;  // The epoll descriptor is ours: it cannot be bad.
    const bool was_short = std::exchange(retry, false);
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (fd == stop_.get()) return;
      retry = !AcceptAll(fd) || retry;
    }
    // While descriptors are short the listeners stay readable: sleep instead of spinning.
    if (retry && was_short) {
      struct timespec pause = {0, kRetryMs * 1'000'000};
      ::nanosleep(&pause, nullptr);
    }
  }
}

bool Acceptor::AcceptAll(int listener) {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    UniqueFd connection(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!connection.valid()) {
      return errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM;
    }
    Take(std::move(connection));
  }
  return true;
}

bool Acceptor::HasRoom() {
  if (open_.size() < connections_max_) return true;
  const auto now = std::chrono::steady_clock::now();
  if (now < looked_ + kLookInterval) return false;
  looked_ = now;
  std::erase_if(open_, [](const auto& connection) {
    return SocketOf(connection.first) != connection.second.socket;
  });
  return open_.size() < connections_max_;
}

void Acceptor::Take(UniqueFd connection) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!HasRoom()) return;  // Closed by its destructor.
    const int on = 1;
    // Fails for unix sockets, which have nothing to delay.
    (void)::setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    // One of this number that is still remembered is closed: the number was free.
    open_.insert_or_assign(connection.get(),
                           Connection{SocketOf(connection.get()), PortOf(connection.get())});
  }
  hand_on_(std::move(connection));
}

void Acceptor::End(std::string_view peer) {
  if (!peer.starts_with("ipv4:") && !peer.starts_with("ipv6:")) return;
  const auto port =
      static_cast<uint16_t>(std::atoi(std::string(peer.substr(peer.rfind(':') + 1)).c_str()));
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [fd, connection] : open_) {
    if (connection.port != port || port == 0) continue;
    // The descriptor is another's, who may close it at any time: a second one stays what it is.
    const UniqueFd second(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (SocketOf(second.get()) != connection.socket || !IsFrom(second.get(), peer)) continue;
    (void)::shutdown(second.get(), SHUT_RDWR);
  }
}

void Acceptor::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    while (::write(stop_.get(), &one, sizeof(one)) < 0 && errno == EINTR) {
    }
    thread_.join();
  }
  listeners_.clear();
  const std::lock_guard<std::mutex> lock(mutex_);
  open_.clear();
}

}  // namespace statehouse
