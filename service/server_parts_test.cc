#include "service/server_parts.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

#include <sstream>

#include "engine/state/test_keeping_vault.h"
#include "service/command_line.h"
#include "service/dev_mode.h"
#include "service/exit_codes.h"
#include "service/log.h"
#include "service/refused_tokens.h"
#include "service/rpc/test_certificates.h"

namespace statehouse {
namespace {

TEST(CommandLineTest, EachRoleIsRecognised) {
  struct Case {
    std::vector<std::string> arguments;
    Role role;
    std::vector<std::string> settings;
  };
  const Case cases[] = {
      {{}, Role::kKeeper, {}},
      {{"--dev"}, Role::kKeeper, {"--dev"}},
      {{"--no-keeper", "--dev"}, Role::kDaemon, {"--no-keeper", "--dev"}},
      {{"--internal-daemon", "--dev"}, Role::kDaemon, {"--dev"}},
      {{"--internal-keeper=42", "--dev"}, Role::kNextKeeper, {"--dev"}},
      {{"config", "check", "--dev"}, Role::kPrint, {"--dev"}},
      {{"config", "check", "--files", "--dev"}, Role::kPrint, {"--dev"}},
      {{"config", "show", "--dev", "--origin"}, Role::kPrint, {"--dev"}},
      {{"config", "default"}, Role::kPrint, {}},
      {{"config", "default", "--help"}, Role::kPrint, {"--help"}},
      {{"--dev", "--help"}, Role::kPrint, {"--dev", "--help"}},
      {{"--version"}, Role::kPrint, {"--version"}},
  };
  for (const Case& c : cases) {
    const auto line = ParseCommandLine(c.arguments);
    ASSERT_TRUE(line.ok()) << line.status().ToString();
    EXPECT_EQ(line->role, c.role) << ::testing::PrintToString(c.arguments);
    EXPECT_EQ(line->settings, c.settings);
  }
}

TEST(CommandLineTest, WhatIsNoCommandIsRefused) {
  const std::vector<std::string> cases[] = {{"start"},
                                            {"config"},
                                            {"config", "edit"},
                                            {"config", "default", "extra", "words"},
                                            {"config", "default", "--files"},
                                            {"--internal-keeper=x"},
                                            {"--internal-keeper=-1"}};
  for (const auto& arguments : cases) {
    EXPECT_EQ(ParseCommandLine(arguments).status().reason(), Reason::kInvalidArgument)
        << ::testing::PrintToString(arguments);
  }
}

// What `config check` ends with and says.
std::pair<int, std::string> Check(std::vector<std::string> settings) {
  settings.insert(settings.begin(), {"config", "check"});
  ::testing::internal::CaptureStderr();
  const int code = RunPrintCommand(ParseCommandLine(settings).value());
  return {code, ::testing::internal::GetCapturedStderr()};
}

TEST(CommandLineTest, CheckLooksAtTheFilesWhereItIsTold) {
  const TestFolder folder;
  const TestAuthority authority(folder / "ca.pem");
  authority.Issue(folder / "a.pem", folder / "a.key");
  authority.Issue(folder / "b.pem", folder / "b.key");
  std::ofstream(folder / "junk.toml") << "junk";
  const auto settings = [&](const char* key, const char* tokens) {
    return std::vector<std::string>{"--tls-certificate", folder / "a.pem", "--tls-key",
                                    folder / key,        "--tokens-file",  folder / tokens};
  };
  std::vector<std::string> wrong = settings("b.key", "junk.toml");
  EXPECT_EQ(Check(wrong), (std::pair<int, std::string>(kExitOk, "")));
  wrong.push_back("--files");
  const auto [code, says] = Check(wrong);
  EXPECT_EQ(code, kExitConfig);
  EXPECT_NE(says.find("b.key\": it is not the key of"), std::string::npos) << says;
  EXPECT_NE(says.find("junk.toml"), std::string::npos) << says;
  std::vector<std::string> right = settings("a.key", "none.toml");
  right.push_back("--files");
  EXPECT_EQ(Check(right), (std::pair<int, std::string>(kExitOk, "")));
  EXPECT_FALSE(std::filesystem::exists(folder / "none.toml"));
}

TEST(CommandLineTest, TheNextProcessesGetTheSameSettings) {
  const auto line = ParseCommandLine({"--dev", "--listen", "127.0.0.1:0"});
  ASSERT_TRUE(line.ok());

  const auto daemon = DaemonArguments("statehoused", *line);
  const auto keeper = NextKeeperArguments("statehoused", *line, 42);

  const auto parsed_daemon = ParseCommandLine({daemon.begin() + 1, daemon.end()});
  const auto parsed_keeper = ParseCommandLine({keeper.begin() + 1, keeper.end()});
  ASSERT_TRUE(parsed_daemon.ok() && parsed_keeper.ok());
  EXPECT_TRUE(parsed_daemon->started_by_keeper);
  EXPECT_EQ(parsed_daemon->settings, line->settings);
  EXPECT_EQ(parsed_keeper->adopted_daemon, 42);
  EXPECT_EQ(parsed_keeper->settings, line->settings);
}

TEST(ServerPartsTest, EndpointsAreJsonWithoutSecrets) {
  const Endpoints endpoints{"/run/x", {"127.0.0.1:1", "[::1]:2"}, "127.0.0.1:3", 7, 6};

  EXPECT_EQ(EndpointsJson(endpoints),
            "{\"attach\": \"/run/x/attach.sock\", \"grpc_unix\": \"/run/x/grpc.sock\", "
            "\"listen\": [\"127.0.0.1:1\", \"[::1]:2\"], \"http\": \"127.0.0.1:3\", "
            "\"daemon_pid\": 7, \"keeper_pid\": 6}\n");
}

TEST(ServerPartsTest, ChangesOfTokensAreNamed) {
  EXPECT_EQ(DescribeChange({"a", "b"}, {"a", "b"}), "no token added or removed");
  EXPECT_EQ(DescribeChange({"a"}, {"a", "b", "c"}), "added b, c");
  EXPECT_EQ(DescribeChange({"a", "b"}, {"b"}), "removed a");
  EXPECT_EQ(DescribeChange({"a"}, {"b"}), "added b; removed a");
}

TEST(ServerPartsTest, FailuresOfAStartHaveDocumentedCodes) {
  EXPECT_EQ(ExitCodeOf(Status(Reason::kConfigInvalid, "x")), kExitConfig);
  EXPECT_EQ(ExitCodeOf(Status(Reason::kBackingInvalid, "x")), kExitConfig);
  EXPECT_EQ(ExitCodeOf(Status(Reason::kUnavailable, "x")), kExitUnavailable);
  EXPECT_EQ(ExitCodeOf(Status(Reason::kMemoryExhausted, "x")), kExitSystem);
  EXPECT_EQ(ExitCodeOf(Status(Reason::kDataLoss, "x")), kExitInternal);
  for (const int code : {kExitConfig, kExitUnavailable, kExitSystem, kExitInternal}) {
    EXPECT_TRUE(IsStartUpFailure(code)) << code;
  }
  EXPECT_FALSE(IsStartUpFailure(kExitOk));
  EXPECT_FALSE(IsStartUpFailure(kExitCutShort));
}

class CertificateMetrics final : public Metrics {
 public:
  void OnCall(Door, std::string_view, Reason, std::chrono::nanoseconds) override {}
  void OnAuthFailure(Door, Reason) override {}
  void OnConnectionThrottled() override {}
  void OnConnectionHeld() override {}
  void OnConnectionEnded() override {}
  void OnConnectionOpen(int) override {}
  void OnConnectionRefused() override {}
  void OnCertificate(int64_t expiry_unix_s) override { expiry_unix_s_ = expiry_unix_s; }
  void OnTlsFilesRefused(bool refused) override { files_refused_ = refused; }
  void OnAttach(int) override {}
  std::string Scrape() override { return ""; }
  int64_t expiry_unix_s() const { return expiry_unix_s_; }
  bool files_refused() const { return files_refused_; }

 private:
  int64_t expiry_unix_s_ = 0;
  bool files_refused_ = false;
};

TEST(ServerPartsTest, HttpIsOfOtherHostsOnlyWhereThatIsAllowed) {
  Config config;
  config.http.listen = "127.0.0.1:7";
  EXPECT_TRUE(HttpListenerOf(config).loopback_only);
  config.http.allow_remote = true;
  const ListenerSpec allowed = HttpListenerOf(config);
  EXPECT_FALSE(allowed.loopback_only);
  EXPECT_EQ(allowed.address, "127.0.0.1:7");
}

TEST(ServerPartsTest, OfTlsFilesTheExpiryIsOfThoseInUseAndTheLogTellsOfBoth) {
  std::ostringstream log;
  const auto before = spdlog::default_logger();
  spdlog::set_default_logger(std::make_shared<spdlog::logger>(
      "test", std::make_shared<spdlog::sinks::ostream_sink_st>(log)));
  CertificateMetrics metrics;
  Config config;
  config.tls.certificate_file = "/x/s.pem";
  KeepingVault vault;
  RefusedTokens refused;
  const GrpcDoorOptions options = GrpcDoorOptionsOf(config, &metrics, &refused, &vault);

  options.on_tls_taken({"certificate", "key", ""}, 86'400);
  EXPECT_EQ(metrics.expiry_unix_s(), 86'400);
  EXPECT_FALSE(metrics.files_refused());
  const Status why(Reason::kConfigInvalid, "TLS file \"/x/s.key\": no");
  options.on_tls_refused(why, 86'400);
  EXPECT_EQ(metrics.expiry_unix_s(), 86'400);
  EXPECT_TRUE(metrics.files_refused());
  options.on_tls_mended();
  EXPECT_FALSE(metrics.files_refused());
  options.on_tls_refused(why, 86'400);
  options.on_tls_taken({"certificate", "key", ""}, 86'400);
  EXPECT_FALSE(metrics.files_refused());

  spdlog::set_default_logger(before);
  for (const char* part :
       {"a certificate that ends at 1970-01-02 00:00:00 UTC",
        "not taken: TLS file \"/x/s.key\": no; the", "stay in use", "again those"}) {
    EXPECT_NE(log.str().find(part), std::string::npos) << part << " is not in\n" << log.str();
  }
}

TEST(DevModeTest, HintsNameEveryDoorAndTheToken) {
  DevEndpoints endpoints{"statehouse+unix:///d", "statehouse://127.0.0.1:1", "http://127.0.0.1:2",
                         "sh1_t", 9};

  const std::string hints = DevHints(endpoints);

  for (const char* part : {"statehouse+unix:///d", "statehouse://127.0.0.1:1", "sh1_t", "Python",
                           "C++", "CLI", "grpcurl -plaintext", " 127.0.0.1:1 "}) {
    EXPECT_NE(hints.find(part), std::string::npos) << part << " is not in\n" << hints;
  }
  EXPECT_EQ(DevJson(endpoints),
            "{\"url\": \"statehouse+unix:///d\", \"tcp_url\": \"statehouse://127.0.0.1:1\", "
            "\"token\": \"sh1_t\", "
            "\"http\": \"http://127.0.0.1:2\", \"pid\": 9}\n");
}

}  // namespace
}  // namespace statehouse
