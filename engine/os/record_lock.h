// OFD record locks: one byte of a file, held by an open file description and given up by the kernel
// when the last copy of that description is closed, however its holder ends.
#pragma once

#include <cstdint>

namespace statehouse {

// Takes an exclusive lock on byte `offset` for the description behind `fd`, without waiting. False
// when another holds it.
bool TryLockByte(int fd, uint64_t offset);

// Whether a description other than the one behind `fd` holds byte `offset`.
bool ByteIsLocked(int fd, uint64_t offset);

}  // namespace statehouse
