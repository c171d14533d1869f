// The layout of a dict's segment, byte by byte. docs/formats/dict_segment.md explains it; tests pin
// the offsets.
//
//   0                header (4 KiB, written once by the daemon)
//   4096             dict line (64 B)
//   4160             admission line (64 B)
//   4224             allocator line and the classes' free lists, to 8192
//   8192             wait lines: 256 x 64 B
//   24576            slab table: 8 B for each slab, padded to a page
//   …                buckets: bucket_count x 64 B, padded to a page
//   …                lane records: lane_count x 128 KiB, sparse
//   …                change rings: lane_count x 64 KiB, sparse
//   …                remembered operations: 1,024 rows x 4,160 B, sparse
//   data_offset      slabs: data_bytes, sparse; the first slab is never used
//
// The rules of engine/shm/layout.h hold here too: no pointers, process ids or locks of the C
// library, and geometry is never read from the segment.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "engine/base/limits.h"
#include "engine/shm/size_class.h"

namespace statehouse {

inline constexpr uint64_t kDictSegmentMagic = 0x3130544349444853;  // "SHDICT01"
inline constexpr uint16_t kDictSegmentAbiMinor = 4;  // Readers ignore what they do not know.

inline constexpr uint64_t kDictLineOffset = 4096;
inline constexpr uint64_t kAdmissionLineOffset = 4160;
inline constexpr uint64_t kAllocatorLineOffset = 4224;
inline constexpr uint64_t kWaitLinesOffset = 8192;
inline constexpr uint32_t kWaitLines = 256;
inline constexpr uint64_t kSlabTableOffset = kWaitLinesOffset + kWaitLines * kCacheLineBytes;

inline constexpr uint32_t kBucketSlots = 6;
inline constexpr uint32_t kOverflowSlots = 7;
inline constexpr uint32_t kOverflowLinesMax = 64;  // Of one bucket: a longer chain is damage.

inline constexpr uint32_t kTransactionOpsMax = 1024;
inline constexpr uint32_t kStagedBlocksMax = kTransactionOpsMax + 1;  // With the results' block.
inline constexpr uint32_t kDictLocksMax = kTransactionOpsMax + 1;     // With the admission lock.
inline constexpr uint32_t kRedoPairsMax = 3 * kTransactionOpsMax + 64;
inline constexpr uint64_t kLaneRecordBytes = 128 << 10;
inline constexpr uint64_t kChangeRingBytes = 64 << 10;

// What a lane's intent can name beside buckets 0, 1, 2 ….
inline constexpr uint32_t kAllocatorLock = 0xffffffff;
inline constexpr uint32_t kAdmissionLock = 0xfffffffe;

enum class DictState : uint32_t {
  kLive = 1,
  kDeleted = 2,
  kQuarantined = 3,
  kMoving = 4,  // The daemon copies it to another segment: reads go on, writers wait.
  kMoved = 5,   // Open the dict again.
};

struct DictSegmentHeader {
  uint64_t magic;
  uint16_t abi_major;
  uint16_t abi_minor;
  uint32_t byte_order_probe;
  uint32_t required_features;
  uint32_t bucket_count;
  uint64_t uuid[2];
  uint32_t lane_count;
  uint32_t reserved;
  uint64_t data_bytes;
};
static_assert(sizeof(DictSegmentHeader) == 56);

struct alignas(kCacheLineBytes) DictLine {
  std::atomic<uint32_t> state;  // DictState.
  std::atomic<uint32_t> armed;  // Who sleeps and is woken by a change: kArmed….
  std::atomic<uint32_t> event;
  std::atomic<uint32_t> strict;        // 1: close to the limit of entries; each insert is admitted.
  std::atomic<uint32_t> lane_high;     // One past the highest lane that ever changed this dict.
  std::atomic<uint32_t> operations;    // 1: some operation is remembered.
  std::atomic<uint32_t> follow_event;  // As `event`, for those who follow the rings.
  uint32_t reserved0;
  std::atomic<uint64_t> claim;  // Who has the next revision (engine/state/change_claim.h).
  uint64_t reserved[3];
};
static_assert(sizeof(DictLine) == 64);

// Bits of DictLine::armed.
inline constexpr uint32_t kArmedWatch = 1;   // On `event`: woken by the next change.
inline constexpr uint32_t kArmedFollow = 2;  // On `follow_event`: the same.
inline constexpr uint32_t kArmedLate = 4;    // On `event`, by a change that finds no kArmedFollow.

struct alignas(kCacheLineBytes) AdmissionLine {
  std::atomic<uint64_t> control;  // Owned sequence lock.
  uint64_t reserved[7];
};
static_assert(sizeof(AdmissionLine) == 64);

struct alignas(kCacheLineBytes) AllocatorLine {
  std::atomic<uint64_t> control;                  // Owned sequence lock over all of it.
  std::atomic<uint64_t> slab_hint;                // No slab below is free.
  std::atomic<uint64_t> heads[kSizeClasses];      // First free block of a class (BlockRef); 0 none.
  std::atomic<uint64_t> bump_next[kSizeClasses];  // Position of the next block never used …
  std::atomic<uint64_t> bump_end[kSizeClasses];   // … and where they end.
  // 0: slabs get memory when they are touched. Else the service has a limit of memory: only slabs
  // below this one have theirs and may be used, and whoever needs another one asks the service.
  std::atomic<uint64_t> slabs_backed;
};
static_assert(kAllocatorLineOffset + sizeof(AllocatorLine) <= kWaitLinesOffset);

// In slabs_backed: the service has no more memory, and the dict makes room within what it has.
inline constexpr uint64_t kBackingRefused = uint64_t{1} << 63;

// Slab table: 0 free, 1 … 39 cut into blocks of that class, kExtentHead + n the first of an extent
// of n slabs, kExtentRest one of the others.
inline constexpr uint64_t kExtentHead = 0x1000;
inline constexpr uint64_t kExtentRest = 0x2000;

// A slot: 16 bits of the key's hash and the entry's block; 0 is empty. Storing it publishes an
// entry.
inline constexpr uint32_t kSlotTagShift = 48;
inline constexpr uint64_t kSlotTagMask = 0xffff;  // Of the hash; its top bits say the bucket.

// A bucket is one cache line; what does not fit goes to overflow lines, which are blocks of 64
// bytes. `link` is the BlockRef of the first one; its top bit is set while a transaction changes
// the bucket, and then readers wait.
struct alignas(kCacheLineBytes) BucketLine {
  std::atomic<uint64_t> control;  // Owned sequence lock; its sequence + 1 is the next version.
  std::atomic<uint64_t> slots[kBucketSlots];
  std::atomic<uint64_t> link;
};
static_assert(sizeof(BucketLine) == 64);
inline constexpr uint64_t kLinkTransaction = uint64_t{1} << 63;

struct alignas(kCacheLineBytes) OverflowLine {
  std::atomic<uint64_t> slots[kOverflowSlots];
  std::atomic<uint64_t> link;
};
static_assert(sizeof(OverflowLine) == 64);

// An entry: this, then for numbers the two cells, then where it is bound the id of its session
// (8 bytes), then the key, then the value's bytes. Everything but the cells stays as it was
// published until the block is given back.
struct EntryHeader {
  std::atomic<uint64_t> hash;
  std::atomic<uint64_t> shape;       // value bytes << 32 | key bytes << 16 | flags << 8 | kind
  std::atomic<uint64_t> version;     // Of a number: when its block was published.
  std::atomic<uint64_t> expires_ms;  // On the daemon's monotonic clock; 0 never.
  std::atomic<uint64_t> fence;
  std::atomic<uint64_t> ordinal;  // When the key was inserted, for the order; nanoseconds.
};
static_assert(sizeof(EntryHeader) == 48);

// Flags of a shape.
inline constexpr uint32_t kEntryBound = 1;  // It ends with a session, whose id it has.

// A number lives in the cell with the higher version. A change fills the other one, its version
// last: one store publishes it.
struct NumberCell {
  std::atomic<uint64_t> bits;
  std::atomic<uint64_t> version;
};
struct NumberCells {
  NumberCell cells[2];
};
static_assert(sizeof(NumberCells) == 32);

// What a lane did last, so that recovery can finish it or leave it.
struct RedoPair {
  std::atomic<uint64_t> offset;  // In the segment, a multiple of 8.
  std::atomic<uint64_t> value;
};

// Blocks that belong to a lane: refs[0 … count).
struct Magazine {
  std::atomic<uint64_t> count;
  std::atomic<uint64_t> refs[kMagazineBlocksMax];
};

// One for each lane. Written by the lane's thread only; read by recovery. Every block of the
// dict is in exactly one place: a free list, a slot or link, or a lane's magazines, extent and
// staged blocks.
struct alignas(kCacheLineBytes) DictLaneRecord {
  std::atomic<uint64_t> intent;  // First lock | count << 32; the others in more_locks.
  std::atomic<uint64_t> tag;     // The first lock's word: the redo is complete.
  std::atomic<uint64_t> redo_count;
  std::atomic<uint64_t> pending_wake;
  std::atomic<uint64_t> entries;  // What this lane added and removed, modulo 2^64;
  std::atomic<uint64_t> bytes;    // the dict has the sum over lanes.
  std::atomic<uint64_t> changes;
  std::atomic<uint64_t> contended;
  std::atomic<uint64_t> ring_reserve;  // Ring bytes below this may be written over …
  std::atomic<uint64_t> ring_head;     // … and records below this are complete.
  std::atomic<uint64_t> staged_count;
  std::atomic<uint64_t> extent;  // A block of more than a slab in this lane's hands; 0 none.
  std::atomic<uint64_t> wakes;
  std::atomic<uint64_t> evictions;
  std::atomic<uint64_t> expirations;
  std::atomic<uint64_t> bound;  // As `entries`: of bound ones.
  Magazine magazines[kSizeClasses];
  RedoPair redo[kRedoPairsMax];
  std::atomic<uint32_t> more_locks[kDictLocksMax - 1];
  std::atomic<uint64_t> staged[kStagedBlocksMax];
};
static_assert(sizeof(DictLaneRecord) <= kLaneRecordBytes);

// What the daemon remembers of mutations that carry an operation id, so that a repeated one is
// answered and not carried out again. A row belongs to one session; record i is its last mutation
// with sequence % kOperationsPerSession == i. The rows of a set are shared by the sessions that
// hash to it.
inline constexpr uint32_t kOperationSets = 128;
inline constexpr uint32_t kOperationWays = 8;
inline constexpr uint32_t kOperationsPerSession = 64;

struct alignas(kCacheLineBytes) OperationRecord {
  std::atomic<uint64_t> session;
  std::atomic<uint64_t> sequence;
  std::atomic<uint64_t> version;
  std::atomic<uint64_t> facts;  // See below.
  std::atomic<uint64_t> bits;   // The number that an increment gave.
  std::atomic<uint64_t> block;  // BlockRef: the entry before, or a transaction's results; 0 none.
  uint64_t reserved[2];
};
static_assert(sizeof(OperationRecord) == 64);

struct alignas(kCacheLineBytes) OperationRow {
  std::atomic<uint64_t> session;  // 0: free.
  std::atomic<uint64_t> used;     // Nanoseconds on the daemon's clock.
  uint64_t reserved[6];
  OperationRecord records[kOperationsPerSession];
};
static_assert(sizeof(OperationRow) == 4160);
inline constexpr uint64_t kOperationBytes =
    (kOperationSets * kOperationWays * sizeof(OperationRow) + kPageBytes - 1) / kPageBytes *
    kPageBytes;

// OperationRecord::facts.
inline constexpr uint64_t kOperationExisted = 1;
inline constexpr uint64_t kOperationCompared = 2;   // Of a transaction.
inline constexpr uint64_t kOperationIsResults = 4;  // `block` holds a transaction's results.
inline constexpr uint64_t kOperationNoEntries = 8;  // … without the entries: they did not fit.
inline constexpr uint64_t kOperationHasEntry = 16;  // Of a step: `entry` says where it stands.
inline constexpr int kOperationKindShift = 8;       // DictKind of `bits`.
inline constexpr int kOperationCountShift = 32;     // Results of a transaction.

// What a transaction keeps of each step, in its block: these, then the entries.
struct StepWords {
  std::atomic<uint64_t> version;
  std::atomic<uint64_t> bits;
  std::atomic<uint64_t> facts;  // As OperationRecord::facts.
  std::atomic<uint64_t> entry;  // Where in the block a StepEntry stands.
};
static_assert(sizeof(StepWords) == 32);

// An entry as a step found it, followed by the value's bytes, padded to 8 bytes, and where it was
// bound by the id of its session.
struct StepEntry {
  std::atomic<uint64_t> shape;  // value bytes << 32 | flags << 8 | kind
  std::atomic<uint64_t> version;
  std::atomic<uint64_t> expires_ms;
  std::atomic<uint64_t> fence;
  std::atomic<uint64_t> ordinal;
  std::atomic<uint64_t> bits;  // Of a number.
};
static_assert(sizeof(StepEntry) == 48);

// A record of a change ring, followed by the key and, where it is small, the value's bytes; padded
// to 8 bytes.
struct ChangeHeader {
  uint32_t record_bytes;
  uint8_t operation;  // ChangeOperation.
  uint8_t kind;       // DictKind of the new value.
  uint16_t key_bytes;
  uint32_t value_bytes;  // kValueNotInline when it has to be looked up.
  uint32_t reserved;
  uint64_t version;
  uint64_t bits;  // A number's value.
};
static_assert(sizeof(ChangeHeader) == 32);
inline constexpr uint32_t kValueNotInline = 0xffffffff;
inline constexpr size_t kInlineValueBytesMax = 256;

enum class ChangeOperation : uint8_t { kPut = 1, kDelete = 2, kExpire = 3, kEvict = 4 };

}  // namespace statehouse
