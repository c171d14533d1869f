// Connections by unix sockets: they are handed on after the first thing they say, so that those
// which carry only batches are known, and nobody is kept for long.
#include <errno.h>
#include <gmock/gmock.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/os/futex.h"
#include "engine/os/unique_fd.h"
#include "service/http2/batch_client_test_support.h"
#include "service/rpc/acceptor.h"
#include "service/rpc/batch_connections.h"
#include "service/rpc/grpc_door_test_support.h"
#include "service/rpc/unix_client_test_support.h"
#include "statehouse/v1/batch.pb.h"
#include "statehouse/v1/dict.pb.h"
#include "tests/support/http2.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr uint64_t kPauseNs = 50'000'000;

class UnixConnectionsTest : public GrpcDoorTest {
 protected:
  explicit UnixConnectionsTest(milliseconds first_words = seconds(60))
      : GrpcDoorTest(Options(first_words, &open_)) {
    v1::CreateDictRequest create;
    create.set_name("d");
    EXPECT_TRUE(
        service_->Call<v1::CreateDictResponse>("/statehouse.v1.Dicts/CreateDict", create).ok());
    service_->MakeArea("a", 64);
  }
  static GrpcDoorOptions Options(milliseconds first_words, std::atomic<int>* open) {
    GrpcDoorOptions options;
    options.first_words = first_words;
    options.on_connection_open = [open](int change) { open->fetch_add(change); };
    return options;
  }

  std::atomic<int> open_{0};
};

// Some milliseconds after it has connected.
TEST_F(UnixConnectionsTest, WhoSaysSoCarriesOnlyBatches) {
  Local local(UnixPath());
  SleepNs(kPauseNs);
  EXPECT_EQ(open_.load(), 0);
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
  // gRPC would let it go on.
  EXPECT_TRUE(local.AwaitClose());
  EXPECT_TRUE(local.client.was_told_to_go());
}

class ImpatientUnixConnectionsTest : public UnixConnectionsTest {
 protected:
  ImpatientUnixConnectionsTest() : UnixConnectionsTest(milliseconds(100)) {}
};

TEST_F(ImpatientUnixConnectionsTest, WhoSaysNothingInTimeIsGrpcs) {
  Local silent(UnixPath());
  ASSERT_TRUE(Eventually([this] { return open_.load() == 1; }));

  const int32_t id =
      silent.client.Open(BatchClient::Request(token_, {{":path", "/statehouse.v1.Areas/AddWord"}}));
  silent.client.SendMessage(id, Add("a").SerializeAsString());
  silent.client.Send(id, "", /*ends=*/true);
  ASSERT_TRUE(silent.Until([&] { return silent.client.At(id).is_closed; }));
  EXPECT_EQ(silent.client.At(id).Code(), 0);
}

// Its own acceptor, whose connections are closed as soon as they are handed on.
class SilentTest : public UnixConnectionsTest {
 protected:
  std::unique_ptr<Acceptor> StartOne(uint32_t connections_max, size_t silent_max = kSilentMax,
                                     std::chrono::nanoseconds silent = std::chrono::hours(1)) {
    AcceptorOptions options;
    options.connections_max = connections_max;
    options.silent_max = silent_max;
    options.waits_for_first_of_unix = true;
    options.silent_ns = static_cast<uint64_t>(silent.count());
    std::vector<UniqueFd> listeners;
    listeners.push_back(ListenUnix(path_));
    return Acceptor::Start(std::move(listeners), std::move(options),
                           [this](UniqueFd) {
                             ++handed_on_;
                             const std::lock_guard<std::mutex> lock(hand_on_mutex_);
                           })
        .value();
  }

  const std::string path_ = folder_ + "/own.sock";
  std::atomic<int> handed_on_{0};
  std::mutex hand_on_mutex_;  // Who holds it holds the acceptor's thread up.
};

TEST_F(SilentTest, WhoLeavesWithoutAWordIsNeverHandedOn) {
  const auto acceptor = StartOne(10);
  { const UniqueFd gone = ConnectUnix(path_); }
  for (int i = 0; i < 2; ++i) {  // When the second one is there, the one that left was looked at.
    const UniqueFd speaks = ConnectUnix(path_);
    ASSERT_TRUE(Say(speaks, "x"));
    ASSERT_TRUE(IsClosed(speaks));
  }
  EXPECT_EQ(handed_on_.load(), 2);
}

TEST_F(SilentTest, SoManyAreWaitedForAndOneBeyondIsHandedOnAtOnce) {
  constexpr int kMax = 3;
  const auto acceptor = StartOne(10, kMax);
  std::vector<UniqueFd> silent;
  for (int i = 0; i < kMax; ++i) silent.push_back(ConnectUnix(path_));
  const UniqueFd beyond = ConnectUnix(path_);
  ASSERT_TRUE(IsClosed(beyond));
  EXPECT_EQ(handed_on_.load(), 1);

  ASSERT_TRUE(Say(silent[1], "x"));
  ASSERT_TRUE(IsClosed(silent[1]));
  EXPECT_EQ(handed_on_.load(), 2);
}

// More than one turn of the acceptor's takes.
TEST_F(SilentTest, AllAreHandedOnWhenTheirTimeIsOver) {
  constexpr int kMany = 100;
  const auto acceptor = StartOne(kMany, kSilentMax, milliseconds(200));
  std::vector<UniqueFd> silent;
  for (int i = 0; i < kMany; ++i) silent.push_back(ConnectUnix(path_));

  EXPECT_TRUE(Eventually([this] { return handed_on_.load() == kMany; }));
}

TEST_F(SilentTest, TheyCountAsConnections) {
  constexpr uint32_t kMax = 2;
  const auto acceptor = StartOne(kMax);
  std::vector<UniqueFd> silent;
  for (uint32_t i = 0; i < kMax; ++i) silent.push_back(ConnectUnix(path_));
  const UniqueFd beyond = ConnectUnix(path_);

  ASSERT_TRUE(IsClosed(beyond));
  EXPECT_EQ(handed_on_.load(), 1);
}

TEST_F(SilentTest, AStopClosesThemButWhatWasSaidIsHandedOn) {
  const auto acceptor = StartOne(10);
  const UniqueFd silent = ConnectUnix(path_);
  const UniqueFd late = ConnectUnix(path_);
  const UniqueFd speaks = ConnectUnix(path_);
  std::thread stops;
  {
    const std::lock_guard<std::mutex> lock(hand_on_mutex_);
    EXPECT_TRUE(Say(speaks, "x"));
    EXPECT_TRUE(Eventually([this] { return handed_on_.load() == 1; }));
    stops = std::thread([&] { acceptor->Stop(); });
    SleepNs(kPauseNs);  // So that the acceptor's thread hears of the stop first.
    EXPECT_TRUE(Say(late, "x"));
  }
  stops.join();

  EXPECT_TRUE(IsClosed(silent));
  EXPECT_TRUE(IsClosed(late));
  EXPECT_EQ(handed_on_.load(), 2);
}

// Linux 6.16 and later.
TEST_F(SilentTest, NobodySendsThemDescriptors) {
  const auto acceptor = StartOne(10);
  const UniqueFd one = ConnectUnix(path_);
  int passes = 1;
  socklen_t bytes = sizeof(passes);
  if (getsockopt(one.get(), SOL_SOCKET, 83, &passes, &bytes) != 0) return;  // SO_PASSRIGHTS.
  char byte = 'x';
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int passed = one.get();
  std::memcpy(CMSG_DATA(header), &passed, sizeof(passed));

  EXPECT_EQ(sendmsg(one.get(), &message, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPERM);
}

// A client that has asked for four megabytes of a service with a patience of two seconds.
class PatienceTest : public UnixConnectionsTest {
 protected:
  PatienceTest() {
    BatchConnectionsOptions options;
    options.keepalive_s = 1;
    options.keepalive_timeout_s = 1;
    all_ = BatchConnections::Start(options, &service_->dispatcher(), authenticator_.get(),
                                   service_->engine().DaemonLane(1))
               .value();
    v1::SetEntryRequest set;
    set.set_name("d");
    set.set_key("large");
    set.mutable_value()->set_string_value(std::string(1'000'000, 'x'));
    EXPECT_TRUE(service_->Call<v1::SetEntryResponse>("/statehouse.v1.Dicts/SetEntry", set).ok());
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    client_.Reset(ends[0]);
    all_->Take(UniqueFd(ends[1]));
    BatchClient client({{kBatchesSetting, kBatchesSettingValue},
                        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (1u << 31) - 1}});
    const int32_t id = client.Open(BatchClient::Request(token_));
    v1::RunBatchesRequest request;
    request.mutable_batch()->add_names("d");
    request.mutable_batch()->add_operations()->mutable_get()->set_key("large");
    for (int i = 0; i < 4; ++i) client.SendMessage(id, request.SerializeAsString());
    EXPECT_TRUE(Say(
        client_, client.TakeOutput() + testing::EncodeFrame(testing::FrameType::kWindowUpdate, 0, 0,
                                                            testing::BigEndian32(1u << 30))));
  }

  std::unique_ptr<BatchConnections> all_;
  UniqueFd client_;
};

// No kernel's time limit ends such a connection.
TEST_F(PatienceTest, WhoTakesNothingIsClosed) {
  const auto begin = steady_clock::now();

  EXPECT_TRUE(IsClosed(client_));
  EXPECT_GE(steady_clock::now() - begin, milliseconds(1500));
}

// So slowly that the kernel lets nothing more be sent for longer than the patience.
TEST_F(PatienceTest, WhoTakesALittleStays) {
  const auto until = steady_clock::now() + seconds(5);
  while (steady_clock::now() < until) {
    char bytes[4096];
    ASSERT_GT(recv(client_.get(), bytes, sizeof(bytes), 0), 0);
    SleepNs(kPauseNs);
  }
  pollfd closed{client_.get(), POLLRDHUP, 0};
  EXPECT_EQ(poll(&closed, 1, 0), 0);
}

}  // namespace
}  // namespace statehouse
