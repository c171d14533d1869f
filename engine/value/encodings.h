// The texts that JSON uses for what JSON has no words for: base64 for bytes, decimal and hex for
// integers of any size, RFC 3339 for timestamps. Internal to engine/value.
#pragma once

#include <string>
#include <string_view>

#include "engine/value/value.h"

namespace statehouse::internal {

// RFC 4648 with padding, nothing else.
void AppendBase64(std::string* out, std::string_view bytes);
bool ReadBase64(std::string_view text, std::string* bytes);

// Between big-endian two's complement and "-123": in both directions with the square of the length,
// so the callers limit it. The text is an optional '-' and digits.
void AppendDecimal(std::string* out, std::string_view bytes);
std::string BytesOfDecimal(std::string_view text);

// The same for "-0x7f", in proportion to the length.
void AppendHex(std::string* out, std::string_view bytes);
bool ReadHex(std::string_view text, std::string* bytes);

// "2024-02-29T23:59:59.5Z"; an offset such as +01:00 is understood. Years 1 to 9999.
void AppendTimestamp(std::string* out, const TimestampValue& timestamp);
bool ReadTimestampText(std::string_view text, TimestampValue* timestamp);

}  // namespace statehouse::internal
