// docs/CLI.md: every command and option, read off the tree of commands.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace statehouse::cli {

// Markdown.
std::string Reference(const CLI::App& app);

}  // namespace statehouse::cli
