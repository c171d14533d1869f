// The messages of Areas/WaitArea and Dicts/WaitEntry as bytes, without the protobuf library: the
// local door must not need it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "engine/state/area.h"
#include "engine/state/entry_wait.h"

namespace statehouse {

// A serialized WaitAreaRequest for the whole area.
std::string EncodeWaitAreaRequest(std::string_view name, uint64_t since, uint64_t timeout_ns);

// A serialized WaitEntryRequest. REQUIRES: CheckEntryWait accepts the wait.
std::string EncodeWaitEntryRequest(std::string_view name, std::string_view key,
                                   const EntryWait& wait, uint64_t timeout_ns);

// What a serialized WaitAreaResponse says, or INTERNAL where it is malformed.
StatusOr<WaitResult> DecodeWaitAreaResponse(std::string_view bytes);

}  // namespace statehouse
