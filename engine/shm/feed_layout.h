// The layout of a dict's feed: its changes in the order of their revisions, in a memfd that no
// worker gets and that the keeper carries from one daemon to the next ("feed.<dict id>").
// docs/formats/feed.md explains it.
//
//   0        head (4 KiB): what it is, and the marks twice
//   4096     cursors: kLanesMax x 32 B
//   135168   log: a ring of log_bytes
//
// Crash rule: a batch is written behind the marks' head, with the cursors that it reaches, and then
// the other copy of the marks is filled and `active` names it. A daemon killed anywhere leaves a
// batch that either stands or does not; one that does not is read from the lanes' rings again.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine/base/limits.h"

namespace statehouse {

inline constexpr uint64_t kFeedMagic = 0x3130444545464853;  // "SHFEED01"
inline constexpr uint64_t kFeedVersion = 1;

struct FeedMarks {
  std::atomic<uint64_t> generation;     // Of the dict's segment that the cursors lead into.
  std::atomic<uint64_t> head_position;  // Bytes ever written to the log …
  std::atomic<uint64_t> head_revision;  // … and the revision of the last change in it.
  std::atomic<uint64_t> tail_position;  // Where the oldest change stands …
  std::atomic<uint64_t> tail_revision;  // … and its revision; one more than the head's: none.
  uint64_t reserved[3];
};
static_assert(sizeof(FeedMarks) == 64);

struct FeedHead {
  uint64_t magic;
  uint64_t version;
  uint64_t log_bytes;
  uint64_t dict_id;
  std::atomic<uint64_t> active;  // 0 or 1: the marks that count.
  uint64_t reserved[3];
  FeedMarks marks[2];
};
static_assert(sizeof(FeedHead) == 192);

// How far a lane's ring was read when the head had that revision. Of the two, the one with the
// higher revision that is not above the head's counts.
struct FeedCursor {
  struct {
    std::atomic<uint64_t> position;
    std::atomic<uint64_t> revision;
  } slots[2];
};
static_assert(sizeof(FeedCursor) == 32);

inline constexpr uint64_t kFeedCursorsOffset = kPageBytes;
inline constexpr uint64_t kFeedLogOffset = kFeedCursorsOffset + kLanesMax * sizeof(FeedCursor);
static_assert(kFeedLogOffset % kPageBytes == 0);

// A change in the log, followed by the key and the value's bytes; padded to 8 bytes.
struct FeedRecord {
  uint32_t record_bytes;
  uint8_t operation;  // FeedOperation.
  uint8_t kind;       // DictKind of the new value.
  uint16_t key_bytes;
  uint32_t value_bytes;
  uint32_t flags;
  uint64_t revision;
  uint64_t version;
  uint64_t bits;     // A number's value; of a gap why.
  uint64_t time_ms;  // Unix time when it was read from the ring.
};
static_assert(sizeof(FeedRecord) == 48);
// The value is not there: the entry had changed again when its change was read.
inline constexpr uint32_t kFeedValueGone = 1;

enum class FeedOperation : uint8_t {
  kPut = 1,  // These as ChangeOperation.
  kDelete = 2,
  kExpire = 3,
  kEvict = 4,
  kGap = 16,    // Changes are missing before it.
  kMoved = 17,  // The dict went on in a larger segment, and nothing is missing; or nothing at all.
};

enum class FeedGap : uint8_t {
  kOverrun = 1,   // A lane wrote its ring over before it was read.
  kDamaged = 2,   // What a ring held made no sense.
  kReplaced = 3,  // The dict was cleared, or moved without its rings.
};

}  // namespace statehouse
