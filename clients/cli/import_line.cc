#include "clients/cli/import_line.h"

#include <charconv>

#include "engine/value/json.h"
#include "engine/value/value.h"
#include "engine/value/value_writer.h"

namespace statehouse::cli {
namespace {

Status Refuse(std::string why) { return Status(Reason::kInvalidArgument, std::move(why)); }

Status TakeTtl(std::string_view wire, ImportLine* line) {
  const ValueView view(wire);
  line->for_ever = view.kind() == ValueKind::kNull;
  if (line->for_ever) return Status();
  if (view.kind() != ValueKind::kInt || view.AsInt() < 1) {
    return Refuse("\"ttl_ms\" must be a whole number of at least 1, or null: for ever");
  }
  line->ttl_ms = static_cast<uint64_t>(view.AsInt());
  return Status();
}

// A fence of more than 63 bits is a big integer in JSON, as any other whole number of that size.
Status TakeFence(std::string_view wire, ImportLine* line) {
  std::string text;
  SH_RETURN_IF_ERROR(ValueToJson(wire, &text));
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, line->fence);
  if (error == std::errc() && at == end) return Status();
  return Refuse("\"fence\" must be a whole number from 0 to 18446744073709551615");
}

}  // namespace

Status ParseImportLine(std::string_view text, ImportLine* line) {
  *line = ImportLine();
  if (text.size() > kImportLineBytesMax) {
    return Refuse("the line has " + std::to_string(text.size()) + " bytes, at most " +
                  std::to_string(kImportLineBytesMax) + " are allowed");
  }
  std::string wire;
  SH_RETURN_IF_ERROR(ValueFromJson(text, &wire));
  const ValueView view(wire);
  if (view.kind() != ValueKind::kMap) return Refuse("the line is no JSON object");
  bool has_key = false;
  bool has_value = false;
  MapReader reader(view.payload());
  std::string_view name;
  std::string_view value;
  while (reader.Next(&name, &value)) {
    if (name == "key") {
      const ValueView key(value);
      if (key.kind() != ValueKind::kString) return Refuse("\"key\" must be a string");
      line->key = std::string(key.payload());
      has_key = true;
    } else if (name == "value") {
      line->value = std::string(value);
      has_value = true;
    } else if (name == "ttl_ms") {
      SH_RETURN_IF_ERROR(TakeTtl(value, line));
    } else if (name == "fence") {
      SH_RETURN_IF_ERROR(TakeFence(value, line));
    } else {
      return Refuse("\"" + std::string(name) + "\" is none of key, value, ttl_ms and fence");
    }
  }
  if (!has_key || !has_value) return Refuse("\"key\" and \"value\" are needed");
  return Status();
}

Status FormatImportLine(const ImportLine& line, std::string* text) {
  std::string wire;
  ValueWriter writer(&wire);
  writer.BeginMap();
  writer.Key("key");
  writer.String(line.key);
  writer.Key("value");
  writer.Wire(line.value);
  if (line.ttl_ms.has_value()) {
    writer.Key("ttl_ms");
    writer.Int(static_cast<int64_t>(*line.ttl_ms));
  } else if (line.for_ever) {
    writer.Key("ttl_ms");
    writer.Null();
  }
  if (line.fence != 0) {
    std::string wire_of_fence;
    SH_RETURN_IF_ERROR(ValueFromJson(std::to_string(line.fence), &wire_of_fence));
    writer.Key("fence");
    writer.Wire(wire_of_fence);
  }
  writer.EndMap();
  SH_RETURN_IF_ERROR(writer.Finish());
  return ValueToJson(wire, text);
}

}  // namespace statehouse::cli
