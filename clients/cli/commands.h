// The groups of subcommands. Each adds itself to the parser; its callbacks run after parsing and
// throw Failed.
#pragma once

#include <CLI/CLI.hpp>

#include "clients/cli/connection.h"

namespace statehouse::cli {

// `globals` is filled while parsing and read by the callbacks; it outlives `app`.
void AddAreaCommands(CLI::App* app, const Globals* globals);
void AddDictCommands(CLI::App* app, const Globals* globals);
void AddTokenCommands(CLI::App* app, const Globals* globals);
void AddStatusCommand(CLI::App* app, const Globals* globals);

}  // namespace statehouse::cli
