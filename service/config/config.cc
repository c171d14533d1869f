#include "service/config/config.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "service/config/settings.h"

namespace statehouse {
namespace {

constexpr std::string_view kVariablePrefix = "STATEHOUSED_";
constexpr std::string_view kConfigVariable = "STATEHOUSED_CONFIG";
constexpr size_t kConfigFileBytesMax = 1 << 20;

Status Invalid(std::string message) { return Status(Reason::kConfigInvalid, std::move(message)); }

StatusOr<std::string> ReadConfigFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Invalid(path + ": the configuration cannot be opened: " + std::strerror(errno));
  std::string text;
  char buffer[4096];
  // A stream catches what its buffer throws (a folder is opened, then not read) and turns bad.
  while (text.size() <= kConfigFileBytesMax) {
    file.read(buffer, sizeof(buffer));
    if (file.gcount() == 0) break;
    text.append(buffer, static_cast<size_t>(file.gcount()));
  }
  if (file.bad()) return Invalid(path + ": the configuration cannot be read (is it a folder?)");
  if (text.size() > kConfigFileBytesMax)
    return Invalid(path + ": the configuration is above 1 MiB");
  return text;
}

// What the flags say: key -> texts, in the order given.
struct Flags {
  std::string config_file;
  bool no_keeper = false;
  std::map<std::string, std::vector<std::string>> values;
};

std::vector<std::string> KnownFlags() {
  std::vector<std::string> known = {"--config", "--no-keeper"};
  for (const Setting& setting : Settings()) {
    if (!setting.flag.empty()) known.emplace_back(setting.flag);
  }
  return known;
}

// Names the first argument that is no flag of ours, with the nearest one.
Status UnknownFlag(const std::vector<std::string>& argv, const std::string& otherwise) {
  const std::vector<std::string> known = KnownFlags();
  for (const std::string& argument : argv) {
    const std::string name = argument.substr(0, argument.find('='));
    if (!name.starts_with("-") || std::find(known.begin(), known.end(), name) != known.end()) {
      continue;
    }
    return Invalid("flag " + name + ": unknown" + DidYouMean(name, known));
  }
  return Invalid("command line: " + otherwise);
}

StatusOr<Flags> ParseFlags(const std::vector<std::string>& argv) {
  Flags flags;
  CLI::App app;
  app.set_help_flag();  // --help is a command of the program.
  app.add_option("--config", flags.config_file);
  app.add_flag("--no-keeper", flags.no_keeper);
  std::map<std::string, bool> switches;
  for (const Setting& setting : Settings()) {
    if (setting.flag.empty()) continue;
    const std::string key(setting.key);
    if (setting.kind == SettingKind::kBool) {
      app.add_flag(std::string(setting.flag), switches[key]);
      continue;
    }
    auto* option = app.add_option(std::string(setting.flag), flags.values[key]);
    option->expected(1);
    option->multi_option_policy(setting.kind == SettingKind::kTexts
                                    ? CLI::MultiOptionPolicy::TakeAll
                                    : CLI::MultiOptionPolicy::TakeLast);
  }
  std::vector<std::string> reversed(argv.rbegin(), argv.rend());  // The order that CLI11 wants.
  try {
    app.parse(reversed);
  } catch (const CLI::Error& error) {
    return UnknownFlag(argv, error.what());
  }
  for (const auto& [key, is_on] : switches) {
    if (is_on) flags.values[key] = {"true"};
  }
  return flags;
}

Status ApplyFlags(const Flags& flags, Config* config) {
  for (const auto& [key, texts] : flags.values) {
    if (texts.empty()) continue;
    const Setting& setting = *FindSetting(key);
    const std::string where = "flag " + std::string(setting.flag);
    SettingValue value;
    if (setting.kind == SettingKind::kTexts) {
      const bool has_none = std::find(texts.begin(), texts.end(), "none") != texts.end();
      if (has_none && texts.size() > 1) {
        return Invalid(where + ": \"none\" cannot stand beside an address");
      }
      value = has_none ? std::vector<std::string>() : texts;
    } else {
      StatusOr<SettingValue> parsed = ParseSettingText(setting, texts.back());
      if (!parsed.ok()) return Invalid(where + ": " + parsed.status().message());
      value = *std::move(parsed);
    }
    SH_RETURN_IF_ERROR(ApplySetting(setting, std::move(value), where, config));
    config->origins[key] = where;
  }
  if (flags.no_keeper) {
    config->keeper = false;
    config->origins["keeper"] = "flag --no-keeper";
  }
  return Status();
}

Status ApplyEnvironment(const std::map<std::string, std::string>& environment, Config* config) {
  std::vector<std::string> known = {std::string(kConfigVariable)};
  for (const Setting& setting : Settings()) known.push_back(VariableName(setting.key));
  for (const auto& [name, text] : environment) {
    if (!name.starts_with(kVariablePrefix) || name == kConfigVariable) continue;
    const auto found = std::find(known.begin(), known.end(), name);
    if (found == known.end()) {
      return Invalid("environment variable " + name + ": unknown" + DidYouMean(name, known));
    }
    const Setting& setting = Settings()[static_cast<size_t>(found - known.begin()) - 1];
    const std::string where = "environment variable " + name;
    StatusOr<SettingValue> value = ParseSettingText(setting, text);
    if (!value.ok()) return Invalid(where + ": " + value.status().message());
    SH_RETURN_IF_ERROR(ApplySetting(setting, *std::move(value), where, config));
    config->origins[std::string(setting.key)] = "environment " + name;
  }
  return Status();
}

// What has no value yet and is derived from others.
void Resolve(const std::map<std::string, std::string>& environment, Config* config) {
  const auto is_default = [config](const char* key) { return config->origins[key] == "default"; };
  if (config->runtime_dir.empty()) {
    const auto folder = environment.find("XDG_RUNTIME_DIR");
    if (::geteuid() == 0) {
      config->runtime_dir = "/run/statehouse";
    } else if (folder != environment.end() && !folder->second.empty()) {
      config->runtime_dir = folder->second + "/statehouse";
    } else {
      config->runtime_dir = "/tmp/statehouse-" + std::to_string(::geteuid());
    }
  }
  if (config->auth.tokens_file.empty()) {
    config->auth.tokens_file = config->runtime_dir + "/tokens.toml";
  }
  if (!config->dev) return;
  if (is_default("drain_linger_ms")) config->drain_linger_ms = 0;
  if (is_default("network.listen")) config->network.listen = {"127.0.0.1:0"};
  if (is_default("http.listen")) config->http.listen = "127.0.0.1:0";
}

}  // namespace

// What no setting can say by itself.
Status CheckTls(const Config& config) {
  const auto refuse = [&config](const char* key, const std::string& why) {
    return Status(Reason::kConfigInvalid, config.origins.at(key) + ": " + key + ": " + why);
  };
  const Config::Tls& tls = config.tls;
  if (tls.certificate_file.empty() != tls.key_file.empty()) {
    return refuse(tls.key_file.empty() ? "tls.certificate_file" : "tls.key_file",
                  "a certificate and its key are set together");
  }
  if (!tls.enabled() && !tls.client_ca_file.empty()) {
    return refuse("tls.client_ca_file", "it needs tls.certificate_file and tls.key_file");
  }
  if (tls.enabled() || config.network.allow_plaintext) return Status();
  for (const std::string& address : config.network.listen) {
    if (IsLoopbackAddress(address)) continue;
    return refuse("network.listen", "\"" + address +
                                        "\" is reached by other hosts, so it needs TLS: set "
                                        "tls.certificate_file and tls.key_file, or "
                                        "network.allow_plaintext for a network that nobody else "
                                        "listens to");
  }
  return Status();
}

// Nobody can listen twice at one port.
Status CheckAddresses(const Config& config) {
  const auto refuse = [&config](const char* key, const std::string& address) {
    return Status(Reason::kConfigInvalid,
                  config.origins.at(key) + ": " + key + ": \"" + address + "\" is there twice");
  };
  std::set<std::string> seen;
  for (const std::string& address : config.network.listen) {
    if (address.ends_with(":0")) continue;  // Any free port.
    if (!seen.insert(address).second) return refuse("network.listen", address);
  }
  if (seen.count(config.http.listen) != 0) return refuse("http.listen", config.http.listen);
  return Status();
}

Status CheckJwt(const Config& config) {
  const Config::Auth& auth = config.auth;
  const auto refuse = [&config](const char* key, const std::string& why) {
    return Status(Reason::kConfigInvalid, config.origins.at(key) + ": " + key + ": " + why);
  };
  const bool is_on = !auth.jwt_key_file.empty();
  if (is_on && auth.jwt_algorithm.empty()) {
    return refuse("auth.jwt_key_file", "auth.jwt_algorithm must say how tokens are signed");
  }
  if (is_on && auth.jwt_audience.empty()) {
    return refuse("auth.jwt_key_file",
                  "auth.jwt_audience must be set, or tokens that were made for another service "
                  "would do here");
  }
  for (const char* const key : {"auth.jwt_algorithm", "auth.jwt_issuer", "auth.jwt_audience"}) {
    const std::string& value = key == std::string_view("auth.jwt_algorithm") ? auth.jwt_algorithm
                               : key == std::string_view("auth.jwt_issuer")  ? auth.jwt_issuer
                                                                             : auth.jwt_audience;
    if (!is_on && !value.empty()) return refuse(key, "it needs auth.jwt_key_file");
  }
  return Status();
}

std::vector<ConfigChange> CompareConfigs(const Config& before, const Config& after) {
  static constexpr std::string_view kReloadable[] = {"auth.calls_per_second_max",
                                                     "auth.calls_at_once_max", "log.level",
                                                     "log.slow_call_ms", "log.audit"};
  std::vector<ConfigChange> changes;
  for (const Setting& setting : Settings()) {
    ConfigChange change{std::string(setting.key), FormatSetting(setting.get(before)),
                        FormatSetting(setting.get(after)), false};
    if (change.before == change.after) continue;
    change.is_reloadable = std::find(std::begin(kReloadable), std::end(kReloadable), setting.key) !=
                           std::end(kReloadable);
    changes.push_back(std::move(change));
  }
  if (before.declared_areas != after.declared_areas) changes.push_back({"[[area]]", "", "", false});
  return changes;
}

StatusOr<Config> LoadConfig(const std::vector<std::string>& argv,
                            const std::map<std::string, std::string>& environment) {
  SH_ASSIGN_OR_RETURN(Flags flags, ParseFlags(argv));
  Config config;
  for (const Setting& setting : Settings()) config.origins[std::string(setting.key)] = "default";
  if (const auto variable = environment.find(std::string(kConfigVariable));
      flags.config_file.empty() && variable != environment.end()) {
    flags.config_file = variable->second;
  }
  if (!flags.config_file.empty()) {
    SH_ASSIGN_OR_RETURN(const std::string text, ReadConfigFile(flags.config_file));
    SH_ASSIGN_OR_RETURN(config, ParseConfigToml(text, flags.config_file, std::move(config)));
  }
  SH_RETURN_IF_ERROR(ApplyEnvironment(environment, &config));
  SH_RETURN_IF_ERROR(ApplyFlags(flags, &config));
  Resolve(environment, &config);
  SH_RETURN_IF_ERROR(CheckTls(config));
  SH_RETURN_IF_ERROR(CheckAddresses(config));
  SH_RETURN_IF_ERROR(CheckJwt(config));
  return config;
}

}  // namespace statehouse
