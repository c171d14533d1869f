#include "service/keeper/keeper_link.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <utility>

#include "engine/os/errno_status.h"
#include "engine/os/process.h"
#include "service/keeper/descriptor_message.h"
#include "service/keeper/notify.h"
#include "service/keeper/notify_address.h"
#include "service/log.h"

extern char** environ;

namespace statehouse {
namespace {

constexpr Reason kGone = Reason::kUnavailable;  // The one that a new keeper cures.
constexpr std::chrono::milliseconds kBusyPauseMin{1};
constexpr std::chrono::milliseconds kBusyPauseMax{50};
constexpr int kGoneGraceMs = 500;
constexpr int kConfirmTimeoutMs = 10'000;
constexpr auto kReplacementTimeout = std::chrono::seconds(10);
constexpr int kReplacementRetryMs = 200;
constexpr size_t kStoresPerConfirmation = 64;  // Descriptors in flight are limited for each user.

Status Gone() { return Status(kGone, "the keeper is gone"); }

StatusOr<UniqueFd> Copy(int fd, const std::string& name) {
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return ErrnoStatus("copying the descriptor of \"" + name + "\"");
  return copy;
}

// posix_spawn's attributes and file actions, freed on every path.
struct SpawnPlan {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  SpawnPlan() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
};

// Starts a keeper with the three descriptors that AdoptFromCommandLine takes at 3, 4 and 5.
StatusOr<pid_t> SpawnKeeper(const KeeperLinkOptions& options, const UniqueFd (&inherited)[3]) {
  SpawnPlan plan;
  // Out of the way of 3 … 5 first, or one dup2 could overwrite the source of the next.
  UniqueFd moved[3];
  for (int i = 0; i < 3; ++i) {
    moved[i].Reset(fcntl(inherited[i].get(), F_DUPFD_CLOEXEC, kFirstInheritedFd + 3));
    if (!moved[i].valid()) return ErrnoStatus("preparing descriptors for a keeper");
    if (posix_spawn_file_actions_adddup2(&plan.actions, moved[i].get(), kFirstInheritedFd + i) !=
        0) {
      return ErrnoStatus("preparing to start a keeper");
    }
  }
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&plan.attributes, &none);
  posix_spawnattr_setsigdefault(&plan.attributes, &all);
  posix_spawnattr_setflags(&plan.attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<std::string> arguments = options.keeper_argv;
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, options.program.c_str(), &plan.actions, &plan.attributes,
                                argv.data(), environ);
  if (error != 0)
    return ErrnoStatus("starting a keeper from " + options.program, Reason::kInternal, error);
  return pid;
}

}  // namespace

KeeperLink::KeeperLink(KeeperLinkOptions options, Kind kind)
    : options_(std::move(options)), kind_(kind) {}

StatusOr<std::unique_ptr<KeeperLink>> KeeperLink::Connect(KeeperLinkOptions options,
                                                          Inheritance* inheritance) {
  Kind kind = Kind::kNone;
  UniqueFd socket;
  if (inheritance->keeper_socket.valid()) {
    kind = Kind::kKeeper;
    socket = std::move(inheritance->keeper_socket);
  } else if (!inheritance->notify_socket.empty()) {
    kind = Kind::kServiceManager;
    SH_ASSIGN_OR_RETURN(socket, ConnectNotifyAddress(inheritance->notify_socket));
  }
  std::unique_ptr<KeeperLink> link(new KeeperLink(std::move(options), kind));
  link->socket_ = std::move(socket);
  if (kind == Kind::kKeeper) link->keeper_pid_ = getppid();
  for (const auto& [name, fd] : inheritance->descriptors) {
    SH_ASSIGN_OR_RETURN(link->stored_[name], Copy(fd.get(), name));
  }
  return link;
}

KeeperLink::~KeeperLink() { StopWatching(); }

void KeeperLink::StopWatching() {
  if (!watcher_.joinable()) return;
  const uint64_t one = 1;
  if (write(stop_event_.get(), &one, sizeof(one)) != sizeof(one))
    spdlog::error("stopping the watcher of the keeper failed: {}", std::strerror(errno));
  watcher_.join();
}

Status KeeperLink::SendLocked(const std::string& text, int fd) {
  using Clock = std::chrono::steady_clock;
  const std::span<const int> descriptors =
      fd >= 0 ? std::span<const int>(&fd, 1) : std::span<const int>();
  const auto give_up_at = Clock::now() + options_.send_timeout;
  std::chrono::milliseconds pause = kBusyPauseMin;
  for (;;) {
    const SendResult result = SendMessage(socket_.get(), text, descriptors);
    const int error = errno;
    if (result == SendResult::kSent) return Status();
    if (result == SendResult::kClosed) return Gone();
    if (result == SendResult::kFailed) return ErrnoStatus("sending to the keeper", kGone, error);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(give_up_at - Clock::now());
    if (left.count() <= 0 && result == SendResult::kBusy) {
      return Status(Reason::kLimitExceeded,
                    std::string("the kernel passes no descriptor to the keeper: ") +
                        std::strerror(error) +
                        "; processes of this user leave descriptors unread in unix sockets; end "
                        "them, or raise the limit of open files (LimitNOFILE, ulimit -n)");
    }
    if (left.count() <= 0) return Status(kGone, "the keeper does not read");
    // Nothing announces the end of a shortage, but the keeper's death ends the wait.
    pollfd watched{socket_.get(), static_cast<short>(result == SendResult::kFull ? POLLOUT : 0), 0};
    const auto wait = result == SendResult::kFull ? left : std::min(pause, left);
    poll(&watched, 1, static_cast<int>(wait.count()));
    if ((watched.revents & (POLLHUP | POLLERR)) != 0) return Gone();
    pause = std::min(pause * 2, kBusyPauseMax);
  }
}

Status KeeperLink::ConfirmLocked() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus("making a pipe for the keeper's answer");
  UniqueFd answer(ends[0]);
  UniqueFd barrier(ends[1]);
  SH_RETURN_IF_ERROR(SendLocked("BARRIER=1", barrier.get()));
  barrier.Reset();
  pollfd watched[2] = {{answer.get(), POLLIN, 0},
                       {kind_ == Kind::kKeeper ? socket_.get() : -1, 0, 0}};  // 0: hang-up only.
  for (;;) {
    const int ready = poll(watched, 2, kConfirmTimeoutMs);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return Status(kGone, "the keeper did not answer in time");
    break;
  }
  if (watched[0].revents == 0) return Gone();
  return ReadAnswerLocked(answer.get());
}

Status KeeperLink::ReadAnswerLocked(int answer) {
  char said = 0;
  const ssize_t bytes = read(answer, &said, 1);
  if (bytes == 1 && said == kBarrierKept) return Status();
  if (bytes == 0) {
    if (kind_ == Kind::kServiceManager) return Status();  // systemd just closes it.
    // The pipe also ends when the keeper dies, a moment before or after its socket does.
    pollfd gone{socket_.get(), 0, 0};
    if (poll(&gone, 1, kGoneGraceMs) > 0) return Gone();
  }
  return Status(Reason::kMemoryExhausted,
                "the keeper could not keep a descriptor; raise the limit of open files "
                "(LimitNOFILE, ulimit -n)");
}

Status KeeperLink::SendAndConfirmLocked(const std::string& text, int fd) {
  SH_RETURN_IF_ERROR(SendLocked(text, fd));
  return ConfirmLocked();
}

Status KeeperLink::Store(const std::string& name, int fd) {
  if (kind_ == Kind::kNone) return Status();
  if (!IsDescriptorName(name))
    return Status(Reason::kInvalidArgument, "\"" + name + "\" cannot name a descriptor");
  SH_ASSIGN_OR_RETURN(UniqueFd copy, Copy(fd, name));
  std::unique_lock<std::mutex> lock(mutex_);
  // systemd keeps two descriptors of one name side by side.
  if (kind_ == Kind::kServiceManager && stored_.count(name) != 0) {
    SH_RETURN_IF_ERROR(SendAndConfirmLocked(RemoveText(name), -1));
  }
  UniqueFd& slot = stored_[name];
  slot = std::move(copy);
  const uint64_t generation = keeper_generation_;
  Status stored = SendAndConfirmLocked(StoreText(name), slot.get());
  if (stored.ok()) return stored;
  const bool replaced = kind_ == Kind::kKeeper && stored.reason() == Reason::kUnavailable &&
                        !stopping_ && replaced_.wait_for(lock, kReplacementTimeout, [&] {
                          return keeper_generation_ != generation;
                        });
  if (replaced) return Status();  // The new keeper got everything, this one included.
  stored_.erase(name);
  return Status(stored.reason(),
                "keeping \"" + name + "\" for the next daemon failed: " + stored.message());
}

Status KeeperLink::Remove(const std::string& name) {
  if (kind_ == Kind::kNone) return Status();
  std::lock_guard<std::mutex> lock(mutex_);
  if (stored_.erase(name) == 0) return Status();
  // A keeper that has gone takes the entry with it, and the next one never hears of it.
  const Status sent = SendLocked(RemoveText(name), -1);
  if (!sent.ok() && kind_ == Kind::kServiceManager) {
    return Status(sent.reason(), "the service manager did not take the removal of \"" + name +
                                     "\": " + sent.message());
  }
  return Status();
}

Status KeeperLink::NotifyReady() {
  if (kind_ == Kind::kNone) return Status();
  std::lock_guard<std::mutex> lock(mutex_);
  ready_ = true;
  const Status sent = SendLocked("READY=1", -1);
  if (!sent.ok() && kind_ == Kind::kServiceManager) {
    return Status(sent.reason(), "the service manager did not take READY=1: " + sent.message());
  }
  return Status();
}

void KeeperLink::NotifyStopping() {
  if (kind_ == Kind::kNone) return;
  std::lock_guard<std::mutex> lock(mutex_);
  stopping_ = true;
  const Status sent = SendLocked("STOPPING=1", -1);
  if (!sent.ok()) spdlog::warn("keeper: nobody took STOPPING=1: {}", sent.message());
}

void KeeperLink::NotifyExit(int code) {
  if (kind_ == Kind::kNone) return;
  std::lock_guard<std::mutex> lock(mutex_);
  const Status sent = SendLocked("EXIT_STATUS=" + std::to_string(code), -1);
  if (!sent.ok()) spdlog::warn("keeper: nobody took EXIT_STATUS: {}", sent.message());
}

Status KeeperLink::Watch(std::function<void()> on_new_keeper) {
  if (kind_ != Kind::kKeeper) return Status();
  stop_event_.Reset(eventfd(0, EFD_CLOEXEC));
  if (!stop_event_.valid()) return ErrnoStatus("making an eventfd");
  on_new_keeper_ = std::move(on_new_keeper);
  watcher_ = std::thread([this] { WatchLoop(); });
  return Status();
}

void KeeperLink::WatchLoop() {
  for (int timeout_ms = -1;;) {
    int socket = -1;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      socket = socket_.get();  // Only this thread replaces it.
    }
    pollfd watched[2] = {{stop_event_.get(), POLLIN, 0}, {timeout_ms < 0 ? socket : -1, 0, 0}};
    if (poll(watched, 2, timeout_ms) < 0 && errno != EINTR) {
      spdlog::error("watching the keeper failed: {}", std::strerror(errno));
      return;
    }
    if (watched[0].revents != 0) return;
    if (timeout_ms < 0 && (watched[1].revents & (POLLHUP | POLLERR)) == 0) continue;
    std::unique_lock<std::mutex> lock(mutex_);
    if (stopping_) return;
    spdlog::warn("keeper: the keeper is gone; starting a new one");
    const Status started = ReplaceKeeperLocked();
    if (!started.ok()) spdlog::error("keeper: {}; trying again", started.ToString());
    timeout_ms = started.ok() ? -1 : kReplacementRetryMs;
    lock.unlock();
    replaced_.notify_all();
    if (started.ok() && on_new_keeper_) on_new_keeper_();
  }
}

Status KeeperLink::ReplaceKeeperLocked() {
  if (keeper_is_child_) {
    keeper_is_child_ = false;
    // It is ending, or it did not take the memory in time. Either way it must not act any more; no
    // zombie stays.
    kill(keeper_pid_, SIGKILL);
    waitpid(keeper_pid_, nullptr, 0);
  }
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoStatus("making the socket pair between keeper and daemon");
  }
  UniqueFd inherited[3] = {UniqueFd(ends[0]), UniqueFd(ends[1]), UniqueFd()};
  SH_ASSIGN_OR_RETURN(inherited[2], OpenPidfd(getpid()));
  SH_ASSIGN_OR_RETURN(const pid_t pid, SpawnKeeper(options_, inherited));
  keeper_pid_ = pid;
  keeper_is_child_ = true;
  socket_ = std::move(inherited[1]);
  inherited[0].Reset();  // Else this process would keep the socket open after the keeper's death.
  SH_RETURN_IF_ERROR(StoreAllLocked());
  ++keeper_generation_;
  return Status();
}

Status KeeperLink::StoreAllLocked() {
  size_t unconfirmed = 0;
  for (const auto& [name, fd] : stored_) {
    SH_RETURN_IF_ERROR(SendLocked(StoreText(name), fd.get()));
    if (++unconfirmed < kStoresPerConfirmation) continue;
    unconfirmed = 0;
    SH_RETURN_IF_ERROR(ConfirmLocked());
  }
  SH_RETURN_IF_ERROR(ConfirmLocked());
  // Until here the new keeper must not start another daemon: it would serve a part of the state.
  SH_RETURN_IF_ERROR(SendAndConfirmLocked(CompleteText(), -1));
  return ready_ ? SendLocked("READY=1", -1) : Status();
}

}  // namespace statehouse
