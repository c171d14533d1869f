// The command line of statehoused apart from its settings: what this process shall be, and the
// subcommands that only print.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/status.h"

namespace statehouse {

enum class Role : uint8_t {
  kPrint,       // A subcommand, --help or --version: see RunPrintCommand.
  kKeeper,      // Started by a user.
  kDaemon,      // Started by a keeper, or alone with --no-keeper.
  kNextKeeper,  // Started by a daemon whose keeper died.
};

struct CommandLine {
  Role role = Role::kKeeper;
  bool started_by_keeper = false;     // kDaemon.
  pid_t adopted_daemon = 0;           // kNextKeeper.
  std::vector<std::string> settings;  // What is left: for the configuration.
  std::vector<std::string> command;   // kPrint: {"config", "show"}, {"--help"}, …
  bool checks_files = false;          // config check: what the configuration names, too.
};

// `arguments` excludes the program's name. INVALID_ARGUMENT for a subcommand that is not known, or
// that takes nothing more.
StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments);

// The arguments that start a daemon, or the next keeper of daemon `pid`, with the same settings.
std::vector<std::string> DaemonArguments(const std::string& program, const CommandLine& line);
std::vector<std::string> NextKeeperArguments(const std::string& program, const CommandLine& line,
                                             pid_t daemon);

std::map<std::string, std::string> EnvironmentMap();

// Prints and returns the exit code.
int RunPrintCommand(const CommandLine& line);

}  // namespace statehouse
