// The mutations of a dict. A set fills a block before it takes the bucket, decides under the lock,
// and publishes with one store; a delete empties the slot; an increment changes the number where it
// lives.
#include <bit>
#include <cmath>

#include "engine/state/dict_internal.h"

namespace statehouse {
namespace {

// Inserts that a lane may make between two admissions, and the distance to the limit from which
// each one is admitted by itself: no lane can then overrun it with a budget that it still has.
constexpr uint64_t kInsertBudget = 32;
constexpr uint64_t kStrictMargin = 2 * kInsertBudget;

// How far an eviction looks for something old, and how often an operation makes room.
constexpr uint32_t kEvictCandidates = 8;
constexpr uint32_t kEvictBuckets = 512;
constexpr uint32_t kExpireBuckets = 1024;

}  // namespace

// Everything of an entry that is known before its bucket is locked.
void Dict::Fill(BlockRef ref, uint64_t hash, std::string_view key, const DictValue& value,
                uint64_t bind_session) const {
  std::byte* const block = BlockAt(ref);
  auto* header = reinterpret_cast<EntryHeader*>(block);
  // SYNC: dict.reuse — the block may be one that was replaced a moment ago. Whoever still reads it
  // and meets what is stored from here on sees, behind its acquire fence, that its bucket was
  // released since.
  std::atomic_thread_fence(std::memory_order_release);
  const EntryShape shape = EntryShape::For(key.size(), value, bind_session);
  Put64(header->hash, hash);
  Put64(header->shape, shape.word());
  if (bind_session != 0) [[unlikely]]
    Put64(SessionWord(block, shape), bind_session);
  std::byte* const at = block + shape.key_offset();
  CopyShared(at, reinterpret_cast<const std::byte*>(key.data()), key.size());
  CopyShared(at + key.size(), reinterpret_cast<const std::byte*>(value.bytes.data()),
             value.bytes.size());
  if (value.kind != DictKind::kBytes) {
    auto* cells = reinterpret_cast<NumberCells*>(block + sizeof(EntryHeader))->cells;
    Put64(cells[0].bits, value.bits);
    Put64(cells[1].bits, 0);
    Put64(cells[1].version, 0);
  }
}

// The rest, under the lock. The block is still the lane's own.
void Dict::FinishEntry(Section& section, const Found& found, bool present, BlockRef ref,
                       uint64_t fence) const {
  auto* header = reinterpret_cast<EntryHeader*>(BlockAt(ref));
  const uint64_t version = section.next_version();
  Put64(header->version, version);
  Put64(header->ordinal, present ? found.ordinal : NowNs());
  Put64(header->fence, std::max(fence, present ? found.fence : 0));
  if (EntryShape::Of(Get64(header->shape)).kind != 0) {
    Put64(reinterpret_cast<NumberCells*>(BlockAt(ref) + sizeof(EntryHeader))->cells[0].version,
          version);
  }
}

uint64_t Dict::ExpiryFor(const DictTtl& ttl, uint64_t current) const {
  switch (ttl.kind) {
    case DictTtl::Kind::kNone: return 0;
    case DictTtl::Kind::kKeep: return current;
    case DictTtl::Kind::kSet: return NowMs() + std::max<uint64_t>(ttl.ms, 1);
    case DictTtl::Kind::kDefault: break;
  }
  return geometry_.default_ttl_ms == 0 ? 0 : NowMs() + geometry_.default_ttl_ms;
}

bool Dict::Holds(const DictCondition& condition, bool present, const Found& found) const {
  switch (condition.kind) {
    case DictCondition::Kind::kNone: return true;
    case DictCondition::Kind::kAbsent: return !present;
    case DictCondition::Kind::kPresent: return present;
    case DictCondition::Kind::kVersion: return condition.version == (present ? found.version : 0);
    case DictCondition::Kind::kValue: break;
  }
  const DictValue& value = condition.value;
  if (!present || found.kind() != value.kind) return false;
  if (value.kind != DictKind::kBytes) return found.bits == value.bits;
  return found.shape.value_bytes == value.bytes.size() &&
         EqualShared(found.value(), value.bytes.data(), value.bytes.size());
}

Status Dict::CheckFence(std::string_view key, uint64_t fence, bool present,
                        const Found& found) const {
  if (fence == 0 || !present || found.fence <= fence) return Status();
  return Status(Reason::kFenced, "dict \"" + name_ + "\": key \"" + std::string(key) +
                                     "\" was written with fencing token " +
                                     std::to_string(found.fence) + ", newer than " +
                                     std::to_string(fence) + ": the caller's lease is over");
}

bool Dict::HasBudget(const Lane& lane) const {
  return budgets_[lane.id] > 0 && line_->strict.load(std::memory_order_seq_cst) == 0;
}

// How many entries may be added while the admission lock is held. Close to the limit every insert
// is admitted by itself from now on, so that the count cannot change meanwhile; far from it the
// lane gets a budget for its next ones.
uint64_t Dict::RoomForEntries(const Lane& lane, uint64_t inserts) const {
  const uint64_t lanes = lane_high();
  uint64_t entries = 0;
  for (uint64_t id = 1; id < lanes; ++id) {
    entries += Get64(Record(static_cast<uint32_t>(id)).entries);
  }
  if (static_cast<int64_t>(entries) < 0) entries = 0;
  const uint64_t max = geometry_.entries_max;
  const uint64_t room = entries < max ? max - entries : 0;
  const bool strict = room <= kStrictMargin * lanes + inserts + kInsertBudget;
  budgets_[lane.id] = strict ? 0 : kInsertBudget;
  line_->strict.store(strict ? 1 : 0, std::memory_order_seq_cst);
  return room;
}

// Leave for one new entry: a budget, and nothing is held; or, close to the limit, the admission
// lock.
Status Dict::Admit(Section& section) const {
  if (!Lock(section, kAdmissionLock)) return RefuseStalled(kAdmissionLock);
  const uint64_t room = RoomForEntries(section.lane, 1);
  if (HasBudget(section.lane)) {
    Unlock(section, false);
    return Status();
  }
  if (room > 0) return Status();
  Unlock(section, false);
  return Status(Reason::kLimitExceeded, "dict \"" + name_ + "\" holds its limit of " +
                                            std::to_string(geometry_.entries_max) +
                                            " entries (max_entries); nothing was evicted");
}

// Evicts the oldest of some entries that it meets, expired ones first. `code` 0 or the class of the
// block that is wanted.
bool Dict::EvictOne(const Lane& lane, uint32_t code) {
  DictEntry oldest;
  uint32_t candidates = 0;
  const uint32_t begin = BucketOf(hash_internal::Fold(NowNs() ^ lane.id, geometry_.seed.a | 1));
  std::vector<DictEntry> entries;
  for (uint32_t i = 0; i < geometry_.bucket_count; ++i) {
    if (candidates >= kEvictCandidates || (candidates > 0 && i >= kEvictBuckets)) break;
    entries.clear();
    if (!ReadBucket((begin + i) & (geometry_.bucket_count - 1), "", lane.operation_timeout_ns,
                    &entries)
             .ok())
      continue;
    for (DictEntry& entry : entries) {
      const EntryShape shape =
          EntryShape::For(entry.key.size(), entry.value(), entry.bound_session);
      if (code != 0 && ClassForEntry(shape.entry_bytes()) != code) continue;
      if (candidates++ == 0 || entry.ordinal < oldest.ordinal) oldest = std::move(entry);
    }
  }
  if (candidates == 0) return false;
  DictDeleteOptions options;
  options.condition.kind = DictCondition::Kind::kVersion;
  options.condition.version = oldest.version;
  options.why = ChangeOperation::kEvict;
  DictResult result;
  return Delete(lane, oldest.key, options, &result).ok();
}

Status Dict::MakeRoom(const Lane& lane, uint32_t code, Status full) {
  const bool memory = full.reason() == Reason::kMemoryExhausted;
  if (!memory && full.reason() != Reason::kLimitExceeded) return full;
  // What is expired goes first.
  uint32_t bucket = BucketOf(hash_internal::Fold(NowNs(), geometry_.seed.a | 1));
  const auto expired = Expire(lane, &bucket, kExpireBuckets);
  if (expired.ok() && *expired > 0) return Status();
  // Memory that the service may still give comes before an eviction. Once it refused a dict that
  // evicts, that makes room within what it has, in a table that was to grow too.
  const bool evicts = BackingIsRefused() || (geometry_.evict && !(memory && AwaitsBacking()));
  if (!evicts) {
    // The upkeep may have taken back what the lane saw.
    backing_seen_[lane.id] &= ~kBackingRefused;
    return full;
  }
  return EvictOne(lane, memory && !IsExtent(code) ? code : 0) ? Status() : full;
}

// Hangs an empty line on the bucket, which is full. Carried out by itself, within the caller's
// critical section.
Status Dict::Extend(Section& section, Found* found) const {
  Magazine& magazine = section.record.magazines[1];
  const uint64_t count = Get64(magazine.count);
  if (found->lines >= kOverflowLinesMax || found->last_link == nullptr) {
    return Status(Reason::kLimitExceeded,
                  "dict \"" + name_ + "\": too many keys fall into one bucket");
  }
  if (count == 0 || count > kMagazineBlocksMax) return RefuseFull();
  const BlockRef ref = Get64(magazine.refs[count - 1]);
  if (ClassOf(ref) != 1 || !RefIsSane(ref)) return RefuseDamaged("a lane record");
  auto* line = reinterpret_cast<OverflowLine*>(BlockAt(ref));
  for (std::atomic<uint64_t>& slot : line->slots) Put64(slot, 0);
  Put64(line->link, 0);
  Redo(section, *found->last_link, Get64(*found->last_link) | ref);
  Redo(section, magazine.count, count - 1);
  Commit(section);
  found->empty = &line->slots[0];
  found->last_link = &line->link;
  ++found->lines;
  return Status();
}

Status Dict::PrepareSet(std::string_view key, const DictValue& value) const {
  SH_RETURN_IF_ERROR(CheckWritable());
  SH_RETURN_IF_ERROR(CheckKey(key));
  if (value.bytes.size() > kDictValueBytesMax) [[unlikely]] {
    return Status(Reason::kValueInvalid,
                  "dict \"" + name_ + "\": a value of " + std::to_string(value.bytes.size()) +
                      " bytes, the limit is " + std::to_string(kDictValueBytesMax));
  }
  return Status();
}

Status Dict::TrySet(const Lane& lane, std::string_view key, uint64_t hash, const DictValue& value,
                    const DictSetOptions& options, const DictEntry* restored, DictResult* result,
                    bool* again) {
  const uint32_t code =
      ClassForEntry(EntryShape::For(key.size(), value, options.bind_session).entry_bytes());
  SH_ASSIGN_OR_RETURN(const BlockRef ref, BlockInHand(lane, code));
  Fill(ref, hash, key, value, options.bind_session);
  Section section(lane, Record(lane.id));
  // A lane without a line to hang on a full bucket gets some before it locks; without memory for
  // them the insert fails only if it needs one.
  if (Get64(section.record.magazines[1].count) == 0) (void)RefillMagazine(lane, 1);
  if (!HasBudget(lane)) {
    Found glance;
    if (!Look(hash, key, &glance)) SH_RETURN_IF_ERROR(Admit(section));
  }
  const bool admitted = section.locks > 0;
  SH_RETURN_IF_ERROR(LockBucket(section, BucketOf(hash)));

  Found found;
  const bool occupied = Look(hash, key, &found);
  const bool present = occupied && !IsExpired(found.expires_ms);
  result->existed = present;
  const auto leave = [&](Status status) {
    Unlock(section, false);
    return status;
  };
  if (found.damaged) [[unlikely]]
    return leave(RefuseDamaged("a bucket"));
  if (options.previous != nullptr && present) TakeEntry(found, options.previous);
  if (!Holds(options.condition, present, found)) {
    result->version = present ? found.version : 0;
    return leave(Status());
  }
  if (options.fence != 0) {
    Status fenced = CheckFence(key, options.fence, present, found);
    if (!fenced.ok()) return leave(std::move(fenced));
  }
  if (!occupied) {
    if (!admitted && !HasBudget(lane)) {  // It was deleted since we looked.
      *again = true;
      return leave(Status());
    }
    if (found.empty == nullptr) {
      Status extended = Extend(section, &found);
      if (!extended.ok()) return leave(std::move(extended));
    }
    if (!admitted) --budgets_[lane.id];
  }
  auto* header = reinterpret_cast<EntryHeader*>(BlockAt(ref));
  Put64(header->expires_ms, ExpiryFor(options.ttl, present ? found.expires_ms : 0));
  FinishEntry(section, found, present, ref, options.fence);
  if (restored != nullptr) [[unlikely]]
    Restore(*restored, ref);
  std::atomic<uint64_t>& slot = occupied ? *found.slot : *found.empty;
  if (MutantIs(Mutant::kDictSlotBeforeArmed)) Put64(slot, SlotWord(hash, ref));
  Redo(section, slot, SlotWord(hash, ref));
  if (!occupied) section.entries = 1;
  section.bytes = BytesOfClass(code) - (occupied ? BytesOfClass(ClassOf(found.ref)) : 0);
  section.bound = BoundBy(options.bind_session) - (occupied ? found.bound_by() : 0);
  result->applied = true;
  result->version = section.next_version();
  result->kind = value.kind;
  result->bits = value.bits;
  BlockRef before = found.ref;
  if (options.operation.valid()) {
    before = Remember(section, options.operation, *result, 0, found.ref);
  }
  TakeBlock(section, ref, before);
  if (restored == nullptr) {
    AppendChange(section, ChangeOperation::kPut, key, value, result->version);
  }
  Commit(section);
  Unlock(section, true);
  TellWatchers();
  if (before != 0) TidyAfter(lane, ClassOf(before));
  return Status();
}

// The parts of an entry that outlive its move to another segment.
void Dict::Restore(const DictEntry& restored, BlockRef ref) const {
  auto* header = reinterpret_cast<EntryHeader*>(BlockAt(ref));
  Put64(header->version, restored.version);
  Put64(header->expires_ms, restored.expires_ms);
  Put64(header->fence, restored.fence);
  Put64(header->ordinal, restored.ordinal);
  if (restored.kind != DictKind::kBytes) {
    Put64(reinterpret_cast<NumberCells*>(BlockAt(ref) + sizeof(EntryHeader))->cells[0].version,
          restored.version);
  }
}

Status Dict::SetWith(const Lane& lane, std::string_view key, const DictValue& value,
                     const DictSetOptions& options, const DictEntry* restored, DictResult* result) {
  *result = DictResult();
  SH_RETURN_IF_ERROR(PrepareSet(key, value));
  SH_RETURN_IF_ERROR(BeginChange(lane));
  const uint64_t hash = HashKey(geometry_.seed, key);
  for (int round = 0;;) {
    bool again = false;
    Status status = TrySet(lane, key, hash, value, options, restored, result, &again);
    // A large block that was not needed goes back at once.
    if (Get64(Record(lane.id).extent) != 0) TidyAfter(lane, kExtentCodeBase);
    if (status.ok() && !again) return status;
    if (status.ok()) continue;
    if (round++ == kMakeRoomRounds) return status;
    const EntryShape shape = EntryShape::For(key.size(), value, options.bind_session);
    SH_RETURN_IF_ERROR(MakeRoom(lane, ClassForEntry(shape.entry_bytes()), std::move(status)));
  }
}

Status Dict::Set(const Lane& lane, std::string_view key, const DictValue& value,
                 const DictSetOptions& options, DictResult* result) {
  return SetWith(lane, key, value, options, nullptr, result);
}

Status Dict::Delete(const Lane& lane, std::string_view key, const DictDeleteOptions& options,
                    DictResult* result) {
  *result = DictResult();
  SH_RETURN_IF_ERROR(CheckWritable());
  SH_RETURN_IF_ERROR(CheckKey(key));
  SH_RETURN_IF_ERROR(BeginChange(lane));
  const uint64_t hash = HashKey(geometry_.seed, key);
  Section section(lane, Record(lane.id));
  SH_RETURN_IF_ERROR(LockBucket(section, BucketOf(hash)));
  Found found;
  const bool occupied = Look(hash, key, &found);
  const bool expired = occupied && IsExpired(found.expires_ms);
  const bool present = occupied && !expired;
  result->existed = present;
  const bool removes_expired = expired && options.why == ChangeOperation::kExpire;
  const bool is_others =
      options.bound_session != 0 && occupied && found.bound_session != options.bound_session;
  if (found.damaged || !(present || removes_expired) || is_others ||
      !Holds(options.condition, occupied, found)) {
    result->version = present ? found.version : 0;
    Unlock(section, false);
    // There is nothing to delete: that is what the caller wanted, unless it asked for more.
    return found.damaged ? RefuseDamaged("a bucket") : Status();
  }
  if (Status fenced = CheckFence(key, options.fence, present, found); !fenced.ok()) {
    Unlock(section, false);
    return fenced;
  }
  if (options.previous != nullptr) TakeEntry(found, options.previous);
  Redo(section, *found.slot, 0);
  result->applied = true;
  BlockRef before = found.ref;
  if (options.operation.valid()) {
    before = Remember(section, options.operation, *result, 0, found.ref);
  }
  if (before != 0) GiveBlock(section, before);
  section.entries = static_cast<uint64_t>(-1);
  section.bytes = -BytesOfClass(ClassOf(found.ref));
  section.bound = -found.bound_by();
  DictLaneRecord& record = section.record;
  if (options.why == ChangeOperation::kExpire) {
    Redo(section, record.expirations, Get64(record.expirations) + 1);
  } else if (options.why == ChangeOperation::kEvict) {
    Redo(section, record.evictions, Get64(record.evictions) + 1);
  }
  AppendChange(section, options.why, key, DictValue(), section.next_version());
  Commit(section);
  Unlock(section, true);
  TellWatchers();
  if (before != 0) TidyAfter(lane, ClassOf(before));
  return Status();
}

// `current` plus the increment, of the kind that `current` has.
Status Dict::AddTo(DictKind kind, uint64_t current, const DictIncrement& increment,
                   std::string_view key, uint64_t* sum) const {
  const auto refuse = [&](Reason reason, const char* why) {
    return Status(reason,
                  "dict \"" + name_ + "\": adding to key \"" + std::string(key) + "\": " + why);
  };
  const auto as_double = [](const DictValue& value) {
    return value.kind == DictKind::kInt64 ? static_cast<double>(static_cast<int64_t>(value.bits))
                                          : std::bit_cast<double>(value.bits);
  };
  if (kind == DictKind::kInt64 && increment.delta.kind == DictKind::kInt64) {
    int64_t result = 0;
    if (__builtin_add_overflow(static_cast<int64_t>(current),
                               static_cast<int64_t>(increment.delta.bits), &result)) {
      return refuse(Reason::kValueOutOfRange, "the sum does not fit int64");
    }
    if (increment.bounded && (result < static_cast<int64_t>(increment.min.bits) ||
                              result > static_cast<int64_t>(increment.max.bits))) {
      return refuse(Reason::kValueOutOfRange, "the sum is outside min and max");
    }
    *sum = static_cast<uint64_t>(result);
    return Status();
  }
  if (kind != DictKind::kFloat64) {
    return refuse(Reason::kTypeMismatch, kind == DictKind::kBytes
                                             ? "it holds no number"
                                             : "it holds an int64, the delta is a float64");
  }
  const double result = std::bit_cast<double>(current) + as_double(increment.delta);
  if (increment.bounded &&
      !(result >= as_double(increment.min) && result <= as_double(increment.max))) {
    return refuse(Reason::kValueOutOfRange, "the sum is outside min and max");
  }
  *sum = std::bit_cast<uint64_t>(result);
  return Status();
}

Status Dict::TryIncrement(const Lane& lane, std::string_view key, uint64_t hash,
                          const DictIncrement& increment, DictResult* result, bool* absent) {
  Section section(lane, Record(lane.id));
  SH_RETURN_IF_ERROR(LockBucket(section, BucketOf(hash)));
  Found found;
  const bool occupied = Look(hash, key, &found);
  const auto leave = [&](Status status) {
    Unlock(section, false);
    return status;
  };
  if (found.damaged) [[unlikely]]
    return leave(RefuseDamaged("a bucket"));
  if (!occupied || IsExpired(found.expires_ms)) {
    *absent = true;
    return leave(Status());
  }
  result->existed = true;
  if (increment.fence != 0) {
    if (Status fenced = CheckFence(key, increment.fence, true, found); !fenced.ok()) {
      return leave(std::move(fenced));
    }
  }
  uint64_t sum = 0;
  if (Status added = AddTo(found.kind(), found.bits, increment, key, &sum); !added.ok())
      [[unlikely]]
    return leave(std::move(added));
  const uint64_t version = section.next_version();
  // The number first, the version that publishes it second.
  if (MutantIs(Mutant::kDictVersionBeforeNumber)) Redo(section, found.older->version, version);
  Redo(section, found.older->bits, sum);
  Redo(section, found.older->version, version);
  const bool fences = increment.fence > found.fence;
  if (fences) {
    Redo(section, reinterpret_cast<EntryHeader*>(found.block)->fence, increment.fence);
  }
  result->applied = true;
  result->version = version;
  result->kind = found.kind();
  result->bits = sum;
  BlockRef before = 0;
  if (increment.operation.valid()) [[unlikely]] {
    before = Remember(section, increment.operation, *result, 0, 0);
    if (before != 0) GiveBlock(section, before);
  }
  AppendChange(section, ChangeOperation::kPut, key, DictValue{found.kind(), {}, sum}, version);
  // Nobody may see the new number with the old fence.
  if (fences) [[unlikely]]
    MarkBucket(buckets_[BucketOf(hash)], true);
  Commit(section);
  if (fences) [[unlikely]]
    MarkBucket(buckets_[BucketOf(hash)], false);
  Unlock(section, true);
  TellWatchers();
  if (before != 0) TidyAfter(lane, ClassOf(before));
  return Status();
}

Status Dict::Increment(const Lane& lane, std::string_view key, const DictIncrement& increment,
                       DictResult* result) {
  *result = DictResult();
  SH_RETURN_IF_ERROR(CheckWritable());
  SH_RETURN_IF_ERROR(CheckKey(key));
  if (increment.delta.kind == DictKind::kBytes) {
    return Status(Reason::kInvalidArgument,
                  "dict \"" + name_ + "\": an increment needs an int64 or a float64");
  }
  SH_RETURN_IF_ERROR(BeginChange(lane));
  const uint64_t hash = HashKey(geometry_.seed, key);
  for (;;) {
    bool absent = false;
    SH_RETURN_IF_ERROR(TryIncrement(lane, key, hash, increment, result, &absent));
    if (!absent) return Status();
    if (increment.must_exist) {
      return Status(Reason::kKeyNotFound, "dict \"" + name_ + "\": adding to key \"" +
                                              std::string(key) + "\": there is no such key");
    }
    DictValue first = increment.initial;
    if (first.kind != increment.delta.kind) first = {increment.delta.kind, {}, 0};
    SH_RETURN_IF_ERROR(AddTo(first.kind, first.bits, increment, key, &first.bits));
    DictSetOptions options;
    options.condition.kind = DictCondition::Kind::kAbsent;
    options.ttl = increment.ttl;
    options.fence = increment.fence;
    options.operation = increment.operation;
    SH_RETURN_IF_ERROR(Set(lane, key, first, options, result));
    if (result->applied) return Status();
  }
}

}  // namespace statehouse
