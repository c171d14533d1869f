// The layout of a lock space's segment, byte by byte. docs/formats/lock_segment.md explains it;
// tests pin the offsets.
//
//   0                header (4 KiB, written once by the daemon)
//   4096             space line (64 B): state, and how a waiter that is not here is told
//   4160             token line (64 B)
//   4224             pool line (64 B), then padding to 8192
//   8192             buckets: bucket_count x 64 B, padded to a page
//   …                lane records: lane_count x 1 KiB, sparse, padded to a page
//   …                locks: locks_max x 320 B, sparse, padded to a page
//   …                requests: requests_max x 128 B, sparse
//
// The rules of engine/shm/layout.h hold here too. A lock or request is named by its index + 1
// ("number"), so that 0 means none; every number is checked against the geometry before it is used.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "engine/base/limits.h"

namespace statehouse {

inline constexpr uint64_t kLockSegmentMagic = 0x31304b434f4c4853;  // "SHLOCK01"

inline constexpr uint64_t kSpaceLineOffset = 4096;
inline constexpr uint64_t kTokenLineOffset = 4160;
inline constexpr uint64_t kPoolLineOffset = 4224;
inline constexpr uint64_t kLockBucketsOffset = 8192;

inline constexpr size_t kLockRedoStoresMax = 16;
inline constexpr size_t kLockOwnerBytesMax = 40;  // Of the text that says who holds a lock.
// A chain of one bucket that is longer than this is damaged.
inline constexpr uint32_t kLockChainMax = 4096;

struct LockSegmentHeader {
  uint64_t magic;
  uint16_t abi_major;
  uint16_t abi_minor;
  uint32_t byte_order_probe;
  uint32_t required_features;
  uint32_t bucket_count;
  uint64_t uuid[2];
  uint32_t lane_count;
  uint32_t locks_max;
  uint32_t requests_max;
  uint32_t reserved;
};
static_assert(sizeof(LockSegmentHeader) == 56);

enum class LockSpaceState : uint32_t { kLive = 1, kRetired = 2 };

struct alignas(kCacheLineBytes) SpaceLine {
  std::atomic<uint32_t> state;  // LockSpaceState.
  std::atomic<uint32_t> armed;  // 1: the daemon may sleep on `event`.
  std::atomic<uint32_t> event;  // Futex word: something happened to a request of the daemon's.
  uint32_t reserved;
  std::atomic<uint64_t> looks_ns;  // Armed: when it looks by itself, at the latest.
  uint32_t reserved_more[10];
};
static_assert(sizeof(SpaceLine) == 64);

struct alignas(kCacheLineBytes) TokenLine {
  std::atomic<uint64_t> last;  // The fencing token of the latest grant.
  uint64_t reserved[7];
};
static_assert(sizeof(TokenLine) == 64);

struct alignas(kCacheLineBytes) PoolLine {
  std::atomic<uint32_t> locks_high;  // One past the highest lock ever used,
  std::atomic<uint32_t> locks_hint;  // and where to look for a free one.
  std::atomic<uint32_t> requests_high;
  std::atomic<uint32_t> requests_hint;
  uint32_t reserved[12];
};
static_assert(kPoolLineOffset + sizeof(PoolLine) <= kLockBucketsOffset);

struct alignas(kCacheLineBytes) LockBucketLine {
  std::atomic<uint64_t> control;  // Owned sequence lock over the bucket's locks and their requests.
  std::atomic<uint64_t> head;     // Number of the chain's first lock.
  uint64_t reserved[6];
};
static_assert(sizeof(LockBucketLine) == 64);

// LockSlot::state: 0 free; else kind | holder block + 1 << 8.
inline constexpr uint64_t kLockClaimed = 1;  // Somebody is about to link it.
inline constexpr uint64_t kLockLinked = 2;   // In its bucket's chain.

// A named lock. Everything but `state` is written under the bucket's lock, or while it is claimed.
struct alignas(kCacheLineBytes) LockSlot {
  std::atomic<uint64_t> state;
  std::atomic<uint64_t> hash;
  std::atomic<uint64_t> next;     // Number of the chain's next lock.
  std::atomic<uint64_t> holders;  // Number of the first holding request | how many << 32.
  std::atomic<uint64_t> queue;    // Number of the first waiting request | of the last << 32.
  std::atomic<uint64_t> shape;    // Holders at once | name bytes << 32.
  std::atomic<uint64_t> waiting;  // How many wait.
  std::atomic<uint64_t> used_ns;  // When it became idle; what is idle for long is swept.
  std::atomic<uint64_t> name[kNameBytesMax / 8 + 1];
};
static_assert(sizeof(LockSlot) == 320);

// RequestSlot::state, one word that tells what the request is:
//   63          32 31   24 23         8 7      6     4     3    0
//   | lock number | 0     | block + 1  | remote | shared | kind  |
enum class RequestKind : uint32_t {
  kFree = 0,
  kClaimed = 1,  // Its process keeps it for its next request.
  kWaiting = 2,
  kHolding = 3,
  kLost = 4,  // It held or waited, and does no longer; its owner frees it when it has seen that.
};
inline constexpr uint64_t kRequestKindMask = 0xf;
inline constexpr uint64_t kRequestShared = 1 << 4;
inline constexpr uint64_t kRequestRemote = 1 << 7;  // Its waiter is told through the space line.
inline constexpr int kRequestBlockShift = 8;
inline constexpr int kRequestLockShift = 32;

// A request for a lock: one holder or one waiter.
struct alignas(kCacheLineBytes) RequestSlot {
  std::atomic<uint64_t> state;
  std::atomic<uint64_t> links;       // Number of the one before | of the next << 32, of its list.
  std::atomic<uint64_t> token;       // Of the grant.
  std::atomic<uint64_t> expires_ns;  // Holding: when the lease ends. On the daemon's clock.
  std::atomic<uint64_t> ttl_ns;
  std::atomic<uint64_t> session;     // Of the daemon's requests: whose it is, and
  std::atomic<uint64_t> request_id;  // which one, so that a repeated request finds it.
  std::atomic<uint32_t> event;       // Futex word of the waiter.
  std::atomic<uint32_t> sleeping;    // 1: it may sleep on it.

  std::atomic<uint64_t> hold_ns_max;    // Renewals never reach further than this; 0: no bound.
  std::atomic<uint64_t> since_ns;       // Waiting: since when. Holding: of the grant.
  std::atomic<uint64_t> wait_until_ns;  // Waiting: not granted any more from then on; 0 never.
  std::atomic<uint64_t> owner[kLockOwnerBytesMax / 8];  // Text, zero-padded.
};
static_assert(sizeof(RequestSlot) == 128);
static_assert(offsetof(RequestSlot, hold_ns_max) == 64);

// A word that changes from `before` to `value`. Recovery stores it only over `before`: a request or
// lock that the change made free may be somebody else's by then.
struct LockRedoStore {
  std::atomic<uint64_t> offset;  // In the segment, a multiple of 8.
  std::atomic<uint64_t> before;
  std::atomic<uint64_t> value;
};

// One for each lane. Written by the lane's thread only; read by recovery.
struct alignas(kCacheLineBytes) LockLaneRecord {
  std::atomic<uint64_t> intent;      // Bucket + 1: being taken. Meaningful where the lane owns it.
  std::atomic<uint64_t> tag;         // The bucket's word: the redo is complete.
  std::atomic<uint64_t> redo_count;  // Of stores, or kLockRedoMend.
  std::atomic<uint64_t> pending_wake;  // Number of a lock whose new holders are owed a wake-up.
  std::atomic<uint64_t> grants;        // Counters.
  std::atomic<uint64_t> releases;
  std::atomic<uint64_t> expirations;
  std::atomic<uint64_t> contended;  // Requests that had to wait, or were refused for that.
  LockRedoStore redo[kLockRedoStoresMax];
};
inline constexpr uint64_t kLockRedoMend = UINT64_MAX;  // The bucket is being emptied.
inline constexpr uint64_t kLockLaneRecordBytes = 1024;
static_assert(sizeof(LockLaneRecord) <= kLockLaneRecordBytes);

}  // namespace statehouse
