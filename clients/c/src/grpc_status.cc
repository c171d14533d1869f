#include "clients/c/src/grpc_status.h"

#include <google/protobuf/io/coded_stream.h>

#include "statehouse/v1/error.pb.h"

namespace statehouse {
namespace {

using google::protobuf::io::CodedInputStream;

// Calls `take(bytes)` for each length-delimited field `field` of a serialized message.
template <typename Take>
void ForEachBytesField(const std::string& message, uint32_t field, const Take& take) {
  CodedInputStream in(reinterpret_cast<const uint8_t*>(message.data()),
                      static_cast<int>(message.size()));
  for (uint32_t tag = in.ReadTag(); tag != 0; tag = in.ReadTag()) {
    uint64_t number = 0;
    uint32_t length = 0;
    std::string bytes;
    switch (tag & 7) {
      case 0:
        if (!in.ReadVarint64(&number)) return;
        break;
      case 2:
        if (!in.ReadVarint32(&length) || !in.ReadString(&bytes, static_cast<int>(length))) return;
        if (tag >> 3 == field) take(bytes);
        break;
      default: return;
    }
  }
}

// The ErrorDetail inside the google.rpc.Status that a refused call carries. False where there is
// none.
bool FindErrorDetail(const std::string& rpc_status, v1::ErrorDetail* detail) {
  bool found = false;
  ForEachBytesField(rpc_status, 3, [&](const std::string& any) {
    ForEachBytesField(any, 2, [&](const std::string& value) {
      found = found || (detail->ParseFromString(value) && detail->reason() > 0 &&
                        detail->reason() < kReasonCount);
    });
  });
  return found;
}

// For failures that come from gRPC itself and not from the service.
Reason ReasonOfCode(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::CANCELLED: return Reason::kCancelled;
    case grpc::StatusCode::DEADLINE_EXCEEDED: return Reason::kTimeout;
    case grpc::StatusCode::UNAUTHENTICATED: return Reason::kUnauthenticated;
    case grpc::StatusCode::PERMISSION_DENIED: return Reason::kPermissionDenied;
    case grpc::StatusCode::UNIMPLEMENTED: return Reason::kUnimplemented;
    case grpc::StatusCode::RESOURCE_EXHAUSTED: return Reason::kMessageTooLarge;
    case grpc::StatusCode::UNAVAILABLE: return Reason::kUnavailable;
    case grpc::StatusCode::INVALID_ARGUMENT: return Reason::kInvalidArgument;
    default: return Reason::kInternal;
  }
}

}  // namespace

Status FromGrpc(const grpc::Status& status, const std::string& method, const std::string& target) {
  v1::ErrorDetail detail;
  if (FindErrorDetail(status.error_details(), &detail)) {
    return Status(static_cast<Reason>(detail.reason()), status.error_message())
        .WithRetryAfter(detail.retry_after_ms());
  }
  std::string message = method + " at " + target + ": " + status.error_message();
  // What refuses a message for its size may be this side, about an answer.
  if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
    message.append("; the call may have been carried out");
  }
  return Status(ReasonOfCode(status.error_code()), message);
}

}  // namespace statehouse
