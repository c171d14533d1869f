// What the process tells its caller. The same table stands in `statehouse --help`.
#pragma once

#include <statehouse/statehouse.h>

namespace statehouse::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitConflict = 4;
inline constexpr int kExitLock = 5;
inline constexpr int kExitUnavailable = 6;
inline constexpr int kExitAuth = 7;

inline int ExitCodeOf(sh_reason reason) {
  switch (reason) {
    case SH_OK: return kExitOk;
    case SH_AREA_NOT_FOUND:
    case SH_DICT_NOT_FOUND:
    case SH_KEY_NOT_FOUND:
    case SH_SESSION_NOT_FOUND:
    case SH_PATH_NOT_FOUND: return kExitNotFound;
    case SH_AREA_EXISTS:
    case SH_DICT_EXISTS:
    case SH_CONFLICT:
    case SH_FENCED: return kExitConflict;
    case SH_LOCK_LOST: return kExitLock;
    case SH_UNAVAILABLE:
    case SH_TIMEOUT:
    case SH_DRAINING:
    case SH_STALLED:
    case SH_DICT_MOVED:
    case SH_RATE_LIMITED: return kExitUnavailable;
    case SH_UNAUTHENTICATED:
    case SH_TOKEN_EXPIRED:
    case SH_PERMISSION_DENIED:
    case SH_READ_ONLY: return kExitAuth;
    default: return kExitError;
  }
}

}  // namespace statehouse::cli
