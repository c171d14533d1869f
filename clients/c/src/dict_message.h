// The few messages of dict.proto that LocalDict sends and reads, without the protobuf library.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/status.h"

namespace statehouse {

// A request with nothing but the dict's name: ClearDictRequest.
std::string EncodeDictName(std::string_view name);
// A request with the dict's name and a key: GetEntryRequest.
std::string EncodeEntryName(std::string_view name, std::string_view key);

// How many entries there were, or INTERNAL for a malformed answer.
StatusOr<uint64_t> DecodeClearDictResponse(std::string_view bytes);

}  // namespace statehouse
