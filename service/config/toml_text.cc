#include "service/config/toml_text.h"

#include <cstdio>

namespace statehouse {

std::string QuoteToml(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted.append(1, '\\').append(1, c);
    } else if (byte < 0x20 || byte == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\u%04X", byte);
      quoted.append(escape);
    } else {
      quoted.append(1, c);
    }
  }
  return quoted.append("\"");
}

}  // namespace statehouse
