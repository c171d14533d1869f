// What a pidfd stands for.
#pragma once

#include <cstdint>
#include <optional>

namespace statehouse {

// The process id behind a pidfd: 0 for a process that this PID namespace cannot see, -1 for one
// that has been reaped. Empty when `fd` is no pidfd.
std::optional<int32_t> PidOfPidfd(int fd);

// Whose pidfd it is: two pidfds have the same key if, and only if, they stand for one process.
// Empty where the kernel cannot tell: before Linux 6.9, for a process of another PID namespace or
// one that has been reaped. REQUIRES: `fd` is a pidfd.
std::optional<uint64_t> ProcessKeyOf(int fd);

}  // namespace statehouse
