#include "service/rpc/acceptor.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "engine/os/futex.h"
#include "service/rpc/door_thread.h"

namespace statehouse {
namespace {

constexpr int kRetryMs = 50;
constexpr int kAcceptsPerTurn = 64;
constexpr int kSilentSeconds = kSilentNs / 1'000'000'000;
// Linux 6.16's, which the headers do not have yet.
constexpr int kPassRights = 83;
constexpr uint64_t kMillisecondNs = 1'000'000;

Status SystemError(const std::string& what) {
  return Status(Reason::kUnavailable, "network door: " + what + ": " + std::strerror(errno));
}

// Whether there is nothing to read of a connected socket for now, or any more.
bool HasSaidNothing(int fd) {
  char first = 0;
  return ::recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

int CeilMs(uint64_t ns) {
  constexpr uint64_t kMsMax = 60'000;
  return static_cast<int>(std::min((ns + kMillisecondNs - 1) / kMillisecondNs, kMsMax));
}

}  // namespace

Acceptor::Acceptor(std::vector<UniqueFd> listeners, AcceptorOptions options, HandOn hand_on)
    : listeners_(std::move(listeners)),
      options_(std::move(options)),
      hand_on_(std::move(hand_on)),
      gate_([this] { Wake(); }, options_.on_open),
      debts_(options_.wasted_calls_per_second_max) {}

Acceptor::~Acceptor() { Stop(); }

StatusOr<std::unique_ptr<Acceptor>> Acceptor::Start(std::vector<UniqueFd> listeners,
                                                    AcceptorOptions options, HandOn hand_on) {
  std::unique_ptr<Acceptor> acceptor(
      new Acceptor(std::move(listeners), std::move(options), std::move(hand_on)));
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
    // A descriptor that nobody takes is closed where its bytes are dropped, which may block for as
    // long as its owner likes (SO_LINGER). Older kernels cannot refuse it.
    const int no = 0;
    if (IsUnixSocket(listener.get())) {
      (void)setsockopt(listener.get(), SOL_SOCKET, kPassRights, &no, sizeof(no));
    }
    // The kernel's, which unix sockets have not (AwaitFirst).
    if (options_.waits_for_first) {
      (void)setsockopt(listener.get(), IPPROTO_TCP, TCP_DEFER_ACCEPT, &kSilentSeconds,
                       sizeof(kSilentSeconds));
    }
    SH_RETURN_IF_ERROR(Watch(listener.get(), EPOLLIN));
  }
  return Status();
}

// Also under the gate's lock.
void Acceptor::Wake() {
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof(one));
}

void Acceptor::OnWasted(std::string_view text) {
  const std::optional<TcpPeer> peer = ParsePeer(text);
  if (!peer.has_value()) return;
  const uint64_t now_ns = MonotonicNs();
  bool is_first = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const uint64_t pause_ns = debts_.Waste(peer->Host(), now_ns);
    is_first = gate_.Pause(*peer, pause_ns == 0 ? 0 : now_ns + pause_ns);
  }
  if (is_first && options_.on_throttled) options_.on_throttled(peer->ToString());
}

void Acceptor::Raise(std::string_view text, ReadGate::Standing standing) {
  const std::optional<TcpPeer> peer = ParsePeer(text);
  if (!peer.has_value() || !gate_.Raise(*peer, standing)) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    debts_.Refund(peer->Host());
  }
  if (held_.size() != 0) Wake();
}

void Acceptor::TakeOrHold(UniqueFd connection) {
  const std::optional<TcpPeer> peer = PeerOf(connection.get());
  if (!peer.has_value()) return AwaitFirst(std::move(connection));
  const uint64_t now_ns = MonotonicNs();
  const HostKey host = peer->Host();
  uint64_t due = 0;
  uint64_t wait_ns = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    due = debts_.Enter(host, now_ns);
    wait_ns = debts_.DueIn(host, due, now_ns);
  }
  if (wait_ns == 0) return Take(std::move(connection), peer);
  if (!held_.Hold(std::move(connection), host, due, now_ns + wait_ns)) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return debts_.Refund(host);
  }
  if (options_.on_held) options_.on_held(peer->ToString());
}

void Acceptor::AwaitFirst(UniqueFd connection) {
  const int fd = connection.get();
  const bool has_room = silent_.size() < options_.silent_max &&
                        gate_.open() + silent_.size() < options_.connections_max;
  if (!options_.waits_for_first_of_unix || !has_room || !HasSaidNothing(fd) ||
      !Watch(fd, EPOLLIN | EPOLLRDHUP).ok()) {
    return Take(std::move(connection), std::nullopt);
  }
  silent_.push_back({std::move(connection), MonotonicNs() + options_.silent_ns});
}

bool Acceptor::TakeSilent(int fd) {
  const auto found = std::find_if(silent_.begin(), silent_.end(), [fd](const Silent& silent) {
    return silent.connection.get() == fd;
  });
  if (found == silent_.end()) return false;
  UniqueFd connection = std::move(found->connection);
  silent_.erase(found);
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  if (!HasLeft(fd) || !HasSaidNothing(fd)) Take(std::move(connection), std::nullopt);
  return true;
}

std::optional<uint64_t> Acceptor::TakeLongSilent(uint64_t now_ns) {
  for (int i = 0; !silent_.empty() && silent_.front().until_ns <= now_ns; ++i) {
    if (i == kAcceptsPerTurn) return 0;
    (void)TakeSilent(silent_.front().connection.get());
  }
  if (silent_.empty()) return std::nullopt;
  return silent_.front().until_ns - now_ns;
}

int Acceptor::DoWhatIsDue() {
  const std::optional<uint64_t> held_ns =
      held_.TakeTurn(MonotonicNs, &mutex_, &debts_, [this](UniqueFd connection) {
        const std::optional<TcpPeer> peer = PeerOf(connection.get());
        if (peer.has_value()) Take(std::move(connection), peer);  // Else it has left just now.
      });
  const uint64_t now_ns = MonotonicNs();
  std::optional<uint64_t> paused_ns;
  std::vector<TcpPeer> throttled;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    paused_ns = gate_.RearmDue(now_ns, [&](const TcpPeer& peer, bool is_first_pause) {
      if (is_first_pause) throttled.push_back(peer);
      return debts_.Waste(peer.Host(), now_ns);
    });
  }
  for (const TcpPeer& peer : throttled) {
    if (options_.on_throttled) options_.on_throttled(peer.ToString());
  }
  for (; ended_ < gate_.ended(); ++ended_) {
    if (options_.on_ended) options_.on_ended();
  }
  const std::optional<uint64_t> silent_ns = TakeLongSilent(now_ns);
  const uint64_t next_ns = std::min({held_ns.value_or(UINT64_MAX), paused_ns.value_or(UINT64_MAX),
                                     silent_ns.value_or(UINT64_MAX)});
  return next_ns == UINT64_MAX ? -1 : CeilMs(next_ns);
}

void Acceptor::Run() {
  // Beside a flood's threads, too: what it has begun, the thread that serves calls may wait for.
  (void)BeginDoorThread("sh-accept", options_.raise_priority);
  std::array<epoll_event, 64> events;
  bool retry = false;
  for (;;) {
    const int due_ms = DoWhatIsDue();
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
      if (TakeSilent(fd)) continue;
      retry = !AcceptSome(fd) || retry;
    }
    if (held_.size() != 0 && (count > 0 || wait_ms == 0)) {
      struct timespec pause = {0, kStormPauseNs};
      ::nanosleep(&pause, nullptr);
    }
    // While descriptors are short the listeners stay readable: sleep instead of spinning.
    if (retry && was_short) {
      struct timespec pause = {0, kRetryMs * 1'000'000};
      ::nanosleep(&pause, nullptr);
    }
  }
}

bool Acceptor::AcceptSome(int listener) {
  const uint64_t until_ns = MonotonicNs() + kStormTurnNs;
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    UniqueFd connection(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!connection.valid()) {
      return errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM;
    }
    TakeOrHold(std::move(connection));
    if (held_.size() != 0 && MonotonicNs() >= until_ns) break;
  }
  return true;
}

void Acceptor::Take(UniqueFd connection, const std::optional<TcpPeer>& peer) {
  if (gate_.open() >= options_.connections_max) {  // Closed by its destructor.
    if (options_.on_refused) options_.on_refused(peer.has_value() ? peer->ToString() : "unix");
    return;
  }
  const int on = 1;
  // Fails for unix sockets, which have nothing to delay.
  (void)::setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  (void)::setsockopt(connection.get(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kUnsentBytesMax,
                     sizeof(kUnsentBytesMax));
  gate_.Admit(connection.get(), peer);
  hand_on_(std::move(connection));
}

void Acceptor::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    while (::write(stop_.get(), &one, sizeof(one)) < 0 && errno == EINTR) {
    }
    thread_.join();
  }
  gate_.EndPauses();
  listeners_.clear();
  held_.Clear();
  // What was said in the last moment is answered as it is on a connection that is older.
  for (Silent& silent : std::exchange(silent_, {})) {
    if (!HasSaidNothing(silent.connection.get())) Take(std::move(silent.connection), std::nullopt);
  }
}

}  // namespace statehouse
