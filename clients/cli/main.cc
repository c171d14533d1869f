// statehouse: the command line. Data goes to standard output, everything else to standard error.
#include <cstdio>
#include <iostream>

#include "clients/cli/commands.h"
#include "clients/cli/exit_codes.h"

namespace {

constexpr const char* kFooter =
    "Environment: STATEHOUSE_URL, STATEHOUSE_TOKEN, STATEHOUSE_TOKEN_FILE; for statehouse+tls://\n"
    "             STATEHOUSE_TLS_CA_FILE, STATEHOUSE_TLS_CERTIFICATE_FILE, "
    "STATEHOUSE_TLS_KEY_FILE.\n"
    "             A flag goes before them.\n"
    "\n"
    "Exit codes: 0 done, 1 error, 2 wrong use, 3 not found, 4 conflict, 5 lock not had or lost,\n"
    "            6 service away or time-out, 7 token missing, wrong or without the grant\n"
    "\n"
    "Examples:\n"
    "  statehouse status\n"
    "  statehouse area create counters --size 4k\n"
    "  statehouse area add counters 0 1\n"
    "  statehouse -o json area describe counters\n"
    "  statehouse dict set sessions alice '{\"visits\": 1}' --ttl 30m\n"
    "  statehouse dict incr sessions alice --path visits\n"
    "  statehouse lock deploy --ttl 10s -- ./deploy.sh\n"
    "  statehouse watch config web/ --exec './reload.sh \"$STATEHOUSE_KEY\"'\n";

}  // namespace

int main(int argc, char** argv) {
  statehouse::cli::Globals globals;
  std::string output = "table";
  CLI::App app("Statehouse: shared state for worker processes", "statehouse");
  app.footer(kFooter);
  app.set_version_flag("--version", STATEHOUSE_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--url", globals.url,
                 "statehouse+unix://<runtime dir>, statehouse://host:port or, with TLS, "
                 "statehouse+tls://host:port[?ca_file=F]")
      ->envname("STATEHOUSE_URL");
  app.add_option("--token-file", globals.token_file, "A file that holds the access token")
      ->envname("STATEHOUSE_TOKEN_FILE");
  app.add_option("--transport", globals.transport, "auto, local or network")
      ->check(CLI::IsMember({"auto", "local", "network"}));
  app.add_option("--timeout-ms", globals.timeout_ms, "Of each call (default 5000)");
  app.add_option("-o,--output", output, "table or json")->check(CLI::IsMember({"table", "json"}));
  app.parse_complete_callback([&] { globals.json = output == "json"; });
  statehouse::cli::AddAreaCommands(&app, &globals);
  statehouse::cli::AddDictCommands(&app, &globals);
  std::vector<const char*> words(argv, argv + argc);
  statehouse::cli::AddLockCommands(&app, &globals, statehouse::cli::TakeCommand(&words));
  statehouse::cli::AddWatchCommand(&app, &globals);
  statehouse::cli::AddTokenCommands(&app, &globals);
  statehouse::cli::AddStatusCommand(&app, &globals);
  try {
    app.parse(static_cast<int>(words.size()), words.data());
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? statehouse::cli::kExitOk : statehouse::cli::kExitUsage;
  } catch (const statehouse::cli::Failed& failed) {
    std::cout.flush();
    if (!failed.message.empty()) std::fprintf(stderr, "statehouse: %s\n", failed.message.c_str());
    return failed.exit_code;
  }
  std::cout.flush();
  return std::cout.good() && std::fflush(stdout) == 0 ? statehouse::cli::kExitOk
                                                      : statehouse::cli::kExitError;
}
