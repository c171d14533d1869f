#include "service/rpc/reason_map.h"

#include <string>

#include "engine/base/limits.h"
#include "service/auth/authenticator.h"
#include "statehouse/internal/v1/rpc_status.pb.h"
#include "statehouse/v1/error.pb.h"

namespace statehouse {
namespace {

// A message travels twice, once within base64, and all trailers must fit 8 KiB.
constexpr size_t kMessageTextBytesMax = 1024;

// Bytes of the character that begins with `first`; 0 where none does.
size_t CharacterBytes(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return 2;
  if (first >= 0xe0 && first <= 0xef) return 3;
  if (first >= 0xf0 && first <= 0xf4) return 4;
  return 0;
}

bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    const size_t bytes = CharacterBytes(first);
    if (bytes == 0 || bytes > text.size() - i) return false;
    for (size_t k = 1; k < bytes; ++k) {
      if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return false;
    }
    const auto second = bytes > 1 ? static_cast<unsigned char>(text[i + 1]) : 0;
    const bool is_overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
    const bool is_outside = (first == 0xed && second > 0x9f) || (first == 0xf4 && second > 0x8f);
    if (is_overlong || is_outside) return false;
    i += bytes;
  }
  return true;
}

}  // namespace

std::string PresentableText(std::string_view text, size_t bytes_max) {
  std::string result(text);
  if (!IsUtf8(text)) {
    for (char& c : result) {
      if ((c & 0x80) != 0) c = '?';
    }
  }
  if (result.size() > bytes_max) {
    size_t end = bytes_max;
    while (end > 0 && (result[end] & 0xc0) == 0x80) --end;
    result.resize(end);
  }
  return result;
}

grpc::StatusCode CodeOf(Reason reason) {
  switch (reason) {
    case Reason::kOk: return grpc::StatusCode::OK;
    case Reason::kInvalidArgument:
    case Reason::kNameInvalid:
    case Reason::kWidthInvalid:
    case Reason::kSizeInvalid:
    case Reason::kKeyInvalid:
    case Reason::kValueInvalid:
    case Reason::kConfigInvalid: return grpc::StatusCode::INVALID_ARGUMENT;
    case Reason::kOutOfBounds:
    case Reason::kValueOutOfRange: return grpc::StatusCode::OUT_OF_RANGE;
    case Reason::kAreaNotFound:
    case Reason::kDictNotFound:
    case Reason::kKeyNotFound:
    case Reason::kSessionNotFound:
    case Reason::kPathNotFound: return grpc::StatusCode::NOT_FOUND;
    case Reason::kConflict: return grpc::StatusCode::ABORTED;
    case Reason::kAreaExists:
    case Reason::kDictExists: return grpc::StatusCode::ALREADY_EXISTS;
    case Reason::kLimitExceeded:
    case Reason::kMemoryExhausted:
    case Reason::kLanesExhausted:
    case Reason::kMessageTooLarge:
    case Reason::kRateLimited: return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case Reason::kUnauthenticated:
    case Reason::kTokenExpired: return grpc::StatusCode::UNAUTHENTICATED;
    case Reason::kPermissionDenied:
    case Reason::kReadOnly: return grpc::StatusCode::PERMISSION_DENIED;
    case Reason::kStalled:
    case Reason::kUnavailable:
    case Reason::kDictMoved:
    case Reason::kDraining: return grpc::StatusCode::UNAVAILABLE;
    case Reason::kTimeout: return grpc::StatusCode::DEADLINE_EXCEEDED;
    case Reason::kDataLoss: return grpc::StatusCode::DATA_LOSS;
    case Reason::kVersionMismatch:
    case Reason::kClientClosed:
    case Reason::kFenced:
    case Reason::kLockLost:
    case Reason::kTypeMismatch:
    case Reason::kClientForked:
    case Reason::kBackingInvalid: return grpc::StatusCode::FAILED_PRECONDITION;
    case Reason::kUnimplemented: return grpc::StatusCode::UNIMPLEMENTED;
    case Reason::kInternal: return grpc::StatusCode::INTERNAL;
    case Reason::kCancelled: return grpc::StatusCode::CANCELLED;
  }
  return grpc::StatusCode::INTERNAL;  // A number that is no Reason.
}

grpc::Status ToGrpcStatus(const Status& status, std::string_view name) {
  if (status.ok()) return grpc::Status::OK;
  const grpc::StatusCode code = CodeOf(status.reason());
  v1::ErrorDetail detail;
  detail.set_reason(static_cast<v1::ErrorReason>(status.reason()));
  detail.set_name(PresentableText(name, kNameBytesMax));
  detail.set_retryable(ReasonIsRetryable(status.reason()));
  if (status.reason() == Reason::kRateLimited) detail.set_retry_after_ms(kRateLimitRetryAfterMs);
  internal::v1::RpcStatus rpc;
  rpc.set_code(static_cast<int>(code));
  rpc.set_message(PresentableText(status.message(), kMessageTextBytesMax));
  rpc.add_details()->PackFrom(detail);
  return grpc::Status(code, rpc.message(), rpc.SerializeAsString());
}

}  // namespace statehouse
