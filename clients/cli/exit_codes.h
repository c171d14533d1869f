// What the process tells its caller, as `statehouse help exit-codes` says it.
#pragma once

#include <statehouse/statehouse.h>

#include <array>

namespace statehouse::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitConflict = 4;
inline constexpr int kExitLock = 5;
inline constexpr int kExitUnavailable = 6;
inline constexpr int kExitAuth = 7;
inline constexpr int kExitUnhealthy = 8;

struct ExitCode {
  int code;
  const char* meaning;
};
// All of them, in their order; `lock` and `elect` otherwise end with their command's.
inline constexpr std::array<ExitCode, 9> kExitCodes = {{
    {kExitOk, "done"},
    {kExitError, "error that none of the others names"},
    {kExitUsage, "wrong use: an unknown command, option or value"},
    {kExitNotFound, "an area, dict, key, path or session is not there"},
    {kExitConflict, "conflict: it exists, was changed by others, or a newer fence wrote to it"},
    {kExitLock, "a lock was not had in time, or was lost before the command had ended"},
    {kExitUnavailable, "the service is away, draining or too slow; later it may succeed"},
    {kExitAuth, "the access token is missing, wrong, over, or without the grant"},
    {kExitUnhealthy, "`doctor` found a problem"},
}};

inline int ExitCodeOf(sh_reason reason) {
  switch (reason) {
    case SH_OK: return kExitOk;
    // What was given can never be right here.
    case SH_INVALID_ARGUMENT:
    case SH_NAME_INVALID:
    case SH_WIDTH_INVALID:
    case SH_SIZE_INVALID:
    case SH_OUT_OF_BOUNDS:
    case SH_KEY_INVALID:
    case SH_VALUE_INVALID: return kExitUsage;
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
