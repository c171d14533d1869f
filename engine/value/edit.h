// Edits: one change inside a value, made by copying the value with the changed part in place.
//
//   Edit edit;
//   edit.kind = EditKind::kIncrement;
//   edit.delta = Number::Int(1);
//   EditResult result;
//   SH_RETURN_IF_ERROR(EditValue(current, path, edit, &next, &result));
//   Publish(next);                                 // result.number is what it holds now.
//
// Threads: functions of their arguments. Nothing is kept between calls.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "engine/value/path.h"

namespace statehouse {

// What to do with the value at the end of the path. "Container" means a list or a map; a tuple or
// another tagged value is none, it is replaced as a whole.
enum class EditKind : uint8_t {
  kSet = 1,            // Replace the value, or add the map key; a list position must exist.
  kSetDefault = 2,     // Add the map key if it is missing; else only tell what it holds.
  kDelete = 3,         // Take the map key or list item away.
  kIncrement = 4,      // Add `delta` to an int or a float.
  kAppend = 5,         // Put `value` behind a list's last item.
  kExtend = 6,         // Put the items of the list `value` behind a list's last item.
  kInsert = 7,         // Put `value` before position `start` of a list, as Python's insert does.
  kPop = 8,            // Take `item` out of a list or map; without it, the last one.
  kRemoveValue = 9,    // Take the first item that equals `value` out of a list.
  kMergeMap = 10,      // Set each key of the map `value` in a map, as Python's update does.
  kClear = 11,         // Empty a list or map.
  kSetSlice = 12,      // Put the items of the list `value` in place of [start, stop) of a list.
  kStringAppend = 13,  // Put the text `value` behind a string.
  kBytesAppend = 14,   // Put the bytes `value` behind bytes.
};

// A number that is added or compared: an int64 or a double.
struct Number {
  static Number Int(int64_t number) { return {false, number, 0}; }
  static Number Float(double number) { return {true, 0, number}; }
  bool operator==(const Number&) const = default;

  bool is_float = false;
  int64_t integer = 0;
  double real = 0;
};

// One edit. A kind reads the members that name it and ignores the others. Borrows `value` and the
// key of `item`.
struct Edit {
  EditKind kind = EditKind::kSet;
  // The wire form of a value, checked by EditValue. kStringAppend and kBytesAppend: the bytes
  // themselves.
  std::string_view value;

  // kIncrement. A missing map key counts as `initial`; without it, it is PATH_NOT_FOUND. A result
  // below `min` or above `max` is VALUE_OUT_OF_RANGE.
  Number delta;
  std::optional<Number> initial;
  std::optional<Number> min;
  std::optional<Number> max;

  std::optional<PathStep> item;  // kPop
  // kInsert (start), kSetSlice: positions as in a Python slice: negative ones count from the end,
  // what is outside is moved to the nearest end, and stop is at least start.
  int64_t start = 0;
  int64_t stop = std::numeric_limits<int64_t>::max();

  // The kinds that can add a map key: make missing maps on the way to it.
  bool create_parents = false;
  // kAppend, kExtend, kInsert, kSetSlice, kMergeMap, kStringAppend, kBytesAppend: a missing map key
  // counts as an empty list, map, string or bytes.
  bool create_missing = false;
};

// What an edit did. The views point into the value that was edited.
struct EditResult {
  bool changed = true;       // False when kSetDefault found a value: there is nothing to store.
  std::string_view found;    // kSetDefault: the value that is there already.
  std::string_view removed;  // kSet, kDelete, kPop, kRemoveValue: the value that is gone, if any.
  std::string_view removed_key;  // kPop from a map.
  Number number;                 // kIncrement: the new number.
  uint64_t length = 0;  // kAppend … kBytesAppend: the new length: items, entries or bytes.
};

// Makes `*next` the value that `current` becomes. The empty `current` stands for no value: whatever
// can add a map key can then make the value itself (the empty path), or, with create_parents, the
// maps down to it. Maps keep the order of their keys; new keys come last.
//   PATH_NOT_FOUND       a step leads nowhere, there is nothing to pop or no equal value
//   TYPE_MISMATCH        what is there is of another kind than the edit needs; a float added to an
//                        int; an edit inside a tagged value
//   VALUE_OUT_OF_RANGE   the int overflows, or is outside min and max
//   VALUE_INVALID        `edit.value` is not well formed, or the value would become too large or
//                        too deep; or `current` is damaged where the edit looks at it
//   KEY_INVALID          a key of the path that no map can have
//   INVALID_ARGUMENT     too many steps; a deletion with the empty path; no such kind
// On failure neither `*next` nor `*result` is touched.
// REQUIRES: `current` was checked, or may be anything: nothing outside it is read, and what comes
// of it is bytes of no meaning. `*next` holds none of the bytes that the arguments borrow.
Status EditValue(std::string_view current, std::span<const PathStep> path, const Edit& edit,
                 std::string* next, EditResult* result);

}  // namespace statehouse
