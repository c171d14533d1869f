// EditValue, the walk along the path, and the edits of the value at its end.
#include "engine/value/editor.h"

#include "engine/value/locate.h"
#include "engine/value/value_writer.h"
#include "engine/value/wire.h"

namespace statehouse {

Status EditValue(std::string_view current, std::span<const PathStep> path, const Edit& edit,
                 std::string* next, EditResult* result) {
  SH_RETURN_IF_ERROR(CheckPath(path));
  internal::Editor editor(current, path, edit, next);
  SH_RETURN_IF_ERROR(editor.Run());
  *result = editor.result();
  return Status();
}

namespace internal {

namespace {

Status TaggedRefused(std::span<const PathStep> path) {
  return PathError(Reason::kTypeMismatch, path,
                   "a tuple, a set or another tagged value is not edited inside; replace it as a "
                   "whole");
}

}  // namespace

Status Editor::Run() {
  switch (edit_.kind) {
    case EditKind::kSet: return Set();
    case EditKind::kSetDefault: return SetDefault();
    case EditKind::kDelete: return Delete();
    case EditKind::kIncrement: return Increment();
    case EditKind::kAppend:
    case EditKind::kExtend:
    case EditKind::kInsert:
    case EditKind::kPop:
    case EditKind::kRemoveValue:
    case EditKind::kMergeMap:
    case EditKind::kClear:
    case EditKind::kSetSlice:
    case EditKind::kStringAppend:
    case EditKind::kBytesAppend: return EditContents();
  }
  return Status(Reason::kInvalidArgument,
                "there is no edit number " + std::to_string(static_cast<int>(edit_.kind)));
}

// Enters what the path leads through. A map key that is not there is no failure yet: it can be the
// one to add. Then the innermost part entered is the map that lacks it.
Status Editor::Walk(std::span<const PathStep> path) {
  value_ = current_;
  is_missing_ = current_.empty();
  for (steps_found_ = 0; !is_missing_ && steps_found_ < path.size();) {
    const ValueView view(value_);
    if (view.kind() == ValueKind::kTagged) return TaggedRefused(path.first(steps_found_));
    const PathStep& step = path[steps_found_];
    Child child;
    bool is_found = false;
    if (view.kind() == ValueKind::kMap && step.kind == PathStep::Kind::kKey &&
        FindKey(view.payload(), step.key, &child, &is_found) && !is_found) {
      splice_.Enter(view.payload());
      is_missing_ = true;
      return Status();
    }
    if (!is_found) SH_RETURN_IF_ERROR(FindChild(view, path, steps_found_, &child));
    splice_.Enter(view.payload());
    if (child.entry.data() != nullptr) splice_.Enter(child.entry);
    splice_.Enter(child.value);
    value_ = child.value;
    ++steps_found_;
  }
  return Status();
}

Status Editor::NotFound() const {
  if (current_.empty()) {
    return PathError(Reason::kPathNotFound, {}, "there is no value yet; nothing was changed");
  }
  const size_t named = steps_found_ < path_.size() ? steps_found_ + 1 : steps_found_;
  return PathError(Reason::kPathNotFound, path_.first(named),
                   "the map has no such key; nothing was changed");
}

// Adds the path's last key with a value, after the maps that lead to it.
Status Editor::PutMissing(std::string_view wire) {
  // Without a value at the top, every step needs its map; else the first one has it.
  const size_t maps_from = current_.empty() ? 0 : steps_found_ + 1;
  const std::span<const PathStep> to_make = path_.subspan(maps_from);
  if (!to_make.empty() && !edit_.create_parents) return NotFound();
  for (const PathStep& step : to_make) {
    if (step.kind != PathStep::Kind::kKey) return NotFound();
  }
  if (path_.size() >= kValueDepthMax) {
    return PathError(Reason::kValueInvalid, path_, "more than 32 values inside each other");
  }
  std::string nested;
  if (!to_make.empty()) {
    ValueWriter writer(&nested);
    for (const PathStep& step : to_make) {
      writer.BeginMap();
      writer.Key(step.key);
    }
    writer.Wire(wire);
    for (size_t i = 0; i < to_make.size(); ++i) writer.EndMap();
    SH_RETURN_IF_ERROR(writer.Finish());
    wire = nested;
  }
  if (current_.empty()) {
    splice_.Add(wire);
    return splice_.Write(next_);
  }
  const std::string_view key = path_[steps_found_].key;
  const size_t key_bytes = key.empty() ? 0 : 1 + VarintBytes(key.size()) + key.size();
  const size_t value_bytes = 1 + VarintBytes(wire.size()) + wire.size();
  char before_key[2 + 2 * kVarintBytesMax] = {kItemTag};
  char* at = PutVarint(before_key + 1, key_bytes + value_bytes);
  if (!key.empty()) {
    *at++ = kKeyTag;
    at = PutVarint(at, key.size());
  }
  char before_value[1 + kVarintBytesMax] = {kInnerTag};
  const char* const end = PutVarint(before_value + 1, wire.size());
  splice_.InsertAtEnd();
  splice_.Add({before_key, static_cast<size_t>(at - before_key)});
  splice_.Add(key);
  splice_.Add({before_value, static_cast<size_t>(end - before_value)});
  splice_.Add(wire);
  return splice_.Write(next_);
}

Status Editor::Set() {
  SH_RETURN_IF_ERROR(CheckValueBelow(edit_.value, path_.size()));
  SH_RETURN_IF_ERROR(Walk(path_));
  if (is_missing_) return PutMissing(edit_.value);
  result_.removed = value_;
  splice_.Add(edit_.value);
  return splice_.Write(next_);
}

Status Editor::SetDefault() {
  SH_RETURN_IF_ERROR(CheckValueBelow(edit_.value, path_.size()));
  SH_RETURN_IF_ERROR(Walk(path_));
  if (is_missing_) return PutMissing(edit_.value);
  result_.found = value_;
  result_.changed = false;
  next_->assign(current_);
  return Status();
}

Status Editor::Delete() {
  if (path_.empty()) {
    return Status(Reason::kInvalidArgument,
                  "the path is empty; to delete a whole value, delete its entry");
  }
  SH_RETURN_IF_ERROR(Walk(path_.first(path_.size() - 1)));
  if (is_missing_) return NotFound();
  const ValueView container(value_);
  if (container.kind() == ValueKind::kTagged) return TaggedRefused(path_.first(path_.size() - 1));
  Child child;
  SH_RETURN_IF_ERROR(FindChild(container, path_, path_.size() - 1, &child));
  splice_.Enter(container.payload());
  return RemoveItem(child.entry.data() == nullptr ? child.value : child.entry, child.value);
}

Status Editor::RemoveItem(std::string_view bytes, std::string_view value) {
  result_.removed = value;
  splice_.Replace(FieldStart(bytes), bytes.data() + bytes.size());
  return splice_.Write(next_);
}

}  // namespace internal
}  // namespace statehouse
