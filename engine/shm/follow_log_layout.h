// The layout of a dict's follow log: its changes in the order of their revisions, for clients of
// this host that follow it by themselves. The daemon that made it is the only one that can write
// it, and it ends with that daemon. docs/formats/follow_log.md explains it.
//
//   0        head (4 KiB)
//   4096     log: a ring of log_bytes, of records as in engine/shm/feed_layout.h
//
// A reader takes a record below head_position, copies it and looks at tail_position afterwards:
// what stands before that may have been written over.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "engine/base/limits.h"
#include "engine/shm/feed_layout.h"

namespace statehouse {

inline constexpr uint64_t kFollowLogMagic = 0x3130474C4F464853;  // "SHFOLG01"
inline constexpr uint64_t kFollowLogVersion = 1;

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
  uint32_t reserved1[11];
};
static_assert(sizeof(FollowLogHead) == 128);
static_assert(offsetof(FollowLogHead, head_position) == 64);
static_assert(offsetof(FollowLogHead, event) == 80);

inline constexpr uint64_t kFollowLogOffset = kPageBytes;

}  // namespace statehouse
