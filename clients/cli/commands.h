// The groups of subcommands. Each adds itself to the parser; its callbacks run after parsing and
// throw Failed.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "clients/cli/connection.h"

namespace statehouse::cli {

// `globals` is filled while parsing and read by the callbacks; it outlives `app`.
void AddAreaCommands(CLI::App* app, const Globals* globals);
void AddDictCommands(CLI::App* app, const Globals* globals);
void AddWatchCommand(CLI::App* app, const Globals* globals);
void AddMonitorCommand(CLI::App* app, const Globals* globals);
void AddTokenCommands(CLI::App* app, const Globals* globals);
void AddStatusCommand(CLI::App* app, const Globals* globals);
void AddDrainCommand(CLI::App* app, const Globals* globals);
void AddSessionCommands(CLI::App* app, const Globals* globals);
void AddTopCommand(CLI::App* app, const Globals* globals);
void AddLatencyCommand(CLI::App* app, const Globals* globals);
void AddBenchCommand(CLI::App* app, const Globals* globals);
void AddBigCommands(CLI::App* app, const Globals* globals);
void AddDoctorCommand(CLI::App* app, const Globals* globals);
void AddHelpCommand(CLI::App* app);
void AddCompletionCommand(CLI::App* app);
void AddReferenceCommand(CLI::App* app);

// Takes what follows the first `--` of `lock` and `elect` out of the words of the command line; it
// is the command to run. Nothing where there is no `--`, or another subcommand.
std::optional<std::vector<std::string>> TakeCommand(std::vector<const char*>* words);
void AddLockCommands(CLI::App* app, const Globals* globals,
                     const std::optional<std::vector<std::string>>& command);

}  // namespace statehouse::cli
