// The edits inside a container: lists as Python's list does it, maps as its dict, and texts.
#include <algorithm>
#include <array>
#include <string>

#include "engine/value/editor.h"
#include "engine/value/key_index.h"
#include "engine/value/locate.h"
#include "engine/value/value_writer.h"
#include "engine/value/wire.h"

namespace statehouse::internal {
namespace {

// A position of a slice: negative ones count from the end, and what is outside is at an end.
int64_t Clamp(int64_t position, int64_t count) {
  if (position < 0) position = std::max(position + count, int64_t{0});
  return std::min(position, count);
}

// Where the item at a position begins, or the end behind the last one.
const char* ItemStart(std::string_view payload, int64_t index, int64_t count) {
  if (index >= count) return payload.data() + payload.size();
  return FieldStart(ItemAt(payload, index));
}

void AppendEntry(std::string* out, std::string_view key, std::string_view value) {
  const size_t key_bytes = key.empty() ? 0 : 1 + VarintBytes(key.size()) + key.size();
  out->push_back(kItemTag);
  AppendVarint(out, key_bytes + 1 + VarintBytes(value.size()) + value.size());
  if (!key.empty()) {
    out->push_back(kKeyTag);
    AppendVarint(out, key.size());
    out->append(key);
  }
  out->push_back(kInnerTag);
  AppendVarint(out, value.size());
  out->append(value);
}

}  // namespace

Status Editor::EditContents() {
  SH_RETURN_IF_ERROR(CheckOperand());
  SH_RETURN_IF_ERROR(Walk(path_));
  if (is_missing_) return MakeMissing();
  const ValueView view(value_);
  if (view.kind() == ValueKind::kInvalid) {
    return PathError(Reason::kValueInvalid, path_, "the bytes here are no value; write it again");
  }
  splice_.Enter(view.payload());
  switch (edit_.kind) {
    case EditKind::kPop: return Pop(view);
    case EditKind::kClear: return Clear(view);
    case EditKind::kMergeMap:
      if (view.kind() != ValueKind::kMap) return WrongKind(view, "a merge needs a map");
      return Merge(view.payload());
    case EditKind::kStringAppend:
    case EditKind::kBytesAppend: return AppendBytes(view);
    default:
      if (view.kind() != ValueKind::kList) return WrongKind(view, "this edit needs a list");
      return EditList(view);
  }
}

Status Editor::WrongKind(const ValueView& found, const char* needed) const {
  return PathError(
      Reason::kTypeMismatch, path_,
      std::string(needed) + ", and this is of kind " + std::string(ValueKindName(found.kind())));
}

// Whether `edit.value` is what the kind of edit takes, and fits at its place.
Status Editor::CheckOperand() const {
  switch (edit_.kind) {
    case EditKind::kPop:
    case EditKind::kClear:
    case EditKind::kBytesAppend: return Status();
    case EditKind::kStringAppend:
      if (IsUtf8(edit_.value)) return Status();
      return PathError(Reason::kValueInvalid, path_, "the text to append is not UTF-8");
    case EditKind::kAppend:
    case EditKind::kInsert:
    case EditKind::kRemoveValue: return CheckValueBelow(edit_.value, path_.size() + 1);
    default: break;
  }
  SH_RETURN_IF_ERROR(CheckValueBelow(edit_.value, path_.size()));
  const ValueView operand(edit_.value);
  const bool is_map = edit_.kind == EditKind::kMergeMap;
  if (operand.kind() == (is_map ? ValueKind::kMap : ValueKind::kList)) return Status();
  return WrongKind(operand, is_map ? "the keys to merge come as a map"
                                   : "the items to put into the list come as a list");
}

// The edit of an empty list, map, string or bytes that is not there yet.
Status Editor::MakeMissing() {
  const bool makes = edit_.kind != EditKind::kPop && edit_.kind != EditKind::kClear &&
                     edit_.kind != EditKind::kRemoveValue;
  if (!edit_.create_missing || !makes) return NotFound();
  const ValueView operand(edit_.value);
  int64_t count = 1;
  std::string wire;
  ValueWriter writer(&wire);
  switch (edit_.kind) {
    case EditKind::kStringAppend:
      writer.String(edit_.value);
      count = static_cast<int64_t>(edit_.value.size());
      break;
    case EditKind::kBytesAppend:
      writer.Bytes(edit_.value);
      count = static_cast<int64_t>(edit_.value.size());
      break;
    case EditKind::kAppend:
    case EditKind::kInsert:
      writer.BeginList();
      writer.Wire(edit_.value);
      writer.EndList();
      break;
    default: writer.Wire(edit_.value); CountItems(operand.payload(), &count);
  }
  SH_RETURN_IF_ERROR(writer.Finish());
  if (wire.size() > kValueBytesMax) {
    return PathError(Reason::kValueInvalid, path_, "a value has at most 1,048,576 bytes");
  }
  result_.length = static_cast<uint64_t>(count);
  return PutMissing(wire);
}

Status Editor::EditList(const ValueView& list) {
  const std::string_view payload = list.payload();
  int64_t count = 0;
  if (!CountItems(payload, &count)) {
    return PathError(Reason::kValueInvalid, path_, "the bytes here are no list; write it again");
  }
  switch (edit_.kind) {
    case EditKind::kAppend: return Insert(payload, count, count);
    case EditKind::kInsert: return Insert(payload, count, Clamp(edit_.start, count));
    case EditKind::kExtend: return SetSlice(payload, count, count, count);
    case EditKind::kSetSlice:
      return SetSlice(payload, count, Clamp(edit_.start, count), Clamp(edit_.stop, count));
    default: return RemoveEqual(payload, count);
  }
}

Status Editor::Insert(std::string_view payload, int64_t count, int64_t start) {
  char header[1 + kVarintBytesMax] = {kItemTag};
  const char* const end = PutVarint(header + 1, edit_.value.size());
  const char* const at = ItemStart(payload, start, count);
  splice_.Replace(at, at);
  splice_.Add({header, static_cast<size_t>(end - header)});
  splice_.Add(edit_.value);
  result_.length = static_cast<uint64_t>(count + 1);
  return splice_.Write(next_);
}

Status Editor::SetSlice(std::string_view payload, int64_t count, int64_t start, int64_t stop) {
  stop = std::max(start, stop);
  const std::string_view items = ValueView(edit_.value).payload();
  int64_t added = 0;
  CountItems(items, &added);
  const char* const begin = ItemStart(payload, start, count);
  splice_.Replace(begin, stop == start ? begin : ItemStart(payload, stop, count));
  splice_.Add(items);
  result_.length = static_cast<uint64_t>(count - (stop - start) + added);
  return splice_.Write(next_);
}

Status Editor::RemoveEqual(std::string_view payload, int64_t count) {
  ListReader reader(payload);
  std::string_view item;
  while (reader.Next(&item)) {
    if (!ValuesEqual(item, edit_.value)) continue;
    result_.length = static_cast<uint64_t>(count - 1);
    return RemoveItem(item, item);
  }
  return PathError(Reason::kPathNotFound, path_,
                   "the list has no such value to remove; nothing was changed");
}

Status Editor::Pop(const ValueView& container) {
  const bool is_map = container.kind() == ValueKind::kMap;
  if (!is_map && container.kind() != ValueKind::kList) {
    return WrongKind(container, "a pop needs a list or a map");
  }
  int64_t count = 0;
  if (!CountItems(container.payload(), &count)) {
    return PathError(Reason::kValueInvalid, path_, "the bytes here are no value; write it again");
  }
  if (count == 0) {
    return PathError(Reason::kPathNotFound, path_, "it is empty, so there is nothing to pop");
  }
  result_.length = static_cast<uint64_t>(count - 1);
  Child child;
  if (is_map && !edit_.item) {
    child.entry = ItemAt(container.payload(), count - 1);
    if (!SplitEntry(child.entry, &child.key, &child.value)) {
      return PathError(Reason::kValueInvalid, path_, "the bytes here are no map; write it again");
    }
  } else {
    std::array<PathStep, kPathStepsMax + 1> longer;
    std::copy(path_.begin(), path_.end(), longer.begin());
    longer[path_.size()] = edit_.item.value_or(PathStep::Index(-1));
    SH_RETURN_IF_ERROR(
        FindChild(container, {longer.data(), path_.size() + 1}, path_.size(), &child));
  }
  result_.removed_key = child.key;
  return RemoveItem(is_map ? child.entry : child.value, child.value);
}

Status Editor::Clear(const ValueView& container) {
  if (container.kind() != ValueKind::kMap && container.kind() != ValueKind::kList) {
    return WrongKind(container, "only a list or a map can be cleared");
  }
  return splice_.Write(next_);
}

// Writes the whole map anew: its entries in their order with the values that were given, then the
// new keys in theirs.
Status Editor::Merge(std::string_view payload) {
  const std::string_view given = ValueView(edit_.value).payload();
  KeyIndex index(given);
  std::string merged;
  merged.reserve(payload.size() + given.size());
  uint64_t count = 0;
  std::string_view key;
  std::string_view value;
  MapReader present(payload);
  while (present.Next(&key, &value)) {
    KeyPlace* const place = index.Find(key);
    if (place != nullptr) place->is_used = true;
    AppendEntry(&merged, key, place == nullptr ? value : place->value);
    ++count;
  }
  if (!present.ok()) {
    return PathError(Reason::kValueInvalid, path_, "the bytes here are no map; write it again");
  }
  MapReader more(given);
  while (more.Next(&key, &value)) {
    if (index.Find(key)->is_used) continue;
    AppendEntry(&merged, key, value);
    ++count;
  }
  result_.length = count;
  splice_.Add(merged);
  return splice_.Write(next_);
}

Status Editor::AppendBytes(const ValueView& container) {
  const bool is_text = edit_.kind == EditKind::kStringAppend;
  if (container.kind() != (is_text ? ValueKind::kString : ValueKind::kBytes)) {
    return WrongKind(container,
                     is_text ? "a text is appended to a string" : "bytes are appended to bytes");
  }
  splice_.InsertAtEnd();
  splice_.Add(edit_.value);
  result_.length = container.payload().size() + edit_.value.size();
  return splice_.Write(next_);
}

}  // namespace statehouse::internal
