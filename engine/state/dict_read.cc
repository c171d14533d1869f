// Reading a dict. Nothing here writes to shared memory.
#include "engine/state/dict_internal.h"

namespace statehouse {

// Copies the entry out. The caller validates afterwards.
void Dict::TakeEntry(const Found& found, DictEntry* entry) const {
  entry->kind = found.kind();
  entry->bits = found.bits;
  entry->version = found.version;
  entry->expires_ms = found.expires_ms;
  entry->fence = found.fence;
  entry->ordinal = found.ordinal;
  entry->bound_session = found.bound_session;
  entry->bytes.resize(found.shape.value_bytes);
  CopyShared(reinterpret_cast<std::byte*>(entry->bytes.data()), found.value(),
             found.shape.value_bytes);
}

uint64_t Dict::FetchBucket(std::string_view key) const {
  const uint64_t hash = HashKey(geometry_.seed, key);
  __builtin_prefetch(&buckets_[BucketOf(hash)], /*rw=*/1);
  return hash;
}

void Dict::FetchEntry(uint64_t hash) const {
  for (const std::atomic<uint64_t>& slot : buckets_[BucketOf(hash)].slots) {
    const uint64_t word = slot.load(std::memory_order_relaxed);
    if (word == 0 || word >> kSlotTagShift != (hash & kSlotTagMask)) continue;
    const BlockRef ref = word & kRefMask;
    // The header and the line behind it; and none that a worker made up.
    if (!RefIsSane(ref)) continue;
    __builtin_prefetch(BlockAt(ref), /*rw=*/1);
    __builtin_prefetch(BlockAt(ref) + kCacheLineBytes, /*rw=*/1);
  }
}

Status Dict::Get(std::string_view key, DictEntry* entry, bool* found,
                 uint64_t operation_timeout_ns) const {
  *found = false;
  SH_RETURN_IF_ERROR(CheckKey(key));
  const uint64_t hash = HashKey(geometry_.seed, key);
  const BucketLine& bucket = buckets_[BucketOf(hash)];
  const uint32_t state = line_->state.load(std::memory_order_acquire);
  if (state != static_cast<uint32_t>(DictState::kLive) &&
      state != static_cast<uint32_t>(DictState::kMoving)) [[unlikely]] {
    return RefuseState();
  }
  Backoff backoff(operation_timeout_ns);
  for (;;) {
    const uint64_t word = bucket.control.load(std::memory_order_acquire);
    Found at;
    const bool present = Look(hash, key, &at);
    if (present) TakeEntry(at, entry);
    std::atomic_thread_fence(std::memory_order_acquire);
    // The link is looked at after the slot: where the slot shows what a transaction did, the link
    // shows that it is not over, or the word has moved on.
    // SYNC: dict.mark — acquire: who sees that a transaction's mark is gone sees all of it, at
    // every key.
    if ((bucket.link.load(std::memory_order_acquire) & kLinkTransaction) == 0 &&
        Get64(bucket.control) == word) [[likely]] {
      if (at.damaged) [[unlikely]]
        return RefuseDamaged("a bucket");
      *found = present && !IsExpired(at.expires_ms);
      return Status();
    }
    if (!backoff.Pause()) return RefuseStalled(BucketOf(hash));
  }
}

// Calls `take` with each entry of one bucket, and `reset` when what was given is to be forgotten
// because the bucket changed meanwhile.
template <typename Take, typename Reset>
Status Dict::VisitBucket(uint32_t bucket, uint64_t operation_timeout_ns, Take take, Reset reset,
                         uint64_t* control) const {
  const BucketLine& head = buckets_[bucket];
  Backoff backoff(operation_timeout_ns);
  for (;;) {
    const uint64_t word = head.control.load(std::memory_order_acquire);
    bool damaged = false;
    const auto take_line = [&](const std::atomic<uint64_t>* slots, uint32_t count) {
      for (uint32_t i = 0; i < count; ++i) {
        const uint64_t slot = slots[i].load(std::memory_order_acquire);
        if (slot == 0) continue;
        Found found;
        found.ref = slot & kRefMask;
        if (!RefIsSane(found.ref) || !found.ReadBlock(BlockAt(found.ref))) {
          damaged = true;
          continue;
        }
        take(found);
      }
    };
    take_line(head.slots, kBucketSlots);
    BlockRef next = head.link.load(std::memory_order_acquire) & kRefMask;
    for (uint32_t lines = 0; next != 0; ++lines) {
      if (lines == kOverflowLinesMax || ClassOf(next) != 1 || !RefIsSane(next)) {
        damaged = true;
        break;
      }
      const auto* line = reinterpret_cast<const OverflowLine*>(BlockAt(next));
      take_line(line->slots, kOverflowSlots);
      next = line->link.load(std::memory_order_acquire) & kRefMask;
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    // SYNC: dict.mark
    if ((head.link.load(std::memory_order_acquire) & kLinkTransaction) == 0 &&
        Get64(head.control) == word) {
      if (control != nullptr) *control = word;
      return damaged ? RefuseDamaged("a bucket") : Status();
    }
    reset();
    if (!backoff.Pause()) return RefuseStalled(bucket);
  }
}

// The entries of one bucket that begin with `prefix`, as they stood at one time. Expired ones are
// left out. *sequence: the version up to which its changes are in them; where *held the next one
// may be, too.
Status Dict::ReadBucket(uint32_t bucket, std::string_view prefix, uint64_t operation_timeout_ns,
                        std::vector<DictEntry>* entries, uint64_t* sequence, bool* held) const {
  const size_t before = entries->size();
  uint64_t highest = 0;
  const auto take = [&](const Found& found) {
    highest = std::max(highest, found.version);
    const bool wanted = found.shape.key_bytes >= prefix.size() &&
                        EqualShared(found.key(), prefix.data(), prefix.size()) &&
                        !IsExpired(found.expires_ms);
    if (!wanted) return;
    DictEntry& entry = entries->emplace_back();
    entry.key.resize(found.shape.key_bytes);
    CopyShared(reinterpret_cast<std::byte*>(entry.key.data()), found.key(), found.shape.key_bytes);
    TakeEntry(found, &entry);
  };
  const auto reset = [&] {
    entries->resize(before);
    highest = 0;
  };
  if (sequence == nullptr) return VisitBucket(bucket, operation_timeout_ns, take, reset);
  uint64_t word = 0;
  const Status status = VisitBucket(bucket, operation_timeout_ns, take, reset, &word);
  // A holder may have published its change already. Where it was a deletion, nothing shows that.
  *sequence = std::max(SequenceOf(word), highest);
  *held = OwnerOf(word) != 0;
  return status;
}

// As ReadBucket, without the entries whose key is not the one that they were written with: another
// key may stand in the same bucket. Expired ones are among them.
Status Dict::ReadSound(uint32_t bucket, uint64_t operation_timeout_ns,
                       std::vector<DictEntry>* entries, uint64_t* misplaced) const {
  const auto take = [&](const Found& found) {
    DictEntry entry;
    entry.key.resize(found.shape.key_bytes);
    CopyShared(reinterpret_cast<std::byte*>(entry.key.data()), found.key(), entry.key.size());
    const uint64_t hash = HashKey(geometry_.seed, entry.key);
    const auto* header = reinterpret_cast<const EntryHeader*>(BlockAt(found.ref));
    if (BucketOf(hash) != bucket || Get64(header->hash) != hash) {
      ++*misplaced;
      return;
    }
    TakeEntry(found, &entry);
    entries->push_back(std::move(entry));
  };
  const auto reset = [&] {
    entries->clear();
    *misplaced = 0;
  };
  return VisitBucket(bucket, operation_timeout_ns, take, reset);
}

// Key and version of the bucket's entries whose time is over.
Status Dict::FindExpired(uint32_t bucket, uint64_t operation_timeout_ns,
                         std::vector<std::pair<std::string, uint64_t>>* expired) const {
  const auto take = [&](const Found& found) {
    if (!IsExpired(found.expires_ms)) return;
    std::string key(found.shape.key_bytes, '\0');
    CopyShared(reinterpret_cast<std::byte*>(key.data()), found.key(), key.size());
    expired->emplace_back(std::move(key), found.version);
  };
  return VisitBucket(bucket, operation_timeout_ns, take, [&] { expired->clear(); });
}

Status Dict::FindBound(uint32_t bucket, std::vector<DictBinding>* bound,
                       uint64_t operation_timeout_ns) const {
  bound->clear();
  const auto take = [&](const Found& found) {
    if (found.bound_session == 0) return;
    DictBinding& binding = bound->emplace_back();
    binding.session = found.bound_session;
    binding.key.resize(found.shape.key_bytes);
    CopyShared(reinterpret_cast<std::byte*>(binding.key.data()), found.key(), binding.key.size());
  };
  return VisitBucket(bucket, operation_timeout_ns, take, [&] { bound->clear(); });
}

Status Dict::Scan(uint32_t* bucket, size_t limit, std::string_view prefix,
                  const std::function<void(DictEntry&)>& take,
                  uint64_t operation_timeout_ns) const {
  const DictState now = state();
  if (now != DictState::kLive && now != DictState::kMoving) return RefuseState();
  size_t given = 0;
  std::vector<DictEntry> entries;
  while (*bucket < geometry_.bucket_count && given < limit) {
    entries.clear();
    SH_RETURN_IF_ERROR(ReadBucket(*bucket, prefix, operation_timeout_ns, &entries));
    for (DictEntry& entry : entries) take(entry);
    given += entries.size();
    ++*bucket;
  }
  return Status();
}

}  // namespace statehouse
