// Servers that a benchmark starts for itself, and their folders.
#pragma once

#include <string>
#include <vector>

namespace statehouse::bench {

// The variable by which a service's threads may have a larger share of the processors than others:
// "false" unless it is set, so that contenders have the same.
inline constexpr char kRaisePriority[] = "STATEHOUSED_NETWORK__RAISE_PRIORITY";

// A folder in memory, below $TMPDIR or else /dev/shm, that is removed with everything in it: no
// contender writes to a disk.
class BenchFolder final {
 public:
  BenchFolder();
  ~BenchFolder();
  BenchFolder(const BenchFolder&) = delete;
  BenchFolder& operator=(const BenchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A process that was started by its path. It ends with the object, or with the benchmark's process
// however that ends.
class BenchProcess final {
 public:
  explicit BenchProcess(const std::vector<std::string>& command);
  ~BenchProcess();
  BenchProcess(const BenchProcess&) = delete;
  BenchProcess& operator=(const BenchProcess&) = delete;
  // Whether it still runs.
  bool alive();
  int pid() const { return pid_; }

 private:
  int pid_ = -1;
};

// A connected unix socket, tried for some seconds while `process` lives; -1 when nobody listens.
int ConnectTo(const std::string& path, BenchProcess* process);

// Sends `request` on a connection of its own and returns all that comes back; empty on failure.
std::string AskOnce(const std::string& path, BenchProcess* process, const std::string& request);

}  // namespace statehouse::bench
