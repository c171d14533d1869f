#include "engine/os/process.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/os/errno_status.h"

namespace statehouse {

StatusOr<UniqueFd> OpenPidfd(int pid) {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!fd.valid()) return ErrnoStatus("opening a descriptor of process " + std::to_string(pid));
  return fd;
}

bool ProcessHasEnded(int pidfd) {
  pollfd entry = {pidfd, POLLIN, 0};
  return poll(&entry, 1, 0) == 1 && (entry.revents & POLLIN) != 0;
}

}  // namespace statehouse
