// The attach door as a worker sees it, well-behaved or not, against the real service.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/os/process.h"
#include "engine/shm/layout.h"
#include "service/auth/token_file.h"
#include "statehouse/v1/admin.pb.h"
#include "statehouse/v1/area.pb.h"
#include "tests/support/attach_client.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

constexpr const char* kCreate = "/statehouse.v1.Areas/CreateArea";
constexpr const char* kWait = "/statehouse.v1.Areas/WaitArea";
constexpr const char* kStatus = "/statehouse.v1.Admin/GetStatus";

class AttachDoorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
    admin_ = Client(daemon_->token(), false);
  }

  AttachClient Client(const std::string& token, bool want_lanes) {
    AttachClient client;
    EXPECT_TRUE(client.Connect(daemon_->attach_socket()).ok());
    const auto welcome = client.Hello(token, want_lanes);
    EXPECT_TRUE(welcome.ok()) << welcome.status().ToString();
    return client;
  }
  void CreateArea(const std::string& name, uint64_t size) {
    v1::CreateAreaRequest request;
    request.set_name(name);
    request.set_size(size);
    const auto created = admin_.Call(kCreate, request.SerializeAsString());
    ASSERT_TRUE(created.ok()) << created.status().ToString();
  }
  v1::GetStatusResponse ServiceStatus() {
    v1::GetStatusResponse response;
    const auto bytes = admin_.Call(kStatus, "");
    EXPECT_TRUE(bytes.ok()) << bytes.status().ToString();
    EXPECT_TRUE(bytes.ok() && response.ParseFromString(*bytes));
    return response;
  }
  // A token with these grants, known to the service.
  std::string NewToken(const std::string& grant) {
    TokenSpec spec;
    spec.description = "limited";
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
  AttachClient admin_;
};

TEST_F(AttachDoorTest, AWorkerMapsAnAreaAndSharesItWithAnother) {
  CreateArea("shared", 8192);
  AttachClient one = Client(daemon_->token(), true);
  AttachClient two = Client(daemon_->token(), true);
  auto here = one.OpenArea("shared");
  auto there = two.OpenArea("#0");
  ASSERT_TRUE(here.ok()) << here.status().ToString();
  ASSERT_TRUE(there.ok()) << there.status().ToString();

  uint64_t value = 0;
  ASSERT_TRUE((*here)->Add(one.lane(), WordType::kU64, 8, 5, &value).ok());
  ASSERT_TRUE((*there)->Add(two.lane(), WordType::kU64, 8, 2, &value).ok());

  EXPECT_EQ(value, 7u);
  EXPECT_NE(one.lane().id, two.lane().id);
  EXPECT_EQ(ServiceStatus().attached_processes(), 2u);
}

TEST_F(AttachDoorTest, GrantsDecideWhatADescriptorCanDo) {
  CreateArea("web/hits", 4096);
  CreateArea("other", 4096);
  const std::string reader = NewToken("area:web/*:read");
  AttachClient client = Client(reader, true);

  auto mapped = client.OpenArea("web/hits");

  ASSERT_TRUE(mapped.ok()) << mapped.status().ToString();
  EXPECT_FALSE((*mapped)->writable());
  EXPECT_EQ((*mapped)->Store(client.lane(), WordType::kU8, 0, 1).reason(), Reason::kReadOnly);
  // What may not be read looks the same whether it exists or not.
  EXPECT_EQ(client.OpenArea("other").status().reason(), Reason::kPermissionDenied);
  EXPECT_EQ(client.OpenArea("absent").status().reason(), Reason::kPermissionDenied);
  EXPECT_EQ(client.OpenArea("#1").status().reason(), Reason::kAreaNotFound);
  EXPECT_EQ(client.OpenArea("#9").status().reason(), Reason::kAreaNotFound);
  EXPECT_EQ(client.OpenArea("web/absent").status().reason(), Reason::kAreaNotFound);
}

TEST_F(AttachDoorTest, AConnectionWithoutLanesMapsForReadingOnly) {
  CreateArea("shared", 4096);

  auto mapped = admin_.OpenArea("shared");

  ASSERT_TRUE(mapped.ok()) << mapped.status().ToString();
  EXPECT_FALSE((*mapped)->writable());
}

TEST_F(AttachDoorTest, AWrongTokenIsRefusedAndCounted) {
  AttachClient client;
  ASSERT_TRUE(client.Connect(daemon_->attach_socket()).ok());

  EXPECT_EQ(client.Hello("sh1_aaaaaaaa_" + std::string(43, 'x'), false).status().reason(),
            Reason::kUnauthenticated);

  EXPECT_TRUE(client.EventuallyClosed());
  const std::string metrics = daemon_->HttpGet("/metrics");
  EXPECT_NE(
      metrics.find(
          "statehouse_authentication_failures_total{door=\"local\",reason=\"UNAUTHENTICATED\"} 1"),
      std::string::npos)
      << metrics;
}

TEST_F(AttachDoorTest, OnlyThisProcessOwnPidfdIsTakenForALease) {
  const UniqueFd no_pidfd(eventfd(0, EFD_CLOEXEC));
  const auto parent = OpenPidfd(getppid());
  ASSERT_TRUE(parent.ok());
  for (const int fd : {no_pidfd.get(), parent->get()}) {
    AttachClient client;
    ASSERT_TRUE(client.Connect(daemon_->attach_socket()).ok());

    EXPECT_EQ(client.Hello(daemon_->token(), true, fd).status().reason(), Reason::kInvalidArgument);

    EXPECT_TRUE(client.EventuallyClosed());
  }
}

TEST_F(AttachDoorTest, BadPacketsCostTheirConnectionOnly) {
  const std::vector<std::string> bad = {std::string(24, '\0'), "x", std::string(200'000, 'y'),
                                        *EncodeAttachPacket({1, AttachOpenArea{"before hello"}}),
                                        *EncodeAttachPacket({1, AttachWelcome{}})};
  for (const std::string& bytes : bad) {
    AttachClient client;
    ASSERT_TRUE(client.Connect(daemon_->attach_socket()).ok());

    ASSERT_TRUE(client.SendBytes(bytes).ok());

    EXPECT_TRUE(client.EventuallyClosed());
  }
  EXPECT_EQ(ServiceStatus().generation(), 1u);
}

TEST_F(AttachDoorTest, SeveralCallsMayBeInFlightAndAnswersNameTheirRequest) {
  CreateArea("quiet", 64);
  v1::WaitAreaRequest wait;
  wait.set_name("quiet");
  wait.set_since(0);
  wait.mutable_timeout()->set_seconds(3600);
  for (uint64_t id = 100; id < 103; ++id) {
    ASSERT_TRUE(admin_.Send({id, AttachCall{kWait, 0, wait.SerializeAsString()}}).ok());
  }

  AttachClient worker = Client(daemon_->token(), true);
  auto area = worker.OpenArea("quiet");
  ASSERT_TRUE(area.ok());
  ASSERT_TRUE((*area)->Store(worker.lane(), WordType::kU8, 0, 1).ok());

  uint64_t sum = 0;
  for (int i = 0; i < 3; ++i) {
    const auto received = admin_.Receive();
    ASSERT_TRUE(received.ok()) << received.status().ToString();
    const auto* reply = std::get_if<AttachCallReply>(&received->packet.message);
    ASSERT_NE(reply, nullptr);
    v1::WaitAreaResponse response;
    ASSERT_TRUE(response.ParseFromString(reply->response));
    EXPECT_TRUE(response.changed());
    sum += received->packet.request_id;
  }
  EXPECT_EQ(sum, 100u + 101u + 102u);
}

TEST_F(AttachDoorTest, OnePastTheCallsInFlightIsRefusedAndTheRestGoOn) {
  CreateArea("quiet", 64);
  v1::WaitAreaRequest wait;
  wait.set_name("quiet");
  wait.set_since(0);
  wait.mutable_timeout()->set_seconds(3600);
  for (uint64_t id = 0; id < 64; ++id) {
    ASSERT_TRUE(admin_.Send({1000 + id, AttachCall{kWait, 0, wait.SerializeAsString()}}).ok());
  }

  ASSERT_TRUE(admin_.Send({2000, AttachCall{kStatus, 0, ""}}).ok());
  const auto refused = admin_.Receive();

  ASSERT_TRUE(refused.ok());
  EXPECT_EQ(refused->packet.request_id, 2000u);
  EXPECT_EQ(std::get<AttachError>(refused->packet.message).reason, Reason::kLimitExceeded);
  AttachClient other = Client(daemon_->token(), false);
  EXPECT_TRUE(other.Call(kStatus, "").ok());
}

TEST_F(AttachDoorTest, AResponseBeyondThePacketIsRefusedAndNotCut) {
  CreateArea("large", 1 << 20);
  v1::ReadAreaRequest read;
  read.set_name("large");
  read.set_len(1 << 20);

  const auto answer = admin_.Call("/statehouse.v1.Areas/ReadArea", read.SerializeAsString());

  EXPECT_EQ(answer.status().reason(), Reason::kMessageTooLarge) << answer.status().ToString();
  EXPECT_TRUE(admin_.Call(kStatus, "").ok());
}

TEST_F(AttachDoorTest, AnUnknownMethodIsUnimplemented) {
  EXPECT_EQ(admin_.Call("/statehouse.v1.Areas/Fly", "").status().reason(), Reason::kUnimplemented);
}

TEST_F(AttachDoorTest, AWorkerThatClosesInOrderGivesItsLanesBack) {
  {
    AttachClient worker = Client(daemon_->token(), true);
    ASSERT_EQ(ServiceStatus().attached_processes(), 1u);
    worker.CloseSocket();  // The liveness descriptor goes a moment later.
  }

  EXPECT_TRUE(Eventually([&] { return ServiceStatus().attached_processes() == 0; }));
}

TEST_F(AttachDoorTest, LanesStayLeasedWhileTheLivenessDescriptorIsOpen) {
  AttachClient worker = Client(daemon_->token(), true);
  const uint32_t lane = worker.lane().id;
  worker.CloseSocket();

  for (int i = 0; i < 20; ++i) {
    AttachClient next = Client(daemon_->token(), true);
    EXPECT_NE(next.lane().id, lane);
  }
  EXPECT_TRUE(Eventually([&] { return ServiceStatus().attached_processes() == 1; }));
  worker.CloseLiveness();
  EXPECT_TRUE(Eventually([&] { return ServiceStatus().attached_processes() == 0; }));
}

TEST_F(AttachDoorTest, AWorkerGoesOnWithItsLanesOverARestartOfTheDaemon) {
  CreateArea("shared", 4096);
  AttachClient worker = Client(daemon_->token(), true);
  auto area = worker.OpenArea("shared");
  ASSERT_TRUE(area.ok());
  uint64_t value = 0;
  ASSERT_TRUE((*area)->Add(worker.lane(), WordType::kU64, 0, 1, &value).ok());

  const Status again = daemon_->KillDaemonAndWait();
  ASSERT_TRUE(again.ok()) << again.ToString();
  ASSERT_TRUE((*area)->Add(worker.lane(), WordType::kU64, 0, 1, &value).ok());

  EXPECT_EQ(value, 2u);
  admin_ = Client(daemon_->token(), false);
  EXPECT_EQ(ServiceStatus().attached_processes(), 1u);
  // It reconnects without new lanes, and its old ones still make an area writable.
  CreateArea("later", 64);
  auto later = admin_.OpenArea("later");
  ASSERT_TRUE(later.ok()) << later.status().ToString();
  EXPECT_TRUE((*later)->writable());
  EXPECT_TRUE((*later)->Store(worker.lane(), WordType::kU8, 0, 1).ok());
}

// No event tells a daemon of it: it looks from time to time.
TEST_F(AttachDoorTest, LanesThatAnEarlierDaemonGaveComeBackWhenTheirWorkerLivesOnWithoutThem) {
  AttachClient worker = Client(daemon_->token(), true);
  const Status again = daemon_->KillDaemonAndWait();
  ASSERT_TRUE(again.ok()) << again.ToString();
  admin_ = Client(daemon_->token(), false);
  ASSERT_EQ(ServiceStatus().attached_processes(), 1u);

  worker.CloseLiveness();

  EXPECT_TRUE(Eventually([&] { return ServiceStatus().attached_processes() == 0; }));
}

// The control words of an area, as a worker that ignores the protocol finds them in what it may
// map.
std::atomic<uint64_t>& ControlWordOf(const Area& area, uint32_t stripe) {
  std::byte* const segment = area.data() - area.geometry().data_offset;
  auto* const stripes = reinterpret_cast<StripeLine*>(segment + kStripeLinesOffset);
  return stripes[stripe].control;
}

TEST_F(AttachDoorTest, AWordThatNamesADaemonLaneIsMendedWhileTheServiceRuns) {
  CreateArea("damaged", 4096);
  AttachClient worker = Client(daemon_->token(), true);
  auto area = worker.OpenArea("damaged");
  ASSERT_TRUE(area.ok()) << area.status().ToString();
  v1::AddWordRequest add;
  add.set_name("damaged");
  add.set_type(v1::WORD_TYPE_U64);
  add.set_delta(1);
  const auto add_one = [&] {
    return admin_.Call("/statehouse.v1.Areas/AddWord", add.SerializeAsString()).status();
  };
  ASSERT_TRUE(add_one().ok());
  ControlWordOf(**area, 0) += 1;  // Lane 1, the network door's.

  EXPECT_EQ(add_one().reason(), Reason::kStalled);
  EXPECT_TRUE(Eventually([&] { return add_one().ok(); }));

  EXPECT_EQ(ServiceStatus().generation(), 1u);
  const std::string metrics = daemon_->HttpGet("/metrics");
  EXPECT_NE(metrics.find("statehouse_repairs_total 1"), std::string::npos) << metrics;
}

TEST_F(AttachDoorTest, AProcessAtItsLimitOfLeasesIsRefusedAndToldWhichSettingItIs) {
  std::vector<AttachClient> clients;
  for (int i = 0; i < 16; ++i) clients.push_back(Client(daemon_->token(), true));
  AttachClient beyond;
  ASSERT_TRUE(beyond.Connect(daemon_->attach_socket()).ok());

  const Status refused = beyond.Hello(daemon_->token(), true).status();

  EXPECT_EQ(refused.reason(), Reason::kLanesExhausted);
  EXPECT_NE(refused.message().find("attach.leases_per_process_max"), std::string::npos);
  EXPECT_EQ(ServiceStatus().attached_processes(), 16u);
}

// A child process that attaches, maps "ranges" and writes whole ranges of one byte value until it
// is killed. `ready` gets a byte once the first write is done.
[[noreturn]] void WriteRangesForEver(const Daemon& daemon, int ready) {
  AttachClient client;
  const bool attached =
      client.Connect(daemon.attach_socket()).ok() && client.Hello(daemon.token(), true).ok();
  if (!attached) _exit(1);
  auto area = client.OpenArea("ranges");
  if (!area.ok()) _exit(2);
  std::vector<std::byte> bytes(65'536);
  for (uint8_t value = 1;; ++value) {
    std::memset(bytes.data(), value, bytes.size());
    if (!(*area)->Write(client.lane(), 0, bytes).ok()) _exit(3);
    if (value == 1 && write(ready, "r", 1) != 1) _exit(4);
  }
}

pid_t StartWriter(const Daemon& daemon) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -1;
  const pid_t pid = fork();
  if (pid == 0) WriteRangesForEver(daemon, ends[1]);
  close(ends[1]);
  char byte = 0;
  const ssize_t bytes = read(ends[0], &byte, 1);
  close(ends[0]);
  EXPECT_EQ(bytes, 1) << "the writer ended with " << (bytes == 1 ? 0 : WaitForExit(pid));
  return pid;
}

TEST_F(AttachDoorTest, AWorkerKilledInRangeWritesLeavesWholeRangesAndItsLanesAreRecovered) {
  CreateArea("ranges", 65'536);
  constexpr uint64_t kWriters = 12;
  for (uint64_t i = 1; i <= kWriters; ++i) {
    const pid_t writer = StartWriter(*daemon_);
    ASSERT_GT(writer, 0);

    ASSERT_EQ(kill(writer, SIGKILL), 0);
    EXPECT_EQ(WaitForExit(writer), 128 + SIGKILL);

    ASSERT_TRUE(Eventually([&] { return ServiceStatus().recoveries() >= i; }));
    AttachClient reader = Client(daemon_->token(), true);
    auto area = reader.OpenArea("ranges");
    ASSERT_TRUE(area.ok());
    std::vector<std::byte> bytes(65'536);
    const Lane lane = reader.lane();
    const Status read = (*area)->Read(0, bytes, &lane);
    ASSERT_TRUE(read.ok()) << read.ToString();
    EXPECT_EQ(std::count(bytes.begin(), bytes.end(), bytes[0]),
              static_cast<ptrdiff_t>(bytes.size()));
    EXPECT_TRUE((*area)->Write(lane, 0, bytes).ok());
  }
  EXPECT_TRUE(Eventually([&] { return ServiceStatus().attached_processes() == 0; }));
}

TEST_F(AttachDoorTest, AWorkerThatDiesWhileNoDaemonRunsIsRecoveredByTheNext) {
  CreateArea("ranges", 65'536);
  const pid_t writer = StartWriter(*daemon_);
  ASSERT_GT(writer, 0);
  const pid_t daemon = daemon_->daemon_pid();
  ASSERT_TRUE(StopProcess(daemon));

  ASSERT_EQ(kill(writer, SIGKILL), 0);
  EXPECT_EQ(WaitForExit(writer), 128 + SIGKILL);
  const Status again = daemon_->KillDaemonAndWait();
  ASSERT_TRUE(again.ok()) << again.ToString();

  admin_ = Client(daemon_->token(), false);
  EXPECT_GE(ServiceStatus().recoveries(), 1u);
  EXPECT_EQ(ServiceStatus().attached_processes(), 0u);
  AttachClient next = Client(daemon_->token(), true);
  auto area = next.OpenArea("ranges");
  ASSERT_TRUE(area.ok());
  EXPECT_TRUE((*area)->Fill(next.lane(), 0, 65'536, std::byte{0}).ok());
}

TEST_F(AttachDoorTest, DaemonsKilledUnderTrafficLoseNoAcknowledgedAdd) {
  CreateArea("counter", 4096);
  v1::AddWordRequest add;
  add.set_name("counter");
  add.set_type(v1::WORD_TYPE_U64);
  add.set_delta(1);
  uint64_t acknowledged = 0;
  uint64_t unanswered = 0;
  for (int round = 0; round < 5; ++round) {
    const pid_t victim = daemon_->daemon_pid();
    AttachClient client = Client(daemon_->token(), false);
    for (int i = 0; i < 2000; ++i) {
      if (i == 1000) kill(victim, SIGKILL);
      if (client.Call("/statehouse.v1.Areas/AddWord", add.SerializeAsString()).ok()) {
        ++acknowledged;
      } else {
        ++unanswered;  // One at most for each connection: it may have been applied.
        break;
      }
    }
    ASSERT_TRUE(Eventually([&] {
      AttachClient probe;
      return daemon_->daemon_pid() != victim && probe.Connect(daemon_->attach_socket()).ok() &&
             probe.Hello(daemon_->token(), false).ok();
    }));
  }

  admin_ = Client(daemon_->token(), false);
  v1::LoadWordRequest load;
  load.set_name("counter");
  load.set_type(v1::WORD_TYPE_U64);
  const auto bytes = admin_.Call("/statehouse.v1.Areas/LoadWord", load.SerializeAsString());
  ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
  v1::LoadWordResponse response;
  ASSERT_TRUE(response.ParseFromString(*bytes));
  EXPECT_GE(response.value().unsigned_value(), acknowledged);
  EXPECT_LE(response.value().unsigned_value(), acknowledged + unanswered);
  EXPECT_GE(acknowledged, 5000u);
}

}  // namespace
}  // namespace statehouse::testing
