#include "service/attach/descriptor_closer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "service/attach/test_lingering_socket.h"
#include "service/keeper/descriptor_message.h"

namespace statehouse {
namespace {

constexpr int kPatienceMs = 60'000;

// A pipe whose other end tells when `given` has been closed.
struct Watched {
  UniqueFd seen;
  UniqueFd given;
};
Watched NewWatched() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}
bool EventuallyClosed(const UniqueFd& seen) {
  pollfd hung_up{seen.get(), 0, 0};
  return poll(&hung_up, 1, kPatienceMs) == 1 && (hung_up.revents & POLLHUP) != 0;
}

TEST(DescriptorCloserTest, WhatIsGivenIsClosed) {
  DescriptorCloser closer;
  Watched one = NewWatched();
  Watched two = NewWatched();

  closer.Close(std::move(one.given));
  closer.Close(UniqueFd());
  closer.Close(std::move(two.given));

  EXPECT_TRUE(EventuallyClosed(one.seen));
  EXPECT_TRUE(EventuallyClosed(two.seen));
}

TEST(DescriptorCloserTest, WhatWaitsIsClosedBeforeItGoes) {
  std::vector<Watched> many;
  for (int i = 0; i < 100; ++i) many.push_back(NewWatched());
  {
    DescriptorCloser closer;
    for (Watched& one : many) closer.Close(std::move(one.given));
  }

  for (const Watched& one : many) EXPECT_TRUE(EventuallyClosed(one.seen));
}

// Packets that nobody read hold descriptors too: the socket with them is closed as carefully.
TEST(DescriptorCloserTest, DescriptorsInUnreadPacketsHoldUpNothing) {
  UniqueFd lingering;
  UniqueFd unread_peer;
  ASSERT_NO_FATAL_FAILURE(MakeLingering(&lingering, &unread_peer));
  int ends[2] = {-1, -1};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  UniqueFd client(ends[0]);
  UniqueFd connection(ends[1]);
  // Empty packets come first; they look like the end.
  for (int i = 0; i < 100; ++i) ASSERT_EQ(SendMessage(client.get(), "", {}), SendResult::kSent);
  const std::vector<int> passed = {lingering.get()};
  ASSERT_EQ(SendMessage(client.get(), "unread", passed), SendResult::kSent);
  lingering.Reset();
  client.Reset();
  Watched next = NewWatched();
  DescriptorCloser closer;

  closer.CloseConnection(std::move(connection));
  closer.Close(std::move(next.given));

  EXPECT_TRUE(EventuallyClosed(next.seen));
}

TEST(DescriptorCloserTest, FullAtTheLimitAndNotBefore) {
  UniqueFd lingering;
  UniqueFd unread_peer;
  ASSERT_NO_FATAL_FAILURE(MakeLingering(&lingering, &unread_peer));
  // Something that blocks although its linger was ended: it is not known for a connection, so that
  // its unread packet is closed by the kernel.
  int ends[2] = {-1, -1};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  UniqueFd client(ends[0]);
  const std::vector<int> passed = {lingering.get()};
  ASSERT_EQ(SendMessage(client.get(), "unread", passed), SendResult::kSent);
  lingering.Reset();
  DescriptorCloser closer(2);
  Watched before = NewWatched();
  closer.Close(std::move(before.given));
  ASSERT_TRUE(EventuallyClosed(before.seen));
  closer.Close(UniqueFd(ends[1]));
  pollfd gone{client.get(), 0, 0};
  ASSERT_EQ(poll(&gone, 1, kPatienceMs), 1);  // Its thread is in close() now.

  Watched one = NewWatched();
  Watched two = NewWatched();
  closer.Close(std::move(one.given));
  EXPECT_FALSE(closer.full());
  closer.Close(std::move(two.given));
  EXPECT_TRUE(closer.full());

  unread_peer.Reset();  // A reset connection does not linger.
  EXPECT_TRUE(EventuallyClosed(two.seen));
  EXPECT_FALSE(closer.full());
}

TEST(DescriptorCloserTest, AClientsSocketDoesNotLinger) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd kept(ends[0]);
  const UniqueFd peer(ends[1]);
  const linger on{1, 3600};
  ASSERT_EQ(setsockopt(kept.get(), SOL_SOCKET, SO_LINGER, &on, sizeof(on)), 0);

  { DescriptorCloser().Close(UniqueFd(dup(kept.get()))); }

  linger now{1, 1};
  socklen_t length = sizeof(now);
  ASSERT_EQ(getsockopt(kept.get(), SOL_SOCKET, SO_LINGER, &now, &length), 0);
  EXPECT_EQ(now.l_onoff, 0);
}

}  // namespace
}  // namespace statehouse
