#include "service/keeper/inheritance.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>

#include "engine/os/errno_status.h"

namespace statehouse {
namespace {

constexpr size_t kEnvironmentStringBytesMax =
    64 << 10;  // The kernel's limit is 128 KiB with the name.

// The number in an environment variable, -1 when unset.
StatusOr<long> NumberFrom(const char* variable) {
  const char* text = getenv(variable);
  if (text == nullptr) return -1L;
  const std::string_view view(text);
  long number = 0;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), number);
  if (error != std::errc() || end != view.data() + view.size() || number < 0) {
    return Status(Reason::kConfigInvalid, std::string("environment ") + variable + " is \"" + text +
                                              "\", which is no number; unset it");
  }
  return number;
}

std::string NamesVariable(size_t index) {
  return index == 0 ? "LISTEN_FDNAMES" : "LISTEN_FDNAMES_" + std::to_string(index);
}

std::vector<std::string> NamesFromEnvironment() {
  std::vector<std::string> names;
  for (size_t i = 0;; ++i) {
    const char* text = getenv(NamesVariable(i).c_str());
    if (text == nullptr) break;
    const std::string_view view(text);
    size_t begin = 0;
    while (begin <= view.size()) {
      const size_t end = std::min(view.find(':', begin), view.size());
      names.emplace_back(view.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return names;
}

void ClearVariables() {
  for (size_t i = 0; getenv(NamesVariable(i).c_str()) != nullptr; ++i)
    unsetenv(NamesVariable(i).c_str());
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "STATEHOUSE_KEEPER_FD", "NOTIFY_SOCKET"}) {
    unsetenv(name);
  }
}

Status TakeDescriptors(long count, Inheritance* inheritance) {
  const std::vector<std::string> names = NamesFromEnvironment();
  for (long i = 0; i < count; ++i) {
    const int fd = kFirstInheritedFd + static_cast<int>(i);
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
      return ErrnoStatus("taking descriptor " + std::to_string(fd) +
                         " of LISTEN_FDS=" + std::to_string(count));
    }
    const size_t index = static_cast<size_t>(i);
    const std::string name = index < names.size() ? names[index] : "unknown";
    inheritance->descriptors[name] = UniqueFd(fd);  // Of two with one name the later one counts.
  }
  return Status();
}

}  // namespace

StatusOr<Inheritance> TakeInheritance() {
  Inheritance inheritance;
  SH_ASSIGN_OR_RETURN(const long pid, NumberFrom("LISTEN_PID"));
  SH_ASSIGN_OR_RETURN(const long count, NumberFrom("LISTEN_FDS"));
  SH_ASSIGN_OR_RETURN(const long keeper, NumberFrom("STATEHOUSE_KEEPER_FD"));
  if (const char* notify = getenv("NOTIFY_SOCKET"); notify != nullptr)
    inheritance.notify_socket = notify;
  if (pid == getpid()) {  // Otherwise the variables were meant for an ancestor.
    if (count > 0) SH_RETURN_IF_ERROR(TakeDescriptors(count, &inheritance));
    if (keeper >= 0) {
      const int fd = static_cast<int>(keeper);
      if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) return ErrnoStatus("taking the socket to the keeper");
      inheritance.keeper_socket.Reset(fd);
    }
  }
  ClearVariables();
  return inheritance;
}

std::vector<std::string> JoinNames(const std::vector<std::string>& names, size_t string_bytes_max) {
  std::vector<std::string> joined;
  for (const std::string& name : names) {
    if (joined.empty() || joined.back().size() + 1 + name.size() > string_bytes_max) {
      joined.push_back(name);
    } else {
      joined.back() += ':' + name;
    }
  }
  return joined;
}

Status BequeathDescriptors(const std::map<std::string, UniqueFd>& descriptors, int keeper_socket) {
  std::vector<std::string> names;
  std::vector<int> sources;
  for (const auto& [name, fd] : descriptors) {
    names.push_back(name);
    sources.push_back(fd.get());
  }
  sources.push_back(keeper_socket);
  // First out of the way of the final numbers, then into place; dup2 clears close-on-exec.
  const int above = kFirstInheritedFd + static_cast<int>(sources.size());
  for (int& source : sources) {
    const int moved = fcntl(source, F_DUPFD_CLOEXEC, above);
    if (moved < 0)
      return ErrnoStatus("moving descriptor " + std::to_string(source) + " for the daemon");
    source = moved;
  }
  for (size_t i = 0; i < sources.size(); ++i) {
    const int target = kFirstInheritedFd + static_cast<int>(i);
    if (dup2(sources[i], target) < 0)
      return ErrnoStatus("placing descriptor " + std::to_string(target));
  }
  bool set = setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1) == 0;
  set = set && setenv("LISTEN_FDS", std::to_string(names.size()).c_str(), 1) == 0;
  const int socket_number = kFirstInheritedFd + static_cast<int>(names.size());
  set = set && setenv("STATEHOUSE_KEEPER_FD", std::to_string(socket_number).c_str(), 1) == 0;
  const std::vector<std::string> joined = JoinNames(names, kEnvironmentStringBytesMax);
  for (size_t i = 0; i < joined.size(); ++i) {
    set = set && setenv(NamesVariable(i).c_str(), joined[i].c_str(), 1) == 0;
  }
  if (!set) return ErrnoStatus("setting the environment of the daemon");
  return Status();
}

}  // namespace statehouse
