#include "engine/value/wire.h"

namespace statehouse::internal {

bool WireReader::LongVarint(uint64_t* number) {
  uint64_t result = 0;
  const char* at = at_;
  for (size_t i = 0; i < kVarintBytesMax && at != end_; ++i) {
    const uint64_t byte = static_cast<unsigned char>(*at++);
    result |= (byte & 0x7f) << (7 * i);
    if (byte >= 0x80) continue;
    if (byte == 0 && i > 0) return false;                    // Not the shortest form.
    if (i == kVarintBytesMax - 1 && byte > 1) return false;  // More than 64 bits.
    at_ = at;
    *number = result;
    return true;
  }
  return false;
}

namespace {

// How many bytes the character at `at` has; 0 when it is none.
size_t CharacterBytes(const unsigned char* at, const unsigned char* end) {
  const auto follows = [&](size_t i) { return at + i < end && (at[i] & 0xc0) == 0x80; };
  if (at[0] < 0x80) return 1;
  if (at[0] < 0xc2) return 0;  // A continuation, or two bytes where one would do.
  if (at[0] < 0xe0) return follows(1) ? 2 : 0;
  if (at[0] < 0xf0) {
    if (!follows(1) || !follows(2)) return 0;
    if (at[0] == 0xe0 && at[1] < 0xa0) return 0;   // Too long a form.
    if (at[0] == 0xed && at[1] >= 0xa0) return 0;  // A surrogate.
    return 3;
  }
  if (at[0] > 0xf4 || !follows(1) || !follows(2) || !follows(3)) return 0;
  if (at[0] == 0xf0 && at[1] < 0x90) return 0;   // Too long a form.
  if (at[0] == 0xf4 && at[1] >= 0x90) return 0;  // Beyond U+10FFFF.
  return 4;
}

}  // namespace

bool IsUtf8(std::string_view bytes) {
  const auto* at = reinterpret_cast<const unsigned char*>(bytes.data());
  const auto* const end = at + bytes.size();
  while (at != end) {
    if (end - at >= 8) {
      uint64_t word = 0;
      std::memcpy(&word, at, 8);
      if ((word & 0x8080808080808080) == 0) {
        at += 8;
        continue;
      }
    }
    const size_t length = CharacterBytes(at, end);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

}  // namespace statehouse::internal
