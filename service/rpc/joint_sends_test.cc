#include "service/rpc/joint_sends.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <string>
#include <thread>
#include <utility>

#include "engine/os/futex.h"
#include "engine/os/unique_fd.h"

namespace statehouse {
namespace {

// Both ends of a connection as gRPC has them.
struct Pair {
  UniqueFd client;
  UniqueFd service;
};

Pair ConnectTcp() {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof(address);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(bind(listener.get(), any, bytes), 0);
  EXPECT_EQ(listen(listener.get(), 1), 0);
  EXPECT_EQ(getsockname(listener.get(), any, &bytes), 0);
  Pair pair{UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), UniqueFd()};
  EXPECT_EQ(connect(pair.client.get(), any, bytes), 0);
  pair.service = UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const int on = 1;
  EXPECT_EQ(setsockopt(pair.service.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
  return pair;
}

void Send(int fd, std::string text) {
  iovec space{text.data(), text.size()};
  msghdr message{};
  message.msg_iov = &space;
  message.msg_iovlen = 1;
  ASSERT_EQ(sendmsg(fd, &message, MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
}

std::string Receive(int fd, size_t bytes) {
  std::string text(bytes, '\0');
  EXPECT_EQ(recv(fd, text.data(), bytes, MSG_WAITALL), static_cast<ssize_t>(bytes));
  return text;
}

// Bytes that the kernel has not sent yet.
int Held(int fd) {
  int bytes = -1;
  EXPECT_EQ(ioctl(fd, SIOCOUTQNSD, &bytes), 0);
  return bytes;
}

uint32_t Packets(int fd) {
  tcp_info info{};
  socklen_t bytes = sizeof(info);
  EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes), 0);
  return info.tcpi_data_segs_out;
}

TEST(JointSendsTest, MessagesOfOneConnectionShareAPacket) {
  constexpr uint32_t kMessages = 100;
  const Pair pair = ConnectTcp();
  JointSends sends;
  std::string all;

  {
    const JointSends::Scope scope(&sends);
    for (uint32_t i = 0; i < kMessages; ++i) {
      const std::string message = "message " + std::to_string(i) + ";";
      Send(pair.service.get(), message);
      all += message;
    }
  }

  EXPECT_EQ(Held(pair.service.get()), 0);
  EXPECT_EQ(Receive(pair.client.get(), all.size()), all);
  EXPECT_LT(Packets(pair.service.get()), kMessages / 2);
}

TEST(JointSendsTest, TheFirstMessageOfAConnectionDoesNotWait) {
  const Pair first = ConnectTcp();
  const Pair second = ConnectTcp();
  JointSends sends;
  const JointSends::Scope scope(&sends);

  Send(first.service.get(), "one");
  Send(second.service.get(), "two");

  EXPECT_EQ(Held(first.service.get()), 0);
  EXPECT_EQ(Held(second.service.get()), 0);
  EXPECT_EQ(Receive(second.client.get(), 3), "two");
}

TEST(JointSendsTest, ManyMessagesAreNotHeldUntilTheEnd) {
  const Pair pair = ConnectTcp();
  JointSends sends;
  const JointSends::Scope scope(&sends);

  for (size_t i = 0; i <= kJointSendsMax; ++i) Send(pair.service.get(), ".");

  EXPECT_EQ(Held(pair.service.get()), 0);
}

TEST(JointSendsTest, TurnsOfAnAudienceShareAPacket) {
  constexpr uint32_t kTurns = 20;
  const Pair pair = ConnectTcp();
  JointSends sends;

  for (uint32_t turn = 1; turn <= kTurns; ++turn) {
    const JointSends::Scope scope(&sends);
    for (int i = 0; i < 5; ++i) Send(pair.service.get(), "told ");
    JointSends::ExpectMore(turn < kTurns);
  }

  EXPECT_EQ(Held(pair.service.get()), 0);
  // Each by itself would send its first message, and then the others.
  EXPECT_LT(Packets(pair.service.get()), 2 * kTurns);
}

TEST(JointSendsTest, NothingIsHeldForLongBetweenTurns) {
  const Pair pair = ConnectTcp();
  JointSends sends;
  {
    const JointSends::Scope scope(&sends);
    for (int i = 0; i < 5; ++i) Send(pair.service.get(), "told ");
    JointSends::ExpectMore(true);
  }
  SleepNs(kHeldNsMax);

  { const JointSends::Scope of_others(&sends); }

  EXPECT_EQ(Held(pair.service.get()), 0);
}

TEST(JointSendsTest, OutsideOfAScopeEachMessageGoesOutAtOnce) {
  const Pair pair = ConnectTcp();
  JointSends sends;
  { const JointSends::Scope scope(&sends); }

  for (int i = 0; i < 3; ++i) Send(pair.service.get(), "now");

  EXPECT_EQ(Held(pair.service.get()), 0);
}

TEST(JointSendsTest, OtherThreadsAreNotInTheScope) {
  const Pair pair = ConnectTcp();
  JointSends sends;
  const JointSends::Scope scope(&sends);

  std::thread other([&] {
    for (int i = 0; i < 3; ++i) Send(pair.service.get(), "now");
  });
  other.join();

  EXPECT_EQ(Held(pair.service.get()), 0);
}

TEST(JointSendsTest, ADescriptorThatIsClosedInTheScopeIsNoMatter) {
  Pair pair = ConnectTcp();
  JointSends sends;
  {
    const JointSends::Scope scope(&sends);
    for (int i = 0; i < 3; ++i) Send(pair.service.get(), "end");
    pair.service.Reset();
  }

  EXPECT_EQ(Receive(pair.client.get(), 9), "endendend");
}

}  // namespace
}  // namespace statehouse
