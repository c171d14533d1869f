// Processes by descriptor.
#pragma once

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse {

// A descriptor that becomes readable when every thread of process `pid` has ended.
StatusOr<UniqueFd> OpenPidfd(int pid);

// Whether the process behind `pidfd` has ended. False for a descriptor that is no pidfd.
bool ProcessHasEnded(int pidfd);

}  // namespace statehouse
