// What an operator looks with at a real service: completion, monitor, top.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <unistd.h>

#include <array>

#include "tests/support/command_line.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class CliOperatorTest : public CommandLineTest {
 protected:
  // What bash offers for a line that ends at the cursor, a line each.
  std::string Bash(const std::string& line) const {
    const CommandLine::Ran ran = Shell(
        "export STATEHOUSE_URL=statehouse+unix://" + daemon_->runtime_dir() +
        " STATEHOUSE_TOKEN=" + daemon_->token() + "; bash -c '. <({cli} completion bash); " +
        "compopt() { echo \"compopt $*\"; }; COMP_LINE=\"" + line +
        "\"; COMP_POINT=${#COMP_LINE}; _statehouse {cli}; printf \"%s\\n\" \"${COMPREPLY[@]}\"'");
    EXPECT_EQ(ran.errors, "") << line;
    return ran.out;
  }
  // Live names are left out where the service takes longer than a person would wait.
  void ExpectBash(const std::string& line, const std::string& offered) const {
    EXPECT_TRUE(Eventually([&] { return Bash(line) == offered; })) << line << ": " << Bash(line);
  }
};

TEST_F(CliOperatorTest, AWrongWordIsNamed) {
  for (const char* const words : {"dcit", "dict dcit", "--dcit"}) {
    const CommandLine::Ran ran = Shell(std::string("{} ") + words);
    EXPECT_EQ(ran.code, 2) << words;
    EXPECT_THAT(ran.errors, HasSubstr("dcit\" is no command and no option here")) << words;
  }
}

TEST_F(CliOperatorTest, TokensAreThoseOfTheFolderThatTheUrlNames) {
  // The service of this test has its tokens elsewhere.
  const CommandLine::Ran none = Shell("{} token ls");
  EXPECT_EQ(none.code, 3) << none.errors;
  EXPECT_THAT(none.errors, HasSubstr("no tokens file " + daemon_->runtime_dir() + "/tokens.toml"));
  EXPECT_EQ(Shell("{} token create --grant dict:*:read --description mine").code, 0);
  EXPECT_THAT(Out("token ls"), HasSubstr("mine"));
  const CommandLine::Ran afar = Shell("{} --url statehouse://127.0.0.1:1 token ls");
  EXPECT_EQ(afar.code, 2) << afar.errors;
  EXPECT_THAT(afar.errors, HasSubstr("--tokens-file"));
}

TEST_F(CliOperatorTest, NoTableStandsAboveARefusal) {
  const CommandLine::Ran ran = Shell("STATEHOUSE_URL=statehouse+unix://" + daemon_->runtime_dir() +
                                     " STATEHOUSE_TOKEN=wrong {cli} dict ls");
  EXPECT_EQ(ran.code, 7);
  EXPECT_EQ(ran.out, "");
  EXPECT_THAT(ran.errors, HasSubstr("UNAUTHENTICATED"));
}

TEST_F(CliOperatorTest, StatusTellsWhomToSignalAndHowMuchThereIs) {
  Out("dict create d");
  Out("dict set d k 1");
  const std::string status = Out("-o json status");
  EXPECT_THAT(status, HasSubstr("\"keeper_pid\": " + std::to_string(daemon_->keeper_pid()) + ","));
  EXPECT_THAT(status, HasSubstr("\"dicts\": 1,"));
  EXPECT_THAT(status, HasSubstr("\"dict_entries\": 1,"));
  EXPECT_THAT(Out("status"),
              HasSubstr("keeper_pid           " + std::to_string(daemon_->keeper_pid()) + "\n"));
}

TEST_F(CliOperatorTest, SessionsAreListedWithTheirLocks) {
  EXPECT_EQ(Out("-o json session ls"), "[]\n");
  EXPECT_THAT(Out("session ls"), HasSubstr("SESSION"));
  const std::string held = "{} --transport network lock l --ttl 20s -- env STATEHOUSE_URL=" +
                           ("statehouse+unix://" + daemon_->runtime_dir()) +
                           " STATEHOUSE_TOKEN=" + daemon_->token() + " {cli} ";
  const std::string token_id = daemon_->token().substr(4, 8);

  const CommandLine::Ran table = Shell(held + "session ls");
  const CommandLine::Ran json = Shell(held + "-o json session ls");

  EXPECT_EQ(table.code, 0) << table.errors;
  EXPECT_THAT(table.out, HasSubstr("  " + token_id + "   yes          1 "));
  EXPECT_EQ(json.code, 0) << json.errors;
  EXPECT_THAT(json.out, HasSubstr("\"token_id\": \"" + token_id + "\""));
  EXPECT_THAT(json.out, HasSubstr("\"lock_count\": 1"));
  EXPECT_THAT(json.out, HasSubstr("\"session_id\": "));
}

TEST_F(CliOperatorTest, DrainEndsTheServiceAndAsksFirst) {
  const CommandLine::Ran unsure = Shell("{} drain");
  EXPECT_EQ(unsure.code, 2);
  EXPECT_THAT(unsure.errors, HasSubstr("say --yes"));
  const CommandLine::Ran wrong = Shell("{} drain --yes --grace soon");
  EXPECT_EQ(wrong.code, 2);
  EXPECT_THAT(wrong.errors, HasSubstr("--grace: 'soon' is no time"));
  EXPECT_THAT(Out("status"), HasSubstr("serving"));
  const pid_t keeper = daemon_->keeper_pid();

  const std::string out = Out("drain --yes --grace 7s");

  EXPECT_EQ(out, "draining; other calls in flight: 0\n");
  EXPECT_EQ(WaitForExit(keeper), 0) << daemon_->errors();
  daemon_->Forget();
  EXPECT_THAT(daemon_->errors(), HasSubstr("calls in flight may take 7000 ms"));
  EXPECT_EQ(Shell("{} drain --yes --grace 0").code, 6) << "nobody is there any more";
}

TEST_F(CliOperatorTest, DrainAndSessionsNeedAdminOfTheService) {
  daemon_.reset();
  DaemonOptions options;
  options.grants = {"dict:*:read,write,create"};
  Start(std::move(options));
  for (const char* const words : {"drain --yes", "-o json drain --yes", "session ls"}) {
    const CommandLine::Ran ran = Shell(std::string("{} ") + words);
    EXPECT_EQ(ran.code, 7) << words;
    EXPECT_EQ(ran.out, "") << words;
    EXPECT_THAT(ran.errors, HasSubstr("PERMISSION_DENIED")) << words;
  }
  EXPECT_THAT(Out("status"), HasSubstr("serving"));
}

TEST_F(CliOperatorTest, BashCompletesCommandsOptionsAndLiveNames) {
  Out("dict create sessions");
  Out("dict create web:a/b");
  Out("area create counters --size 64");
  EXPECT_EQ(Bash("statehouse doct"), "doctor\n");
  EXPECT_EQ(Bash("statehouse dict create --max-e"), "--max-entries\n");
  ExpectBash("statehouse dict get se", "sessions\n");
  ExpectBash("statehouse dict get web:", "a/b\n");  // Readline keeps what stands before the :.
  ExpectBash("statehouse dict get ", "sessions\nweb:a/b\n");
  ExpectBash("statehouse area hex c", "counters\n");
  ExpectBash("statehouse -o json watch area c", "counters\n");
  EXPECT_EQ(Bash("statehouse --transport=l"), "local\n");
  EXPECT_EQ(Bash("statehouse dict import d ./"), "compopt -o default\n\n");
  const CommandLine::Ran held =
      Shell("{} lock deploy -- env STATEHOUSE_URL=statehouse+unix://" + daemon_->runtime_dir() +
            " STATEHOUSE_TOKEN=" + daemon_->token() + " {cli} __complete lock describe dep");
  EXPECT_EQ(held.out, "deploy\n") << held.errors;
}

TEST_F(CliOperatorTest, CompletionIsQuietWhereNobodyAnswers) {
  daemon_->Stop();
  EXPECT_EQ(Bash("statehouse dict get se"), "\n");
  EXPECT_EQ(Bash("statehouse doct"), "doctor\n");
}

TEST_F(CliOperatorTest, MonitorTellsEveryDictAlsoThoseThatComeAndGo) {
  Out("dict create a");
  Out("dict set a before 1");
  const CommandLine::Ran ran = Shell(
      "{} monitor --count 4 | while read -r line; do echo \"$line\"; case \"$line\" in "
      "a*synced*) {} dict set a k '{\"x\": 1}'; {} dict create b; {} dict set b early 2;; "
      "b*synced*) {} dict set b late 3; {} dict del b late; {} dict rm a --yes;; "
      "a*left*) {} dict set b last 4;; esac; done 2>&1");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_THAT(ran.out, HasSubstr("a\tput\tk\t{\"x\":1}\t(revision "));
  EXPECT_THAT(ran.out, Not(HasSubstr("before"))) << "it was there at the beginning";
  EXPECT_THAT(ran.out, HasSubstr("b\tjoined\n"));
  EXPECT_THAT(ran.out, HasSubstr("b\tentry\tearly\t2\n"));
  EXPECT_THAT(ran.out, HasSubstr("b\tput\tlate\t3\t"));
  EXPECT_THAT(ran.out, HasSubstr("b\tdelete\tlate\t"));
  EXPECT_THAT(ran.out, HasSubstr("a\tleft\tdeleted\n"));
  EXPECT_THAT(ran.out, HasSubstr("b\tput\tlast\t4\t"));
}

TEST_F(CliOperatorTest, MonitorKeepsToAPrefixAndToKindsAndWritesObjects) {
  for (const char* const name : {"web/a", "db"}) Out(std::string("dict create ") + name);
  const CommandLine::Ran ran = Shell(
      "{} -o ndjson monitor web/ --kinds delete,expire --count 1 | while read -r line; do echo "
      "\"$line\"; case \"$line\" in *synced*) {} dict set db k 1; {} dict set web/a k 1; {} dict "
      "del web/a k;; esac; done");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_THAT(ran.out, HasSubstr("{\"dict\":\"web/a\",\"kind\":\"synced\",\"revision\":"));
  EXPECT_THAT(ran.out,
              HasSubstr("{\"dict\":\"web/a\",\"kind\":\"delete\",\"key\":\"k\",\"version\":"));
  EXPECT_THAT(ran.out, Not(HasSubstr("put")));
  EXPECT_THAT(ran.out, Not(HasSubstr("\"db\"")));
}

TEST_F(CliOperatorTest, MonitorShowsAResyncAndGoesOnOverAKilledDaemon) {
  Out("dict create d");
  const CommandLine::Ran ran = Shell(
      "{} monitor --count 3 | while read -r line; do echo \"$line\"; case \"$line\" in d*synced*) "
      "[ -n \"$begun\" ] || {} dict set d a 1; begun=1;; d*put*a*) kill -9 " +
      std::to_string(daemon_->daemon_pid()) +
      "; {} dict set d b 2;; d*put*b*) {} dict clear d --yes;; d*resync*) {} dict set d c 3;; "
      "esac; done");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_THAT(ran.out, HasSubstr("d\tput\ta\t1\t"));
  EXPECT_THAT(ran.out, HasSubstr("d\tput\tb\t2\t")) << ran.errors;
  EXPECT_THAT(ran.out, HasSubstr("d\tresync\treplaced\n"));
  EXPECT_THAT(ran.out, HasSubstr("d\tput\tc\t3\t"));
}

TEST_F(CliOperatorTest, MonitorShowsOnlyWhatTheTokenMayRead) {
  daemon_.reset();
  DaemonOptions options;
  options.grants = {"dict:mine:read,write,create", "dict:other:write,create"};
  Start(std::move(options));
  Out("dict create mine");
  Out("dict create other");
  const CommandLine::Ran ran = Shell(
      "{} monitor --count 1 | while read -r line; do echo \"$line\"; case \"$line\" in "
      "mine*synced*) {} dict set other k 1; {} dict set mine k 1;; esac; done");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_THAT(ran.out, HasSubstr("mine\tput\tk\t1\t"));
  EXPECT_THAT(ran.out, Not(HasSubstr("other")));
}

TEST_F(CliOperatorTest, TopIsOneTableWhereNobodyLooks) {
  Out("dict create busy");
  Out("area create counters --size 64");
  const CommandLine::Ran ran = Shell(
      "{} lock held -- sh -c \"{} top --interval 3s & top=\\$!; while kill -0 \\$top 2> /dev/null; "
      "do {} dict incr busy n > /dev/null; {} area add counters 0 > /dev/null; done; wait "
      "\\$top\"");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_THAT(ran.out, Not(HasSubstr("\x1b"))) << "it is no terminal";
  EXPECT_THAT(ran.out, ::testing::ContainsRegex("busy +1 +[0-9.]+ [KM]iB +[0-9]+ +[0-9]*[1-9]"));
  EXPECT_THAT(ran.out, ::testing::ContainsRegex("counters +64 B +[0-9]+ +[0-9]*[1-9.]"));
  EXPECT_THAT(ran.out, ::testing::ContainsRegex("held +1 +1 +0 "));
  EXPECT_THAT(ran.out, HasSubstr("/statehouse.v1.Dicts/IncrementEntry"));
  EXPECT_THAT(ran.out, HasSubstr("locks held 1"));
}

TEST_F(CliOperatorTest, TopAsksForMetricsOnTheServicesHostAlone) {
  const std::string top = "--url statehouse://" + daemon_->tcp_address() + " top --interval 50ms";
  EXPECT_THAT(Out("-o ndjson " + top + " --count 1"), HasSubstr("\"calls\":["));
  // To a client on another host, where no such folder tells of that daemon.
  const std::string file = daemon_->runtime_dir() + "/endpoints.json";
  ASSERT_EQ(rename(file.c_str(), (file + ".away").c_str()), 0);
  EXPECT_THAT(Out("-o ndjson " + top + " --count 1"), Not(HasSubstr("\"calls\":")));
  EXPECT_THAT(Out(top), HasSubstr("calls: not known"));
  ASSERT_EQ(rename((file + ".away").c_str(), file.c_str()), 0);
}

TEST_F(CliOperatorTest, TopWritesAnObjectALine) {
  Out("dict create d");
  const std::string out = Out("-o ndjson top --interval 50ms --count 3");
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 3);
  EXPECT_EQ(out.find("{\"seconds\":"), 0u) << out;
  EXPECT_THAT(out, HasSubstr("{\"name\":\"d\",\"entries\":0,"));
  EXPECT_THAT(out, HasSubstr("\"calls\":["));
  EXPECT_EQ(Shell("{} top --interval never").code, 2);
  EXPECT_EQ(Shell("{} -o ndjson status").code, 2) << "it is for commands that go on";
}

TEST_F(CliOperatorTest, TopPaintsATerminalAnew) {
  setenv("STATEHOUSE_URL", ("statehouse+unix://" + daemon_->runtime_dir()).c_str(), 1);
  setenv("STATEHOUSE_TOKEN", daemon_->token().c_str(), 1);
  int terminal = -1;
  const winsize size{.ws_row = 10, .ws_col = 60, .ws_xpixel = 0, .ws_ypixel = 0};
  const pid_t pid = forkpty(&terminal, nullptr, nullptr, &size);
  if (pid == 0) {
    execl(STATEHOUSE_CLI_PATH, "statehouse", "top", "--interval", "20ms", "--count", "2", nullptr);
    _exit(99);
  }
  std::string shown;
  std::array<char, 1024> buffer;
  for (ssize_t got; (got = read(terminal, buffer.data(), buffer.size())) > 0;) {
    shown.append(buffer.data(), static_cast<size_t>(got));
  }
  EXPECT_EQ(WaitForExit(pid), 0);
  close(terminal);
  size_t painted = 0;
  for (size_t at = 0; (at = shown.find("\x1b[Hstatehouse ", at)) != std::string::npos; ++at) {
    ++painted;
  }
  EXPECT_EQ(painted, 2u) << shown;
}

}  // namespace
}  // namespace statehouse::testing
