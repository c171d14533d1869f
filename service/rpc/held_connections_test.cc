#include "service/rpc/held_connections.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <mutex>
#include <string>
#include <vector>

namespace statehouse {
namespace {

constexpr uint64_t kNow = 1'000'000'000'000;

HostKey Host(const char* address) {
  return ParsePeer("ipv4:" + std::string(address) + ":1").value().Host();
}

class HeldConnectionsTest : public ::testing::Test {
 protected:
  struct Pair {
    UniqueFd client;
    UniqueFd service;
  };
  static Pair Connect() {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
  }
  // The host has had all its connections at once.
  void Exhaust(const HostKey& host) {
    for (uint64_t i = 0; i < kConnectionsAtOnce; ++i) debts_.Enter(host, kNow);
  }
  // As the acceptor does it. The client's end.
  UniqueFd HoldOne(const HostKey& host) {
    Pair pair = Connect();
    const uint64_t due = debts_.Enter(host, kNow);
    EXPECT_TRUE(
        held_.Hold(std::move(pair.service), host, due, kNow + debts_.DueIn(host, due, kNow)));
    return std::move(pair.client);
  }
  // How many are taken whose client has not left.
  size_t TakeDue(uint64_t now_ns) {
    size_t taken = 0;
    for (;;) {
      const HeldConnections::Next next = held_.TakeNext(now_ns, &debts_, &wait_ns_);
      if (!next.connection.valid()) return taken;
      EXPECT_EQ(wait_ns_, std::nullopt);
      if (!next.has_left) ++taken;
    }
  }

  HostDebts debts_{1000};
  HeldConnections held_;
  std::optional<uint64_t> wait_ns_;
};

TEST_F(HeldConnectionsTest, EachIsTakenWhenItsTimeHasCome) {
  Exhaust(Host("10.0.0.1"));
  const UniqueFd first = HoldOne(Host("10.0.0.1"));
  const UniqueFd second = HoldOne(Host("10.0.0.1"));

  EXPECT_EQ(TakeDue(kNow), 0u);
  EXPECT_EQ(wait_ns_, kConnectionNs);
  EXPECT_EQ(TakeDue(kNow + kConnectionNs), 1u);
  EXPECT_EQ(wait_ns_, kConnectionNs);
  EXPECT_EQ(TakeDue(kNow + 2 * kConnectionNs), 1u);
  EXPECT_EQ(wait_ns_, std::nullopt);
  EXPECT_EQ(held_.size(), 0u);
}

TEST_F(HeldConnectionsTest, HostsDoNotWaitForEachOther) {
  Exhaust(Host("10.0.0.1"));
  const UniqueFd first = HoldOne(Host("10.0.0.1"));
  const UniqueFd second = HoldOne(Host("10.0.0.1"));
  Exhaust(Host("10.0.0.2"));
  const UniqueFd other = HoldOne(Host("10.0.0.2"));

  EXPECT_EQ(TakeDue(kNow + kConnectionNs), 2u);
  EXPECT_EQ(held_.size(), 1u);
}

TEST_F(HeldConnectionsTest, HostsTakeTurns) {
  std::vector<UniqueFd> clients;
  for (const char* host : {"10.0.0.1", "10.0.0.2", "10.0.0.3"}) {
    Exhaust(Host(host));
    // Of the first host all have left, and each lets the next one come at once.
    for (int i = 0; i < 3; ++i) clients.push_back(HoldOne(Host(host)));
  }
  for (int i = 0; i < 3; ++i) clients[i].Reset();

  std::string left;
  for (int i = 0; i < 6; ++i) {
    const HeldConnections::Next next = held_.TakeNext(kNow + 2 * kConnectionNs, &debts_, &wait_ns_);
    ASSERT_TRUE(next.connection.valid());
    left += next.has_left ? 'x' : '-';
  }
  EXPECT_EQ(left, "x--x--");
}

TEST_F(HeldConnectionsTest, WhoHasLeftLetsTheNextOneCome) {
  Exhaust(Host("10.0.0.1"));
  UniqueFd first = HoldOne(Host("10.0.0.1"));
  const UniqueFd second = HoldOne(Host("10.0.0.1"));
  first.Reset();

  EXPECT_EQ(TakeDue(kNow + kConnectionNs), 1u);
  EXPECT_EQ(held_.size(), 0u);
}

TEST_F(HeldConnectionsTest, ATurnEndsInTimeThoughAllWhoWaitHaveLeft) {
  constexpr uint64_t kLooks = 10;  // At the clock, in a turn; two for each that is taken.
  Exhaust(Host("10.0.0.1"));
  for (uint64_t i = 0; i < 2 * kLooks; ++i) HoldOne(Host("10.0.0.1"));
  const UniqueFd last = HoldOne(Host("10.0.0.1"));
  std::mutex mutex;
  uint64_t now_ns = kNow + kConnectionNs;
  uint64_t taken = 0;
  const auto turn = [&] {
    return held_.TakeTurn([&] { return now_ns += kStormTurnNs / kLooks; }, &mutex, &debts_,
                          [&](UniqueFd) { ++taken; });
  };

  EXPECT_EQ(turn(), 0u);
  EXPECT_EQ(held_.size(), 2 * kLooks + 1 - kLooks / 2);
  EXPECT_EQ(taken, 0u);
  for (int turns = 1; turn() == 0u; ++turns) ASSERT_LT(turns, 6);
  EXPECT_EQ(held_.size(), 0u);
  EXPECT_EQ(taken, 1u) << "the one that has stayed";
}

TEST_F(HeldConnectionsTest, ATurnEndsWhenNobodysTimeHasCome) {
  Exhaust(Host("10.0.0.1"));
  const UniqueFd first = HoldOne(Host("10.0.0.1"));
  const UniqueFd second = HoldOne(Host("10.0.0.1"));
  std::mutex mutex;
  size_t taken = 0;

  EXPECT_EQ(held_.TakeTurn([] { return kNow + kConnectionNs; }, &mutex, &debts_,
                           [&](UniqueFd) { ++taken; }),
            kConnectionNs);
  EXPECT_EQ(taken, 1u);
}

TEST_F(HeldConnectionsTest, OneWhoseHostWasForgottenIsTakenInTimeAllTheSame) {
  const UniqueFd client = [this] {
    Pair pair = Connect();
    EXPECT_TRUE(held_.Hold(std::move(pair.service), Host("10.0.0.1"), UINT64_MAX, kNow + 5));
    debts_.Enter(Host("10.0.0.1"), kNow);
    return std::move(pair.client);
  }();

  EXPECT_EQ(TakeDue(kNow + 4), 0u);
  EXPECT_EQ(wait_ns_, 1u);
  EXPECT_EQ(TakeDue(kNow + 5), 1u);
}

TEST_F(HeldConnectionsTest, OneBeyondTheLimitIsClosed) {
  debts_.Enter(Host("10.0.0.1"), kNow);
  std::vector<UniqueFd> clients;
  for (size_t i = 0; i < kHeldMax; ++i) {
    Pair pair = Connect();
    clients.push_back(std::move(pair.client));
    ASSERT_TRUE(held_.Hold(std::move(pair.service), Host("10.0.0.1"), UINT64_MAX, UINT64_MAX));
  }
  EXPECT_EQ(held_.size(), kHeldMax);
  Pair pair = Connect();

  EXPECT_FALSE(held_.Hold(std::move(pair.service), Host("10.0.0.1"), UINT64_MAX, UINT64_MAX));

  char byte = 0;
  EXPECT_EQ(recv(pair.client.get(), &byte, 1, MSG_DONTWAIT), 0) << "it is not closed";
  EXPECT_EQ(recv(clients.back().get(), &byte, 1, MSG_DONTWAIT), -1) << "it is closed";
  held_.Clear();
  EXPECT_EQ(recv(clients.back().get(), &byte, 1, MSG_DONTWAIT), 0);
}

}  // namespace
}  // namespace statehouse
