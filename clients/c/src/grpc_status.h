// From a gRPC status to ours.
#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "engine/base/status.h"

namespace statehouse {

// The reason that the service gave, or, where the failure is gRPC's own, the one that its code
// comes to. REQUIRES: `status` is not OK.
Status FromGrpc(const grpc::Status& status, const std::string& method, const std::string& target);

}  // namespace statehouse
