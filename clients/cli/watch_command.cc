// statehouse watch: what changes in a dict, a line for each event.
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "clients/cli/commands.h"
#include "clients/cli/dict_call.h"
#include "statehouse/v1/watch.pb.h"

namespace statehouse::cli {
namespace {

constexpr std::array<const char*, 5> kKinds = {"", "put", "delete", "expire", "evict"};
constexpr std::array<const char*, 7> kReasons = {
    "", "history gone", "revision unknown", "slow watcher", "overrun", "replaced", "damaged"};

struct WatchArguments {
  std::string name;
  std::string prefix;
  std::string key;
  std::vector<std::string> kinds;
  std::string slow = "resync";
  std::string progress;
  std::string command;
  std::string until;
  uint64_t from_revision = 0;
  uint64_t count = 0;
  bool no_snapshot = false;
  bool keys_only = false;
  CLI::Option* key_option = nullptr;
};

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

// One event, for people, for programs and for the command.
struct Told {
  std::string kind;
  std::string key;
  std::string value;  // JSON; empty: none.
  std::string reason;
  uint64_t version = 0;
  uint64_t revision = 0;
  bool coalesced = false;
  bool value_gone = false;
  bool has_key = false;
};

void Print(const Told& told, bool as_json) {
  if (as_json) {
    nlohmann::ordered_json line;
    line["kind"] = told.kind;
    if (told.has_key) {
      line["key"] = told.key;
      if (!told.value.empty()) line["value"] = nlohmann::ordered_json::parse(told.value);
      line["version"] = told.version;
    }
    if (told.revision != 0) line["revision"] = told.revision;
    if (!told.reason.empty()) line["reason"] = told.reason;
    if (told.coalesced) line["coalesced"] = true;
    if (told.value_gone) line["value_gone"] = true;
    std::cout << line.dump() << "\n";
  } else {
    std::cout << told.kind;
    if (told.has_key) std::cout << "\t" << told.key;
    if (!told.value.empty()) std::cout << "\t" << told.value;
    if (!told.reason.empty()) std::cout << "\t" << told.reason;
    if (told.revision != 0) std::cout << "\t(revision " << told.revision << ")";
    std::cout << "\n";
  }
  std::cout.flush();
  if (!std::cout) throw Failed{kExitError, "cannot write to standard output"};
}

// Runs the command to its end. What it says of itself is the user's business.
void Execute(const std::string& command, const Told& told) {
  const pid_t child = fork();
  if (child < 0) throw Failed{kExitError, "cannot run the command of --exec"};
  if (child == 0) {
    setenv("STATEHOUSE_EVENT", told.kind.c_str(), 1);
    setenv("STATEHOUSE_KEY", told.key.c_str(), 1);
    setenv("STATEHOUSE_VALUE", told.value.c_str(), 1);
    setenv("STATEHOUSE_VERSION", std::to_string(told.version).c_str(), 1);
    setenv("STATEHOUSE_REVISION", std::to_string(told.revision).c_str(), 1);
    execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) {
    std::fprintf(stderr, "statehouse: the command of --exec exited with %d for key \"%s\"\n",
                 WEXITSTATUS(status), told.key.c_str());
  }
}

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

  // To the end that was asked for. Throws Failed for every other one.
  void Run() {
    const Client client = Connect(globals_);
    std::minstd_rand random(std::random_device{}());
    for (int pause_ms = 10;; pause_ms = std::min(pause_ms * 2, 500)) {
      const uint64_t before = events_;
      sh_error* error = nullptr;
      const sh_reason reason = ReadStream(client.get(), &error);
      if (reason == SH_OK) {
        sh_error_free(error);
        return;
      }
      if (reason != SH_UNAVAILABLE && reason != SH_DRAINING) Check(reason, error);
      sh_error_free(error);
      if (events_ != before) pause_ms = 10;
      // Half a snapshot cannot be continued.
      if (revision_ == 0 && events_ != 0) Tell({.kind = "resync", .reason = "connection lost"});
      std::uniform_int_distribution<int> draw(pause_ms / 2, pause_ms);
      std::this_thread::sleep_until(std::chrono::steady_clock::now() +
                                    std::chrono::milliseconds(draw(random)));
    }
  }

 private:
  // SH_OK: it came to the end that was asked for.
  sh_reason ReadStream(sh_client* client, sh_error** error) {
    if (revision_ != 0) request_.set_from_revision(revision_);
    const std::string bytes = request_.SerializeAsString();
    sh_stream* opened = nullptr;
    sh_reason reason = sh_stream_open(client, "/statehouse.v1.Dicts/WatchDict", bytes.data(),
                                      bytes.size(), &opened, error);
    if (reason != SH_OK) return reason;
    const std::unique_ptr<sh_stream, void (*)(sh_stream*)> stream(opened, sh_stream_close);
    for (;;) {
      void* response = nullptr;
      size_t response_bytes = 0;
      reason = sh_stream_next(stream.get(), &response, &response_bytes, error);
      // The service never ends a watch without a reason.
      if (response == nullptr) return reason == SH_OK ? SH_UNAVAILABLE : reason;
      v1::WatchDictResponse message;
      const bool good = message.ParseFromArray(response, static_cast<int>(response_bytes));
      sh_call_free(response);
      if (!good) throw Failed{kExitError, "the watch's answer is no message of this release"};
      if (Take(message)) return SH_OK;
    }
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
                .has_key = true};
      if (change.has_value()) told.value = JsonOfValue(change.value());
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

  // Whether this was the last event that was asked for.
  bool Tell(const Told& told) {
    ++events_;
    Print(told, globals_.json);
    const bool is_change = told.has_key && told.kind != "entry";
    if (is_change && !arguments_.command.empty()) Execute(arguments_.command, told);
    if (is_change && ++changes_ == arguments_.count) return true;
    return until_.has_value() && (told.kind == "entry" || told.kind == "put") &&
           until_->IsMet(told.key, told.value);
  }

  const Globals& globals_;
  const WatchArguments& arguments_;
  v1::WatchDictRequest request_;
  std::optional<Until> until_;
  uint64_t revision_ = 0;
  uint64_t events_ = 0;
  uint64_t changes_ = 0;
};

}  // namespace

void AddWatchCommand(CLI::App* app, const Globals* globals) {
  const auto arguments = std::make_shared<WatchArguments>();
  CLI::App* const command = app->add_subcommand(
      "watch",
      "Tell what is in a dict and every change of it, as it is made; -o json: a JSON "
      "object on each line");
  command->add_option("dict", arguments->name, "Name, or #<index>")->required();
  command->add_option("prefix", arguments->prefix, "Only keys that begin with it");
  arguments->key_option =
      command->add_option("--key", arguments->key, "Only this key, instead of a prefix");
  command
      ->add_option("--from-revision", arguments->from_revision,
                   "Go on after this revision of an earlier watch")
      ->check(CLI::PositiveNumber);
  command->add_flag("--no-snapshot", arguments->no_snapshot, "Only changes, no entries first");
  command->add_flag("--keys-only", arguments->keys_only, "Without values");
  command->add_option("--kind", arguments->kinds, "Only these changes: put, delete, expire, evict")
      ->check(CLI::IsMember({"put", "delete", "expire", "evict"}));
  command
      ->add_option("--slow", arguments->slow,
                   "When this program is too slow: resync (default), latest (newest change of each "
                   "key) or cancel")
      ->check(CLI::IsMember({"resync", "latest", "cancel"}));
  command->add_option("--progress", arguments->progress,
                      "Tell the revision when nothing happened for so long, such as 5s");
  command->add_option("--exec", arguments->command,
                      "Run this shell command for each change, one after another, with "
                      "STATEHOUSE_EVENT, _KEY, _VALUE (JSON), _VERSION and _REVISION");
  command->add_option("--until", arguments->until,
                      "End once an entry is there (KEY) or has a value (KEY=JSON)");
  command->add_option("--count", arguments->count, "End after so many changes")
      ->check(CLI::PositiveNumber);
  command->callback([globals, arguments] { Watching(*globals, *arguments).Run(); });
}

}  // namespace statehouse::cli
