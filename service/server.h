// Server: the composition root of the daemon: it builds every part, starts them in order, serves
// until told to stop, drains.
//
// Who owns it: main(). Threads: the calling one handles signals; each door brings its own. Always
// true: doors open only when the
//   engine has recovered what an earlier daemon left. Failure: a start that fails ends the process
//   with a documented code (exit_codes.h) and leaves nothing behind that an earlier daemon had not
//   left.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "service/keeper/inheritance.h"

namespace statehouse {

struct DaemonOptions {
  std::vector<std::string> arguments;  // Of the configuration.
  std::map<std::string, std::string> environment;
  Inheritance inheritance;
  std::vector<std::string>
      keeper_argv;  // How to start a keeper for this daemon; see KeeperLinkOptions.
};

// "0.1.0".
const char* Version();

// Runs the daemon. Returns the exit code of the process.
int RunDaemon(DaemonOptions options);

}  // namespace statehouse
