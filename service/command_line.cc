#include "service/command_line.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string_view>

#include "service/config/config.h"
#include "service/exit_codes.h"
#include "service/server.h"
#include "service/server_parts.h"

extern char** environ;

namespace statehouse {
namespace {

constexpr std::string_view kDaemonFlag = "--internal-daemon";
constexpr std::string_view kKeeperFlag = "--internal-keeper=";
constexpr std::string_view kNoKeeperFlag = "--no-keeper";

constexpr const char* kUsage =
    "statehoused: shared state for fleets of worker processes\n"
    "\n"
    "Usage:\n"
    "  statehoused [settings]                 serve; stop with Ctrl-C or SIGTERM; SIGHUP reads "
    "the\n"
    "                                         configuration and the access tokens again\n"
    "  statehoused --dev                      serve for development: own folder, free ports, a "
    "token, hints\n"
    "  statehoused config default             print the default configuration as TOML\n"
    "  statehoused config check [settings]    check a configuration and print nothing when it is "
    "right;\n"
    "                                         with --files also certificates, keys and the tokens "
    "file, as\n"
    "                                         a start would; never ports\n"
    "  statehoused config show [settings]     print the configuration in effect and where each "
    "value comes from\n"
    "                                         (--origin says the same)\n"
    "  statehoused --version | --help\n"
    "\n";

constexpr const char* kExitCodes =
    "\n"
    "Exit codes: 0 stopped after a drain, 64 subcommand, 69 folder or address in use, 70 "
    "internal error,\n"
    "71 refused by the system, 74 keeper and daemon killed at once: state lost, 75 stopped at once "
    "by a\n"
    "second signal, 78 configuration (a flag, a variable or the file).\n";

Status UnknownCommand(const std::string& what) {
  return Status(
      Reason::kInvalidArgument,
      "\"" + what +
          "\" is no command; there is: config default, config check, config show (see --help)");
}

// Takes a flag of a subcommand out of its settings; whether it was there.
bool TakeFlag(std::vector<std::string>* settings, std::string_view flag) {
  return std::erase(*settings, flag) > 0;
}

// What a start would say of the files that a configuration names. The tokens of --dev are made at
// its start.
std::vector<std::string> WrongFiles(const Config& config) {
  std::vector<std::string> wrong;
  const TlsFiles tls = TlsFilesOf(config);
  const Status fit = tls.enabled() ? CheckTlsFiles(tls) : Status();
  if (!fit.ok()) wrong.push_back(fit.message());
  const Status known = config.dev ? Status() : OpenAuthenticator(config.auth).status();
  if (!known.ok()) wrong.push_back(known.message());
  return wrong;
}

bool IsHelp(const std::string& argument) { return argument == "--help" || argument == "-h"; }

}  // namespace

StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments) {
  CommandLine line;
  size_t first = 0;
  if (!arguments.empty() && arguments[0] == kDaemonFlag) {
    line.role = Role::kDaemon;
    line.started_by_keeper = true;
    first = 1;
  } else if (!arguments.empty() && arguments[0].starts_with(kKeeperFlag)) {
    line.role = Role::kNextKeeper;
    const std::string_view pid = std::string_view(arguments[0]).substr(kKeeperFlag.size());
    const auto [end, error] =
        std::from_chars(pid.data(), pid.data() + pid.size(), line.adopted_daemon);
    if (error != std::errc() || end != pid.data() + pid.size() || line.adopted_daemon <= 0) {
      return UnknownCommand(arguments[0]);
    }
    first = 1;
  } else if (!arguments.empty() && arguments[0] == "config") {
    if (arguments.size() < 2) return UnknownCommand("config");
    const std::string& verb = arguments[1];
    if (verb != "default" && verb != "check" && verb != "show")
      return UnknownCommand("config " + verb);
    line.role = Role::kPrint;
    line.command = {"config", verb};
    first = 2;
  } else if (!arguments.empty() && !arguments[0].starts_with("-")) {
    return UnknownCommand(arguments[0]);
  }
  line.settings.assign(arguments.begin() + static_cast<ptrdiff_t>(first), arguments.end());
  const std::string verb = line.command.empty() ? "" : line.command[1];
  if (verb == "show") (void)TakeFlag(&line.settings, "--origin");  // It always does.
  line.checks_files = verb == "check" && TakeFlag(&line.settings, "--files");
  const bool internal = line.role == Role::kDaemon || line.role == Role::kNextKeeper;
  for (const std::string& argument : line.settings) {
    if (internal) break;
    if (IsHelp(argument)) line.command = {"--help"};
    if (argument == "--version") line.command = {"--version"};
    if (argument == kNoKeeperFlag && line.role == Role::kKeeper) line.role = Role::kDaemon;
  }
  if (!line.command.empty()) line.role = Role::kPrint;
  if (verb == "default" && line.command[0] == "config" && !line.settings.empty()) {
    return Status(Reason::kInvalidArgument,
                  "config default: \"" + line.settings.front() +
                      "\" is not understood; it takes nothing more (config show prints what "
                      "settings give)");
  }
  return line;
}

std::vector<std::string> DaemonArguments(const std::string& program, const CommandLine& line) {
  std::vector<std::string> arguments = {program, std::string(kDaemonFlag)};
  arguments.insert(arguments.end(), line.settings.begin(), line.settings.end());
  return arguments;
}

std::vector<std::string> NextKeeperArguments(const std::string& program, const CommandLine& line,
                                             pid_t daemon) {
  std::vector<std::string> arguments = {program, std::string(kKeeperFlag) + std::to_string(daemon)};
  arguments.insert(arguments.end(), line.settings.begin(), line.settings.end());
  return arguments;
}

std::map<std::string, std::string> EnvironmentMap() {
  std::map<std::string, std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const size_t equals = text.find('=');
    if (equals != std::string_view::npos)
      variables.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return variables;
}

int RunPrintCommand(const CommandLine& line) {
  if (line.command[0] == "--version") {
    printf("statehoused %s\n", Version());
    return kExitOk;
  }
  if (line.command[0] == "--help") {
    printf("%s%s%s", kUsage, ConfigHelp().c_str(), kExitCodes);
    return kExitOk;
  }
  if (line.command[1] == "default") {
    printf("%s", DefaultConfigToml().c_str());
    return kExitOk;
  }
  const auto config = LoadConfig(line.settings, EnvironmentMap());
  if (!config.ok()) {
    fprintf(stderr, "statehoused: %s\n", config.status().message().c_str());
    return kExitConfig;
  }
  if (line.command[1] == "show") printf("%s", DescribeConfig(*config).c_str());
  const std::vector<std::string> wrong =
      line.checks_files ? WrongFiles(*config) : std::vector<std::string>();
  for (const std::string& what : wrong) fprintf(stderr, "statehoused: %s\n", what.c_str());
  return wrong.empty() ? kExitOk : kExitConfig;
}

}  // namespace statehouse
