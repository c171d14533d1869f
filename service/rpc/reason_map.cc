#include "service/rpc/reason_map.h"

#include <string>

#include "service/api/error_detail.h"
#include "statehouse/internal/v1/rpc_status.pb.h"

namespace statehouse {
namespace {

// A message travels twice, once within base64, and all trailers must fit 8 KiB.
constexpr size_t kMessageTextBytesMax = 1024;

}  // namespace

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
  FillErrorDetail(status, name, &detail);
  internal::v1::RpcStatus rpc;
  rpc.set_code(static_cast<int>(code));
  rpc.set_message(PresentableText(status.message(), kMessageTextBytesMax));
  rpc.add_details()->PackFrom(detail);
  return grpc::Status(code, rpc.message(), rpc.SerializeAsString());
}

}  // namespace statehouse
