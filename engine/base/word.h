// Words: the 8-, 16-, 32- and 64-bit integers that areas hold, named by WordType. A word travels
// through the engine as its bits in the low end of a uint64_t ("bits"); sign extension happens at
// the edges.
#pragma once

#include <cstdint>

namespace statehouse {

// The same numbers as statehouse.v1.WordType.
enum class WordType : uint8_t {
  kU8 = 1,
  kU16 = 2,
  kU32 = 3,
  kU64 = 4,
  kI8 = 5,
  kI16 = 6,
  kI32 = 7,
  kI64 = 8
};

enum class BitwiseOperator : uint8_t { kAnd = 1, kOr = 2, kXor = 3 };

constexpr bool IsWordType(uint64_t number) { return number >= 1 && number <= 8; }
constexpr bool IsSigned(WordType type) { return static_cast<uint8_t>(type) >= 5; }
// 1, 2, 4 or 8.
constexpr uint32_t WordBytes(WordType type) { return 1u << ((static_cast<uint8_t>(type) - 1) & 3); }
// The bits that belong to the word.
constexpr uint64_t WordMask(WordType type) { return ~uint64_t{0} >> (64 - 8 * WordBytes(type)); }
// The number that `bits` of a signed type stand for.
constexpr int64_t SignExtend(WordType type, uint64_t bits) {
  const uint32_t shift = 64 - 8 * WordBytes(type);
  return static_cast<int64_t>(bits << shift) >> shift;
}
// Whether a number fits the type.
constexpr bool FitsUnsigned(WordType type, uint64_t number) {
  return number <= (IsSigned(type) ? WordMask(type) >> 1 : WordMask(type));
}
constexpr bool FitsSigned(WordType type, int64_t number) {
  if (!IsSigned(type)) return number >= 0 && static_cast<uint64_t>(number) <= WordMask(type);
  const int64_t top = static_cast<int64_t>(WordMask(type) >> 1);
  return number >= -top - 1 && number <= top;
}

}  // namespace statehouse
