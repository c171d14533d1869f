#include "service/rpc/acceptor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
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
// How often the guarded thread is looked after, while it does something and while it does not.
constexpr int kBusyLookMs = 10;
constexpr int kIdleLookMs = 200;
// Between the two looks that tell whose bytes are being read.
constexpr std::chrono::milliseconds kHoldBackFirst(500);
constexpr std::chrono::milliseconds kHoldBackMax(5'000);
constexpr std::chrono::seconds kHoldBackMemory(10);
constexpr long kGreedLookNs = 4'000'000;
// Of a connection, for a second of the polling thread's processor time. Messages come in several
// times as fast, through TLS too; frames that are nothing but frames at a fifth of it.
constexpr double kFrameBytesPerCpuSecondMax = 100e6;
// Pings of many connections and handshakes stay below a fifth of this; what keeps the thread to
// itself by frames alone has four times as much.
constexpr double kFrameBytesPerCpuSecondMin = 5e6;

bool HasLeft(int fd) {
  pollfd left{fd, POLLRDHUP, 0};
  return ::poll(&left, 1, 0) == 1 && (left.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

// Both ways are shut: by us, as the other side can shut only one of them.
bool IsEnded(int fd) {
  pollfd hung_up{fd, 0, 0};
  return ::poll(&hung_up, 1, 0) == 1 && (hung_up.revents & POLLHUP) != 0;
}

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

bool IsTcpPeer(std::string_view peer) {
  return peer.starts_with("ipv4:") || peer.starts_with("ipv6:");
}

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
  wake_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_.valid()) return SystemError("making an event descriptor");
  SH_RETURN_IF_ERROR(Watch(wake_.get(), EPOLLIN));
  for (const UniqueFd& listener : listeners_) {
    const int flags = ::fcntl(listener.get(), F_GETFL);
    if (flags < 0 || ::fcntl(listener.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
      return SystemError("making a listening socket non-blocking");
    }
    SH_RETURN_IF_ERROR(Watch(listener.get(), EPOLLIN));
  }
  return Status();
}

void Acceptor::Guard(const TurnGuard& guard, OnEnded on_ended) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    guard_.emplace(guard);
    on_ended_ = std::move(on_ended);
  }
  // Whoever sleeps begins to look.
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof(one));
}

std::chrono::steady_clock::time_point Acceptor::HeldBackUntil(const std::string& host) const {
  const auto found = holds_.find(host);
  return found == holds_.end() ? std::chrono::steady_clock::time_point() : found->second.until;
}

void Acceptor::HoldBack(const std::string& host) {
  const auto now = std::chrono::steady_clock::now();
  if (now < HeldBackUntil(host)) return;  // One of those that came together.
  if (holds_.size() >= kHeldHostsMax && !holds_.contains(host)) {
    std::erase_if(holds_,
                  [now](const auto& held) { return now >= held.second.until + kHoldBackMemory; });
    if (holds_.size() >= kHeldHostsMax) holds_.clear();
  }
  Hold& hold = holds_[host];
  const bool again = now < hold.until + kHoldBackMemory;
  hold.length = again ? std::min(2 * hold.length, kHoldBackMax) : kHoldBackFirst;
  hold.until = now + hold.length;
}

int Acceptor::TakeWaiting() {
  const auto now = std::chrono::steady_clock::now();
  std::vector<UniqueFd> due;
  auto next = std::chrono::steady_clock::time_point::max();
  std::erase_if(waiting_, [&](Waiting& waiting) {
    if (waiting.until > now) {
      next = std::min(next, waiting.until);
      return false;
    }
    due.push_back(std::move(waiting.connection));
    return true;
  });
  // Where its host was held back again meanwhile, it waits again.
  for (UniqueFd& connection : due) TakeOrHold(std::move(connection));
  for (const Waiting& waiting : waiting_) next = std::min(next, waiting.until);
  if (waiting_.empty()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - now).count();
  return static_cast<int>(std::max<int64_t>(left, 1));
}

void Acceptor::TakeOrHold(UniqueFd connection) {
  std::string host;
  uint16_t port = 0;
  if (PeerOf(connection.get(), &host, &port)) {
    std::chrono::steady_clock::time_point until;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      until = HeldBackUntil(host);
    }
    if (std::chrono::steady_clock::now() < until) {
      if (waiting_.size() < kWaitingMax) waiting_.push_back({std::move(connection), until});
      return;
    }
  }
  Take(std::move(connection));
}

int Acceptor::LookAfterGuarded() {
  bool is_stuck = false;
  int pause_ms = kIdleLookMs;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!guard_.has_value() || open_.empty()) return -1;
    is_stuck = guard_->IsStuck();
    if (guard_->is_busy()) pause_ms = kBusyLookMs;
  }
  if (is_stuck) EndGreediest();
  return pause_ms;
}

std::unordered_map<int, uint64_t> Acceptor::BytesRead() {
  std::unordered_map<int, uint64_t> bytes;
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [fd, connection] : open_) {
    if (connection.port == 0 || SocketOf(fd) != connection.socket) continue;
    tcp_info info{};
    socklen_t length = sizeof(info);
    int waiting = 0;
    if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0 ||
        ::ioctl(fd, FIONREAD, &waiting) != 0) {
      continue;
    }
    bytes[fd] = info.tcpi_bytes_received - static_cast<uint64_t>(waiting);
  }
  return bytes;
}

void Acceptor::EndGreediest() {
  const auto before = BytesRead();
  const uint64_t cpu_before = guard_->CpuNs();
  struct timespec pause = {0, kGreedLookNs};
  ::nanosleep(&pause, nullptr);
  const auto after = BytesRead();
  const double cpu_s = static_cast<double>(guard_->CpuNs() - cpu_before) / 1e9;
  int greediest = -1;
  uint64_t most = 0;
  for (const auto& [fd, bytes] : after) {
    const auto then = before.find(fd);
    if (then == before.end() || bytes <= then->second || bytes - then->second <= most) continue;
    most = bytes - then->second;
    greediest = fd;
  }
  const double read = static_cast<double>(most);
  if (greediest < 0 || read > kFrameBytesPerCpuSecondMax * cpu_s ||
      read < kFrameBytesPerCpuSecondMin * cpu_s) {
    return;
  }
  std::string host;
  uint16_t port = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    // In between it may have come round after all, or the connection may have gone.
    const auto found = open_.find(greediest);
    if (!guard_->IsStuck() || found == open_.end()) return;
    if (!PeerOf(greediest, &host, &port) || port != found->second.port) return;
    if (!EndHeld(greediest, found->second.socket, "")) return;
  }
  on_ended_(host + ":" + std::to_string(port));
}

// The descriptor is another's, who may close it at any time: a second one stays what it is.
bool Acceptor::EndHeld(int fd, ino_t socket, std::string_view peer) {
  const UniqueFd second(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (SocketOf(second.get()) != socket) return false;
  if (!peer.empty() && !IsFrom(second.get(), peer)) return false;
  std::string host;
  uint16_t port = 0;
  const bool has_host = PeerOf(second.get(), &host, &port);
  const bool was_ended = IsEnded(second.get());
  if (::shutdown(second.get(), SHUT_RDWR) != 0) return false;
  // Also while what is left of one that was ended is dealt with: its host's next ones wait for
  // that.
  if (has_host) HoldBack(host);
  return !was_ended;
}

void Acceptor::Run() {
  std::array<epoll_event, 64> events;
  bool retry = false;
  for (;;) {
    const int look_ms = LookAfterGuarded();
    const int held_ms = TakeWaiting();
    const int due_ms = look_ms < 0 || (held_ms >= 0 && held_ms < look_ms) ? held_ms : look_ms;
    const int wait_ms = retry ? kRetryMs : due_ms;
    const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), wait_ms);
    if (count < 0 && errno != EINTR) return;  // The epoll descriptor is ours: it cannot be bad.
    const bool was_short = std::exchange(retry, false);
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (fd == stop_.get()) return;
      if (fd == wake_.get()) {
        uint64_t ignored = 0;
        (void)!::read(fd, &ignored, sizeof(ignored));
        continue;
      }
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
    TakeOrHold(std::move(connection));
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
    // Closed by its destructor. One whose client has left while it waited may hold thousands of
    // calls that nobody wants any more.
    if (!HasRoom() || HasLeft(connection.get())) return;
    const int on = 1;
    // Fails for unix sockets, which have nothing to delay.
    (void)::setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    // One of this number that is still remembered is closed: the number was free.
    open_.insert_or_assign(connection.get(),
                           Connection{SocketOf(connection.get()), PortOf(connection.get())});
  }
  hand_on_(std::move(connection));
}

bool Acceptor::End(std::string_view peer) {
  if (!IsTcpPeer(peer)) return false;
  const auto port =
      static_cast<uint16_t>(std::atoi(std::string(peer.substr(peer.rfind(':') + 1)).c_str()));
  if (port == 0) return false;
  const std::lock_guard<std::mutex> lock(mutex_);
  bool any = false;
  for (const auto& [fd, connection] : open_) {
    if (connection.port == port && EndHeld(fd, connection.socket, peer)) any = true;
  }
  return any;
}

void Acceptor::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    while (::write(stop_.get(), &one, sizeof(one)) < 0 && errno == EINTR) {
    }
    thread_.join();
  }
  listeners_.clear();
  waiting_.clear();
  const std::lock_guard<std::mutex> lock(mutex_);
  open_.clear();
}

}  // namespace statehouse
