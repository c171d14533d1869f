// Critical sections of a dict: taking locks under an intent, the redo record, and the change record
// that goes with each change.
//
// SYNC: dict.bucket — a mutation's release store of the slot (or of a number's version) pairs with
// a reader's acquire load; the reader accepts what it copied when the control word is the same
// before and after, even when it is held: what a slot published stays unchanged until the word
// moved on.
#include "engine/state/dict_internal.h"

namespace statehouse {

bool Dict::Lock(Section& section, uint32_t id) const {
  DictLaneRecord& record = section.record;
  if (section.locks == 0) {
    section.first_id = id;
    Put64(record.intent, id | uint64_t{1} << 32);
  } else {
    record.more_locks[section.locks - 1].store(id, std::memory_order_relaxed);
    CrashFence();
    Put64(record.intent, section.first_id | uint64_t{section.locks + 1} << 32);
  }
  CrashFence();
  std::atomic<uint64_t>& word = LockWord(id);
  uint64_t locked = 0;
  if (!TryLockOwned(word, section.lane.id, &locked)) [[unlikely]] {
    Put64(record.contended, Get64(record.contended) + 1);
    if (!LockOwnedSlow(word, section.lane.id, section.lane.operation_timeout_ns, &locked)) {
      return false;
    }
  }
  if (section.locks == 0) section.first_locked = locked;
  ++section.locks;
  section.bucket_word = locked;
  return true;
}

void Dict::Unlock(Section& section, bool changed) const {
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
Status Dict::LockBucket(Section& section, uint32_t bucket) const {
  const bool alone = section.locks == 0;
  Backoff moving(section.lane.operation_timeout_ns);
  for (;;) {
    if (!Lock(section, bucket)) {
      const Status stalled = RefuseStalled(bucket);
      Unlock(section, false);
      return stalled;
    }
    // SYNC: dict.move — seq_cst after the lock's seq_cst exchange: either this load sees that the
    // dict is being moved, or the mover sees the bucket held and waits.
    const uint32_t state = line_->state.load(std::memory_order_seq_cst);
    if (state == static_cast<uint32_t>(DictState::kLive)) [[likely]]
      return Status();
    Unlock(section, false);
    if (state != static_cast<uint32_t>(DictState::kMoving) || !alone) return RefuseState();
    if (!moving.Pause()) {
      return Status(Reason::kStalled, "dict \"" + name_ +
                                          "\": its move to another segment takes "
                                          "longer than the operation may");
    }
  }
}

[[gnu::always_inline]] inline void PutPair(RedoPair& pair, uint64_t offset, uint64_t value) {
  Put64(pair.offset, offset);
  Put64(pair.value, value);
}

void Dict::Redo(Section& section, std::atomic<uint64_t>& place, uint64_t value) const {
  const auto offset = static_cast<uint64_t>(reinterpret_cast<std::byte*>(&place) - base_);
  PutPair(section.record.redo[section.pairs], offset, value);
  ++section.pairs;
}

// Makes the redo record stand, carries it out and disarms it. The locks stay: a record that is
// still armed when a lock is gone would undo what others did since.
void Dict::Commit(Section& section) const {
  DictLaneRecord& record = section.record;
  if (section.entries != 0) {
    Redo(section, record.entries, Get64(record.entries) + section.entries);
  }
  if (section.bytes != 0) Redo(section, record.bytes, Get64(record.bytes) + section.bytes);
  if (section.changes != 0) {
    Redo(section, record.changes, Get64(record.changes) + section.changes);
    Redo(section, record.ring_head, section.ring_head);
  }
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
  section.changes = 0;
}

void Dict::PutRing(uint32_t lane, uint64_t position, const void* bytes, size_t len) const {
  std::byte* const ring = rings_ + lane * kChangeRingBytes;
  const auto* from = static_cast<const std::byte*>(bytes);
  const uint64_t at = position % kChangeRingBytes;
  const size_t first = std::min<uint64_t>(len, kChangeRingBytes - at);
  CopyShared(ring + at, from, first);
  if (first < len) CopyShared(ring, from + first, len - first);
}

// SYNC: dict.ring — the reservation is stored before the bytes and the reader loads it after them,
// so a reader knows when its copy was written over; the head, stored by Commit, comes last.
void Dict::AppendChange(Section& section, ChangeOperation operation, std::string_view key,
                        const DictValue& value, uint64_t version) const {
  DictLaneRecord& record = section.record;
  if (section.changes == 0) section.ring_head = Get64(record.ring_head);
  ++section.changes;
  const bool is_inline = value.bytes.size() <= kInlineValueBytesMax;
  ChangeHeader header{};
  const size_t value_bytes = is_inline ? value.bytes.size() : 0;
  const size_t bytes = sizeof header + key.size() + value_bytes;
  header.record_bytes = static_cast<uint32_t>((bytes + 7) / 8 * 8);
  header.operation = static_cast<uint8_t>(operation);
  header.kind = static_cast<uint8_t>(value.kind);
  header.key_bytes = static_cast<uint16_t>(key.size());
  header.value_bytes = is_inline ? static_cast<uint32_t>(value_bytes) : kValueNotInline;
  header.version = version;
  header.bits = value.bits;
  const uint64_t at = section.ring_head;
  const uint64_t end = at + header.record_bytes;
  if (end > Get64(record.ring_reserve)) Put64(record.ring_reserve, end);
  std::atomic_thread_fence(std::memory_order_release);
  const uint32_t lane = section.lane.id;
  PutRing(lane, at, &header, sizeof header);
  PutRing(lane, at + sizeof header, key.data(), key.size());
  if (value_bytes > 0) {
    PutRing(lane, at + sizeof header + key.size(), value.bytes.data(), value_bytes);
  }
  section.ring_head = end;
}

}  // namespace statehouse
