#include "engine/value/text.h"

#include <cstdint>

#include "engine/value/wire.h"

namespace statehouse::internal {
namespace {

constexpr char kHexDigits[] = "0123456789abcdef";

void AppendEscaped(std::string* out, char c) {
  switch (c) {
    case '"': out->append("\\\""); return;
    case '\\': out->append("\\\\"); return;
    case '\b': out->append("\\b"); return;
    case '\f': out->append("\\f"); return;
    case '\n': out->append("\\n"); return;
    case '\r': out->append("\\r"); return;
    case '\t': out->append("\\t"); return;
    default: break;
  }
  const auto byte = static_cast<unsigned char>(c);
  if (byte >= 0x20 && byte != 0x7f) {
    out->push_back(c);
    return;
  }
  out->append("\\u00");
  out->push_back(kHexDigits[byte >> 4]);
  out->push_back(kHexDigits[byte & 15]);
}

void AppendCharacter(std::string* out, uint32_t code) {
  const auto tail = [&](int shift) {
    out->push_back(static_cast<char>(0x80 | ((code >> shift) & 0x3f)));
  };
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out->push_back(static_cast<char>(0xc0 | code >> 6));
    tail(0);
  } else if (code < 0x10000) {
    out->push_back(static_cast<char>(0xe0 | code >> 12));
    tail(6);
    tail(0);
  } else {
    out->push_back(static_cast<char>(0xf0 | code >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

// The four hex digits behind "\u" at `*at`.
bool ReadCodeUnit(std::string_view text, size_t* at, uint32_t* unit) {
  if (text.size() - *at < 6 || text[*at] != '\\' || text[*at + 1] != 'u') return false;
  uint32_t result = 0;
  for (size_t i = *at + 2; i < *at + 6; ++i) {
    const char c = text[i];
    uint32_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = c - '0';
    } else if (c >= 'a' && c <= 'f') {
      digit = c - 'a' + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = c - 'A' + 10;
    } else {
      return false;
    }
    result = result << 4 | digit;
  }
  *unit = result;
  *at += 6;
  return true;
}

// "\uXXXX", or two of them that make one character.
const char* ReadCharacter(std::string_view text, size_t* at, std::string* out) {
  uint32_t code = 0;
  if (!ReadCodeUnit(text, at, &code)) return "\\u needs four hex digits";
  if (code >= 0xd800 && code < 0xe000) {
    uint32_t low = 0;
    const bool is_pair =
        code < 0xdc00 && ReadCodeUnit(text, at, &low) && low >= 0xdc00 && low < 0xe000;
    if (!is_pair) return "half of a surrogate pair is no character";
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  }
  AppendCharacter(out, code);
  return nullptr;
}

const char* ReadEscape(std::string_view text, size_t* at, std::string* out) {
  static constexpr std::string_view kEscapes = "\"\\/bfnrt";
  static constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  if (text.size() - *at < 2) return "the text ends inside an escape";
  if (text[*at + 1] == 'u') return ReadCharacter(text, at, out);
  const size_t which = kEscapes.find(text[*at + 1]);
  if (which == std::string_view::npos) return "there is no such escape";
  out->push_back(kMeanings[which]);
  *at += 2;
  return nullptr;
}

}  // namespace

void AppendQuoted(std::string* out, std::string_view text) {
  out->push_back('"');
  if (IsUtf8(text)) {
    for (const char c : text) AppendEscaped(out, c);
  } else {
    // Character by character: four bytes are the longest that can be one.
    while (!text.empty()) {
      size_t length = 1;
      while (length <= 4 && length <= text.size() && !IsUtf8(text.substr(0, length))) ++length;
      if (length > 4 || length > text.size()) {
        out->append("\xef\xbf\xbd");
        length = 1;
      } else {
        for (const char c : text.substr(0, length)) AppendEscaped(out, c);
      }
      text.remove_prefix(length);
    }
  }
  out->push_back('"');
}

const char* ReadQuoted(std::string_view text, size_t* at, std::string* out) {
  if (*at >= text.size() || text[*at] != '"') return "a quote is missing";
  ++*at;
  while (true) {
    const size_t start = *at;
    while (*at < text.size() && text[*at] != '"' && text[*at] != '\\' &&
           static_cast<unsigned char>(text[*at]) >= 0x20) {
      ++*at;
    }
    const std::string_view plain = text.substr(start, *at - start);
    if (!IsUtf8(plain)) {
      *at = start;
      return "this is not UTF-8";
    }
    out->append(plain);
    if (*at == text.size()) return "the closing quote is missing";
    if (text[*at] == '"') {
      ++*at;
      return nullptr;
    }
    if (text[*at] != '\\') return "a control character must be written as \\u00XX";
    if (const char* const problem = ReadEscape(text, at, out)) return problem;
  }
}

}  // namespace statehouse::internal
