#include "service/rpc/tcp_peer.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "engine/os/unique_fd.h"

namespace statehouse {
namespace {

TEST(TcpPeerTest, ReadsWhatGrpcWrites) {
  EXPECT_EQ(ParsePeer("ipv4:127.0.0.1:51234").value().ToString(), "127.0.0.1:51234");
  EXPECT_EQ(ParsePeer("ipv6:%5B::1%5D:80").value().ToString(), "[::1]:80");
  EXPECT_EQ(ParsePeer("ipv6:[fe80::1%25eth0]:65535").value().ToString(), "[fe80::1]:65535");
}

TEST(TcpPeerTest, AnIpv4AddressIsTheSameByAnIpv6Socket) {
  EXPECT_EQ(ParsePeer("ipv6:[::ffff:10.1.2.3]:7").value(), ParsePeer("ipv4:10.1.2.3:7").value());
}

TEST(TcpPeerTest, EverythingElseIsNone) {
  for (const char* text : {"", "unix:", "unix:/run/x", "ipv4:", "ipv4:127.0.0.1", "ipv4:x:1",
                           "ipv4:127.0.0.1:", "ipv4:127.0.0.1:65536", "ipv4:127.0.0.1:8o",
                           "ipv6:[::g]:9", "ipv5:[::1]:9"}) {
    EXPECT_FALSE(ParsePeer(text).has_value()) << text;
  }
}

TEST(TcpPeerTest, AHostIsAnIpv4AddressOrAnIpv6Network) {
  const auto host = [](const char* text) { return ParsePeer(text).value().Host(); };

  EXPECT_EQ(host("ipv4:10.0.0.1:1"), host("ipv4:10.0.0.1:2"));
  EXPECT_NE(host("ipv4:10.0.0.1:1"), host("ipv4:10.0.0.2:1"));
  EXPECT_EQ(host("ipv6:[2001:db8::1]:1"), host("ipv6:[2001:db8::ffff:2]:1"));
  EXPECT_NE(host("ipv6:[2001:db8::1]:1"), host("ipv6:[2001:db8:0:1::1]:1"));
}

TEST(TcpPeerTest, HasLeftWhoHasClosedOrSendsNoMore) {
  for (const bool closes : {true, false}) {
    int fds[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    UniqueFd client(fds[0]);
    const UniqueFd service(fds[1]);
    ASSERT_EQ(send(client.get(), "x", 1, 0), 1);
    EXPECT_FALSE(HasLeft(service.get()));
    closes ? client.Reset() : static_cast<void>(shutdown(client.get(), SHUT_WR));
    EXPECT_TRUE(HasLeft(service.get())) << "though there is something to read";
  }
}

TEST(TcpPeerTest, IsWrittenAsGrpcWritesIt) {
  for (const char* text : {"ipv4:127.0.0.1:51234", "ipv6:%5B2001:db8::1%5D:80"}) {
    EXPECT_EQ(ParsePeer(text).value().GrpcName(), text);
  }
}

TEST(TcpPeerTest, IsShownAsAnOperatorNamesIt) {
  EXPECT_EQ(ShownPeer("ipv4:10.0.0.7:51234"), "10.0.0.7:51234");
  EXPECT_EQ(ShownPeer("ipv6:%5B::1%5D:80"), "[::1]:80");
  EXPECT_EQ(ShownPeer("unix:"), "grpc.sock");
  EXPECT_EQ(ShownPeer("unix:uid=1000,pid=4711"), "unix:uid=1000,pid=4711");
  EXPECT_EQ(ShownPeer("x\n\x1b"), "x??");
  EXPECT_EQ(ShownPeer(std::string(201, 'x')).size(), 200u);
}

}  // namespace
}  // namespace statehouse
