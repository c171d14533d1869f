#include "service/rpc/tcp_peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace statehouse {
namespace {

constexpr size_t kMappedBytes = 12;  // Before the four bytes of an IPv4 address.
constexpr std::array<uint8_t, kMappedBytes> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr size_t kNetworkBytes = 8;
constexpr size_t kPeerShownMax = 200;

bool IsMapped(const std::array<uint8_t, 16>& host) {
  return std::equal(kMapped.begin(), kMapped.end(), host.begin());
}

std::array<uint8_t, 16> Mapped(const in_addr& v4) {
  std::array<uint8_t, 16> host{};
  std::copy(kMapped.begin(), kMapped.end(), host.begin());
  std::memcpy(host.data() + kMappedBytes, &v4, sizeof(v4));
  return host;
}

// What is between the brackets, and before the name of an interface.
std::string_view WithoutBrackets(std::string_view address) {
  for (const std::string_view open : {"[", "%5B"}) {
    if (address.starts_with(open)) address.remove_prefix(open.size());
  }
  for (const std::string_view close : {"]", "%5D"}) {
    if (address.ends_with(close)) address.remove_suffix(close.size());
  }
  return address.substr(0, address.find('%'));
}

}  // namespace

HostKey TcpPeer::Host() const {
  HostKey key{host};
  if (!IsMapped(host)) std::fill(key.bytes.begin() + kNetworkBytes, key.bytes.end(), uint8_t{0});
  return key;
}

std::string TcpPeer::ToString() const {
  char text[INET6_ADDRSTRLEN] = {};
  if (IsMapped(host)) {
    (void)::inet_ntop(AF_INET, host.data() + kMappedBytes, text, sizeof(text));
    return std::string(text) + ":" + std::to_string(port);
  }
  (void)::inet_ntop(AF_INET6, host.data(), text, sizeof(text));
  return "[" + std::string(text) + "]:" + std::to_string(port);
}

std::string TcpPeer::GrpcName() const {
  const std::string shown = ToString();
  if (IsMapped(host)) return "ipv4:" + shown;
  const size_t end = shown.rfind(']');
  return "ipv6:%5B" + shown.substr(1, end - 1) + "%5D" + shown.substr(end + 1);
}

std::optional<TcpPeer> PeerOf(int fd) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof(address);
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return std::nullopt;
  TcpPeer peer;
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    peer.host = Mapped(v4.sin_addr);
    peer.port = ntohs(v4.sin_port);
    return peer;
  }
  if (address.ss_family != AF_INET6) return std::nullopt;
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  std::memcpy(peer.host.data(), &v6.sin6_addr, peer.host.size());
  peer.port = ntohs(v6.sin6_port);
  return peer;
}

bool IsUnixSocket(int fd) {
  sockaddr_storage own{};
  socklen_t bytes = sizeof(own);
  return ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &bytes) == 0 &&
         own.ss_family == AF_UNIX;
}

bool HasLeft(int fd) {
  pollfd left{fd, POLLRDHUP, 0};
  return ::poll(&left, 1, 0) == 1 && (left.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

std::optional<TcpPeer> ParsePeer(std::string_view text) {
  const bool is_v4 = text.starts_with("ipv4:");
  if (!is_v4 && !text.starts_with("ipv6:")) return std::nullopt;
  text.remove_prefix(5);
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  TcpPeer peer;
  const std::string_view port = text.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), peer.port);
  if (error != std::errc() || end != port.data() + port.size()) return std::nullopt;
  const std::string address(WithoutBrackets(text.substr(0, colon)));
  if (!is_v4) {
    if (::inet_pton(AF_INET6, address.c_str(), peer.host.data()) != 1) return std::nullopt;
    return peer;
  }
  in_addr v4{};
  if (::inet_pton(AF_INET, address.c_str(), &v4) != 1) return std::nullopt;
  peer.host = Mapped(v4);
  return peer;
}

std::string ShownPeer(std::string_view peer) {
  if (const auto tcp = ParsePeer(peer)) return tcp->ToString();
  if (peer.starts_with("unix:") && !peer.starts_with("unix:uid=")) return "grpc.sock";
  std::string text(peer.substr(0, kPeerShownMax));
  for (char& c : text) {
    if (c < ' ' || c > '~') c = '?';
  }
  return text;
}

}  // namespace statehouse
