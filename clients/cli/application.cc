#include "clients/cli/application.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>

#include "clients/cli/commands.h"
#include "clients/cli/exit_codes.h"

namespace statehouse::cli {
namespace {

constexpr const char* kFooter =
    "Environment: STATEHOUSE_URL, STATEHOUSE_TOKEN, STATEHOUSE_TOKEN_FILE; for statehouse+tls://\n"
    "             STATEHOUSE_TLS_CA_FILE, STATEHOUSE_TLS_CERTIFICATE_FILE, "
    "STATEHOUSE_TLS_KEY_FILE.\n"
    "             A flag goes before them.\n"
    "\n"
    "Exit codes: statehouse help exit-codes\n"
    "\n"
    "Examples:\n"
    "  statehouse status\n"
    "  statehouse doctor\n"
    "  statehouse area create counters --size 4k\n"
    "  statehouse area add counters 0 1\n"
    "  statehouse -o json area describe counters\n"
    "  statehouse dict set sessions alice '{\"visits\": 1}' --ttl 30m\n"
    "  statehouse dict incr sessions alice --path visits\n"
    "  statehouse lock deploy --ttl 10s -- ./deploy.sh\n"
    "  statehouse watch config web/ --exec './reload.sh \"$STATEHOUSE_KEY\"'\n";

// Those whose output has no end, so that each object is a line whatever is said.
constexpr std::array<std::string_view, 4> kStreaming = {"watch", "monitor", "top", "latency"};

void TakeOutput(const CLI::App& app, Globals* globals) {
  globals->json = globals->output != "table";
  if (globals->output != "ndjson") return;
  for (const CLI::App* const command : app.get_subcommands()) {
    if (std::find(kStreaming.begin(), kStreaming.end(), command->get_name()) == kStreaming.end()) {
      throw Failed{kExitUsage, "-o ndjson is for watch, monitor, top and latency; `" +
                                   command->get_name() + "` has -o json"};
    }
  }
}

}  // namespace

namespace {

// Empty where the text is a number that an unsigned option may have: CLI11 reads them by strtoull,
// which takes "-1" and what is too large for the largest number there is.
std::string WhyNotUnsigned(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\n\v\f\r");
  if (begin != std::string::npos && text[begin] == '-') return "'" + text + "' is below 0";
  errno = 0;
  (void)std::strtoull(text.c_str(), nullptr, 0);
  return errno == ERANGE ? "'" + text + "' is too large" : "";
}

void CheckUnsigned(CLI::App* app) {
  for (CLI::Option* const option : app->get_options()) {
    if (option->get_type_name().rfind("UINT", 0) != 0) continue;
    // As a transformation it comes before what else looks at the value.
    option->transform(
        CLI::Validator([](std::string& text) { return WhyNotUnsigned(text); }, "", ""));
  }
  for (CLI::App* const command : app->get_subcommands({})) CheckUnsigned(command);
}

}  // namespace

const char* ProgramVersion() { return STATEHOUSE_VERSION; }

std::unique_ptr<CLI::App> MakeApplication(Globals* globals,
                                          const std::optional<std::vector<std::string>>& command) {
  auto app =
      std::make_unique<CLI::App>("Statehouse: shared state for worker processes", "statehouse");
  app->footer(kFooter);
  app->set_version_flag("--version", ProgramVersion());
  app->require_subcommand(1);
  app->fallthrough();
  app->add_option("--url", globals->url,
                  "statehouse+unix://<runtime dir>, statehouse://host:port or, with TLS, "
                  "statehouse+tls://host:port[?ca_file=F]")
      ->envname("STATEHOUSE_URL");
  app->add_option("--token-file", globals->token_file, "A file that holds the access token")
      ->envname("STATEHOUSE_TOKEN_FILE");
  app->add_option("--transport", globals->transport, "auto, local, socket or network")
      ->check(CLI::IsMember({"auto", "local", "socket", "network"}));
  app->add_option("--timeout-ms", globals->timeout_ms, "Of each call (default 5000)");
  app->add_option("-o,--output", globals->output,
                  "table or json; ndjson, a JSON object on each line, is for commands that go on")
      ->check(CLI::IsMember({"table", "json", "ndjson"}));
  app->parse_complete_callback([globals, at = app.get()] { TakeOutput(*at, globals); });
  AddAreaCommands(app.get(), globals);
  AddDictCommands(app.get(), globals);
  AddLockCommands(app.get(), globals, command);
  AddWatchCommand(app.get(), globals);
  AddMonitorCommand(app.get(), globals);
  AddTokenCommands(app.get(), globals);
  AddStatusCommand(app.get(), globals);
  AddSessionCommands(app.get(), globals);
  AddDrainCommand(app.get(), globals);
  AddTopCommand(app.get(), globals);
  AddLatencyCommand(app.get(), globals);
  AddBigCommands(app.get(), globals);
  AddBenchCommand(app.get(), globals);
  AddDoctorCommand(app.get(), globals);
  AddHelpCommand(app.get());
  AddCompletionCommand(app.get());
  AddReferenceCommand(app.get());
  CheckUnsigned(app.get());
  return app;
}

}  // namespace statehouse::cli
