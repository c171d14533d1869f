// The proxy itself: bytes go through in order, and each of its faults is what it says.
#include "tests/support/fault_proxy.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <mutex>

#include "engine/os/futex.h"
#include "tests/support/daemon.h"
#include "tests/support/http2.h"

namespace statehouse::testing {
namespace {

using Direction = FaultProxy::Direction;

constexpr int kPatienceMs = 20'000;

UniqueFd UnixSocket(const std::string& path, bool listens) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto* const any = reinterpret_cast<const sockaddr*>(&address);
  const bool fine = listens ? bind(fd.get(), any, sizeof(address)) == 0 && listen(fd.get(), 16) == 0
                            : connect(fd.get(), any, sizeof(address)) == 0;
  EXPECT_TRUE(fine) << path;
  return fd;
}

// Sends back what it is sent, and remembers it; a connection after the other.
class Echo final {
 public:
  explicit Echo(const std::string& path) : listener_(UnixSocket(path, true)) {
    thread_ = std::thread([this] { Run(); });
  }
  ~Echo() {
    shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  Echo(const Echo&) = delete;
  Echo& operator=(const Echo&) = delete;

  std::string received() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return received_;
  }

 private:
  void Run() {
    for (;;) {
      const UniqueFd connection(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!connection.valid()) return;
      char buffer[4096];
      for (ssize_t got; (got = read(connection.get(), buffer, sizeof(buffer))) > 0;) {
        const auto bytes = static_cast<size_t>(got);
        {
          const std::lock_guard<std::mutex> lock(mutex_);
          received_.append(buffer, bytes);
        }
        if (send(connection.get(), buffer, bytes, MSG_NOSIGNAL) != got) break;
      }
    }
  }

  const UniqueFd listener_;
  mutable std::mutex mutex_;
  std::string received_;
  std::thread thread_;
};

class FaultProxyTest : public ::testing::Test {
 protected:
  FaultProxyTest() : echo_(folder_.path() + "/echo.sock") {}

  FaultProxy::Options Options() const {
    FaultProxy::Options options;
    options.target = folder_.path() + "/echo.sock";
    options.life_ms_max = 0;
    return options;
  }
  static std::unique_ptr<FaultProxy> Start(FaultProxy::Options options) {
    auto proxy = FaultProxy::Start(std::move(options));
    EXPECT_TRUE(proxy.ok()) << proxy.status().ToString();
    return *std::move(proxy);
  }
  static bool IsReadable(int fd, int ms) {
    pollfd ready{fd, POLLIN, 0};
    return poll(&ready, 1, ms) == 1;
  }
  // So many bytes, or those before the end.
  static std::string ReadBytes(int fd, size_t count) {
    std::string bytes;
    while (bytes.size() < count && IsReadable(fd, kPatienceMs)) {
      char buffer[4096];
      const ssize_t got = read(fd, buffer, std::min(sizeof(buffer), count - bytes.size()));
      if (got <= 0) break;
      bytes.append(buffer, static_cast<size_t>(got));
    }
    return bytes;
  }

  TemporaryFolder folder_;
  Echo echo_;
};

TEST_F(FaultProxyTest, BytesGoThroughInOrderOverTcpAndUnixSockets) {
  std::string text;
  for (int i = 0; i < 50'000; ++i) text += std::to_string(i) + " ";
  const auto tcp = Start(Options());
  FaultProxy::Options at_path = Options();
  at_path.listen_path = folder_.path() + "/proxy.sock";
  auto local = Start(at_path);
  ASSERT_EQ(local->address(), at_path.listen_path);
  for (const bool over_tcp : {true, false}) {
    const auto connection = over_tcp ? std::make_unique<Http2Connection>(tcp->address()) : nullptr;
    const UniqueFd socket = over_tcp ? UniqueFd() : UnixSocket(local->address(), false);
    const int fd = over_tcp ? connection->fd() : socket.get();
    std::thread writer([&] {
      for (size_t at = 0; at < text.size();) {
        const ssize_t sent = send(fd, text.data() + at, text.size() - at, MSG_NOSIGNAL);
        ASSERT_GT(sent, 0);
        at += static_cast<size_t>(sent);
      }
    });
    EXPECT_TRUE(ReadBytes(fd, text.size()) == text);
    writer.join();
  }
  local.reset();
  EXPECT_NE(access(at_path.listen_path.c_str(), F_OK), 0);
}

TEST_F(FaultProxyTest, EveryConnectionIsCutUntilItStops) {
  FaultProxy::Options options = Options();
  options.life_ms_max = 5;
  const auto proxy = Start(options);
  for (int i = 0; i < 10; ++i) {
    const Http2Connection connection(proxy->address());
    ASSERT_TRUE(connection.valid());
    EXPECT_EQ(ReadBytes(connection.fd(), 1), "");
  }
  EXPECT_EQ(proxy->cuts(), 10u);

  proxy->StopCutting();
  Http2Connection connection(proxy->address());
  ASSERT_TRUE(connection.Send("x"));
  EXPECT_EQ(ReadBytes(connection.fd(), 1), "x");
  EXPECT_FALSE(IsReadable(connection.fd(), 20));
}

TEST_F(FaultProxyTest, ALostReplysRequestWentThroughAndTheSeedSaysWhichOne) {
  std::vector<int> lost_at;
  for (const uint32_t seed : {1u, 1u, 2u, 3u}) {
    FaultProxy::Options options = Options();
    options.reply_loss = 0.05;
    options.seed = seed;
    const auto proxy = Start(options);
    const size_t before = echo_.received().size();
    Http2Connection connection(proxy->address());
    int sent = 0;
    for (bool answered = true; answered;) {
      ASSERT_TRUE(connection.Send("x"));
      ++sent;
      answered = ReadBytes(connection.fd(), 1) == "x";
    }
    EXPECT_EQ(proxy->lost_replies(), 1u);
    EXPECT_EQ(echo_.received().size() - before, static_cast<size_t>(sent));
    lost_at.push_back(sent);
  }
  EXPECT_EQ(lost_at[0], lost_at[1]);
  EXPECT_TRUE(lost_at[0] != lost_at[2] || lost_at[2] != lost_at[3]);
}

TEST_F(FaultProxyTest, BytesWaitForTheirDelayInEachDirection) {
  FaultProxy::Options options = Options();
  options.delay_ms = 30;
  const auto proxy = Start(options);
  Http2Connection connection(proxy->address());
  const uint64_t begin = MonotonicNs();

  ASSERT_TRUE(connection.Send("x"));
  EXPECT_EQ(ReadBytes(connection.fd(), 1), "x");

  EXPECT_GE(MonotonicNs() - begin, 60'000'000u);
}

TEST_F(FaultProxyTest, AThrottledConnectionCarriesNoMoreThanItsRate) {
  constexpr uint64_t kRate = 200'000;
  FaultProxy::Options options = Options();
  options.bytes_per_second = kRate;
  const auto proxy = Start(options);
  Http2Connection connection(proxy->address());
  const std::string text(kRate / 5, 'x');
  const uint64_t begin = MonotonicNs();

  ASSERT_TRUE(connection.Send(text));
  EXPECT_EQ(ReadBytes(connection.fd(), text.size()), text);

  // Its last step need not have passed.
  EXPECT_GE(MonotonicNs() - begin, 170'000'000u);
}

TEST_F(FaultProxyTest, AStalledDirectionHoldsItsBytesAndTheOtherOneGoesOn) {
  const auto proxy = Start(Options());
  Http2Connection connection(proxy->address());
  ASSERT_TRUE(connection.Send("a"));
  ASSERT_EQ(ReadBytes(connection.fd(), 1), "a");

  proxy->Stall(Direction::kDown);
  ASSERT_TRUE(connection.Send("b"));
  EXPECT_TRUE(Eventually([&] { return echo_.received() == "ab"; }));
  EXPECT_FALSE(IsReadable(connection.fd(), 30));
  proxy->Resume(Direction::kDown);
  EXPECT_EQ(ReadBytes(connection.fd(), 1), "b");

  proxy->Stall(Direction::kUp);
  ASSERT_TRUE(connection.Send("c"));
  EXPECT_FALSE(IsReadable(connection.fd(), 30));
  EXPECT_EQ(echo_.received(), "ab");
  proxy->Resume(Direction::kUp);
  EXPECT_EQ(ReadBytes(connection.fd(), 1), "c");
}

}  // namespace
}  // namespace statehouse::testing
