#include "tests/support/cutting_proxy.h"

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
#include <cstdlib>
#include <cstring>
#include <utility>

#include "engine/os/errno_status.h"
#include "engine/os/futex.h"

namespace statehouse::testing {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr size_t kFlowBytesMax = 64 << 10;
constexpr size_t kConnectionsMax = 64;

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

// Writes what is there, reads what comes. False: one side is gone.
bool Move(int from, int to, std::string* bytes, bool* ended) {
  if (!*ended && bytes->size() < kFlowBytesMax) {
    char buffer[16 << 10];
    const ssize_t got = read(from, buffer, sizeof(buffer));
    if (got > 0) bytes->append(buffer, static_cast<size_t>(got));
    if (got == 0) *ended = true;
    if (got < 0 && !WouldBlock()) return false;
  }
  if (!bytes->empty()) {
    const ssize_t sent = send(to, bytes->data(), bytes->size(), MSG_NOSIGNAL);
    if (sent > 0) bytes->erase(0, static_cast<size_t>(sent));
    if (sent < 0 && !WouldBlock()) return false;
  }
  return !(*ended && bytes->empty());
}

}  // namespace

StatusOr<std::unique_ptr<CuttingProxy>> CuttingProxy::Start(Options options) {
  std::unique_ptr<CuttingProxy> proxy(new CuttingProxy(std::move(options)));
  SH_RETURN_IF_ERROR(proxy->Listen());
  CuttingProxy* const raw = proxy.get();
  proxy->thread_ = std::thread([raw] { raw->Run(); });
  return proxy;
}

CuttingProxy::~CuttingProxy() {
  if (!thread_.joinable()) return;
  eventfd_write(stop_.get(), 1);
  thread_.join();
}

Status CuttingProxy::Listen() {
  listener_ = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  sockaddr_in address = Loopback(0);
  socklen_t bytes = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (!stop_.valid() || bind(listener_.get(), any, bytes) != 0 ||
      listen(listener_.get(), SOMAXCONN) != 0 || getsockname(listener_.get(), any, &bytes) != 0) {
    return ErrnoStatus("listening on the loopback");
  }
  port_ = ntohs(address.sin_port);
  return Status();
}

void CuttingProxy::Run() {
  for (;;) {
    std::vector<pollfd> polled = {{stop_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    uint64_t next = UINT64_MAX;
    const auto add = [&polled](int fd, const Flow& in, const Flow& out) {
      int events = 0;
      if (!in.ended && in.bytes.size() < kFlowBytesMax) events |= POLLIN;
      if (!out.bytes.empty()) events |= POLLOUT;
      polled.push_back({fd, static_cast<short>(events), 0});
    };
    for (const Connection& connection : connections_) {
      add(connection.client.get(), connection.up, connection.down);
      add(connection.server.get(), connection.down, connection.up);
      if (cuts_on_) next = std::min(next, connection.cut_ns);
    }
    const uint64_t now = MonotonicNs();
    const uint64_t wait_ms = next > now ? std::min((next - now) / kMs + 1, uint64_t{100}) : 0;
    poll(polled.data(), polled.size(), static_cast<int>(wait_ms));
    if (polled[0].revents != 0) return;
    std::erase_if(connections_, [this](Connection& connection) { return !Pass(connection); });
    if (polled[1].revents != 0) Accept();
  }
}

void CuttingProxy::Accept() {
  UniqueFd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!client.valid() || connections_.size() >= kConnectionsMax) return;
  const int on = 1;
  setsockopt(client.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  UniqueFd server = ConnectTo(options_.target);
  if (!server.valid()) return;
  setsockopt(server.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const uint64_t life = random_() % (options_.life_ms_max * kMs);
  connections_.push_back({std::move(client), std::move(server), {}, {}, MonotonicNs() + life});
}

bool CuttingProxy::Pass(Connection& connection) {
  if (cuts_on_ && MonotonicNs() >= connection.cut_ns) {
    Cut(connection);
    return false;
  }
  const int client = connection.client.get();
  const int server = connection.server.get();
  return Move(client, server, &connection.up.bytes, &connection.up.ended) &&
         Move(server, client, &connection.down.bytes, &connection.down.ended);
}

void CuttingProxy::Cut(Connection& connection) {
  ++cuts_;
  if (random_() % 2 == 0) return;
  const linger reset{1, 0};
  setsockopt(connection.client.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  setsockopt(connection.server.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

}  // namespace statehouse::testing
