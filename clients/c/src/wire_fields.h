// The few parts of protobuf's wire format that control calls of the local door need: it must not
// need the protobuf library.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace statehouse {

void AppendVarintField(uint32_t field, uint64_t number, std::string* out);
void AppendBytesField(uint32_t field, std::string_view bytes, std::string* out);

// Takes one field off the front. For a varint *field is its number and *number its value; any other
// kind is skipped and *field is 0. False for bytes that are malformed.
bool TakeVarintField(std::string_view* bytes, uint64_t* field, uint64_t* number);

}  // namespace statehouse
