// Paths into values: which value inside a value a call means, and how a path is written as text.
//
//   const PathStep path[] = {PathStep::Key("web"), PathStep::Key("ports"), PathStep::Index(1)};
//   std::string_view port;
//   SH_RETURN_IF_ERROR(GetPath(wire, path, &port));
//
// Threads: functions of their arguments; a Path is a value.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/value/limits.h"

namespace statehouse {

// One step from a map to one of its values, or from a list to one of its values. Borrows the key.
struct PathStep {
  enum class Kind : uint8_t { kKey, kIndex };

  static PathStep Key(std::string_view key) { return {Kind::kKey, key, 0}; }
  // Negative positions count from the end: -1 is the last.
  static PathStep Index(int64_t index) { return {Kind::kIndex, {}, index}; }
  bool operator==(const PathStep&) const = default;

  Kind kind = Kind::kKey;
  std::string_view key;
  int64_t index = 0;
};

// Finds the value at the end of a path: `*found` is its wire form, inside `value`. An empty path is
// the whole value. A step looks through tags, so that [0] leads into a tuple.
//   PATH_NOT_FOUND     no such key or position; the message names the step
//   TYPE_MISMATCH      a key for a list, a position for a map, or a step into anything else
//   VALUE_INVALID      what the path leads through is no value
//   INVALID_ARGUMENT   more than kPathStepsMax steps
// REQUIRES: `value` was checked, or may be anything: nothing outside it is read.
Status GetPath(std::string_view value, std::span<const PathStep> path, std::string_view* found);

// Whether the path may be used at all: not too many steps, keys as a map can have them
// (KEY_INVALID).
Status CheckPath(std::span<const PathStep> path);

// A path with its keys. Steps borrow from it and stay valid when it moves.
class Path final {
 public:
  Path() = default;
  Path(Path&&) = default;
  Path& operator=(Path&&) = default;

  std::span<const PathStep> steps() const { return steps_; }

 private:
  friend StatusOr<Path> ParsePath(std::string_view text);

  std::vector<char> keys_;  // Never grows once a step points into it.
  std::vector<PathStep> steps_;
};

// Reads a path as PathText writes it:
//
//   path  = [ first { step } ]          the empty text is the empty path
//   first = key | index
//   step  = "." key | index
//   key   = bare | quoted
//   bare  = one or more of A-Z a-z 0-9 _ -
//   quoted = '"' … '"' with the escapes \" \\ \b \f \n \r \t \uXXXX of JSON
//   index = "[" number "]"              0, 12, -1; no leading zeros
//
// For example  web.ports[1]."odd key"  or  [-1].name
// INVALID_ARGUMENT says at which byte the text is wrong.
StatusOr<Path> ParsePath(std::string_view text);

// The path as text, for people and for ParsePath. Keys that are not UTF-8 are written with U+FFFD
// in place of what is wrong, and do not come back.
std::string PathText(std::span<const PathStep> path);

namespace internal {

// PathText for an error message: cut after some two hundred bytes; "the value" for the empty path.
std::string PathForMessage(std::span<const PathStep> path);

}  // namespace internal
}  // namespace statehouse
