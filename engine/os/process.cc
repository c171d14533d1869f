#include "engine/os/process.h"

#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/os/errno_status.h"

namespace statehouse {
namespace {

// What sched_setattr takes; the C library has no name for it.
struct SchedulingAttributes {
  uint32_t size = sizeof(SchedulingAttributes);
  uint32_t policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime_ns = 0;
  uint64_t deadline_ns = 0;
  uint64_t period_ns = 0;
};
static_assert(sizeof(SchedulingAttributes) == 48);

}  // namespace

StatusOr<UniqueFd> OpenPidfd(int pid) {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!fd.valid()) return ErrnoStatus("opening a descriptor of process " + std::to_string(pid));
  return fd;
}

bool ProcessHasEnded(int pidfd) {
  pollfd entry = {pidfd, POLLIN, 0};
  return poll(&entry, 1, 0) == 1 && (entry.revents & POLLIN) != 0;
}

Status AskForShortSlices() {
  SchedulingAttributes attributes;
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0) {
    return ErrnoStatus("reading how this thread is scheduled");
  }
  if (attributes.policy != SCHED_OTHER) return Status();
  attributes.size = sizeof(attributes);
  attributes.runtime_ns = kShortSliceNs;
  if (syscall(SYS_sched_setattr, 0, &attributes, 0) != 0) {
    return ErrnoStatus("asking for short time slices");
  }
  return Status();
}

}  // namespace statehouse
