// Daemon: a real statehoused in a folder of its own, for tests.
//
// Who owns it: the test. Threads: one. Always true: the service listens on free ports and unix
// sockets only; when the object is gone, no process, file or socket of it is left. Failure: Start
// says what the service wrote to stderr.
//
// The test process becomes the reaper of orphans, so that a daemon or keeper that outlives its
// parent is still ours to wait for.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/status.h"

namespace statehouse::testing {

inline constexpr std::chrono::seconds kPatience{
    60};  // Before a test gives up; never an assertion on speed.

// Looks every few milliseconds until `holds` does; false when kPatience has passed.
bool Eventually(const std::function<bool()>& holds);

// A folder below $TMPDIR that is removed with everything in it.
class TemporaryFolder final {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct DaemonOptions {
  std::vector<std::string> arguments;    // After those that the object gives.
  std::vector<std::string> environment;  // "NAME=value", added.
  std::vector<std::string> grants = {"area:*:read,write,create,watch,lock,admin",
                                     "dict:*:read,write,create,watch,lock,admin",
                                     "lock:*:read,lock,admin", "service:*:admin"};
  std::string runtime_dir;        // Empty: one of its own.
  bool dev = false;               // --dev and nothing else; its folder lies in the object's own.
  bool pass_descriptors = false;  // Let descriptors of the test that are not close-on-exec through.
};

// SIGSTOP, and waits until every thread of the process stands still: the signal alone only asks.
bool StopProcess(pid_t pid);

// How a process ended: its code, or 128 + the signal.
int WaitForExit(pid_t pid);

class Daemon final {
 public:
  // Starts the service and waits until it serves.
  static StatusOr<std::unique_ptr<Daemon>> Start(DaemonOptions options = {});
  // Starts it and waits until it has ended. For starts that fail.
  struct Ending {
    int code = 0;
    std::string errors;  // stderr.
  };
  static StatusOr<Ending> RunToEnd(const DaemonOptions& options);
  ~Daemon();

  const std::string& runtime_dir() const { return runtime_dir_; }
  std::string attach_socket() const { return runtime_dir_ + "/attach.sock"; }
  std::string grpc_socket() const { return runtime_dir_ + "/grpc.sock"; }
  std::string tokens_file() const { return folder_.path() + "/tokens.toml"; }
  const std::string& token() const { return token_; }
  // The folder that goes away with the object.
  const std::string& folder() const { return folder_.path(); }
  std::string output() const;  // All of stdout so far.

  // What endpoints.json says now; 0 or empty while it is not there.
  pid_t keeper_pid() const;
  pid_t daemon_pid() const;
  std::string tcp_address() const;  // "127.0.0.1:41234"
  std::string http_address() const;
  std::string errors() const;  // All of stderr so far.
  // GET over HTTP: the whole answer, status line first; empty when it cannot be reached.
  std::string HttpGet(const std::string& path, const std::string& method = "GET") const;

  // SIGKILL to the daemon, and waits until another one serves.
  Status KillDaemonAndWait();
  // SIGKILL to the keeper, and waits until another one holds the memory.
  Status KillKeeperAndWait();
  // SIGTERM to the keeper; waits for every process. The exit code of the keeper that was started.
  int Stop();
  // The test has ended the processes itself.
  void Forget() { started_ = 0, running_ = false; }

 private:
  Daemon() = default;
  Status WaitUntilServing(pid_t not_this_daemon);
  Status FindDevFolder();
  std::string EndpointsText() const;

  TemporaryFolder folder_;
  std::string runtime_dir_;
  std::string token_;
  pid_t started_ = 0;     // The process that we started; 0 once it has been waited for.
  bool running_ = false;  // Stop has still to be called.
};

// Kills and waits for every process below this one. The number that had to be killed.
int KillDescendants();
// Whether any process below this one is left, zombies included.
bool HasDescendants();

}  // namespace statehouse::testing
