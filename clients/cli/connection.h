// The connection that a command needs, made when it is needed, and the way in which a command
// fails.
#pragma once

#include <statehouse/statehouse.h>

#include <cstdint>
#include <memory>
#include <string>

namespace statehouse::cli {

// The global flags.
struct Globals {
  std::string url;
  std::string token_file;
  std::string transport = "auto";
  uint64_t timeout_ms = 5000;
  std::string output = "table";
  bool json = false;  // `output` is for programs.
};

// Thrown by a command, caught in main: the message for standard error and the exit code. The one
// place where this program throws: CLI11's callbacks have no other way out.
struct Failed {
  int exit_code;
  std::string message;
  sh_reason reason = SH_OK;  // Of a refused call.
};

struct ClientCloser {
  void operator()(sh_client* client) const { sh_close(client); }
};
struct AreaCloser {
  void operator()(sh_area* area) const { sh_area_close(area); }
};
using Client = std::unique_ptr<sh_client, ClientCloser>;
using OpenArea = std::unique_ptr<sh_area, AreaCloser>;

// All throw Failed.
Client Connect(const Globals& globals);
// For calls whose messages may be long: the network door, where nobody chose one. The attach socket
// carries at most 128 KiB.
Client ConnectForEntries(const Globals& globals);
// The door in use: local, socket or network.
const char* DoorName(const sh_client* client);
OpenArea Open(sh_client* client, const std::string& name);

// Throws Failed where the call was refused; frees the error. A reference, because the call that
// fills `error` and the argument are evaluated in no order: Check(sh_load(…, &error), error).
void Check(sh_reason reason, sh_error* const& error);

}  // namespace statehouse::cli
