// The real service when descriptors run out, tokens are revoked under parked calls, and both of its
// processes are killed at once.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "engine/os/unique_fd.h"
#include "engine/shm/layout.h"
#include "service/auth/token_file.h"
#include "service/exit_codes.h"
#include "statehouse/v1/area.grpc.pb.h"
#include "tests/support/attach_client.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;

constexpr const char* kCreate = "/statehouse.v1.Areas/CreateArea";

size_t OpenDescriptors(pid_t pid) {
  std::error_code error;
  const std::filesystem::directory_iterator fds("/proc/" + std::to_string(pid) + "/fd", error);
  return error ? 0 : static_cast<size_t>(std::distance(begin(fds), end(fds)));
}

// Lowers a process's soft limit of open files, and gives it back at the end.
class DescriptorLimit final {
 public:
  DescriptorLimit(pid_t pid, size_t descriptors) : pid_(pid) {
    EXPECT_EQ(prlimit(pid, RLIMIT_NOFILE, nullptr, &before_), 0);
    const rlimit low{descriptors, before_.rlim_max};
    EXPECT_EQ(prlimit(pid, RLIMIT_NOFILE, &low, nullptr), 0);
  }
  ~DescriptorLimit() { EXPECT_EQ(prlimit(pid_, RLIMIT_NOFILE, &before_, nullptr), 0); }

 private:
  const pid_t pid_;
  rlimit before_{};
};

UniqueFd ConnectTcp(const std::string& address) {
  sockaddr_in target{};
  target.sin_family = AF_INET;
  target.sin_port = htons(static_cast<uint16_t>(atoi(address.c_str() + address.rfind(':') + 1)));
  target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&target), sizeof(target)), 0);
  return fd;
}

class FaultsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
  }
  std::unique_ptr<v1::Areas::Stub> Stub(const std::string& target) const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return v1::Areas::NewStub(
        grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments));
  }
  std::string UnixTarget() const { return "unix:" + daemon_->grpc_socket(); }
  static void Prepare(grpc::ClientContext* context, const std::string& token) {
    context->AddMetadata("authorization", "Bearer " + token);
    context->set_deadline(std::chrono::system_clock::now() + kPatience);
  }
  grpc::Status CreateByGrpc(const std::string& target, const std::string& name) const {
    grpc::ClientContext context;
    Prepare(&context, daemon_->token());
    v1::CreateAreaRequest request;
    request.set_name(name);
    request.set_size(64);
    v1::CreateAreaResponse response;
    return Stub(target)->CreateArea(&context, request, &response);
  }
  Status Create(const std::string& name) const {
    AttachClient client;
    SH_RETURN_IF_ERROR(client.Connect(daemon_->attach_socket()));
    SH_RETURN_IF_ERROR(client.Hello(daemon_->token(), false).status());
    v1::CreateAreaRequest request;
    request.set_name(name);
    request.set_size(64);
    return client.Call(kCreate, request.SerializeAsString()).status();
  }
  std::string TokenFor(const std::string& grant) const {
    TokenSpec spec;
    spec.description = "to be revoked";
    spec.grants.push_back(*ParseGrant(grant));
    const auto token = CreateToken(daemon_->tokens_file(), spec);
    EXPECT_TRUE(token.ok());
    EXPECT_EQ(kill(daemon_->keeper_pid(), SIGHUP), 0);
    EXPECT_TRUE(Eventually([&] {
      AttachClient client;
      return client.Connect(daemon_->attach_socket()).ok() && client.Hello(*token, false).ok();
    }));
    return *token;
  }

  std::unique_ptr<Daemon> daemon_;
};

TEST_F(FaultsTest, EveryDoorGoesOnAfterTheDaemonWasOutOfDescriptors) {
  const pid_t daemon = daemon_->daemon_pid();
  ASSERT_TRUE(CreateByGrpc(daemon_->tcp_address(), "before").ok());
  {
    constexpr size_t kSpare = 12;
    const size_t limit = OpenDescriptors(daemon) + kSpare;
    const DescriptorLimit lowered(daemon, limit);
    std::vector<UniqueFd> idle;
    std::vector<AttachClient> attached(2 * kSpare);
    for (size_t i = 0; i < 2 * kSpare; ++i) {
      idle.push_back(ConnectTcp(daemon_->tcp_address()));
      idle.push_back(ConnectTcp(daemon_->http_address()));
      ASSERT_TRUE(attached[i].Connect(daemon_->attach_socket()).ok());
    }
    ASSERT_TRUE(Eventually([&] { return OpenDescriptors(daemon) >= limit; }));
    EXPECT_TRUE(Eventually([&] {
      return daemon_->errors().find("accepting a connection failed") != std::string::npos;
    }));
    idle.clear();
    attached.clear();

    // Still with few descriptors, but without those who took them.
    EXPECT_TRUE(Eventually([&] { return CreateByGrpc(daemon_->tcp_address(), "tcp").ok(); }));
    EXPECT_TRUE(Eventually([&] { return CreateByGrpc(UnixTarget(), "unix").ok(); }));
    EXPECT_TRUE(Eventually([&] { return Create("attach").ok(); }));
    EXPECT_TRUE(Eventually(
        [&] { return daemon_->HttpGet("/healthz").find("200 OK") != std::string::npos; }));
  }
  EXPECT_EQ(daemon_->daemon_pid(), daemon);  // It was never restarted.
}

TEST_F(FaultsTest, AKeeperOutOfDescriptorsIsAnErrorAndNothingAcknowledgedIsLost) {
  ASSERT_TRUE(Create("before").ok());
  {
    const pid_t keeper = daemon_->keeper_pid();
    const DescriptorLimit lowered(keeper, OpenDescriptors(keeper));

    const Status refused = Create("refused");

    EXPECT_EQ(refused.reason(), Reason::kMemoryExhausted) << refused.ToString();
    EXPECT_THAT(refused.message(), HasSubstr("LimitNOFILE"));
  }
  ASSERT_TRUE(Create("after").ok());
  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());

  AttachClient worker;
  ASSERT_TRUE(worker.Connect(daemon_->attach_socket()).ok());
  ASSERT_TRUE(worker.Hello(daemon_->token(), false).ok());
  EXPECT_TRUE(worker.OpenArea("before").ok());
  EXPECT_TRUE(worker.OpenArea("after").ok());
  EXPECT_EQ(worker.OpenArea("refused").status().reason(), Reason::kAreaNotFound);
}

TEST_F(FaultsTest, AWaitParkedOverGrpcEndsWhenItsTokenIsRevoked) {
  ASSERT_TRUE(CreateByGrpc(UnixTarget(), "quiet").ok());
  AttachClient worker;
  ASSERT_TRUE(worker.Connect(daemon_->attach_socket()).ok());
  ASSERT_TRUE(worker.Hello(daemon_->token(), true).ok());
  const auto area = worker.OpenArea("quiet");
  ASSERT_TRUE(area.ok()) << area.status().ToString();
  std::byte* const segment = (*area)->data() - (*area)->geometry().data_offset;
  auto* const line = reinterpret_cast<StripeLine*>(segment + kStripeLinesOffset);
  for (const std::string& target : {UnixTarget(), daemon_->tcp_address()}) {
    const std::string token = TokenFor("area:quiet:read");
    grpc::Status ended;
    line->armed = 0;
    std::thread waiter([&] {
      grpc::ClientContext context;
      Prepare(&context, token);
      v1::WaitAreaRequest request;
      request.set_name("quiet");
      request.set_since(0);
      v1::WaitAreaResponse response;
      ended = Stub(target)->WaitArea(&context, request, &response);
    });
    EXPECT_TRUE(Eventually([&] { return line->armed == 1; }));  // The service sleeps for it.
    TokenParts parts;
    ASSERT_TRUE(SplitToken(token, &parts));

    EXPECT_TRUE(RevokeToken(daemon_->tokens_file(), parts.id).ok());
    EXPECT_EQ(kill(daemon_->keeper_pid(), SIGHUP), 0);
    waiter.join();

    EXPECT_EQ(ended.error_code(), grpc::StatusCode::UNAUTHENTICATED) << ended.error_message();
    EXPECT_THAT(ended.error_message(), HasSubstr("revoked"));
  }
}

std::string Frame(char type, std::string_view payload) {
  std::string frame = {0, 0, static_cast<char>(payload.size()), type, 0, 0, 0, 0, 0};
  return frame.append(payload);
}

// A client may ping as often as it likes; HTTP/2 by hand, because gRPC's clients wait between
// pings.
TEST_F(FaultsTest, PingsOfAClientAreAnsweredAndNeverEndItsConnection) {
  constexpr int kPings = 200;
  constexpr char kGoAway = 7;
  constexpr char kPing = 6;
  const UniqueFd connection = ConnectTcp(daemon_->tcp_address());
  std::string out = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(4, "");
  int answered = 0;
  std::string in;
  while (answered < kPings) {
    if (out.empty()) out = Frame(kPing, "12345678");
    ASSERT_EQ(send(connection.get(), out.data(), out.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(out.size()));
    for (bool acknowledged = false; !acknowledged;) {
      char buffer[4096];
      pollfd readable{connection.get(), POLLIN, 0};
      ASSERT_EQ(poll(&readable, 1, static_cast<int>(kPatience.count()) * 1000), 1);
      const ssize_t bytes = read(connection.get(), buffer, sizeof(buffer));
      ASSERT_GT(bytes, 0) << "closed after " << answered << " pings";
      in.append(buffer, static_cast<size_t>(bytes));
      while (in.size() >= 9) {
        const size_t length = static_cast<uint8_t>(in[1]) << 8 | static_cast<uint8_t>(in[2]);
        if (in.size() < 9 + length) break;
        ASSERT_NE(in[3], kGoAway) << "after " << answered << " pings";
        const bool is_answer = in[3] == kPing && in[4] == 1;
        acknowledged = acknowledged || is_answer || out.size() > 17;  // The preface has none.
        answered += is_answer ? 1 : 0;
        in.erase(0, 9 + length);
      }
    }
    out.clear();
  }
}

// The daemon's newest child: the keeper that it starts when it has lost its own.
pid_t ChildOf(pid_t parent) {
  pid_t child = 0;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(parent) + "/task")) {
    std::ifstream children(task.path() / "children");
    for (pid_t next = 0; children >> next;) child = next;
  }
  return child;
}

// Kills the keeper, and the daemon as soon as its next keeper is there. True: that keeper ended and
// told that the state is lost. False: it had everything already and went on with it.
bool LosesStateInHandover(Daemon* service) {
  const pid_t daemon = service->daemon_pid();
  const pid_t keeper = service->keeper_pid();
  EXPECT_EQ(kill(keeper, SIGKILL), 0);
  pid_t next = 0;
  EXPECT_TRUE(Eventually([&] { return (next = ChildOf(daemon)) != 0; }));
  EXPECT_EQ(kill(daemon, SIGKILL), 0);
  EXPECT_EQ(WaitForExit(keeper), 128 + SIGKILL);
  EXPECT_EQ(WaitForExit(daemon), 128 + SIGKILL);
  int state = 0;
  bool has_ended = false;
  EXPECT_TRUE(Eventually([&] {
    has_ended = waitpid(next, &state, WNOHANG) == next;
    return has_ended || service->daemon_pid() != daemon;
  }));
  if (has_ended) {
    EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == kExitStateLost) << service->errors();
    EXPECT_THAT(service->errors(), HasSubstr("the state is lost"));
    EXPECT_FALSE(HasDescendants());
    return true;
  }
  AttachClient worker;
  EXPECT_TRUE(Eventually([&] {
    return worker.Connect(service->attach_socket()).ok() &&
           worker.Hello(service->token(), false).ok();
  }));
  EXPECT_TRUE(worker.OpenArea("area0").ok());
  EXPECT_TRUE(worker.OpenArea("area19").ok());
  KillDescendants();
  return false;
}

TEST_F(FaultsTest, ADaemonKilledInAHandoverLosesTheStateLoudlyOrNotAtAll) {
  bool lost = false;
  for (int round = 0; round < 20 && !lost; ++round) {
    if (round > 0) SetUp();
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(Create("area" + std::to_string(i)).ok());
    lost = LosesStateInHandover(daemon_.get());
    daemon_->Forget();
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_TRUE(lost) << "no round killed the daemon early enough";
}

TEST(WholeServiceTest, AServiceKilledAsAWholeIsToldOfByTheNextOneOnItsFolder) {
  TemporaryFolder folder;
  DaemonOptions options;
  options.runtime_dir = folder.path() + "/run";
  for (const bool was_killed : {false, false, true}) {
    auto started = Daemon::Start(options);
    ASSERT_TRUE(started.ok()) << started.status().ToString();
    EXPECT_EQ((*started)->errors().find("its state is lost"), std::string::npos);
    if (!was_killed) continue;  // Stopped in order.
    ASSERT_GT(KillDescendants(), 0);
    (*started)->Forget();
  }

  auto next = Daemon::Start(options);

  ASSERT_TRUE(next.ok()) << next.status().ToString();
  EXPECT_THAT((*next)->errors(), HasSubstr("its state is lost; this one begins empty"));
}

}  // namespace
}  // namespace statehouse::testing
