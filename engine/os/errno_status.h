// Turns errno into a Status that says what was tried.
#pragma once

#include <cerrno>
#include <cstring>
#include <string>

#include "engine/base/status.h"

namespace statehouse {

// ENOMEM, ENOSPC and the like are MEMORY_EXHAUSTED, the rest is `otherwise`. `what` reads "mapping
// area "x"".
inline Status ErrnoStatus(const std::string& what, Reason otherwise = Reason::kInternal,
                          int error = errno) {
  const bool memory =
      error == ENOMEM || error == ENOSPC || error == EDQUOT || error == EMFILE || error == ENFILE;
  return Status(memory ? Reason::kMemoryExhausted : otherwise,
                what + " failed: " + std::strerror(error));
}

}  // namespace statehouse
