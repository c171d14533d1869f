#include "service/rpc/read_gate.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/os/futex.h"
#include "engine/os/unique_fd.h"

namespace statehouse {
namespace {

constexpr size_t kAll = SIZE_MAX;

TcpPeer Peer(uint16_t port) { return ParsePeer("ipv4:10.0.0.1:" + std::to_string(port)).value(); }

// Reads as gRPC does: on an edge, until there is nothing more.
class Reader final {
 public:
  Reader() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

  // `mark` is what epoll reports it by.
  void Register(int fd, uint64_t mark) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    event.data.u64 = mark;
    ASSERT_EQ(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event), 0);
  }
  // Marks of those that can be read, waited for at most so long.
  std::vector<uint64_t> Readable(int wait_ms = 0) {
    epoll_event events[64];
    const int count = epoll_wait(epoll_.get(), events, 64, wait_ms);
    std::vector<uint64_t> marks;
    for (int i = 0; i < count; ++i) {
      if ((events[i].events & EPOLLIN) != 0) marks.push_back(events[i].data.u64);
    }
    return marks;
  }
  // What one turn gives; afterwards errno says why it is over.
  static std::string Read(int fd, size_t bytes_max = kAll) {
    std::string all;
    std::string part(std::min<size_t>(bytes_max, 8 << 10), '\0');
    while (all.size() < bytes_max) {
      iovec space{part.data(), part.size()};
      msghdr message{};
      message.msg_iov = &space;
      message.msg_iovlen = 1;
      errno = 0;
      const ssize_t got = recvmsg(fd, &message, 0);
      if (got <= 0) break;
      all.append(part, 0, static_cast<size_t>(got));
    }
    return all;
  }

 private:
  UniqueFd epoll_;
};

class ReadGateTest : public ::testing::Test {
 protected:
  struct Pair {
    UniqueFd client;
    UniqueFd service;
  };
  static Pair Connect() {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
  }
  // Admitted, registered by its port, and with so many bytes to read.
  Pair Open(uint16_t port, size_t bytes = 0) {
    Pair pair = Connect();
    gate_.Admit(pair.service.get(), Peer(port));
    reader_.Register(pair.service.get(), port);
    if (bytes > 0) Send(pair, bytes);
    return pair;
  }
  static void Send(const Pair& pair, size_t bytes) {
    ASSERT_EQ(send(pair.client.get(), std::string(bytes, 'x').data(), bytes, 0),
              static_cast<ssize_t>(bytes));
  }
  std::optional<uint64_t> Rearm(uint64_t now_ns) {
    return gate_.RearmDue(now_ns, [this](const TcpPeer&, bool is_first_pause) {
      first_pauses_.fetch_add(is_first_pause ? 1 : 0);
      charges_.fetch_add(1);
      return charge_ns_;
    });
  }
  static std::vector<uint64_t> Marks(std::vector<uint64_t> marks) { return marks; }

  std::atomic<int> wakes_{0};
  std::atomic<int> charges_{0};
  std::atomic<int> first_pauses_{0};
  uint64_t charge_ns_ = 0;
  ReadGate gate_{[this] { wakes_.fetch_add(1); }};
  Reader reader_;
};

TEST_F(ReadGateTest, WhatIsWithinTheShareIsReadAtOnce) {
  const Pair pair = Open(1, kStrangerShareMax);
  ASSERT_EQ(reader_.Readable(), Marks({1}));

  EXPECT_EQ(Reader::Read(pair.service.get()).size(), kStrangerShareMax);

  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(reader_.Readable(), Marks({}));
}

TEST_F(ReadGateTest, OneByteBeyondTheShareComesInTheNextTurn) {
  const Pair pair = Open(1, kStrangerShareMax + 1);
  ASSERT_EQ(reader_.Readable(), Marks({1}));

  EXPECT_EQ(Reader::Read(pair.service.get()).size(), kStrangerShareMax);

  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(Reader::Read(pair.service.get()), "") << "the turn is over";
  EXPECT_EQ(reader_.Readable(), Marks({1}));
  EXPECT_EQ(Reader::Read(pair.service.get()).size(), 1u);
}

TEST_F(ReadGateTest, ConnectionsTakeTurns) {
  const Pair greedy = Open(1, 8 * kStrangerShareMax);
  const Pair modest = Open(2, 10);
  ASSERT_EQ(reader_.Readable().size(), 2u);
  Reader::Read(greedy.service.get());
  Reader::Read(modest.service.get());
  Send(modest, 10);

  std::vector<uint64_t> next = reader_.Readable();

  std::sort(next.begin(), next.end());
  EXPECT_EQ(next, Marks({1, 2}));
  EXPECT_EQ(Reader::Read(modest.service.get()).size(), 10u);
}

TEST_F(ReadGateTest, OneThatIsOfUseHasALargerShareWhenItsTurnsAreShort) {
  const Pair pair = Open(1);
  EXPECT_TRUE(gate_.any_to_raise());
  EXPECT_TRUE(gate_.Raise(Peer(1), ReadGate::Standing::kUseful));
  EXPECT_FALSE(gate_.Raise(Peer(1), ReadGate::Standing::kUseful)) << "not for the first time";
  EXPECT_FALSE(gate_.any_to_raise());
  size_t most = 0;

  // A busy machine makes turns long that are short.
  for (int i = 0; i < 10'000 && most < 8 * kStrangerShareMax; ++i) {
    while (send(pair.client.get(), std::string(4096, 'x').data(), 4096, 0) > 0) continue;
    reader_.Readable();
    most = std::max(most, Reader::Read(pair.service.get()).size());
  }

  EXPECT_GE(most, 8 * kStrangerShareMax);
  EXPECT_LE(most, kShareMax);
}

TEST_F(ReadGateTest, AStrangerKeepsItsSmallShareAndWaitsAfterItsFirstTurns) {
  const Pair pair = Open(1, 100 * kStrangerShareMax);
  for (uint32_t turn = 0; turn <= kStrangerTurns; ++turn) {
    ASSERT_EQ(reader_.Readable(), Marks({1})) << turn;
    const size_t read = Reader::Read(pair.service.get()).size();
    EXPECT_GE(read, kShareMin);
    EXPECT_LE(read, kStrangerShareMax);
  }
  EXPECT_EQ(reader_.Readable(), Marks({})) << "one beyond them was cut off";
  EXPECT_EQ(charges_.load(), 0);
  charge_ns_ = 5;
  const uint64_t later_ns = MonotonicNs() + kTurnPauseNs;

  EXPECT_EQ(Rearm(later_ns), 5u);
  EXPECT_EQ(charges_.load(), 1);
  EXPECT_EQ(reader_.Readable(), Marks({}));

  EXPECT_EQ(Rearm(later_ns + 5), std::nullopt);
  EXPECT_EQ(charges_.load(), 1) << "one turn is charged once";
  EXPECT_EQ(first_pauses_.load(), 1);
  EXPECT_EQ(reader_.Readable(), Marks({1}));
}

TEST_F(ReadGateTest, WhoWastesWaitsAfterSoManyBytesUntilItIsOfUse) {
  const Pair pair = Open(1);
  gate_.Raise(Peer(1), ReadGate::Standing::kKnown);
  EXPECT_FALSE(gate_.Pause(Peer(1), 0));
  const auto turn = [&]() -> size_t {
    while (send(pair.client.get(), std::string(4096, 'x').data(), 4096, 0) > 0) continue;
    return reader_.Readable().empty() ? 0 : Reader::Read(pair.service.get()).size();
  };
  size_t read = 0;
  while (const size_t bytes = turn()) read += bytes;
  EXPECT_GE(read, kWastefulBytes);
  EXPECT_LT(read, kWastefulBytes + kShareMax);
  Rearm(MonotonicNs() + kTurnPauseNs);
  EXPECT_EQ(charges_.load(), 1);

  gate_.Raise(Peer(1), ReadGate::Standing::kUseful);

  for (size_t bytes = 0; bytes < 4 * kWastefulBytes; bytes += read) {
    read = turn();
    ASSERT_GT(read, 0u) << "it waits";
  }
}

TEST_F(ReadGateTest, WhoseCallerIsKnownDoesNotWait) {
  const Pair pair = Open(1, 100 * kStrangerShareMax);
  gate_.Raise(Peer(1), ReadGate::Standing::kKnown);
  EXPECT_TRUE(gate_.any_to_raise());
  size_t read = 0;
  while (read < 100 * kStrangerShareMax) {
    ASSERT_EQ(reader_.Readable(), Marks({1}));
    read += Reader::Read(pair.service.get()).size();
  }
  EXPECT_EQ(wakes_.load(), 0);
}

TEST_F(ReadGateTest, OneThatNoEpollKnowsIsReadOn) {
  const Pair pair = Connect();
  gate_.Admit(pair.service.get(), Peer(1));
  Send(pair, 4 * kStrangerShareMax);

  EXPECT_EQ(Reader::Read(pair.service.get()).size(), 4 * kStrangerShareMax);
}

TEST_F(ReadGateTest, AfterItsPauseAConnectionIsReportedAgain) {
  const Pair pair = Open(1, 10);
  const uint64_t until_ns = MonotonicNs() + 3'600'000'000'000;
  ASSERT_TRUE(gate_.Pause(Peer(1), until_ns));
  EXPECT_FALSE(gate_.Pause(Peer(1), until_ns)) << "not for the first time";
  EXPECT_EQ(Reader::Read(pair.service.get()), "");
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(wakes_.load(), 1);
  Send(pair, 10);
  EXPECT_EQ(reader_.Readable(), Marks({})) << "what arrives wakes nobody";

  EXPECT_EQ(Rearm(until_ns - 1), 1u);
  EXPECT_EQ(reader_.Readable(), Marks({}));
  EXPECT_EQ(Rearm(until_ns), std::nullopt);

  EXPECT_EQ(reader_.Readable(), Marks({1}));
  EXPECT_EQ(Reader::Read(pair.service.get()).size(), 20u);
}

TEST_F(ReadGateTest, APauseThatIsOverBeforeAnybodyReadsIsNone) {
  const Pair pair = Open(1, 10);
  gate_.Pause(Peer(1), MonotonicNs());

  EXPECT_EQ(Reader::Read(pair.service.get()).size(), 10u);
  EXPECT_EQ(wakes_.load(), 0);
}

TEST_F(ReadGateTest, APauseThatGrewIsWaitedFor) {
  const Pair pair = Open(1, 10);
  const uint64_t until_ns = MonotonicNs() + 3'600'000'000'000;
  gate_.Pause(Peer(1), until_ns);
  EXPECT_EQ(Reader::Read(pair.service.get()), "");
  gate_.Pause(Peer(1), until_ns + 5);

  EXPECT_EQ(Rearm(until_ns), 5u);
  EXPECT_EQ(reader_.Readable(), Marks({}));
  EXPECT_EQ(Rearm(until_ns + 5), std::nullopt);
  EXPECT_EQ(reader_.Readable(), Marks({1}));
}

TEST_F(ReadGateTest, WhatIsDueForAClosedDescriptorDoesNotTouchTheNextOfItsNumber) {
  Pair closed = Open(1, 10);
  const Pair other = Connect();
  const int number = closed.service.get();
  const uint64_t until_ns = MonotonicNs() + 3'600'000'000'000;
  gate_.Pause(Peer(1), until_ns);
  EXPECT_EQ(Reader::Read(number), "");
  closed.service.Reset();
  EXPECT_EQ(gate_.open(), 0u);
  const UniqueFd reused(dup2(other.service.get(), number));
  gate_.Admit(reused.get(), Peer(2));
  reader_.Register(reused.get(), 2);
  Send(other, 10);
  ASSERT_EQ(reader_.Readable(), Marks({2}));

  EXPECT_EQ(Rearm(until_ns), std::nullopt);

  EXPECT_EQ(reader_.Readable(), Marks({})) << "nobody asked for it again";
  EXPECT_EQ(Reader::Read(reused.get()).size(), 10u);
  EXPECT_FALSE(gate_.Pause(Peer(1), until_ns)) << "that one is closed";
}

TEST_F(ReadGateTest, WhoLeavesWhileItIsPausedIsEndedWithWhatItSent) {
  Pair pair = Open(1, 10);
  const uint64_t until_ns = MonotonicNs() + 3'600'000'000'000;
  gate_.Pause(Peer(1), until_ns);
  EXPECT_EQ(Reader::Read(pair.service.get()), "");
  pair.client.Reset();

  Rearm(until_ns);

  EXPECT_EQ(reader_.Readable(), Marks({1}));
  EXPECT_EQ(Reader::Read(pair.service.get()), "");
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(gate_.ended(), 0u) << "it went by itself";
}

TEST_F(ReadGateTest, OnePausedBeyondTheLimitIsEnded) {
  const uint64_t until_ns = MonotonicNs() + 3'600'000'000'000;
  std::vector<Pair> pairs;
  for (uint16_t port = 1; port <= kPausedMax + 1; ++port) {
    pairs.push_back(Open(port, 1));
    gate_.Pause(Peer(port), until_ns);
  }
  for (size_t i = 0; i < kPausedMax; ++i) {
    EXPECT_EQ(Reader::Read(pairs[i].service.get()), "");
    EXPECT_EQ(errno, EAGAIN);
  }
  EXPECT_EQ(gate_.ended(), 0u);

  EXPECT_EQ(Reader::Read(pairs.back().service.get()), "");

  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(gate_.ended(), 1u);
  EXPECT_EQ(Reader::Read(pairs.front().service.get()), "");
  EXPECT_EQ(errno, EAGAIN);
}

TEST_F(ReadGateTest, OneThatIsPausedAgainAndAgainWithoutUseIsEnded) {
  const Pair pair = Open(1, 1);
  uint64_t until_ns = MonotonicNs() + 3'600'000'000'000;
  const auto pause = [&] {
    gate_.Pause(Peer(1), ++until_ns);
    const std::string read = Reader::Read(pair.service.get());
    const int error = errno;
    Rearm(until_ns);
    return read.empty() ? error : 0;
  };
  for (uint32_t i = 0; i < kPausesMax; ++i) ASSERT_EQ(pause(), EAGAIN);
  gate_.Raise(Peer(1), ReadGate::Standing::kUseful);
  for (uint32_t i = 0; i < kPausesMax; ++i) ASSERT_EQ(pause(), EAGAIN);
  EXPECT_EQ(gate_.ended(), 0u);

  EXPECT_EQ(pause(), EAGAIN);

  EXPECT_EQ(gate_.ended(), 1u);
  EXPECT_EQ(Reader::Read(pair.service.get()), "");
  EXPECT_EQ(errno, ECONNRESET);
}

TEST_F(ReadGateTest, WhenPausesAreOverEverybodyIsReported) {
  const Pair waiting = Open(1, 10);
  const Pair paused = Open(2, 10);
  gate_.Pause(Peer(1), UINT64_MAX);
  gate_.Pause(Peer(2), UINT64_MAX);
  ASSERT_EQ(reader_.Readable().size(), 2u);
  EXPECT_EQ(Reader::Read(waiting.service.get()), "");

  gate_.EndPauses();

  EXPECT_EQ(reader_.Readable(), Marks({1}));
  EXPECT_EQ(Reader::Read(waiting.service.get()).size(), 10u);
  EXPECT_EQ(Reader::Read(paused.service.get()).size(), 10u);
  EXPECT_FALSE(gate_.Pause(Peer(1), UINT64_MAX));
}

TEST_F(ReadGateTest, AConnectionOutlivesItsGate) {
  auto gate = std::make_unique<ReadGate>([] {});
  const Pair pair = Connect();
  gate->Admit(pair.service.get(), Peer(1));
  reader_.Register(pair.service.get(), 1);
  Send(pair, 2 * kStrangerShareMax);
  ASSERT_EQ(reader_.Readable(), Marks({1}));
  gate->Pause(Peer(1), UINT64_MAX);
  EXPECT_EQ(Reader::Read(pair.service.get()), "");

  gate.reset();

  EXPECT_EQ(reader_.Readable(), Marks({1}));
  EXPECT_EQ(Reader::Read(pair.service.get()).size(), 2 * kStrangerShareMax);
}

TEST_F(ReadGateTest, ConnectionsWithoutAPeerHaveTurnsAndNoPauses) {
  const Pair pair = Connect();
  gate_.Admit(pair.service.get(), std::nullopt);
  EXPECT_FALSE(gate_.any_to_raise());
  EXPECT_EQ(gate_.open(), 1u);
}

// Everything at once: connections that come and go, that are paused and proven by one thread, and
// read by another as gRPC would, while their clients send. Whatever a client has sent and not left
// behind arrives: a connection that was forgotten would hang this test.
TEST_F(ReadGateTest, NoConnectionIsForgotten) {
  constexpr size_t kConnections = 8;
  constexpr int kRounds = 10;
  constexpr size_t kBytes = 64 << 10;
  std::atomic<bool> stop{false};
  std::thread disturber([&] {
    std::mt19937 random(1);
    while (!stop) {
      const TcpPeer peer = Peer(static_cast<uint16_t>(1 + random() % kConnections));
      if (random() % 4 == 0) gate_.Raise(peer, ReadGate::Standing::kUseful);
      gate_.Pause(peer, MonotonicNs() + random() % 400'000);
      SleepNs(50'000);
      Rearm(MonotonicNs());
    }
  });
  for (int round = 0; round < kRounds; ++round) {
    std::map<uint64_t, Pair> pairs;
    std::map<uint64_t, size_t> left;
    for (uint16_t port = 1; port <= kConnections; ++port) {
      pairs.emplace(port, Open(port));
      left[port] = kBytes;
    }
    std::thread sender([&] {
      std::map<uint64_t, size_t> unsent;
      for (const auto& one : pairs) unsent[one.first] = kBytes;
      while (!unsent.empty()) {
        for (auto one = unsent.begin(); one != unsent.end();) {
          const std::string bytes(std::min<size_t>(one->second, 1000), 'x');
          const ssize_t sent =
              send(pairs.at(one->first).client.get(), bytes.data(), bytes.size(), 0);
          if (sent > 0) one->second -= static_cast<size_t>(sent);
          one = one->second == 0 ? unsent.erase(one) : std::next(one);
        }
        SleepNs(10'000);
      }
    });
    while (!left.empty()) {
      for (const uint64_t port : reader_.Readable(60'000)) {
        const size_t got = Reader::Read(pairs.at(port).service.get()).size();
        if (got > 0 && (left.at(port) -= got) == 0) left.erase(port);
      }
    }
    sender.join();
  }
  stop = true;
  disturber.join();
}

}  // namespace
}  // namespace statehouse
