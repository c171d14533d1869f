// statehouse dict get|set|del|incr|append|touch|scan|tree: entries.
#include <cinttypes>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <map>
#include <optional>

#include "clients/cli/confirmation.h"
#include "clients/cli/dict_call.h"
#include "clients/cli/quantity.h"
#include "clients/cli/terminal_text.h"
#include "engine/value/path.h"

namespace statehouse::cli {
namespace {

Path PathOf(const std::string& text) {
  StatusOr<Path> path = ParsePath(text);
  if (!path.ok()) {
    throw Failed{kExitUsage, "--path: " + path.status().message() +
                                 "\nA path is written as web.ports[1].\"odd key\""};
  }
  return *std::move(path);
}

template <typename Request>
Request EntryRequest(const DictArguments& arguments) {
  Request request;
  request.set_name(arguments.name);
  request.set_key(arguments.key);
  return request;
}

template <typename Request>
void AddSteps(const std::string& text, Request* request) {
  const Path path = PathOf(text);
  for (const PathStep& step : path.steps()) {
    v1::PathStep* const out = request->add_path_steps();
    if (step.kind == PathStep::Kind::kKey) {
      out->set_key(std::string(step.key));
    } else {
      out->set_index(step.index);
    }
  }
}

// The VALUE of a command: JSON, "-" for standard input, or a text with --text.
v1::Value ValueOf(const DictArguments& arguments) {
  std::string text = arguments.value;
  if (text == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  }
  if (!arguments.as_text) return ValueOfJson(text);
  v1::Value value;
  value.set_string_value(text);
  return value;
}

v1::Value NumberOf(const std::string& text) {
  v1::Value value = ValueOfJson(text);
  if (!value.has_int_value() && !value.has_float_value()) {
    throw Failed{kExitUsage, "'" + text + "' is no number"};
  }
  return value;
}

// {"value": …} with what is known of the entry, as one line of JSON.
std::string EntryJson(const v1::Entry& entry) {
  std::string json = "{\"key\":" + JsonOfValue([&] {
                       v1::Value key;
                       key.set_string_value(entry.key());
                       return key;
                     }());
  if (entry.has_value()) json += ",\"value\":" + JsonOfValue(entry.value());
  json += ",\"version\":" + std::to_string(entry.version());
  if (entry.has_ttl()) {
    json += ",\"ttl_ms\":" +
            std::to_string(entry.ttl().seconds() * 1000 + entry.ttl().nanos() / 1'000'000);
  }
  if (entry.fence() != 0) json += ",\"fence\":" + std::to_string(entry.fence());
  if (entry.bound_session() != 0) {
    json += ",\"bound_session\":" + std::to_string(entry.bound_session());
  }
  return json + "}";
}

Failed NoSuchKey(const DictArguments& arguments) {
  return Failed{kExitNotFound,
                "dict \"" + arguments.name + "\" has no key \"" + arguments.key + "\""};
}

void Get(const Globals& globals, const DictArguments& arguments) {
  auto request = EntryRequest<v1::GetEntryRequest>(arguments);
  AddSteps(arguments.path, &request);
  const Client client = ConnectForEntries(globals);
  const auto response = CallDicts<v1::GetEntryResponse>(client.get(), "GetEntry", request);
  if (!response.has_entry()) throw NoSuchKey(arguments);
  const v1::Value& value = response.entry().value();
  if (globals.json) {
    std::cout << EntryJson(response.entry()) << "\n";
  } else if (arguments.as_text && value.has_string_value()) {
    std::cout << value.string_value() << "\n";
  } else {
    std::cout << JsonOfValue(value) << "\n";
  }
}

// The C structures of one wait with what they borrow from.
struct Wait {
  explicit Wait(const DictArguments& arguments) : path(PathOf(arguments.path)) {
    for (const PathStep& step : path.steps()) {
      const bool is_index = step.kind == PathStep::Kind::kIndex;
      steps.push_back({is_index ? 1 : 0, {step.key.data(), step.key.size()}, step.index});
    }
    wait.path = steps.data();
    wait.steps = steps.size();
    wait.timeout_ms = SH_FOREVER;
    if (!arguments.timeout.empty()) {
      const std::optional<uint64_t> ms =
          arguments.timeout == "0" ? 0 : ParseMilliseconds(arguments.timeout);
      if (!ms) {
        throw Failed{kExitUsage, "--timeout \"" + arguments.timeout +
                                     "\" is no duration such as 500ms, 10s or 5m, or 0"};
      }
      wait.timeout_ms = *ms;
    }
    wait.version = arguments.if_version;
    if (arguments.absent) wait.kind = SH_WAIT_ABSENT;
    if (!arguments.above_option->empty()) wait.kind = SH_WAIT_VERSION_ABOVE;
    if (!arguments.differs_option->empty()) wait.kind = SH_WAIT_VERSION_DIFFERS;
    if (!arguments.value_option->empty()) {
      wait.kind = SH_WAIT_VALUE;
      value = ValueOf(arguments).SerializeAsString();
      wait.value = {value.data(), value.size()};
    }
  }
  Wait(const Wait&) = delete;
  Wait& operator=(const Wait&) = delete;

  Path path;
  std::vector<sh_path_step> steps;
  std::string value;
  sh_entry_wait wait{};
};

void WaitFor(const Globals& globals, const DictArguments& arguments) {
  const Wait wait(arguments);
  const Client client = ConnectForEntries(globals);
  sh_dict* dict = nullptr;
  sh_entry entry{};
  sh_error* error = nullptr;
  int met = 0;
  Check(sh_dict_open(client.get(), arguments.name.c_str(), nullptr, &dict, &error), error);
  const sh_reason reason =
      sh_dict_wait(dict, sh_text(arguments.key.c_str()), &wait.wait, &met, &entry, &error);
  v1::Entry found;
  if (reason == SH_OK && entry.found != 0) {
    found.set_key(arguments.key);
    found.mutable_value()->ParseFromArray(entry.value.data, static_cast<int>(entry.value.size));
    found.set_version(entry.version);
    found.set_fence(entry.fence);
    if (entry.ttl_ms != SH_FOREVER) {
      found.mutable_ttl()->set_seconds(static_cast<int64_t>(entry.ttl_ms / 1000));
      found.mutable_ttl()->set_nanos(static_cast<int32_t>(entry.ttl_ms % 1000) * 1'000'000);
    }
  }
  sh_entry_free(&entry);
  sh_dict_close(dict);
  Check(reason, error);
  if (met == 0) {
    throw Failed{kExitUnavailable, "dict \"" + arguments.name + "\": key \"" + arguments.key +
                                       "\" was not as asked within " + arguments.timeout};
  }
  if (globals.json) {
    std::cout << (found.has_value() ? EntryJson(found) : "null") << "\n";
  } else if (found.has_value()) {
    std::cout << JsonOfValue(found.value()) << "\n";
  }
}

// A set inside a value is an edit.
void SetAtPath(const Globals& globals, const DictArguments& arguments) {
  if (arguments.if_absent || arguments.if_present || !arguments.ttl.empty()) {
    throw Failed{kExitUsage,
                 "--path goes with none of --if-absent, --if-present and --ttl; they are of the "
                 "whole entry"};
  }
  auto request = EntryRequest<v1::EditEntryRequest>(arguments);
  AddSteps(arguments.path, &request);
  *request.mutable_edit()->mutable_set() = ValueOf(arguments);
  request.set_create_parents(true);
  request.set_if_version(arguments.if_version);
  request.set_fence(arguments.fence);
  const Client client = ConnectForEntries(globals);
  const auto response = CallDicts<v1::EditEntryResponse>(client.get(), "EditEntry", request);
  if (globals.json) std::cout << "{\"version\":" << response.version() << "}\n";
}

void Set(const Globals& globals, const DictArguments& arguments) {
  if (!arguments.path.empty()) return SetAtPath(globals, arguments);
  auto request = EntryRequest<v1::SetEntryRequest>(arguments);
  *request.mutable_value() = ValueOf(arguments);
  if (arguments.if_absent) request.mutable_condition()->set_absent(true);
  if (arguments.if_present) request.mutable_condition()->set_present(true);
  if (!arguments.if_version_option->empty()) {
    request.mutable_condition()->set_version(arguments.if_version);
  }
  if (!arguments.ttl.empty()) SetTtl(arguments.ttl, request.mutable_ttl()->mutable_duration());
  request.set_fence(arguments.fence);
  const Client client = ConnectForEntries(globals);
  const auto response = CallDicts<v1::SetEntryResponse>(client.get(), "SetEntry", request);
  if (globals.json) {
    std::cout << "{\"applied\":" << (response.applied() ? "true" : "false")
              << ",\"version\":" << response.version() << "}\n";
  }
  if (response.applied()) return;
  throw Failed{kExitConflict, response.version() == 0
                                  ? "the condition does not hold: there is no such key"
                                  : "the condition does not hold: the entry has version " +
                                        std::to_string(response.version())};
}

void Delete(const Globals& globals, const DictArguments& arguments) {
  const Client client = ConnectForEntries(globals);
  if (!arguments.path.empty()) {
    auto request = EntryRequest<v1::EditEntryRequest>(arguments);
    AddSteps(arguments.path, &request);
    request.mutable_edit()->set_delete_(true);
    CallDicts<v1::EditEntryResponse>(client.get(), "EditEntry", request);
    return;
  }
  const auto response = CallDicts<v1::DeleteEntryResponse>(
      client.get(), "DeleteEntry", EntryRequest<v1::DeleteEntryRequest>(arguments));
  if (!response.applied()) throw NoSuchKey(arguments);
}

void DeletePrefix(const Globals& globals, const DictArguments& arguments) {
  RequireYes(arguments.yes, "every key of dict \"" + arguments.name + "\" that begins with \"" +
                                arguments.prefix + "\"");
  v1::DeletePrefixRequest request;
  request.set_name(arguments.name);
  request.set_prefix(arguments.prefix);
  const Client client = ConnectForEntries(globals);
  const auto response =
      CallDicts<v1::DeletePrefixResponse>(client.get(), "DeletePrefix", request, false);
  std::fprintf(stderr, "deleted %" PRIu64 " entries\n", response.deleted());
}

void Increment(const Globals& globals, const DictArguments& arguments) {
  auto request = EntryRequest<v1::IncrementEntryRequest>(arguments);
  AddSteps(arguments.path, &request);
  *request.mutable_delta() = NumberOf(arguments.delta);
  if (!arguments.initial.empty()) *request.mutable_initial() = NumberOf(arguments.initial);
  if (!arguments.min.empty()) *request.mutable_min() = NumberOf(arguments.min);
  if (!arguments.max.empty()) *request.mutable_max() = NumberOf(arguments.max);
  if (!arguments.ttl.empty()) SetTtl(arguments.ttl, request.mutable_ttl()->mutable_duration());
  request.set_fence(arguments.fence);
  const Client client = ConnectForEntries(globals);
  const auto response =
      CallDicts<v1::IncrementEntryResponse>(client.get(), "IncrementEntry", request);
  std::cout << JsonOfValue(response.value()) << "\n";
}

void Append(const Globals& globals, const DictArguments& arguments) {
  auto request = EntryRequest<v1::EditEntryRequest>(arguments);
  AddSteps(arguments.path, &request);
  *request.mutable_edit()->mutable_append() = ValueOf(arguments);
  request.set_create_parents(true);
  const Client client = ConnectForEntries(globals);
  const auto response = CallDicts<v1::EditEntryResponse>(client.get(), "EditEntry", request);
  std::cout << response.length() << "\n";
}

void Touch(const Globals& globals, const DictArguments& arguments) {
  auto request = EntryRequest<v1::TouchEntryRequest>(arguments);
  if (arguments.ttl == "none") {
    request.mutable_ttl()->set_none(true);
  } else {
    SetTtl(arguments.ttl, request.mutable_ttl()->mutable_duration());
  }
  const Client client = ConnectForEntries(globals);
  const auto response = CallDicts<v1::TouchEntryResponse>(client.get(), "TouchEntry", request);
  if (!response.applied()) throw NoSuchKey(arguments);
}

// Calls `take` with each entry; false ends the scan.
template <typename Take>
void ScanAll(sh_client* client, const DictArguments& arguments, bool keys_only, const Take& take) {
  v1::ScanEntriesRequest request;
  request.set_name(arguments.name);
  request.set_prefix(arguments.prefix);
  request.set_keys_only(keys_only);
  do {
    const auto page = CallDicts<v1::ScanEntriesResponse>(client, "ScanEntries", request);
    for (const v1::Entry& entry : page.entries()) {
      if (!take(entry)) return;
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
}

void Scan(const Globals& globals, const DictArguments& arguments) {
  const Client client = ConnectForEntries(globals);
  uint64_t given = 0;
  ScanAll(client.get(), arguments, arguments.keys_only, [&](const v1::Entry& entry) {
    if (globals.json) {
      std::cout << EntryJson(entry) << "\n";
    } else if (arguments.keys_only) {
      std::cout << Visible(entry.key()) << "\n";
    } else {
      std::cout << Visible(entry.key()) << "\t" << Visible(JsonOfValue(entry.value())) << "\n";
    }
    return ++given != arguments.limit;
  });
}

// Keys as a tree, cut at slashes.
struct Branch {
  std::map<std::string, Branch> branches;
  uint64_t entries = 0;  // Below and at this place.
  bool is_entry = false;
};

void PrintBranch(const Branch& branch, const std::string& indent) {
  size_t left = branch.branches.size();
  for (const auto& [name, below] : branch.branches) {
    const bool last = --left == 0;
    std::cout << indent << (last ? "└─ " : "├─ ") << Visible(name);
    if (!below.branches.empty()) {
      std::cout << "/  (" << below.entries << (below.is_entry ? ", itself a key)" : ")");
    }
    std::cout << "\n";
    PrintBranch(below, indent + (last ? "   " : "│  "));
  }
}

void Tree(const Globals& globals, const DictArguments& arguments) {
  const Client client = ConnectForEntries(globals);
  Branch root;
  ScanAll(client.get(), arguments, true, [&](const v1::Entry& entry) {
    Branch* at = &root;
    ++at->entries;
    std::string_view rest = entry.key();
    for (;;) {
      const size_t slash = rest.find('/');
      at = &at->branches[std::string(rest.substr(0, slash))];
      ++at->entries;
      if (slash == std::string_view::npos) break;
      rest.remove_prefix(slash + 1);
    }
    at->is_entry = true;
    return true;
  });
  std::cout << Visible(arguments.name) << "  (" << root.entries << ")\n";
  PrintBranch(root, "");
}

void AddName(CLI::App* command, DictArguments* a) {
  command->add_option("NAME", a->name, "The dict, or \"#<index>\"")->required();
}
void AddKey(CLI::App* command, DictArguments* a) {
  AddName(command, a);
  command->add_option("KEY", a->key, "The key")->required();
}
void AddPath(CLI::App* command, DictArguments* a) {
  command->add_option("--path", a->path, "Where in the value: web.ports[1].\"odd key\"");
}
void AddValue(CLI::App* command, DictArguments* a) {
  command->add_option("VALUE", a->value, "JSON, or - for standard input")->required();
  command->add_flag("--text", a->as_text, "VALUE is a text, not JSON");
}
void AddTtl(CLI::App* command, DictArguments* a) {
  command->add_option("--ttl", a->ttl, "How long it lives: 250ms, 30s, 5m, 2h, 7d");
}
void AddFence(CLI::App* command, DictArguments* a) {
  command->add_option("--fence", a->fence, "A fencing token; an older one is refused");
}

void AddWaitOptions(CLI::App* command, DictArguments* a) {
  AddKey(command, a);
  AddPath(command, a);
  CLI::Option* gone = command->add_flag("--absent", a->absent, "Until there is none");
  a->above_option = command->add_option("--above", a->if_version, "Until it has a higher version")
                        ->type_name("VERSION")
                        ->excludes(gone);
  a->differs_option =
      command
          ->add_option("--differs", a->if_version,
                       "Until its version is another one or it is gone; 0 stands for no entry")
          ->type_name("VERSION")
          ->excludes(gone)
          ->excludes(a->above_option);
  a->value_option = command->add_option("--value", a->value, "Until it equals this JSON value")
                        ->excludes(gone)
                        ->excludes(a->above_option)
                        ->excludes(a->differs_option);
  command->add_option("--timeout", a->timeout, "At most so long: 500ms, 10s, 5m; 0 only looks")
      ->type_name("TIME");
}

}  // namespace

void AddDictEntryCommands(CLI::App* group, const Globals* globals) {
  const auto add = [&](const char* name, const char* help,
                       void (*run)(const Globals&, const DictArguments&), DictArguments** out) {
    auto arguments = std::make_shared<DictArguments>();
    *out = arguments.get();
    return AddDictCommand(group, name, help, globals, arguments, run);
  };
  DictArguments* a = nullptr;
  CLI::App* command = add("get", "Prints a value as JSON; exit code 3 without the key", Get, &a);
  AddKey(command, a);
  AddPath(command, a);
  command->add_flag("--text", a->as_text, "Print a text without quotes");
  command =
      add("wait", "Waits until an entry is there and prints it; exit code 6 when time is over",
          WaitFor, &a);
  AddWaitOptions(command, a);
  command = add("set", "Sets a value; exit code 4 where a condition does not hold", Set, &a);
  AddKey(command, a);
  AddValue(command, a);
  AddPath(command, a);
  AddTtl(command, a);
  CLI::Option* absent = command->add_flag("--if-absent", a->if_absent, "Only a new key");
  CLI::Option* present =
      command->add_flag("--if-present", a->if_present, "Only a key that exists")->excludes(absent);
  a->if_version_option =
      command->add_option("--if-version", a->if_version, "Only over this version; 0: only new")
          ->excludes(absent)
          ->excludes(present);
  AddFence(command, a);
  command = add("del", "Deletes a key, or what is at a path; exit code 3 without it", Delete, &a);
  AddKey(command, a);
  AddPath(command, a);
  command = add("del-prefix", "Deletes every key that begins with a prefix", DeletePrefix, &a);
  AddName(command, a);
  command->add_option("PREFIX", a->prefix, "What they begin with")->required();
  AddYes(command, &a->yes);
  command = add("incr", "Adds to a number and prints the new one", Increment, &a);
  AddKey(command, a);
  command->add_option("DELTA", a->delta, "What to add (default 1); 0.5 makes it a float");
  AddPath(command, a);
  command->add_option("--initial", a->initial, "What an absent number counts as (default 0)");
  command->add_option("--min", a->min, "Refuse a lower sum");
  command->add_option("--max", a->max, "Refuse a higher sum");
  AddTtl(command, a);
  AddFence(command, a);
  command = add("append", "Appends to a list and prints its new length", Append, &a);
  AddKey(command, a);
  AddValue(command, a);
  AddPath(command, a);
  command = add("touch", "Changes how long an entry lives", Touch, &a);
  AddKey(command, a);
  command->add_option("TTL", a->ttl, "250ms, 30s, 5m, 2h, 7d, or none: for ever")->required();
  command = add("scan", "Prints keys and values, a line each, in no order", Scan, &a);
  AddName(command, a);
  command->add_option("PREFIX", a->prefix, "Only keys that begin with it");
  command->add_flag("--keys", a->keys_only, "Only keys");
  command->add_option("--limit", a->limit, "At most so many (default: all)");
  command = add("tree", "Shows keys as a tree, cut at slashes", Tree, &a);
  AddName(command, a);
  command->add_option("PREFIX", a->prefix, "Only keys that begin with it");
}

}  // namespace statehouse::cli
