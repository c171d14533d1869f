// statehouse watch: the command line, and what changes in a dict, a line for each event.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "clients/cli/commands.h"
#include "clients/cli/exit_codes.h"
#include "clients/cli/quantity.h"
#include "clients/cli/terminal_text.h"
#include "clients/cli/watch_arguments.h"
#include "clients/cli/watch_line.h"

namespace statehouse::cli {
namespace {

// What ends the watch: an entry that is there, or has a certain value.
struct Until {
  std::string key;
  std::optional<nlohmann::json> value;

  static Until Parse(const std::string& text) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos) return {text, std::nullopt};
    nlohmann::json value = nlohmann::json::parse(text.substr(equals + 1), nullptr, false);
    if (value.is_discarded()) {
      throw Failed{kExitUsage, "--until \"" + text +
                                   "\": what follows the = is no JSON; texts are "
                                   "quoted twice, as in 'state=\"ready\"'"};
    }
    return {text.substr(0, equals), std::move(value)};
  }
  bool IsMet(const std::string& of, const std::string& json) const {
    if (of != key) return false;
    return !value.has_value() || nlohmann::json::parse(json, nullptr, false) == *value;
  }
};

constexpr std::chrono::milliseconds kOpenPause{100};

uint64_t Milliseconds(const std::string& text) {
  constexpr uint64_t kMsMax = 1'000'000'000;  // More is refused as this is.
  const std::optional<uint64_t> ms = ParseMilliseconds(text);
  if (!ms.has_value()) throw Failed{kExitUsage, "'" + text + "' is no time; use 250ms, 30s or 5m"};
  return std::min(*ms, kMsMax);
}

struct DictCloser {
  void operator()(sh_dict* dict) const { sh_dict_close(dict); }
};
struct WatchCloser {
  void operator()(sh_watch* watch) const { sh_watch_close(watch); }
};

// What `arguments` ask for; points into them.
sh_watch_options OptionsOf(const WatchArguments& arguments) {
  sh_watch_options options{};
  if (arguments.key_option->count() > 0) {
    if (!arguments.prefix.empty()) throw Failed{kExitUsage, "give a prefix or --key, not both"};
    options.key = sh_text(arguments.key.c_str());
  } else if (!arguments.prefix.empty()) {
    options.prefix = sh_text(arguments.prefix.c_str());
  }
  options.from_revision = arguments.from_revision;
  options.skip_snapshot = arguments.no_snapshot ? 1 : 0;
  options.keys_only = arguments.keys_only ? 1 : 0;
  options.previous = arguments.previous ? 1 : 0;
  options.kinds = KindsOf(arguments.kinds);
  options.slow = arguments.slow == "latest"   ? SH_SLOW_LATEST
                 : arguments.slow == "cancel" ? SH_SLOW_CANCEL
                                              : SH_SLOW_RESYNC;
  if (!arguments.window.empty()) options.window_us = Milliseconds(arguments.window) * 1000;
  if (!arguments.progress.empty()) {
    options.progress_ms = Milliseconds(arguments.progress);
    if (options.progress_ms == 0) throw Failed{kExitUsage, "--progress is 0; use 100ms to 1h"};
  }
  return options;
}

class Watching final {
 public:
  Watching(const Globals& globals, const WatchArguments& arguments)
      : globals_(globals), arguments_(arguments) {
    if (!arguments.until.empty()) until_ = Until::Parse(arguments.until);
  }

  // Until what was asked for has come. Throws Failed for every other end.
  void Run() {
    const sh_watch_options options = OptionsOf(arguments_);
    const Client client = Connect(globals_);
    sh_error* error = nullptr;
    sh_dict* opened = nullptr;
    for (;;) {
      const sh_reason reason =
          sh_dict_open(client.get(), arguments_.name.c_str(), nullptr, &opened, &error);
      // A watch waits for the service however long that takes, and so does its beginning.
      if (reason != SH_UNAVAILABLE && reason != SH_DRAINING) {
        Check(reason, error);
        break;
      }
      sh_error_free(std::exchange(error, nullptr));
      std::this_thread::sleep_until(std::chrono::steady_clock::now() + kOpenPause);
    }
    const std::unique_ptr<sh_dict, DictCloser> dict(opened);
    sh_watch* begun = nullptr;
    Check(sh_dict_watch(dict.get(), &options, &begun, &error), error);
    const std::unique_ptr<sh_watch, WatchCloser> watch(begun);
    sh_watch_event event{};
    do {
      Check(sh_watch_next(watch.get(), SH_FOREVER, &event, &error), error);
    } while (event.kind == SH_WATCH_NONE || !Tell(ToldOf(event)));
  }

 private:
  // Whether this was the last event that was asked for.
  bool Tell(const Told& told) {
    PrintLine(LineOf(told, globals_.json));
    if (told.is_change() && !arguments_.command.empty()) RunCommand(told);
    if (told.is_change() && ++changes_ == arguments_.count) return true;
    return until_.has_value() && (told.kind == "entry" || told.kind == "put") &&
           until_->IsMet(told.key, told.value);
  }

  void RunCommand(const Told& told) const {
    Execute(arguments_.command,
            {{"STATEHOUSE_EVENT", told.kind},
             {"STATEHOUSE_KEY", told.key},
             {"STATEHOUSE_VALUE", told.value},
             {"STATEHOUSE_PREVIOUS", told.previous},
             {"STATEHOUSE_VERSION", std::to_string(told.version)},
             {"STATEHOUSE_REVISION", std::to_string(told.revision)}},
            "key \"" + told.key + "\"");
  }

  const Globals& globals_;
  const WatchArguments& arguments_;
  std::optional<Until> until_;
  uint64_t changes_ = 0;
};

// Says which object is watched, from the words; `watch area web/` is an area, and a dict of the
// name "area" is `watch dict area`.
void TakeWords(WatchArguments* arguments) {
  std::vector<std::string> words = arguments->words;
  const bool has_kind = words.size() > 1 && (words[0] == "area" || words[0] == "dict");
  if (has_kind) {
    arguments->of_area = words[0] == "area";
    words.erase(words.begin());
  }
  const size_t words_max = arguments->of_area ? 1 : 2;
  if (words.size() > words_max) {
    throw Failed{kExitUsage, "watch: what is \"" + words[words_max] +
                                 "\"? write watch [dict] DICT [PREFIX], or watch area AREA"};
  }
  arguments->name = words[0];
  if (words.size() > 1) arguments->prefix = words[1];
}

void AddDictOptions(CLI::App* command, WatchArguments* arguments,
                    std::vector<CLI::Option*>* options) {
  arguments->key_option =
      command->add_option("--key", arguments->key, "Only this key, instead of a prefix");
  options->push_back(arguments->key_option);
  options->push_back(command
                         ->add_option("--from-revision", arguments->from_revision,
                                      "Go on after this revision of an earlier watch")
                         ->check(CLI::PositiveNumber));
  options->push_back(command->add_flag("--keys-only", arguments->keys_only, "Without values"));
  options->push_back(command->add_flag("--previous", arguments->previous,
                                       "Tell with each change what the key had before it"));
  options->push_back(
      command
          ->add_option("--kind", arguments->kinds, "Only these changes: put, delete, expire, evict")
          ->check(CLI::IsMember({"put", "delete", "expire", "evict"})));
  options->push_back(
      command
          ->add_option("--slow", arguments->slow,
                       "When this program is too slow: resync (default), latest (newest change of "
                       "each key) or cancel")
          ->check(CLI::IsMember({"resync", "latest", "cancel"})));
  for (CLI::Option* const option : *options) option->group("Of a dict");
}

void AddAreaOptions(CLI::App* command, WatchArguments* arguments,
                    std::vector<CLI::Option*>* options) {
  options->push_back(command->add_option("--pos", arguments->pos, "First byte; 0 unless given"));
  arguments->len_option =
      command->add_option("--len", arguments->len, "Bytes; to the end unless given");
  options->push_back(arguments->len_option);
  arguments->from_updates_option = command->add_option(
      "--from-updates", arguments->from_updates, "Go on from these updates of an earlier watch");
  options->push_back(arguments->from_updates_option);
  options->push_back(command->add_flag("--ranges-only", arguments->ranges_only, "Without bytes"));
  for (CLI::Option* const option : *options) option->group("Of an area");
}

void RefuseGiven(const std::vector<CLI::Option*>& options, const char* why) {
  for (const CLI::Option* const option : options) {
    if (option->count() > 0) throw Failed{kExitUsage, option->get_name() + why};
  }
}

}  // namespace

void Execute(const std::string& command, const Environment& variables, const std::string& what) {
  const pid_t child = fork();
  if (child < 0) throw Failed{kExitError, "cannot run the command of --exec"};
  if (child == 0) {
    for (const auto& [name, value] : variables) setenv(name, value.c_str(), 1);
    execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) {
    std::fprintf(stderr, "statehouse: the command of --exec exited with %d for %s\n",
                 WEXITSTATUS(status), Visible(what).c_str());
  }
}

void PrintLine(const std::string& line) {
  std::cout << line << "\n";
  std::cout.flush();
  if (!std::cout) throw Failed{kExitError, "cannot write to standard output"};
}

void AddWatchCommand(CLI::App* app, const Globals* globals) {
  const auto arguments = std::make_shared<WatchArguments>();
  CLI::App* const command = app->add_subcommand(
      "watch",
      "Tell what is in a dict, or in a range of an area, and every change of it, as it is made; "
      "-o json: a JSON object on each line");
  command
      ->add_option("what", arguments->words,
                   "DICT [PREFIX], dict DICT [PREFIX] or area AREA; a name, or #<index>")
      ->required()
      ->expected(1, 3);
  command->add_flag("--no-snapshot", arguments->no_snapshot, "Only changes, not what is there");
  command->add_option("--progress", arguments->progress,
                      "Tell where it is when nothing happened for so long, such as 5s");
  command->add_option("--window", arguments->window,
                      "Tell changes at most so often, such as 10ms, the most");
  command->add_option(
      "--exec", arguments->command,
      "Run this shell command for each change, one after another, with "
      "STATEHOUSE_EVENT, and of a dict _KEY, _VALUE and _PREVIOUS (JSON), _VERSION and _REVISION, "
      "of an area _POS, _LEN, _HEX (of up to 32 KiB) and _UPDATES");
  command->add_option("--until", arguments->until,
                      "End once an entry is there (KEY) or has a value (KEY=JSON), or a word of an "
                      "area compares so (u32@16>=10)");
  command->add_option("--count", arguments->count, "End after so many changes")
      ->check(CLI::PositiveNumber);
  const auto of_dicts = std::make_shared<std::vector<CLI::Option*>>();
  const auto of_areas = std::make_shared<std::vector<CLI::Option*>>();
  AddDictOptions(command, arguments.get(), of_dicts.get());
  AddAreaOptions(command, arguments.get(), of_areas.get());
  command->callback([globals, arguments, of_dicts, of_areas] {
    TakeWords(arguments.get());
    if (arguments->of_area) {
      RefuseGiven(*of_dicts, " is for dicts");
      return WatchArea(*globals, *arguments);
    }
    RefuseGiven(*of_areas, " is for areas: watch area AREA");
    Watching(*globals, *arguments).Run();
  });
}

}  // namespace statehouse::cli
