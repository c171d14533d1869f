// One line of an export: a JSON object {"key": …, "value": …, "ttl_ms": …, "fence": …}.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/base/status.h"

namespace statehouse::cli {

inline constexpr size_t kImportLineBytesMax = 8 << 20;

struct ImportLine {
  std::string key;
  std::string value;               // The wire form of a value.
  std::optional<uint64_t> ttl_ms;  // Absent: as `for_ever` says.
  bool for_ever = false;           // "ttl_ms": null. Else, without one, the dict's default.
  uint64_t fence = 0;              // 0, or absent: none.
};

// INVALID_ARGUMENT says what is wrong with it; VALUE_INVALID and KEY_INVALID as the service would.
Status ParseImportLine(std::string_view text, ImportLine* line);

// The line for an entry, without its end. `value` is the wire form.
Status FormatImportLine(const ImportLine& line, std::string* text);

}  // namespace statehouse::cli
