#include "service/keeper/keeper.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

#include "engine/os/errno_status.h"
#include "engine/os/futex.h"
#include "service/exit_codes.h"
#include "service/keeper/descriptor_message.h"
#include "service/keeper/inheritance.h"
#include "service/keeper/keeper_log.h"
#include "service/keeper/notify.h"
#include "service/keeper/notify_address.h"

namespace statehouse {
namespace {

uint64_t NowMs() { return MonotonicNs() / 1'000'000; }

// How a daemon ended. `code` and `signal` are unknown (-1, 0) for one that is not our child.
struct Ending {
  int code = -1;
  int signal = 0;
  std::string Text() const {
    if (signal != 0)
      return std::string("died by signal ") + std::to_string(signal) + " (" + strsignal(signal) +
             ")";
    if (code >= 0) return "ended with code " + std::to_string(code);
    return "ended";
  }
};

class Keeper final {
 public:
  explicit Keeper(KeeperOptions options) : options_(std::move(options)) {}
  int Run();

 private:
  Status Prepare();
  Status SpawnDaemon();
  [[noreturn]] void BecomeDaemon();
  int PollTimeoutMs() const;
  void OnSignals();
  void OnMessages();
  void Take(std::span<const char> text, std::vector<UniqueFd> descriptors);
  void Reap();
  void DaemonEnded(Ending ending);
  void SignalDaemon(int signal);
  void TellManager(const std::string& text);

  KeeperOptions options_;
  RespawnBackoff backoff_;
  sigset_t mask_{};
  sigset_t original_mask_{};
  UniqueFd signals_;
  UniqueFd keeper_end_;
  UniqueFd daemon_end_;
  UniqueFd adopted_pidfd_;  // Valid while the daemon is not our child.
  pid_t daemon_ = 0;        // 0: none runs.
  uint64_t started_ms_ = 0;
  uint64_t respawn_at_ms_ = 0;
  bool complete_ = false;      // An adopted daemon has handed everything over.
  bool was_ready_ = false;     // This or an earlier daemon was.
  bool serving_ = false;       // This daemon said that it was ready.
  bool stopping_ = false;      // Told to stop, or the daemon says that it stops on purpose.
  bool store_failed_ = false;  // Told at the next barrier.
  std::optional<int> told_exit_;
  std::optional<int> result_;
};

Status Keeper::Prepare() {
  sigemptyset(&mask_);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&mask_, signal);
  if (sigprocmask(SIG_BLOCK, &mask_, &original_mask_) != 0) return ErrnoStatus("blocking signals");
  // A daemon that dies leaves pipes without a reader, and so may whoever reads our log.
  if (signal(SIGPIPE, SIG_IGN) == SIG_ERR) return ErrnoStatus("ignoring SIGPIPE");
  signals_.Reset(signalfd(-1, &mask_, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_.valid()) return ErrnoStatus("making a signalfd");
  if (options_.adopted.pid != 0) {
    daemon_ = options_.adopted.pid;
    adopted_pidfd_ = std::move(options_.adopted.pidfd);
    keeper_end_ = std::move(options_.adopted.keeper_end);
    daemon_end_ = std::move(options_.adopted.daemon_end);
    started_ms_ = NowMs();
    // The signals that were blocked when the lost keeper started this daemon's line are ours to
    // choose anew.
    sigemptyset(&original_mask_);
    return Status();
  }
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoStatus("making the socket pair between keeper and daemon");
  }
  keeper_end_.Reset(ends[0]);
  daemon_end_.Reset(ends[1]);
  return SpawnDaemon();
}

// In the forked child: turns into the daemon.
void Keeper::BecomeDaemon() {
  setpgid(0, 0);  // A Ctrl-C reaches the keeper alone, which passes it on once.
  signal(SIGPIPE, SIG_DFL);
  sigprocmask(SIG_SETMASK, &original_mask_, nullptr);
  const Status ready = BequeathDescriptors(options_.descriptors, daemon_end_.get());
  if (!ready.ok()) {
    KeeperLog("error", "cannot hand the memory to a new daemon: " + ready.ToString());
    _exit(kExitSystem);
  }
  std::vector<char*> argv;
  for (std::string& argument : options_.daemon_argv) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execv(options_.program.c_str(), argv.data());
  KeeperLog("error", "cannot run " + options_.program + ": " + strerror(errno));
  _exit(kExitSystem);
}

Status Keeper::SpawnDaemon() {
  told_exit_.reset();
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus("starting a daemon");
  if (pid == 0) BecomeDaemon();
  daemon_ = pid;
  started_ms_ = NowMs();
  serving_ = false;
  return Status();
}

int Keeper::PollTimeoutMs() const {
  if (daemon_ != 0) return -1;
  const uint64_t now = NowMs();
  return respawn_at_ms_ <= now ? 0 : static_cast<int>(respawn_at_ms_ - now);
}

int Keeper::Run() {
  const Status prepared = Prepare();
  if (!prepared.ok()) {
    KeeperLog("error", prepared.ToString());
    return kExitSystem;
  }
  while (!result_.has_value()) {
    std::array<pollfd, 3> watched{
        pollfd{signals_.get(), POLLIN, 0}, pollfd{keeper_end_.get(), POLLIN, 0},
        pollfd{adopted_pidfd_.get(), POLLIN, 0}};  // A negative number is skipped.
    if (poll(watched.data(), watched.size(), PollTimeoutMs()) < 0 && errno != EINTR) {
      KeeperLog("error", std::string("poll failed: ") + strerror(errno));
      return kExitInternal;
    }
    OnMessages();
    if (watched[0].revents != 0) OnSignals();
    if (!result_ && watched[2].revents != 0 && adopted_pidfd_.valid()) {
      OnMessages();  // The last words of a daemon count.
      adopted_pidfd_.Reset();
      DaemonEnded(Ending{told_exit_.value_or(-1), 0});
    }
    if (!result_ && daemon_ == 0 && NowMs() >= respawn_at_ms_) {
      const Status spawned = SpawnDaemon();
      if (spawned.ok()) continue;
      const uint64_t delay_ms = backoff_.DelayMsAfter({});
      respawn_at_ms_ = NowMs() + std::max<uint64_t>(delay_ms, 100);
      KeeperLog("error",
                spawned.ToString() + "; trying again in " + std::to_string(delay_ms) + " ms");
    }
  }
  return *result_;
}

void Keeper::OnSignals() {
  signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    const int signal = static_cast<int>(info.ssi_signo);
    if (signal == SIGCHLD) {
      Reap();
      continue;
    }
    if (signal != SIGHUP) {
      stopping_ = true;
      if (daemon_ == 0) result_ = kExitOk;  // It was waiting for its next start.
    }
    SignalDaemon(signal);
  }
}

void Keeper::SignalDaemon(int signal) {
  if (daemon_ == 0) return;
  // Our own child cannot be somebody else before it is reaped; another process is named by its
  // descriptor.
  const long sent = adopted_pidfd_.valid()
                        ? syscall(SYS_pidfd_send_signal, adopted_pidfd_.get(), signal, nullptr, 0)
                        : kill(daemon_, signal);
  if (sent != 0 && errno != ESRCH) {
    KeeperLog("error", "cannot pass signal " + std::to_string(signal) +
                           " to the daemon: " + strerror(errno));
  }
}

void Keeper::Reap() {
  for (;;) {
    int state = 0;
    const pid_t pid = waitpid(-1, &state, WNOHANG);
    if (pid <= 0) return;
    if (pid != daemon_) continue;  // As process 1 we reap whatever comes to us.
    OnMessages();
    Ending ending;
    if (WIFEXITED(state)) ending.code = WEXITSTATUS(state);
    if (WIFSIGNALED(state)) ending.signal = WTERMSIG(state);
    DaemonEnded(ending);
  }
}

void Keeper::DaemonEnded(Ending ending) {
  const pid_t pid = daemon_;
  daemon_ = 0;
  const std::string who = "daemon " + std::to_string(pid) + " " + ending.Text();
  if (ending.code == 0) {
    result_ = kExitOk;
  } else if (stopping_ || told_exit_.has_value()) {
    result_ = ending.signal != 0 ? 128 + ending.signal : (ending.code >= 0 ? ending.code : kExitOk);
  } else if (!complete_ && options_.adopted.pid != 0) {
    KeeperLog("error", who +
                           " before it had handed its memory to this keeper, the last one having "
                           "died too: the state is lost (" +
                           std::to_string(options_.descriptors.size()) +
                           " descriptors came). Start the service again; it begins empty");
    result_ = kExitStateLost;
  } else if (!was_ready_ && IsStartUpFailure(ending.code)) {
    result_ = ending.code;
  }
  if (result_.has_value()) return;
  const uint64_t delay_ms =
      backoff_.DelayMsAfter({.ran_ms = NowMs() - started_ms_,
                             .was_killed_while_serving = serving_ && ending.signal == SIGKILL});
  respawn_at_ms_ = NowMs() + delay_ms;
  KeeperLog("warning", who + "; starting another " +
                           (delay_ms == 0 ? "at once" : "in " + std::to_string(delay_ms) + " ms") +
                           " with " + std::to_string(options_.descriptors.size()) +
                           " kept descriptors");
}

void Keeper::OnMessages() {
  std::array<char, kNotifyBytesMax + 1> buffer;
  for (;;) {
    ReceivedMessage received = ReceiveMessage(keeper_end_.get(), buffer);
    if (received.kind == ReceivedMessage::Kind::kNothing) return;
    if (received.kind != ReceivedMessage::Kind::kMessage) {
      KeeperLog("error", std::string("reading from the daemon failed: ") + strerror(errno));
      return;
    }
    if (received.truncated) {
      const auto lost = ParseNotify(std::string_view(buffer.data(), received.bytes));
      // A barrier without its descriptor cannot be answered, which its sender takes for a failure.
      store_failed_ = !lost.ok() || !lost->barrier;
      KeeperLog("error",
                "a message or its descriptors did not fit; is the limit of open files reached?");
      continue;
    }
    Take(std::span(buffer).first(received.bytes), std::move(received.descriptors));
  }
}

void Keeper::Take(std::span<const char> text, std::vector<UniqueFd> descriptors) {
  StatusOr<NotifyMessage> parsed = ParseNotify(std::string_view(text.data(), text.size()));
  if (!parsed.ok()) {
    store_failed_ = true;
    KeeperLog("error", parsed.status().ToString());
    return;
  }
  const NotifyMessage& message = *parsed;
  if (message.store) {
    const bool fits = options_.descriptors.size() < kKeeperDescriptorsMax ||
                      options_.descriptors.count(message.name) != 0;
    if (descriptors.size() == 1 && fits) {
      options_.descriptors[message.name] = std::move(descriptors[0]);
    } else {
      store_failed_ = true;
      KeeperLog("error", "cannot keep \"" + message.name +
                             "\": " + std::to_string(descriptors.size()) + " descriptors came, " +
                             std::to_string(options_.descriptors.size()) +
                             " are kept, the limit is " + std::to_string(kKeeperDescriptorsMax));
    }
  }
  if (message.remove) options_.descriptors.erase(message.name);
  if (message.barrier && !descriptors.empty()) {
    const char answer = store_failed_ ? kBarrierLost : kBarrierKept;
    if (write(descriptors[0].get(), &answer, 1) != 1)
      KeeperLog("error", std::string("cannot answer the daemon: ") + strerror(errno));
    store_failed_ = false;
  }
  if (message.exit_status) told_exit_ = message.exit_status;
  if (message.stopping) stopping_ = true;
  if (message.complete) complete_ = true;
  if (message.ready) was_ready_ = serving_ = true;
  if (message.ready) TellManager("READY=1\nMAINPID=" + std::to_string(getpid()));
  if (message.stopping) TellManager("STOPPING=1");
}

void Keeper::TellManager(const std::string& text) {
  if (options_.notify_socket.empty()) return;
  StatusOr<UniqueFd> manager = ConnectNotifyAddress(options_.notify_socket);
  if (!manager.ok()) return KeeperLog("warning", manager.status().ToString());
  if (SendMessage(manager->get(), text, {}) != SendResult::kSent) {
    KeeperLog("warning", std::string("telling the service manager failed: ") + strerror(errno));
  }
}

}  // namespace

uint64_t RespawnBackoff::DelayMsAfter(Death death) {
  if (death.was_killed_while_serving) return 0;
  if (death.ran_ms >= kGoodRunMs) quick_deaths_ = 0;
  const uint32_t deaths = quick_deaths_++;
  if (deaths == 0) return 0;
  return std::min(kLastDelayMs, kFirstDelayMs << std::min(deaths - 1, 10u));
}

int RunKeeper(KeeperOptions options) {
  prctl(PR_SET_NAME, "statehoused-kpr");
  return Keeper(std::move(options)).Run();
}

StatusOr<AdoptedDaemon> TakeAdoptedDaemon(pid_t pid) {
  AdoptedDaemon adopted;
  adopted.pid = pid;
  UniqueFd* const slots[] = {&adopted.keeper_end, &adopted.daemon_end, &adopted.pidfd};
  int fd = kFirstInheritedFd;
  for (UniqueFd* slot : slots) {
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
      return ErrnoStatus("taking descriptor " + std::to_string(fd));
    slot->Reset(fd++);
  }
  if (syscall(SYS_close_range, fd, ~0u, 0) != 0)
    return ErrnoStatus("closing what the daemon had open");
  return adopted;
}

StatusOr<std::map<std::string, UniqueFd>> TakeUserDescriptors() {
  std::map<std::string, UniqueFd> taken;
  DIR* listing = opendir("/proc/self/fd");
  if (listing == nullptr) return ErrnoStatus("listing /proc/self/fd");
  std::vector<int> numbers;
  while (const dirent* entry = readdir(listing)) {
    const std::string_view name(entry->d_name);
    int fd = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), fd);
    if (error == std::errc() && end == name.data() + name.size() && fd > STDERR_FILENO &&
        fd != dirfd(listing)) {
      numbers.push_back(fd);
    }
  }
  closedir(listing);
  for (const int fd : numbers) {
    const int flags = fcntl(fd, F_GETFD);
    if (flags < 0 || (flags & FD_CLOEXEC) != 0)
      continue;  // Not inherited: taken by systemd's protocol or ours.
    if (taken.size() >= kInheritedDescriptorsMax) {
      return Status(Reason::kLimitExceeded,
                    "this process was started with more than " +
                        std::to_string(kInheritedDescriptorsMax) +
                        " open descriptors; close those that no [[area]] names");
    }
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
      return ErrnoStatus("taking descriptor " + std::to_string(fd));
    taken["config-fd." + std::to_string(fd)] = UniqueFd(fd);
  }
  return taken;
}

}  // namespace statehouse
