#include "clients/cli/held_command.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>

#include "clients/cli/connection.h"
#include "clients/cli/exit_codes.h"

namespace statehouse::cli {
namespace {

using std::chrono::steady_clock;

constexpr std::array kForwarded = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
// What comes through the pipe: the number of a signal, with kHadAlready where the terminal gave it
// to the command, too; or kLost.
constexpr unsigned char kHadAlready = 0x80;
constexpr unsigned char kLost = 0xff;

std::atomic<int> told_by{-1};  // Where the handler writes.

void OnSignal(int number, siginfo_t* info, void*) {
  const int error = errno;
  auto byte = static_cast<unsigned char>(number);
  // A key of the terminal reaches everything in the foreground.
  if (info != nullptr && info->si_code == SI_KERNEL) byte |= kHadAlready;
  (void)!write(told_by.load(), &byte, 1);
  errno = error;
}

// Takes the signals from when it is made to its end.
class SignalWatch final {
 public:
  explicit SignalWatch(int write_end) {
    told_by = write_end;
    Take(SIGCHLD);
    for (const int number : kForwarded) Take(number);
  }
  ~SignalWatch() {
    for (const auto& [number, before] : before_) sigaction(number, &before, nullptr);
  }
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

 private:
  void Take(int number) {
    struct sigaction before {};
    sigaction(number, nullptr, &before);
    // What was ignored stays so, here and in the command: nohup, and jobs in the background.
    if (before.sa_handler == SIG_IGN && number != SIGCHLD) return;
    struct sigaction action {};
    action.sa_sigaction = OnSignal;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigaction(number, &action, nullptr);
    before_.emplace_back(number, before);
  }
  std::vector<std::pair<int, struct sigaction>> before_;
};

std::vector<char*> Pointers(std::vector<std::string>* texts) {
  std::vector<char*> pointers;
  for (std::string& text : *texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> EnvironmentWith(
    const std::vector<std::pair<std::string, std::string>>& added) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    bool replaced = false;
    for (const auto& [name, value] : added) replaced |= text.rfind(name + "=", 0) == 0;
    if (!replaced) all.push_back(text);
  }
  for (const auto& [name, value] : added) all.push_back(name + "=" + value);
  return all;
}

// The child. Throws Failed.
pid_t Start(std::vector<std::string> command, std::vector<std::string> environment) {
  const std::vector<char*> argv = Pointers(&command);
  const std::vector<char*> envp = Pointers(&environment);
  std::array<int, 2> failure{};
  if (pipe2(failure.data(), O_CLOEXEC) != 0) throw Failed{kExitError, "no pipe can be made"};
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) {
    // The lock passes on when this process is killed. The command must not go on without it.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(128 + SIGKILL);
    execvpe(argv[0], argv.data(), envp.data());
    const int error = errno;
    (void)!write(failure[1], &error, sizeof error);
    _exit(127);
  }
  close(failure[1]);
  int error = child < 0 ? errno : 0;
  ssize_t got = 0;
  while (child > 0 && (got = read(failure[0], &error, sizeof error)) < 0 && errno == EINTR) {
  }
  close(failure[0]);
  if (child > 0 && got <= 0) return child;
  if (child > 0) waitpid(child, nullptr, 0);
  throw Failed{error == ENOENT ? 127 : 126,
               "\"" + command[0] + "\" cannot be started: " + std::strerror(error)};
}

// The exit code once it has ended.
std::optional<int> EndOf(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, WNOHANG) != child) return std::nullopt;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

HeldCommand::HeldCommand() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    throw Failed{kExitError, "no pipe can be made"};
  }
  read_end_ = ends[0];
  write_end_ = ends[1];
}

HeldCommand::~HeldCommand() {
  close(read_end_);
  close(write_end_);
}

void HeldCommand::TellLost() { (void)!write(write_end_, &kLost, 1); }

int HeldCommand::Run(const std::vector<std::string>& command,
                     const std::vector<std::pair<std::string, std::string>>& environment,
                     std::chrono::milliseconds kill_after) {
  const SignalWatch watch(write_end_);
  return WaitForEnd(Start(command, EnvironmentWith(environment)), kill_after);
}

int HeldCommand::WaitForEnd(int child, std::chrono::milliseconds kill_after) {
  constexpr auto kNever = steady_clock::time_point::max();
  steady_clock::time_point kill_at = kNever;
  for (;;) {
    if (const std::optional<int> code = EndOf(child)) return *code;
    int timeout_ms = -1;
    if (kill_at != kNever) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(kill_at - steady_clock::now());
      // Below an hour, so that it fits.
      timeout_ms = static_cast<int>(std::clamp<int64_t>(left.count(), 0, 3'600'000));
    }
    pollfd events{read_end_, POLLIN, 0};
    poll(&events, 1, timeout_ms);
    std::array<unsigned char, 64> bytes{};
    const ssize_t got = read(read_end_, bytes.data(), bytes.size());
    for (ssize_t i = 0; i < got; ++i) {
      const unsigned char byte = bytes[static_cast<size_t>(i)];
      if (byte == kLost) {
        lost_ = true;
        kill_at = steady_clock::now() + kill_after;
        kill(child, SIGTERM);
        kill(child, SIGCONT);  // A stopped one hears nothing.
        continue;
      }
      const int number = byte & ~kHadAlready;
      if (number == SIGCHLD) continue;
      told_to_end_ = true;
      if ((byte & kHadAlready) == 0) kill(child, number);
    }
    if (steady_clock::now() >= kill_at) {
      kill(child, SIGKILL);
      kill_at = kNever;
    }
  }
}

}  // namespace statehouse::cli
