// The network door of the real service while its processes are killed and stopped.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "service/exit_codes.h"
#include "statehouse/v1/admin.grpc.pb.h"
#include "statehouse/v1/area.grpc.pb.h"
#include "tests/support/attach_client.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

class NetworkDoorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
  }
  std::shared_ptr<grpc::Channel> Channel(const std::string& target) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 10);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
  }
  std::unique_ptr<grpc::ClientContext> Context(const std::string& token) {
    auto context = std::make_unique<grpc::ClientContext>();
    context->AddMetadata("authorization", "Bearer " + token);
    context->set_deadline(std::chrono::system_clock::now() + kPatience);
    context->set_wait_for_ready(true);
    return context;
  }
  grpc::Status Create(v1::Areas::Stub* areas, const std::string& name) {
    v1::CreateAreaRequest request;
    request.set_name(name);
    request.set_size(4096);
    v1::CreateAreaResponse response;
    return areas->CreateArea(Context(daemon_->token()).get(), request, &response);
  }
  grpc::Status Add(v1::Areas::Stub* areas, const std::string& name, uint64_t* value) {
    v1::AddWordRequest request;
    request.set_name(name);
    request.set_type(v1::WORD_TYPE_U64);
    request.set_delta(1);
    v1::AddWordResponse response;
    const grpc::Status status = areas->AddWord(Context(daemon_->token()).get(), request, &response);
    *value = response.value().unsigned_value();
    return status;
  }

  std::unique_ptr<Daemon> daemon_;
};

TEST_F(NetworkDoorTest, TcpAndUnixServeTheSameState) {
  const auto tcp = v1::Areas::NewStub(Channel(daemon_->tcp_address()));
  const auto local = v1::Areas::NewStub(Channel("unix:" + daemon_->grpc_socket()));
  ASSERT_TRUE(Create(tcp.get(), "shared").ok());
  uint64_t value = 0;

  ASSERT_TRUE(Add(tcp.get(), "shared", &value).ok());
  ASSERT_TRUE(Add(local.get(), "shared", &value).ok());

  EXPECT_EQ(value, 2u);
}

TEST_F(NetworkDoorTest, OneChannelOutlivesKilledDaemonsAndNoAcknowledgedAddIsLost) {
  const auto areas = v1::Areas::NewStub(Channel(daemon_->tcp_address()));
  ASSERT_TRUE(Create(areas.get(), "counter").ok());
  uint64_t acknowledged = 0;
  uint64_t failed = 0;
  uint64_t value = 0;

  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 200; ++i) {
      if (i == 100) kill(daemon_->daemon_pid(), SIGKILL);
      const grpc::Status status = Add(areas.get(), "counter", &value);
      status.ok() ? ++acknowledged : ++failed;
      // Of a call that was cut off nobody knows whether it was applied.
      EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::UNAVAILABLE)
          << status.error_message();
    }
  }

  ASSERT_TRUE(Eventually([&] { return Add(areas.get(), "counter", &value).ok(); }));
  EXPECT_GE(value, acknowledged + 1);
  EXPECT_LE(value, acknowledged + failed + 1);
  EXPECT_LE(failed,
            5u);  // One call is in flight when a daemon is killed; none meets a closed port.
}

TEST_F(NetworkDoorTest, StatusTellsProcessesAddressesAndGenerations) {
  const auto admin = v1::Admin::NewStub(Channel(daemon_->tcp_address()));
  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  v1::GetStatusResponse response;

  const grpc::Status status = admin->GetStatus(Context(daemon_->token()).get(), {}, &response);

  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.generation(), 2u);
  EXPECT_EQ(static_cast<pid_t>(response.daemon_pid()), daemon_->daemon_pid());
  EXPECT_EQ(static_cast<pid_t>(response.keeper_pid()), daemon_->keeper_pid());
  EXPECT_EQ(response.runtime_dir(), daemon_->runtime_dir());
  ASSERT_EQ(response.listen_addresses_size(), 1);
  EXPECT_EQ(response.listen_addresses(0), daemon_->tcp_address());
  EXPECT_EQ(response.http_address(), daemon_->http_address());
}

TEST_F(NetworkDoorTest, DrainEndsTheServiceWithCodeZero) {
  const auto admin = v1::Admin::NewStub(Channel(daemon_->tcp_address()));
  const pid_t keeper = daemon_->keeper_pid();
  v1::DrainResponse response;

  const grpc::Status status = admin->Drain(Context(daemon_->token()).get(), {}, &response);
  const int code = WaitForExit(keeper);
  daemon_->Forget();

  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(code, kExitOk) << daemon_->errors();
  EXPECT_FALSE(HasDescendants());
}

TEST_F(NetworkDoorTest, AWrongTokenIsRefused) {
  const auto admin = v1::Admin::NewStub(Channel(daemon_->tcp_address()));
  v1::GetStatusResponse response;

  const grpc::Status status =
      admin->GetStatus(Context("sh1_aaaaaaaa_" + std::string(43, 'x')).get(), {}, &response);

  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(daemon_->errors().find(daemon_->token()), std::string::npos);
}

TEST_F(NetworkDoorTest, RefusedTokensAreLoggedWithTheirHostAndWithoutTheToken) {
  const auto admin = v1::Admin::NewStub(Channel(daemon_->tcp_address()));
  const std::string secret(43, 'x');
  v1::GetStatusResponse response;
  for (int i = 0; i < 70; ++i) {
    EXPECT_FALSE(admin->GetStatus(Context("sh1_aaaaaaaa_" + secret).get(), {}, &response).ok());
  }
  AttachClient worker;
  ASSERT_TRUE(worker.Connect(daemon_->attach_socket()).ok());
  EXPECT_FALSE(worker.Hello("sh1_aaaaaaaa_" + secret, false).ok());
  const std::string at_once = daemon_->errors();

  daemon_->Stop();

  EXPECT_NE(at_once.find("refused access tokens of 127.0.0.1 at the network door: 1 since its last "
                         "line (1 UNAUTHENTICATED), the latest from 127.0.0.1:"),
            std::string::npos)
      << at_once;
  EXPECT_NE(at_once.find("refused access tokens of unix:uid=" + std::to_string(geteuid()) +
                         " at the local door: 1 since its last line (1 UNAUTHENTICATED), the "
                         "latest from unix:uid=" +
                         std::to_string(geteuid()) + ",pid=" + std::to_string(getpid())),
            std::string::npos)
      << at_once;
  const std::string log = daemon_->errors();
  EXPECT_NE(log.find("at the network door: 69 since its last line (59 UNAUTHENTICATED, 10 "
                     "RATE_LIMITED)"),
            std::string::npos)
      << log;
  EXPECT_EQ(log.find("xxx"), std::string::npos) << log;
}

TEST_F(NetworkDoorTest, MetricsCountCallsOfTheNetworkDoor) {
  const auto areas = v1::Areas::NewStub(Channel(daemon_->tcp_address()));
  ASSERT_TRUE(Create(areas.get(), "seen").ok());

  const std::string line =
      "statehouse_calls_total{door=\"network\",method=\"/statehouse.v1.Areas/"
      "CreateArea\",reason=\"OK\"} 1";
  EXPECT_TRUE(
      Eventually([&] { return daemon_->HttpGet("/metrics").find(line) != std::string::npos; }));
}

}  // namespace
}  // namespace statehouse::testing
