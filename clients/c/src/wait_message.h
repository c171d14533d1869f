// The request and the response of Areas/WaitArea as bytes, without the protobuf library: the local
// door must not need it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "engine/state/area.h"

namespace statehouse {

// A serialized WaitAreaRequest for the whole area.
std::string EncodeWaitAreaRequest(std::string_view name, uint64_t since, uint64_t timeout_ns);

// What a serialized WaitAreaResponse says, or INTERNAL where it is malformed.
StatusOr<WaitResult> DecodeWaitAreaResponse(std::string_view bytes);

}  // namespace statehouse
