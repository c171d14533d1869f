#include "service/rpc/joint_sends.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grpc/grpc.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "engine/os/futex.h"
#include "engine/os/unique_fd.h"
#include "service/rpc/read_gate.h"
#include "service/rpc/sole_poller.h"

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

// False: for now it takes no more.
bool TrySend(int fd, std::string text) {
  iovec space{text.data(), text.size()};
  msghdr message{};
  message.msg_iov = &space;
  message.msg_iovlen = 1;
  const ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
  if (sent < 0) {
    EXPECT_EQ(errno, EAGAIN);
  }
  return sent == static_cast<ssize_t>(text.size());
}

void Send(int fd, std::string text) { ASSERT_TRUE(TrySend(fd, std::move(text))); }

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

// Connections as the door has them: gated, and known to an epoll, of which the test is the poller.
class PutOffTest : public testing::Test {
 protected:
  PutOffTest() {
    grpc_init();
    sole_poller_ = std::make_unique<SolePoller>();
  }
  ~PutOffTest() override {
    sole_poller_.reset();
    grpc_shutdown();
  }

  Pair Connect() {
    Pair pair = ConnectTcp();
    const int fd = pair.service.get();
    gate_.Admit(fd, std::nullopt);
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.fd = fd;
    EXPECT_EQ(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event), 0);
    EXPECT_TRUE(IsReported(fd)) << "at first it can be written";
    return pair;
  }
  // Whether it is the next one that is reported as fit to be written.
  bool IsReported(int fd) {
    epoll_event event{};
    return epoll_wait(epoll_.get(), &event, 1, 0) == 1 && event.data.fd == fd &&
           (event.events & EPOLLOUT) != 0;
  }
  // As many as it takes.
  static int SendUntilPutOff(int fd) {
    int sent = 0;
    while (sent < 100 && TrySend(fd, "told ")) ++sent;
    return sent;
  }

  const UniqueFd epoll_{epoll_create1(EPOLL_CLOEXEC)};
  ReadGate gate_{[] {}};
  std::unique_ptr<SolePoller> sole_poller_;
  JointSends sends_;
};

TEST_F(PutOffTest, AConnectionWithManyMessagesIsPutOffUntilTheScopeEnds) {
  const Pair pair = Connect();
  const int fd = pair.service.get();
  {
    const JointSends::Scope scope(&sends_);
    EXPECT_EQ(SendUntilPutOff(fd), static_cast<int>(kJointOneByOne) - 1);
    EXPECT_FALSE(TrySend(fd, "again"));
    EXPECT_FALSE(IsReported(fd));
  }

  EXPECT_EQ(Held(fd), 0);
  EXPECT_TRUE(IsReported(fd));
  Send(fd, "the rest");
  EXPECT_EQ(Held(fd), 0);
  EXPECT_EQ(Receive(pair.client.get(), 28), "told told told told the rest");
}

TEST_F(PutOffTest, OthersAreNotPutOffWithIt) {
  const Pair many = Connect();
  const Pair one = Connect();
  const JointSends::Scope scope(&sends_);
  (void)SendUntilPutOff(many.service.get());

  Send(one.service.get(), "at once");

  EXPECT_EQ(Held(one.service.get()), 0);
  // Nor is another thread.
  std::thread other([&] { Send(many.service.get(), "now"); });
  other.join();
  EXPECT_EQ(Receive(many.client.get(), 23), "told told told told now");
}

TEST_F(PutOffTest, OverTurnsItIsPutOffForSoLongAtMost) {
  const Pair pair = Connect();
  const int fd = pair.service.get();
  // One that takes so long itself leaves nothing put off.
  do {
    const JointSends::Scope scope(&sends_);
    (void)SendUntilPutOff(fd);
    JointSends::ExpectMore(true);
  } while (IsReported(fd));
  EXPECT_FALSE(TrySend(fd, "between turns")) << "whatever had epoll report it";
  SleepNs(kHeldNsMax);

  { const JointSends::Scope of_others(&sends_); }

  EXPECT_TRUE(IsReported(fd));
  const JointSends::Scope scope(&sends_);
  EXPECT_EQ(SendUntilPutOff(fd), static_cast<int>(kJointOneByOne) - 1) << "and then anew";
}

TEST_F(PutOffTest, WhileGrpcWouldPollForItNothingIsPutOff) {
  const Pair pair = Connect();
  sole_poller_.reset();
  const JointSends::Scope scope(&sends_);

  EXPECT_EQ(SendUntilPutOff(pair.service.get()), 100);
}

TEST_F(PutOffTest, OneThatIsClosedMeanwhileIsNoMatter) {
  Pair pair = Connect();
  {
    const JointSends::Scope scope(&sends_);
    (void)SendUntilPutOff(pair.service.get());
    pair.service.Reset();
  }
  const Pair next = Connect();  // Perhaps with its number.

  const JointSends::Scope scope(&sends_);
  EXPECT_EQ(SendUntilPutOff(next.service.get()), static_cast<int>(kJointOneByOne) - 1);
}

}  // namespace
}  // namespace statehouse
