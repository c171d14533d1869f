// What is read off the tree of commands: completion and reference.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "clients/cli/application.h"
#include "clients/cli/commands.h"
#include "clients/cli/completion.h"
#include "clients/cli/exit_codes.h"
#include "clients/cli/reference.h"

namespace statehouse::cli {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

class TreeTest : public ::testing::Test {
 protected:
  Completion At(const std::vector<std::string>& words) const { return Complete(*app_, words); }
  std::vector<std::string> Texts(const std::vector<std::string>& words) const {
    std::vector<std::string> texts;
    for (const Candidate& candidate : At(words).candidates) texts.push_back(candidate.text);
    return texts;
  }

  Globals globals_;
  std::unique_ptr<CLI::App> app_ = MakeApplication(&globals_, std::nullopt);
};

TEST_F(TreeTest, CommandsAreCompleted) {
  EXPECT_THAT(Texts({"do"}), ElementsAre("doctor"));
  EXPECT_THAT(Texts({"dict", "des"}), ElementsAre("describe"));
  EXPECT_THAT(Texts({"dr"}), ElementsAre("drain"));
  EXPECT_THAT(Texts({"session", ""}), ElementsAre("ls"));
  EXPECT_THAT(Texts({"drain", "--"}), Contains("--grace"));
  EXPECT_THAT(Texts({""}), Contains("watch"));
  EXPECT_THAT(Texts({""}), Not(Contains("reference"))) << "it is hidden";
  EXPECT_THAT(Texts({"-o", "json", "dict", "tou"}), ElementsAre("touch"));
  EXPECT_THAT(Texts({"--output=json", "dict", "tou"}), ElementsAre("touch"));
  EXPECT_THAT(Texts({"help", "exit"}), ElementsAre("exit-codes"));
  EXPECT_THAT(Texts({"help", "dict", "tou"}), ElementsAre("touch"));
  EXPECT_THAT(Texts({"completion", ""}), ElementsAre("bash", "zsh", "fish"));
  EXPECT_THAT(Texts({"no-such-command"}), IsEmpty());
  EXPECT_THAT(Complete(*app_, {}).candidates.size(), Texts({""}).size());
}

TEST_F(TreeTest, OptionsAreCompletedWithTheirMeaningAndChoices) {
  const Completion dashes = At({"dict", "create", "--max-e"});
  ASSERT_EQ(dashes.candidates.size(), 1u);
  EXPECT_EQ(dashes.candidates[0].text, "--max-entries");
  EXPECT_FALSE(dashes.candidates[0].about.empty());
  EXPECT_THAT(Texts({"dict", "create", "--"}), Contains("--url")) << "those of the top, too";
  EXPECT_THAT(Texts({"--transport", ""}), ElementsAre("auto", "local", "socket", "network"));
  EXPECT_THAT(Texts({"--transport=l"}), ElementsAre("--transport=local"));
  EXPECT_THAT(Texts({"watch", "d", "--kind", "e"}), ElementsAre("expire", "evict"));
  EXPECT_TRUE(At({"--token-file", "x"}).files);
  EXPECT_TRUE(At({"dict", "import", "d", ""}).files);
  EXPECT_FALSE(At({"dict", "create", "d", "--ttl", ""}).files);
}

TEST_F(TreeTest, LiveNamesStandWhereACommandNamesAnObject) {
  const struct {
    std::vector<std::string> words;
    NameKind kind;
  } rows[] = {
      {{"dict", "get", ""}, NameKind::kDict},
      {{"dict", "get", "d", ""}, NameKind::kNone},
      {{"dict", "incr", "--path", "a.b", ""}, NameKind::kDict},
      {{"area", "hex", "x"}, NameKind::kArea},
      {{"lock", ""}, NameKind::kLock},
      {{"lock", "describe", ""}, NameKind::kLock},
      {{"lock", "--ttl", "10s", ""}, NameKind::kLock},
      {{"lock", "--ttl", ""}, NameKind::kNone},
      {{"elect", ""}, NameKind::kLock},
      {{"watch", ""}, NameKind::kDict},
      {{"watch", "area", ""}, NameKind::kArea},
      {{"watch", "dict", ""}, NameKind::kDict},
      {{"watch", "d", ""}, NameKind::kNone},
      {{"token", "revoke", ""}, NameKind::kNone},
      {{"status", ""}, NameKind::kNone},
      {{""}, NameKind::kNone},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(At(row.words).names, row.kind) << ::testing::PrintToString(row.words);
  }
  EXPECT_TRUE(At({"lock", "a", "--", ""}).files) << "another program's words";
  EXPECT_EQ(At({"lock", "a", "--", "make", "--u"}).candidates.size(), 0u);
}

TEST_F(TreeTest, TheConnectionIsThatOfTheWords) {
  const Completion completion = At(
      {"--url=statehouse://h:1", "--transport", "network", "--token-file", "f", "dict", "get", ""});
  EXPECT_EQ(completion.globals.url, "statehouse://h:1");
  EXPECT_EQ(completion.globals.transport, "network");
  EXPECT_EQ(completion.globals.token_file, "f");
}

TEST_F(TreeTest, EachShellHasAScriptThatAsksTheProgram) {
  for (const char* const shell : {"bash", "zsh", "fish"}) {
    const std::string script = CompletionScript(shell);
    EXPECT_NE(script.find(kCompleteWord), std::string::npos) << shell;
    EXPECT_NE(script.find(kCompleteFiles), std::string::npos) << shell;
    for (const char* const command : {"elect", "monitor", "--ttl"}) {
      EXPECT_EQ(script.find(command), std::string::npos) << shell << " names " << command;
    }
  }
  EXPECT_EQ(CompletionScript("tcsh"), "");
}

TEST_F(TreeTest, TheReferenceInDocsIsCurrent) {
  std::stringstream text;
  text << std::ifstream(CLI_MD).rdbuf();
  EXPECT_EQ(text.str(), Reference(*app_))
      << "make it anew: build/bin/statehouse reference > docs/CLI.md";
}

TEST_F(TreeTest, EveryExitCodeIsListedOnce) {
  std::set<int> listed;
  for (const ExitCode& exit_code : kExitCodes) {
    EXPECT_TRUE(listed.insert(exit_code.code).second) << exit_code.code;
    EXPECT_STRNE(exit_code.meaning, "");
  }
  for (int reason = SH_OK; reason <= SH_SESSION_NOT_FOUND; ++reason) {
    EXPECT_EQ(listed.count(ExitCodeOf(static_cast<sh_reason>(reason))), 1u) << reason;
  }
}

// Words that lead to each option of the tree that takes a number from 0 on.
void CollectUnsigned(const CLI::App& app, const std::vector<std::string>& path,
                     std::vector<std::pair<std::vector<std::string>, std::string>>* found) {
  for (const CLI::Option* const option : app.get_options()) {
    if (option->get_type_name().rfind("UINT", 0) != 0 || option->get_lnames().empty()) continue;
    found->emplace_back(path, "--" + option->get_lnames()[0]);
  }
  for (const CLI::App* const command : app.get_subcommands([](const CLI::App*) { return true; })) {
    std::vector<std::string> longer = path;
    longer.push_back(command->get_name());
    CollectUnsigned(*command, longer, found);
  }
}

TEST_F(TreeTest, NumbersThatAreNegativeOrTooLargeAreRefused) {
  std::vector<std::pair<std::vector<std::string>, std::string>> options;
  CollectUnsigned(*app_, {}, &options);
  EXPECT_GT(options.size(), 15u);
  for (const auto& [path, option] : options) {
    for (const char* const value : {"-1", " -1", "18446744073709551616"}) {
      std::vector<std::string> words = path;
      words.push_back(option + "=" + value);
      Globals globals;
      const auto app = MakeApplication(&globals, std::nullopt);
      std::reverse(words.begin(), words.end());  // As CLI11 takes them.
      EXPECT_THROW(app->parse(words), CLI::ValidationError) << ::testing::PrintToString(words);
    }
  }
}

TEST_F(TreeTest, WhatDeletesMuchTakesBothNamesOfYes) {
  const std::vector<std::string> commands[] = {
      {"area", "rm"}, {"dict", "rm"}, {"dict", "clear"}, {"dict", "del-prefix"}};
  for (const std::vector<std::string>& words : commands) {
    const CLI::App* const command = app_->get_subcommand(words[0])->get_subcommand(words[1]);
    EXPECT_EQ(command->get_option("-y"), command->get_option("--yes")) << words[0] << words[1];
  }
}

}  // namespace
}  // namespace statehouse::cli
