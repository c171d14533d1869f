// statehouse watch against a real service: what it prints, what it runs, how it ends.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

struct Ran {
  int code = 0;
  std::string out;
  std::string errors;
};

class CliWatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
    Out("dict create d");
  }

  std::string Command(const std::string& arguments) const {
    return "STATEHOUSE_URL='statehouse+unix://" + daemon_->runtime_dir() + "' STATEHOUSE_TOKEN='" +
           daemon_->token() + "' timeout 60 " + STATEHOUSE_CLI_PATH + " " + arguments;
  }
  // What a shell makes of it; `{}` stands for the program with its connection.
  Ran Shell(std::string script) const {
    for (size_t at; (at = script.find("{}")) != std::string::npos;) {
      script.replace(at, 2, Command(""));
    }
    const std::string errors = daemon_->folder() + "/cli-errors";
    FILE* const pipe = popen(("(" + script + ") 2>'" + errors + "'").c_str(), "r");
    EXPECT_NE(pipe, nullptr);
    Ran ran;
    std::array<char, 4096> buffer;
    for (size_t got; (got = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
      ran.out.append(buffer.data(), got);
    }
    const int status = pclose(pipe);
    ran.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    std::stringstream text;
    text << std::ifstream(errors).rdbuf();
    ran.errors = text.str();
    return ran;
  }
  std::string Out(const std::string& arguments) const {
    const Ran ran = Shell("{} " + arguments);
    EXPECT_EQ(ran.code, 0) << arguments << ": " << ran.errors;
    return ran.out;
  }
  // The output without revisions and versions, which are the service's affair.
  static std::string Without(std::string text, const std::string& begin, char end) {
    for (size_t at; (at = text.find(begin)) != std::string::npos;) {
      text.erase(at, text.find(end, at) - at + 1);
    }
    return text;
  }

  std::unique_ptr<Daemon> daemon_;
};

TEST_F(CliWatchTest, PrintsEntriesSyncedAndChanges) {
  Out("dict set d web/a '{\"port\": 80}'");
  Out("dict set d db 1");
  const Ran ran = Shell(
      "{} watch d web/ --count 3 | while read -r line; do echo \"$line\"; case \"$line\" in "
      "synced*) {} dict set d db 2; {} dict set d web/a 5; {} dict incr d web/n >&2; {} dict del d "
      "web/a;; esac; done");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_EQ(Without(ran.out, "\t(revision", ')'),
            "entry\tweb/a\t{\"port\":80}\nsynced\nput\tweb/a\t5\nput\tweb/n\t1\ndelete\tweb/a\n");
}

TEST_F(CliWatchTest, PrintsJsonForPrograms) {
  Out("dict set d a '\"x\"'");
  const Ran ran = Shell(
      "{} -o json watch d --key a --count 1 | while read -r line; do echo \"$line\"; "
      "case \"$line\" in *synced*) {} dict set d a 2;; esac; done");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_TRUE(ran.out.starts_with("{\"kind\":\"entry\",\"key\":\"a\",\"value\":\"x\",\"version\":"))
      << ran.out;
  EXPECT_NE(ran.out.find("{\"kind\":\"synced\",\"revision\":"), std::string::npos) << ran.out;
  EXPECT_NE(ran.out.find("{\"kind\":\"put\",\"key\":\"a\",\"value\":2,\"version\":"),
            std::string::npos)
      << ran.out;
}

TEST_F(CliWatchTest, TellsWhatWasBefore) {
  Out("dict set d a '\"x\"'");
  const std::string changes =
      "| while read -r line; do echo \"$line\"; case \"$line\" in *synced*) {} dict set d a 2; {} "
      "dict set d b 3; {} dict del d a;; esac; done";
  const Ran people = Shell("{} watch d --previous --window 5ms --no-snapshot --count 3 " + changes);
  EXPECT_EQ(people.code, 0) << people.errors;
  EXPECT_EQ(Without(people.out, "\t(revision", ')'),
            "synced\nput\ta\t2\twas \"x\"\nput\tb\t3\ndelete\ta\twas 2\n");
  Out("dict set d a 1");
  const Ran programs = Shell("{} -o json watch d --previous --key a --count 2 " + changes);
  EXPECT_EQ(programs.code, 0) << programs.errors;
  EXPECT_NE(programs.out.find("\"previous\":1,\"revision\""), std::string::npos) << programs.out;
  EXPECT_NE(programs.out.find("\"previous\":2,\"revision\""), std::string::npos) << programs.out;
  EXPECT_EQ(programs.out.find("previous_gone"), std::string::npos) << programs.out;
  const Ran command = Shell(
      "{} watch d --no-snapshot --previous --count 1 --exec 'echo \"ran $STATEHOUSE_PREVIOUS\"' | "
      "while read -r line; do echo \"$line\"; case \"$line\" in synced*) {} dict set d b 4;; esac; "
      "done");
  EXPECT_NE(command.out.find("ran 3"), std::string::npos) << command.out << command.errors;
}

TEST_F(CliWatchTest, RunsACommandForEachChangeAndEndsWhenACondition) {
  const Ran ran = Shell(
      "{} watch d --no-snapshot --until 'state=\"ready\"' --exec 'echo \"ran $STATEHOUSE_EVENT "
      "$STATEHOUSE_KEY $STATEHOUSE_VALUE\"; exit 3' | while read -r line; do echo \"$line\"; case "
      "\"$line\" in synced*) {} dict set d state '\"starting\"'; {} dict set d state '\"ready\"';; "
      "esac; done");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_NE(ran.out.find("ran put state \"starting\""), std::string::npos) << ran.out;
  EXPECT_NE(ran.out.find("ran put state \"ready\""), std::string::npos) << ran.out;
  EXPECT_NE(ran.errors.find("exited with 3"), std::string::npos) << ran.errors;
  // It is there already.
  EXPECT_NE(Out("watch d --until state").find("entry\tstate"), std::string::npos);
}

TEST_F(CliWatchTest, GoesOnAfterARevision) {
  const Ran ran = Shell(
      "{} watch d --count 1 | while read -r line; do echo \"$line\"; case \"$line\" in synced*) {} "
      "dict set d a 1; {} dict set d b 2;; esac; done");
  const size_t at = ran.out.find("put\ta\t1\t(revision ");
  ASSERT_NE(at, std::string::npos) << ran.out << ran.errors;
  const std::string revision = ran.out.substr(at + 18, ran.out.find(')', at) - at - 18);
  const std::string later = Out("watch d --from-revision " + revision + " --count 1");
  EXPECT_EQ(later.substr(0, 8), "put\tb\t2\t") << later;
}

TEST_F(CliWatchTest, ExitCodesSayWhatIsWrong) {
  const std::pair<const char*, int> cases[] = {
      {"watch none", 3},
      {"watch d web/ --key a", 2},
      {"watch d --kind get", 2},
      {"watch d --slow never", 2},
      {"watch d --until 'a=b c'", 2},
      {"watch d --progress 1ms", 2},
      {"watch d --window 11ms", 2},
      {"watch d --window soon", 2},
      {"watch d --previous --keys-only", 2},
      {"watch area a --previous", 2},
      {"watch", 2},
  };
  for (const auto& [arguments, code] : cases) {
    const Ran ran = Shell(std::string("{} ") + arguments);
    EXPECT_EQ(ran.code, code) << arguments << ": " << ran.errors;
    EXPECT_FALSE(ran.errors.empty()) << arguments;
  }
  // The dict is deleted while it is watched.
  const Ran ran = Shell("{} watch d > /dev/null & sleep 1; {} dict rm d --yes; wait $!");
  EXPECT_EQ(ran.code, 3) << ran.errors;
}

TEST_F(CliWatchTest, GoesOnOverAKilledDaemon) {
  const Ran ran = Shell(
      "{} watch d --count 2 | while read -r line; do echo \"$line\"; case \"$line\" in synced*) "
      "[ -n \"$done\" ] && continue; done=1; {} dict set d a 1; kill -9 " +
      std::to_string(daemon_->daemon_pid()) + "; {} dict set d a 2;; esac; done");
  EXPECT_NE(ran.out.find("put\ta\t1"), std::string::npos) << ran.out << ran.errors;
  EXPECT_NE(ran.out.find("put\ta\t2"), std::string::npos) << ran.out << ran.errors;
  EXPECT_EQ(ran.out.find("resync"), std::string::npos) << ran.out;
}

TEST_F(CliWatchTest, FollowsADictByItselfOnTheServicesHost) {
  const Ran ran = Shell(
      "{} watch d > /dev/null & for i in $(seq 1000); do child=$(cat /proc/$!/task/$!/children); "
      "grep -q statehouse-follow /proc/${child% }/maps && echo follows && break; sleep 0.02; done; "
      "kill $!");
  EXPECT_EQ(ran.out, "follows\n") << ran.errors;
}

TEST_F(CliWatchTest, PrintsARangeOfAnAreaAndItsChanges) {
  Out("area create a --size 64");
  const Ran ran = Shell(
      "{} watch area a --pos 8 --len 4 --until 'u16@8>=3' --exec 'echo \"ran $STATEHOUSE_EVENT "
      "$STATEHOUSE_POS $STATEHOUSE_LEN $STATEHOUSE_HEX\"' | while read -r line; do echo \"$line\"; "
      "case \"$line\" in synced*) {} area add a 0 --type u64 >&2;; esac; case \"$line\" in "
      "synced*|ran*) {} area add a 8 --type u16 >&2;; esac; done");
  EXPECT_EQ(ran.code, 0) << ran.errors;
  EXPECT_EQ(Without(ran.out, "\t(updates", ')'),
            "snapshot\t8\t4\t00000000\nsynced\nchange\t8\t1\t01\nran change 8 1 01\n"
            "change\t8\t1\t02\nran change 8 1 02\nchange\t8\t1\t03\nran change 8 1 03\n");
  const std::string json = Out("-o json watch area a --len 1 --until 'u8@0>0'");
  EXPECT_EQ(json, "{\"kind\":\"snapshot\",\"pos\":0,\"len\":1,\"hex\":\"01\"}\n");
  EXPECT_NE(Shell("{} watch area a --len 65").errors.find("OUT_OF_BOUNDS"), std::string::npos);
}

TEST_F(CliWatchTest, TheWordsSayWhatIsWatched) {
  Out("dict create area");
  Out("dict set area k 1");
  EXPECT_NE(Out("watch dict area --until k").find("entry\tk"), std::string::npos);
  EXPECT_NE(Out("watch area --until k").find("entry\tk"), std::string::npos);
  for (const char* const words : {"watch area a --key k", "watch d --pos 1", "watch area a b",
                                  "watch d a b", "watch area a --until 'u8@0'"}) {
    const Ran ran = Shell(std::string("{} ") + words);
    EXPECT_EQ(ran.code, 2) << words << ": " << ran.errors;
  }
}

}  // namespace
}  // namespace statehouse::testing
