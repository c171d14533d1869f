#include "clients/c/src/wait_message.h"

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

void AppendKey(uint32_t field, uint8_t kind, std::string* out) {
  AppendVarint(field << 3 | kind, out);
}

void AppendBytes(uint32_t field, std::string_view bytes, std::string* out) {
  AppendKey(field, kLengthDelimited, out);
  AppendVarint(bytes.size(), out);
  out->append(bytes);
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

// Takes one field; `*number` is its value when it is a varint.
bool TakeField(std::string_view* bytes, uint64_t* field, uint64_t* number) {
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

}  // namespace

std::string EncodeWaitAreaRequest(std::string_view name, uint64_t since, uint64_t timeout_ns) {
  std::string duration;
  AppendKey(1, kVarint, &duration);
  AppendVarint(timeout_ns / 1'000'000'000, &duration);
  AppendKey(2, kVarint, &duration);
  AppendVarint(timeout_ns % 1'000'000'000, &duration);
  std::string request;
  AppendBytes(1, name, &request);
  AppendKey(2, kVarint, &request);
  AppendVarint(since, &request);
  AppendBytes(3, duration, &request);
  return request;
}

StatusOr<WaitResult> DecodeWaitAreaResponse(std::string_view bytes) {
  WaitResult result;
  while (!bytes.empty()) {
    uint64_t field = 0;
    uint64_t number = 0;
    if (!TakeField(&bytes, &field, &number)) {
      return Status(Reason::kInternal, "the daemon's answer to WaitArea is malformed");
    }
    if (field == 1) result.changed = number != 0;
    if (field == 2) result.updates = number;
  }
  return result;
}

}  // namespace statehouse
