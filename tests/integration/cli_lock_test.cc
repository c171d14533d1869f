// `statehouse lock` and `statehouse elect` against a real service: commands that run while a lock
// is held.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

struct Ran {
  int code = 0;
  std::string out;     // Standard output.
  std::string errors;  // Standard error.
};

std::string TextOf(const std::string& file) {
  std::stringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

// A command line that runs, with files for what it prints.
class Started final {
 public:
  Started(const Daemon& daemon, const std::vector<std::string>& arguments, int number)
      : out_(daemon.folder() + "/out-" + std::to_string(number)),
        errors_(daemon.folder() + "/errors-" + std::to_string(number)) {
    std::vector<const char*> argv = {STATEHOUSE_CLI_PATH};
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ != 0) return;
    dup2(open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDOUT_FILENO);
    dup2(open(errors_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
    setenv("STATEHOUSE_URL", ("statehouse+unix://" + daemon.runtime_dir()).c_str(), 1);
    setenv("STATEHOUSE_TOKEN", daemon.token().c_str(), 1);
    setenv("CLI", STATEHOUSE_CLI_PATH, 1);
    execv(argv[0], const_cast<char**>(argv.data()));
    _exit(99);
  }

  pid_t pid() const { return pid_; }
  std::string out() const { return TextOf(out_); }
  std::string errors() const { return TextOf(errors_); }
  bool Says(const std::string& text) const {
    return Eventually([&] { return out().find(text) != std::string::npos; });
  }
  Ran Wait() const {
    const int code = WaitForExit(pid_);
    return {code, out(), errors()};
  }

 private:
  const std::string out_;
  const std::string errors_;
  pid_t pid_ = 0;
};

class CliLockTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
  }
  // Runs `statehouse <arguments>`.
  Started Start(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--transport", GetParam()});
    return Started(*daemon_, arguments, ++started_);
  }
  Ran Run(std::vector<std::string> arguments) { return Start(std::move(arguments)).Wait(); }
  bool IsFree(const std::string& name) {
    return Run({"lock", name, "--timeout", "0", "--", "true"}).code == 0;
  }

  std::unique_ptr<Daemon> daemon_;
  int started_ = 0;
};

// Says so, and runs until it is asked to end.
constexpr const char* kPatientScript =
    "trap 'echo asked; exit 9' TERM INT; echo ready $STATEHOUSE_LOCK_TOKEN; "
    "while :; do sleep 0.02; done";

TEST_P(CliLockTest, TheCommandRunsWhileTheLockIsHeldAndKnowsItsToken) {
  const auto token_of = [&] {
    const Ran ran = Run({"lock", "deploy", "--", "sh", "-c",
                         "echo $STATEHOUSE_LOCK_NAME; echo $STATEHOUSE_LOCK_TOKEN"});
    EXPECT_EQ(ran.code, 0) << ran.errors;
    EXPECT_EQ(ran.out.substr(0, 7), "deploy\n");
    return std::stoull(ran.out.substr(7));
  };
  const uint64_t first = token_of();
  EXPECT_GT(first, 0u);
  EXPECT_GT(token_of(), first);
  const Ran inner = Run({"lock", "a", "--", "sh", "-c", "$CLI lock a --timeout 0 -- true"});
  EXPECT_EQ(inner.code, 5) << inner.errors;
  EXPECT_NE(inner.errors.find("not had in time"), std::string::npos) << inner.errors;
  EXPECT_EQ(
      Run({"lock", "a", "--shared", "--", "sh", "-c", "$CLI lock a --shared --timeout 0 -- true"})
          .code,
      0);
  EXPECT_EQ(
      Run({"lock", "a", "--limit", "2", "--", "sh", "-c", "$CLI lock a --limit 3 -- true"}).code,
      4);
}

TEST_P(CliLockTest, TheExitCodeIsThatOfTheCommand) {
  const std::string plain = daemon_->folder() + "/plain";
  std::ofstream(plain) << "no program";
  const struct {
    std::vector<std::string> command;
    int code;
  } cases[] = {{{"true"}, 0},
               {{"sh", "-c", "exit 77"}, 77},
               {{"sh", "-c", "kill -9 $$"}, 128 + SIGKILL},
               {{"sh", "-c", "kill -TERM $$"}, 128 + SIGTERM},
               {{"no-such-command-anywhere"}, 127},
               {{plain}, 126}};
  for (const auto& [command, code] : cases) {
    for (const char* verb : {"lock", "elect"}) {
      std::vector<std::string> arguments = {verb, "a", "--"};
      arguments.insert(arguments.end(), command.begin(), command.end());
      EXPECT_EQ(Run(arguments).code, code) << verb << " " << command.back();
    }
  }
  EXPECT_TRUE(IsFree("a"));
}

TEST_P(CliLockTest, WhatFollowsTheFirstDashesIsTheCommandWhateverTheLockIsCalled) {
  EXPECT_EQ(Run({"lock", "ls", "--", "echo", "--", "x"}).out, "-- x\n");
  EXPECT_EQ(Run({"lock", "release", "--", "sh", "-c", "echo $STATEHOUSE_LOCK_NAME"}).out,
            "release\n");
  EXPECT_EQ(Run({"elect", "lock", "--", "echo", "--ttl", "-h"}).out, "--ttl -h\n");
  EXPECT_NE(Run({"lock", "ls"}).out.find("HOLDERS"), std::string::npos);
  const std::vector<std::vector<std::string>> wrong = {{"lock"},
                                                       {"lock", "a"},
                                                       {"lock", "a", "true"},
                                                       {"lock", "a", "--"},
                                                       {"lock", "--", "true"},
                                                       {"lock", "a", "b", "--", "true"},
                                                       {"lock", "a", "--ttl", "soon", "--", "true"},
                                                       {"lock", "release", "a"},
                                                       {"lock", "describe"},
                                                       {"elect", "a"},
                                                       {"elect", "--", "true"}};
  for (const std::vector<std::string>& arguments : wrong) {
    const Ran ran = Run(arguments);
    EXPECT_EQ(ran.code, 2) << arguments.back() << ran.errors;
    EXPECT_EQ(ran.out, "");
    EXPECT_NE(ran.errors, "");
  }
  EXPECT_EQ(Run({"dict", "create", "--", "d"}).code, 0) << "elsewhere it only ends the options";
}

TEST_P(CliLockTest, ANameMayBeginWithADash) {
  const Ran held = Run({"lock", "--name=-x", "--", "sh", "-c",
                        "echo $STATEHOUSE_LOCK_NAME; $CLI -o json lock describe --name=-x; "
                        "$CLI lock ls --prefix=-; $CLI lock release --name=-x --force; "
                        "exec sleep 60"});
  EXPECT_EQ(held.code, 5) << "it was taken away while the command ran: " << held.errors;
  EXPECT_EQ(held.out.substr(0, 3), "-x\n");
  EXPECT_NE(held.out.find("\"holder_count\": 1"), std::string::npos) << held.out;
  EXPECT_NE(held.out.find("\n-x  "), std::string::npos) << held.out;
  EXPECT_EQ(Run({"elect", "--name=-x", "--", "true"}).code, 0);
  EXPECT_EQ(Run({"lock", "--name", "plain", "--", "true"}).code, 0);
  EXPECT_EQ(Run({"lock", "-x", "--", "true"}).code, 2);
}

TEST_P(CliLockTest, SignalsReachTheCommand) {
  for (const int number : {SIGTERM, SIGINT}) {
    const Started started = Start({"lock", "a", "--", "sh", "-c", kPatientScript});
    ASSERT_TRUE(started.Says("ready"));
    EXPECT_FALSE(IsFree("a"));
    ASSERT_EQ(kill(started.pid(), number), 0);
    const Ran ran = started.Wait();
    EXPECT_EQ(ran.code, 9) << ran.errors;
    EXPECT_NE(ran.out.find("asked"), std::string::npos);
    EXPECT_TRUE(IsFree("a"));
  }
}

TEST_P(CliLockTest, StatusCountsLocksWaitersAndSessions) {
  const Started holder = Start({"lock", "a", "--", "sh", "-c", kPatientScript});
  ASSERT_TRUE(holder.Says("ready"));
  const Started waiter = Start({"lock", "a", "--", "true"});
  const std::string sessions = std::string(GetParam()) == "local" ? "0" : "2";

  EXPECT_TRUE(Eventually([&] {
    const std::string status = Run({"-o", "json", "status"}).out;
    const auto says = [&](const std::string& what) {
      return status.find(what) != std::string::npos;
    };
    return says("\"locks_held\": 1") && says("\"lock_waiters\": 1") &&
           says("\"sessions\": " + sessions);
  })) << Run({"-o", "json", "status"}).out;

  ASSERT_EQ(kill(holder.pid(), SIGTERM), 0);
  EXPECT_EQ(holder.Wait().code, 9);
  EXPECT_EQ(waiter.Wait().code, 0);
}

TEST_P(CliLockTest, AKeyOfTheTerminalReachesTheCommandOnce) {
  setenv("STATEHOUSE_URL", ("statehouse+unix://" + daemon_->runtime_dir()).c_str(), 1);
  setenv("STATEHOUSE_TOKEN", daemon_->token().c_str(), 1);
  int terminal = -1;
  const pid_t pid = forkpty(&terminal, nullptr, nullptr, nullptr);
  if (pid == 0) {
    execl(STATEHOUSE_CLI_PATH, "statehouse", "lock", "a", "--", "sh", "-c",
          "n=0; trap 'n=$((n+1))' INT; echo ready; until [ $n -gt 0 ]; do sleep 0.02; done; "
          "sleep 0.2; echo count $n; exit 4",
          nullptr);
    _exit(99);
  }
  std::string shown;
  const auto wait_for = [&](const std::string& text) {
    std::array<char, 256> buffer;
    while (shown.find(text) == std::string::npos) {
      const ssize_t got = read(terminal, buffer.data(), buffer.size());
      if (got <= 0) return false;
      shown.append(buffer.data(), static_cast<size_t>(got));
    }
    return true;
  };
  EXPECT_TRUE(wait_for("ready")) << shown;
  ASSERT_EQ(write(terminal, "\x03", 1), 1);
  EXPECT_TRUE(wait_for("count 1\r\n")) << shown;
  EXPECT_EQ(WaitForExit(pid), 4);
  close(terminal);
}

TEST_P(CliLockTest, ALossStopsTheCommandKillsItInTheEndAndIsExitCodeFive) {
  const Started polite = Start({"lock", "a", "--ttl", "300ms", "--", "sh", "-c", kPatientScript});
  ASSERT_TRUE(polite.Says("ready"));
  EXPECT_EQ(Run({"lock", "release", "a", "--force"}).code, 0);
  const Ran asked = polite.Wait();
  EXPECT_EQ(asked.code, 5) << asked.errors;
  EXPECT_NE(asked.out.find("asked"), std::string::npos);
  EXPECT_NE(asked.errors.find("lost"), std::string::npos) << asked.errors;

  const Started stubborn =
      Start({"lock", "a", "--ttl", "300ms", "--kill-after", "200ms", "--", "sh", "-c",
             "trap '' TERM; echo ready; while :; do sleep 0.02; done"});
  ASSERT_TRUE(stubborn.Says("ready"));
  EXPECT_EQ(Run({"lock", "release", "a", "--force"}).code, 0);
  EXPECT_EQ(stubborn.Wait().code, 5);

  const Started ended =
      Start({"lock", "a", "--ttl", "1h", "--", "sh", "-c", "$CLI lock release a --force"});
  EXPECT_EQ(ended.Wait().code, 5) << "it was lost before the command had ended";
}

TEST_P(CliLockTest, TheCommandDoesNotOutliveItsKilledHolder) {
  const Started started =
      Start({"lock", "a", "--", "sh", "-c", "echo pid $$ end; while :; do sleep 0.02; done"});
  ASSERT_TRUE(started.Says("end"));
  const auto command = static_cast<pid_t>(std::stol(started.out().substr(4)));
  ASSERT_EQ(kill(started.pid(), SIGKILL), 0);
  EXPECT_EQ(started.Wait().code, 128 + SIGKILL);
  EXPECT_EQ(WaitForExit(command), 128 + SIGKILL);
  EXPECT_EQ(Run({"lock", "a", "--timeout", "1m", "--", "true"}).code, 0);
}

TEST_P(CliLockTest, AWaiterCanBeInterrupted) {
  const Started holder = Start({"lock", "a", "--", "sh", "-c", kPatientScript});
  ASSERT_TRUE(holder.Says("ready"));
  const Started waiter = Start({"lock", "a", "--", "true"});
  EXPECT_TRUE(Eventually([&] {
    return Run({"-o", "json", "lock", "describe", "a"}).out.find("\"waiter_count\": 1") !=
           std::string::npos;
  }));
  ASSERT_EQ(kill(waiter.pid(), SIGINT), 0);
  EXPECT_EQ(waiter.Wait().code, 128 + SIGINT);
  ASSERT_EQ(kill(holder.pid(), SIGTERM), 0);
  EXPECT_EQ(holder.Wait().code, 9);
}

TEST_P(CliLockTest, TheLeaderIsReplacedAndCampaignsAgain) {
  const std::vector<std::string> candidate = {"elect", "boss", "--ttl", "300ms",
                                              "--",    "sh",   "-c",    kPatientScript};
  const Started first = Start(candidate);
  ASSERT_TRUE(first.Says("ready"));
  const Started second = Start(candidate);
  EXPECT_TRUE(Eventually([&] {
    return Run({"-o", "json", "lock", "describe", "boss"}).out.find("\"waiter_count\": 1") !=
           std::string::npos;
  }));
  EXPECT_EQ(second.out(), "");

  EXPECT_EQ(Run({"lock", "release", "boss", "--force"}).code, 0);
  EXPECT_TRUE(second.Says("ready"));
  EXPECT_TRUE(first.Says("asked"));
  ASSERT_EQ(kill(second.pid(), SIGTERM), 0);
  EXPECT_EQ(second.Wait().code, 9) << "a signal ends the candidate with its command";
  EXPECT_TRUE(Eventually([&] {
    const std::string out = first.out();
    return out.find("ready", out.find("asked")) != std::string::npos;
  })) << "it leads again";
  ASSERT_EQ(kill(first.pid(), SIGTERM), 0);
  EXPECT_EQ(first.Wait().code, 9);
}

TEST_P(CliLockTest, ACandidateOutlivesTheDaemon) {
  const Started leader = Start({"elect", "boss", "--", "sh", "-c", kPatientScript});
  ASSERT_TRUE(leader.Says("ready"));
  const Started next = Start({"elect", "boss", "--", "sh", "-c", kPatientScript});
  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  ASSERT_EQ(kill(leader.pid(), SIGTERM), 0);
  EXPECT_EQ(leader.Wait().code, 9);
  EXPECT_TRUE(next.Says("ready"));
  ASSERT_EQ(kill(next.pid(), SIGTERM), 0);
  EXPECT_EQ(next.Wait().code, 9);
}

TEST_P(CliLockTest, LocksAreListedDescribedAndTakenAway) {
  const Started holder =
      Start({"lock", "x/1", "--owner", "somebody", "--", "sh", "-c", kPatientScript});
  ASSERT_TRUE(holder.Says("ready "));
  const std::string token = std::to_string(std::stoull(holder.out().substr(6)));
  const Ran described = Run({"lock", "describe", "x/1"});
  EXPECT_EQ(described.code, 0) << described.errors;
  for (const char* part : {"holders      1\n", "holds    exclusive", "somebody"}) {
    EXPECT_NE(described.out.find(part), std::string::npos) << described.out;
  }
  EXPECT_NE(described.out.find(token), std::string::npos) << described.out;
  EXPECT_NE(Run({"-o", "json", "lock", "describe", "x/1"}).out.find("\"token\": " + token),
            std::string::npos);
  EXPECT_NE(Run({"lock", "ls"}).out.find("somebody"), std::string::npos);
  EXPECT_NE(Run({"-o", "json", "lock", "ls", "x/"}).out.find("\"name\": \"x/1\""),
            std::string::npos);
  EXPECT_EQ(Run({"-o", "json", "lock", "ls", "y/"}).out, "[]\n");

  EXPECT_EQ(Run({"lock", "release", "x/1", "--force", "--token", "1"}).code, 3);
  EXPECT_EQ(Run({"lock", "release", "x/1", "--force", "--token", token}).errors,
            "taken from 1 holder\n");
  EXPECT_EQ(Run({"lock", "release", "x/1", "--force"}).code, 3);
  EXPECT_EQ(holder.Wait().code, 5);
  EXPECT_NE(Run({"lock", "describe", "x/1"}).out.find("holders      0\n"), std::string::npos);
}

TEST_P(CliLockTest, AnAreasWritesTakeTheTokenAndRefuseAnOlderOne) {
  ASSERT_EQ(Run({"area", "create", "web", "--size", "4k"}).code, 0);
  const Ran inside = Run({"lock", "area/web", "--", "sh", "-c",
                          "$CLI area write web 0 first --fence $STATEHOUSE_LOCK_TOKEN && "
                          "echo $STATEHOUSE_LOCK_TOKEN"});
  ASSERT_EQ(inside.code, 0) << inside.errors;
  const std::string newer = std::to_string(std::stoull(inside.out) + 1);
  ASSERT_EQ(Run({"area", "store", "web", "64", "7", "--fence", newer}).code, 0);

  const std::string late = std::to_string(std::stoull(inside.out));
  const std::vector<std::vector<std::string>> refused = {{"area", "write", "web", "0", "late"},
                                                         {"area", "store", "web", "0", "1"},
                                                         {"area", "add", "web", "0", "1"},
                                                         {"area", "cas", "web", "64", "7", "8"}};
  for (std::vector<std::string> command : refused) {
    const std::string verb = command[1];
    command.insert(command.end(), {"--fence", late});
    const Ran ran = Run(command);
    EXPECT_EQ(ran.code, 4) << verb << ran.errors;
    EXPECT_NE(ran.errors.find("FENCED"), std::string::npos) << verb << ran.errors;
  }
  EXPECT_EQ(Run({"area", "read", "web", "0", "5"}).out, "first");
}

INSTANTIATE_TEST_SUITE_P(Doors, CliLockTest, ::testing::Values("local", "network"),
                         [](const auto& door) { return std::string(door.param); });

}  // namespace
}  // namespace statehouse::testing
