// statehouse lock … and statehouse elect: commands that run while a lock is held, and who holds
// what.
#include <poll.h>
#include <statehouse/lock.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "clients/cli/commands.h"
#include "clients/cli/exit_codes.h"
#include "clients/cli/held_command.h"
#include "clients/cli/quantity.h"
#include "clients/cli/terminal_text.h"

namespace statehouse::cli {
namespace {

constexpr int kCampaignPauseMs = 1000;

struct Arguments {
  std::string name;
  std::string prefix;
  std::string ttl = "10s";
  std::string timeout;
  std::string hold_max;
  std::string kill_after = "10s";
  std::string owner;
  uint32_t limit = 1;
  uint64_t token = 0;
  bool shared = false;
  bool force = false;
  std::vector<std::string> command;
};

uint64_t Milliseconds(const char* flag, const std::string& text) {
  const std::optional<uint64_t> ms = ParseMilliseconds(text);
  if (!ms.has_value()) {
    throw Failed{kExitUsage,
                 std::string(flag) + ": '" + text + "' is no time; use 250ms, 30s, 5m, 2h or 7d"};
  }
  return *ms;
}

// What a person who looks at the queue wants to know of a holder.
std::string OwnerOf(const Arguments& arguments) {
  if (!arguments.owner.empty()) return arguments.owner;
  const std::string& path = arguments.command[0];
  return path.substr(path.rfind('/') + 1).substr(0, 24) + " pid " + std::to_string(getpid());
}

struct LockReleaser {
  void operator()(sh_lock* lock) const { sh_lock_release(lock, nullptr, nullptr); }
};
using HeldLock = std::unique_ptr<sh_lock, LockReleaser>;

// Null where it was not had in time.
HeldLock Take(sh_client* client, const Arguments& arguments, HeldCommand* command) {
  const std::string owner = OwnerOf(arguments);
  sh_lock_options options{};
  options.mode = arguments.shared ? SH_LOCK_SHARED : SH_LOCK_EXCLUSIVE;
  options.limit = arguments.limit;
  options.ttl_ms = Milliseconds("--ttl", arguments.ttl);
  options.try_only = arguments.timeout == "0" ? 1 : 0;
  if (!arguments.timeout.empty() && options.try_only == 0) {
    options.timeout_ms = Milliseconds("--timeout", arguments.timeout);
  }
  if (!arguments.hold_max.empty()) {
    options.hold_max_ms = Milliseconds("--hold-max", arguments.hold_max);
  }
  options.owner = owner.c_str();
  options.on_lost = [](void* context) { static_cast<HeldCommand*>(context)->TellLost(); };
  options.context = command;
  sh_lock* lock = nullptr;
  sh_error* error = nullptr;
  Check(sh_lock_acquire(client, arguments.name.c_str(), &options, &lock, &error), error);
  return HeldLock(lock);
}

// False: it was lost before.
bool GiveBack(HeldLock lock, const std::string& name) {
  int held = 0;
  sh_error* error = nullptr;
  const sh_reason reason = sh_lock_release(lock.release(), &held, &error);
  if (reason != SH_OK && reason != SH_LOCK_LOST) {
    std::fprintf(stderr,
                 "statehouse: lock \"%s\" was not given back and passes on when its lease ends: "
                 "%s: %s\n",
                 name.c_str(), sh_reason_name(reason), sh_error_message(error));
  }
  sh_error_free(error);
  return held != 0 || (reason != SH_OK && reason != SH_LOCK_LOST);
}

struct Held {
  int code = 0;       // Of the command.
  bool lost = false;  // It ran past the end of the lease, and was stopped.
  bool told_to_end = false;
};

// Nothing where the lock was not had in time.
std::optional<Held> RunHeld(sh_client* client, const Arguments& arguments) {
  const auto kill_after = Milliseconds("--kill-after", arguments.kill_after);
  HeldCommand command;
  HeldLock lock = Take(client, arguments, &command);
  if (lock == nullptr) return std::nullopt;
  const int code =
      command.Run(arguments.command,
                  {{"STATEHOUSE_LOCK_NAME", arguments.name},
                   {"STATEHOUSE_LOCK_TOKEN", std::to_string(sh_lock_token(lock.get()))}},
                  std::chrono::milliseconds(kill_after));
  const bool kept = GiveBack(std::move(lock), arguments.name);
  return Held{code, command.lost() || !kept, command.told_to_end()};
}

[[noreturn]] void EndWith(int code, std::string message = "") {
  throw Failed{code, std::move(message)};
}

void CheckCommand(const Arguments& arguments, const char* verb) {
  if (!arguments.name.empty() && !arguments.command.empty()) return;
  throw Failed{kExitUsage, std::string("say: statehouse ") + verb + " NAME -- COMMAND…"};
}

void Lock(const Globals& globals, const Arguments& arguments) {
  CheckCommand(arguments, "lock");
  const Client client = Connect(globals);
  const std::optional<Held> held = RunHeld(client.get(), arguments);
  const std::string name = "lock \"" + arguments.name + "\"";
  if (!held) EndWith(kExitLock, name + " was not had in time");
  if (held->lost) {
    EndWith(kExitLock, name + " was lost before the command had ended (its code: " +
                           std::to_string(held->code) + ")");
  }
  EndWith(held->code);
}

// Waits where it may go better later; throws what it was given where not.
void PauseAfter(const Failed& failed, bool* told) {
  if (ExitCodeOf(failed.reason) != kExitUnavailable) throw failed;
  if (!*told) {
    std::fprintf(stderr, "statehouse: %s; campaigning again\n", failed.message.c_str());
  }
  *told = true;
  poll(nullptr, 0, kCampaignPauseMs);
}

void Elect(const Globals& globals, const Arguments& arguments) {
  CheckCommand(arguments, "elect");
  Client client;
  for (bool told = false;;) {
    std::optional<Held> held;
    try {
      if (client == nullptr) client = Connect(globals);
      held = RunHeld(client.get(), arguments);
    } catch (const Failed& failed) {
      PauseAfter(failed, &told);
      continue;
    }
    told = false;
    if (held->lost && held->told_to_end) {
      EndWith(kExitLock, "\"" + arguments.name + "\": the leadership was lost, then a signal came");
    }
    if (!held->lost) EndWith(held->code);
    std::fprintf(stderr, "statehouse: \"%s\": the leadership was lost; campaigning again\n",
                 arguments.name.c_str());
  }
}

const char* ModeName(sh_lock_mode mode) { return mode == SH_LOCK_SHARED ? "shared" : "exclusive"; }

nlohmann::json ToJson(const sh_lock_info& info) {
  nlohmann::json object = {{"name", info.name},
                           {"limit", info.limit},
                           {"holder_count", info.holder_count},
                           {"waiter_count", info.waiter_count},
                           {"holders", nlohmann::json::array()},
                           {"waiters", nlohmann::json::array()}};
  for (size_t i = 0; i < info.party_count; ++i) {
    const sh_lock_party& party = info.parties[i];
    nlohmann::json entry = {{"owner", party.owner},
                            {"mode", ModeName(party.mode)},
                            {"session_id", party.session_id},
                            {"since_ms", party.since_ms}};
    if (party.token != 0) {
      entry["token"] = party.token;
      entry["expires_ms"] = party.expires_ms;
    }
    object[party.token != 0 ? "holders" : "waiters"].push_back(std::move(entry));
  }
  return object;
}

std::string Seconds(uint64_t ms) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1fs", static_cast<double>(ms) / 1000);
  return text;
}

// Frees what the library gave.
struct Infos {
  sh_lock_info* infos = nullptr;
  size_t count = 0;
  Infos() = default;
  Infos(const Infos&) = delete;
  Infos& operator=(const Infos&) = delete;
  ~Infos() { sh_lock_infos_free(infos, count); }
};

void List(const Globals& globals, const Arguments& arguments) {
  const Client client = ConnectForEntries(globals);
  Infos found;
  sh_error* error = nullptr;
  Check(sh_lock_list(client.get(), arguments.prefix.c_str(), &found.infos, &found.count, &error),
        error);
  if (globals.json) {
    nlohmann::json all = nlohmann::json::array();
    for (size_t i = 0; i < found.count; ++i) all.push_back(ToJson(found.infos[i]));
    std::cout << all.dump(2) << "\n";
    return;
  }
  std::printf("%-32s %8s %8s %8s  %9s  %s\n", "NAME", "LIMIT", "HOLDERS", "WAITERS", "EXPIRES",
              "OWNER");
  for (size_t i = 0; i < found.count; ++i) {
    const sh_lock_info& info = found.infos[i];
    const bool held = info.party_count > 0 && info.parties[0].token != 0;
    std::printf("%-32s %8u %8u %8u  %9s  %s\n", info.name, info.limit, info.holder_count,
                info.waiter_count, held ? Seconds(info.parties[0].expires_ms).c_str() : "-",
                held ? Visible(info.parties[0].owner).c_str() : "-");
  }
}

void Describe(const Globals& globals, const Arguments& arguments) {
  const Client client = ConnectForEntries(globals);
  Infos found;
  sh_error* error = nullptr;
  Check(sh_lock_describe(client.get(), arguments.name.c_str(), &found.infos, &error), error);
  found.count = 1;
  const sh_lock_info& info = found.infos[0];
  if (globals.json) {
    std::cout << ToJson(info).dump(2) << "\n";
    return;
  }
  std::printf("%-12s %s\n%-12s %u\n%-12s %u\n%-12s %u\n", "name", info.name, "limit", info.limit,
              "holders", info.holder_count, "waiters", info.waiter_count);
  if (info.party_count == 0) return;
  std::printf("\n%-8s %-9s %20s %20s %10s %10s  %s\n", "", "MODE", "TOKEN", "SESSION", "SINCE",
              "EXPIRES", "OWNER");
  for (size_t i = 0; i < info.party_count; ++i) {
    const sh_lock_party& party = info.parties[i];
    const bool held = party.token != 0;
    const std::string session =
        party.session_id == 0 ? "this host" : std::to_string(party.session_id);
    std::printf("%-8s %-9s %20s %20s %10s %10s  %s\n", held ? "holds" : "waits",
                ModeName(party.mode), held ? std::to_string(party.token).c_str() : "-",
                session.c_str(), Seconds(party.since_ms).c_str(),
                held ? Seconds(party.expires_ms).c_str() : "-", Visible(party.owner).c_str());
  }
}

void Release(const Globals& globals, const Arguments& arguments) {
  if (!arguments.force) {
    throw Failed{kExitUsage,
                 "this takes lock \"" + arguments.name +
                     "\" from whoever holds it, who may go on for a while; say --force"};
  }
  const Client client = Connect(globals);
  uint32_t released = 0;
  sh_error* error = nullptr;
  Check(sh_lock_force_release(client.get(), arguments.name.c_str(), arguments.token, &released,
                              &error),
        error);
  if (globals.json) std::cout << nlohmann::json{{"released", released}}.dump(2) << "\n";
  if (released == 0) {
    throw Failed{kExitNotFound, "nobody holds lock \"" + arguments.name + "\"" +
                                    (arguments.token != 0 ? " with this token" : "")};
  }
  std::fprintf(stderr, "taken from %u %s\n", released, released == 1 ? "holder" : "holders");
}

constexpr const char* kLockFooter =
    "With `--` this takes a lock, whatever its name: `statehouse lock ls -- make` is about a lock\n"
    "called \"ls\". Without, it is one of the subcommands. What follows the first `--` is "
    "COMMAND.\n"
    "\n"
    "COMMAND runs once the lock is held, with STATEHOUSE_LOCK_NAME and STATEHOUSE_LOCK_TOKEN in "
    "its\n"
    "environment. SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on to it. When the lock is lost "
    "it\n"
    "gets SIGTERM, and SIGKILL after --kill-after; when `statehouse` itself is killed, SIGKILL. "
    "What\n"
    "COMMAND started is not stopped: pass the token on as a fence (statehouse dict set … "
    "--fence).\n"
    "\n"
    "Exit codes: that of COMMAND (128 + n when signal n ended it, 127 when there is no such "
    "command,\n"
    "            126 when it cannot be started); 5 when the lock was not had in time, or was lost\n"
    "            before COMMAND had ended; others as `statehouse help exit-codes` says.\n"
    "\n"
    "Examples:\n"
    "  statehouse lock deploy -- ./deploy.sh\n"
    "  statehouse lock nightly --timeout 0 -- ./nightly.sh     or not at all, when it runs "
    "elsewhere\n"
    "  statehouse lock build --limit 4 --timeout 5m -- make    at most four at once\n"
    "  statehouse lock deploy -- sh -c 'statehouse dict set release now 42 --fence "
    "$STATEHOUSE_LOCK_TOKEN'\n"
    "  statehouse lock ls\n"
    "  statehouse -o json lock describe deploy\n"
    "  statehouse lock release deploy --force";

constexpr const char* kElectFooter =
    "Waits, however long, until it holds the lock NAME, and runs COMMAND as `statehouse lock` "
    "does.\n"
    "When the leadership is lost COMMAND is stopped, and this candidate waits in the queue again; "
    "so\n"
    "it does while the service is away. When COMMAND ends by itself, well or not, the leadership\n"
    "passes on and its exit code is returned: let a supervisor start the candidate again. A "
    "signal\n"
    "ends COMMAND, and with it the candidate.\n"
    "\n"
    "Examples:\n"
    "  statehouse elect scheduler -- ./scheduler\n"
    "  statehouse elect scheduler --ttl 3s --kill-after 1s -- ./scheduler\n"
    "  statehouse lock describe scheduler     who leads, and who comes next";

CLI::Option* AddName(CLI::App* command, const std::shared_ptr<Arguments>& arguments) {
  return command->add_option("NAME,--name", arguments->name,
                             "The lock; --name=NAME where it begins with -");
}

void AddRunOptions(CLI::App* command, const std::shared_ptr<Arguments>& arguments) {
  AddName(command, arguments);
  command->add_option(
      "--ttl", arguments->ttl,
      "How long it lasts when nothing renews it: this host hangs, or is cut off (10s)");
  command->add_option("--kill-after", arguments->kill_after,
                      "How long COMMAND may take to end when the lock is lost (10s)");
  command->add_option("--owner", arguments->owner, "Who asks, for `lock ls` (COMMAND and the pid)");
}

CLI::App* AddSubcommand(CLI::App* group, const char* name, const char* help, const Globals* globals,
                        const std::shared_ptr<Arguments>& arguments,
                        void (*run)(const Globals&, const Arguments&)) {
  CLI::App* command = group->add_subcommand(name, help);
  command->callback([globals, arguments, run] { run(*globals, *arguments); });
  return command;
}

void AddLock(CLI::App* app, const Globals* globals,
             const std::optional<std::vector<std::string>>& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* group =
      app->add_subcommand("lock", "Runs a command while a lock is held; who holds what");
  group->footer(kLockFooter);
  group->callback([globals, arguments, group] {
    if (group->get_subcommands().empty()) Lock(*globals, *arguments);
  });
  AddRunOptions(group, arguments);
  group->add_option("--timeout", arguments->timeout,
                    "How long to wait for it: 30s, 5m; 0: only try (for ever)");
  group->add_option("--hold-max", arguments->hold_max,
                    "When it is lost although it is renewed: for a COMMAND that may hang");
  group->add_option("--limit", arguments->limit, "So many may hold it at once (1)")
      ->check(CLI::Range(1, 1'048'576));
  group->add_flag("--shared", arguments->shared, "With all others that say so, too");
  if (command.has_value()) {
    arguments->command = *command;
    return;
  }
  group->require_subcommand(0, 1);
  auto a = std::make_shared<Arguments>();
  CLI::App* sub = AddSubcommand(group, "ls", "Lists the locks in use", globals, a, List);
  sub->add_option("PREFIX,--prefix", a->prefix, "Only names that begin with it");
  sub = AddSubcommand(group, "describe", "Tells who holds a lock and who waits for it", globals, a,
                      Describe);
  AddName(sub, a)->required();
  sub = AddSubcommand(group, "release", "Takes a lock from its holders, who are told", globals, a,
                      Release);
  AddName(sub, a)->required();
  sub->add_option("--token", a->token, "Only from the holder with this token");
  sub->add_flag("--force", a->force, "Do it; needs a grant with the verb admin");
}

}  // namespace

std::optional<std::vector<std::string>> TakeCommand(std::vector<const char*>* words) {
  using std::string_view;
  constexpr string_view kWithValue[] = {"--url",        "--token-file", "--transport",
                                        "--timeout-ms", "-o",           "--output"};
  size_t at = 1;
  while (at < words->size() && (*words)[at][0] == '-') {
    const string_view word = (*words)[at];
    if (word == "--") return std::nullopt;
    at += std::find(std::begin(kWithValue), std::end(kWithValue), word) != std::end(kWithValue) ? 2
                                                                                                : 1;
  }
  if (at >= words->size()) return std::nullopt;
  const string_view verb = (*words)[at];
  if (verb != "lock" && verb != "elect") return std::nullopt;
  const auto mark =
      std::find(words->begin() + static_cast<ptrdiff_t>(at), words->end(), string_view("--"));
  if (mark == words->end()) return std::nullopt;
  std::vector<std::string> command(mark + 1, words->end());
  words->erase(mark, words->end());
  return command;
}

void AddLockCommands(CLI::App* app, const Globals* globals,
                     const std::optional<std::vector<std::string>>& command) {
  AddLock(app, globals, command);
  auto arguments = std::make_shared<Arguments>();
  if (command.has_value()) arguments->command = *command;
  CLI::App* elect = AddSubcommand(app, "elect", "Runs a command wherever it is the leader", globals,
                                  arguments, Elect);
  elect->footer(kElectFooter);
  AddRunOptions(elect, arguments);
}

}  // namespace statehouse::cli
