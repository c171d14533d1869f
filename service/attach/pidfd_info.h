// What a pidfd stands for.
#pragma once

#include <cstdint>
#include <optional>

namespace statehouse {

// The process id behind a pidfd: 0 for a process that this PID namespace cannot see, -1 for one
// that has been reaped. Empty when `fd` is no pidfd.
std::optional<int32_t> PidOfPidfd(int fd);

}  // namespace statehouse
