#include "service/keeper/keeper.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "service/keeper/descriptor_message.h"
#include "service/keeper/inheritance.h"
#include "service/keeper/keeper_link.h"
#include "service/keeper/keeper_log.h"
#include "service/keeper/notify.h"

namespace statehouse {
namespace {

ino_t InodeOf(int fd) {
  struct stat facts {};
  EXPECT_EQ(fstat(fd, &facts), 0);
  return facts.st_ino;
}

UniqueFd NewMemory() { return UniqueFd(memfd_create("keeper-test", MFD_CLOEXEC)); }

struct Pair {
  UniqueFd one;
  UniqueFd two;
};
Pair NewPair() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

TEST(RespawnBackoffTest, TheFirstDeathIsFreeAndQuickOnesGrowToTheLimit) {
  RespawnBackoff backoff;
  EXPECT_EQ(backoff.DelayMsAfter({.ran_ms = 60'000}), 0u);
  EXPECT_EQ(backoff.DelayMsAfter({.ran_ms = 10}), 100u);
  EXPECT_EQ(backoff.DelayMsAfter({.ran_ms = 10}), 200u);
  EXPECT_EQ(backoff.DelayMsAfter({.ran_ms = 10}), 400u);
  for (int i = 0; i < 20; ++i) backoff.DelayMsAfter({.ran_ms = 10});
  EXPECT_EQ(backoff.DelayMsAfter({.ran_ms = 10}), 5'000u);
  EXPECT_EQ(backoff.DelayMsAfter({.ran_ms = 5'000}), 0u);
  EXPECT_EQ(backoff.DelayMsAfter({.ran_ms = 10}), 100u);
}

TEST(RespawnBackoffTest, ADaemonThatWasKilledWhileServingComesBackAtOnceHoweverOften) {
  RespawnBackoff backoff;
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(backoff.DelayMsAfter({.ran_ms = 10, .was_killed_while_serving = true}), 0u);
  }
  EXPECT_EQ(backoff.DelayMsAfter({.ran_ms = 10}), 0u);
  EXPECT_EQ(backoff.DelayMsAfter({.ran_ms = 10}), 100u);
}

TEST(DescriptorMessageTest, BytesAndDescriptorsArriveTogether) {
  const Pair pair = NewPair();
  const UniqueFd memory = NewMemory();
  const int sent[] = {memory.get()};
  ASSERT_EQ(SendMessage(pair.one.get(), "hello", sent), SendResult::kSent);
  std::array<char, 64> buffer;

  const ReceivedMessage received = ReceiveMessage(pair.two.get(), buffer);

  ASSERT_EQ(received.kind, ReceivedMessage::Kind::kMessage);
  EXPECT_EQ(std::string(buffer.data(), received.bytes), "hello");
  ASSERT_EQ(received.descriptors.size(), 1u);
  EXPECT_EQ(InodeOf(received.descriptors[0].get()), InodeOf(memory.get()));
  EXPECT_NE(fcntl(received.descriptors[0].get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(DescriptorMessageTest, EmptinessClosureAndTruncationAreToldApart) {
  Pair pair = NewPair();
  std::array<char, 4> small;
  EXPECT_EQ(ReceiveMessage(pair.two.get(), small).kind, ReceivedMessage::Kind::kNothing);

  ASSERT_EQ(SendMessage(pair.one.get(), "too long", {}), SendResult::kSent);
  EXPECT_TRUE(ReceiveMessage(pair.two.get(), small).truncated);

  pair.one.Reset();
  EXPECT_EQ(ReceiveMessage(pair.two.get(), small).kind, ReceivedMessage::Kind::kClosed);
  EXPECT_EQ(SendMessage(pair.two.get(), "x", {}), SendResult::kClosed);
}

TEST(InheritanceTest, NamesAreJoinedWithinTheLimitOfOneString) {
  const std::vector<std::string> names = {"aaaa", "bbbb", "cccc"};

  EXPECT_EQ(JoinNames(names, 100), (std::vector<std::string>{"aaaa:bbbb:cccc"}));
  EXPECT_EQ(JoinNames(names, 9), (std::vector<std::string>{"aaaa:bbbb", "cccc"}));
  EXPECT_EQ(JoinNames(names, 8), names);
  EXPECT_TRUE(JoinNames({}, 100).empty());
}

// In a child, because both halves rearrange descriptors and the environment of the whole process.
TEST(InheritanceTest, WhatIsBequeathedIsTakenUnderItsName) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::map<std::string, UniqueFd> descriptors;
    std::map<std::string, ino_t> inodes;
    // More than one environment string holds, so that the names go on in the next one.
    for (int i = 0; i < 400; ++i) {
      const std::string name = "area." + std::string(200, 'x') + std::to_string(i);
      descriptors[name] = NewMemory();
      inodes[name] = InodeOf(descriptors[name].get());
    }
    const Pair pair = NewPair();
    const ino_t socket = InodeOf(pair.one.get());
    if (!BequeathDescriptors(descriptors, pair.one.get()).ok()) _exit(1);
    for (auto& [name, fd] : descriptors)
      fd.Release();  // Overwritten or copied: an exec would close them.
    auto taken = TakeInheritance();
    if (!taken.ok() || taken->descriptors.size() != inodes.size()) _exit(2);
    for (const auto& [name, fd] : taken->descriptors) {
      if (InodeOf(fd.get()) != inodes[name]) _exit(3);
      if ((fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) == 0) _exit(4);
    }
    if (!taken->keeper_socket.valid() || InodeOf(taken->keeper_socket.get()) != socket) _exit(5);
    const bool cleared = getenv("LISTEN_FDS") == nullptr && getenv("LISTEN_FDNAMES_1") == nullptr;
    _exit(cleared ? 0 : 6);
  }
  int state = 0;
  ASSERT_EQ(waitpid(child, &state, 0), child);
  EXPECT_EQ(state, 0) << "exit code " << WEXITSTATUS(state);
}

TEST(InheritanceTest, VariablesForAnotherProcessAreIgnored) {
  setenv("LISTEN_PID", "1", 1);
  setenv("LISTEN_FDS", "2", 1);

  const auto taken = TakeInheritance();

  ASSERT_TRUE(taken.ok());
  EXPECT_TRUE(taken->descriptors.empty());
  EXPECT_EQ(getenv("LISTEN_FDS"), nullptr);
}

TEST(InheritanceTest, ANumberThatIsNoneIsRefused) {
  setenv("LISTEN_FDS", "many", 1);

  EXPECT_EQ(TakeInheritance().status().reason(), Reason::kConfigInvalid);

  unsetenv("LISTEN_FDS");
}

// Plays systemd: takes what a KeeperLink sends to $NOTIFY_SOCKET, and answers barriers.
class FakeManager final {
 public:
  FakeManager() {
    folder_ = "/tmp/statehouse-keeper-test-XXXXXX";
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    path_ = folder_ + "/notify";
    socket_.Reset(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    thread_ = std::thread([this] { Serve(); });
  }
  ~FakeManager() {
    stop_ = true;
    thread_.join();
    unlink(path_.c_str());
    rmdir(folder_.c_str());
  }
  const std::string& path() const { return path_; }
  // REQUIRES: a barrier came after what is asked about.
  ino_t Stored(const std::string& name) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return stored_.at(name);
  }
  std::vector<std::string> Removed() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return removed_;
  }

 private:
  void Serve() {
    std::array<char, kNotifyBytesMax> buffer;
    while (!stop_) {
      pollfd readable{socket_.get(), POLLIN, 0};
      if (poll(&readable, 1, 10) <= 0) continue;
      const ReceivedMessage received = ReceiveMessage(socket_.get(), buffer);
      const auto message = ParseNotify(std::string_view(buffer.data(), received.bytes));
      if (!message.ok()) continue;
      const std::lock_guard<std::mutex> lock(mutex_);
      if (message->store) stored_[message->name] = InodeOf(received.descriptors.at(0).get());
      if (message->remove) removed_.push_back(message->name);
      if (message->remove) stored_.erase(message->name);
    }
  }
  std::string folder_;
  std::string path_;
  UniqueFd socket_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::map<std::string, ino_t> stored_;
  std::vector<std::string> removed_;
  std::thread thread_;
};

TEST(KeeperLinkTest, AServiceManagerGetsEachDescriptorBeforeStoreReturns) {
  FakeManager manager;
  Inheritance inheritance;
  inheritance.notify_socket = manager.path();
  auto link = KeeperLink::Connect({}, &inheritance);
  ASSERT_TRUE(link.ok()) << link.status().ToString();
  const UniqueFd first = NewMemory();
  const UniqueFd second = NewMemory();

  ASSERT_TRUE((*link)->Store("catalogue", first.get()).ok());
  EXPECT_EQ(manager.Stored("catalogue"), InodeOf(first.get()));
  ASSERT_TRUE((*link)->Store("catalogue", second.get()).ok());

  // An older one of the same name goes first: systemd would keep both.
  EXPECT_EQ(manager.Removed(), (std::vector<std::string>{"catalogue"}));
  EXPECT_EQ(manager.Stored("catalogue"), InodeOf(second.get()));
  EXPECT_EQ((*link)->kind(), KeeperLink::Kind::kServiceManager);
  EXPECT_EQ((*link)->keeper_pid(), 0);
}

TEST(KeeperLinkTest, WithoutAnyKeeperStoringSucceedsAndSaysThatNothingSurvives) {
  Inheritance inheritance;
  auto link = KeeperLink::Connect({}, &inheritance);
  ASSERT_TRUE(link.ok());
  const UniqueFd memory = NewMemory();

  EXPECT_TRUE((*link)->Store("catalogue", memory.get()).ok());
  EXPECT_TRUE((*link)->Remove("catalogue").ok());
  EXPECT_FALSE((*link)->survives_daemon());
}

TEST(KeeperLinkTest, ANameThatTheProtocolCannotCarryIsRefused) {
  FakeManager manager;
  Inheritance inheritance;
  inheritance.notify_socket = manager.path();
  auto link = KeeperLink::Connect({}, &inheritance);
  ASSERT_TRUE(link.ok());

  EXPECT_EQ((*link)->Store("a:b", STDIN_FILENO).reason(), Reason::kInvalidArgument);
}

TEST(KeeperLogTest, JsonTextsAreEscaped) {
  EXPECT_EQ(JsonEscape("a\"b\\c\nd\x01"), "a\\\"b\\\\c\\nd\\u0001");
}

}  // namespace
}  // namespace statehouse
