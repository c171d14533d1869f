// Keeper: the small process that holds every descriptor of the service and starts the daemon again
// when it dies.
//
// Who owns it: main(). Threads: one; nothing else runs in this process.
// Always true: what a daemon stored is passed to every later daemon, until it is removed or the
// service ends. Failure: a daemon that dies by a signal or with an unexpected code is replaced at
// once, and after repeated quick deaths with
//   growing pauses. A daemon that ends with 0, that was told to stop, or that cannot start at all
//   ends the keeper with its code. When the keeper itself is killed, the daemon starts a new one
//   (KeeperLink) and stores everything again. Only when that daemon is killed too, before it has
//   done so, the state is lost: the new keeper says so and ends with kExitStateLost, because a
//   daemon over a part of the memory would serve a part of the state.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse {

inline constexpr size_t kKeeperDescriptorsMax = 16'384;
inline constexpr size_t kInheritedDescriptorsMax = 64;  // That a user passes to the service.

// How long to wait before the next daemon. The first death after a good run costs nothing, and
// neither does one that says nothing about the daemon: it served, and somebody killed it with
// SIGKILL.
class RespawnBackoff final {
 public:
  struct Death {
    uint64_t ran_ms = 0;  // How long the daemon that just died had run.
    bool was_killed_while_serving = false;
  };
  uint64_t DelayMsAfter(Death death);

 private:
  static constexpr uint64_t kGoodRunMs = 5'000;
  static constexpr uint64_t kFirstDelayMs = 100;
  static constexpr uint64_t kLastDelayMs = 5'000;
  uint32_t quick_deaths_ = 0;
};

// A daemon that runs already, and lost its keeper.
struct AdoptedDaemon {
  pid_t pid = 0;
  UniqueFd pidfd;
  UniqueFd keeper_end;  // Of the socket pair to it.
  UniqueFd daemon_end;
};

struct KeeperOptions {
  std::string program = "/proc/self/exe";
  std::vector<std::string> daemon_argv;         // With argv[0].
  std::map<std::string, UniqueFd> descriptors;  // Stored from the start.
  std::string notify_socket;  // A service manager above us; READY and STOPPING are passed on.
  AdoptedDaemon adopted;      // pid 0: start one.
};

// Runs until the service has ended. Returns the exit code of the process.
int RunKeeper(KeeperOptions options);

// The descriptors of a daemon that starts its next keeper (KeeperLink): the socket pair at 3
// (keeper) and 4 (daemon), the daemon's pidfd at 5. Closes all others.
StatusOr<AdoptedDaemon> TakeAdoptedDaemon(pid_t pid);

// Every descriptor from 3 up that this process was started with, as "config-fd.<number>". More than
// kInheritedDescriptorsMax is an error. REQUIRES: nothing of ours is open yet.
StatusOr<std::map<std::string, UniqueFd>> TakeUserDescriptors();

}  // namespace statehouse
