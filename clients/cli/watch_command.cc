// statehouse watch: the command line, and what changes in a dict, a line for each event.
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "clients/cli/commands.h"
#include "clients/cli/dict_call.h"
#include "clients/cli/terminal_text.h"
#include "clients/cli/watch_arguments.h"
#include "clients/cli/watch_line.h"
#include "statehouse/v1/watch.pb.h"

namespace statehouse::cli {
namespace {

constexpr std::array<const char*, 5> kKinds = {"", "put", "delete", "expire", "evict"};
constexpr std::array<const char*, 7> kReasons = {
    "", "history gone", "revision unknown", "slow watcher", "overrun", "replaced", "damaged"};

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

v1::WatchDictRequest RequestOf(const WatchArguments& arguments) {
  v1::WatchDictRequest request;
  request.set_name(arguments.name);
  if (arguments.key_option->count() > 0) {
    if (!arguments.prefix.empty()) throw Failed{kExitUsage, "give a prefix or --key, not both"};
    request.set_key(arguments.key);
  } else if (!arguments.prefix.empty()) {
    request.set_prefix(arguments.prefix);
  }
  if (arguments.from_revision != 0) request.set_from_revision(arguments.from_revision);
  request.set_skip_snapshot(arguments.no_snapshot);
  request.set_keys_only(arguments.keys_only);
  request.set_previous(arguments.previous);
  if (!arguments.window.empty()) SetTtl(arguments.window, request.mutable_window());
  for (const std::string& kind : arguments.kinds) {
    for (size_t i = 1; i < kKinds.size(); ++i) {
      if (kind == kKinds[i]) request.add_kinds(static_cast<v1::ChangeKind>(i));
    }
  }
  request.set_slow_policy(arguments.slow == "latest"   ? v1::SLOW_POLICY_LATEST
                          : arguments.slow == "cancel" ? v1::SLOW_POLICY_CANCEL
                                                       : v1::SLOW_POLICY_RESYNC);
  if (!arguments.progress.empty()) {
    SetTtl(arguments.progress, request.mutable_progress_interval());
  }
  return request;
}

class Watching final {
 public:
  Watching(const Globals& globals, const WatchArguments& arguments)
      : globals_(globals), arguments_(arguments), request_(RequestOf(arguments)) {
    if (!arguments.until.empty()) until_ = Until::Parse(arguments.until);
  }

  std::string Request() {
    if (revision_ != 0) request_.set_from_revision(revision_);
    return request_.SerializeAsString();
  }

  // Half a snapshot cannot be continued.
  void Reconnect() {
    if (revision_ == 0 && events_ != 0) Tell({.kind = "resync", .reason = "connection lost"});
  }

  bool Take(const v1::WatchDictResponse& message) {
    bool done = false;
    for (const v1::Entry& entry : message.snapshot().entries()) {
      Told told{.kind = "entry", .key = entry.key(), .version = entry.version(), .has_key = true};
      if (entry.has_value()) told.value = JsonOfValue(entry.value());
      if ((done = Tell(told))) return true;
    }
    for (const v1::DictChange& change : message.changes().changes()) {
      Told told{.kind = kKinds[static_cast<size_t>(change.kind()) % kKinds.size()],
                .key = change.key(),
                .version = change.version(),
                .revision = change.revision(),
                .coalesced = change.coalesced(),
                .value_gone = change.value_gone(),
                .previous_gone = change.previous_gone(),
                .has_key = true};
      if (change.has_value()) told.value = JsonOfValue(change.value());
      if (change.has_previous()) told.previous = JsonOfValue(change.previous());
      if ((done = Tell(told))) return true;
    }
    switch (message.event_case()) {
      case v1::WatchDictResponse::kSynced:
        done = Tell({.kind = "synced", .revision = message.revision()});
        break;
      case v1::WatchDictResponse::kProgress:
        done = Tell({.kind = "progress", .revision = message.revision()});
        break;
      case v1::WatchDictResponse::kResync:
        done = Tell(
            {.kind = "resync",
             .reason = kReasons[static_cast<size_t>(message.resync().reason()) % kReasons.size()]});
        revision_ = 0;
        request_.clear_from_revision();
        break;
      default: break;
    }
    if (message.revision() != 0) revision_ = message.revision();
    return done;
  }

 private:
  // Whether this was the last event that was asked for.
  bool Tell(const Told& told) {
    ++events_;
    PrintLine(LineOf(told, globals_.json));
    const bool is_change = told.has_key && told.kind != "entry";
    if (is_change && !arguments_.command.empty()) RunCommand(told);
    if (is_change && ++changes_ == arguments_.count) return true;
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
  v1::WatchDictRequest request_;
  std::optional<Until> until_;
  uint64_t revision_ = 0;
  uint64_t events_ = 0;
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
    Watching watching(*globals, *arguments);
    Streams<v1::WatchDictResponse, Watching>(*globals, "/statehouse.v1.Dicts/WatchDict", watching)
        .Run();
  });
}

}  // namespace statehouse::cli
