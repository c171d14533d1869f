// statehouse help: what --help says, by words, and what no command's help has room for.
#include <iostream>

#include "clients/cli/commands.h"
#include "clients/cli/exit_codes.h"

namespace statehouse::cli {
namespace {

constexpr const char* kExitCodesTopic = "exit-codes";

void PrintExitCodes() {
  std::cout << "Exit codes of statehouse:\n\n";
  for (const ExitCode& exit_code : kExitCodes) {
    std::cout << "  " << exit_code.code << "  " << exit_code.meaning << "\n";
  }
  std::cout << "\n`lock` and `elect` end with the exit code of their command, or 5 as above.\n";
}

// The command that the words name, from the top.
CLI::App* Find(CLI::App* app, const std::vector<std::string>& words) {
  CLI::App* at = app;
  for (const std::string& word : words) {
    const std::vector<CLI::App*> found =
        at->get_subcommands([&word](const CLI::App* sub) { return sub->get_name() == word; });
    if (found.empty()) {
      throw Failed{kExitUsage, "help: \"" + at->get_name() + "\" has no command \"" + word +
                                   "\"; `statehouse --help` lists them"};
    }
    at = found.front();
  }
  return at;
}

}  // namespace

void AddHelpCommand(CLI::App* app) {
  const auto words = std::make_shared<std::vector<std::string>>();
  CLI::App* const command =
      app->add_subcommand("help", "Tells about a command, or `help exit-codes`");
  command->add_option("TOPIC", *words, "A command, such as dict set, or exit-codes");
  command->callback([app, words] {
    if (words->size() == 1 && words->front() == kExitCodesTopic) return PrintExitCodes();
    const CLI::App* const about = Find(app, *words);
    std::string before;
    for (const CLI::App* up = about->get_parent(); up != nullptr; up = up->get_parent()) {
      before = up->get_name() + (before.empty() ? "" : " ") + before;
    }
    // Not App::help, which tells about the command that was parsed: this one.
    std::cout << about->get_formatter()->make_help(about, before, CLI::AppFormatMode::Normal);
  });
}

}  // namespace statehouse::cli
