// What the daemon does for a dict: recovers dead lanes, mends what no living lane can hold, removes
// what is expired, and copies the dict to another segment. It trusts nothing that it reads: each
// field is copied once and checked against the private geometry, and no loop takes its bound from
// shared memory.
#include "engine/state/dict_internal.h"

namespace statehouse {
namespace {

// No bucket changes so often; what is higher was scribbled. Far from the end of the counter, so
// that versions can go on growing from here.
constexpr uint64_t kVersionPlausibleMax = uint64_t{1} << 51;

}  // namespace

// The redo record of a dead lane; empty when it is not one that this code can have written. It may
// only reach what operations change: never the header, the dict's line, or a lock.
std::vector<std::pair<uint64_t, uint64_t>> Dict::CopyRedo(const DictLaneRecord& record) const {
  std::vector<std::pair<uint64_t, uint64_t>> pairs;
  const uint64_t count = Get64(record.redo_count);
  if (count > kRedoPairsMax) return pairs;
  const uint64_t buckets = geometry_.buckets_offset();
  const uint64_t buckets_end = buckets + geometry_.bucket_count * sizeof(BucketLine);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t offset = Get64(record.redo[i].offset);
    const bool inside = offset % sizeof(uint64_t) == 0 && offset > kAllocatorLineOffset &&
                        offset < geometry_.segment_bytes();
    const bool is_lock =
        offset >= buckets && offset < buckets_end && (offset - buckets) % sizeof(BucketLine) == 0;
    if (!inside || is_lock) return {};
    pairs.emplace_back(offset, Get64(record.redo[i].value));
  }
  return pairs;
}

RecoveryReport Dict::RecoverLane(uint32_t lane) {
  RecoveryReport report;
  if (lane == 0 || lane >= geometry_.lane_count) return report;
  DictLaneRecord& record = Record(lane);
  const uint64_t intent = Get64(record.intent);
  const uint64_t count = std::min<uint64_t>(intent >> 32, kDictLocksMax);
  std::vector<uint32_t> ids;
  for (uint64_t i = 0; i < count; ++i) {
    const uint32_t id = i == 0 ? static_cast<uint32_t>(intent)
                               : record.more_locks[i - 1].load(std::memory_order_relaxed);
    if (LockIdIsSane(id)) ids.push_back(id);
  }
  if (!ids.empty()) {
    const uint64_t first = LockWord(ids[0]).load(std::memory_order_acquire);
    if (OwnerOf(first) == lane && Get64(record.tag) == first) {
      const auto pairs = CopyRedo(record);
      for (const auto& [offset, value] : pairs) {
        reinterpret_cast<std::atomic<uint64_t>*>(base_ + offset)
            ->store(value, std::memory_order_release);
        CrashFence();
      }
      report.redo_applied = !pairs.empty();
    }
    CrashFence();
    // As the writer does: once a lock is released, the redo must never be applied again.
    if (!MutantIs(Mutant::kDictTagKept)) Put64(record.tag, 0);
    CrashFence();
    for (size_t i = ids.size(); i-- > 0;) {
      if (ReleaseDead(ids[i], lane)) ++report.stripes_released;
    }
  }
  // Of a change that was finished here, or whose lane died before it woke anybody.
  TellWatchers();
  return report;
}

// Releases a lock that `lane` holds, which is dead.
bool Dict::ReleaseDead(uint32_t id, uint32_t lane) {
  std::atomic<uint64_t>& control = LockWord(id);
  const uint64_t word = control.load(std::memory_order_relaxed);
  if (OwnerOf(word) != lane) return false;
  if (id < geometry_.bucket_count && !MutantIs(Mutant::kDictMarkLeft)) {
    std::atomic<uint64_t>& link = buckets_[id].link;
    link.store(Get64(link) & ~kLinkTransaction, std::memory_order_release);
  }
  CrashFence();
  control.store(ReleasedChanged(word), std::memory_order_release);
  CrashFence();
  return true;
}

uint32_t Dict::Scrub(uint32_t* bucket, uint32_t buckets,
                     const std::function<bool(uint32_t lane)>& is_leased) {
  uint32_t mended = 0;
  const auto mend = [&](uint32_t id) {
    const uint64_t word = LockWord(id).load(std::memory_order_acquire);
    const uint32_t owner = OwnerOf(word);
    if (owner != 0 && !is_leased(owner) && ReleaseDead(id, owner)) ++mended;
  };
  mend(kAllocatorLock);
  mend(kAdmissionLock);
  for (uint32_t i = 0; i < std::min(buckets, geometry_.bucket_count); ++i) {
    *bucket = (*bucket + 1) & (geometry_.bucket_count - 1);
    mend(*bucket);
    BucketLine& line = buckets_[*bucket];
    const uint64_t word = line.control.load(std::memory_order_acquire);
    uint64_t link = line.link.load(std::memory_order_acquire);
    // Free before and after the mark was seen: nobody's transaction put it there.
    if (OwnerOf(word) == 0 && (link & kLinkTransaction) != 0 &&
        line.control.load(std::memory_order_acquire) == word &&
        line.link.compare_exchange_strong(link, link & ~kLinkTransaction)) {
      ++mended;
    }
  }
  return mended;
}

StatusOr<uint32_t> Dict::Expire(const Lane& lane, uint32_t* bucket, uint32_t buckets) {
  uint32_t removed = 0;
  std::vector<std::pair<std::string, uint64_t>> expired;
  for (uint32_t i = 0; i < std::min(buckets, geometry_.bucket_count); ++i) {
    *bucket = (*bucket + 1) & (geometry_.bucket_count - 1);
    expired.clear();
    SH_RETURN_IF_ERROR(FindExpired(*bucket, lane.operation_timeout_ns, &expired));
    for (const auto& [key, version] : expired) {
      DictDeleteOptions options;
      options.condition.kind = DictCondition::Kind::kVersion;
      options.condition.version = version;
      options.why = ChangeOperation::kExpire;
      DictResult result;
      SH_RETURN_IF_ERROR(Delete(lane, key, options, &result));
      removed += result.applied ? 1 : 0;
    }
  }
  return removed;
}

void Dict::SetState(DictState state) {
  line_->state.store(static_cast<uint32_t>(state), std::memory_order_seq_cst);
  WakeSleepers(line_->event);
  WakeSleepers(line_->follow_event);
}

Status Dict::WaitUntilIdle(uint64_t timeout_ns) const {
  Backoff backoff(timeout_ns);
  const auto wait_for = [&](uint32_t id) {
    // SYNC: dict.move
    while (OwnerOf(LockWord(id).load(std::memory_order_seq_cst)) != 0) {
      if (!backoff.Pause()) return RefuseStalled(id);
    }
    return Status();
  };
  SH_RETURN_IF_ERROR(wait_for(kAdmissionLock));
  for (uint32_t i = 0; i < geometry_.bucket_count; ++i) SH_RETURN_IF_ERROR(wait_for(i));
  return Status();
}

uint64_t Dict::HighestVersion() const {
  uint64_t highest = 0;
  const auto take = [&](uint64_t version) {
    if (version <= kVersionPlausibleMax) highest = std::max(highest, version);
  };
  for (uint32_t i = 0; i < geometry_.bucket_count; ++i) {
    const uint64_t sequence = SequenceOf(Get64(buckets_[i].control));
    take(sequence);
    if (sequence <= kVersionPlausibleMax) continue;
    std::vector<DictEntry> entries;
    (void)ReadBucket(i, "", kOperationTimeoutNsDefault, &entries);  // The sound ones, that is.
    for (const DictEntry& entry : entries) take(entry.version);
  }
  return highest;
}

StatusOr<uint64_t> Dict::CopyInto(const Lane& lane, Dict& target) const {
  uint64_t dropped = 0;
  const uint64_t highest = HighestVersion();
  std::vector<DictEntry> entries;
  for (uint32_t bucket = 0; bucket < geometry_.bucket_count; ++bucket) {
    entries.clear();
    uint64_t misplaced = 0;
    const Status read = ReadSound(bucket, lane.operation_timeout_ns, &entries, &misplaced);
    dropped += misplaced;
    if (read.reason() == Reason::kDataLoss) {
      ++dropped;  // The sound entries of the bucket were read all the same.
    } else if (!read.ok()) {
      return read;
    }
    for (const DictEntry& entry : entries) {
      const bool sized = CheckKey(entry.key).ok() && entry.bytes.size() <= kDictValueBytesMax;
      if (!sized || entry.version > highest) {
        ++dropped;
        continue;
      }
      DictResult result;
      DictSetOptions options;
      options.bind_session = entry.bound_session;
      SH_RETURN_IF_ERROR(target.SetWith(lane, entry.key, entry.value(), options, &entry, &result));
    }
  }
  SH_ASSIGN_OR_RETURN(const uint64_t forgotten, CopyOperations(lane, target));
  return dropped + forgotten;
}

}  // namespace statehouse
