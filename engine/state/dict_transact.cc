// Transactions: several keys of one dict, compared and changed as one. All buckets are locked in
// rising order, everything is decided before anything changes, and one redo record holds the whole.
// While it is carried out, the buckets' links are marked, so that nobody reads one key new and then
// another one old.
#include "engine/state/dict_internal.h"

namespace statehouse {

class Dict::Transaction final {
 public:
  Transaction(Dict& dict, const Lane& lane, std::span<const DictCompare> compares,
              std::span<const DictOperation> then, std::span<const DictOperation> otherwise,
              const DictTransactOptions& options, DictTransactionResult* result)
      : dict_(dict),
        record_(dict.Record(lane.id)),
        section_(lane, record_),
        compares_(compares),
        then_(then),
        otherwise_(otherwise),
        options_(options),
        result_(result),
        keep_entries_(options.keep_entries) {}

  Status Run() {
    SH_RETURN_IF_ERROR(Check());
    HashAll();
    GuessResults();
    for (;;) {
      SH_RETURN_IF_ERROR(dict_.BeginChange(section_.lane));
      const uint64_t results_bytes = results_bytes_;
      bool again = false;
      Status status = Stage();
      const bool is_staged = status.ok();
      if (is_staged) status = Attempt(&again);
      // Whatever happened, the blocks that are left over go back.
      if (Get64(record_.staged_count) != 0 && !dict_.FreeStaged(section_.lane).ok()) {
        dict_.untidy_[section_.lane.id] = true;
      }
      if (status.reason() == Reason::kMemoryExhausted && !is_staged && keep_entries_ &&
          !dict_.AwaitsBacking() && results_bytes_ > FewestResultsBytes()) {
        keep_entries_ = false;  // The change matters more than what is told of it twice.
        results_bytes_ = FewestResultsBytes();
        continue;
      }
      if (!again) return status;
      if (results_bytes_ != results_bytes) continue;
      SH_RETURN_IF_ERROR(dict_.RefillMagazine(section_.lane, 1));
    }
  }

 private:
  // What an operation found and will do.
  struct Step {
    Found found;
    bool occupied = false;
    bool present = false;
    bool writes = false;
    std::atomic<uint64_t>* slot = nullptr;  // Where the entry goes or stays.
    uint64_t sum = 0;                       // kIncrement.
    DictKind kind = DictKind::kBytes;       // kIncrement.
  };

  bool ReadsOnly() const {
    const auto reads = [](const DictOperation& operation) {
      return operation.kind == DictOperation::Kind::kGet;
    };
    return std::all_of(then_.begin(), then_.end(), reads) &&
           std::all_of(otherwise_.begin(), otherwise_.end(), reads);
  }

  Status Refuse(Reason reason, std::string_view key, const std::string& why) const {
    return Status(reason, "dict \"" + dict_.name_ + "\": transaction at key \"" + std::string(key) +
                              "\": " + why);
  }

  Status CheckList(std::span<const DictOperation> operations) const {
    std::vector<std::string_view> keys;
    bool reads_only = true;
    for (const DictOperation& operation : operations) {
      SH_RETURN_IF_ERROR(dict_.CheckKey(operation.key));
      reads_only &= operation.kind == DictOperation::Kind::kGet;
      if (operation.kind == DictOperation::Kind::kSet) {
        SH_RETURN_IF_ERROR(dict_.PrepareSet(operation.key, operation.value));
      }
      if (operation.kind == DictOperation::Kind::kIncrement &&
          operation.increment.delta.kind == DictKind::kBytes) {
        return Refuse(Reason::kInvalidArgument, operation.key,
                      "an increment needs an int64 or a float64");
      }
      keys.push_back(operation.key);
    }
    if (reads_only) return Status();  // A key may be read twice.
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice == keys.end()) return Status();
    return Refuse(Reason::kInvalidArgument, *twice, "it stands twice in one list");
  }

  Status Check() const {
    SH_RETURN_IF_ERROR(dict_.CheckWritable());
    const size_t steps = compares_.size() + then_.size() + otherwise_.size();
    if (steps > kTransactionOpsMax) {
      return Status(Reason::kLimitExceeded,
                    "dict \"" + dict_.name_ + "\": a transaction of " + std::to_string(steps) +
                        " compares and steps, the limit is " + std::to_string(kTransactionOpsMax));
    }
    for (const DictCompare& compare : compares_) {
      SH_RETURN_IF_ERROR(dict_.CheckKey(compare.key));
    }
    SH_RETURN_IF_ERROR(CheckList(then_));
    return CheckList(otherwise_);
  }

  uint64_t Hash(std::string_view key) const { return HashKey(dict_.geometry_.seed, key); }

  void HashAll() {
    const auto add = [this](std::string_view key) {
      buckets_.push_back(dict_.BucketOf(Hash(key)));
    };
    for (const DictCompare& compare : compares_) add(compare.key);
    for (const DictOperation& operation : then_) add(operation.key);
    for (const DictOperation& operation : otherwise_) add(operation.key);
    std::sort(buckets_.begin(), buckets_.end());
    buckets_.erase(std::unique(buckets_.begin(), buckets_.end()), buckets_.end());
    words_.resize(buckets_.size());
  }

  uint64_t FewestResultsBytes() const {
    return std::max({then_.size(), otherwise_.size(), size_t{1}}) * sizeof(StepWords);
  }

  // How large the results' block is at first: enough for entries that are small. MeasureResults
  // sees what it takes.
  void GuessResults() {
    results_bytes_ = FewestResultsBytes();
    if (!keep_entries_) return;
    const auto tell = [](std::span<const DictOperation> operations) {
      return std::count_if(operations.begin(), operations.end(), [](const auto& operation) {
        return operation.kind != DictOperation::Kind::kIncrement;
      });
    };
    const uint64_t small =
        StepEntryBytes(80, false) * static_cast<uint64_t>(std::max(tell(then_), tell(otherwise_)));
    results_bytes_ = std::min(results_bytes_ + small, std::max(results_bytes_, kSlabBytes));
  }

  // Refuses results that would be too long to tell, and finds out how long they are to remember.
  Status MeasureResults(bool* again) {
    uint64_t told = 0;
    uint64_t kept = operations_.size() * sizeof(StepWords);
    for (size_t i = 0; i < operations_.size(); ++i) {
      if (!TellsEntry(operations_[i], result_->results[i])) continue;
      const DictEntry& entry = result_->results[i].entry;
      told += operations_[i].key.size() + entry.bytes.size();
      kept += StepEntryBytes(entry.bytes.size(), entry.bound_session != 0);
    }
    if (told > options_.entry_bytes_max) {
      return Status(Reason::kMessageTooLarge,
                    "dict \"" + dict_.name_ + "\": a transaction whose answer has " +
                        std::to_string(told) + " bytes of entries, at most " +
                        std::to_string(options_.entry_bytes_max) + " are allowed");
    }
    if (!options_.operation.valid() || !writes_ || !keep_entries_) return Status();
    if (kept > kResultsBytesMax) {
      keep_entries_ = false;
    } else if (kept > results_bytes_) {
      results_bytes_ = kept;
      *again = true;
    }
    return Status();
  }

  static uint64_t BindSessionOf(const DictOperation& operation) {
    return operation.kind == DictOperation::Kind::kSet ? operation.set.bind_session : 0;
  }

  static uint64_t EntryBytes(const DictOperation& operation, const DictValue& value) {
    return EntryShape::For(operation.key.size(), value, BindSessionOf(operation)).entry_bytes();
  }

  // A cell of staged[] for each operation of both lists: the block of what may be inserted, else
  // empty; the block that an operation replaces goes there.
  Status Stage() {
    if (ReadsOnly()) return Status();
    std::vector<uint32_t> codes;
    const auto add = [&](std::span<const DictOperation> operations) {
      for (const DictOperation& operation : operations) {
        uint32_t code = 0;
        if (operation.kind == DictOperation::Kind::kSet) {
          code = ClassForEntry(EntryBytes(operation, operation.value));
        } else if (operation.kind == DictOperation::Kind::kIncrement) {
          code = ClassForEntry(EntryBytes(operation, operation.increment.delta));
        }
        codes.push_back(code);
      }
    };
    add(then_);
    add(otherwise_);
    if (options_.operation.valid()) codes.push_back(ClassFor(results_bytes_));
    SH_RETURN_IF_ERROR(dict_.AllocateStaged(section_.lane, codes));
    const auto fill = [&](std::span<const DictOperation> operations, size_t first) {
      for (size_t i = 0; i < operations.size(); ++i) {
        const DictOperation& operation = operations[i];
        if (operation.kind != DictOperation::Kind::kSet) continue;
        dict_.Fill(Get64(record_.staged[first + i]), Hash(operation.key), operation.key,
                   operation.value, operation.set.bind_session);
      }
    };
    fill(then_, 0);
    fill(otherwise_, then_.size());
    return Status();
  }

  Status LockAll() {
    if (!ReadsOnly()) {
      if (!dict_.Lock(section_, kAdmissionLock)) return dict_.RefuseStalled(kAdmissionLock);
      room_ = dict_.RoomForEntries(section_.lane, std::max(then_.size(), otherwise_.size()));
    }
    for (size_t i = 0; i < buckets_.size(); ++i) {
      SH_RETURN_IF_ERROR(dict_.LockBucket(section_, buckets_[i]));
      words_[i] = section_.bucket_word;
    }
    return Status();
  }

  Status Attempt(bool* again) {
    SH_RETURN_IF_ERROR(LockAll());
    Status status = Decide(again);
    if (status.ok() && !*again && writes_) {
      Write();
      dict_.Unlock(section_, true);
      dict_.TellWatchers();
    } else {
      dict_.Unlock(section_, false);
    }
    return status;
  }

  Status Decide(bool* again) {
    result_->compared = true;
    for (const DictCompare& compare : compares_) {
      Found found;
      const bool occupied = dict_.Look(Hash(compare.key), compare.key, &found);
      if (found.damaged) return dict_.RefuseDamaged("a bucket");
      const bool present = occupied && !dict_.IsExpired(found.expires_ms);
      if (!dict_.Holds(compare.condition, present, found)) result_->compared = false;
    }
    operations_ = result_->compared ? then_ : otherwise_;
    staged_ = result_->compared ? 0 : then_.size();
    result_->results.assign(operations_.size(), DictOperationResult());
    steps_.assign(operations_.size(), Step());
    claimed_.clear();
    writes_ = false;
    uint64_t inserts = 0;
    for (size_t i = 0; i < operations_.size() && !*again; ++i) {
      SH_RETURN_IF_ERROR(Plan(operations_[i], &steps_[i], &result_->results[i], again));
      writes_ |= steps_[i].writes;
      inserts += steps_[i].writes && !steps_[i].occupied ? 1 : 0;
    }
    if (*again) return Status();
    if (inserts <= room_) return MeasureResults(again);
    return Status(Reason::kLimitExceeded,
                  "dict \"" + dict_.name_ + "\": a transaction that inserts " +
                      std::to_string(inserts) + " entries, there is room for " +
                      std::to_string(room_) + " (max_entries " +
                      std::to_string(dict_.geometry_.entries_max) + ")");
  }

  Status Plan(const DictOperation& operation, Step* step, DictOperationResult* out, bool* again) {
    Found& found = step->found;
    const uint64_t hash = Hash(operation.key);
    step->occupied = dict_.Look(hash, operation.key, &found);
    if (found.damaged) return dict_.RefuseDamaged("a bucket");
    step->present = step->occupied && !dict_.IsExpired(found.expires_ms);
    step->slot = found.slot;
    out->result.existed = step->present;
    out->result.version = step->present ? found.version : 0;
    if (step->present) dict_.TakeEntry(found, &out->entry);
    switch (operation.kind) {
      case DictOperation::Kind::kGet: return Status();
      case DictOperation::Kind::kSet:
        SH_RETURN_IF_ERROR(
            CheckStep(operation, operation.set.condition, operation.set.fence, *step));
        break;
      case DictOperation::Kind::kDelete:
        SH_RETURN_IF_ERROR(
            CheckStep(operation, operation.erase.condition, operation.erase.fence, *step));
        step->writes = step->present;
        return Status();
      case DictOperation::Kind::kIncrement:
        SH_RETURN_IF_ERROR(PlanIncrement(operation, step));
        break;
    }
    step->writes = true;
    return step->occupied ? Status() : ClaimSlot(hash, step, again);
  }

  Status CheckStep(const DictOperation& operation, const DictCondition& condition, uint64_t fence,
                   const Step& step) const {
    if (!dict_.Holds(condition, step.present, step.found)) {
      return Refuse(Reason::kConflict, operation.key,
                    step.present ? "the entry is not as the condition wants it"
                                 : "there is no entry as the condition wants it");
    }
    return dict_.CheckFence(operation.key, fence, step.present, step.found);
  }

  Status PlanIncrement(const DictOperation& operation, Step* step) const {
    const DictIncrement& increment = operation.increment;
    SH_RETURN_IF_ERROR(
        dict_.CheckFence(operation.key, increment.fence, step->present, step->found));
    DictValue base = increment.initial;
    if (base.kind != increment.delta.kind) base = {increment.delta.kind, {}, 0};
    if (step->present) base = {step->found.kind(), {}, step->found.bits};
    if (!step->present && increment.must_exist) {
      return Refuse(Reason::kKeyNotFound, operation.key, "there is no such key");
    }
    step->kind = base.kind;
    return dict_.AddTo(base.kind, base.bits, increment, operation.key, &step->sum);
  }

  // An empty slot that no other operation of this transaction wants.
  Status ClaimSlot(uint64_t hash, Step* step, bool* again) {
    BucketLine& bucket = dict_.buckets_[dict_.BucketOf(hash)];
    const auto claim = [&](std::atomic<uint64_t>* slots, uint32_t count) {
      for (uint32_t i = 0; i < count; ++i) {
        if (Get64(slots[i]) != 0) continue;
        if (std::find(claimed_.begin(), claimed_.end(), &slots[i]) != claimed_.end()) continue;
        step->slot = &slots[i];
        claimed_.push_back(&slots[i]);
        return true;
      }
      return false;
    };
    if (claim(bucket.slots, kBucketSlots)) return Status();
    BlockRef next = Get64(bucket.link) & kRefMask;
    while (next != 0) {  // Look has walked the same lines and found them sound.
      auto* line = reinterpret_cast<OverflowLine*>(dict_.BlockAt(next));
      if (claim(line->slots, kOverflowSlots)) return Status();
      next = Get64(line->link) & kRefMask;
    }
    if (Get64(record_.magazines[1].count) == 0) {
      *again = true;
      return Status();
    }
    // Look again: the last line may be one that this transaction added.
    Found end;
    end.last_link = &bucket.link;
    for (BlockRef ref = Get64(bucket.link) & kRefMask; ref != 0; ++end.lines) {
      auto* line = reinterpret_cast<OverflowLine*>(dict_.BlockAt(ref));
      end.last_link = &line->link;
      ref = Get64(line->link) & kRefMask;
    }
    SH_RETURN_IF_ERROR(dict_.Extend(section_, &end));
    step->slot = end.empty;
    claimed_.push_back(end.empty);
    return Status();
  }

  void Mark(bool on) {
    for (const uint32_t bucket : buckets_) MarkBucket(dict_.buckets_[bucket], on);
  }

  uint64_t WordOf(std::string_view key) const {
    const auto at = std::lower_bound(buckets_.begin(), buckets_.end(), dict_.BucketOf(Hash(key)));
    return words_[static_cast<size_t>(at - buckets_.begin())];
  }

  void Write() {
    for (size_t i = 0; i < operations_.size(); ++i) {
      if (!steps_[i].writes) continue;
      const DictOperation& operation = operations_[i];
      section_.bucket_word = WordOf(operation.key);
      DictResult& result = result_->results[i].result;
      result.applied = true;
      std::atomic<uint64_t>& staged = record_.staged[staged_ + i];
      if (operation.kind == DictOperation::Kind::kDelete) {
        WriteDelete(operation, steps_[i], staged);
        result.version = 0;
        continue;
      }
      result.version = section_.next_version();
      if (operation.kind == DictOperation::Kind::kSet) {
        WriteSet(operation, operation.value, steps_[i], staged);
      } else {
        result.bits = steps_[i].sum;
        result.kind = steps_[i].kind;
        WriteIncrement(operation, steps_[i], staged);
      }
    }
    if (options_.operation.valid()) RememberResults();
    Mark(true);
    dict_.Commit(section_);
    if (!MutantIs(Mutant::kDictMarkNotCleared)) Mark(false);
  }

  void RememberResults() {
    std::atomic<uint64_t>& staged = record_.staged[then_.size() + otherwise_.size()];
    const BlockRef block = Get64(staged);
    dict_.FillResults(block, operations_, result_->results, keep_entries_);
    const uint64_t facts = kOperationIsResults | (result_->compared ? kOperationCompared : 0) |
                           (keep_entries_ ? 0 : kOperationNoEntries) |
                           uint64_t{result_->results.size()} << kOperationCountShift;
    dict_.Redo(section_, staged,
               dict_.Remember(section_, options_.operation, DictResult(), facts, block));
  }

  void WriteDelete(const DictOperation& operation, const Step& step,
                   std::atomic<uint64_t>& staged) {
    dict_.Redo(section_, *step.slot, 0);
    dict_.Redo(section_, staged, step.found.ref);
    section_.entries -= 1;
    section_.bytes -= BytesOfClass(ClassOf(step.found.ref));
    section_.bound -= step.found.bound_by();
    dict_.AppendChange(section_, ChangeOperation::kDelete, operation.key, DictValue(),
                       section_.next_version());
  }

  void WriteSet(const DictOperation& operation, const DictValue& value, const Step& step,
                std::atomic<uint64_t>& staged) {
    const BlockRef ref = Get64(staged);
    const bool is_set = operation.kind == DictOperation::Kind::kSet;
    const DictTtl& ttl = is_set ? operation.set.ttl : operation.increment.ttl;
    auto* header = reinterpret_cast<EntryHeader*>(dict_.BlockAt(ref));
    Put64(header->expires_ms, dict_.ExpiryFor(ttl, step.present ? step.found.expires_ms : 0));
    dict_.FinishEntry(section_, step.found, step.present, ref,
                      is_set ? operation.set.fence : operation.increment.fence);
    dict_.Redo(section_, *step.slot, SlotWord(Hash(operation.key), ref));
    dict_.Redo(section_, staged, step.found.ref);
    section_.entries += step.occupied ? 0 : 1;
    section_.bytes +=
        BytesOfClass(ClassOf(ref)) - (step.occupied ? BytesOfClass(ClassOf(step.found.ref)) : 0);
    section_.bound +=
        BoundBy(BindSessionOf(operation)) - (step.occupied ? step.found.bound_by() : 0);
    dict_.AppendChange(section_, ChangeOperation::kPut, operation.key, value,
                       section_.next_version());
  }

  void WriteIncrement(const DictOperation& operation, const Step& step,
                      std::atomic<uint64_t>& staged) {
    const DictValue value{step.kind, {}, step.sum};
    if (!step.present) {
      dict_.Fill(Get64(staged), Hash(operation.key), operation.key, value, 0);
      WriteSet(operation, value, step, staged);
      return;
    }
    const uint64_t version = section_.next_version();
    dict_.Redo(section_, step.found.older->bits, step.sum);
    dict_.Redo(section_, step.found.older->version, version);
    if (operation.increment.fence > step.found.fence) {
      dict_.Redo(section_, reinterpret_cast<EntryHeader*>(step.found.block)->fence,
                 operation.increment.fence);
    }
    dict_.AppendChange(section_, ChangeOperation::kPut, operation.key, value, version);
  }

  Dict& dict_;
  DictLaneRecord& record_;
  Section section_;
  const std::span<const DictCompare> compares_;
  const std::span<const DictOperation> then_;
  const std::span<const DictOperation> otherwise_;
  const DictTransactOptions& options_;
  DictTransactionResult* const result_;
  bool keep_entries_;
  uint64_t results_bytes_ = 0;     // Of the block for the results.
  std::vector<uint32_t> buckets_;  // Sorted, each once.
  std::vector<uint64_t> words_;    // Their control words while held.
  std::span<const DictOperation> operations_;
  std::vector<Step> steps_;
  std::vector<std::atomic<uint64_t>*> claimed_;
  size_t staged_ = 0;  // Where the chosen list's cells begin.
  uint64_t room_ = 0;
  bool writes_ = false;
};

Status Dict::Transact(const Lane& lane, std::span<const DictCompare> compares,
                      std::span<const DictOperation> then, std::span<const DictOperation> otherwise,
                      DictTransactionResult* result, const DictTransactOptions& options) {
  for (int round = 0;; ++round) {
    Transaction transaction(*this, lane, compares, then, otherwise, options, result);
    Status status = transaction.Run();
    if (status.ok() || round == kMakeRoomRounds) return status;
    SH_RETURN_IF_ERROR(MakeRoom(lane, 0, std::move(status)));
  }
}

}  // namespace statehouse
