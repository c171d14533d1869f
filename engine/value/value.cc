#include "engine/value/value.h"

#include <cstring>

#include "engine/value/wire.h"

namespace statehouse {

using internal::WireReader;

std::string_view ValueKindName(ValueKind kind) {
  switch (kind) {
    case ValueKind::kInvalid: return "no value";
    case ValueKind::kNull: return "null";
    case ValueKind::kBool: return "bool";
    case ValueKind::kInt: return "int";
    case ValueKind::kBigInt: return "big int";
    case ValueKind::kFloat: return "float";
    case ValueKind::kString: return "string";
    case ValueKind::kBytes: return "bytes";
    case ValueKind::kList: return "list";
    case ValueKind::kMap: return "map";
    case ValueKind::kTimestamp: return "timestamp";
    case ValueKind::kTensor: return "tensor";
    case ValueKind::kTagged: return "tagged value";
  }
  return "no value";
}

ValueView::ValueView(std::string_view wire) {
  WireReader reader(wire);
  if (reader.AtEnd()) return;
  const char tag = *reader.at();
  reader.Take(tag);
  ValueKind kind = ValueKind::kInvalid;
  bool is_read = false;
  switch (tag) {
    case internal::kNullTag:
      kind = ValueKind::kNull;
      is_read = reader.Varint(&bits_) && bits_ == 0;
      break;
    case internal::kBoolTag:
      kind = ValueKind::kBool;
      is_read = reader.Varint(&bits_) && bits_ <= 1;
      break;
    case internal::kIntTag:
      kind = ValueKind::kInt;
      is_read = reader.Varint(&bits_);
      break;
    case internal::kFloatTag:
      kind = ValueKind::kFloat;
      is_read = reader.Fixed64(&bits_);
      break;
    case internal::kBigIntTag:
    case internal::kStringTag:
    case internal::kBytesTag:
    case internal::kListTag:
    case internal::kMapTag:
    case internal::kTimestampTag:
    case internal::kTensorTag:
    case internal::kTaggedTag:
      kind = static_cast<ValueKind>(static_cast<unsigned char>(tag) >> 3);
      is_read = reader.Bytes(&payload_);
      break;
    default: return;
  }
  if (is_read && reader.AtEnd()) kind_ = kind;
}

double ValueView::AsFloat() const {
  double number = 0;
  std::memcpy(&number, &bits_, sizeof(number));
  return number;
}

bool ValueView::ReadTimestamp(TimestampValue* timestamp) const {
  WireReader reader(payload_);
  uint64_t seconds = 0;
  uint64_t nanos = 0;
  if (reader.Take(internal::kSecondsTag) && !reader.Varint(&seconds)) return false;
  if (reader.Take(internal::kNanosTag) && !reader.Varint(&nanos)) return false;
  if (kind_ != ValueKind::kTimestamp || !reader.AtEnd() || nanos > 999'999'999) return false;
  *timestamp = {static_cast<int64_t>(seconds), static_cast<int32_t>(nanos)};
  return timestamp->seconds >= kTimestampSecondsMin && timestamp->seconds <= kTimestampSecondsMax;
}

bool ValueView::ReadTensor(TensorValue* tensor) const {
  WireReader reader(payload_);
  std::string_view shape;
  *tensor = TensorValue();
  if (!reader.Field(internal::kDtypeTag, &tensor->dtype)) return false;
  if (reader.Take(internal::kShapeTag) && !reader.Bytes(&shape)) return false;
  if (reader.Take(internal::kDataTag) && !reader.Bytes(&tensor->data)) return false;
  if (kind_ != ValueKind::kTensor || !reader.AtEnd()) return false;
  WireReader lengths(shape);
  while (!lengths.AtEnd()) {
    if (tensor->dimensions == kTensorDimensionsMax) return false;
    if (!lengths.Varint(&tensor->shape[tensor->dimensions])) return false;
    ++tensor->dimensions;
  }
  uint64_t bytes = 0;
  return TensorBytes(*tensor, &bytes) && bytes == tensor->data.size();
}

bool ValueView::ReadTagged(TaggedValue* tagged) const {
  WireReader reader(payload_);
  return kind_ == ValueKind::kTagged && reader.Field(internal::kKeyTag, &tagged->tag) &&
         reader.Field(internal::kInnerTag, &tagged->value) && reader.AtEnd();
}

bool ListReader::Next(std::string_view* value) {
  WireReader reader(rest_);
  if (!reader.Field(internal::kItemTag, value)) return false;
  rest_ = reader.Rest();
  return true;
}

bool MapReader::Next(std::string_view* key, std::string_view* value) {
  WireReader reader(rest_);
  std::string_view entry;
  if (!reader.Field(internal::kItemTag, &entry)) return false;
  if (!internal::SplitEntry(entry, key, value)) return false;
  rest_ = reader.Rest();
  return true;
}

bool internal::SplitEntry(std::string_view entry, std::string_view* key, std::string_view* value) {
  WireReader reader(entry);
  *key = {};
  if (reader.Take(kKeyTag) && !reader.Bytes(key)) return false;
  return reader.Field(kInnerTag, value) && reader.AtEnd();
}

size_t DtypeBytes(std::string_view dtype) {
  struct Dtype {
    std::string_view name;
    size_t bytes;
  };
  static constexpr Dtype kDtypes[] = {
      {"bool", 1},    {"int8", 1},    {"int16", 2},     {"int32", 4},       {"int64", 8},
      {"uint8", 1},   {"uint16", 2},  {"uint32", 4},    {"uint64", 8},      {"float16", 2},
      {"float32", 4}, {"float64", 8}, {"complex64", 8}, {"complex128", 16},
  };
  for (const Dtype& known : kDtypes) {
    if (known.name == dtype) return known.bytes;
  }
  return 0;
}

bool TensorBytes(const TensorValue& tensor, uint64_t* bytes) {
  uint64_t product = DtypeBytes(tensor.dtype);
  if (product == 0 || tensor.dimensions > kTensorDimensionsMax) return false;
  bool is_empty = false;
  // A zero does not excuse the other lengths: libraries multiply them in any order.
  for (size_t i = 0; i < tensor.dimensions; ++i) {
    if (tensor.shape[i] == 0) {
      is_empty = true;
    } else if (__builtin_mul_overflow(product, tensor.shape[i], &product)) {
      return false;
    }
  }
  if (product > static_cast<uint64_t>(INT64_MAX)) return false;
  *bytes = is_empty ? 0 : product;
  return true;
}

}  // namespace statehouse
