// statehoused: one program, two processes. Started by a user it becomes the keeper, which starts
// the daemon from this same file.
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "service/command_line.h"
#include "service/exit_codes.h"
#include "service/keeper/inheritance.h"
#include "service/keeper/keeper.h"
#include "service/server.h"
#include "service/server_parts.h"

namespace statehouse {
namespace {

int Fail(const Status& failure, int code) {
  fprintf(stderr, "statehoused: %s\n", failure.message().c_str());
  return code;
}

// Descriptors that the user passed, and what a service manager passed.
StatusOr<Inheritance> TakeEverything() {
  SH_ASSIGN_OR_RETURN(Inheritance inheritance, TakeInheritance());
  SH_ASSIGN_OR_RETURN(auto from_user, TakeUserDescriptors());
  inheritance.descriptors.merge(from_user);
  return inheritance;
}

int StartAsDaemon(const std::string& program, const CommandLine& line) {
  prctl(PR_SET_NAME, "statehoused");
  auto inheritance = line.started_by_keeper ? TakeInheritance() : TakeEverything();
  if (!inheritance.ok()) return Fail(inheritance.status(), kExitSystem);
  DaemonOptions options;
  options.arguments = line.settings;
  options.environment = EnvironmentMap();
  options.inheritance = *std::move(inheritance);
  options.keeper_argv = NextKeeperArguments(program, line, getpid());
  return RunDaemon(std::move(options));
}

int StartAsKeeper(const std::string& program, const CommandLine& line) {
  auto inheritance = TakeEverything();
  if (!inheritance.ok()) return Fail(inheritance.status(), kExitSystem);
  if (const Status raised = RaiseDescriptorLimit(); !raised.ok()) return Fail(raised, kExitSystem);
  KeeperOptions options;
  options.daemon_argv = DaemonArguments(program, line);
  options.descriptors = std::move(inheritance->descriptors);
  options.notify_socket = std::move(inheritance->notify_socket);
  return RunKeeper(std::move(options));
}

// Started by a daemon whose keeper died: KeeperLink has put the three descriptors at 3, 4 and 5.
int StartAsNextKeeper(const std::string& program, const CommandLine& line) {
  if (const Status raised = RaiseDescriptorLimit(); !raised.ok()) return Fail(raised, kExitSystem);
  KeeperOptions options;
  options.daemon_argv = DaemonArguments(program, line);
  StatusOr<AdoptedDaemon> adopted = TakeAdoptedDaemon(line.adopted_daemon);
  if (!adopted.ok()) return Fail(adopted.status(), kExitSystem);
  options.adopted = *std::move(adopted);
  return RunKeeper(std::move(options));
}

}  // namespace
}  // namespace statehouse

int main(int argc, char** argv) {
  using namespace statehouse;
  const std::string program = argc > 0 ? argv[0] : "statehoused";
  const StatusOr<CommandLine> line = ParseCommandLine({argv + (argc > 0 ? 1 : 0), argv + argc});
  if (!line.ok()) return Fail(line.status(), kExitUsage);
  switch (line->role) {
    case Role::kPrint: return RunPrintCommand(*line);
    case Role::kDaemon: return StartAsDaemon(program, *line);
    case Role::kNextKeeper: return StartAsNextKeeper(program, *line);
    case Role::kKeeper: return StartAsKeeper(program, *line);
  }
  return kExitInternal;
}
