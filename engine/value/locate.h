// Finding one value inside a list or a map. Internal to engine/value: paths read with it, edits
// learn from it which bytes to replace.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "engine/base/status.h"
#include "engine/value/path.h"
#include "engine/value/value.h"

namespace statehouse::internal {

// A value inside a container. All views point into the container's bytes; what stands before a view
// is its length as the shortest varint, and its tag.
struct Child {
  std::string_view value;
  std::string_view entry;  // Of a map: what holds key and value.
  std::string_view key;    // Of a map.
};

// Finds what step `at` of the path leads to from a list or map. PATH_NOT_FOUND, TYPE_MISMATCH or
// VALUE_INVALID, naming the step.
Status FindChild(const ValueView& container, std::span<const PathStep> path, size_t at,
                 Child* child);

// Looks for a key. `*is_found` says whether `*child` is set. False for bytes that are no map.
bool FindKey(std::string_view payload, std::string_view key, Child* child, bool* is_found);

// Counts the values of a list or the entries of a map: both are fields of one tag. False for bytes
// that are neither.
bool CountItems(std::string_view payload, int64_t* count);

// Finds the item of a list at a position from 0 on. REQUIRES: the list is well formed that far.
std::string_view ItemAt(std::string_view payload, int64_t index);

// Where the length-delimited field begins that holds `bytes`: its tag.
const char* FieldStart(std::string_view bytes);

// "a.b[3]: " and the text, with a reason.
Status PathError(Reason reason, std::span<const PathStep> path, const std::string& text);

}  // namespace statehouse::internal
