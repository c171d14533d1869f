// `statehouse doctor` and `statehouse help` against real services, sound and not.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "service/rpc/test_certificates.h"
#include "tests/support/command_line.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

constexpr int kUnhealthy = 8;

class CliDoctorTest : public ::testing::Test {
 protected:
  void Start(DaemonOptions options = {}) {
    auto daemon = Daemon::Start(std::move(options));
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
  }
  CommandLine::Ran Shell(const std::string& script) const {
    return CommandLine(daemon_.get()).Shell(script);
  }
  CommandLine::Ran Doctor(const std::string& more = "") const {
    return Shell("{} doctor --tokens-file '" + daemon_->tokens_file() + "' " + more);
  }
  // The line of one check, or "".
  static std::string Line(const CommandLine::Ran& ran, const std::string& check) {
    const size_t name = ran.out.find(" " + check + "  ");
    if (name == std::string::npos) return "";
    const size_t begin = ran.out.rfind('\n', name) + 1;
    return ran.out.substr(begin, ran.out.find('\n', name) - begin);
  }
  static void ExpectLine(const CommandLine::Ran& ran, const std::string& check,
                         const std::string& verdict, const std::string& part) {
    const std::string line = Line(ran, check);
    EXPECT_TRUE(line.starts_with(verdict)) << check << ": " << ran.out << ran.errors;
    EXPECT_NE(line.find(part), std::string::npos) << check << ": " << ran.out;
  }

  std::unique_ptr<Daemon> daemon_;
};

TEST_F(CliDoctorTest, ASoundServicePassesEveryCheck) {
  Start();
  const CommandLine::Ran ran = Doctor("--probe");
  EXPECT_EQ(ran.code, 0) << ran.out << ran.errors;
  for (const char* const check :
       {"runtime-dir", "tokens-file", "attach-door", "grpc-door", "tcp-door", "token", "version",
        "drain-state", "memory", "http-door", "clock"}) {
    ExpectLine(ran, check, "ok", "");
  }
  for (const char* const check : {"kernel", "shared-memory", "process-limits", "cgroup-memory"}) {
    EXPECT_NE(Line(ran, check), "") << ran.out;  // As this host is.
  }
  EXPECT_NE(ran.out.find("15 checks, 0 problems"), std::string::npos) << ran.out;
  EXPECT_EQ(Shell("{} dict ls statehouse-doctor | wc -l").out, "1\n") << "the probe is gone";

  const CommandLine::Ran json =
      Shell("{} -o json doctor --tokens-file '" + daemon_->tokens_file() + "'");
  EXPECT_EQ(json.code, 0);
  EXPECT_NE(json.out.find("\"healthy\": true"), std::string::npos) << json.out;
  EXPECT_NE(json.out.find("\"check\": \"attach-door\""), std::string::npos) << json.out;
  EXPECT_NE(Doctor("-v").out.find("why: workers of this host attach"), std::string::npos);
}

TEST_F(CliDoctorTest, ChangedModesAreFound) {
  Start();
  chmod(daemon_->runtime_dir().c_str(), 0777);
  chmod(daemon_->tokens_file().c_str(), 0666);
  const CommandLine::Ran ran = Doctor();
  EXPECT_EQ(ran.code, kUnhealthy) << ran.out;
  ExpectLine(ran, "runtime-dir", "problem", "written by others (mode 0777)");
  ExpectLine(ran, "tokens-file", "problem", "written by others (mode 0666)");
  EXPECT_NE(ran.out.find("fix: chmod 0700 " + daemon_->runtime_dir()), std::string::npos);
  chmod(daemon_->runtime_dir().c_str(), 0700);
}

TEST_F(CliDoctorTest, AServiceThatIsNotThereIsFound) {
  Start();
  const std::string tcp = daemon_->tcp_address();
  const std::string empty = daemon_->folder() + "/empty";
  mkdir(empty.c_str(), 0700);
  const CommandLine::Ran folder = Shell("{} --url statehouse+unix://" + empty + " doctor");
  EXPECT_EQ(folder.code, kUnhealthy) << folder.out;
  ExpectLine(folder, "attach-door", "problem", "No such file");
  ExpectLine(folder, "grpc-door", "problem", "No such file");
  EXPECT_EQ(Line(folder, "token"), "") << "nobody answered that could tell";

  EXPECT_EQ(Shell("{} --url statehouse://" + tcp + " doctor").code, 0);
  daemon_->Stop();
  const CommandLine::Ran port = Shell("{} --url statehouse://" + tcp + " doctor");
  EXPECT_EQ(port.code, kUnhealthy) << port.out;
  ExpectLine(port, "tcp-door", "problem", "Connection refused");
  const CommandLine::Ran bad = Shell("{} --url http://x doctor");
  EXPECT_EQ(bad.code, kUnhealthy) << bad.out;
  ExpectLine(bad, "settings", "problem", "http://x");
}

TEST_F(CliDoctorTest, ATokenThatIsMissingOrWrongIsFound) {
  Start();
  const std::string url = "STATEHOUSE_URL=statehouse+unix://" + daemon_->runtime_dir() + " ";
  const CommandLine::Ran missing = Shell("env -u STATEHOUSE_TOKEN " + url + "{cli} doctor");
  EXPECT_EQ(missing.code, kUnhealthy) << missing.out;
  ExpectLine(missing, "token", "problem", "no access token");
  ExpectLine(missing, "attach-door", "ok", "answers");
  const CommandLine::Ran wrong = Shell(url + "STATEHOUSE_TOKEN=wrong {cli} doctor");
  EXPECT_EQ(wrong.code, kUnhealthy) << wrong.out;
  ExpectLine(wrong, "token", "problem", "refused");
  const std::string file = daemon_->folder() + "/token";
  const CommandLine::Ran shared =
      Shell("printf %s '" + daemon_->token() + "' > " + file + "; chmod 0644 " + file +
            "; env -u STATEHOUSE_TOKEN " + url + "STATEHOUSE_TOKEN_FILE=" + file + " {cli} doctor");
  EXPECT_EQ(shared.code, kUnhealthy) << shared.out;
  ExpectLine(shared, "client-token-file", "problem", "mode 0644");
  ExpectLine(shared, "token", "ok", "accepted");
}

TEST_F(CliDoctorTest, AValidTokenBeyondItsOwnLimitIsAWarning) {
  const TestFolder folder;
  std::ofstream(folder / "statehouse.toml") << "[auth]\ncalls_at_once_max = 1\n";
  DaemonOptions options;
  options.arguments = {"--config", folder / "statehouse.toml"};
  Start(std::move(options));
  // A wait is the one call that the token may have; it begins anew where doctor's came before.
  const CommandLine::Ran ran = Shell(
      "{} area create counters --size 64 >&2; begin() { {} --transport network area wait counters "
      "--for 50 >&2 & waiting=$!; }; begin; for i in $(seq 50); do found=$({} doctor --tokens-file "
      "'" +
      daemon_->tokens_file() +
      "'); code=$?; case \"$found\" in *calls_at_once*) break;; "
      "esac; kill -0 $waiting || begin; done; kill $waiting; echo \"$found\"; exit $code");
  EXPECT_EQ(ran.code, 0) << ran.out << ran.errors;
  ExpectLine(ran, "token", "warning", "has 1 calls at once (calls_at_once)");
  ExpectLine(ran, "attach-door", "ok", "RATE_LIMITED");
}

TEST_F(CliDoctorTest, TheProbeThatIsRefusedIsAWarning) {
  DaemonOptions options;
  options.grants = {"dict:*:read"};
  Start(std::move(options));
  const CommandLine::Ran ran = Doctor("--probe");
  EXPECT_EQ(ran.code, 0) << ran.out;
  ExpectLine(ran, "clock", "warning", "--probe:");
}

TEST_F(CliDoctorTest, CertificatesAreLookedAtThroughTls) {
  const TestFolder folder;
  const TestAuthority authority(folder / "ca.pem");
  authority.Issue(folder / "service.pem", folder / "service.key");
  DaemonOptions options;
  options.arguments = {"--tls-certificate", folder / "service.pem", "--tls-key",
                       folder / "service.key"};
  Start(std::move(options));
  const std::string address = daemon_->tcp_address();
  const std::string port = address.substr(address.rfind(':'));
  const CommandLine::Ran ran = Shell("{} --url 'statehouse+tls://localhost" + port +
                                     "?ca_file=" + (folder / "ca.pem") + "' doctor");
  EXPECT_EQ(ran.code, 0) << ran.out;
  ExpectLine(ran, "tls-certificate", "warning", "CN=service ends in 0 days");
  ExpectLine(ran, "tcp-door", "ok", "answers");
  // Without the authority, without TLS, and by the folder.
  const CommandLine::Ran stranger = Shell("{} --url statehouse+tls://localhost" + port + " doctor");
  EXPECT_EQ(stranger.code, kUnhealthy) << stranger.out;
  EXPECT_NE(stranger.out.find("trust the authority"), std::string::npos) << stranger.out;
  const CommandLine::Ran plain = Shell("{} --url statehouse://localhost" + port + " doctor");
  EXPECT_EQ(plain.code, kUnhealthy) << plain.out;
  EXPECT_NE(plain.out.find("it speaks TLS"), std::string::npos) << plain.out;
  const CommandLine::Ran local = Doctor();
  EXPECT_EQ(local.code, 0) << local.out;
  ExpectLine(local, "tcp-door", "unknown", "speaks TLS");
}

TEST_F(CliDoctorTest, HelpTellsOfExitCodesAndCommands) {
  Start();
  const std::string codes = CommandLine(daemon_.get()).Out("help exit-codes");
  EXPECT_NE(codes.find("\n  8  `doctor` found a problem\n"), std::string::npos) << codes;
  EXPECT_NE(codes.find("\n  0  done\n"), std::string::npos) << codes;
  EXPECT_NE(CommandLine(daemon_.get()).Out("help dict set").find("statehouse dict set"),
            std::string::npos);
  EXPECT_NE(CommandLine(daemon_.get()).Out("help").find("doctor"), std::string::npos);
  EXPECT_EQ(Shell("{} help nothing").code, 2);
}

}  // namespace
}  // namespace statehouse::testing
