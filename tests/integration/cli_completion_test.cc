// Completion in zsh and in fish, each as its user has it: the script is loaded, a line is typed,
// and the shell offers. bash is in cli_operator_test.cc. They are Debian's packages zsh and fish.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/command_line.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

using Offers = std::vector<std::string>;

// zsh FILE HOW LINE: what an interactive zsh offers at the end of the line, as <<…>> each. HOW
// makes it know the script. Its completion system hands every match to compadd.
constexpr const char* kZshOffers = R"(
emulate -L zsh
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PROMPT=; stty -echo; $1"
zpty -w shell 'compadd() {
  case "${@[1,(i)(-|--)]}" in *-(O|A|D)\ *) builtin compadd "$@"; return;; esac
  local -a offered
  builtin compadd -A offered "$@"
  (( $#offered )) && print -rl -- "<<"${^offered}">>"
  builtin compadd "$@"
}
_offers() { zle complete-word; print "<<:end>>" }
zle -N _offers; bindkey "^I" _offers; print ready:$((1 + 1))'
zpty -r shell told "*ready:2*"
zpty -w -n shell "$2"$'\t'
zpty -r shell told "*<<:end>>*"
print -r -- "$told"
zpty -d shell
)";
constexpr const char* kZshSourced =
    "autoload -Uz compinit && compinit -D -u; . <(statehouse completion zsh)";

class CliCompletionTest : public CommandLineTest {
 protected:
  void SetUp() override {
    CommandLineTest::SetUp();
    std::ofstream(daemon_->folder() + "/offers.zsh") << kZshOffers;
    Out("dict create sessions");
    Out("dict create web:a/b");
    Out("area create counters --size 64");
  }
  // In the daemon's folder, with the command line on the PATH.
  std::string InFolder(const std::string& command) const {
    const std::string bin = std::filesystem::path(STATEHOUSE_CLI_PATH).parent_path();
    const CommandLine::Ran ran =
        Shell("cd '" + daemon_->folder() + "' && export PATH='" + bin +
              "':\"$PATH\" HOME=\"$PWD\" TERM=dumb STATEHOUSE_URL=statehouse+unix://" +
              daemon_->runtime_dir() + " STATEHOUSE_TOKEN=" + daemon_->token() + " && " + command);
    EXPECT_EQ(ran.code, 0) << command;
    EXPECT_EQ(ran.errors, "") << command;
    return ran.out;
  }
  Offers Zsh(const std::string& line, const std::string& how = kZshSourced) const {
    const std::string told = InFolder("timeout 60 zsh -f offers.zsh '" + how + "' '" + line + "'");
    Offers offers;
    for (size_t at = 0; (at = told.find("<<", at)) != std::string::npos; at += 2) {
      offers.push_back(told.substr(at + 2, told.find(">>", at) - at - 2));
    }
    EXPECT_FALSE(offers.empty() || offers.back() != ":end") << told;
    if (!offers.empty()) offers.pop_back();
    return offers;
  }
  // Each with a tab and its meaning where that is known.
  Offers Fish(const std::string& line) const {
    std::stringstream told(
        InFolder("timeout 60 fish --no-config -c 'statehouse completion fish | source; "
                 "complete -C $argv[1]' '" +
                 line + "'"));
    Offers offers;
    for (std::string offer; std::getline(told, offer);) offers.push_back(offer);
    return offers;
  }
  // Live names are left out where the service takes longer than a person would wait.
  template <typename Ask>
  void Expect(const Ask& ask, const std::string& line, Offers offers) const {
    std::sort(offers.begin(), offers.end());
    Offers got;
    EXPECT_TRUE(Eventually([&] {
      got = ask(line);
      std::sort(got.begin(), got.end());
      return got == offers;
    })) << line
        << ": " << ::testing::PrintToString(got);
  }
};

TEST_F(CliCompletionTest, ZshCompletesCommandsOptionsAndLiveNames) {
  EXPECT_THAT(Zsh("statehouse doct"), ElementsAre("doctor"));
  EXPECT_THAT(Zsh("statehouse dict create --max-e"), ElementsAre("--max-entries"));
  EXPECT_THAT(Zsh("statehouse --transport "),
              UnorderedElementsAre("auto", "local", "socket", "network"));
  EXPECT_THAT(Zsh("statehouse --transport=l"), ElementsAre("--transport=local"));
  EXPECT_THAT(Zsh("statehouse dict import d ./off"), ElementsAre("offers.zsh"));
  EXPECT_THAT(Zsh("statehouse nothing-like-it"), IsEmpty());
  const auto ask = [this](const std::string& line) { return Zsh(line); };
  Expect(ask, "statehouse dict get se", {"sessions"});
  Expect(ask, "statehouse dict get ", {"sessions", "web:a/b"});
  Expect(ask, "statehouse dict get web:", {"web:a/b"});
  Expect(ask, "statehouse -o json watch area c", {"counters"});
}

TEST_F(CliCompletionTest, ZshFindsTheScriptWhereItLooksForFunctions) {
  InFolder("mkdir functions && statehouse completion zsh > functions/_statehouse");
  const char* const how =
      "fpath=(\"$PWD/functions\" $fpath); autoload -Uz compinit && compinit -D -u";

  EXPECT_THAT(Zsh("statehouse doct", how), ElementsAre("doctor"));
  EXPECT_THAT(Zsh("statehouse doct", "autoload -Uz compinit && compinit -D -u"), IsEmpty());
}

TEST_F(CliCompletionTest, FishCompletesCommandsOptionsAndLiveNames) {
  EXPECT_THAT(Fish("statehouse doct"),
              ElementsAre("doctor\tChecks the service, its doors and its host"));
  EXPECT_THAT(Fish("statehouse dict create --max-e"),
              ElementsAre("--max-entries\tThe limit of entries (16,777,216)"));
  EXPECT_THAT(Fish("statehouse --transport "),
              UnorderedElementsAre("auto", "local", "socket", "network"));
  EXPECT_THAT(Fish("statehouse --transport=l"), ElementsAre("--transport=local"));
  EXPECT_THAT(Fish("statehouse dict import d ./off"), ElementsAre("./offers.zsh"));
  EXPECT_THAT(Fish("statehouse nothing-like-it"), IsEmpty());
  const auto ask = [this](const std::string& line) { return Fish(line); };
  Expect(ask, "statehouse dict get se", {"sessions"});
  Expect(ask, "statehouse dict get ", {"sessions", "web:a/b"});
  Expect(ask, "statehouse dict get web:", {"web:a/b"});
  Expect(ask, "statehouse -o json watch area c", {"counters"});
}

TEST_F(CliCompletionTest, BothAreQuietWhereNobodyAnswers) {
  daemon_->Stop();

  EXPECT_THAT(Zsh("statehouse dict get se"), IsEmpty());
  EXPECT_THAT(Zsh("statehouse doct"), ElementsAre("doctor"));
  EXPECT_THAT(Fish("statehouse dict get se"), IsEmpty());
  EXPECT_THAT(Fish("statehouse doct"),
              ElementsAre("doctor\tChecks the service, its doors and its host"));
}

}  // namespace
}  // namespace statehouse::testing
