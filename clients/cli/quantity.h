// Durations and sizes as people write them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace statehouse::cli {

// "250ms", "10s", "5m", "2h", "7d", or a number of seconds; at least a millisecond. Nothing for any
// other text.
std::optional<uint64_t> ParseMilliseconds(std::string_view text);

// "65536", "64k", "16M", "1G": bytes in powers of 1,024. Nothing for any other text.
std::optional<uint64_t> ParseByteCount(std::string_view text);

// "512 B", "64.0 KiB", "1.5 GiB": for people.
std::string FormatByteCount(uint64_t bytes);

}  // namespace statehouse::cli
