// KeeperLink: the daemon's side of the keeper: where the engine's descriptors outlive this process.
//
// Who owns it: the composition root; it outlives the engine. Threads: every method from any; a
// thread of its own watches the keeper. Always true: once Store has returned OK, the keeper has the
// descriptor, and so has every later keeper. Failure: a keeper that dies is replaced by a new one
// that gets every descriptor again; Store waits for that. Without any
//   keeper (started alone, no service manager) Store succeeds and keeps nothing: `survives_daemon`
//   says so.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/os/unique_fd.h"
#include "engine/state/engine.h"
#include "service/keeper/inheritance.h"

namespace statehouse {

struct KeeperLinkOptions {
  std::string program = "/proc/self/exe";  // What a new keeper runs.
  std::vector<std::string> keeper_argv;    // Its arguments, argv[0] first.
  // How long a message is tried while the socket or the kernel takes none.
  std::chrono::milliseconds send_timeout{5'000};
};

class KeeperLink final : public DescriptorVault {
 public:
  enum class Kind : uint8_t { kNone, kKeeper, kServiceManager };

  // Takes the sockets out of `inheritance` and copies its descriptors, which the keeper holds
  // already.
  static StatusOr<std::unique_ptr<KeeperLink>> Connect(KeeperLinkOptions options,
                                                       Inheritance* inheritance);
  ~KeeperLink() override;

  // Errors: UNAVAILABLE (no keeper took it in time), MEMORY_EXHAUSTED (no descriptor left).
  Status Store(const std::string& name, int fd) override;
  Status Remove(const std::string& name) override;
  // The daemon serves: the first call ends the keeper's readiness to give up on start-up failures.
  Status NotifyReady();
  // The daemon stops on purpose: from now on a keeper that dies is not replaced.
  void NotifyStopping();
  void NotifyExit(int code);

  Kind kind() const { return kind_; }
  bool survives_daemon() const { return kind_ != Kind::kNone; }
  pid_t keeper_pid() const { return keeper_pid_.load(); }  // 0 unless kind() is kKeeper.
  // Begins to watch the keeper; `on_new_keeper` runs on the watching thread after a replacement.
  // Call once.
  Status Watch(std::function<void()> on_new_keeper);
  // Ends it; `on_new_keeper` runs no more. The destructor does so too.
  void StopWatching();

 private:
  KeeperLink(KeeperLinkOptions options, Kind kind);

  // UNAVAILABLE: the keeper is gone, or does not read. LIMIT_EXCEEDED: the kernel takes no more
  // descriptors. REQUIRES: mutex_ held; waits for send_timeout at most.
  Status SendLocked(const std::string& text, int fd);
  Status SendAndConfirmLocked(const std::string& text, int fd);
  Status ConfirmLocked();
  Status ReadAnswerLocked(int answer);
  void WatchLoop();
  Status ReplaceKeeperLocked();
  Status StoreAllLocked();

  const KeeperLinkOptions options_;
  const Kind kind_;
  std::atomic<pid_t> keeper_pid_{0};
  std::function<void()> on_new_keeper_;
  UniqueFd stop_event_;
  std::thread watcher_;

  std::mutex mutex_;  // Everything below.
  std::condition_variable replaced_;
  UniqueFd socket_;
  std::map<std::string, UniqueFd> stored_;  // Our copies, for the next keeper.
  uint64_t keeper_generation_ = 0;          // Grows with every keeper that holds everything.
  bool ready_ = false;
  bool stopping_ = false;
  bool keeper_is_child_ = false;  // Reaped by us.
};

}  // namespace statehouse
