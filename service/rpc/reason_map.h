// From a Status of ours to what travels over gRPC.
#pragma once

#include <grpcpp/support/status.h>

#include <string_view>

#include "engine/base/reason.h"
#include "engine/base/status.h"

namespace statehouse {

// The code that error.proto gives in brackets.
grpc::StatusCode CodeOf(Reason reason);

// The code, the message, and a google.rpc.Status with one ErrorDetail for
// `grpc-status-details-bin`. `name` is the object's name as the caller sent it.
grpc::Status ToGrpcStatus(const Status& status, std::string_view name);

}  // namespace statehouse
