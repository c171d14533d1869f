// The layout of a dict's follow log: its changes in the order of their revisions, for clients of
// this host that follow it by themselves. The daemon that made it is the only one that can write
// it, and it ends with that daemon. docs/formats/follow_log.md explains it.
//
//   0        head (4 KiB)
//   4096     cursors: kLanesMax x 8 B
//   36864    log: a ring of log_bytes, of records as in engine/shm/feed_layout.h
//
// A reader takes a record below head_position, copies it and looks at tail_position afterwards:
// what stands before that may have been written over. Cursors say how far each lane's ring is in
// the log, where cursors_next is the revision after the log's before and after they are read.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "engine/base/limits.h"
#include "engine/shm/feed_layout.h"

namespace statehouse {

inline constexpr uint64_t kFollowLogMagic = 0x3130474C4F464853;  // "SHFOLG01"
inline constexpr uint64_t kFollowLogVersion = 2;

struct FollowLogHead {
  uint64_t magic;
  uint64_t version;
  uint64_t log_bytes;
  uint64_t dict_id;
  uint64_t log_id;
  uint64_t reserved0[3];
  std::atomic<uint64_t> head_position;  // Bytes ever written to the log.
  std::atomic<uint64_t> tail_position;  // Where the oldest record stands.
  std::atomic<uint32_t> event;          // Grows with head_position; followers sleep on it.
  uint32_t reserved1;
  std::atomic<uint64_t> cursors_next;  // 0: they mean nothing.
  uint32_t reserved2[8];
};
static_assert(sizeof(FollowLogHead) == 128);
static_assert(offsetof(FollowLogHead, head_position) == 64);
static_assert(offsetof(FollowLogHead, event) == 80);
static_assert(offsetof(FollowLogHead, cursors_next) == 88);

inline constexpr uint64_t kFollowCursorsOffset = kPageBytes;
inline constexpr uint64_t kFollowLogOffset =
    kFollowCursorsOffset + kLanesMax * sizeof(std::atomic<uint64_t>);
static_assert(kFollowLogOffset % kPageBytes == 0);

}  // namespace statehouse
