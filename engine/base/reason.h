// The catalogue of error reasons: why an operation was refused. The same numbers as
// statehouse.v1.ErrorReason (proto/statehouse/v1/error.proto) and the C library's sh_reason; a test
// of the service compares the three.
#pragma once

#include <cstdint>
#include <string_view>

namespace statehouse {

enum class Reason : uint16_t {
  kOk = 0,
  kInvalidArgument = 1,
  kOutOfBounds = 2,
  kNameInvalid = 3,
  kAreaNotFound = 4,
  kAreaExists = 5,
  kWidthInvalid = 6,
  kSizeInvalid = 7,
  kLimitExceeded = 8,
  kMemoryExhausted = 9,
  kUnauthenticated = 10,
  kTokenExpired = 11,
  kPermissionDenied = 12,
  kReadOnly = 13,
  kStalled = 14,
  kTimeout = 15,
  kUnavailable = 16,
  kDraining = 17,
  kDataLoss = 18,
  kVersionMismatch = 19,
  kClientClosed = 20,
  kClientForked = 21,
  kBackingInvalid = 22,
  kLanesExhausted = 23,
  kUnimplemented = 24,
  kInternal = 25,
  kMessageTooLarge = 26,
  kRateLimited = 27,
  kValueOutOfRange = 28,
  kCancelled = 29,
  kConfigInvalid = 30,
  kDictNotFound = 31,
  kDictExists = 32,
  kKeyNotFound = 33,
  kConflict = 34,
  kFenced = 35,
  kPathNotFound = 36,
  kTypeMismatch = 37,
  kKeyInvalid = 38,
  kValueInvalid = 39,
  kDictMoved = 40,
  kLockLost = 41,
  kSessionNotFound = 42,
};

inline constexpr uint16_t kReasonCount = 43;  // One past the last reason.

// "OUT_OF_BOUNDS" for kOutOfBounds, and so on: the proto value's name without its prefix.
std::string_view ReasonName(Reason reason);

// Whether the same call may succeed later without a change.
bool ReasonIsRetryable(Reason reason);

}  // namespace statehouse
