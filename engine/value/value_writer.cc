#include "engine/value/value_writer.h"

#include <bit>
#include <cstring>

#include "engine/value/wire.h"

namespace statehouse {

using internal::VarintBytes;

void ValueWriter::Null() { Varint(internal::kNullTag, 0); }
void ValueWriter::Bool(bool value) { Varint(internal::kBoolTag, value ? 1 : 0); }
void ValueWriter::Int(int64_t value) { Varint(internal::kIntTag, static_cast<uint64_t>(value)); }
void ValueWriter::Float(double value) { FloatBits(std::bit_cast<uint64_t>(value)); }
void ValueWriter::String(std::string_view text) { Payload(internal::kStringTag, text); }
void ValueWriter::Bytes(std::string_view bytes) { Payload(internal::kBytesTag, bytes); }

void ValueWriter::BigInt(std::string_view bytes) {
  const bool is_negative = !bytes.empty() && (bytes[0] & 0x80) != 0;
  const char sign = is_negative ? '\xff' : '\0';
  while (bytes.size() > 1 && bytes[0] == sign && ((bytes[1] & 0x80) != 0) == is_negative) {
    bytes.remove_prefix(1);
  }
  if (bytes.size() > sizeof(int64_t)) return Payload(internal::kBigIntTag, bytes);
  uint64_t number = is_negative ? ~uint64_t{0} : 0;
  for (const char byte : bytes) number = number << 8 | static_cast<unsigned char>(byte);
  Int(static_cast<int64_t>(number));
}

void ValueWriter::FloatBits(uint64_t bits) {
  if (!BeginValue(1 + sizeof(bits))) return;
  char bytes[1 + sizeof(bits)] = {internal::kFloatTag};
  std::memcpy(bytes + 1, &bits, sizeof(bits));
  out_->append(bytes, sizeof(bytes));
  EndValue();
}

void ValueWriter::Timestamp(const TimestampValue& timestamp) {
  char bytes[2 + 2 * internal::kVarintBytesMax];
  char* at = bytes;
  if (timestamp.seconds != 0) {
    *at++ = internal::kSecondsTag;
    at = internal::PutVarint(at, static_cast<uint64_t>(timestamp.seconds));
  }
  if (timestamp.nanos != 0) {
    *at++ = internal::kNanosTag;
    at = internal::PutVarint(at, static_cast<uint64_t>(int64_t{timestamp.nanos}));
  }
  Payload(internal::kTimestampTag, {bytes, static_cast<size_t>(at - bytes)});
}

void ValueWriter::Tensor(std::string_view dtype, std::span<const uint64_t> shape,
                         std::string_view data) {
  size_t shape_bytes = 0;
  for (const uint64_t length : shape) shape_bytes += VarintBytes(length);
  size_t payload_bytes = 1 + VarintBytes(dtype.size()) + dtype.size();
  if (shape_bytes > 0) payload_bytes += 1 + VarintBytes(shape_bytes) + shape_bytes;
  if (!data.empty()) payload_bytes += 1 + VarintBytes(data.size()) + data.size();
  if (!BeginValue(1 + VarintBytes(payload_bytes) + payload_bytes)) return;
  out_->push_back(internal::kTensorTag);
  internal::AppendVarint(out_, payload_bytes);
  Field(internal::kDtypeTag, dtype);
  if (shape_bytes > 0) {
    out_->push_back(internal::kShapeTag);
    internal::AppendVarint(out_, shape_bytes);
    for (const uint64_t length : shape) internal::AppendVarint(out_, length);
  }
  if (!data.empty()) Field(internal::kDataTag, data);
  EndValue();
}

void ValueWriter::Wire(std::string_view value) {
  if (!BeginValue(value.size())) return;
  out_->append(value);
  EndValue();
}

void ValueWriter::BeginList() { Open(Container::kList, internal::kListTag); }
void ValueWriter::EndList() { Close(Container::kList); }
void ValueWriter::BeginMap() { Open(Container::kMap, internal::kMapTag); }
void ValueWriter::EndMap() { Close(Container::kMap); }
void ValueWriter::EndTagged() { Close(Container::kTagged); }

void ValueWriter::BeginTagged(std::string_view tag) {
  Open(Container::kTagged, internal::kTaggedTag);
  if (!is_misused_) Field(internal::kKeyTag, tag);
}

void ValueWriter::Key(std::string_view key) {
  Frame& frame = frames_.back();
  if (is_misused_ || frame.container != Container::kMap || frame.takes_value) {
    is_misused_ = true;
    return;
  }
  frame.takes_value = true;
  out_->push_back(internal::kItemTag);
  frame.entry_length_at = Placeholder();
  if (!key.empty()) Field(internal::kKeyTag, key);
}

Status ValueWriter::Finish() {
  if (!is_misused_ && frames_.size() == 1 && !frames_.back().takes_value) return Status();
  return Status(Reason::kInternal,
                "a value was written in an order that makes none: containers and tags must be "
                "closed, a map takes keys and values in turn, and there is one value at the top");
}

bool ValueWriter::TakesValue() {
  if (!frames_.back().takes_value) is_misused_ = true;
  return !is_misused_;
}

char ValueWriter::ValueTag() const {
  return frames_.back().container == Container::kList ? internal::kItemTag : internal::kInnerTag;
}

bool ValueWriter::BeginValue(size_t wire_bytes) {
  if (!TakesValue()) return false;
  if (frames_.back().container != Container::kTop) {
    out_->push_back(ValueTag());
    internal::AppendVarint(out_, wire_bytes);
  }
  return true;
}

void ValueWriter::EndValue() {
  Frame& frame = frames_.back();
  if (frame.container == Container::kMap) PatchLength(frame.entry_length_at);
  if (frame.container != Container::kList) frame.takes_value = false;
}

void ValueWriter::Open(Container container, char tag) {
  if (!TakesValue()) return;
  Frame frame;
  frame.container = container;
  frame.takes_value = container != Container::kMap;
  if (frames_.back().container != Container::kTop) {
    out_->push_back(ValueTag());
    frame.value_length_at = Placeholder();
  }
  out_->push_back(tag);
  frame.payload_length_at = Placeholder();
  frames_.push_back(frame);
}

void ValueWriter::Close(Container container) {
  const Frame frame = frames_.back();
  // A map must not end behind a key, a tag must have its value.
  const bool is_complete = container == Container::kList || !frame.takes_value;
  if (is_misused_ || frame.container != container || !is_complete) {
    is_misused_ = true;
    return;
  }
  frames_.pop_back();
  PatchLength(frame.payload_length_at);
  if (frames_.back().container != Container::kTop) PatchLength(frame.value_length_at);
  EndValue();
}

size_t ValueWriter::Placeholder() {
  out_->push_back('\0');
  return out_->size() - 1;
}

void ValueWriter::PatchLength(size_t at) {
  const size_t length = out_->size() - at - 1;
  const size_t more = VarintBytes(length) - 1;
  if (more > 0) out_->insert(at, more, '\0');
  internal::PutVarint(out_->data() + at, length);
}

void ValueWriter::Varint(char tag, uint64_t number) {
  if (!BeginValue(1 + VarintBytes(number))) return;
  out_->push_back(tag);
  internal::AppendVarint(out_, number);
  EndValue();
}

void ValueWriter::Payload(char tag, std::string_view bytes) {
  if (!BeginValue(1 + VarintBytes(bytes.size()) + bytes.size())) return;
  Field(tag, bytes);
  EndValue();
}

void ValueWriter::Field(char tag, std::string_view bytes) {
  out_->push_back(tag);
  internal::AppendVarint(out_, bytes.size());
  out_->append(bytes);
}

}  // namespace statehouse
