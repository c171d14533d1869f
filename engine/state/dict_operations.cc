// Remembered operations: a mutation with an operation id leaves what it did in a record of its
// session, in the same redo as its change. A repeated one is answered from there, by this daemon or
// the next. Only the daemon reads and writes these records; workers' operations have no names,
// because a worker knows whether its own store happened.
#include "engine/state/dict_internal.h"

namespace statehouse {
namespace {

// The word behind a step's entry that says which session it was bound to.
std::atomic<uint64_t>& StepSession(std::byte* entry, uint64_t value_bytes) {
  return *reinterpret_cast<std::atomic<uint64_t>*>(entry + StepEntryBytes(value_bytes, false));
}

uint32_t SetOf(uint64_t session) {
  return static_cast<uint32_t>(hash_internal::Fold(session, hash_internal::kStep) % kOperationSets);
}

}  // namespace

OperationRow* Dict::RowAt(uint32_t set, uint32_t way) const {
  return reinterpret_cast<OperationRow*>(base_ + geometry_.operations_offset()) +
         (set * kOperationWays + way);
}

// The session's row. With `take` the one that was used longest ago becomes its own; its records
// stay until they are written over, and belong to nobody else by what they say.
OperationRow* Dict::RowOf(uint64_t session, bool take) const {
  const uint32_t set = SetOf(session);
  OperationRow* oldest = nullptr;
  for (uint32_t way = 0; way < kOperationWays; ++way) {
    OperationRow* const row = RowAt(set, way);
    if (Get64(row->session) == session) {
      Put64(row->used, NowNs());
      return row;
    }
    if (oldest == nullptr || Get64(row->used) < Get64(oldest->used)) oldest = row;
  }
  if (!take) return nullptr;
  line_->operations.store(1, std::memory_order_relaxed);
  Put64(oldest->session, session);
  Put64(oldest->used, NowNs());
  return oldest;
}

// One lock for each set, so that two sessions do not take the same row.
std::unique_lock<std::mutex> Dict::HoldSession(uint64_t session, bool wait) {
  std::mutex& lock = session_locks_[SetOf(session) % kSessionLocks];
  return wait ? std::unique_lock<std::mutex>(lock)
              : std::unique_lock<std::mutex>(lock, std::try_to_lock);
}

Status Dict::Recall(DictOperationId operation, DictRemembered* remembered, bool* found) const {
  *found = false;
  if (line_->operations.load(std::memory_order_relaxed) == 0) return Status();
  const OperationRow* const row = RowOf(operation.session, false);
  if (row == nullptr) return Status();
  const OperationRecord& record = row->records[operation.sequence % kOperationsPerSession];
  if (Get64(record.session) != operation.session) return Status();
  const uint64_t sequence = Get64(record.sequence);
  if (sequence < operation.sequence) return Status();
  if (sequence > operation.sequence) {
    return Status(Reason::kConflict,
                  "operation " + std::to_string(operation.sequence) +
                      " of its session is older than the last " +
                      std::to_string(kOperationsPerSession) +
                      ", which are remembered: whether it was carried out is not known");
  }
  *found = true;
  const uint64_t facts = Get64(record.facts);
  remembered->result.applied = true;
  remembered->result.existed = (facts & kOperationExisted) != 0;
  remembered->result.version = Get64(record.version);
  remembered->result.bits = Get64(record.bits);
  remembered->result.kind = static_cast<DictKind>(facts >> kOperationKindShift & 0xff);
  remembered->compared = (facts & kOperationCompared) != 0;
  const BlockRef block = Get64(record.block);
  const bool is_results = (facts & kOperationIsResults) != 0;
  // An expired entry is kept like another one, and is none.
  if (block == 0 || !(is_results || remembered->result.existed)) return Status();
  if (!RefIsSane(block)) return RefuseDamaged("a remembered operation");
  if (!is_results) {
    Found entry;
    entry.ref = block;
    if (!entry.ReadBlock(BlockAt(block))) return RefuseDamaged("a remembered operation");
    TakeEntry(entry, &remembered->previous);
    remembered->has_previous = true;
    return Status();
  }
  remembered->entries_kept = (facts & kOperationNoEntries) == 0;
  return ReadResults(block, facts >> kOperationCountShift, &remembered->steps);
}

// What FillResults wrote; whatever stands there, nothing outside of the block is read.
Status Dict::ReadResults(BlockRef block, uint64_t count,
                         std::vector<DictOperationResult>* results) const {
  const uint64_t bytes = BytesOfClass(ClassOf(block));
  if (count * sizeof(StepWords) > bytes) return RefuseDamaged("a remembered operation");
  std::byte* const at = BlockAt(block);
  const auto* words = reinterpret_cast<const StepWords*>(at);
  for (uint64_t i = 0; i < count; ++i) {
    DictOperationResult& step = results->emplace_back();
    const uint64_t facts = Get64(words[i].facts);
    step.result.applied = true;
    step.result.existed = (facts & kOperationExisted) != 0;
    step.result.kind = static_cast<DictKind>(facts >> kOperationKindShift & 0xff);
    step.result.version = Get64(words[i].version);
    step.result.bits = Get64(words[i].bits);
    if ((facts & kOperationHasEntry) == 0) continue;
    const uint64_t offset = Get64(words[i].entry);
    if (offset % 8 != 0 || offset > bytes || bytes - offset < sizeof(StepEntry)) {
      return RefuseDamaged("a remembered operation");
    }
    const auto* kept = reinterpret_cast<const StepEntry*>(at + offset);
    const EntryShape shape = EntryShape::Of(Get64(kept->shape));
    if (!shape.is_sane() || StepEntryBytes(shape.value_bytes, shape.is_bound()) > bytes - offset) {
      return RefuseDamaged("a remembered operation");
    }
    DictEntry& entry = step.entry;
    entry.kind = static_cast<DictKind>(shape.kind);
    entry.version = Get64(kept->version);
    entry.expires_ms = Get64(kept->expires_ms);
    entry.fence = Get64(kept->fence);
    entry.ordinal = Get64(kept->ordinal);
    entry.bits = Get64(kept->bits);
    entry.bytes.resize(shape.value_bytes);
    CopyShared(reinterpret_cast<std::byte*>(entry.bytes.data()), at + offset + sizeof(StepEntry),
               shape.value_bytes);
    if (shape.is_bound()) {
      entry.bound_session = Get64(StepSession(at + offset, shape.value_bytes));
    }
  }
  return Status();
}

// In the redo record: the operation and its result. The record keeps `block`; what it kept before
// is returned and is the lane's to give back.
BlockRef Dict::Remember(Section& section, DictOperationId operation, const DictResult& result,
                        uint64_t facts, BlockRef block) const {
  OperationRow* const row = RowOf(operation.session, true);
  OperationRecord& record = row->records[operation.sequence % kOperationsPerSession];
  facts |= uint64_t{static_cast<uint8_t>(result.kind)} << kOperationKindShift;
  if (result.existed) facts |= kOperationExisted;
  const BlockRef before = Get64(record.block);
  Redo(section, record.session, operation.session);
  Redo(section, record.sequence, operation.sequence);
  Redo(section, record.version, result.version);
  Redo(section, record.facts, facts);
  Redo(section, record.bits, result.bits);
  Redo(section, record.block, block);
  return RefIsSane(before) ? before : 0;
}

// With the entries of the steps that tell one, or without. REQUIRES: the block is large enough.
void Dict::FillResults(BlockRef block, std::span<const DictOperation> operations,
                       std::span<const DictOperationResult> results, bool with_entries) const {
  std::byte* const at = BlockAt(block);
  auto* words = reinterpret_cast<StepWords*>(at);
  uint64_t offset = results.size() * sizeof(StepWords);
  for (size_t i = 0; i < results.size(); ++i) {
    const auto& [result, entry] = results[i];
    uint64_t facts = uint64_t{static_cast<uint8_t>(result.kind)} << kOperationKindShift |
                     (result.existed ? kOperationExisted : 0);
    const bool kept = with_entries && TellsEntry(operations[i], results[i]);
    if (kept) facts |= kOperationHasEntry;
    Put64(words[i].version, result.version);
    Put64(words[i].bits, result.bits);
    Put64(words[i].facts, facts);
    Put64(words[i].entry, kept ? offset : 0);
    if (!kept) continue;
    auto* to = reinterpret_cast<StepEntry*>(at + offset);
    const EntryShape shape = EntryShape::For(0, entry.value(), entry.bound_session);
    Put64(to->shape, shape.word());
    Put64(to->version, entry.version);
    Put64(to->expires_ms, entry.expires_ms);
    Put64(to->fence, entry.fence);
    Put64(to->ordinal, entry.ordinal);
    Put64(to->bits, entry.bits);
    CopyShared(at + offset + sizeof(StepEntry),
               reinterpret_cast<const std::byte*>(entry.bytes.data()), entry.bytes.size());
    if (shape.is_bound()) {
      Put64(StepSession(at + offset, shape.value_bytes), entry.bound_session);
    }
    offset += StepEntryBytes(entry.bytes.size(), shape.is_bound());
  }
}

// Every remembered operation, with its block, to the same place of another segment. What the target
// has no memory for (only damaged records take more there than here) is forgotten and counted.
StatusOr<uint64_t> Dict::CopyOperations(const Lane& lane, Dict& target) const {
  uint64_t forgotten = 0;
  if (line_->operations.load(std::memory_order_relaxed) == 0) return forgotten;
  target.line_->operations.store(1, std::memory_order_relaxed);
  for (uint32_t i = 0; i < kOperationSets * kOperationWays; ++i) {
    const OperationRow* const from = RowAt(0, i);
    if (Get64(from->session) == 0) continue;
    OperationRow* const to = target.RowAt(0, i);
    Put64(to->session, Get64(from->session));
    Put64(to->used, Get64(from->used));
    for (uint32_t j = 0; j < kOperationsPerSession; ++j) {
      const OperationRecord& record = from->records[j];
      if (Get64(record.session) == 0) continue;
      const BlockRef block = Get64(record.block);
      const bool keeps = block != 0 && RefIsSane(block);
      Section section(lane, target.Record(lane.id));
      BlockRef copy = 0;
      if (keeps) {
        const StatusOr<BlockRef> made = target.BlockInHand(lane, ClassOf(block));
        if (made.status().reason() == Reason::kMemoryExhausted) {
          ++forgotten;
          continue;
        }
        if (!made.ok()) return made.status();
        copy = *made;
        CopyShared(target.BlockAt(copy), BlockAt(block), BytesOfClass(ClassOf(block)));
      }
      if (!target.Lock(section, kAdmissionLock)) return target.RefuseStalled(kAdmissionLock);
      OperationRecord& out = to->records[j];
      target.Redo(section, out.session, Get64(record.session));
      target.Redo(section, out.sequence, Get64(record.sequence));
      target.Redo(section, out.version, Get64(record.version));
      target.Redo(section, out.facts, Get64(record.facts));
      target.Redo(section, out.bits, Get64(record.bits));
      target.Redo(section, out.block, copy);
      if (keeps) target.TakeBlock(section, copy, 0);
      target.Commit(section);
      target.Unlock(section, true);
    }
  }
  return forgotten;
}

}  // namespace statehouse
