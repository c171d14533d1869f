#include "clients/cli/connection.h"

#include "clients/cli/exit_codes.h"

namespace statehouse::cli {

void Check(sh_reason reason, sh_error* const& error) {
  if (reason == SH_OK) return;
  std::string message = std::string(sh_reason_name(reason)) + ": " + sh_error_message(error);
  if (reason == SH_UNAUTHENTICATED) {
    message += "\nSet STATEHOUSE_TOKEN or --token-file; `statehouse token create` makes a token.";
  }
  sh_error_free(error);
  throw Failed{ExitCodeOf(reason), std::move(message), reason};
}

Client Connect(const Globals& globals) {
  sh_options options = {};
  if (!globals.token_file.empty()) options.token_file = globals.token_file.c_str();
  options.client_name = "statehouse-cli";
  options.timeout_ms = globals.timeout_ms;
  if (globals.transport == "local") options.transport = SH_TRANSPORT_LOCAL;
  if (globals.transport == "socket") options.transport = SH_TRANSPORT_SOCKET;
  if (globals.transport == "network") options.transport = SH_TRANSPORT_NETWORK;
  sh_client* client = nullptr;
  sh_error* error = nullptr;
  Check(sh_connect(globals.url.empty() ? nullptr : globals.url.c_str(), &options, &client, &error),
        error);
  return Client(client);
}

Client ConnectForEntries(const Globals& globals) {
  Globals chosen = globals;
  const bool url_chooses = globals.url.find("transport=") != std::string::npos;
  if (globals.transport == "auto" && !url_chooses) chosen.transport = "network";
  return Connect(chosen);
}

const char* DoorName(const sh_client* client) {
  switch (sh_transport_of(client)) {
    case SH_TRANSPORT_LOCAL: return "local";
    case SH_TRANSPORT_SOCKET: return "socket";
    case SH_TRANSPORT_AUTO:
    case SH_TRANSPORT_NETWORK: break;
  }
  return "network";
}

OpenArea Open(sh_client* client, const std::string& name) {
  sh_area* area = nullptr;
  sh_error* error = nullptr;
  Check(sh_area_open(client, name.c_str(), 0, &area, &error), error);
  return OpenArea(area);
}

}  // namespace statehouse::cli
