// ChangeClaim: the word of a dict's segment that says which change gets the next revision of its
// feed.
//
//   closed --OpenClaims--> open: the feed has `revision` --a follower--> of a lane
//     ^------------------------------ Drain ---------------------------------'
//
// Always true: a claim says that the first record of that lane that the feed has not read gets the
// revision after `revision`, whoever drains the rings, the next daemon too. Nobody claims while
// they are drained. Words of other revisions say nothing.
// Failure: every worker that may write the dict can write this word. What makes no sense is as if
// nobody had claimed.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/base/limits.h"

namespace statehouse {

class ChangeClaim final {
 public:
  static constexpr uint64_t Open(uint64_t revision) { return revision << kLaneFieldBits; }
  static constexpr uint64_t Closed(uint64_t revision) { return Open(revision) | kClosed; }
  static constexpr uint64_t Of(uint64_t revision, uint32_t lane) {
    return Open(revision) | (lane + 1);
  }
  // Whose record comes after `revision`, if the word says that.
  static constexpr std::optional<uint32_t> LaneAfter(uint64_t revision, uint64_t word) {
    const uint64_t field = word ^ Open(revision);
    if (field == 0 || field > kLanesMax) return std::nullopt;
    return static_cast<uint32_t>(field - 1);
  }

 private:
  static constexpr int kLaneFieldBits = kLaneBits + 1;  // 0: open.
  static constexpr uint64_t kClosed = (uint64_t{1} << kLaneFieldBits) - 1;
  static_assert(kClosed > kLanesMax);
};

}  // namespace statehouse
