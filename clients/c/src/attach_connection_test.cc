// How long an answer is waited for: the first while in recvmsg itself, then with poll.
#include "clients/c/src/attach_connection.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include "engine/os/futex.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// A daemon that answers when the test says so.
class AttachConnectionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/sh_attach_XXXXXX";
    folder_ = ::mkdtemp(pattern);
    listener_.Reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (folder_ + "/attach.sock").copy(address.sun_path, sizeof(address.sun_path) - 1);
    ASSERT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(listener_.get(), 1), 0);
    StatusOr<AttachConnection> opened = AttachConnection::Open(folder_);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    connection_ = *std::move(opened);
    daemon_.Reset(::accept(listener_.get(), nullptr, nullptr));
    ASSERT_TRUE(daemon_.valid());
  }
  ~AttachConnectionTest() override { std::filesystem::remove_all(folder_); }

  void Answer(const std::string& text) const {
    const std::string bytes = EncodeAttachPacket({7, AttachCallReply{text}}).value();
    EXPECT_EQ(::send(daemon_.get(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
  }

  // With a descriptor beside it.
  bool SendBeside(std::string bytes, int descriptor) const {
    iovec part{bytes.data(), bytes.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
    return ::sendmsg(daemon_.get(), &message, 0) == static_cast<ssize_t>(bytes.size());
  }

  std::string folder_;
  UniqueFd listener_;
  UniqueFd daemon_;
  AttachConnection connection_;
};

TEST_F(AttachConnectionTest, WhatComesBesideAnAnswerIsDroppedWhereNobodyAsksForIt) {
  const std::string bytes = EncodeAttachPacket({7, AttachCallReply{"x"}}).value();
  const auto open_files = [] {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return std::distance(begin(all), end(all));
  };
  const auto before = open_files();
  for (const bool asks : {false, true}) {
    ASSERT_TRUE(SendBeside(bytes, STDERR_FILENO));
    std::vector<UniqueFd> descriptors;
    const auto received = connection_.ReceiveBytes(Clock::now() + std::chrono::minutes(1),
                                                   Interrupt(), asks ? &descriptors : nullptr);
    ASSERT_TRUE(received.ok()) << received.status().ToString();
    EXPECT_EQ(received->size(), bytes.size());
    EXPECT_EQ(descriptors.size(), asks ? 1u : 0u);
    EXPECT_EQ(open_files() - before, asks ? 1 : 0);
  }
}

TEST_F(AttachConnectionTest, APacketBeyondTheLimitIsRefused) {
  constexpr size_t kLimit = kAttachHeaderBytes + kAttachBodyBytesMax;
  for (const bool asks : {false, true}) {
    for (const size_t bytes : {kLimit, kLimit + 1}) {
      const std::string packet(bytes, 'x');
      ASSERT_EQ(::send(daemon_.get(), packet.data(), bytes, 0), static_cast<ssize_t>(bytes));
      std::vector<UniqueFd> descriptors;
      const auto received = connection_.ReceiveBytes(Clock::now() + std::chrono::minutes(1),
                                                     Interrupt(), asks ? &descriptors : nullptr);
      EXPECT_EQ(received.ok(), bytes == kLimit) << bytes << " " << asks;
      if (received.ok()) {
        EXPECT_EQ(received->size(), bytes);
      } else {
        EXPECT_EQ(received.status().reason(), Reason::kInvalidArgument);
      }
    }
  }
}

TEST_F(AttachConnectionTest, NoAnswerIsATimeoutAtTheDeadlineAndNotBefore) {
  for (const milliseconds patience : {milliseconds(0), milliseconds(10), milliseconds(120)}) {
    const Clock::time_point deadline = Clock::now() + patience;
    const auto received = connection_.Receive(deadline, Interrupt());
    EXPECT_EQ(received.status().reason(), Reason::kTimeout) << patience.count();
    EXPECT_GE(Clock::now(), deadline) << patience.count();
  }
}

TEST_F(AttachConnectionTest, AnAnswerIsHadWheneverItComes) {
  for (const milliseconds delay : {milliseconds(0), milliseconds(5), milliseconds(150)}) {
    std::thread daemon([&] {
      SleepNs(static_cast<uint64_t>(std::chrono::nanoseconds(delay).count()));
      Answer(std::to_string(delay.count()));
    });
    const auto received = connection_.Receive(Clock::now() + std::chrono::minutes(1), Interrupt());
    daemon.join();
    ASSERT_TRUE(received.ok()) << received.status().ToString();
    EXPECT_EQ(received->packet.request_id, 7u);
    const auto* const reply = std::get_if<AttachCallReply>(&received->packet.message);
    ASSERT_NE(reply, nullptr);
    EXPECT_EQ(reply->response, std::to_string(delay.count()));
  }
}

TEST_F(AttachConnectionTest, WhoeverGivesUpIsAskedWhileItWaits) {
  int asked = 0;
  const auto received = connection_.Receive(Clock::now() + std::chrono::minutes(1),
                                            [&asked] { return ++asked == 2; });
  EXPECT_EQ(received.status().reason(), Reason::kCancelled);
  EXPECT_EQ(asked, 2);
}

TEST_F(AttachConnectionTest, ADaemonThatHangsUpEndsTheWait) {
  daemon_.Reset();
  const auto received = connection_.Receive(Clock::now() + std::chrono::minutes(1), Interrupt());
  EXPECT_EQ(received.status().reason(), Reason::kUnavailable);
}

}  // namespace
}  // namespace statehouse
