#include "tests/bench/peer_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "engine/os/futex.h"

namespace statehouse::bench {
namespace {

constexpr uint64_t kLookNs = 5'000'000;
constexpr int kLooksMax = 2000;

constexpr char kFolderBegin[] = "statehouse-bench-";

// A bench that was killed has left its folder.
void RemoveFoldersOfTheDead(const std::string& base) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(base, ignored)) {
    const std::string name = entry.path().filename();
    if (name.rfind(kFolderBegin, 0) != 0) continue;
    char* end = nullptr;
    const long pid = std::strtol(name.c_str() + sizeof(kFolderBegin) - 1, &end, 10);
    if (pid <= 0 || *end != '-') continue;
    if (kill(static_cast<pid_t>(pid), 0) == 0 || errno != ESRCH) continue;
    std::filesystem::remove_all(entry.path(), ignored);
  }
}

}  // namespace

BenchFolder::BenchFolder() {
  const char* const named = std::getenv("TMPDIR");
  const std::string base = named != nullptr ? named : "/dev/shm";
  RemoveFoldersOfTheDead(base);
  path_ = base + "/" + kFolderBegin + std::to_string(getpid()) + "-XXXXXX";
  if (mkdtemp(path_.data()) == nullptr) {
    std::perror("bench: making a folder");
    std::exit(2);
  }
}

BenchFolder::~BenchFolder() {
  std::error_code ignored;  // What is left is the system's to remove.
  std::filesystem::remove_all(path_, ignored);
}

BenchProcess::BenchProcess(const std::vector<std::string>& command) {
  setenv(kRaisePriority, "false", 0);
  std::vector<char*> arguments;
  for (const std::string& argument : command) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  const int nothing = open("/dev/null", O_RDWR);
  for (const int stream : {0, 1, 2}) dup2(nothing, stream);
  if (getppid() == parent) execv(arguments[0], arguments.data());
  _exit(127);
}

BenchProcess::~BenchProcess() {
  if (pid_ <= 0) return;
  kill(pid_, SIGTERM);
  waitpid(pid_, nullptr, 0);
}

bool BenchProcess::alive() {
  if (pid_ > 0 && waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
  return pid_ > 0;
}

int ConnectTo(const std::string& path, BenchProcess* process) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return -1;
  std::memcpy(address.sun_path, path.c_str(), path.size());
  for (int look = 0; look < kLooksMax; ++look) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return fd;
    close(fd);
    if (process != nullptr && !process->alive()) return -1;
    SleepNs(kLookNs);
  }
  return -1;
}

std::string AskOnce(const std::string& path, BenchProcess* process, const std::string& request) {
  const int fd = ConnectTo(path, process);
  if (fd < 0) return "";
  std::string answer;
  if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) ==
      static_cast<ssize_t>(request.size())) {
    char buffer[4096];
    for (ssize_t got = 0; (got = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
      answer.append(buffer, static_cast<size_t>(got));
    }
  }
  close(fd);
  return answer;
}

}  // namespace statehouse::bench
