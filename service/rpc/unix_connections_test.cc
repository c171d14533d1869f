// Connections by unix sockets: they are handed on after the first thing they say, so that those
// which carry only batches are known, and nobody is kept for long.
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "engine/os/futex.h"
#include "engine/os/unique_fd.h"
#include "service/http2/batch_client_test_support.h"
#include "service/rpc/acceptor.h"
#include "service/rpc/batch_connections.h"
#include "service/rpc/grpc_door_test_support.h"
#include "statehouse/v1/batch.pb.h"
#include "statehouse/v1/dict.pb.h"
#include "tests/support/http2.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr milliseconds kLong{15'000};

UniqueFd ConnectUnix(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

bool Say(const UniqueFd& fd, std::string_view bytes) {
  return send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes.size());
}

// Whether the other side closes it, in time.
bool IsClosed(const UniqueFd& fd) {
  pollfd closed{fd.get(), POLLRDHUP, 0};
  return poll(&closed, 1, static_cast<int>(kLong.count())) == 1;
}

// A client that says first that it carries only batches. Threads: one.
class Local final {
 public:
  explicit Local(const std::string& path) : fd_(ConnectUnix(path)) {}

  // Sends what there is and takes what comes until `is_done`. False: not in time.
  bool Until(const std::function<bool()>& is_done) {
    const auto until = steady_clock::now() + kLong;
    while (!is_done()) {
      if (steady_clock::now() > until || !Say(fd_, client.TakeOutput())) return false;
      char bytes[4096];
      pollfd readable{fd_.get(), POLLIN, 0};
      if (poll(&readable, 1, 10) != 1) continue;
      const ssize_t got = recv(fd_.get(), bytes, sizeof(bytes), 0);
      if (got <= 0) return is_done();
      client.Receive({bytes, static_cast<size_t>(got)});
    }
    return true;
  }
  // How often the last operation of a batch of increments has been done; -1: no answer.
  int64_t Increment(int32_t id, int count) {
    v1::RunBatchesRequest request;
    request.mutable_batch()->add_names("d");
    for (int i = 0; i < count; ++i) {
      request.mutable_batch()->add_operations()->mutable_increment()->set_key("n");
    }
    client.SendMessage(id, request.SerializeAsString());
    std::string message;
    v1::RunBatchesResponse response;
    if (!Until([&] { return client.At(id).Next(&message); }) ||
        !response.ParseFromString(message) || response.result().results().empty()) {
      return -1;
    }
    return response.result().results().rbegin()->increment().number();
  }

  BatchClient client;

 private:
  const UniqueFd fd_;
};

class UnixConnectionsTest : public GrpcDoorTest {
 protected:
  UnixConnectionsTest() : GrpcDoorTest(WithCount(&open_)) {
    v1::CreateDictRequest create;
    create.set_name("d");
    EXPECT_TRUE(
        service_->Call<v1::CreateDictResponse>("/statehouse.v1.Dicts/CreateDict", create).ok());
    service_->MakeArea("a", 64);
  }
  static GrpcDoorOptions WithCount(std::atomic<int>* open) {
    GrpcDoorOptions options;
    options.on_connection_open = [open](int change) { open->fetch_add(change); };
    return options;
  }
  // Begins a connection of gRPC's and calls once.
  std::string OneCall() const {
    return testing::Preface() + testing::UnaryCall(1, "/statehouse.v1.Areas/AddWord", token_,
                                                   Add("a").SerializeAsString());
  }

  std::atomic<int> open_{0};
};

TEST_F(UnixConnectionsTest, WhoSaysSoCarriesOnlyBatches) {
  Local local(UnixPath());
  const int32_t id = local.client.Open(BatchClient::Request(token_));
  EXPECT_EQ(local.Increment(id, 3), 3);
  const int32_t other =
      local.client.Open(BatchClient::Request(token_, {{":path", "/statehouse.v1.Areas/AddWord"}}));
  local.client.SendMessage(other, Add("a").SerializeAsString());
  local.client.Send(other, "", /*ends=*/true);

  ASSERT_TRUE(local.Until([&] { return local.client.At(other).is_closed; }));
  EXPECT_THAT(local.client.At(other).fields["grpc-message"], ::testing::HasSubstr("carries only"));
  EXPECT_EQ(local.Increment(id, 1), 4);
}

TEST_F(UnixConnectionsTest, AWrongTokenIsRefused) {
  Local local(UnixPath());
  const int32_t id = local.client.Open(BatchClient::Request("sh1_none"));

  ASSERT_TRUE(local.Until([&] { return local.client.At(id).is_closed; }));
  EXPECT_EQ(local.client.At(id).Code(), static_cast<int>(grpc::StatusCode::UNAUTHENTICATED));
}

TEST_F(UnixConnectionsTest, WhoSaysNothingIsGrpcsAfterAWhile) {
  const UniqueFd silent = ConnectUnix(UnixPath());
  ASSERT_TRUE(Eventually([this] { return open_.load() == 1; }));

  ASSERT_TRUE(Say(silent, OneCall()));
  char bytes[4096];
  EXPECT_GT(recv(silent.get(), bytes, sizeof(bytes), 0), 0);
}

TEST_F(UnixConnectionsTest, WhoLeavesWithoutAWordIsNeverHandedOn) {
  std::atomic<int> handed_on{0};
  const std::string path = folder_ + "/own.sock";
  AcceptorOptions options;
  options.connections_max = 10;
  options.waits_for_first_of_unix = true;
  std::vector<UniqueFd> listeners;
  listeners.push_back(ListenUnix(path));
  const auto acceptor =
      Acceptor::Start(std::move(listeners), options, [&](UniqueFd) { ++handed_on; }).value();
  { const UniqueFd gone = ConnectUnix(path); }
  const UniqueFd speaks = ConnectUnix(path);
  ASSERT_TRUE(Say(speaks, "x"));

  EXPECT_TRUE(Eventually([&] { return handed_on.load() == 1; }));
  EXPECT_TRUE(IsClosed(speaks));  // By the function above.
  EXPECT_EQ(handed_on.load(), 1);
}

TEST_F(UnixConnectionsTest, SoManyAreWaitedForAndOneBeyondIsHandedOnAtOnce) {
  constexpr int kMax = 3;
  std::atomic<int> handed_on{0};
  const std::string path = folder_ + "/own.sock";
  AcceptorOptions options;
  options.connections_max = 10;
  options.waits_for_first_of_unix = true;
  options.silent_max = kMax;
  options.silent_ns = 3'600'000'000'000;
  std::vector<UniqueFd> listeners;
  listeners.push_back(ListenUnix(path));
  auto acceptor =
      Acceptor::Start(std::move(listeners), options, [&](UniqueFd) { ++handed_on; }).value();
  std::vector<UniqueFd> silent;
  for (int i = 0; i < kMax; ++i) silent.push_back(ConnectUnix(path));
  const UniqueFd beyond = ConnectUnix(path);
  ASSERT_TRUE(IsClosed(beyond));
  EXPECT_EQ(handed_on.load(), 1);

  ASSERT_TRUE(Say(silent[1], "x"));
  ASSERT_TRUE(IsClosed(silent[1]));
  EXPECT_EQ(handed_on.load(), 2);
  acceptor->Stop();
  EXPECT_TRUE(IsClosed(silent[0]));
  EXPECT_TRUE(IsClosed(silent[2]));
  EXPECT_EQ(handed_on.load(), 2);
}

// No kernel's time limit ends such a connection.
TEST_F(UnixConnectionsTest, WhoTakesNothingIsClosed) {
  BatchConnectionsOptions options;
  options.keepalive_s = 1;
  options.keepalive_timeout_s = 1;
  const auto all = BatchConnections::Start(options, &service_->dispatcher(), authenticator_.get(),
                                           service_->engine().DaemonLane(1))
                       .value();
  v1::SetEntryRequest set;
  set.set_name("d");
  set.set_key("large");
  set.mutable_value()->set_string_value(std::string(1'000'000, 'x'));
  ASSERT_TRUE(service_->Call<v1::SetEntryResponse>("/statehouse.v1.Dicts/SetEntry", set).ok());
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd deaf(ends[0]);
  all->Take(UniqueFd(ends[1]));
  BatchClient client({{kBatchesSetting, kBatchesSettingValue},
                      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (1u << 31) - 1}});
  const int32_t id = client.Open(BatchClient::Request(token_));
  v1::RunBatchesRequest request;
  request.mutable_batch()->add_names("d");
  request.mutable_batch()->add_operations()->mutable_get()->set_key("large");
  const auto begin = steady_clock::now();
  for (int i = 0; i < 4; ++i) client.SendMessage(id, request.SerializeAsString());
  ASSERT_TRUE(
      Say(deaf, client.TakeOutput() + testing::EncodeFrame(testing::FrameType::kWindowUpdate, 0, 0,
                                                           testing::BigEndian32(1u << 30))));

  EXPECT_TRUE(IsClosed(deaf));
  EXPECT_GE(steady_clock::now() - begin, seconds(2));
}

}  // namespace
}  // namespace statehouse
