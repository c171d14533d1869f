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
  // Keys are seldom long: compare them without a call.
  const auto* other = reinterpret_cast<const char*>(shared);
  if (bytes >= 8 && bytes <= 16) {
    using hash_internal::Take;
    return Take<uint64_t>(other) == Take<uint64_t>(own) &&
           Take<uint64_t>(other + bytes - 8) == Take<uint64_t>(own + bytes - 8);
  }
  if (bytes < 8 && bytes >= 4) {
    using hash_internal::Take;
    return Take<uint32_t>(other) == Take<uint32_t>(own) &&
           Take<uint32_t>(other + bytes - 4) == Take<uint32_t>(own + bytes - 4);
  }
  return std::memcmp(shared, own, bytes) == 0;
#endif
}

// The sizes of an entry, from the one word that tells them.
struct EntryShape {
  uint32_t value_bytes;
  uint32_t key_bytes;
  uint32_t kind;
  uint32_t flags = 0;

  static EntryShape Of(uint64_t word) {
    return {static_cast<uint32_t>(word >> 32), static_cast<uint32_t>(word >> 16) & 0xffff,
            static_cast<uint32_t>(word) & 0xff, static_cast<uint32_t>(word >> 8) & 0xff};
  }
  static EntryShape For(size_t key_bytes, const DictValue& value, uint64_t bind_session) {
    return {static_cast<uint32_t>(value.bytes.size()), static_cast<uint32_t>(key_bytes),
            static_cast<uint32_t>(value.kind), bind_session != 0 ? kEntryBound : 0};
  }
  uint64_t word() const {
    return uint64_t{value_bytes} << 32 | uint64_t{key_bytes} << 16 | flags << 8 | kind;
  }
  bool is_bound() const { return flags != 0; }  // Of a sane one.
  // Where the session's id stands, if it is bound.
  uint64_t session_offset() const {
    return sizeof(EntryHeader) + (kind == 0 ? 0 : sizeof(NumberCells));
  }
  uint64_t key_offset() const { return session_offset() + flags * sizeof(uint64_t); }
  uint64_t entry_bytes() const { return key_offset() + key_bytes + value_bytes; }
  bool is_sane() const {
    return kind <= static_cast<uint32_t>(DictKind::kFloat64) && flags <= kEntryBound &&
           (kind == 0 || value_bytes == 0);
  }
};

// What an entry counts among the bound ones.
constexpr uint64_t BoundBy(uint64_t bind_session) { return bind_session != 0 ? 1 : 0; }

// The word of a bound entry's block that says its session.
inline std::atomic<uint64_t>& SessionWord(std::byte* block, const EntryShape& shape) {
  return *reinterpret_cast<std::atomic<uint64_t>*>(block + shape.session_offset());
}

// What a remembered transaction keeps of an entry with so many bytes of value, and of everything.
constexpr uint64_t StepEntryBytes(uint64_t value_bytes, bool is_bound) {
  return sizeof(StepEntry) + (value_bytes + 7) / 8 * 8 + (is_bound ? sizeof(uint64_t) : 0);
}
inline constexpr uint64_t kResultsBytesMax = kExtentSlabsMax * kSlabBytes;

// Whether a step's result has the entry that it found: each that is no increment.
inline bool TellsEntry(const DictOperation& operation, const DictOperationResult& result) {
  return operation.kind != DictOperation::Kind::kIncrement && result.result.existed;
}

// How often an operation on a full dict makes room and tries again.
inline constexpr int kMakeRoomRounds = 64;

// The class for an entry. Class 1 is kept for overflow lines, so that a lane that inserts an entry
// and a line at once takes them from two magazines.
constexpr uint32_t ClassForEntry(uint64_t bytes) { return std::max(ClassFor(bytes), 2u); }

// What looking for a key gave. The pointers lead into shared memory; everything else is a copy.
struct Dict::Found {
  // Without values for what only an entry that was found has: clearing it costs more than looking.
  Found() {}  // NOLINT(modernize-use-equals-default)

  std::atomic<uint64_t>* slot = nullptr;  // Null: no such key.
  BlockRef ref = 0;
  std::byte* block;
  EntryShape shape;
  uint64_t version;
  uint64_t expires_ms;
  uint64_t fence;
  uint64_t ordinal;
  uint64_t bound_session;  // 0: it is not bound.
  uint64_t bits;           // Of a number, else 0.
  NumberCell* older;       // Of a number: the cell that the next change fills.
  // For an insert:
  std::atomic<uint64_t>* empty = nullptr;  // The first empty slot; null: the lines are full.
  std::atomic<uint64_t>* last_link = nullptr;
  uint32_t lines = 0;  // Overflow lines of the bucket.
  bool damaged = false;

  DictKind kind() const { return static_cast<DictKind>(shape.kind); }
  // What the entry counts among the bound ones.
  uint64_t bound_by() const { return shape.flags; }
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
  bound_session = shape.is_bound() ? Get64(SessionWord(at, shape)) : 0;
  bits = 0;
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
  uint32_t locked_last = 0;
  uint64_t first_locked = 0;
  uint64_t bucket_word = 0;  // Of the bucket locked last, as this lane holds it.
  uint32_t pairs = 0;
  uint64_t entries = 0;
  uint64_t bytes = 0;
  uint64_t bound = 0;
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

inline std::atomic<uint64_t>& Dict::LockWord(uint32_t id) const {
  if (id < kAdmissionLock) [[likely]]
    return buckets_[id].control;
  return id == kAllocatorLock ? allocator_->control : admission_->control;
}

// What a slot holds for an entry: the low bits of its hash, and its block.
inline uint64_t SlotWord(uint64_t hash, BlockRef ref) { return hash << kSlotTagShift | ref; }

// Short copies without a call: keys are seldom long.
[[gnu::always_inline]] inline void CopyShort(std::byte* to, const std::byte* from, size_t bytes) {
#if !defined(__SANITIZE_THREAD__)
  if (bytes >= 8 && bytes <= 32) {
    uint64_t words[4];
    std::memcpy(&words[0], from, 8);
    std::memcpy(&words[1], from + bytes - 8, 8);
    if (bytes > 16) {
      std::memcpy(&words[2], from + 8, 8);
      std::memcpy(&words[3], from + bytes - 16, 8);
      std::memcpy(to + 8, &words[2], 8);
      std::memcpy(to + bytes - 16, &words[3], 8);
    }
    std::memcpy(to, &words[0], 8);
    std::memcpy(to + bytes - 8, &words[1], 8);
    return;
  }
  if (bytes < 8) {
    if (bytes >= 4) {
      uint32_t words[2];
      std::memcpy(&words[0], from, 4);
      std::memcpy(&words[1], from + bytes - 4, 4);
      std::memcpy(to, &words[0], 4);
      std::memcpy(to + bytes - 4, &words[1], 4);
      return;
    }
    for (size_t i = 0; i < bytes; ++i) to[i] = from[i];
    return;
  }
#endif
  CopyShared(to, from, bytes);
}

[[gnu::always_inline]] inline bool Dict::Lock(Section& section, uint32_t id) const {
  DictLaneRecord& record = section.record;
  if (MutantIs(Mutant::kDictLockBeforeIntent)) {
    uint64_t early = 0;
    if (TryLockOwned(LockWord(id), section.lane.id, &early)) {
      LockWord(id).store(ReleasedUnchanged(early), std::memory_order_release);
    }
    CrashFence();
  }
  if (section.locks == 0) {
    section.first_id = id;
    Put64(record.intent, id | uint64_t{1} << 32);
  } else {
    record.more_locks[section.locks - 1].store(id, std::memory_order_relaxed);
    CrashFence();
    Put64(record.intent, section.first_id | uint64_t{section.locks + 1} << 32);
  }
  CrashFence();
  uint64_t locked = 0;
  if (!TryLockOwned(LockWord(id), section.lane.id, &locked)) [[unlikely]] {
    if (!LockSlow(section, id, &locked)) return false;
  }
  if (section.locks == 0) section.first_locked = locked;
  ++section.locks;
  section.locked_last = id;
  section.bucket_word = locked;
  return true;
}

[[gnu::always_inline]] inline void Dict::Unlock(Section& section, bool changed) const {
  while (section.locks > 0) {
    --section.locks;
    const uint32_t id =
        section.locks == 0
            ? section.first_id
            : section.record.more_locks[section.locks - 1].load(std::memory_order_relaxed);
    std::atomic<uint64_t>& word = LockWord(id);
    const uint64_t locked = word.load(std::memory_order_relaxed);
    word.store(changed ? ReleasedChanged(locked) : ReleasedUnchanged(locked),
               std::memory_order_release);
    CrashFence();
  }
}

// On failure nothing is held, whatever was held before.
[[gnu::always_inline]] inline Status Dict::LockBucket(Section& section, uint32_t bucket) const {
  if (Lock(section, bucket)) [[likely]] {
    // SYNC: dict.move — seq_cst after the lock's seq_cst exchange: either this load sees that the
    // dict is being moved, or the mover sees the bucket held and waits.
    if (line_->state.load(std::memory_order_seq_cst) == static_cast<uint32_t>(DictState::kLive))
        [[likely]] {
      return Status();
    }
  }
  return LockBucketSlow(section, bucket);
}

[[gnu::always_inline]] inline void Dict::Redo(Section& section, std::atomic<uint64_t>& place,
                                              uint64_t value) const {
  RedoPair& pair = section.record.redo[section.pairs++];
  Put64(pair.offset, static_cast<uint64_t>(reinterpret_cast<std::byte*>(&place) - base_));
  Put64(pair.value, value);
}

// Makes the redo record stand, carries it out and disarms it. The locks stay: a record that is
// still armed when a lock is gone would undo what others did since.
[[gnu::always_inline]] inline void Dict::Commit(Section& section) const {
  DictLaneRecord& record = section.record;
  if (section.entries != 0) {
    Redo(section, record.entries, Get64(record.entries) + section.entries);
  }
  if (section.bytes != 0) Redo(section, record.bytes, Get64(record.bytes) + section.bytes);
  if (section.bound != 0) [[unlikely]]
    Redo(section, record.bound, Get64(record.bound) + section.bound);
  if (section.changes != 0) {
    Redo(section, record.changes, Get64(record.changes) + section.changes);
    Redo(section, record.ring_head, section.ring_head);
  }
  if (MutantIs(Mutant::kDictArmedBeforeRedo)) Put64(record.tag, section.first_locked);
  CrashFence();
  Put64(record.redo_count, section.pairs);
  CrashFence();
  if (!MutantIs(Mutant::kDictRedoNotArmed)) Put64(record.tag, section.first_locked);
  CrashFence();
  std::atomic_thread_fence(std::memory_order_release);
  for (uint32_t i = 0; i < section.pairs; ++i) {
    const RedoPair& pair = record.redo[i];
    auto* place = reinterpret_cast<std::atomic<uint64_t>*>(base_ + Get64(pair.offset));
    place->store(Get64(pair.value), std::memory_order_release);
    CrashFence();
  }
  if (!MutantIs(Mutant::kDictTagKept)) Put64(record.tag, 0);
  CrashFence();
  section.pairs = 0;
  section.entries = 0;
  section.bytes = 0;
  section.bound = 0;
  section.changes = 0;
}

// SYNC: dict.ring — the reservation is stored before the bytes and the reader loads it after them,
// so a reader knows when its copy was written over; the head, stored by Commit, comes last.
[[gnu::always_inline]] inline void Dict::AppendChange(Section& section, ChangeOperation operation,
                                                      std::string_view key, const DictValue& value,
                                                      uint64_t version) const {
  DictLaneRecord& record = section.record;
  // Records are whole words, whatever somebody stored there.
  if (section.changes == 0) section.ring_head = Get64(record.ring_head) & ~uint64_t{7};
  ++section.changes;
  const bool is_inline = value.bytes.size() <= kInlineValueBytesMax;
  const size_t value_bytes = is_inline ? value.bytes.size() : 0;
  const size_t bytes = sizeof(ChangeHeader) + key.size() + value_bytes;
  const size_t record_bytes = (bytes + 7) / 8 * 8;
  // ChangeHeader, word by word.
  const uint64_t header[4] = {record_bytes | uint64_t{static_cast<uint8_t>(operation)} << 32 |
                                  uint64_t{static_cast<uint8_t>(value.kind)} << 40 |
                                  uint64_t{key.size()} << 48,
                              is_inline ? value_bytes : kValueNotInline, version, value.bits};
  const uint64_t at = section.ring_head;
  const uint64_t end = at + record_bytes;
  if (end > Get64(record.ring_reserve)) Put64(record.ring_reserve, end);
  std::atomic_thread_fence(std::memory_order_release);
  const uint32_t lane = section.lane.id;
  if (at % kChangeRingBytes + record_bytes <= kChangeRingBytes) [[likely]] {
    std::byte* const to = rings_ + lane * kChangeRingBytes + at % kChangeRingBytes;
    for (int i = 0; i < 4; ++i) Put64(reinterpret_cast<std::atomic<uint64_t>*>(to)[i], header[i]);
    CopyShort(to + sizeof header, reinterpret_cast<const std::byte*>(key.data()), key.size());
    CopyShort(to + sizeof header + key.size(),
              reinterpret_cast<const std::byte*>(value.bytes.data()), value_bytes);
  } else {
    PutRing(lane, at, header, sizeof header);
    PutRing(lane, at + sizeof header, key.data(), key.size());
    PutRing(lane, at + sizeof header + key.size(), value.bytes.data(), value_bytes);
  }
  section.ring_head = end;
  if (MutantIs(Mutant::kDictRingFirst)) Put64(record.ring_head, end);
}

// Wakes all who sleep on an event word.
inline void WakeSleepers(std::atomic<uint32_t>& event) {
  event.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(event);
}

// Called after the last unlock of a change. SYNC: dict.watch — the change's records are stored
// before this load; a watcher arms and then makes every writer go through a barrier before it looks
// at the rings, so either it sees the records or this sees that it sleeps.
[[gnu::always_inline]] inline void Dict::TellWatchers() const {
  if (MutantIs(Mutant::kDictWatchNotTold)) return;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (line_->armed.load(std::memory_order_relaxed) != 0) [[unlikely]]
    WakeWatchers();
}

// Makes readers of a bucket wait while more than one of its words changes, or lets them go on. The
// bucket is held. SYNC: dict.mark
inline void MarkBucket(BucketLine& bucket, bool on) {
  const uint64_t word = Get64(bucket.link);
  bucket.link.store(on ? word | kLinkTransaction : word & ~kLinkTransaction,
                    std::memory_order_release);
  CrashFence();
}

// Walks the bucket's lines. Works on any bytes: what it finds is only meaningful once the caller
// knows that the bucket did not change meanwhile.
[[gnu::always_inline]] inline bool Dict::Look(uint64_t hash, std::string_view key,
                                              Found* found) const {
  BucketLine& bucket = buckets_[BucketOf(hash)];
  const uint64_t tag = hash & kSlotTagMask;
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
