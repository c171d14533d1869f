#include "service/http/http_door.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace statehouse {
namespace {

constexpr int kPatienceMs = 60'000;

class HttpDoorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    address_.sin_family = AF_INET;
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof(address_)),
              0);
    ASSERT_EQ(listen(listener.get(), 512), 0);
    socklen_t length = sizeof(address_);
    ASSERT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address_), &length), 0);
    auto door = StartHttpDoor(std::move(listener), [] { return std::string("metric 1\n"); });
    ASSERT_TRUE(door.ok()) << door.status().ToString();
    door_ = *std::move(door);
  }
  UniqueFd Connect() {
    UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof(address_)), 0);
    return fd;
  }
  // Everything until the door closes, or until `enough` bytes.
  std::string Read(const UniqueFd& fd, size_t enough = SIZE_MAX) {
    std::string text;
    char buffer[1024];
    pollfd readable{fd.get(), POLLIN, 0};
    while (text.size() < enough && poll(&readable, 1, kPatienceMs) > 0) {
      const ssize_t bytes = read(fd.get(), buffer, sizeof(buffer));
      if (bytes <= 0) break;
      text.append(buffer, static_cast<size_t>(bytes));
    }
    return text;
  }
  void Write(const UniqueFd& fd, const std::string& text) {
    // A door that refuses early may close before all is sent.
    EXPECT_NE(send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), 0);
  }
  std::string Ask(const std::string& method, const std::string& path,
                  const std::string& more = "") {
    const UniqueFd fd = Connect();
    Write(fd,
          method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + more + "\r\n");
    return Read(fd);
  }

  sockaddr_in address_{};
  std::unique_ptr<HttpDoor> door_;
};

TEST_F(HttpDoorTest, MetricsAreTheScrapedText) {
  const std::string answer = Ask("GET", "/metrics");

  EXPECT_EQ(answer.substr(0, 15), "HTTP/1.1 200 OK");
  EXPECT_NE(answer.find("text/plain; version=0.0.4"), std::string::npos);
  EXPECT_NE(answer.find("\r\n\r\nmetric 1\n"), std::string::npos);
}

TEST_F(HttpDoorTest, ReadinessFollowsTheServiceAndLivenessDoesNot) {
  EXPECT_EQ(Ask("GET", "/readyz").substr(9, 3), "503");
  EXPECT_EQ(Ask("GET", "/healthz").substr(9, 3), "200");
  door_->SetReady(true);
  EXPECT_EQ(Ask("GET", "/readyz?verbose").substr(9, 3), "200");
  door_->SetReady(false);
  EXPECT_EQ(Ask("GET", "/readyz").substr(9, 3), "503");
}

TEST_F(HttpDoorTest, HeadHasTheLengthAndNoBody) {
  const std::string answer = Ask("HEAD", "/metrics");

  EXPECT_EQ(answer.substr(9, 3), "200");
  EXPECT_NE(answer.find("Content-Length: 9\r\n"), std::string::npos) << answer;
  EXPECT_EQ(answer.substr(answer.size() - 4), "\r\n\r\n");
}

TEST_F(HttpDoorTest, OtherPathsAndMethodsAreRefused) {
  EXPECT_EQ(Ask("GET", "/").substr(9, 3), "404");
  EXPECT_EQ(Ask("GET", "/metricsx").substr(9, 3), "404");
  const std::string post = Ask("POST", "/metrics", "Content-Length: 0\r\n");
  EXPECT_EQ(post.substr(9, 3), "405");
  EXPECT_NE(post.find("Allow: GET, HEAD"), std::string::npos);
}

TEST_F(HttpDoorTest, LargeAndMalformedRequestsAreRefusedAndTheDoorGoesOn) {
  EXPECT_EQ(
      Ask("GET", "/metrics", "X: " + std::string(kHttpRequestBytesMax, 'x') + "\r\n").substr(9, 3),
      "413");
  EXPECT_EQ(Ask("GET", "/metrics", "Content-Length: 5\r\n").substr(9, 1), "4");
  const UniqueFd fd = Connect();
  Write(fd, "\x16\x03\x01 this is no HTTP\r\n\r\n");
  EXPECT_EQ(Read(fd).substr(9, 3), "400");

  EXPECT_EQ(Ask("GET", "/healthz").substr(9, 3), "200");
}

TEST_F(HttpDoorTest, OneConnectionCarriesSeveralRequests) {
  const UniqueFd fd = Connect();
  for (int i = 0; i < 3; ++i) {
    Write(fd, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_NE(Read(fd, 20).find("200 OK"), std::string::npos);
  }
}

TEST_F(HttpDoorTest, MoreConnectionsThanTheLimitWaitForTheirTurn) {
  std::vector<UniqueFd> idle;
  for (size_t i = 0; i < kHttpConnectionsMax; ++i) idle.push_back(Connect());
  const UniqueFd waiting = Connect();
  Write(waiting, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

  idle.clear();

  EXPECT_NE(Read(waiting).find("200 OK"), std::string::npos);
}

TEST_F(HttpDoorTest, ShutdownEndsIdleConnections) {
  const UniqueFd fd = Connect();
  EXPECT_EQ(Ask("GET", "/healthz").substr(9, 3), "200");

  door_->Shutdown();

  EXPECT_EQ(Read(fd), "");
}

}  // namespace
}  // namespace statehouse
