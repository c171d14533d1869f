// TcpPeer: the other side of a TCP connection, as the kernel tells it and as gRPC writes it.
//
// A value. Always true: an IPv4 address is written as IPv6 writes it (::ffff:a.b.c.d), so it is the
// same by whichever socket it came.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace statehouse {

// Who is one to the limits of hosts: an IPv4 address, or the 64 bits of an IPv6 address that name
// its network, because whoever has one of those has them all.
struct HostKey {
  std::array<uint8_t, 16> bytes{};
  auto operator<=>(const HostKey&) const = default;
};

struct TcpPeer {
  std::array<uint8_t, 16> host{};
  uint16_t port = 0;
  bool operator==(const TcpPeer&) const = default;

  HostKey Host() const;
  // For messages: "127.0.0.1:51234", "[::1]:51234".
  std::string ToString() const;
  // As gRPC writes it: "ipv4:127.0.0.1:51234", "ipv6:%5B::1%5D:51234".
  std::string GrpcName() const;
};

struct TcpPeerHash {
  size_t operator()(const TcpPeer& peer) const {
    const std::string_view host(reinterpret_cast<const char*>(peer.host.data()), peer.host.size());
    return std::hash<std::string_view>()(host) * 31 + peer.port;
  }
};

// Of a connected socket; none for a unix socket, and where there is no other side any more.
std::optional<TcpPeer> PeerOf(int fd);
bool IsUnixSocket(int fd);
// Whether the other side of a connected socket has closed it, or its sending half.
bool HasLeft(int fd);
// Of what gRPC writes: "ipv4:127.0.0.1:51234", "ipv6:%5B::1%5D:51234" or "ipv6:[::1]:51234". None
// for everything else.
std::optional<TcpPeer> ParsePeer(std::string_view peer);
// The same for the log: "10.0.0.7:51234", "grpc.sock" of a unix socket, of which gRPC does not say
// who is there. What is neither is shown without what a terminal obeys.
std::string ShownPeer(std::string_view peer);

}  // namespace statehouse
