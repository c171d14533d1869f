#include "engine/value/testing/value_invariants.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/value/edit.h"
#include "engine/value/json.h"
#include "engine/value/path.h"
#include "engine/value/value.h"

namespace statehouse::testing {
namespace {

#define SH_MUST(condition)                                                         \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                \
    }                                                                              \
  } while (false)

bool IsInside(std::string_view part, std::string_view whole) {
  return part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
}

// Takes the input apart; an input that is too short gives zeros and empty texts.
class Input final {
 public:
  explicit Input(std::string_view rest) : rest_(rest) {}

  unsigned Byte() {
    const std::string_view byte = Text(1);
    return byte.empty() ? 0 : static_cast<unsigned char>(byte[0]);
  }
  std::string_view Text(size_t length) {
    const std::string_view text = rest_.substr(0, length);
    rest_.remove_prefix(text.size());
    return text;
  }
  PathStep Step() {
    const unsigned byte = Byte();
    return byte < 128 ? PathStep::Key(Text(byte)) : PathStep::Index(static_cast<int>(byte) - 192);
  }
  std::string_view Rest() const { return rest_; }

 private:
  std::string_view rest_;
};

// Reads all that a value says to have inside. Each level has fewer bytes than the one around it.
size_t CountValues(std::string_view wire) {
  const ValueView view(wire);
  if (view.kind() == ValueKind::kInvalid) return 0;
  size_t count = 1;
  std::string_view key;
  std::string_view value;
  TaggedValue tagged;
  TensorValue tensor;
  if (view.kind() == ValueKind::kList) {
    for (ListReader reader(view.payload()); reader.Next(&value);) {
      SH_MUST(IsInside(value, wire));
      count += CountValues(value);
    }
  }
  if (view.kind() == ValueKind::kMap) {
    for (MapReader reader(view.payload()); reader.Next(&key, &value);) {
      SH_MUST((key.empty() || IsInside(key, wire)) && IsInside(value, wire));
      count += CountValues(value);
    }
  }
  if (view.ReadTagged(&tagged)) count += CountValues(tagged.value);
  if (view.ReadTensor(&tensor)) SH_MUST(tensor.data.empty() || IsInside(tensor.data, wire));
  return count;
}

void CheckText(std::string_view text) {
  const StatusOr<Path> path = ParsePath(text);
  if (path.ok()) {
    const StatusOr<Path> again = ParsePath(PathText(path->steps()));
    SH_MUST(again.ok());
    SH_MUST(PathText(again->steps()) == PathText(path->steps()));
  }
  std::string wire;
  if (!ValueFromJson(text, &wire).ok()) return;
  std::string json;
  std::string wire_again;
  SH_MUST(ValueToJson(wire, &json).ok());
  SH_MUST(ValueFromJson(json, &wire_again).ok());
  SH_MUST(wire_again == wire);
}

void CheckEdit(std::string_view current, bool is_value, std::span<const PathStep> path,
               const Edit& edit) {
  std::string next = "untouched";
  EditResult result;
  const Status edited = EditValue(current, path, edit, &next, &result);
  if (!edited.ok()) {
    SH_MUST(next == "untouched");
    SH_MUST(!edited.message().empty());
    return;
  }
  SH_MUST(next.size() <= kValueBytesMax || !result.changed);
  for (const std::string_view part : {result.removed, result.found, result.removed_key}) {
    SH_MUST(part.empty() || IsInside(part, current));
  }
  if (!is_value && !current.empty()) return;
  SH_MUST(CheckValue(next).ok());
  SH_MUST(result.removed.empty() || CheckValue(result.removed).ok());
}

}  // namespace

void CheckValueInvariants(std::string_view bytes) {
  Input input(bytes);
  Edit edit;
  edit.kind = static_cast<EditKind>(input.Byte() % 16);
  const unsigned flags = input.Byte();
  const auto number = static_cast<signed char>(input.Byte());
  std::vector<PathStep> path(input.Byte() % 4);
  for (PathStep& step : path) step = input.Step();
  edit.create_parents = (flags & 1) != 0;
  edit.create_missing = (flags & 2) != 0;
  if ((flags & 4) != 0) edit.initial = Number::Int(number);
  if ((flags & 8) != 0) edit.item = input.Step();
  if ((flags & 16) != 0) edit.min = Number::Int(-3);
  edit.delta = (flags & 32) != 0 ? Number::Float(number) : Number::Int(number);
  edit.start = number;
  if ((flags & 64) != 0) edit.stop = -number;
  edit.value = input.Text(input.Byte());
  // A copy of its own, so that a sanitizer sees a step outside.
  const std::string value(input.Rest());

  const bool is_value = CheckValue(value).ok();
  SH_MUST((CountValues(value) > 0) == (ValueView(value).kind() != ValueKind::kInvalid));
  SH_MUST(ValuesEqual(value, value));
  SH_MUST(ValuesEqual(value, edit.value) == ValuesEqual(edit.value, value));
  std::string_view found;
  if (GetPath(value, path, &found).ok()) {
    SH_MUST(IsInside(found, value));
    SH_MUST(!is_value || CheckValue(found).ok());
  }
  CheckEdit(value, is_value, path, edit);
  CheckText(value);
  std::string json = "untouched";
  SH_MUST(ValueToJson(value, &json).ok() == is_value);
  if (!is_value) return;
  std::string again;
  SH_MUST(ValueFromJson(json, &again).ok());
  SH_MUST(ValuesEqual(again, value));
}

}  // namespace statehouse::testing
