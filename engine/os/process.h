// Processes by descriptor.
#pragma once

#include <cstdint>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse {

// A descriptor that becomes readable when every thread of process `pid` has ended.
StatusOr<UniqueFd> OpenPidfd(int pid);

// Whether the process behind `pidfd` has ended. False for a descriptor that is no pidfd.
bool ProcessHasEnded(int pidfd);

// Has the kernel let the calling thread run for short times, and in return sooner after it was
// woken beside threads that always run. Kernels before 6.12 ignore it, and whoever is not scheduled
// by the default policy is left alone. Errors: INTERNAL (the kernel refuses).
Status AskForShortSlices();
inline constexpr uint64_t kShortSliceNs = 100'000;  // The shortest that there is.

}  // namespace statehouse
