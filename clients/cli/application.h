// The command line as a tree of commands, from which also the help, the completion and the
// reference are made.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clients/cli/connection.h"

namespace statehouse::cli {

// `globals` is filled while parsing; it outlives the result. `command`: as TakeCommand gives it.
std::unique_ptr<CLI::App> MakeApplication(Globals* globals,
                                          const std::optional<std::vector<std::string>>& command);

// The version of this program, "0.1.0".
const char* ProgramVersion();

}  // namespace statehouse::cli
