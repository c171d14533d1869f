#include "tests/support/fault_proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "engine/os/errno_status.h"
#include "engine/os/futex.h"

namespace statehouse::testing {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr size_t kFlowBytesMax = 64 << 10;
constexpr uint64_t kSecondNs = 1'000'000'000;
constexpr int kWaitMsMax = 100;
// A throttled direction moves so much of a second's bytes at a time.
constexpr uint64_t kThrottleSteps = 50;

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

UniqueFd Connected(int family, const void* address, socklen_t bytes) {
  UniqueFd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (connect(fd.get(), static_cast<const sockaddr*>(address), bytes) != 0) return UniqueFd();
  fcntl(fd.get(), F_SETFL, O_NONBLOCK);
  return fd;
}

UniqueFd ConnectTo(const std::string& target) {
  if (target.starts_with("/")) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    target.copy(address.sun_path, sizeof(address.sun_path) - 1);
    return Connected(AF_UNIX, &address, sizeof(address));
  }
  const size_t colon = target.rfind(':');
  const sockaddr_in address = Loopback(static_cast<uint16_t>(atoi(target.c_str() + colon + 1)));
  return Connected(AF_INET, &address, sizeof(address));
}

bool WouldBlock() { return errno == EAGAIN || errno == EINTR; }

}  // namespace

StatusOr<std::unique_ptr<FaultProxy>> FaultProxy::Start(Options options) {
  std::unique_ptr<FaultProxy> proxy(new FaultProxy(std::move(options)));
  SH_RETURN_IF_ERROR(proxy->Listen());
  std::printf("fault proxy at %s: seed %u\n", proxy->address().c_str(), proxy->options_.seed);
  FaultProxy* const raw = proxy.get();
  proxy->thread_ = std::thread([raw] { raw->Run(); });
  return proxy;
}

FaultProxy::~FaultProxy() {
  if (thread_.joinable()) {
    stopping_ = true;
    eventfd_write(wake_.get(), 1);
    thread_.join();
  }
  if (!options_.listen_path.empty()) unlink(options_.listen_path.c_str());
}

std::string FaultProxy::address() const {
  return options_.listen_path.empty() ? "127.0.0.1:" + std::to_string(port_) : options_.listen_path;
}

Status FaultProxy::Listen() {
  const bool is_unix = !options_.listen_path.empty();
  const int family = is_unix ? AF_UNIX : AF_INET;
  listener_ = UniqueFd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  sockaddr_in tcp = Loopback(0);
  sockaddr_un path{};
  path.sun_family = AF_UNIX;
  options_.listen_path.copy(path.sun_path, sizeof(path.sun_path) - 1);
  auto* const any =
      is_unix ? reinterpret_cast<sockaddr*>(&path) : reinterpret_cast<sockaddr*>(&tcp);
  socklen_t bytes = is_unix ? sizeof(path) : sizeof(tcp);
  if (!wake_.valid() || bind(listener_.get(), any, bytes) != 0 ||
      listen(listener_.get(), SOMAXCONN) != 0 || getsockname(listener_.get(), any, &bytes) != 0) {
    return ErrnoStatus("listening for the proxy");
  }
  if (!is_unix) port_ = ntohs(tcp.sin_port);
  return Status();
}

void FaultProxy::SetStalled(Direction direction, bool stalled) {
  stalled_[static_cast<size_t>(direction)] = stalled;
  eventfd_write(wake_.get(), 1);
}

short FaultProxy::EventsOf(const Flow& in, Direction read, const Flow& out, uint64_t now,
                           uint64_t* next) const {
  int events = 0;
  if (!in.ended && in.bytes < kFlowBytesMax && !IsStalled(read)) events |= POLLIN;
  if (!out.pieces.empty()) {
    const uint64_t due = std::max(out.pieces.front().due_ns, out.free_ns);
    if (due <= now) {
      events |= POLLOUT;
    } else {
      *next = std::min(*next, due);
    }
  }
  return static_cast<short>(events);
}

void FaultProxy::Run() {
  for (;;) {
    std::vector<pollfd> polled = {{wake_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    uint64_t next = UINT64_MAX;
    const uint64_t now = MonotonicNs();
    // Where nothing is waited for, a side's end is none of ours yet.
    const auto add = [&polled](int fd, short events) {
      polled.push_back({events != 0 ? fd : -1, events, 0});
    };
    for (const Connection& c : connections_) {
      add(c.client.get(), EventsOf(c.up, Direction::kUp, c.down, now, &next));
      add(c.server.get(), EventsOf(c.down, Direction::kDown, c.up, now, &next));
      if (cuts_on_) next = std::min(next, c.cut_ns);
    }
    int wait_ms = kWaitMsMax;
    if (next < now + kWaitMsMax * kMs) {
      wait_ms = next > now ? static_cast<int>((next - now) / kMs + 1) : 0;
    }
    poll(polled.data(), polled.size(), wait_ms);
    if (stopping_) return;
    eventfd_t ignored = 0;
    eventfd_read(wake_.get(), &ignored);
    std::erase_if(connections_, [this](Connection& connection) { return !Pass(connection); });
    if (polled[1].revents != 0) Accept();
  }
}

void FaultProxy::Accept() {
  UniqueFd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!client.valid() || connections_.size() >= kProxyConnectionsMax) return;
  const int on = 1;
  setsockopt(client.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  UniqueFd server = ConnectTo(options_.target);
  if (!server.valid()) return;
  setsockopt(server.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  uint64_t cut_ns = UINT64_MAX;
  if (options_.life_ms_max != 0) {
    cut_ns = MonotonicNs() + random_() % (options_.life_ms_max * kMs);
  }
  connections_.push_back({std::move(client), std::move(server), {}, {}, cut_ns});
}

bool FaultProxy::LosesReply() {
  if (options_.reply_loss <= 0 || !cuts_on_) return false;
  return std::uniform_real_distribution<double>(0, 1)(random_) < options_.reply_loss;
}

bool FaultProxy::Read(int from, Direction direction, Flow* flow) {
  if (flow->ended || flow->bytes >= kFlowBytesMax || IsStalled(direction)) return true;
  char buffer[16 << 10];
  const ssize_t got = read(from, buffer, sizeof(buffer));
  if (got < 0) return WouldBlock();
  if (got == 0) {
    flow->ended = true;
    return true;
  }
  flow->bytes += static_cast<size_t>(got);
  flow->pieces.push_back(
      {std::string(buffer, static_cast<size_t>(got)), MonotonicNs() + options_.delay_ms * kMs});
  return true;
}

bool FaultProxy::Write(int to, Flow* flow) const {
  const uint64_t rate = options_.bytes_per_second;
  while (!flow->pieces.empty()) {
    const uint64_t now = MonotonicNs();
    std::string& bytes = flow->pieces.front().bytes;
    if (flow->pieces.front().due_ns > now || flow->free_ns > now) break;
    const size_t some = rate == 0 ? bytes.size() : std::max<uint64_t>(1, rate / kThrottleSteps);
    const ssize_t sent = send(to, bytes.data(), std::min(bytes.size(), some), MSG_NOSIGNAL);
    if (sent < 0) return WouldBlock();
    const auto moved = static_cast<size_t>(sent);
    if (rate != 0) flow->free_ns = now + moved * kSecondNs / rate;
    flow->bytes -= moved;
    bytes.erase(0, moved);
    if (bytes.empty()) flow->pieces.pop_front();
  }
  return !(flow->ended && flow->pieces.empty());
}

bool FaultProxy::Pass(Connection& connection) {
  if (cuts_on_ && MonotonicNs() >= connection.cut_ns) {
    ++cuts_;
    Cut(connection, random_() % 2 == 1);
    return false;
  }
  const int client = connection.client.get();
  const int server = connection.server.get();
  if (!Read(client, Direction::kUp, &connection.up)) return false;
  const size_t before = connection.down.bytes;
  if (!Read(server, Direction::kDown, &connection.down)) return false;
  if (connection.down.bytes > before && LosesReply()) {
    ++lost_replies_;
    Cut(connection, true);
    return false;
  }
  return Write(server, &connection.up) && Write(client, &connection.down);
}

// The descriptors close when the connection is forgotten.
void FaultProxy::Cut(Connection& connection, bool by_reset) {
  if (!by_reset) return;
  const linger reset{1, 0};
  setsockopt(connection.client.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  setsockopt(connection.server.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

}  // namespace statehouse::testing
