// The part of the C interface that concerns values by themselves.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "clients/c/src/dict_handle.h"
#include "engine/value/json.h"
#include "engine/value/value.h"

namespace statehouse {
namespace {

ValueView ViewOf(sh_bytes value) {
  if (value.data == nullptr) return ValueView("");
  return ValueView(std::string_view(static_cast<const char*>(value.data), value.size));
}

Status GiveOut(const std::string& bytes, sh_buffer* buffer) {
  auto* const copy = static_cast<char*>(std::malloc(bytes.size() + 1));
  if (copy == nullptr) {
    return Status(Reason::kMemoryExhausted,
                  "no memory for " + std::to_string(bytes.size()) + " bytes");
  }
  std::memcpy(copy, bytes.data(), bytes.size());
  copy[bytes.size()] = '\0';
  buffer->data = copy;
  buffer->size = bytes.size();
  return Status();
}

Status Convert(sh_bytes from, sh_buffer* to, Status (*convert)(std::string_view, std::string*)) {
  if (to == nullptr) return Status(Reason::kInvalidArgument, "the buffer is NULL");
  SH_ASSIGN_OR_RETURN(const std::string_view bytes, ToBytes(from, "bytes"));
  std::string result;
  SH_RETURN_IF_ERROR(convert(bytes, &result));
  return GiveOut(result, to);
}

}  // namespace
}  // namespace statehouse

using statehouse::Finish;
using statehouse::ValueKind;
using statehouse::ValueView;

sh_value_kind sh_value_kind_of(sh_bytes value) {
  return static_cast<sh_value_kind>(statehouse::ViewOf(value).kind());
}

int sh_value_as_bool(sh_bytes value, int* result) {
  const ValueView view = statehouse::ViewOf(value);
  if (view.kind() != ValueKind::kBool) return 0;
  *result = view.AsBool();
  return 1;
}

int sh_value_as_int(sh_bytes value, int64_t* result) {
  const ValueView view = statehouse::ViewOf(value);
  if (view.kind() != ValueKind::kInt) return 0;
  *result = view.AsInt();
  return 1;
}

int sh_value_as_double(sh_bytes value, double* result) {
  const ValueView view = statehouse::ViewOf(value);
  if (view.kind() != ValueKind::kFloat) return 0;
  *result = view.AsFloat();
  return 1;
}

int sh_value_as_text(sh_bytes value, sh_bytes* result) {
  const ValueView view = statehouse::ViewOf(value);
  if (view.kind() != ValueKind::kString && view.kind() != ValueKind::kBytes) return 0;
  *result = statehouse::FromBytes(view.payload());
  return 1;
}

sh_reason sh_value_check(sh_bytes value, sh_error** error) {
  return Finish(statehouse::ToValue(value, "value").status(), nullptr, error);
}

sh_reason sh_value_from_json(sh_bytes json, sh_buffer* value, sh_error** error) {
  return Finish(statehouse::Convert(json, value, &statehouse::ValueFromJson), nullptr, error);
}

sh_reason sh_value_to_json(sh_bytes value, sh_buffer* json, sh_error** error) {
  return Finish(statehouse::Convert(value, json, &statehouse::ValueToJson), nullptr, error);
}

int64_t sh_number_as_int(sh_number number) {
  if (number.is_double == 0) return number.integer;
  constexpr double kBeyond = 9223372036854775808.0;  // 2^63.
  if (number.real >= kBeyond) return std::numeric_limits<int64_t>::max();
  if (number.real <= -kBeyond) return std::numeric_limits<int64_t>::min();
  return std::isnan(number.real) ? 0 : static_cast<int64_t>(number.real);
}

double sh_number_as_double(sh_number number) {
  return number.is_double != 0 ? number.real : static_cast<double>(number.integer);
}

void sh_buffer_free(sh_buffer* buffer) {
  if (buffer == nullptr) return;
  std::free(buffer->data);
  *buffer = sh_buffer{};
}
