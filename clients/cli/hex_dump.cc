#include "clients/cli/hex_dump.h"

#include <cstdio>

namespace statehouse::cli {
namespace {

constexpr size_t kLineBytes = 16;

std::string Line(std::string_view bytes, uint64_t offset) {
  char number[24];
  std::snprintf(number, sizeof number, "%08llx ", static_cast<unsigned long long>(offset));
  std::string line = number;
  std::string characters;
  for (size_t i = 0; i < kLineBytes; ++i) {
    if (i % 8 == 0) line += ' ';
    if (i >= bytes.size()) {
      line += "   ";
      continue;
    }
    const auto byte = static_cast<unsigned char>(bytes[i]);
    char cell[4];
    std::snprintf(cell, sizeof cell, "%02x ", byte);
    line += cell;
    characters += byte >= 0x20 && byte < 0x7f ? static_cast<char>(byte) : '.';
  }
  return line + " |" + characters + "|\n";
}

int Digit(char character) {
  if (character >= '0' && character <= '9') return character - '0';
  if (character >= 'a' && character <= 'f') return character - 'a' + 10;
  if (character >= 'A' && character <= 'F') return character - 'A' + 10;
  return -1;
}

}  // namespace

std::string HexDump(std::string_view bytes, uint64_t first_offset) {
  std::string dump;
  bool skipping = false;
  for (size_t at = 0; at < bytes.size(); at += kLineBytes) {
    const std::string_view line = bytes.substr(at, kLineBytes);
    const bool last = at + kLineBytes >= bytes.size();
    if (at > 0 && !last && line == bytes.substr(at - kLineBytes, kLineBytes)) {
      if (!skipping) dump += "*\n";
      skipping = true;
      continue;
    }
    skipping = false;
    dump += Line(line, first_offset + at);
  }
  return dump;
}

std::optional<std::string> FromHex(std::string_view text) {
  std::string bytes;
  int high = -1;
  for (const char character : text) {
    if (character == ' ' || character == '\n' || character == '\t') continue;
    const int digit = Digit(character);
    if (digit < 0) return std::nullopt;
    if (high < 0) {
      high = digit;
    } else {
      bytes += static_cast<char>(high * 16 + digit);
      high = -1;
    }
  }
  if (high >= 0) return std::nullopt;
  return bytes;
}

std::string ToHex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += kDigits[static_cast<unsigned char>(byte) >> 4];
    text += kDigits[static_cast<unsigned char>(byte) & 15];
  }
  return text;
}

}  // namespace statehouse::cli
