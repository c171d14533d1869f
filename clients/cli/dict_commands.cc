// statehouse dict …: dicts as objects. Entries are in dict_entries.cc, files in dict_files.cc.
#include <cinttypes>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "clients/cli/commands.h"
#include "clients/cli/confirmation.h"
#include "clients/cli/dict_call.h"
#include "clients/cli/quantity.h"
#include "engine/value/json.h"

namespace statehouse::cli {

void NameOperation(v1::OperationId* operation) {
  static uint64_t session = 0;
  static uint64_t sequence = 0;
  while (session == 0) {
    std::random_device random;
    session = uint64_t{random()} << 32 | random();
  }
  operation->set_session(session);
  operation->set_sequence(++sequence);
}

v1::Value ValueOfJson(const std::string& json) {
  std::string wire;
  if (const Status parsed = ValueFromJson(json, &wire); !parsed.ok()) {
    throw Failed{kExitUsage, "the value is no JSON: " + parsed.message() +
                                 "\nA text needs quotes: '\"hello\"', or use --text hello"};
  }
  v1::Value value;
  if (!value.ParseFromString(wire)) throw Failed{kExitError, "the value cannot be encoded"};
  return value;
}

std::string JsonOfValue(const v1::Value& value) {
  std::string json;
  const Status written = ValueToJson(value.SerializeAsString(), &json);
  if (!written.ok()) throw Failed{kExitError, "a value that is no value: " + written.message()};
  return json;
}

void SetTtl(const std::string& text, google::protobuf::Duration* duration) {
  const std::optional<uint64_t> ms = ParseMilliseconds(text);
  if (!ms.has_value()) {
    throw Failed{kExitUsage, "'" + text + "' is no time to live; use 250ms, 30s, 5m, 2h or 7d"};
  }
  duration->set_seconds(static_cast<int64_t>(*ms / 1000));
  duration->set_nanos(static_cast<int32_t>(*ms % 1000 * 1'000'000));
}

CLI::App* AddDictCommand(CLI::App* group, const std::string& name, const std::string& help,
                         const Globals* globals, const std::shared_ptr<DictArguments>& arguments,
                         void (*run)(const Globals&, const DictArguments&)) {
  CLI::App* command = group->add_subcommand(name, help);
  command->callback([globals, arguments, run] { run(*globals, *arguments); });
  return command;
}

namespace {

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() / 1e9;
}

nlohmann::json ToJson(const v1::Dict& dict) {
  nlohmann::json object = {
      {"name", dict.name()},
      {"index", dict.index()},
      {"entries", dict.entries()},
      {"bound_entries", dict.bound_entries()},
      {"max_entries", dict.max_entries()},
      {"entry_bytes", dict.entry_bytes()},
      {"max_bytes", dict.max_bytes()},
      {"memory_bytes", dict.memory_bytes()},
      {"revision", dict.revision()},
      {"full_policy", dict.full_policy() == v1::FULL_POLICY_EVICT ? "evict" : "error"},
      {"evictions", dict.evictions()},
      {"expirations", dict.expirations()},
      {"moves", dict.moves()},
      {"attached_processes", dict.attached_processes()},
      {"create_time_unix_s", dict.create_time().seconds()}};
  if (dict.has_default_ttl()) object["default_ttl_s"] = Seconds(dict.default_ttl());
  return object;
}

void Print(const nlohmann::json& object, bool json) {
  if (json) {
    std::cout << object.dump(2) << "\n";
    return;
  }
  for (const auto& [key, value] : object.items()) {
    std::printf("%-20s %s\n", key.c_str(),
                value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
  }
}

void List(const Globals& globals, const DictArguments& arguments) {
  const Client client = Connect(globals);
  v1::ListDictsRequest request;
  request.set_prefix(arguments.prefix);
  nlohmann::json all = nlohmann::json::array();
  do {
    const auto page = CallDicts<v1::ListDictsResponse>(client.get(), "ListDicts", request);
    // Not above a refusal.
    if (!globals.json && request.page_token().empty()) {
      std::printf("%6s  %-32s %12s %14s %9s\n", "INDEX", "NAME", "ENTRIES", "MEMORY", "ATTACHED");
    }
    for (const v1::Dict& dict : page.dicts()) {
      if (globals.json) {
        all.push_back(ToJson(dict));
        continue;
      }
      std::printf("%6u  %-32s %12" PRIu64 " %14" PRIu64 " %9u\n", dict.index(), dict.name().c_str(),
                  dict.entries(), dict.memory_bytes(), dict.attached_processes());
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (globals.json) std::cout << all.dump(2) << "\n";
}

void Create(const Globals& globals, const DictArguments& arguments) {
  v1::CreateDictRequest request;
  request.set_name(arguments.name);
  request.set_max_entries(arguments.max_entries);
  if (!arguments.max_bytes.empty()) {
    const std::optional<uint64_t> bytes = ParseByteCount(arguments.max_bytes);
    if (!bytes.has_value()) {
      throw Failed{kExitUsage, "'" + arguments.max_bytes + "' is no size; use 64k, 16M or 1G"};
    }
    request.set_max_bytes(*bytes);
  }
  if (!arguments.default_ttl.empty()) {
    SetTtl(arguments.default_ttl, request.mutable_default_ttl());
  }
  if (arguments.evict) request.set_full_policy(v1::FULL_POLICY_EVICT);
  request.set_exclusive(arguments.exclusive);
  const Client client = Connect(globals);
  const auto response =
      CallDicts<v1::CreateDictResponse>(client.get(), "CreateDict", request, !arguments.exclusive);
  std::fprintf(stderr, "%s dict \"%s\" for %" PRIu64 " entries\n",
               response.created() ? "created" : "found", response.dict().name().c_str(),
               response.dict().max_entries());
  if (globals.json) Print(ToJson(response.dict()), true);
}

v1::Dict DescribeOf(const Globals& globals, const DictArguments& arguments) {
  const Client client = Connect(globals);
  v1::DescribeDictRequest request;
  request.set_name(arguments.name);
  return CallDicts<v1::DescribeDictResponse>(client.get(), "DescribeDict", request).dict();
}

void Describe(const Globals& globals, const DictArguments& arguments) {
  Print(ToJson(DescribeOf(globals, arguments)), globals.json);
}

void Stats(const Globals& globals, const DictArguments& arguments) {
  const v1::Dict dict = DescribeOf(globals, arguments);
  const auto share = [](uint64_t part, uint64_t whole) {
    return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
  };
  Print({{"entries", dict.entries()},
         {"entries_used", share(dict.entries(), dict.max_entries())},
         {"bytes_used", share(dict.entry_bytes(), dict.max_bytes())},
         {"bytes_per_entry", share(dict.entry_bytes(), dict.entries())},
         {"memory_bytes", dict.memory_bytes()},
         {"revision", dict.revision()},
         {"evictions", dict.evictions()},
         {"expirations", dict.expirations()}},
        globals.json);
}

void Remove(const Globals& globals, const DictArguments& arguments) {
  RequireYes(arguments.yes, "dict \"" + arguments.name + "\" with all its entries");
  const Client client = Connect(globals);
  v1::DeleteDictRequest request;
  request.set_name(arguments.name);
  CallDicts<v1::DeleteDictResponse>(client.get(), "DeleteDict", request, false);
}

void Clear(const Globals& globals, const DictArguments& arguments) {
  RequireYes(arguments.yes, "every entry of dict \"" + arguments.name + "\"");
  const Client client = Connect(globals);
  v1::ClearDictRequest request;
  request.set_name(arguments.name);
  const auto response = CallDicts<v1::ClearDictResponse>(client.get(), "ClearDict", request, false);
  std::fprintf(stderr, "deleted %" PRIu64 " entries\n", response.deleted());
}

}  // namespace

void AddDictCommands(CLI::App* app, const Globals* globals) {
  CLI::App* group = app->add_subcommand("dict", "Named maps from keys to values");
  group->require_subcommand(1);
  group->footer(
      "Values are JSON, in and out.\n"
      "\n"
      "Examples:\n"
      "  statehouse dict create sessions --default-ttl 30m\n"
      "  statehouse dict set sessions alice '{\"visits\": 0}'\n"
      "  statehouse dict incr sessions alice --path visits     prints the new number\n"
      "  statehouse dict get sessions alice --path visits\n"
      "  statehouse dict scan sessions web/ --keys\n"
      "  statehouse dict export sessions sessions.ndjson");
  const auto add = [&](const char* name, const char* help,
                       void (*run)(const Globals&, const DictArguments&), DictArguments** out) {
    auto arguments = std::make_shared<DictArguments>();
    *out = arguments.get();
    CLI::App* command = AddDictCommand(group, name, help, globals, arguments, run);
    return command;
  };
  DictArguments* a = nullptr;
  CLI::App* command = add("ls", "Lists dicts", List, &a);
  command->add_option("PREFIX", a->prefix, "Only names that begin with it");
  command = add("create", "Makes a dict, or finds the one that exists", Create, &a);
  command->add_option("NAME", a->name, "The dict")->required();
  command->add_option("--max-entries", a->max_entries, "The limit of entries (16,777,216)");
  command->add_option("--max-bytes", a->max_bytes, "The limit of bytes: 64k, 16M, 1G (1G)");
  command->add_option("--default-ttl", a->default_ttl,
                      "How long entries live that are set without --ttl: 30s, 5m (for ever)");
  command->add_flag("--evict", a->evict, "When it is full, make room instead of refusing");
  command->add_flag("--exclusive", a->exclusive, "Fail when it exists");
  for (const auto& [name, help, run] :
       {std::tuple{"describe", "Tells limits, use and counters of a dict", &Describe},
        std::tuple{"stats", "Tells how full a dict is", &Stats}}) {
    command = add(name, help, run, &a);
    command->add_option("NAME", a->name, "The dict, or \"#<index>\"")->required();
  }
  for (const auto& [name, help, run] :
       {std::tuple{"rm", "Deletes a dict with all its entries", &Remove},
        std::tuple{"clear", "Deletes every entry at once", &Clear}}) {
    command = add(name, help, run, &a);
    command->add_option("NAME", a->name, "The dict, or \"#<index>\"")->required();
    AddYes(command, &a->yes);
  }
  AddDictEntryCommands(group, globals);
  AddDictFileCommands(group, globals);
}

}  // namespace statehouse::cli
