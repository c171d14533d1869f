#include "clients/cli/terminal_text.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>

#include "engine/value/wire.h"

namespace statehouse::cli {
namespace {

constexpr size_t kCharacterBytesMax = 4;

// How many bytes the first character has; 0 where it is no UTF-8.
size_t CharacterBytes(std::string_view text) {
  for (size_t bytes = 1; bytes <= std::min(kCharacterBytesMax, text.size()); ++bytes) {
    if (internal::IsUtf8(text.substr(0, bytes))) return bytes;
  }
  return 0;
}

void AppendCode(std::string* out, const char* format, unsigned code) {
  char escaped[8];
  std::snprintf(escaped, sizeof escaped, format, code);
  *out += escaped;
}

}  // namespace

std::string Visible(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t bytes = CharacterBytes(text);
    const auto first = static_cast<uint8_t>(text.front());
    const unsigned code = bytes == 2 ? (first & 0x1fu) << 6 | (text[1] & 0x3fu) : first;
    if (bytes == 0) {
      AppendCode(&out, "\\x%02x", first);
    } else if (bytes <= 2 && (code < 0x20 || (code >= 0x7f && code <= 0x9f))) {
      AppendCode(&out, "\\u%04x", code);
    } else {
      out += text.substr(0, bytes);
    }
    text.remove_prefix(std::max<size_t>(bytes, 1));
  }
  return out;
}

std::string_view CutAtCharacter(std::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  // What would be cut off first must begin a character.
  while (bytes_max > 0 && (static_cast<uint8_t>(text[bytes_max]) & 0xc0) == 0x80) --bytes_max;
  return text.substr(0, bytes_max);
}

}  // namespace statehouse::cli
