// Bytes as people read them, and back.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace statehouse::cli {

// Lines of 16: offset, hexadecimal, characters. Runs of equal lines are shown as one "*".
std::string HexDump(std::string_view bytes, uint64_t first_offset);

// "48 65 6c" or "48656c" to bytes; nothing where the text is no hexadecimal.
std::optional<std::string> FromHex(std::string_view text);
std::string ToHex(std::string_view bytes);

}  // namespace statehouse::cli
