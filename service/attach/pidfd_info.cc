#include "service/attach/pidfd_info.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <string>
#include <string_view>

#include "engine/os/unique_fd.h"

namespace statehouse {

// The kernel tells it in /proc/self/fdinfo as the line "Pid:\t4711", which descriptors of other
// kinds do not have.
std::optional<int32_t> PidOfPidfd(int fd) {
  const std::string path = "/proc/self/fdinfo/" + std::to_string(fd);
  UniqueFd info(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!info.valid()) return std::nullopt;
  std::array<char, 1024> buffer;
  const ssize_t bytes = read(info.get(), buffer.data(), buffer.size());
  if (bytes <= 0) return std::nullopt;
  const std::string_view text(buffer.data(), static_cast<size_t>(bytes));
  constexpr std::string_view kLabel = "\nPid:\t";
  const size_t at = text.find(kLabel);
  if (at == std::string_view::npos) return std::nullopt;
  int32_t pid = 0;
  const auto [end, error] =
      std::from_chars(text.data() + at + kLabel.size(), text.data() + text.size(), pid);
  if (error != std::errc()) return std::nullopt;
  return pid;
}

std::optional<uint64_t> ProcessKeyOf(int fd) {
  constexpr auto kPidfsMagic = 0x50494446;  // linux/magic.h of 6.9.
  struct statfs file_system {};
  struct stat facts {};
  if (fstatfs(fd, &file_system) == 0 && file_system.f_type == kPidfsMagic &&
      fstat(fd, &facts) == 0) {
    return facts.st_ino;  // Never used again for another process.
  }
  const std::optional<int32_t> pid = PidOfPidfd(fd);
  if (!pid.has_value() || *pid <= 0) return std::nullopt;
  return static_cast<uint64_t>(*pid);
}

}  // namespace statehouse
