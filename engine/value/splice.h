// Splice: a copy of some bytes with one part replaced, and the lengths around it corrected.
// Internal to engine/value.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "engine/value/limits.h"

namespace statehouse::internal {

// Collects what to replace, then writes the copy. A stack object of one function; borrows all
// bytes. Always true: each part that was entered lies inside the one entered before it, and the
// replaced part inside all of them. Write fails, and touches nothing, when the copy would be too
// large.
class Splice final {
 public:
  explicit Splice(std::string_view whole) : whole_(whole), replaced_(whole) {}

  // The change is inside `payload`, a length-delimited part whose length stands before it.
  void Enter(std::string_view payload) {
    parts_[part_count_++] = payload;
    replaced_ = payload;
  }

  // What goes away, also nothing; without this call, all that was entered last.
  void Replace(const char* begin, const char* end) {
    replaced_ = {begin, static_cast<size_t>(end - begin)};
  }

  // Nothing goes away; what is added comes behind all that was entered last.
  void InsertAtEnd() { replaced_.remove_prefix(replaced_.size()); }

  // The next piece of what comes instead.
  void Add(std::string_view piece) { pieces_[piece_count_++] = piece; }

  Status Write(std::string* next) const;

 private:
  // A step of a path enters a container, an entry and a value; then comes the last container.
  static constexpr size_t kPartsMax = 3 * kPathStepsMax + 1;
  static constexpr size_t kPiecesMax = 4;

  std::string_view whole_;
  std::string_view replaced_;
  std::array<std::string_view, kPartsMax> parts_;
  size_t part_count_ = 0;
  std::array<std::string_view, kPiecesMax> pieces_;
  size_t piece_count_ = 0;
};

}  // namespace statehouse::internal
