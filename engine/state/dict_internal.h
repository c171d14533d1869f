// What the dict's source files share: how an entry is found and read. Included by
// engine/state/dict*.cc only.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>

#include "engine/base/mutant.h"
#include "engine/os/futex.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/copy.h"
#include "engine/state/dict.h"

namespace statehouse {

// Plain words of shared memory that are written by one thread at a time.
inline uint64_t Get64(const std::atomic<uint64_t>& word) {
  return word.load(std::memory_order_relaxed);
}
inline void Put64(std::atomic<uint64_t>& word, uint64_t value) {
  word.store(value, std::memory_order_relaxed);
}

inline bool EqualShared(const std::byte* shared, const char* own, size_t bytes) {
#if defined(__SANITIZE_THREAD__)
  for (size_t i = 0; i < bytes; ++i) {
    auto* at = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(shared)) + i;
    const unsigned char byte = std::atomic_ref<unsigned char>(*at).load(std::memory_order_relaxed);
    if (byte != static_cast<unsigned char>(own[i])) return false;
  }
  return true;
#else
  return std::memcmp(shared, own, bytes) == 0;
#endif
}

// The sizes of an entry, from the one word that tells them.
struct EntryShape {
  uint32_t value_bytes = 0;
  uint32_t key_bytes = 0;
  uint32_t kind = 0;

  static EntryShape Of(uint64_t word) {
    return {static_cast<uint32_t>(word >> 32), static_cast<uint32_t>(word >> 16) & 0xffff,
            static_cast<uint32_t>(word) & 0xffff};
  }
  uint64_t word() const { return uint64_t{value_bytes} << 32 | uint64_t{key_bytes} << 16 | kind; }
  uint64_t key_offset() const {
    return sizeof(EntryHeader) + (kind == 0 ? 0 : sizeof(NumberCells));
  }
  uint64_t entry_bytes() const { return key_offset() + key_bytes + value_bytes; }
  bool is_sane() const {
    return kind <= static_cast<uint32_t>(DictKind::kFloat64) && (kind == 0 || value_bytes == 0);
  }
};

// How often an operation on a full dict makes room and tries again.
inline constexpr int kMakeRoomRounds = 64;

// The class for an entry. Class 1 is kept for overflow lines, so that a lane that inserts an entry
// and a line at once takes them from two magazines.
constexpr uint32_t ClassForEntry(uint64_t bytes) { return std::max(ClassFor(bytes), 2u); }

// What looking for a key gave. The pointers lead into shared memory; everything else is a copy.
struct Dict::Found {
  std::atomic<uint64_t>* slot = nullptr;  // Null: no such key.
  BlockRef ref = 0;
  std::byte* block = nullptr;
  EntryShape shape;
  uint64_t version = 0;
  uint64_t expires_ms = 0;
  uint64_t fence = 0;
  uint64_t ordinal = 0;
  uint64_t bits = 0;            // Of a number.
  NumberCell* older = nullptr;  // Of a number: the cell that the next change fills.
  // For an insert:
  std::atomic<uint64_t>* empty = nullptr;  // The first empty slot; null: the lines are full.
  std::atomic<uint64_t>* last_link = nullptr;
  uint32_t lines = 0;  // Overflow lines of the bucket.
  bool damaged = false;

  DictKind kind() const { return static_cast<DictKind>(shape.kind); }
  std::byte* key() const { return block + shape.key_offset(); }
  std::byte* value() const { return block + shape.key_offset() + shape.key_bytes; }
  // Reads the block behind `ref`, which lies inside the segment. False: it holds no sound entry.
  bool ReadBlock(std::byte* at);
};

[[gnu::always_inline]] inline bool Dict::Found::ReadBlock(std::byte* at) {
  auto* header = reinterpret_cast<EntryHeader*>(at);
  shape = EntryShape::Of(header->shape.load(std::memory_order_relaxed));
  if (!shape.is_sane() || shape.entry_bytes() > BytesOfClass(ClassOf(ref))) return false;
  block = at;
  version = Get64(header->version);
  expires_ms = Get64(header->expires_ms);
  fence = Get64(header->fence);
  ordinal = Get64(header->ordinal);
  if (shape.kind != 0) {
    auto* cells = reinterpret_cast<NumberCells*>(at + sizeof(EntryHeader))->cells;
    const uint64_t first = cells[0].version.load(std::memory_order_acquire);
    const uint64_t second = cells[1].version.load(std::memory_order_acquire);
    const int newer = second > first ? 1 : 0;
    bits = cells[newer].bits.load(std::memory_order_relaxed);
    version = std::max(first, second);
    older = &cells[1 - newer];
  }
  return true;
}

// A critical section of one lane: the locks it holds and the redo record that it fills. What it
// adds to the lane's sums is written by Commit.
struct Dict::Section {
  Section(const Lane& lane_in, DictLaneRecord& record_in) : lane(lane_in), record(record_in) {}

  const Lane& lane;
  DictLaneRecord& record;
  uint32_t locks = 0;
  uint32_t first_id = 0;
  uint64_t first_locked = 0;
  uint64_t bucket_word = 0;  // Of the bucket locked last, as this lane holds it.
  uint32_t pairs = 0;
  uint64_t entries = 0;
  uint64_t bytes = 0;
  uint64_t changes = 0;
  uint64_t ring_head = 0;  // Meaningful when changes > 0.

  uint64_t next_version() const { return SequenceOf(bucket_word) + 1; }
};

inline bool Dict::RefIsSane(BlockRef ref) const {
  const uint64_t bytes = BytesOfClass(ClassOf(ref));
  const uint64_t position = PositionOf(ref);
  return bytes != 0 && position >= kSlabBytes && position <= geometry_.data_bytes &&
         bytes <= geometry_.data_bytes - position;
}

// Walks the bucket's lines. Works on any bytes: what it finds is only meaningful once the caller
// knows that the bucket did not change meanwhile.
[[gnu::always_inline]] inline bool Dict::Look(uint64_t hash, std::string_view key,
                                              Found* found) const {
  BucketLine& bucket = buckets_[BucketOf(hash)];
  const uint64_t tag = hash >> kSlotTagShift;
  std::atomic<uint64_t>* slots = bucket.slots;
  std::atomic<uint64_t>* link = &bucket.link;
  uint32_t count = kBucketSlots;
  for (;;) {
    for (uint32_t i = 0; i < count; ++i) {
      const uint64_t word = slots[i].load(std::memory_order_acquire);
      if (word == 0) {
        if (found->empty == nullptr) found->empty = &slots[i];
        continue;
      }
      if (word >> kSlotTagShift != tag) continue;
      found->ref = word & kRefMask;
      if (!RefIsSane(found->ref)) [[unlikely]] {
        found->damaged = true;
        continue;
      }
      std::byte* const block = BlockAt(found->ref);
      if (Get64(reinterpret_cast<EntryHeader*>(block)->hash) != hash) continue;
      if (!found->ReadBlock(block)) [[unlikely]] {
        found->damaged = true;
        continue;
      }
      if (found->shape.key_bytes != key.size() ||
          !EqualShared(found->key(), key.data(), key.size())) {
        continue;
      }
      found->slot = &slots[i];
      found->damaged = false;
      return true;
    }
    const BlockRef next = link->load(std::memory_order_acquire) & kRefMask;
    if (next == 0) break;
    if (ClassOf(next) != 1 || !RefIsSane(next) || found->lines == kOverflowLinesMax) [[unlikely]] {
      found->damaged = true;
      break;
    }
    auto* line = reinterpret_cast<OverflowLine*>(BlockAt(next));
    slots = line->slots;
    link = &line->link;
    count = kOverflowSlots;
    ++found->lines;
  }
  found->last_link = link;
  found->ref = 0;
  return false;
}

}  // namespace statehouse
