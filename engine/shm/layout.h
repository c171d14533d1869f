// The layout of an area's segment, byte by byte. docs/formats/area_segment.md explains it; tests
// pin every offset here.
//
//   0                header (4 KiB, written once by the daemon)
//   4096             area line (64 B), then padding to 8192
//   8192             stripe lines: stripe_count x 64 B, padded to a page
//   …                lane records: lane_count x 256 B, sparse, padded to a page
//   …                journals: lane_count x atomic_range_bytes, sparse
//   control_bytes    data (in this segment or in a file of its own)
//
// Rules: no pointers, process ids or locks of the C library; whatever another CPU writes
// independently has a cache line of its own; geometry is never read from here (see AreaGeometry).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "engine/base/limits.h"

namespace statehouse {

inline constexpr uint64_t kSegmentMagic = 0x3130414552414853;  // "SHAREA01"
inline constexpr uint16_t kSegmentAbiMajor = 1;                // Readers refuse another one.
inline constexpr uint16_t kSegmentAbiMinor = 1;  // Readers ignore what they do not know.
inline constexpr uint32_t kByteOrderProbe = 0x01020304;

inline constexpr uint64_t kAreaLineOffset = 4096;
inline constexpr uint64_t kStripeLinesOffset = 8192;

enum class AreaState : uint32_t { kLive = 1, kDeleted = 2, kQuarantined = 3 };

// 0        8      10     12       16         20   24                            40
// | magic  | major| minor| probe  | features | 0  | uuid (16)                    | size, geometry
// copy for dumps …
struct SegmentHeader {
  uint64_t magic;
  uint16_t abi_major;
  uint16_t abi_minor;
  uint32_t byte_order_probe;
  uint32_t required_features;  // A reader that does not know a bit refuses.
  uint32_t reserved;
  uint64_t uuid[2];
  uint64_t size;
  uint32_t stripe_shift;
  uint32_t stripe_count;
  uint32_t lane_count;
  uint32_t reserved2;
  uint64_t atomic_range_bytes;
};
static_assert(sizeof(SegmentHeader) == 72);
static_assert(offsetof(SegmentHeader, uuid) == 24);
static_assert(offsetof(SegmentHeader, atomic_range_bytes) == 64);

// One for each area: what every mutation and every area-wide waiter looks at. Read-mostly.
struct alignas(kCacheLineBytes) AreaLine {
  std::atomic<uint32_t> state;  // AreaState.
  std::atomic<uint32_t>
      armed;  // 1: somebody may sleep on `event`; the next mutation clears it and wakes.
  std::atomic<uint32_t> event;  // Futex word.
  uint32_t reserved[13];
};
static_assert(sizeof(AreaLine) == 64);

// One for each stripe.
struct alignas(kCacheLineBytes) StripeLine {
  std::atomic<uint64_t> control;  // Owned sequence lock: sequence << 12 | owner lane (0 = free).
  std::atomic<uint64_t> range_counter;  // Odd while a range write changes bytes of this stripe.
  std::atomic<uint32_t> armed;          // As AreaLine, for waiters on this stripe alone.
  std::atomic<uint32_t> event;
  // The highest fencing token that wrote here; 0: none did. Changed by the stripe's holder only.
  std::atomic<uint64_t> fence;
  uint32_t reserved[8];
};
static_assert(sizeof(StripeLine) == 64);
static_assert(offsetof(StripeLine, fence) == 24);

// What a lane counted; plain numbers, summed over lanes when metrics are scraped.
struct LaneCounters {
  uint64_t mutations = 0;
  uint64_t contended = 0;  // Mutations that found a stripe held.
  uint64_t wakes = 0;
};

// One for each lane: its intent, its redo record and its counters. Written by the lane's thread
// only; read by recovery.
struct alignas(kCacheLineBytes) LaneRecord {
  // Intent: the stripes that are being taken, as first | count << 32. Meaningful only where a
  // stripe is owned by this lane.
  std::atomic<uint64_t> intent;
  // Armed when it equals the control word of the intent's first stripe while this lane owns it: the
  // redo below is complete.
  std::atomic<uint64_t> tag;
  std::atomic<uint64_t> redo_pos;
  std::atomic<uint64_t> redo_len;  // Bytes in this lane's journal.
  // A wake-up that was owed when the lock was released: first | count << 32 of the stripes, 0 for
  // none.
  std::atomic<uint64_t> pending_wake;
  std::atomic<uint64_t> mutations;
  std::atomic<uint64_t> contended;
  std::atomic<uint64_t> wakes;
  uint64_t reserved[24];
};
static_assert(sizeof(LaneRecord) == 256);

}  // namespace statehouse
