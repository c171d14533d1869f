// Every bound of a value, with its unit in its name, and the relations between them checked at
// compile time.
#pragma once

#include <cstddef>

namespace statehouse {

inline constexpr size_t kValueBytesMax = 1 << 20;   // A whole value on the wire.
inline constexpr size_t kValueDepthMax = 32;        // Values inside values; a scalar has depth 1.
inline constexpr size_t kPathStepsMax = 32;         // Steps of one path.
inline constexpr size_t kMapKeyBytesMax = 1024;     // A key of a map.
inline constexpr size_t kTagBytesMax = 64;          // The tag of a tagged value.
inline constexpr size_t kTensorDimensionsMax = 32;  // The length of a tensor's shape.
inline constexpr size_t kPathTextBytesMax = 256 << 10;  // A path as text.
inline constexpr size_t kJsonBytesMax = 16 << 20;       // A value as JSON, read.
inline constexpr size_t kJsonIntDigitsMax = 2500;       // An integer in decimal; beyond that, hex.
inline constexpr size_t kBigIntDecimalBytesMax = 1024;  // A big int that is written in decimal.

// Protobuf's parsers stop at 100 nested messages. A map inside a map costs three of them (Map,
// MapEntry, Value), the innermost value may be a message itself, and what carries the value in a
// call needs its own.
inline constexpr size_t kProtobufNestingMax = 100;
inline constexpr size_t kCallNestingMax = 6;
static_assert(3 * (kValueDepthMax - 1) + 1 + kCallNestingMax <= kProtobufNestingMax);
static_assert(kBigIntDecimalBytesMax * 241 / 100 < kJsonIntDigitsMax);

}  // namespace statehouse
