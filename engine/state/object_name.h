// The names of areas and dicts: one grammar for all of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/base/limits.h"
#include "engine/base/status.h"

namespace statehouse {

constexpr bool IsObjectNameByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("._/:@-").find(c) != std::string_view::npos;
}

// OK, or NAME_INVALID. `what` is "an area" or "a dict".
inline Status CheckObjectName(const char* what, std::string_view name) {
  bool good = !name.empty() && name.size() <= kNameBytesMax;
  for (size_t i = 0; good && i < name.size(); ++i) good = IsObjectNameByte(name[i]);
  if (good) return Status();
  return Status(Reason::kNameInvalid, std::string("creating ") + what + ": its name has " +
                                          std::to_string(name.size()) +
                                          " bytes; 1 to 255 of [A-Za-z0-9._/:@-] are allowed");
}

// The number of "#<index>"; nothing for any other text.
inline std::optional<uint32_t> ParseObjectIndex(std::string_view name) {
  constexpr size_t kTextMax = 11;  // '#' and ten digits.
  if (name.size() < 2 || name.size() > kTextMax || name[0] != '#') return std::nullopt;
  uint64_t index = 0;
  for (const char c : name.substr(1)) {
    if (c < '0' || c > '9') return std::nullopt;
    index = index * 10 + static_cast<uint64_t>(c - '0');
  }
  if (index > UINT32_MAX) return std::nullopt;
  return static_cast<uint32_t>(index);
}

}  // namespace statehouse
