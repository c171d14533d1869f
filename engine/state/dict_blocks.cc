// The allocator of a dict. Free blocks stand in one list for each class, under one lock; each lane
// keeps some of each class in a magazine of its own, so that the lock is rarely taken. An operation
// uses the top block of a magazine in place and hands the one that it replaces back to the same
// place; both happen in the operation's redo record.
//
// Outside of an operation a magazine is never full, so an operation can always give one block back.
#include "engine/state/dict_internal.h"

namespace statehouse {
namespace {

uint64_t Link(std::byte* block) { return Get64(*reinterpret_cast<std::atomic<uint64_t>*>(block)); }

void SetLink(std::byte* block, BlockRef next) {
  Put64(*reinterpret_cast<std::atomic<uint64_t>*>(block), next);
}

}  // namespace

// One critical section of the allocator: takes and gives blocks in private copies of the lists,
// then commits what changed.
class Dict::AllocatorSection final {
 public:
  AllocatorSection(const Dict& dict, const Lane& lane)
      : dict_(dict), line_(*dict.allocator_), section_(lane, dict.Record(lane.id)) {}

  Status Begin() {
    if (!dict_.Lock(section_, kAllocatorLock)) return dict_.RefuseStalled(kAllocatorLock);
    for (uint32_t code = 1; code < kSizeClasses; ++code) {
      heads_[code] = Get64(line_.heads[code]);
      next_[code] = Get64(line_.bump_next[code]);
      end_[code] = Get64(line_.bump_end[code]);
    }
    backed_ = dict_.slabs_backed();
    end_slab_ = MutantIs(Mutant::kDictUnbackedUsed) ? dict_.geometry_.slab_count()
                                                    : dict_.UsableSlabs(backed_);
    hint_ = std::min<uint64_t>(Get64(line_.slab_hint), dict_.geometry_.slab_count());
    hint_ = std::max<uint64_t>(hint_, 1);  // The first slab is never used.
    from_ = hint_;
    return Status();
  }

  // 0: there is none.
  BlockRef Take(uint32_t code) {
    if (IsExtent(code)) return TakeExtent(code);
    const BlockRef head = heads_[code];
    if (head != 0) {
      if (!dict_.RefIsSane(head) || ClassOf(head) != code) {
        heads_[code] = 0;  // The list is damaged: what hung on it is lost until the dict moves.
      } else {
        heads_[code] = Link(dict_.BlockAt(head));
        return head;
      }
    }
    if (!BumpIsSane(code) && !TakeSlab(code)) return 0;
    const BlockRef ref = MakeRef(code, next_[code]);
    next_[code] += kClassBytes[code];
    return ref;
  }

  void Give(BlockRef ref) {
    if (!dict_.RefIsSane(ref)) return;  // Damage in the lane's own record: the block is lost.
    if (IsExtent(ClassOf(ref))) {
      const uint64_t first = PositionOf(ref) / kSlabBytes;
      const uint64_t slabs = ClassOf(ref) - kExtentCodeBase;
      for (uint64_t i = 0; i < slabs; ++i) Redo(dict_.slabs_[first + i], 0);
      hint_ = std::min(hint_, first);
      return;
    }
    const uint32_t code = ClassOf(ref);
    // SYNC: dict.reuse — as in Fill.
    std::atomic_thread_fence(std::memory_order_release);
    SetLink(dict_.BlockAt(ref), heads_[code]);
    heads_[code] = ref;
  }

  void Redo(std::atomic<uint64_t>& place, uint64_t value) { dict_.Redo(section_, place, value); }
  DictLaneRecord& record() { return section_.record; }
  uint32_t pairs() const { return section_.pairs; }

  void End() {
    for (uint32_t code = 1; code < kSizeClasses; ++code) {
      RedoIfChanged(line_.heads[code], heads_[code]);
      RedoIfChanged(line_.bump_next[code], next_[code]);
      RedoIfChanged(line_.bump_end[code], end_[code]);
    }
    RedoIfChanged(line_.slab_hint, hint_);
    dict_.Commit(section_);
    dict_.Unlock(section_, true);
  }

  void Abandon() { dict_.Unlock(section_, false); }

 private:
  void RedoIfChanged(std::atomic<uint64_t>& place, uint64_t value) {
    if (Get64(place) != value) Redo(place, value);
  }

  bool BumpIsSane(uint32_t code) const {
    const uint64_t position = next_[code];
    return position < end_[code] && position % kBlockUnitBytes == 0 &&
           dict_.RefIsSane(MakeRef(code, position)) && position + kClassBytes[code] <= end_[code];
  }

  bool TakeSlab(uint32_t code) {
    const uint64_t slab = FindSlabs(1);
    if (slab == 0) return false;
    Redo(dict_.slabs_[slab], code);
    next_[code] = slab * kSlabBytes;
    end_[code] = next_[code] + kSlabBytes / kClassBytes[code] * kClassBytes[code];
    return true;
  }

  BlockRef TakeExtent(uint32_t code) {
    const uint64_t slabs = code - kExtentCodeBase;
    const uint64_t first = FindSlabs(slabs);
    if (first == 0) return 0;
    Redo(dict_.slabs_[first], kExtentHead + slabs);
    for (uint64_t i = 1; i < slabs; ++i) Redo(dict_.slabs_[first + i], kExtentRest);
    return MakeRef(code, first * kSlabBytes);
  }

  // The first of `count` free slabs in a row; 0: there are none. Never gives the same slab twice.
  uint64_t FindSlabs(uint64_t count) {
    uint64_t run = 0;
    for (uint64_t slab = from_; slab < end_slab_; ++slab) {
      run = Get64(dict_.slabs_[slab]) == 0 ? run + 1 : 0;
      if (run < count) continue;
      const uint64_t first = slab + 1 - count;
      if (first == hint_) hint_ = slab + 1;
      from_ = slab + 1;
      return first;
    }
    dict_.backing_seen_[section_.lane.id] = backed_;
    return 0;
  }

  const Dict& dict_;
  AllocatorLine& line_;
  Section section_;
  uint64_t heads_[kSizeClasses];
  uint64_t next_[kSizeClasses];
  uint64_t end_[kSizeClasses];
  uint64_t backed_ = 0;  // The word that says so:
  uint64_t end_slab_ = 0;
  uint64_t hint_ = 0;
  uint64_t from_ = 0;
};

uint64_t Dict::UsableSlabs(uint64_t backed) const {
  return backed == 0 ? geometry_.slab_count()
                     : std::min<uint64_t>(backed & ~kBackingRefused, geometry_.slab_count());
}

uint64_t Dict::UsableSlabs() const { return UsableSlabs(slabs_backed()); }

bool Dict::AwaitsBacking() const { return UsableSlabs() < geometry_.slab_count(); }

bool Dict::BackingIsRefused() const {
  return (allocator_->slabs_backed.load(std::memory_order_relaxed) & kBackingRefused) != 0;
}

bool Dict::BackingIsNews(const Lane& lane) const {
  const uint64_t seen = backing_seen_[lane.id];
  // The service refuses one that evicts only when it has told it so; the upkeep takes that back.
  return slabs_backed() != seen ||
         (geometry_.evict && AwaitsBacking() && (seen & kBackingRefused) == 0);
}

uint64_t Dict::slabs_backed() const {
  // SYNC: dict.backed
  return allocator_->slabs_backed.load(std::memory_order_acquire);
}

void Dict::SetSlabsBacked(uint64_t word) {
  // SYNC: dict.backed — the slabs below have their memory before anybody uses them.
  allocator_->slabs_backed.store(word, std::memory_order_release);
}

uint64_t Dict::SlabsInUse() const {
  uint64_t end = geometry_.slab_count();
  while (end > 1 && Get64(slabs_[end - 1]) == 0) --end;
  return end;
}

Status Dict::WithUnusedSlabs(const Lane& lane, uint64_t least,
                             const std::function<void(uint64_t first)>& act) const {
  AllocatorSection section(*this, lane);
  SH_RETURN_IF_ERROR(section.Begin());
  act(std::max(least, SlabsInUse()));
  section.Abandon();
  return Status();
}

Status Dict::RefuseFull() const {
  if (AwaitsBacking()) {
    return Status(Reason::kMemoryExhausted,
                  "dict \"" + name_ + "\": the service has no memory for it within its limit " +
                      "(areas.memory_max); nothing was evicted");
  }
  return Status(Reason::kMemoryExhausted, "dict \"" + name_ + "\" is full: its " +
                                              std::to_string(geometry_.data_bytes - kSlabBytes) +
                                              " bytes (max_bytes) are in use; nothing was evicted");
}

Status Dict::RefillMagazine(const Lane& lane, uint32_t code) const {
  AllocatorSection section(*this, lane);
  SH_RETURN_IF_ERROR(section.Begin());
  Magazine& magazine = section.record().magazines[code];
  const uint64_t had = std::min<uint64_t>(Get64(magazine.count), MagazineBlocks(code));
  const uint64_t wanted = std::max(1u, MagazineBlocks(code) / 2);
  uint64_t count = had;
  while (count < wanted) {
    const BlockRef ref = section.Take(code);
    if (ref == 0) break;
    Put64(magazine.refs[count++], ref);  // Above the count: not the lane's before the commit.
  }
  if (count == had) {
    section.Abandon();
    return had > 0 ? Status() : RefuseFull();
  }
  section.Redo(magazine.count, count);
  section.End();
  return Status();
}

Status Dict::FlushMagazine(const Lane& lane, uint32_t code, uint64_t keep) const {
  AllocatorSection section(*this, lane);
  SH_RETURN_IF_ERROR(section.Begin());
  Magazine& magazine = section.record().magazines[code];
  const uint64_t count = std::min<uint64_t>(Get64(magazine.count), kMagazineBlocksMax);
  for (uint64_t i = keep; i < count; ++i) section.Give(Get64(magazine.refs[i]));
  section.Redo(magazine.count, std::min(keep, count));
  section.End();
  return Status();
}

// After an operation that gave a block of class `code` back: makes room for the next one.
Status Dict::Tidy(const Lane& lane, uint32_t code) const {
  DictLaneRecord& record = Record(lane.id);
  if (code < kSizeClasses) {
    if (Get64(record.magazines[code].count) < MagazineBlocks(code)) [[likely]]
      return Status();
    return FlushMagazine(lane, code, MagazineBlocks(code) / 2);
  }
  return Get64(record.extent) == 0 ? Status() : FreeExtent(lane);
}

// Gives back everything that a lane holds beyond its magazines.
Status Dict::TidyAll(const Lane& lane) const {
  const DictLaneRecord& record = Record(lane.id);
  if (Get64(record.staged_count) != 0) SH_RETURN_IF_ERROR(FreeStaged(lane));
  if (Get64(record.extent) != 0) SH_RETURN_IF_ERROR(FreeExtent(lane));
  for (uint32_t code = 1; code < kSizeClasses; ++code) SH_RETURN_IF_ERROR(Tidy(lane, code));
  return Status();
}

// As Tidy, for a change that has happened: it must not be told as refused because somebody else
// holds the allocator. The lane's next change begins with what is left to do.
void Dict::TidyAfter(const Lane& lane, uint32_t code) const {
  if (!Tidy(lane, code).ok()) [[unlikely]]
    untidy_[lane.id] = true;
}

Status Dict::BeginChange(const Lane& lane) const {
  if (!untidy_[lane.id]) [[likely]]
    return Status();
  SH_RETURN_IF_ERROR(TidyAll(lane));
  untidy_[lane.id] = false;
  return Status();
}

Status Dict::FreeExtent(const Lane& lane) const {
  AllocatorSection section(*this, lane);
  SH_RETURN_IF_ERROR(section.Begin());
  section.Give(Get64(section.record().extent));
  section.Redo(section.record().extent, 0);
  section.End();
  return Status();
}

// A block of class `code` that is this lane's to fill: the top of its magazine, or its extent. It
// stays there until TakeBlock.
StatusOr<BlockRef> Dict::BlockInHand(const Lane& lane, uint32_t code) const {
  DictLaneRecord& record = Record(lane.id);
  if (IsExtent(code)) {
    const BlockRef held = Get64(record.extent);
    if (held != 0 && ClassOf(held) == code && RefIsSane(held)) return held;
    if (held != 0) SH_RETURN_IF_ERROR(FreeExtent(lane));
    AllocatorSection section(*this, lane);
    SH_RETURN_IF_ERROR(section.Begin());
    const BlockRef ref = section.Take(code);
    if (ref == 0) {
      section.Abandon();
      return RefuseFull();
    }
    section.Redo(record.extent, ref);
    section.End();
    return ref;
  }
  Magazine& magazine = record.magazines[code];
  if (Get64(magazine.count) == 0) [[unlikely]]
    SH_RETURN_IF_ERROR(RefillMagazine(lane, code));
  const uint64_t count = Get64(magazine.count);
  if (count == 0 || count > kMagazineBlocksMax) [[unlikely]]
    return RefuseDamaged("a lane record");
  const BlockRef ref = Get64(magazine.refs[count - 1]);
  if (ClassOf(ref) != code || !RefIsSane(ref)) [[unlikely]]
    return RefuseDamaged("a lane record");
  return ref;
}

// In the redo record: `now`, which BlockInHand gave, leaves the lane, and `before` (0 for none)
// takes its place.
void Dict::TakeBlock(Section& section, BlockRef now, BlockRef before) const {
  DictLaneRecord& record = section.record;
  const uint32_t code = ClassOf(now);
  if (IsExtent(code)) {
    const bool swap = IsExtent(ClassOf(before));
    Redo(section, record.extent, swap ? before : 0);
    if (before != 0 && !swap) GiveBlock(section, before);
    return;
  }
  Magazine& magazine = record.magazines[code];
  const uint64_t top = Get64(magazine.count) - 1;
  if (ClassOf(before) == code) {
    Redo(section, magazine.refs[top], before);
    return;
  }
  if (MutantIs(Mutant::kDictMagazineBeforeArmed)) Put64(magazine.count, top);
  Redo(section, magazine.count, top);
  if (before != 0) GiveBlock(section, before);
}

// In the redo record: `before` is the lane's now.
void Dict::GiveBlock(Section& section, BlockRef before) const {
  DictLaneRecord& record = section.record;
  if (IsExtent(ClassOf(before))) {
    Redo(section, record.extent, before);
    return;
  }
  Magazine& magazine = record.magazines[ClassOf(before)];
  const uint64_t count = Get64(magazine.count);
  if (count >= kMagazineBlocksMax) return;  // A damaged record: the block is lost, nothing else.
  Put64(magazine.refs[count], before);
  Redo(section, magazine.count, count + 1);
}

// Large blocks need a redo pair for each slab, so that many of them come and go in several steps,
// each of which leaves room for one more block and for what the section itself changes.
constexpr uint32_t kPairsKept = 4 * kSizeClasses + kExtentSlabsMax;

// One block for each code into staged[], nothing for code 0. When it fails, staged_count says how
// many are there. REQUIRES: staged_count is 0.
Status Dict::AllocateStaged(const Lane& lane, std::span<const uint32_t> codes) const {
  DictLaneRecord& record = Record(lane.id);
  size_t count = 0;
  do {
    AllocatorSection section(*this, lane);
    SH_RETURN_IF_ERROR(section.Begin());
    while (count < codes.size() && section.pairs() < kRedoPairsMax - kPairsKept) {
      const BlockRef ref = codes[count] == 0 ? 0 : section.Take(codes[count]);
      if (ref == 0 && codes[count] != 0) {
        section.Abandon();
        return RefuseFull();
      }
      Put64(record.staged[count++], ref);
    }
    section.Redo(record.staged_count, count);
    section.End();
  } while (count < codes.size());
  return Status();
}

// What a transaction left in staged[]: blocks that it did not need, and those that it replaced.
Status Dict::FreeStaged(const Lane& lane) const {
  DictLaneRecord& record = Record(lane.id);
  uint64_t count = std::min<uint64_t>(Get64(record.staged_count), kStagedBlocksMax);
  do {
    AllocatorSection section(*this, lane);
    SH_RETURN_IF_ERROR(section.Begin());
    while (count > 0 && section.pairs() < kRedoPairsMax - kPairsKept) {
      const BlockRef ref = Get64(record.staged[--count]);
      if (ref != 0) section.Give(ref);
    }
    section.Redo(record.staged_count, count);
    section.End();
  } while (count > 0);
  return Status();
}

}  // namespace statehouse
