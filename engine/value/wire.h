// The bytes of statehouse.v1.Value: tags, varints and length-delimited fields, read without trust
// and written in the one form that values have. Internal to engine/value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace statehouse::internal {

// A tag is field number << 3 | wire type. All of them fit one byte.
inline constexpr char kNullTag = 0x08;
inline constexpr char kBoolTag = 0x10;
inline constexpr char kIntTag = 0x18;
inline constexpr char kBigIntTag = 0x22;
inline constexpr char kFloatTag = 0x29;
inline constexpr char kStringTag = 0x32;
inline constexpr char kBytesTag = 0x3a;
inline constexpr char kListTag = 0x42;
inline constexpr char kMapTag = 0x4a;
inline constexpr char kTimestampTag = 0x52;
inline constexpr char kTensorTag = 0x5a;
inline constexpr char kTaggedTag = 0x62;

inline constexpr char kItemTag = 0x0a;   // List.values and Map.entries.
inline constexpr char kKeyTag = 0x0a;    // MapEntry.key and Tagged.tag.
inline constexpr char kInnerTag = 0x12;  // MapEntry.value and Tagged.value.
inline constexpr char kSecondsTag = 0x08;
inline constexpr char kNanosTag = 0x10;
inline constexpr char kDtypeTag = 0x0a;
inline constexpr char kShapeTag = 0x12;
inline constexpr char kDataTag = 0x1a;

inline constexpr size_t kVarintBytesMax = 10;

// How many bytes the shortest varint of a number has.
constexpr size_t VarintBytes(uint64_t number) {
  size_t bytes = 1;
  while (number >= 0x80) {
    number >>= 7;
    ++bytes;
  }
  return bytes;
}

// Writes a varint and returns the position behind it. REQUIRES: room for VarintBytes(number).
inline char* PutVarint(char* at, uint64_t number) {
  while (number >= 0x80) {
    *at++ = static_cast<char>(number | 0x80);
    number >>= 7;
  }
  *at++ = static_cast<char>(number);
  return at;
}

inline void AppendVarint(std::string* out, uint64_t number) {
  char bytes[kVarintBytesMax];
  out->append(bytes, static_cast<size_t>(PutVarint(bytes, number) - bytes));
}

// Reads fields from front to back. A call that returns false has consumed nothing, and what it
// would have read is cut off or not in its shortest form. Never reads outside its bytes.
class WireReader final {
 public:
  explicit WireReader(std::string_view bytes)
      : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  bool AtEnd() const { return at_ == end_; }
  const char* at() const { return at_; }
  std::string_view Rest() const { return {at_, static_cast<size_t>(end_ - at_)}; }

  // Consumes the next byte if it is `tag`.
  bool Take(char tag) {
    if (at_ == end_ || *at_ != tag) return false;
    ++at_;
    return true;
  }

  bool Varint(uint64_t* number) {
    if (at_ != end_ && static_cast<unsigned char>(*at_) < 0x80) {
      *number = static_cast<unsigned char>(*at_++);
      return true;
    }
    return LongVarint(number);
  }

  // A length and as many bytes.
  bool Bytes(std::string_view* bytes) {
    const char* const start = at_;
    uint64_t length = 0;
    if (!Varint(&length) || length > static_cast<size_t>(end_ - at_)) {
      at_ = start;
      return false;
    }
    *bytes = {at_, static_cast<size_t>(length)};
    at_ += length;
    return true;
  }

  // `tag` and a length-delimited field.
  bool Field(char tag, std::string_view* bytes) {
    const char* const start = at_;
    if (Take(tag) && Bytes(bytes)) return true;
    at_ = start;
    return false;
  }

  bool Fixed64(uint64_t* bits) {
    if (end_ - at_ < 8) return false;
    std::memcpy(bits, at_, 8);
    at_ += 8;
    return true;
  }

 private:
  bool LongVarint(uint64_t* number);

  const char* at_;
  const char* end_;
};

// Whether bytes are UTF-8: shortest forms, no surrogates, nothing beyond U+10FFFF.
bool IsUtf8(std::string_view bytes);

}  // namespace statehouse::internal
