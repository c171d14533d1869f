// What may stand next on the command line, read off the tree of commands, so that the shells'
// scripts know no command by name.
//
// The scripts call `statehouse __complete WORD…` with the words after the program's name; the last
// one is the word at the cursor. It prints a candidate on each line, with a tab and what it means
// where that is known; or ":files" alone where the shell is to complete the name of a file.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "clients/cli/connection.h"

namespace statehouse::cli {

// The hidden command's name, and what it says instead of candidates.
inline constexpr const char* kCompleteWord = "__complete";
inline constexpr const char* kCompleteFiles = ":files";
// Live names are for people who wait at a key.
inline constexpr uint64_t kCompletionTimeoutMs = 1000;
inline constexpr size_t kCompletionNamesMax = 1000;

enum class NameKind : uint8_t { kNone = 0, kDict = 1, kArea = 2, kLock = 3 };

struct Candidate {
  std::string text;
  std::string about;
  bool operator==(const Candidate&) const = default;
};

struct Completion {
  std::vector<Candidate> candidates;  // That begin with the word.
  NameKind names = NameKind::kNone;   // Live names of this kind are candidates, too.
  std::string names_before;           // What stands before a name in the word: "--dict=".
  bool files = false;
  Globals globals;  // As the words set them.
};

// `words`: after the program's name; the last one is at the cursor.
Completion Complete(const CLI::App& app, const std::vector<std::string>& words);

// Names of objects that the token may see, at most kCompletionNamesMax. Throws Failed.
std::vector<std::string> LiveNames(const Globals& globals, NameKind kind,
                                   const std::string& prefix);

// The hidden command. What goes wrong with live names is said on standard error, which the scripts
// drop: a key press is no place for it.
void PrintCompletion(const CLI::App& app, const std::vector<std::string>& words);

// The script for "bash", "zsh" or "fish"; "" for another shell.
std::string CompletionScript(const std::string& shell);

}  // namespace statehouse::cli
