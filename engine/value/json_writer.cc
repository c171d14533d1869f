// ValueToJson.
#include <charconv>
#include <cmath>
#include <string>

#include "engine/value/encodings.h"
#include "engine/value/json.h"
#include "engine/value/text.h"
#include "engine/value/value.h"

namespace statehouse {
namespace {

constexpr uint64_t kNanBits = 0x7ff8000000000000;

// Recursion is bounded: the value was checked, so it is at most kValueDepthMax deep.
void Append(std::string* json, std::string_view wire);

void AppendFloat(std::string* json, const ValueView& view) {
  const double number = view.AsFloat();
  char text[64];
  if (std::isfinite(number)) {
    const auto result = std::to_chars(text, text + sizeof(text), number);
    const std::string_view digits(text, static_cast<size_t>(result.ptr - text));
    json->append(digits);
    // What reads as an int must not come back as one.
    if (digits.find_first_of(".e") == std::string_view::npos) json->append(".0");
    return;
  }
  json->append("{\"$float\":\"");
  if (std::isinf(number)) {
    json->append(number < 0 ? "-inf" : "inf");
  } else {
    json->append("nan");
    if (view.FloatBits() != kNanBits) {
      const auto result = std::to_chars(text, text + sizeof(text), view.FloatBits(), 16);
      json->append(":").append(text, static_cast<size_t>(result.ptr - text));
    }
  }
  json->append("\"}");
}

void AppendBigInt(std::string* json, std::string_view bytes) {
  if (bytes.size() <= kBigIntDecimalBytesMax) {
    internal::AppendDecimal(json, bytes);
    return;
  }
  json->append("{\"$int\":\"");
  internal::AppendHex(json, bytes);
  json->append("\"}");
}

void AppendTensor(std::string* json, const ValueView& view) {
  TensorValue tensor;
  if (!view.ReadTensor(&tensor)) return;  // Impossible: it was checked.
  json->append("{\"$tensor\":{\"dtype\":\"").append(tensor.dtype).append("\",\"shape\":[");
  for (size_t i = 0; i < tensor.dimensions; ++i) {
    if (i > 0) json->push_back(',');
    json->append(std::to_string(tensor.shape[i]));
  }
  json->append("],\"data\":\"");
  internal::AppendBase64(json, tensor.data);
  json->append("\"}}");
}

void AppendList(std::string* json, const ValueView& view) {
  ListReader reader(view.payload());
  std::string_view value;
  char separator = '[';
  while (reader.Next(&value)) {
    json->push_back(separator);
    Append(json, value);
    separator = ',';
  }
  json->append(separator == '[' ? "[]" : "]");
}

void AppendMap(std::string* json, const ValueView& view) {
  std::string_view key;
  std::string_view value;
  MapReader look(view.payload());
  const bool begins = look.Next(&key, &value) && key.starts_with('$');
  const bool is_escaped = begins && !look.Next(&key, &value);
  if (is_escaped) json->append("{\"$map\":");
  MapReader reader(view.payload());
  char separator = '{';
  while (reader.Next(&key, &value)) {
    json->push_back(separator);
    internal::AppendQuoted(json, key);
    json->push_back(':');
    Append(json, value);
    separator = ',';
  }
  json->append(separator == '{' ? "{}" : "}");
  if (is_escaped) json->push_back('}');
}

void Append(std::string* json, std::string_view wire) {
  const ValueView view(wire);
  TimestampValue timestamp;
  TaggedValue tagged;
  switch (view.kind()) {
    case ValueKind::kInvalid: return;  // Impossible: it was checked.
    case ValueKind::kNull: json->append("null"); return;
    case ValueKind::kBool: json->append(view.AsBool() ? "true" : "false"); return;
    case ValueKind::kInt: json->append(std::to_string(view.AsInt())); return;
    case ValueKind::kBigInt: AppendBigInt(json, view.payload()); return;
    case ValueKind::kFloat: AppendFloat(json, view); return;
    case ValueKind::kString: internal::AppendQuoted(json, view.payload()); return;
    case ValueKind::kBytes:
      json->append("{\"$bytes\":\"");
      internal::AppendBase64(json, view.payload());
      json->append("\"}");
      return;
    case ValueKind::kList: AppendList(json, view); return;
    case ValueKind::kMap: AppendMap(json, view); return;
    case ValueKind::kTimestamp:
      if (!view.ReadTimestamp(&timestamp)) return;  // Impossible: it was checked.
      json->append("{\"$timestamp\":\"");
      internal::AppendTimestamp(json, timestamp);
      json->append("\"}");
      return;
    case ValueKind::kTensor: AppendTensor(json, view); return;
    case ValueKind::kTagged:
      if (!view.ReadTagged(&tagged)) return;  // Impossible: it was checked.
      json->append("{\"$tag\":[\"").append(tagged.tag).append("\",");
      Append(json, tagged.value);
      json->append("]}");
      return;
  }
}

}  // namespace

Status ValueToJson(std::string_view wire, std::string* json) {
  SH_RETURN_IF_ERROR(CheckValue(wire));
  json->clear();
  Append(json, wire);
  return Status();
}

}  // namespace statehouse
