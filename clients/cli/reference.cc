#include "clients/cli/reference.h"

#include <iostream>
#include <vector>

#include "clients/cli/commands.h"
#include "clients/cli/exit_codes.h"

namespace statehouse::cli {
namespace {

// Of a table's cell.
std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '|') escaped += '\\';
    escaped += c == '\n' ? ' ' : c;
  }
  return escaped;
}

std::string NamesOf(const CLI::Option* option) {
  if (option->get_positional()) {
    const std::string named = option->nonpositional() ? ", --" + option->get_lnames().front() : "";
    return option->get_name(true).substr(0, option->get_name(true).find(',')) + named;
  }
  std::string names;
  for (const std::string& name : option->get_snames()) {
    names += (names.empty() ? "-" : ", -") + name;
  }
  for (const std::string& name : option->get_lnames()) {
    names += (names.empty() ? "--" : ", --") + name;
  }
  return names;
}

void AddOptions(const CLI::App& command, bool positional, std::string* text) {
  bool first = true;
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_positional() != positional || option->get_group().empty()) continue;
    if (option->check_name("--help")) continue;
    if (first)
      *text +=
          std::string("\n| ") + (positional ? "argument" : "option") + " | meaning |\n|---|---|\n";
    first = false;
    *text += "| `" + Escaped(NamesOf(option)) + "` | " + Escaped(option->get_description());
    if (!option->get_envname().empty()) *text += " (`" + option->get_envname() + "`)";
    if (option->get_required()) *text += "; required";
    *text += " |\n";
  }
}

void AddCommand(const CLI::App& command, const std::string& before, int depth, std::string* text) {
  const std::string name = before + " " + command.get_name();
  *text += "\n" + std::string(static_cast<size_t>(depth), '#') + " " + name + "\n\n" +
           command.get_description() + ".\n";
  AddOptions(command, true, text);
  AddOptions(command, false, text);
  // A command that says nothing of its own has the footer of the one above.
  const CLI::App* const above = command.get_parent();
  const bool is_own = above == nullptr || above->get_footer() != command.get_footer();
  if (is_own && !command.get_footer().empty())
    *text += "\n```text\n" + command.get_footer() + "\n```\n";
  for (const CLI::App* sub :
       command.get_subcommands([](const CLI::App* one) { return !one->get_group().empty(); })) {
    AddCommand(*sub, name, depth + 1, text);
  }
}

}  // namespace

std::string Reference(const CLI::App& app) {
  std::string text =
      "# The command line\n\n"
      "Made by `statehouse reference`; a test compares them. Every command has `--help`. "
      "[OPERATIONS.md](OPERATIONS.md) tells what to do with them.\n"
      "\n## Options of every command\n";
  AddOptions(app, false, &text);
  text += "\n## Exit codes\n\n| code | meaning |\n|---|---|\n";
  for (const ExitCode& exit_code : kExitCodes) {
    text += "| " + std::to_string(exit_code.code) + " | " + Escaped(exit_code.meaning) + " |\n";
  }
  text += "\n`lock` and `elect` end with the exit code of their command, or 5 as above.\n";
  for (const CLI::App* command :
       app.get_subcommands([](const CLI::App* one) { return !one->get_group().empty(); })) {
    AddCommand(*command, "statehouse", 2, &text);
  }
  return text;
}

void AddReferenceCommand(CLI::App* app) {
  CLI::App* const command = app->add_subcommand("reference", "Prints docs/CLI.md");
  command->group("");  // Hidden.
  command->callback([app] { std::cout << Reference(*app); });
}

}  // namespace statehouse::cli
