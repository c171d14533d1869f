#include "engine/base/reason.h"

namespace statehouse {

std::string_view ReasonName(Reason reason) {
  switch (reason) {
    case Reason::kOk: return "OK";
    case Reason::kInvalidArgument: return "INVALID_ARGUMENT";
    case Reason::kOutOfBounds: return "OUT_OF_BOUNDS";
    case Reason::kNameInvalid: return "NAME_INVALID";
    case Reason::kAreaNotFound: return "AREA_NOT_FOUND";
    case Reason::kAreaExists: return "AREA_EXISTS";
    case Reason::kWidthInvalid: return "WIDTH_INVALID";
    case Reason::kSizeInvalid: return "SIZE_INVALID";
    case Reason::kLimitExceeded: return "LIMIT_EXCEEDED";
    case Reason::kMemoryExhausted: return "MEMORY_EXHAUSTED";
    case Reason::kUnauthenticated: return "UNAUTHENTICATED";
    case Reason::kTokenExpired: return "TOKEN_EXPIRED";
    case Reason::kPermissionDenied: return "PERMISSION_DENIED";
    case Reason::kReadOnly: return "READ_ONLY";
    case Reason::kStalled: return "STALLED";
    case Reason::kTimeout: return "TIMEOUT";
    case Reason::kUnavailable: return "UNAVAILABLE";
    case Reason::kDraining: return "DRAINING";
    case Reason::kDataLoss: return "DATA_LOSS";
    case Reason::kVersionMismatch: return "VERSION_MISMATCH";
    case Reason::kClientClosed: return "CLIENT_CLOSED";
    case Reason::kClientForked: return "CLIENT_FORKED";
    case Reason::kBackingInvalid: return "BACKING_INVALID";
    case Reason::kLanesExhausted: return "LANES_EXHAUSTED";
    case Reason::kUnimplemented: return "UNIMPLEMENTED";
    case Reason::kInternal: return "INTERNAL";
    case Reason::kMessageTooLarge: return "MESSAGE_TOO_LARGE";
    case Reason::kRateLimited: return "RATE_LIMITED";
    case Reason::kValueOutOfRange: return "VALUE_OUT_OF_RANGE";
    case Reason::kCancelled: return "CANCELLED";
    case Reason::kConfigInvalid: return "CONFIG_INVALID";
    case Reason::kDictNotFound: return "DICT_NOT_FOUND";
    case Reason::kDictExists: return "DICT_EXISTS";
    case Reason::kKeyNotFound: return "KEY_NOT_FOUND";
    case Reason::kConflict: return "CONFLICT";
    case Reason::kFenced: return "FENCED";
    case Reason::kPathNotFound: return "PATH_NOT_FOUND";
    case Reason::kTypeMismatch: return "TYPE_MISMATCH";
    case Reason::kKeyInvalid: return "KEY_INVALID";
    case Reason::kValueInvalid: return "VALUE_INVALID";
    case Reason::kDictMoved: return "DICT_MOVED";
    case Reason::kLockLost: return "LOCK_LOST";
    case Reason::kSessionNotFound: return "SESSION_NOT_FOUND";
  }
  return "UNKNOWN";
}

bool ReasonIsRetryable(Reason reason) {
  switch (reason) {
    case Reason::kStalled:
    case Reason::kUnavailable:
    case Reason::kDraining:
    case Reason::kLanesExhausted:
    case Reason::kRateLimited:
    case Reason::kDictMoved: return true;
    default: return false;
  }
}

}  // namespace statehouse
