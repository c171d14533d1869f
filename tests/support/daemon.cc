#include "tests/support/daemon.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "engine/os/errno_status.h"
#include "engine/os/futex.h"
#include "engine/os/unique_fd.h"
#include "service/auth/token_file.h"
#include "tests/support/attach_client.h"

namespace statehouse::testing {
namespace {

constexpr uint64_t kLookIntervalNs = 3'000'000;

std::string ReadWhole(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The value of "name": "…" or "name": 123 in one of the service's own small JSON files.
std::string JsonValue(const std::string& json, const std::string& name) {
  const size_t at = json.find("\"" + name + "\": ");
  if (at == std::string::npos) return "";
  size_t begin = at + name.size() + 4;
  while (begin < json.size() && (json[begin] == '[' || json[begin] == '"')) ++begin;
  const size_t end = json.find_first_of("\",]}", begin);
  return json.substr(begin, end - begin);
}

pid_t PidValue(const std::string& json, const std::string& name) {
  return static_cast<pid_t>(atoi(JsonValue(json, name).c_str()));
}

// Parent of each process, from /proc.
std::map<pid_t, pid_t> Parents() {
  std::map<pid_t, pid_t> parents;
  DIR* listing = opendir("/proc");
  if (listing == nullptr) return parents;
  while (const dirent* entry = readdir(listing)) {
    const pid_t pid = static_cast<pid_t>(atoi(entry->d_name));
    if (pid <= 0) continue;
    const std::string stat = ReadWhole(std::string("/proc/") + entry->d_name + "/stat");
    const size_t after_name = stat.rfind(')');
    if (after_name == std::string::npos) continue;
    char state = 0;
    int parent = 0;
    if (sscanf(stat.c_str() + after_name + 1, " %c %d", &state, &parent) == 2)
      parents[pid] = parent;
  }
  closedir(listing);
  return parents;
}

std::vector<pid_t> Descendants() {
  const std::map<pid_t, pid_t> parents = Parents();
  std::vector<pid_t> found;
  for (const auto& [pid, parent] : parents) {
    pid_t ancestor = parent;
    while (ancestor > 1 && ancestor != getpid()) {
      const auto next = parents.find(ancestor);
      ancestor = next == parents.end() ? 0 : next->second;
    }
    if (ancestor == getpid()) found.push_back(pid);
  }
  return found;
}

// In the forked child. Does not return.
[[noreturn]] void Exec(const std::vector<std::string>& arguments,
                       const std::vector<std::string>& environment, int errors, int output,
                       bool pass_descriptors) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);  // A test that crashes leaves nothing running.
  if (dup2(errors, STDERR_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0) _exit(126);
  for (const std::string& entry : environment) putenv(const_cast<char*>(entry.c_str()));
  if (!pass_descriptors && syscall(SYS_close_range, 3, ~0u, 0) != 0) _exit(126);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  _exit(127);
}

// stdout and stderr go to <folder>/output and <folder>/errors.
StatusOr<pid_t> Spawn(const std::vector<std::string>& arguments, const DaemonOptions& options,
                      const std::string& folder) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
  UniqueFd errors(open((folder + "/errors").c_str(), kFlags, 0600));
  UniqueFd output(open((folder + "/output").c_str(), kFlags, 0600));
  if (!errors.valid() || !output.valid()) return ErrnoStatus("making files in " + folder);
  std::vector<std::string> environment = options.environment;
  if (options.dev) environment.push_back("TMPDIR=" + folder);
  const pid_t pid = fork();
  if (pid < 0) return ErrnoStatus("starting statehoused");
  if (pid == 0) Exec(arguments, environment, errors.get(), output.get(), options.pass_descriptors);
  return pid;
}

std::vector<std::string> ArgumentsFor(const DaemonOptions& options, const std::string& runtime_dir,
                                      const std::string& tokens_file) {
  if (options.dev) return {STATEHOUSED_PATH, "--dev"};
  std::vector<std::string> arguments = {
      STATEHOUSED_PATH, "--runtime-dir", runtime_dir,   "--tokens-file",  tokens_file, "--listen",
      "127.0.0.1:0",    "--http-listen", "127.0.0.1:0", "--drain-linger", "0"};  // Nobody balances
                                                                                 // load over it.
  arguments.insert(arguments.end(), options.arguments.begin(), options.arguments.end());
  return arguments;
}

}  // namespace

bool Eventually(const std::function<bool()>& holds) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    SleepNs(kLookIntervalNs);
  }
  return true;
}

TemporaryFolder::TemporaryFolder() {
  const char* base = getenv("TMPDIR");
  path_ = std::string(base != nullptr ? base : "/tmp") + "/statehouse-test-XXXXXX";
  if (mkdtemp(path_.data()) == nullptr) abort();
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
  if (error) fprintf(stderr, "removing %s failed: %s\n", path_.c_str(), error.message().c_str());
}

bool StopProcess(pid_t pid) {
  if (kill(pid, SIGSTOP) != 0) return false;
  return Eventually([pid] {
    std::error_code error;
    const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks, error)) {
      const std::string stat = ReadWhole(task.path() / "stat");
      const size_t after_name = stat.rfind(") ");
      if (after_name == std::string::npos || stat[after_name + 2] != 'T') return false;
    }
    return !error;
  });
}

int WaitForExit(pid_t pid) {
  int state = 0;
  while (waitpid(pid, &state, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return WIFSIGNALED(state) ? 128 + WTERMSIG(state) : WEXITSTATUS(state);
}

StatusOr<std::unique_ptr<Daemon>> Daemon::Start(DaemonOptions options) {
  std::unique_ptr<Daemon> daemon(new Daemon());
  daemon->runtime_dir_ =
      options.runtime_dir.empty() ? daemon->folder_.path() + "/run" : options.runtime_dir;
  TokenSpec spec;
  spec.description = "test";
  for (const std::string& grant : options.grants) {
    SH_ASSIGN_OR_RETURN(Grant parsed, ParseGrant(grant));
    spec.grants.push_back(std::move(parsed));
  }
  SH_ASSIGN_OR_RETURN(daemon->token_, CreateToken(daemon->tokens_file(), spec));
  const auto arguments = ArgumentsFor(options, daemon->runtime_dir_, daemon->tokens_file());
  SH_ASSIGN_OR_RETURN(daemon->started_, Spawn(arguments, options, daemon->folder_.path()));
  daemon->running_ = true;
  if (options.dev) SH_RETURN_IF_ERROR(daemon->FindDevFolder());
  SH_RETURN_IF_ERROR(daemon->WaitUntilServing(0));
  return daemon;
}

StatusOr<Daemon::Ending> Daemon::RunToEnd(const DaemonOptions& options) {
  TemporaryFolder folder;
  const std::string runtime_dir =
      options.runtime_dir.empty() ? folder.path() + "/run" : options.runtime_dir;
  const auto arguments = ArgumentsFor(options, runtime_dir, folder.path() + "/tokens.toml");
  SH_ASSIGN_OR_RETURN(const pid_t pid, Spawn(arguments, options, folder.path()));
  Ending ending;
  ending.code = WaitForExit(pid);
  ending.errors = ReadWhole(folder.path() + "/errors");
  return ending;
}

Status Daemon::FindDevFolder() {
  const bool found = Eventually([&] {
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      token_ = JsonValue(ReadWhole(entry.path() / "dev.json"), "token");
      if (!token_.empty()) runtime_dir_ = entry.path();
      if (!token_.empty()) return true;
    }
    return false;
  });
  if (found) return Status();
  return Status(Reason::kUnavailable, "no dev.json came; statehoused wrote:\n" + errors());
}

Daemon::~Daemon() {
  if (running_) Stop();
}

std::string Daemon::EndpointsText() const { return ReadWhole(runtime_dir_ + "/endpoints.json"); }
pid_t Daemon::keeper_pid() const { return PidValue(EndpointsText(), "keeper_pid"); }
pid_t Daemon::daemon_pid() const { return PidValue(EndpointsText(), "daemon_pid"); }
std::string Daemon::tcp_address() const { return JsonValue(EndpointsText(), "listen"); }
std::string Daemon::http_address() const { return JsonValue(EndpointsText(), "http"); }
std::string Daemon::output() const { return ReadWhole(folder_.path() + "/output"); }
std::string Daemon::errors() const { return ReadWhole(folder_.path() + "/errors"); }

Status Daemon::WaitUntilServing(pid_t not_this_daemon) {
  std::optional<int> ended;
  const bool serving = Eventually([&] {
    int state = 0;
    if (started_ != 0 && waitpid(started_, &state, WNOHANG) == started_) {
      started_ = 0;
      ended = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    }
    if (ended.has_value()) return true;
    const pid_t pid = daemon_pid();
    if (pid == 0 || pid == not_this_daemon) return false;
    AttachClient client;
    return client.Connect(attach_socket()).ok() && client.Hello(token_, false).ok();
  });
  if (ended.has_value()) {
    return Status(Reason::kUnavailable,
                  "statehoused ended with " + std::to_string(*ended) + "; it wrote:\n" + errors());
  }
  if (serving) return Status();
  return Status(Reason::kUnavailable, "statehoused does not serve; it wrote:\n" + errors());
}

Status Daemon::KillDaemonAndWait() {
  const pid_t victim = daemon_pid();
  if (victim <= 1 || kill(victim, SIGKILL) != 0) return ErrnoStatus("killing the daemon");
  return WaitUntilServing(victim);
}

Status Daemon::KillKeeperAndWait() {
  const pid_t victim = keeper_pid();
  if (victim <= 1 || kill(victim, SIGKILL) != 0) return ErrnoStatus("killing the keeper");
  // Only the keeper that we started is our child; a later one is its daemon's, which waits for it.
  if (victim == started_) WaitForExit(std::exchange(started_, 0));
  const bool replaced = Eventually([&] { return keeper_pid() != victim && keeper_pid() != 0; });
  if (!replaced)
    return Status(Reason::kUnavailable, "no new keeper; the service wrote:\n" + errors());
  return Status();
}

int Daemon::Stop() {
  running_ = false;
  const pid_t keeper = keeper_pid();
  const pid_t target = started_ != 0 ? started_ : keeper;
  if (target > 1) kill(target, SIGTERM);
  int code = -1;
  if (started_ != 0) code = WaitForExit(std::exchange(started_, 0));
  // Orphans have come to us: they end by themselves now.
  const bool ended = Eventually([] {
    while (waitpid(-1, nullptr, WNOHANG) > 0) continue;
    return !HasDescendants();
  });
  if (!ended) KillDescendants();
  return code;
}

bool HasDescendants() { return !Descendants().empty(); }

int KillDescendants() {
  int killed = 0;
  for (std::vector<pid_t> left = Descendants(); !left.empty(); left = Descendants()) {
    for (const pid_t pid : left) killed += kill(pid, SIGKILL) == 0 ? 1 : 0;
    while (waitpid(-1, nullptr, 0) > 0) continue;
  }
  return killed;
}

std::string Daemon::HttpGet(const std::string& path, const std::string& method) const {
  const std::string address = http_address();
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return "";
  sockaddr_in target{};
  target.sin_family = AF_INET;
  target.sin_port = htons(static_cast<uint16_t>(atoi(address.c_str() + colon + 1)));
  target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&target), sizeof(target)) != 0) return "";
  const std::string request =
      method + " " + path + " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
  if (send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size()))
    return "";
  std::string answer;
  char buffer[4096];
  for (ssize_t bytes; (bytes = read(fd.get(), buffer, sizeof(buffer))) > 0;) {
    answer.append(buffer, static_cast<size_t>(bytes));
  }
  return answer;
}

}  // namespace statehouse::testing
