// What deletes much is done only with --yes.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "clients/cli/connection.h"
#include "clients/cli/exit_codes.h"

namespace statehouse::cli {

inline void AddYes(CLI::App* command, bool* yes) {
  command->add_flag("-y,--yes", *yes, "Yes, delete it");
}

// Throws Failed without it. `what`: that is deleted.
inline void RequireYes(bool yes, const std::string& what) {
  if (!yes) throw Failed{kExitUsage, "this deletes " + what + "; say --yes"};
}

}  // namespace statehouse::cli
