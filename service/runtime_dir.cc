#include "service/runtime_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "engine/os/errno_status.h"

namespace statehouse {
namespace {

constexpr const char* kLockName = "/statehoused.lock";
// Everything that the service makes in its folder, apart from the tokens file.
constexpr const char* kFileNames[] = {"/attach.sock", "/grpc.sock", "/endpoints.json", "/dev.json"};

Status CheckFolder(const std::string& path) {
  struct stat facts {};
  if (lstat(path.c_str(), &facts) != 0) return ErrnoStatus("looking at the runtime folder " + path);
  const auto refuse = [&path](const std::string& what) {
    return Status(Reason::kConfigInvalid, "the runtime folder " + path + " " + what);
  };
  if (S_ISLNK(facts.st_mode))
    return refuse("is a symbolic link; name the folder itself with --runtime-dir");
  if (!S_ISDIR(facts.st_mode))
    return refuse("is not a folder; name another one with --runtime-dir");
  if (facts.st_uid != geteuid()) {
    return refuse("belongs to user " + std::to_string(facts.st_uid) +
                  ", and this service runs as user " + std::to_string(geteuid()) +
                  "; name another one with --runtime-dir");
  }
  if ((facts.st_mode & 0022) != 0)
    return refuse("can be written by others; run: chmod go-w " + path);
  return Status();
}

// Whether `fd` is still the file that `path` names: its last owner may have removed it meanwhile.
bool IsFileAt(int fd, const std::string& path) {
  struct stat opened {};
  struct stat named {};
  return fstat(fd, &opened) == 0 && stat(path.c_str(), &named) == 0 &&
         opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

std::string HolderOf(int fd) {
  std::array<char, 32> text{};
  const ssize_t bytes = pread(fd, text.data(), text.size() - 1, 0);
  std::string pid(text.data(), bytes > 0 ? static_cast<size_t>(bytes) : 0);
  pid.erase(pid.find_last_not_of('\n') + 1);
  return pid.empty() ? "another statehoused" : "another statehoused (process " + pid + ")";
}

StatusOr<UniqueFd> TakeLock(const std::string& folder) {
  const std::string path = folder + kLockName;
  for (;;) {
    UniqueFd lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!lock.valid()) return ErrnoStatus("opening the lock " + path, Reason::kConfigInvalid);
    if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return ErrnoStatus("locking " + path);
      return Status(Reason::kUnavailable,
                    HolderOf(lock.get()) + " serves " + folder +
                        "; stop it, or name another folder with --runtime-dir");
    }
    if (IsFileAt(lock.get(), path)) return lock;
  }
}

}  // namespace

StatusOr<RuntimeDir> RuntimeDir::Open(const std::string& path, UniqueFd inherited_lock) {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (!parent.empty()) std::filesystem::create_directories(parent, error);
  if (error) {
    return Status(Reason::kConfigInvalid,
                  "making the folder " + parent.string() + " failed: " + error.message());
  }
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus("making the runtime folder " + path, Reason::kConfigInvalid);
  }
  SH_RETURN_IF_ERROR(CheckFolder(path));
  const bool inherited = inherited_lock.valid() && IsFileAt(inherited_lock.get(), path + kLockName);
  if (!inherited) {
    SH_ASSIGN_OR_RETURN(inherited_lock, TakeLock(path));
  }
  const std::string pid = std::to_string(getpid()) + "\n";
  if (ftruncate(inherited_lock.get(), 0) != 0 ||
      pwrite(inherited_lock.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return ErrnoStatus("writing the lock of " + path);
  }
  return RuntimeDir(path, std::move(inherited_lock));
}

bool RuntimeDir::was_left_behind() const {
  return access((path_ + "/endpoints.json").c_str(), F_OK) == 0;
}

Status RuntimeDir::WriteFile(const std::string& name, const std::string& text) const {
  const std::string path = path_ + "/" + name;
  const std::string draft = path + ".new";
  UniqueFd file(open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) return ErrnoStatus("making " + draft);
  if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return ErrnoStatus("writing " + draft);
  }
  if (rename(draft.c_str(), path.c_str()) != 0)
    return ErrnoStatus("renaming " + draft + " to " + path);
  return Status();
}

Status RuntimeDir::RemoveFiles() const {
  Status first;
  const auto remove = [&first](const std::string& path) {
    if (unlink(path.c_str()) != 0 && errno != ENOENT && first.ok())
      first = ErrnoStatus("removing " + path);
  };
  for (const char* name : kFileNames) remove(path_ + name);
  remove(path_ + kLockName);  // Last: until then nobody else starts here.
  return first;
}

}  // namespace statehouse
