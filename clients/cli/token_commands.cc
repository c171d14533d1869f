// statehouse token …: works on the tokens file itself, on the service's host; the service reads it
// again on SIGHUP.
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "clients/c/src/endpoint.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_codes.h"
#include "service/auth/token_file.h"

namespace statehouse::cli {
namespace {

struct Arguments {
  std::string file;
  std::string description;
  std::string expires;
  std::string id;
  std::vector<std::string> grants;
  std::optional<uint32_t> calls_per_second;
  std::optional<uint32_t> calls_at_once;
};

// As statehoused chooses its runtime folder.
std::string DefaultTokensFile() {
  if (geteuid() == 0) return "/run/statehouse/tokens.toml";
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime != '\0')
    return std::string(runtime) + "/statehouse/tokens.toml";
  return "/tmp/statehouse-" + std::to_string(geteuid()) + "/tokens.toml";
}

// The one that was named, or of the folder that the URL names, or the default one.
std::string FileOf(const Globals& globals, const Arguments& arguments) {
  if (!arguments.file.empty()) return arguments.file;
  if (globals.url.empty()) return DefaultTokensFile();
  ConnectArguments of_url;
  of_url.url = globals.url;
  const auto no_environment = [](const char*) -> const char* { return nullptr; };
  const StatusOr<Endpoint> endpoint = ResolveEndpoint(of_url, no_environment);
  if (!endpoint.ok()) throw Failed{kExitUsage, endpoint.status().ToString()};
  if (endpoint->runtime_dir.empty()) {
    throw Failed{kExitUsage,
                 "which tokens file? " + globals.url +
                     " names no folder of this host; name the file by --tokens-file, on the "
                     "service's host"};
  }
  return endpoint->runtime_dir + "/tokens.toml";
}

[[noreturn]] void Refuse(const Status& status) {
  throw Failed{status.reason() == Reason::kInvalidArgument ? kExitUsage : kExitError,
               status.ToString()};
}

// "30d", "12h", "45m", or a time in RFC 3339; empty: never.
int64_t ParseExpiry(const std::string& text) {
  if (text.empty()) return 0;
  char* unit = nullptr;
  const long long amount = std::strtoll(text.c_str(), &unit, 10);
  if (unit != text.c_str() && unit[0] != '\0' && unit[1] == '\0' && amount > 0 &&
      amount < 1'000'000) {
    const int64_t seconds = *unit == 'd' ? 86'400 : *unit == 'h' ? 3'600 : *unit == 'm' ? 60 : 0;
    if (seconds > 0) return static_cast<int64_t>(time(nullptr)) + amount * seconds;
  }
  StatusOr<int64_t> when = ParseTimestamp(text);
  if (!when.ok())
    throw Failed{kExitUsage,
                 "--expires: '" + text + "' is no duration (30d, 12h, 45m) and no RFC 3339 time"};
  return *when;
}

void Create(const Globals& globals, const Arguments& arguments) {
  TokenSpec spec;
  spec.description = arguments.description;
  spec.expires_unix_s = ParseExpiry(arguments.expires);
  spec.calls_per_second = arguments.calls_per_second;
  spec.calls_at_once = arguments.calls_at_once;
  for (const std::string& text : arguments.grants) {
    StatusOr<Grant> grant = ParseGrant(text);
    if (!grant.ok()) throw Failed{kExitUsage, grant.status().ToString()};
    spec.grants.push_back(*std::move(grant));
  }
  const std::string file = FileOf(globals, arguments);
  StatusOr<std::string> token = CreateToken(file, spec);
  if (!token.ok()) Refuse(token.status());
  if (globals.json) {
    std::cout << nlohmann::json{{"token", *token}, {"file", file}}.dump() << "\n";
  } else {
    std::cout << *token << "\n";
  }
  std::cerr << "Added to " << file
            << ". This text is shown once. The service knows it after a reload: kill -HUP <pid of "
               "statehoused>\n";
}

// Null: the service's default.
nlohmann::json LimitOf(const std::optional<uint32_t>& limit) {
  return limit ? nlohmann::json(*limit) : nlohmann::json();
}

void List(const Globals& globals, const Arguments& arguments) {
  const std::string file = FileOf(globals, arguments);
  if (!std::filesystem::exists(file)) {
    throw Failed{kExitNotFound, "there is no tokens file " + file +
                                    "; name the service's by --tokens-file or --url"};
  }
  StatusOr<std::vector<TokenRecord>> records = ListTokens(file);
  if (!records.ok()) Refuse(records.status());
  nlohmann::json list = nlohmann::json::array();
  for (const TokenRecord& record : *records) {
    nlohmann::json grants = nlohmann::json::array();
    for (const Grant& grant : record.grants) grants.push_back(FormatGrant(grant));
    list.push_back(
        {{"id", record.id},
         {"description", record.description},
         {"expires", record.expires_unix_s == 0 ? "never" : FormatTimestamp(record.expires_unix_s)},
         {"calls_per_second", LimitOf(record.calls_per_second)},
         {"calls_at_once", LimitOf(record.calls_at_once)},
         {"grants", grants}});
  }
  if (globals.json) {
    std::cout << list.dump(2) << "\n";
    return;
  }
  std::printf("%-10s %-22s %-30s %s\n", "ID", "EXPIRES", "DESCRIPTION", "GRANTS");
  for (const nlohmann::json& entry : list) {
    std::string grants;
    for (const nlohmann::json& grant : entry["grants"]) grants += grant.get<std::string>() + " ";
    std::printf("%-10s %-22s %-30s %s\n", entry["id"].get<std::string>().c_str(),
                entry["expires"].get<std::string>().c_str(),
                entry["description"].get<std::string>().c_str(), grants.c_str());
  }
}

}  // namespace

void AddTokenCommands(CLI::App* app, const Globals* globals) {
  CLI::App* group = app->add_subcommand("token", "Access tokens in the service's tokens file");
  group->require_subcommand(1);
  group->footer(
      "Examples:\n"
      "  statehouse token create --grant 'area:web/*:read,write,create' --expires 90d "
      "--description 'web workers'\n"
      "  statehouse token ls\n"
      "  statehouse token revoke 3f9kd02x");
  const auto arguments = std::make_shared<Arguments>();
  group
      ->add_option("--tokens-file", arguments->file,
                   "The file (default: tokens.toml of the runtime folder that the URL names, or "
                   "of the default one)")
      ->envname("STATEHOUSE_TOKENS_FILE");

  CLI::App* create = group->add_subcommand("create", "Makes a token and prints it, once");
  create
      ->add_option(
          "--grant", arguments->grants,
          "kind:pattern:verbs, repeatable; kinds: area dict lock service; verbs: read (also "
          "watches) write create lock admin")
      ->required();
  create->add_option("--description", arguments->description, "Who holds it");
  create->add_option("--expires", arguments->expires,
                     "30d, 12h, 45m or an RFC 3339 time; default: never");
  create->add_option("--calls-per-second", arguments->calls_per_second,
                     "Calls, and operations of batches, in a second; 0: no limit; default: "
                     "the service's auth.calls_per_second_max");
  create->add_option("--calls-at-once", arguments->calls_at_once,
                     "Calls that run or wait at once; 0: no limit; default: the service's "
                     "auth.calls_at_once_max");
  create->callback([globals, arguments] { Create(*globals, *arguments); });

  group->add_subcommand("ls", "Lists tokens, without their secrets")
      ->callback([globals, arguments] { List(*globals, *arguments); });

  CLI::App* revoke = group->add_subcommand("revoke", "Removes a token");
  revoke->add_option("ID", arguments->id, "The id that `token ls` shows")->required();
  revoke->callback([globals, arguments] {
    const Status status = RevokeToken(FileOf(*globals, *arguments), arguments->id);
    if (status.reason() == Reason::kInvalidArgument) throw Failed{kExitNotFound, status.ToString()};
    if (!status.ok()) Refuse(status);
    std::cerr << "Gone after a reload: kill -HUP <pid of statehoused>\n";
  });
}

}  // namespace statehouse::cli
