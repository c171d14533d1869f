#include "clients/c/src/wire_fields.h"

namespace statehouse {
namespace {

constexpr uint8_t kVarint = 0;
constexpr uint8_t kFixed64 = 1;
constexpr uint8_t kLengthDelimited = 2;
constexpr uint8_t kFixed32 = 5;

void AppendVarint(uint64_t number, std::string* out) {
  while (number >= 0x80) {
    out->push_back(static_cast<char>(number | 0x80));
    number >>= 7;
  }
  out->push_back(static_cast<char>(number));
}

bool TakeVarint(std::string_view* bytes, uint64_t* number) {
  *number = 0;
  for (uint32_t shift = 0; shift < 64 && !bytes->empty(); shift += 7) {
    const uint8_t byte = static_cast<uint8_t>(bytes->front());
    bytes->remove_prefix(1);
    *number |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

}  // namespace

void AppendVarintField(uint32_t field, uint64_t number, std::string* out) {
  AppendVarint(field << 3 | kVarint, out);
  AppendVarint(number, out);
}

void AppendBytesField(uint32_t field, std::string_view bytes, std::string* out) {
  AppendVarint(field << 3 | kLengthDelimited, out);
  AppendVarint(bytes.size(), out);
  out->append(bytes);
}

bool TakeVarintField(std::string_view* bytes, uint64_t* field, uint64_t* number) {
  uint64_t key = 0;
  if (!TakeVarint(bytes, &key)) return false;
  *field = key >> 3;
  uint64_t skip = 0;
  switch (key & 7) {
    case kVarint: return TakeVarint(bytes, number);
    case kFixed64: skip = 8; break;
    case kFixed32: skip = 4; break;
    case kLengthDelimited:
      if (!TakeVarint(bytes, &skip)) return false;
      break;
    default: return false;
  }
  if (skip > bytes->size()) return false;
  bytes->remove_prefix(skip);
  *field = 0;  // Of no known field.
  return true;
}

}  // namespace statehouse
