// CommandLine: runs the command line against a Daemon, by a shell.
//
// Who owns it: the test, no longer than the daemon. Threads: one. A program that includes it says
// with STATEHOUSE_CLI_PATH which command line it means.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>

#include "tests/support/daemon.h"

namespace statehouse::testing {

class CommandLine final {
 public:
  struct Ran {
    int code = 0;
    std::string out;
    std::string errors;
  };

  explicit CommandLine(const Daemon* daemon) : daemon_(daemon) {}

  // What a shell makes of `script`: `{}` stands for the program with its connection, `{cli}` for
  // the program alone.
  Ran Shell(std::string script) const {
    Replace(&script, "{cli}", STATEHOUSE_CLI_PATH);
    Replace(&script, "{}",
            "env STATEHOUSE_URL='statehouse+unix://" + daemon_->runtime_dir() +
                "' STATEHOUSE_TOKEN='" + daemon_->token() +
                "' timeout 60 " STATEHOUSE_CLI_PATH " ");
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
  Ran Run(const std::string& arguments) const { return Shell("{} " + arguments); }
  // The output of one that succeeds.
  std::string Out(const std::string& arguments) const {
    const Ran ran = Run(arguments);
    EXPECT_EQ(ran.code, 0) << arguments << ": " << ran.errors << ran.out;
    return ran.out;
  }

 private:
  static void Replace(std::string* text, const std::string& what, const std::string& by) {
    for (size_t at = 0; (at = text->find(what, at)) != std::string::npos; at += by.size()) {
      text->replace(at, what.size(), by);
    }
  }

  const Daemon* const daemon_;
};

// With a daemon of its own.
class CommandLineTest : public ::testing::Test {
 protected:
  void SetUp() override { Start({}); }
  void Start(DaemonOptions options) {
    auto daemon = Daemon::Start(std::move(options));
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
  }
  CommandLine::Ran Shell(const std::string& script) const {
    return CommandLine(daemon_.get()).Shell(script);
  }
  std::string Out(const std::string& arguments) const {
    return CommandLine(daemon_.get()).Out(arguments);
  }

  std::unique_ptr<Daemon> daemon_;
};

}  // namespace statehouse::testing
