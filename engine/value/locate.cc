#include "engine/value/locate.h"

#include <string>

#include "engine/value/wire.h"

namespace statehouse::internal {
namespace {

constexpr char kMalformed[] = "the bytes here are no value; write it again";

Status FindIndex(std::string_view payload, std::span<const PathStep> path, int64_t index,
                 Child* child) {
  int64_t wanted = index;
  if (index < 0) {
    int64_t count = 0;
    if (!CountItems(payload, &count)) return PathError(Reason::kValueInvalid, path, kMalformed);
    wanted += count;  // Still negative when there is no such item.
  }
  ListReader reader(payload);
  int64_t passed = 0;
  while (wanted >= 0 && reader.Next(&child->value)) {
    if (passed++ == wanted) return Status();
  }
  if (wanted >= 0 && !reader.ok()) return PathError(Reason::kValueInvalid, path, kMalformed);
  return PathError(Reason::kPathNotFound, path,
                   "the list has no item at position " + std::to_string(index));
}

}  // namespace

Status PathError(Reason reason, std::span<const PathStep> path, const std::string& text) {
  return Status(reason, PathForMessage(path) + ": " + text);
}

const char* FieldStart(std::string_view bytes) {
  return bytes.data() - VarintBytes(bytes.size()) - 1;
}

bool CountItems(std::string_view payload, int64_t* count) {
  ListReader reader(payload);
  std::string_view item;
  int64_t items = 0;
  while (reader.Next(&item)) ++items;
  *count = items;
  return reader.ok();
}

std::string_view ItemAt(std::string_view payload, int64_t index) {
  ListReader reader(payload);
  std::string_view item;
  while (index-- >= 0 && reader.Next(&item)) continue;
  return item;
}

bool FindKey(std::string_view payload, std::string_view key, Child* child, bool* is_found) {
  WireReader reader(payload);
  *is_found = false;
  std::string_view entry;
  while (reader.Field(kItemTag, &entry)) {
    // Only the key is looked at until it is the one.
    WireReader inside(entry);
    std::string_view entry_key;
    if (inside.Take(kKeyTag) && !inside.Bytes(&entry_key)) return false;
    if (entry_key != key) continue;
    child->entry = entry;
    child->key = entry_key;
    *is_found = inside.Field(kInnerTag, &child->value) && inside.AtEnd();
    return *is_found;
  }
  return reader.AtEnd();
}

Status FindChild(const ValueView& container, std::span<const PathStep> path, size_t at,
                 Child* child) {
  const PathStep& step = path[at];
  const std::span<const PathStep> to_here = path.first(at);
  const std::span<const PathStep> to_step = path.first(at + 1);
  const ValueKind kind = container.kind();
  if (kind == ValueKind::kInvalid) return PathError(Reason::kValueInvalid, to_here, kMalformed);
  if (kind == ValueKind::kMap && step.kind == PathStep::Kind::kKey) {
    bool is_found = false;
    if (!FindKey(container.payload(), step.key, child, &is_found)) {
      return PathError(Reason::kValueInvalid, to_here, kMalformed);
    }
    if (is_found) return Status();
    return PathError(Reason::kPathNotFound, to_step, "the map has no such key");
  }
  if (kind == ValueKind::kList && step.kind == PathStep::Kind::kIndex) {
    return FindIndex(container.payload(), to_step, step.index, child);
  }
  if (kind == ValueKind::kMap) {
    return PathError(Reason::kTypeMismatch, to_step,
                     "a map has keys, not positions; give the step as a key");
  }
  if (kind == ValueKind::kList) {
    return PathError(Reason::kTypeMismatch, to_step,
                     "a list has positions, not keys; give the step as a position");
  }
  return PathError(Reason::kTypeMismatch, to_step,
                   "the step leads into a value of kind " + std::string(ValueKindName(kind)) +
                       "; only lists and maps have values inside");
}

}  // namespace statehouse::internal
