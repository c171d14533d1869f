// The life of the service: killed, reloaded, drained, refused. Every kill is real.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "service/auth/token_file.h"
#include "service/exit_codes.h"
#include "service/rpc/test_certificates.h"
#include "statehouse/v1/area.pb.h"
#include "statehouse/v1/dict.pb.h"
#include "tests/support/attach_client.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

constexpr const char* kCreate = "/statehouse.v1.Areas/CreateArea";
constexpr const char* kAdd = "/statehouse.v1.Areas/AddWord";
constexpr const char* kWait = "/statehouse.v1.Areas/WaitArea";

std::unique_ptr<Daemon> MustStart(DaemonOptions options = {}) {
  auto daemon = Daemon::Start(std::move(options));
  EXPECT_TRUE(daemon.ok()) << daemon.status().ToString();
  return daemon.ok() ? *std::move(daemon) : nullptr;
}

Status CreateArea(AttachClient* client, const std::string& name, uint64_t size) {
  v1::CreateAreaRequest request;
  request.set_name(name);
  request.set_size(size);
  return client->Call(kCreate, request.SerializeAsString()).status();
}

// Adds `delta` at `pos` by a call; the new value.
StatusOr<uint64_t> AddByCall(AttachClient* client, const std::string& name, uint64_t pos,
                             int64_t delta) {
  v1::AddWordRequest request;
  request.set_name(name);
  request.set_pos(pos);
  request.set_type(v1::WORD_TYPE_U64);
  request.set_delta(delta);
  SH_ASSIGN_OR_RETURN(const std::string bytes, client->Call(kAdd, request.SerializeAsString()));
  v1::AddWordResponse response;
  if (!response.ParseFromString(bytes))
    return Status(Reason::kInternal, "the response does not parse");
  return response.value().unsigned_value();
}

AttachClient Connected(const Daemon& daemon, bool want_lanes = false) {
  AttachClient client;
  EXPECT_TRUE(client.Connect(daemon.attach_socket()).ok());
  const auto welcome = client.Hello(daemon.token(), want_lanes);
  EXPECT_TRUE(welcome.ok()) << welcome.status().ToString();
  return client;
}

Status CreateIn(const Daemon& daemon, const std::string& name) {
  AttachClient client = Connected(daemon);
  return CreateArea(&client, name, 64);
}

TEST(LifecycleTest, AKilledDaemonComesBackWithTheSameStateAndPorts) {
  const auto daemon = MustStart();
  ASSERT_NE(daemon, nullptr);
  const std::string tcp = daemon->tcp_address();
  const std::string http = daemon->http_address();
  const pid_t keeper = daemon->keeper_pid();
  {
    AttachClient client = Connected(*daemon);
    ASSERT_TRUE(CreateArea(&client, "counter", 4096).ok());
  }

  for (uint64_t round = 1; round <= 4; ++round) {
    AttachClient client = Connected(*daemon);
    const auto value = AddByCall(&client, "counter", 0, 1);
    ASSERT_TRUE(value.ok()) << value.status().ToString();
    EXPECT_EQ(*value, round);
    const Status again = daemon->KillDaemonAndWait();
    ASSERT_TRUE(again.ok()) << again.ToString();
    EXPECT_TRUE(client.EventuallyClosed());
  }

  EXPECT_EQ(daemon->tcp_address(), tcp);
  EXPECT_EQ(daemon->http_address(), http);
  EXPECT_EQ(daemon->keeper_pid(), keeper);
  EXPECT_EQ(daemon->Stop(), 0);
}

TEST(LifecycleTest, TheMemoryOfDictsIsLimitedAndCountedAfterAKillToo) {
  DaemonOptions options;
  options.arguments = {"--memory-max", "4M"};
  const auto daemon = MustStart(options);
  ASSERT_NE(daemon, nullptr);
  const auto gauge = [&] {
    const std::string name = "\nstatehouse_memory_bytes ";
    const std::string text = daemon->HttpGet("/metrics");
    const size_t at = text.find(name);
    return at == std::string::npos ? 0.0 : std::strtod(text.c_str() + at + name.size(), nullptr);
  };
  const auto set = [](AttachClient* client, int number) {
    v1::SetEntryRequest request;
    request.set_name("d");
    request.set_key("key" + std::to_string(number));
    request.mutable_value()->set_bytes_value(std::string(10'000, 'v'));
    return client->Call("/statehouse.v1.Dicts/SetEntry", request.SerializeAsString()).status();
  };
  int entries = 0;
  {
    AttachClient client = Connected(*daemon);
    ASSERT_TRUE(CreateArea(&client, "a", 1 << 20).ok());
    v1::CreateDictRequest create;
    create.set_name("d");
    ASSERT_TRUE(client.Call("/statehouse.v1.Dicts/CreateDict", create.SerializeAsString()).ok());
    Status refused;
    while (entries < 1000 && (refused = set(&client, entries)).ok()) ++entries;
    EXPECT_EQ(refused.reason(), Reason::kMemoryExhausted) << refused.ToString();
  }
  EXPECT_GT(entries, 200);
  const double used = gauge();
  EXPECT_GE(used, (1 << 20) + entries * 10'000.0);
  EXPECT_LE(used, (4 << 20) + (256 << 10));  // With what the daemon's lanes take.

  const Status again = daemon->KillDaemonAndWait();
  ASSERT_TRUE(again.ok()) << again.ToString();

  EXPECT_GE(gauge(), used);
  EXPECT_LE(gauge(), used + (256 << 10));
  AttachClient client = Connected(*daemon);
  EXPECT_EQ(set(&client, entries).reason(), Reason::kMemoryExhausted);
  v1::DeleteAreaRequest remove;
  remove.set_name("a");
  ASSERT_TRUE(client.Call("/statehouse.v1.Areas/DeleteArea", remove.SerializeAsString()).ok());
  EXPECT_TRUE(set(&client, entries).ok());
  EXPECT_EQ(daemon->Stop(), 0);
}

TEST(LifecycleTest, AConnectionMadeWhileNoDaemonRunsIsServedByTheNext) {
  const auto daemon = MustStart();
  ASSERT_NE(daemon, nullptr);
  const pid_t victim = daemon->daemon_pid();
  ASSERT_TRUE(StopProcess(victim));  // Nobody accepts now.
  AttachClient client;
  ASSERT_TRUE(client.Connect(daemon->attach_socket()).ok());

  ASSERT_EQ(kill(victim, SIGKILL), 0);
  const auto welcome = client.Hello(daemon->token(), false);

  ASSERT_TRUE(welcome.ok()) << welcome.status().ToString();
  EXPECT_EQ(welcome->daemon_generation, 2u);
}

TEST(LifecycleTest, AKilledKeeperIsReplacedAndTheStateOutlivesBoth) {
  const auto daemon = MustStart();
  ASSERT_NE(daemon, nullptr);
  const std::string tcp = daemon->tcp_address();
  {
    AttachClient client = Connected(*daemon);
    ASSERT_TRUE(CreateArea(&client, "counter", 4096).ok());
    ASSERT_TRUE(AddByCall(&client, "counter", 8, 41).ok());
  }

  for (int round = 0; round < 3; ++round) {
    const pid_t same = daemon->daemon_pid();
    const Status replaced = daemon->KillKeeperAndWait();
    ASSERT_TRUE(replaced.ok()) << replaced.ToString();
    EXPECT_EQ(daemon->daemon_pid(), same);
    const Status again = daemon->KillDaemonAndWait();
    ASSERT_TRUE(again.ok()) << again.ToString();
  }
  AttachClient client = Connected(*daemon);
  const auto value = AddByCall(&client, "counter", 8, 1);

  ASSERT_TRUE(value.ok()) << value.status().ToString();
  EXPECT_EQ(*value, 42u);
  EXPECT_EQ(daemon->tcp_address(), tcp);
}

TEST(LifecycleTest, AKeeperKilledAgainAndAgainIsReplacedEachTime) {
  const auto daemon = MustStart();
  ASSERT_NE(daemon, nullptr);
  const pid_t same = daemon->daemon_pid();

  for (int round = 0; round < 5; ++round) {
    const Status replaced = daemon->KillKeeperAndWait();
    ASSERT_TRUE(replaced.ok()) << replaced.ToString();
  }
  AttachClient client = Connected(*daemon);

  EXPECT_TRUE(CreateArea(&client, "after", 64).ok());
  EXPECT_EQ(daemon->daemon_pid(), same);
}

// The keeper that the daemon started must stop the service when told, though it is not its parent.
TEST(LifecycleTest, TheNextKeeperStopsTheServiceWhenTold) {
  const auto daemon = MustStart();
  ASSERT_NE(daemon, nullptr);
  ASSERT_TRUE(daemon->KillKeeperAndWait().ok());

  daemon->Stop();

  EXPECT_FALSE(HasDescendants());
  EXPECT_FALSE(std::filesystem::exists(daemon->attach_socket()));
}

TEST(LifecycleTest, SigtermDrainsAndLeavesNothing) {
  const auto daemon = MustStart();
  ASSERT_NE(daemon, nullptr);

  const int code = daemon->Stop();

  EXPECT_EQ(code, kExitOk);
  EXPECT_FALSE(HasDescendants());
  EXPECT_TRUE(std::filesystem::is_empty(daemon->runtime_dir())) << daemon->errors();
}

TEST(LifecycleTest, AParkedCallEndsWithDrainingWhenTheServiceStops) {
  const auto daemon = MustStart();
  ASSERT_NE(daemon, nullptr);
  AttachClient client = Connected(*daemon);
  ASSERT_TRUE(CreateArea(&client, "quiet", 64).ok());
  v1::WaitAreaRequest wait;
  wait.set_name("quiet");
  wait.set_since(0);
  wait.mutable_timeout()->set_seconds(3600);
  ASSERT_TRUE(client.Send({77, AttachCall{kWait, 0, wait.SerializeAsString()}}).ok());
  ASSERT_EQ(kill(daemon->keeper_pid(), SIGTERM), 0);

  const auto received = client.Receive();

  ASSERT_TRUE(received.ok()) << received.status().ToString();
  const auto* error = std::get_if<AttachError>(&received->packet.message);
  ASSERT_NE(error, nullptr);
  EXPECT_EQ(received->packet.request_id, 77u);
  EXPECT_EQ(error->reason, Reason::kDraining);
}

TEST(LifecycleTest, ASecondInstanceOnOneFolderIsRefusedAndTheFirstGoesOn) {
  const auto daemon = MustStart();
  ASSERT_NE(daemon, nullptr);
  DaemonOptions options;
  options.runtime_dir = daemon->runtime_dir();

  const auto second = Daemon::RunToEnd(options);

  ASSERT_TRUE(second.ok()) << second.status().ToString();
  EXPECT_EQ(second->code, kExitUnavailable);
  EXPECT_NE(second->errors.find("serves " + daemon->runtime_dir()), std::string::npos)
      << second->errors;
  AttachClient client = Connected(*daemon);
  EXPECT_TRUE(CreateArea(&client, "still", 64).ok());
}

TEST(LifecycleTest, AFolderLeftByAKilledServiceIsTakenOver) {
  TemporaryFolder folder;
  DaemonOptions options;
  options.runtime_dir = folder.path() + "/run";
  {
    const auto dead = MustStart(options);
    ASSERT_NE(dead, nullptr);
    ASSERT_GT(KillDescendants(), 0);
    ASSERT_TRUE(std::filesystem::exists(dead->attach_socket()));
    dead->Forget();
  }

  const auto next = MustStart(options);

  ASSERT_NE(next, nullptr);
  AttachClient client = Connected(*next);
  EXPECT_TRUE(CreateArea(&client, "fresh", 64).ok());
}

TEST(LifecycleTest, AWrongFlagEndsTheKeeperWithTheConfigurationCode) {
  DaemonOptions options;
  options.arguments = {"--no-such-flag"};

  const auto ending = Daemon::RunToEnd(options);

  ASSERT_TRUE(ending.ok());
  EXPECT_EQ(ending->code, kExitConfig);
  EXPECT_NE(ending->errors.find("no-such-flag"), std::string::npos) << ending->errors;
}

TEST(LifecycleTest, ANonLoopbackAddressNeedsTls) {
  DaemonOptions options;
  options.arguments = {"--listen", "0.0.0.0:0"};

  const auto ending = Daemon::RunToEnd(options);

  ASSERT_TRUE(ending.ok());
  EXPECT_EQ(ending->code, kExitConfig);
  EXPECT_NE(ending->errors.find("needs TLS"), std::string::npos) << ending->errors;
}

TEST(LifecycleTest, ACertificateThatIsNotThereEndsTheStart) {
  DaemonOptions options;
  options.arguments = {"--tls-certificate", "/none/service.pem", "--tls-key", "/none/service.key"};

  const auto ending = Daemon::RunToEnd(options);

  ASSERT_TRUE(ending.ok());
  EXPECT_EQ(ending->code, kExitConfig);
  EXPECT_NE(ending->errors.find("/none/service.pem"), std::string::npos) << ending->errors;
}

TEST(LifecycleTest, ADaemonThatWasKilledHasItsTlsAgainAlthoughTheFilesAreSpoiled) {
  const TestFolder folder;
  const TestAuthority authority(folder / "ca.pem");
  authority.Issue(folder / "service.pem", folder / "service.key");
  DaemonOptions options;
  options.arguments = {"--tls-certificate", folder / "service.pem", "--tls-key",
                       folder / "service.key"};
  const auto daemon = MustStart(options);
  ASSERT_NE(daemon, nullptr);
  const auto line_of = [&daemon](const std::string& metric) {
    const std::string metrics = daemon->HttpGet("/metrics");
    const size_t at = metrics.find("\n" + metric + " ");
    if (at == std::string::npos) return std::string();
    return metrics.substr(at + 1, metrics.find('\n', at + 1) - at - 1);
  };
  const std::string before = line_of("statehouse_tls_certificate_expiry_seconds");
  EXPECT_NE(before, "");
  EXPECT_EQ(line_of("statehouse_tls_files_refused"), "statehouse_tls_files_refused 0");
  std::ofstream(folder / "service.pem") << "junk";

  ASSERT_TRUE(daemon->KillDaemonAndWait().ok()) << daemon->errors();

  EXPECT_EQ(line_of("statehouse_tls_certificate_expiry_seconds"), before);
  EXPECT_EQ(line_of("statehouse_tls_files_refused"), "statehouse_tls_files_refused 1");
  EXPECT_NE(daemon->errors().find("are not taken: TLS file"), std::string::npos)
      << daemon->errors();
  EXPECT_EQ(daemon->Stop(), kExitOk);
}

TEST(LifecycleTest, HangupReloadsTokensAndClosesRevokedConnections) {
  const auto daemon = MustStart();
  ASSERT_NE(daemon, nullptr);
  TokenSpec spec;
  spec.description = "second";
  spec.grants.push_back(*ParseGrant("area:*:read"));
  const auto token = CreateToken(daemon->tokens_file(), spec);
  ASSERT_TRUE(token.ok());
  AttachClient early;
  ASSERT_TRUE(early.Connect(daemon->attach_socket()).ok());
  EXPECT_EQ(early.Hello(*token, false).status().reason(), Reason::kUnauthenticated);

  ASSERT_EQ(kill(daemon->keeper_pid(), SIGHUP), 0);
  AttachClient client;
  ASSERT_TRUE(Eventually([&] {
    client = AttachClient();
    return client.Connect(daemon->attach_socket()).ok() && client.Hello(*token, false).ok();
  })) << daemon->errors();
  TokenParts parts;
  ASSERT_TRUE(SplitToken(*token, &parts));
  ASSERT_TRUE(RevokeToken(daemon->tokens_file(), parts.id).ok());
  ASSERT_EQ(kill(daemon->keeper_pid(), SIGHUP), 0);
  const auto told = client.Receive();

  ASSERT_TRUE(told.ok()) << told.status().ToString();
  EXPECT_EQ(std::get<AttachError>(told->packet.message).reason, Reason::kUnauthenticated);
  EXPECT_TRUE(client.EventuallyClosed());
  EXPECT_NE(daemon->errors().find("removed " + std::string(parts.id)), std::string::npos)
      << daemon->errors();
}

TEST(LifecycleTest, HangupReloadsTheConfigurationAndSaysWhatChanged) {
  TemporaryFolder folder;
  const std::string config = folder.path() + "/statehouse.toml";
  std::ofstream(config) << "[log]\nslow_call_ms = 0\n";
  DaemonOptions options;
  options.arguments = {"--config", config};
  const auto daemon = MustStart(options);
  ASSERT_NE(daemon, nullptr);
  AttachClient client = Connected(*daemon);
  const auto says = [&](const std::string& text) {
    return Eventually([&] { return daemon->errors().find(text) != std::string::npos; });
  };

  std::ofstream(config) << "[log]\nslow_call_ms = 0\naudit = false\nformat = \"text\"\n"
                           "[areas]\ncount_max = 5\n[auth]\ncalls_at_once_max = 1\n"
                           "[[area]]\nname = \"declared\"\nsize = 4096\n";
  ASSERT_EQ(kill(daemon->keeper_pid(), SIGHUP), 0);
  EXPECT_TRUE(says("log.audit is false, was true")) << daemon->errors();
  EXPECT_TRUE(says("auth.calls_at_once_max is 1, was 0"));
  EXPECT_TRUE(says("areas.count_max has changed from 4096 to 5 and takes a restart"));
  EXPECT_TRUE(says("log.format has changed from \\\"auto\\\" to \\\"text\\\" and takes a restart"));
  EXPECT_TRUE(says("[[area]] has changed and takes a restart"));
  EXPECT_TRUE(CreateArea(&client, "unseen", 4096).ok());

  std::ofstream(config) << "[log\n";
  ASSERT_EQ(kill(daemon->keeper_pid(), SIGHUP), 0);
  EXPECT_TRUE(says("reloading the configuration failed, the old one stays: " + config + ":"))
      << daemon->errors();
  EXPECT_TRUE(says("the next daemon would not start with it, so mend it now"));

  std::ofstream(config) << "[log]\nslow_call_ms = 0\n[areas]\ncount_max = 5\n";
  ASSERT_EQ(kill(daemon->keeper_pid(), SIGHUP), 0);
  EXPECT_TRUE(says("log.audit is true, was false")) << daemon->errors();
  EXPECT_TRUE(CreateArea(&client, "seen", 4096).ok());
  EXPECT_TRUE(says("audit: Areas/CreateArea \\\"seen\\\" by token")) << daemon->errors();
  EXPECT_EQ(daemon->errors().find("unseen"), std::string::npos);
}

TEST(LifecycleTest, HttpServesMetricsAndHealth) {
  const auto daemon = MustStart();
  ASSERT_NE(daemon, nullptr);
  AttachClient client = Connected(*daemon, true);
  ASSERT_TRUE(CreateArea(&client, "seen", 4096).ok());

  const std::string metrics = daemon->HttpGet("/metrics");

  EXPECT_EQ(daemon->HttpGet("/healthz").substr(0, 15), "HTTP/1.1 200 OK");
  EXPECT_EQ(daemon->HttpGet("/readyz").substr(0, 15), "HTTP/1.1 200 OK");
  EXPECT_EQ(daemon->HttpGet("/nothing").substr(9, 3), "404");
  EXPECT_EQ(daemon->HttpGet("/metrics", "DELETE").substr(9, 3), "405");
  EXPECT_NE(metrics.find("statehouse_areas 1"), std::string::npos) << metrics;
  EXPECT_NE(metrics.find("statehouse_attached_workers 1"), std::string::npos) << metrics;
  EXPECT_NE(metrics.find("statehouse_calls_total{door=\"local\",method=\"" + std::string(kCreate) +
                         "\",reason=\"OK\"} 1"),
            std::string::npos)
      << metrics;
}

TEST(LifecycleTest, ADescriptorAreaSurvivesTheDaemon) {
  UniqueFd file(
      memfd_create("area-of-the-user", 0));  // Not close-on-exec: the service inherits it.
  ASSERT_TRUE(file.valid());
  ASSERT_EQ(ftruncate(file.get(), 8192), 0);
  TemporaryFolder folder;
  const std::string config = folder.path() + "/statehouse.toml";
  std::ofstream(config) << "[[area]]\nname = \"given\"\nsize = 8192\nfd = " << file.get() << "\n";
  DaemonOptions options;
  options.arguments = {"--config", config};
  options.pass_descriptors = true;
  const auto daemon = MustStart(options);
  ASSERT_NE(daemon, nullptr);
  {
    AttachClient client = Connected(*daemon);
    const auto value = AddByCall(&client, "given", 16, 5);
    ASSERT_TRUE(value.ok()) << value.status().ToString();
  }

  const Status again = daemon->KillDaemonAndWait();
  ASSERT_TRUE(again.ok()) << again.ToString();
  AttachClient client = Connected(*daemon);
  const auto value = AddByCall(&client, "given", 16, 1);

  ASSERT_TRUE(value.ok()) << value.status().ToString();
  EXPECT_EQ(*value, 6u);
  uint64_t in_file = 0;
  ASSERT_EQ(pread(file.get(), &in_file, sizeof(in_file), 16),
            static_cast<ssize_t>(sizeof(in_file)));
  EXPECT_EQ(in_file, 6u);
}

TEST(LifecycleTest, WithoutAKeeperTheDaemonServesAloneAndStopsCleanly) {
  DaemonOptions options;
  options.arguments = {"--no-keeper"};
  const auto daemon = MustStart(options);
  ASSERT_NE(daemon, nullptr);

  AttachClient client = Connected(*daemon);

  EXPECT_TRUE(CreateArea(&client, "alone", 64).ok());
  EXPECT_EQ(daemon->keeper_pid(), 0);
  EXPECT_EQ(daemon->Stop(), kExitOk);
}

TEST(LifecycleTest, ADevelopmentServiceKeepsFolderAndTokenOverKillsAndRemovesThemAtTheEnd) {
  DaemonOptions options;
  options.dev = true;
  const auto daemon = MustStart(options);
  ASSERT_NE(daemon, nullptr);
  const std::string folder = daemon->runtime_dir();
  const std::string tcp = daemon->tcp_address();

  EXPECT_TRUE(CreateIn(*daemon, "kept").ok());
  ASSERT_TRUE(daemon->KillDaemonAndWait().ok());
  ASSERT_TRUE(daemon->KillKeeperAndWait().ok());
  ASSERT_TRUE(daemon->KillDaemonAndWait().ok());

  AttachClient client = Connected(*daemon);  // With the token of the first daemon.
  EXPECT_TRUE(client.OpenArea("kept").ok());
  EXPECT_EQ(daemon->tcp_address(), tcp);
  const std::string hints = daemon->output();
  EXPECT_NE(hints.find("statehouse+unix://" + folder), std::string::npos) << hints;
  EXPECT_NE(hints.find(daemon->token()), std::string::npos);
  EXPECT_EQ(hints.find("Statehouse runs"), hints.rfind("Statehouse runs")) << "printed once";
  daemon->Stop();
  EXPECT_FALSE(std::filesystem::exists(folder));
}

// More areas than one confirmation covers and than one environment string names, with values in
// each.
TEST(LifecycleTest, ManyAreasOutliveEveryOrderOfKills) {
  constexpr int kAreas = 300;
  const auto daemon = MustStart();
  ASSERT_NE(daemon, nullptr);
  {
    AttachClient client = Connected(*daemon);
    for (int i = 0; i < kAreas; ++i) {
      const std::string name = "area/" + std::to_string(i);
      ASSERT_TRUE(CreateArea(&client, name, 4096).ok());
      ASSERT_TRUE(AddByCall(&client, name, 0, i).ok());
    }
  }

  for (const char* kill : {"daemon", "keeper", "keeper", "daemon", "daemon", "keeper", "daemon"}) {
    const bool daemons_turn = std::string(kill) == "daemon";
    const Status again = daemons_turn ? daemon->KillDaemonAndWait() : daemon->KillKeeperAndWait();
    ASSERT_TRUE(again.ok()) << kill << ": " << again.ToString();
  }

  AttachClient client = Connected(*daemon);
  for (int i = 0; i < kAreas; ++i) {
    const auto value = AddByCall(&client, "area/" + std::to_string(i), 0, 1);
    ASSERT_TRUE(value.ok()) << value.status().ToString();
    EXPECT_EQ(*value, static_cast<uint64_t>(i + 1));
  }
}

TEST(LifecycleTest, ADaemonThatCannotStartAgainIsTriedAgainUntilItCan) {
  TemporaryFolder folder;
  const std::string config = folder.path() + "/statehouse.toml";
  std::ofstream(config) << "[areas]\ncount_max = 10\n";
  DaemonOptions options;
  options.arguments = {"--config", config};
  const auto daemon = MustStart(options);
  ASSERT_NE(daemon, nullptr);
  ASSERT_TRUE(CreateIn(*daemon, "kept").ok());
  const pid_t first = daemon->daemon_pid();
  std::ofstream(config) << "[areas]\nno_such_key = 10\n";

  ASSERT_EQ(kill(first, SIGKILL), 0);
  ASSERT_TRUE(
      Eventually([&] { return daemon->errors().find("ended with code 78") != std::string::npos; }));
  std::ofstream(config) << "[areas]\ncount_max = 10\n";

  ASSERT_TRUE(Eventually([&] { return daemon->daemon_pid() != first; })) << daemon->errors();
  AttachClient client = Connected(*daemon);
  EXPECT_TRUE(client.OpenArea("kept").ok());
}

TEST(LifecycleTest, ASecondSignalStopsAtOnce) {
  DaemonOptions options;
  options.arguments = {"--drain-grace", "600000"};
  const auto daemon = MustStart(options);
  ASSERT_NE(daemon, nullptr);
  const pid_t keeper = daemon->keeper_pid();
  const pid_t slow = daemon->daemon_pid();
  ASSERT_TRUE(StopProcess(slow));  // Both signals are pending before it can act on the first.
  ASSERT_EQ(kill(slow, SIGTERM), 0);
  ASSERT_EQ(kill(slow, SIGINT), 0);

  ASSERT_EQ(kill(slow, SIGCONT), 0);
  const int code = WaitForExit(keeper);
  daemon->Forget();

  EXPECT_EQ(code, kExitCutShort) << daemon->errors();
  EXPECT_FALSE(HasDescendants());
}

}  // namespace
}  // namespace statehouse::testing
