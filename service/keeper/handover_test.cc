// When something goes wrong between keeper and daemon: no descriptor left, both killed.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "engine/os/process.h"
#include "service/exit_codes.h"
#include "service/keeper/descriptor_message.h"
#include "service/keeper/keeper.h"
#include "service/keeper/keeper_link.h"
#include "service/keeper/notify.h"

namespace statehouse {
namespace {

using ::testing::HasSubstr;

constexpr int kPatienceMs = 60'000;
constexpr uid_t kNobody = 65'534;
constexpr rlim_t kInFlightMax = 32;  // RLIMIT_NOFILE is also the limit of descriptors in flight.

UniqueFd NewMemory() { return UniqueFd(memfd_create("handover-test", MFD_CLOEXEC)); }

struct Pair {
  UniqueFd one;
  UniqueFd two;
};
Pair NewPair() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

int WaitFor(pid_t pid) {
  int state = -1;
  EXPECT_EQ(waitpid(pid, &state, 0), pid);
  return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
}

// Plays a keeper that does with a barrier's descriptor what the test says.
class FakeKeeper final {
 public:
  using OnBarrier = std::function<void(UniqueFd)>;
  FakeKeeper(UniqueFd socket, OnBarrier on_barrier)
      : socket_(std::move(socket)), on_barrier_(std::move(on_barrier)) {
    thread_ = std::thread([this] { Serve(); });
  }
  ~FakeKeeper() { thread_.join(); }  // Ends when the link has gone.

 private:
  void Serve() {
    std::array<char, kNotifyBytesMax> buffer;
    for (;;) {
      pollfd readable{socket_.get(), POLLIN, 0};
      if (poll(&readable, 1, kPatienceMs) <= 0) return;
      ReceivedMessage received = ReceiveMessage(socket_.get(), buffer);
      if (received.kind == ReceivedMessage::Kind::kNothing) continue;
      if (received.kind != ReceivedMessage::Kind::kMessage) return;
      const auto message = ParseNotify(std::string_view(buffer.data(), received.bytes));
      if (!message.ok() || !message->barrier) continue;
      on_barrier_(std::move(received.descriptors.at(0)));
    }
  }
  UniqueFd socket_;
  const OnBarrier on_barrier_;
  std::thread thread_;
};

std::unique_ptr<KeeperLink> LinkTo(UniqueFd socket, KeeperLinkOptions options = {}) {
  Inheritance inheritance;
  inheritance.keeper_socket = std::move(socket);
  auto link = KeeperLink::Connect(std::move(options), &inheritance);
  EXPECT_TRUE(link.ok()) << link.status().ToString();
  return link.ok() ? *std::move(link) : nullptr;
}

FakeKeeper::OnBarrier Saying(std::string answer) {
  return [answer](UniqueFd barrier) {
    EXPECT_EQ(write(barrier.get(), answer.data(), answer.size()),
              static_cast<ssize_t>(answer.size()));
  };
}

TEST(BarrierTest, OnlyTheByteOfSuccessIsSuccess) {
  struct Row {
    std::string answer;
    Reason reason;
  };
  const Row rows[] = {
      {"K", Reason::kOk},
      {"E", Reason::kMemoryExhausted},
      {"", Reason::kMemoryExhausted},  // The keeper never got the descriptor to answer with.
      {"x", Reason::kMemoryExhausted},
  };
  for (const Row& row : rows) {
    Pair pair = NewPair();
    const FakeKeeper keeper(std::move(pair.one), Saying(row.answer));
    const auto link = LinkTo(std::move(pair.two));
    ASSERT_NE(link, nullptr);
    const UniqueFd memory = NewMemory();

    const Status stored = link->Store("area.1", memory.get());

    EXPECT_EQ(stored.reason(), row.reason) << "\"" << row.answer << "\": " << stored.ToString();
    EXPECT_THAT(stored.message(), HasSubstr(stored.ok() ? "" : "LimitNOFILE"));
  }
}

// Runs `test` in a child that the limit of descriptors in flight binds: it is not root.
int RunUnprivileged(const std::function<int()>& test) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit limit{kInFlightMax, kInFlightMax};
    if (getuid() == 0 && setresuid(kNobody, kNobody, kNobody) != 0) _exit(101);
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) _exit(102);
    _exit(test());
  }
  return WaitFor(child);
}

bool Saturate(int socket) {
  const std::array<int, 4> some = {0, 0, 0, 0};
  for (int i = 0; i < 10'000; ++i) {
    const SendResult result = SendMessage(socket, "x", some);
    if (result != SendResult::kSent) return result == SendResult::kBusy;
  }
  return false;
}

TEST(SendTest, AKernelThatTakesNoDescriptorIsAnErrorThatSaysWhatToDo) {
  const int code = RunUnprivileged([] {
    const Pair other = NewPair();
    Pair pair = NewPair();
    KeeperLinkOptions options;
    options.send_timeout = std::chrono::milliseconds(30);
    const auto link = LinkTo(std::move(pair.two), options);
    if (link == nullptr || !Saturate(other.one.get())) return 1;

    const Status stored = link->Store("area.1", STDIN_FILENO);

    if (stored.reason() != Reason::kLimitExceeded) return 2;
    return stored.message().find("LimitNOFILE") != std::string::npos ? 0 : 3;
  });

  EXPECT_EQ(code, 0);
}

TEST(SendTest, AStoreGoesOnWhenTheKernelTakesDescriptorsAgain) {
  const int code = RunUnprivileged([] {
    Pair other = NewPair();
    Pair pair = NewPair();
    const FakeKeeper keeper(std::move(pair.one), Saying("K"));
    KeeperLinkOptions options;
    options.send_timeout = std::chrono::milliseconds(kPatienceMs);
    const auto link = LinkTo(std::move(pair.two), options);
    if (link == nullptr || !Saturate(other.one.get())) return 1;
    std::thread reader([&] { other = NewPair(); });  // What was in flight is closed.

    const Status stored = link->Store("area.1", STDIN_FILENO);

    reader.join();
    return stored.ok() ? 0 : 2;
  });

  EXPECT_EQ(code, 0);
}

// A keeper that adopted a daemon, which the test plays: a process that does nothing and a socket.
class AdoptingKeeperTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
    daemon_ = fork();
    ASSERT_GE(daemon_, 0);
    if (daemon_ == 0) {
      for (;;) pause();
    }
    auto pidfd = OpenPidfd(daemon_);
    ASSERT_TRUE(pidfd.ok()) << pidfd.status().ToString();
    pidfd_ = *std::move(pidfd);
    Pair pair = NewPair();
    keeper_ = fork();
    ASSERT_GE(keeper_, 0);
    if (keeper_ == 0) _exit(BeKeeper(std::move(pair.one), std::move(pair.two)));
    socket_ = std::move(pair.two);
  }
  void TearDown() override {
    if (daemon_ > 0) KillDaemon();
    for (const char* name : {"/errors", "/names"}) unlink((folder_ + name).c_str());
    rmdir(folder_.c_str());
  }
  // Writes to <folder>/errors; the daemon that it starts writes what it got to <folder>/names.
  int BeKeeper(UniqueFd keeper_end, UniqueFd daemon_end) {
    if (freopen((folder_ + "/errors").c_str(), "w", stderr) == nullptr) return 100;
    KeeperOptions options;
    options.program = "/bin/sh";
    options.daemon_argv = {"sh", "-c", "echo \"$LISTEN_FDNAMES\" >" + folder_ + "/names"};
    options.adopted.pid = daemon_;
    options.adopted.pidfd = std::move(pidfd_);
    options.adopted.keeper_end = std::move(keeper_end);
    options.adopted.daemon_end = std::move(daemon_end);
    return RunKeeper(std::move(options));
  }
  void Store(const std::string& name) {
    const UniqueFd memory = NewMemory();
    const int sent[] = {memory.get()};
    ASSERT_EQ(SendMessage(socket_.get(), StoreText(name), sent), SendResult::kSent);
  }
  void Say(const std::string& text) {
    ASSERT_EQ(SendMessage(socket_.get(), text, {}), SendResult::kSent);
  }
  void KillDaemon() {
    ASSERT_EQ(kill(daemon_, SIGKILL), 0);
    EXPECT_EQ(WaitFor(std::exchange(daemon_, 0)), 128 + SIGKILL);
  }
  std::string Written(const std::string& name) const {
    std::ifstream file(folder_ + "/" + name);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }

  std::string folder_ = "/tmp/statehouse-handover-XXXXXX";
  pid_t daemon_ = 0;
  pid_t keeper_ = 0;
  UniqueFd pidfd_;
  UniqueFd socket_;
};

TEST_F(AdoptingKeeperTest, ADaemonKilledInTheHandoverLosesTheStateAndTheKeeperSaysSo) {
  ASSERT_NO_FATAL_FAILURE(Store("catalogue"));
  ASSERT_NO_FATAL_FAILURE(Store("area.1"));  // Perhaps there was an area.2 to come.

  KillDaemon();

  EXPECT_EQ(WaitFor(keeper_), kExitStateLost);
  EXPECT_THAT(Written("errors"), HasSubstr("the state is lost"));
  EXPECT_EQ(Written("names"), "");  // No daemon was started over a part of the state.
}

// Its last barrier is one that nobody reads the answer of.
TEST_F(AdoptingKeeperTest, ADaemonKilledBeforeItReadTheAnswerDoesNotTakeTheKeeperWithIt) {
  ASSERT_NO_FATAL_FAILURE(Store("catalogue"));
  int ends[2] = {-1, -1};
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const int barrier[] = {ends[1]};
  close(ends[0]);
  ASSERT_EQ(SendMessage(socket_.get(), "BARRIER=1", barrier), SendResult::kSent);
  close(ends[1]);
  ASSERT_NO_FATAL_FAILURE(Say(CompleteText()));

  KillDaemon();

  EXPECT_EQ(WaitFor(keeper_), kExitOk) << Written("errors");
  EXPECT_EQ(Written("names"), "catalogue\n");
}

TEST_F(AdoptingKeeperTest, ADaemonKilledAfterTheHandoverIsReplacedWithEverything) {
  ASSERT_NO_FATAL_FAILURE(Store("catalogue"));
  ASSERT_NO_FATAL_FAILURE(Store("area.1"));
  ASSERT_NO_FATAL_FAILURE(Say(CompleteText()));  // It never said that it was ready.

  KillDaemon();

  EXPECT_EQ(WaitFor(keeper_), kExitOk) << Written("errors");
  EXPECT_EQ(Written("names"), "area.1:catalogue\n");
}

}  // namespace
}  // namespace statehouse
