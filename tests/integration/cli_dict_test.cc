// The command line against a real service: what a person types, what it prints, how it exits.
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>

#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

struct Ran {
  int code = 0;
  std::string out;     // Standard output.
  std::string errors;  // Standard error.
};

class CliDictTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
  }

  // Runs `statehouse dict <arguments>`, as a shell would read them; `statehouse <arguments>` where
  // they begin with an option.
  Ran Run(const std::string& arguments, const std::string& transport = "auto") const {
    const std::string errors = daemon_->folder() + "/cli-errors";
    const std::string command =
        "STATEHOUSE_URL='statehouse+unix://" + daemon_->runtime_dir() + "' STATEHOUSE_TOKEN='" +
        daemon_->token() + "' " + STATEHOUSE_CLI_PATH + " --transport " + transport +
        (arguments[0] == '-' ? "" : " dict") + " " + arguments + " 2>'" + errors + "'";
    Ran ran;
    FILE* const pipe = popen(command.c_str(), "r");
    EXPECT_NE(pipe, nullptr);
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
    const Ran ran = Run(arguments);
    EXPECT_EQ(ran.code, 0) << arguments << ": " << ran.errors;
    return ran.out;
  }

  std::unique_ptr<Daemon> daemon_;
};

TEST_F(CliDictTest, ValuesGoInAndComeOutAsJson) {
  Out("create s --default-ttl 30m");
  Out(R"(set s alice '{"visits": 0, "tags": ["a"]}')");
  EXPECT_EQ(Out("incr s alice 5 --path visits"), "5\n");
  EXPECT_EQ(Out(R"(append s alice '"b"' --path tags)"), "2\n");
  Out(R"(set s alice '"x"' --path 'tags[0]')");
  EXPECT_EQ(Out("get s alice"), R"({"visits":5,"tags":["x","b"]})"
                                "\n");
  EXPECT_EQ(Out("get s alice --path 'tags[-1]'"), "\"b\"\n");
  Out("set s text hello --text");
  EXPECT_EQ(Out("get s text --text"), "hello\n");
  EXPECT_EQ(Out("incr s f 0.5 --initial 1.0"), "1.5\n");
  Out("del s alice --path visits");
  EXPECT_EQ(Out("get s alice"), "{\"tags\":[\"x\",\"b\"]}\n");
  for (const char* key : {"web/a/1", "web/a/2", "web/b"}) Out(std::string("set s ") + key + " 1");
  EXPECT_EQ(Out("scan s web/b"), "web/b\t1\n");
  EXPECT_NE(Out("tree s").find("└─ web/  (3)"), std::string::npos) << Out("tree s");
  EXPECT_EQ(Run("del-prefix s web/ --yes").errors, "deleted 3 entries\n");
  EXPECT_NE(Out("ls").find(" s "), std::string::npos);
  EXPECT_EQ(Run("get s text", "network").out, "\"hello\"\n");
}

TEST_F(CliDictTest, WaitEndsWhenTheEntryIsAsAsked) {
  Out("create s");
  Out("set s a '{\"port\": 80}'");
  EXPECT_EQ(Out("wait s a"), "{\"port\":80}\n");
  EXPECT_EQ(Out("wait s a --path port --value 80"), "{\"port\":80}\n");
  EXPECT_EQ(Out("wait s none --absent"), "");
  EXPECT_EQ(Out("wait s a --above 0 --timeout 0"), "{\"port\":80}\n");
  for (const char* transport : {"auto", "local", "network"}) {
    const Ran late = Run("wait s none --timeout 20ms", transport);
    EXPECT_EQ(late.code, 6);
    EXPECT_NE(late.errors.find("\"none\" was not as asked within 20ms"), std::string::npos)
        << late.errors;
    std::thread setter([&] { Out(std::string("set s late/") + transport + " 1"); });
    EXPECT_EQ(Run(std::string("wait s late/") + transport + " --timeout 60s", transport).out,
              "1\n");
    setter.join();
  }
  EXPECT_EQ(Run("wait s a --timeout soon").code, 2);
  EXPECT_EQ(Run("wait s a --absent --above 1").code, 2);
  EXPECT_EQ(Run("wait none a").code, 3);
}

TEST_F(CliDictTest, ExitCodesAndMessagesSayWhatIsWrong) {
  Out("create s");
  Out("set s a 1 --if-absent");
  const std::pair<const char*, int> cases[] = {{"set s a 2 --if-absent", 4},
                                               {"set s b 2 --if-present", 4},
                                               {"set s a 2 --if-version 999", 4},
                                               {"set s a hello", 2},
                                               {"set s a 1 --ttl soon", 2},
                                               {"set s a 1 --path x..y", 2},
                                               {"get s none", 3},
                                               {"get none a", 3},
                                               {"get s a --path x", 1},
                                               {"incr s a one", 2},
                                               {"incr s a 1 --max 1", 1},
                                               {"del s none", 3},
                                               {"touch s none 1s", 3},
                                               {"clear s", 2},
                                               {"rm s", 2},
                                               {"create s --max-bytes lots", 2},
                                               {"create s --exclusive", 4},
                                               {"create t --max-entries -5", 2},
                                               {"scan s --limit=-1", 2},
                                               {"set s a 2 --fence -1", 2},
                                               {"set s '' 1", 2},
                                               {"create 'no name!'", 2},
                                               {"import s /nowhere", 1},
                                               {"frobnicate s", 2}};
  for (const auto& [arguments, code] : cases) {
    const Ran ran = Run(arguments);
    EXPECT_EQ(ran.code, code) << arguments << ": " << ran.errors;
    EXPECT_NE(ran.errors, "") << arguments;
    EXPECT_EQ(ran.out, "") << arguments;
  }
  EXPECT_EQ(Out("get s a"), "1\n") << "nothing changed";
}

TEST_F(CliDictTest, KeysAreShownWithoutControlCharacters) {
  Out("create s");
  Out(R"cli(set s "$(printf 'a\033[2Jb\nc')" 1)cli");
  EXPECT_EQ(Out("scan s"), "a\\u001b[2Jb\\u000ac\t1\n");
  EXPECT_EQ(Out("scan s --keys"), "a\\u001b[2Jb\\u000ac\n");
  EXPECT_NE(Out("tree s").find("a\\u001b[2Jb\\u000ac"), std::string::npos) << Out("tree s");
  EXPECT_NE(Run("-o json dict scan s").out.find(R"("a\u001b[2Jb\nc")"), std::string::npos);
}

TEST_F(CliDictTest, AnExportIsImportedAsItWas) {
  Out("create from");
  Out("create to");
  const std::string lines = daemon_->folder() + "/lines";
  {
    std::ofstream file(lines);
    for (int i = 0; i < 2000; ++i) {
      file << R"({"key":"k)" << i << R"(","value":{"n":)" << i << R"(,"t":"grüße"}})"
           << "\n";
    }
    file << "\n"
         << R"({"key":"brief","value":[1,2.5,null],"ttl_ms":3600000})"
         << "\n";
  }
  EXPECT_EQ(Run("import from " + lines).errors, "imported 2001 entries\n");
  const std::string exported = daemon_->folder() + "/exported";
  Out("export from " + exported);
  Out("import to - < " + exported);
  EXPECT_EQ(Out("get to k1999"), "{\"n\":1999,\"t\":\"grüße\"}\n");
  EXPECT_NE(Run("scan to brief").out.find("[1,2.5,null]"), std::string::npos);
  EXPECT_NE(Out("stats to").find("2001"), std::string::npos);
  {
    std::ofstream file(lines);
    file << R"({"key":"good","value":1})"
         << "\n"
         << R"({"key":"bad"})"
         << "\n";
  }
  const Ran refused = Run("import to " + lines);
  EXPECT_EQ(refused.code, 1);
  EXPECT_NE(refused.errors.find("line 2"), std::string::npos) << refused.errors;
  EXPECT_EQ(Out("get to good"), "1\n");
}

TEST_F(CliDictTest, ARoundTripKeepsOrderFencesAndHowLongEntriesLive) {
  Out("create from --default-ttl 1h");
  Out("create to --default-ttl 30m");
  for (const char* key : {"zebra", "apple", "mango", "berry"}) {
    Out(std::string("set from ") + key + " 1");
  }
  Out("touch from apple none");
  Out("touch from mango 5h");
  Out("set from berry '{\"n\":[1,2.0,null]}' --fence 18446744073709551615");
  const std::string exported = daemon_->folder() + "/exported";
  Out("export from " + exported);
  Out("import to " + exported);
  const auto line = [this](const std::string& key) {
    return Run("-o json dict get to " + key).out;
  };
  EXPECT_EQ(line("apple").find("ttl_ms"), std::string::npos) << "for ever: " << line("apple");
  EXPECT_NE(line("zebra").find("\"ttl_ms\":35"), std::string::npos)
      << "an hour, not the new dict's half: " << line("zebra");
  EXPECT_NE(line("mango").find("\"ttl_ms\":179"), std::string::npos) << line("mango");
  EXPECT_NE(line("berry").find("\"fence\":18446744073709551615"), std::string::npos);

  const auto without_ttls = [](std::string text) {
    for (size_t at; (at = text.find("\"ttl_ms\":3")) != std::string::npos ||
                    (at = text.find("\"ttl_ms\":1")) != std::string::npos;) {
      text.replace(at, text.find_first_of(",}", at) - at, "TTL");
    }
    return text;
  };
  const std::string again = Out("export to");
  EXPECT_EQ(without_ttls(again), without_ttls(Out("export from")));
  const size_t places[] = {again.find("zebra"), again.find("apple"), again.find("mango"),
                           again.find("berry")};
  EXPECT_TRUE(std::is_sorted(std::begin(places), std::end(places))) << again;
  EXPECT_NE(again.find(R"({"key":"berry","value":{"n":[1,2.0,null]},)"), std::string::npos)
      << again;
}

TEST_F(CliDictTest, ValuesThatFillMessagesPassEachCommand) {
  Out("create from");
  Out("create to");
  const std::string lines = daemon_->folder() + "/lines";
  const std::string text(1'000'000, 'x');
  {
    std::ofstream file(lines);
    for (int i = 0; i < 24; ++i) {
      file << R"({"key":"k)" << i << R"(","value":")" << text << "\"}\n";
    }
  }
  Out("import from " + lines);
  Out("set from k0 - --text < /dev/null");
  const std::string exported = daemon_->folder() + "/exported";
  for (const char* flag : {"", " --unordered"}) {
    EXPECT_EQ(Run("export from " + exported + flag).errors, "exported 24 entries\n");
    EXPECT_EQ(Run("import to " + exported).errors, "imported 24 entries\n");
    EXPECT_EQ(Out("get to k23 --text"), text + "\n");
    EXPECT_EQ(Out("get to k0"), "\"\"\n");
  }
  EXPECT_GT(Out("scan to").size(), 23 * text.size());
  const std::string three = Out("scan to --keys --limit 3");
  EXPECT_EQ(std::count(three.begin(), three.end(), '\n'), 3) << three;
  // More than a packet of the attach socket holds.
  const Ran in_parts = Run("get to k23 --text", "local");
  EXPECT_EQ(in_parts.code, 0) << in_parts.errors;
  EXPECT_EQ(in_parts.out.size(), text.size() + 1);
}

TEST_F(CliDictTest, AnIncrementCountsOnceWhileTheDaemonIsKilled) {
  Out("create s");
  int64_t counted = 0;
  for (int i = 0; i < 6; ++i) {
    if (i % 3 == 1) {
      ASSERT_EQ(kill(daemon_->daemon_pid(), SIGKILL), 0);
    }
    EXPECT_EQ(Out("incr s n"), std::to_string(++counted) + "\n") << "it waits and is sent again";
  }
}

TEST_F(CliDictTest, EveryVerbDoesWhatItSays) {
  EXPECT_EQ(Run("create s --max-entries 50 --max-bytes 1M --evict").errors,
            "created dict \"s\" for 50 entries\n");
  EXPECT_EQ(Run("create s").errors, "found dict \"s\" for 50 entries\n");
  const std::string described = Out("describe s");
  for (const char* part : {"full_policy          evict", "max_bytes            1048576"}) {
    EXPECT_NE(described.find(part), std::string::npos) << described;
  }
  EXPECT_NE(Run("-o json dict describe s").out.find("\"max_entries\": 50"), std::string::npos);
  EXPECT_NE(Run("-o json dict ls").out.find("\"name\": \"s\""), std::string::npos);
  Out("set s a 1");
  Out("touch s a 1h");
  EXPECT_NE(Run("-o json dict get s a").out.find("\"ttl_ms\":35"), std::string::npos);
  Out("del s a");
  EXPECT_EQ(Run("get s a").code, 3);
  Out("set s a 1");
  Out("clear s -y");
  EXPECT_NE(Out("stats s").find("entries              0\n"), std::string::npos) << Out("stats s");
  Out("rm s --yes");
  EXPECT_EQ(Run("describe s").code, 3);
}

TEST_F(CliDictTest, OnATerminalABarShowsHowFarItIs) {
  Out("create s");
  const std::string lines = daemon_->folder() + "/lines";
  {
    std::ofstream file(lines);
    for (int i = 0; i < 500; ++i) file << R"({"key":"k)" << i << "\",\"value\":1}\n";
  }
  int terminal = -1;
  int other_end = -1;
  ASSERT_EQ(openpty(&terminal, &other_end, nullptr, nullptr, nullptr), 0);
  const std::string name = ttyname(other_end);
  for (const std::string& command : {"import s " + lines, "export s " + lines}) {
    const Ran ran = Run(command + " 2>" + name + " #");
    EXPECT_EQ(ran.code, 0);
    std::array<char, 4096> buffer;
    const ssize_t got = read(terminal, buffer.data(), buffer.size());
    ASSERT_GT(got, 0);
    const std::string shown(buffer.data(), static_cast<size_t>(got));
    EXPECT_NE(shown.find("ed [##############################] 100%  500 entries\r\n"),
              std::string::npos)
        << shown;
  }
  close(terminal);
  close(other_end);
}

TEST_F(CliDictTest, WhatWasSetIsThereAfterTheDaemonWasKilled) {
  Out("create s");
  Out("set s a '[1,2,3]'");
  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  EXPECT_EQ(Out("get s a"), "[1,2,3]\n");
  EXPECT_EQ(Out("append s a 4"), "4\n");
}

}  // namespace
}  // namespace statehouse::testing
