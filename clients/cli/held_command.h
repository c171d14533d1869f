// HeldCommand: a command that runs for as long as a lock is held.
//
// Who owns it: one `lock` or `elect`. Threads: one, which no other instance has a command running
// on; TellLost from any.
// Always true: while it runs, SIGINT, SIGTERM, SIGHUP and SIGQUIT go to the command, which nobody
// ignored before; when this process is killed, the command is killed, too.
// Failure: Run throws Failed where the command could not be started, with the code of a shell: 127
// when there is none of that name, 126 otherwise.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace statehouse::cli {

class HeldCommand final {
 public:
  HeldCommand();
  ~HeldCommand();
  HeldCommand(const HeldCommand&) = delete;
  HeldCommand& operator=(const HeldCommand&) = delete;

  // Runs it to its end. Its exit code, or 128 + the signal that ended it.
  int Run(const std::vector<std::string>& command,
          const std::vector<std::pair<std::string, std::string>>& environment,
          std::chrono::milliseconds kill_after);
  // The lock is lost: asks the command to end (SIGTERM), and kills it after `kill_after`.
  void TellLost();
  bool lost() const { return lost_; }
  // A signal asked the command to end.
  bool told_to_end() const { return told_to_end_; }

 private:
  int WaitForEnd(int child, std::chrono::milliseconds kill_after);

  int read_end_ = -1;
  int write_end_ = -1;
  bool lost_ = false;
  bool told_to_end_ = false;
};

}  // namespace statehouse::cli
