// Geometry, mapping and small facts of a dict. The operations stand in dict_read.cc, dict_write.cc,
// dict_transact.cc, dict_blocks.cc, dict_section.cc, dict_recovery.cc and dict_check.cc.
#include "engine/state/dict.h"

#include <bit>
#include <ctime>

#include "engine/os/barrier.h"
#include "engine/os/memory.h"
#include "engine/state/dict_internal.h"

namespace statehouse {
namespace {

constexpr uint32_t kEntriesPerBucket = 4;
constexpr uint64_t kBucketsMin = 64;
// Headers and bucket tables up to this size get their page tables filled when they are mapped.
constexpr uint64_t kPopulateBytesMax = 64 << 20;
// Of a lane: the pages that every operation touches: sums, magazines, the first redo pairs.
constexpr uint64_t kPreparedLaneBytes = 2 * kPageBytes;

constexpr uint64_t RoundUp(uint64_t bytes, uint64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

void FillHeader(const DictGeometry& geometry, DictSegmentHeader* header) {
  header->abi_major = kSegmentAbiMajor;
  header->abi_minor = kDictSegmentAbiMinor;
  header->byte_order_probe = kByteOrderProbe;
  header->required_features = 0;
  header->bucket_count = geometry.bucket_count;
  header->lane_count = geometry.lane_count;
  header->data_bytes = geometry.data_bytes;
  CrashFence();
  header->magic = kDictSegmentMagic;  // Last: a header without it is no dict.
}

Status CheckHeader(const DictSegmentHeader& header, const std::string& name) {
  if (header.magic != kDictSegmentMagic || header.byte_order_probe != kByteOrderProbe) {
    return Status(Reason::kVersionMismatch,
                  "dict \"" + name + "\": the descriptor holds no dict segment of this byte order");
  }
  if (header.abi_major != kSegmentAbiMajor || header.required_features != 0) {
    return Status(Reason::kVersionMismatch,
                  "dict \"" + name + "\": segment format " + std::to_string(header.abi_major) +
                      "." + std::to_string(header.abi_minor) + " with features " +
                      std::to_string(header.required_features) + ", this library speaks " +
                      std::to_string(kSegmentAbiMajor) + "; update the older side");
  }
  return Status();
}

}  // namespace

DictValue DictValue::Float64(double number) {
  return {DictKind::kFloat64, {}, std::bit_cast<uint64_t>(number)};
}

DictGeometry DictGeometry::For(uint64_t entries_max, uint64_t data_bytes, uint32_t lane_count) {
  DictGeometry geometry;
  geometry.entries_max = entries_max;
  // One slab more than asked for: the first one is never used, so that position 0 means nothing.
  geometry.data_bytes = RoundUp(data_bytes, kSlabBytes) + kSlabBytes;
  geometry.lane_count = lane_count;
  geometry.bucket_count = static_cast<uint32_t>(std::bit_ceil(
      std::max(kBucketsMin, RoundUp(entries_max, kEntriesPerBucket) / kEntriesPerBucket)));
  return geometry;
}

Status DictGeometry::Validate() const {
  const auto refuse = [](const char* why) {
    return Status(Reason::kInvalidArgument, std::string("dict geometry: ") + why);
  };
  if (entries_max == 0 || entries_max > kDictEntriesMax) return refuse("entries_max out of range");
  if (data_bytes < 2 * kSlabBytes || data_bytes > kDictBytesMax + kSlabBytes ||
      data_bytes % kSlabBytes != 0) {
    return refuse("data_bytes out of range");
  }
  if (lane_count < kLanesPerBlock || lane_count > kLanesMax)
    return refuse("lane_count out of range");
  const DictGeometry expected = For(entries_max, data_bytes - kSlabBytes, lane_count);
  if (bucket_count != expected.bucket_count)
    return refuse("bucket_count does not follow from entries_max");
  return Status();
}

uint64_t DictGeometry::buckets_offset() const {
  return kSlabTableOffset + RoundUp(slab_count() * sizeof(uint64_t), kPageBytes);
}
uint64_t DictGeometry::lanes_offset() const {
  return buckets_offset() + RoundUp(bucket_count * sizeof(BucketLine), kPageBytes);
}
uint64_t DictGeometry::rings_offset() const {
  return lanes_offset() + lane_count * kLaneRecordBytes;
}
uint64_t DictGeometry::operations_offset() const {
  return rings_offset() + lane_count * kChangeRingBytes;
}
uint64_t DictGeometry::first_bytes() const {
  // As Map fills it, or where it is too large for that, as DictStore allocates it.
  const uint64_t head = lanes_offset() <= kPopulateBytesMax
                            ? lanes_offset()
                            : kSlabTableOffset + lanes_offset() - buckets_offset();
  return head + (kLanesPerBlock - 1) * kPreparedLaneBytes;
}
uint64_t DictGeometry::data_offset() const { return operations_offset() + kOperationBytes; }

Status Dict::Format(const DictGeometry& geometry, const uint64_t uuid[2], int segment,
                    uint64_t first_version) {
  SH_RETURN_IF_ERROR(geometry.Validate());
  const uint64_t bytes = geometry.lanes_offset();
  SH_ASSIGN_OR_RETURN(std::byte* const base, MapShared(segment, 0, bytes, true));
  auto* header = reinterpret_cast<DictSegmentHeader*>(base);
  header->uuid[0] = uuid[0];
  header->uuid[1] = uuid[1];
  auto* line = reinterpret_cast<DictLine*>(base + kDictLineOffset);
  line->state.store(static_cast<uint32_t>(DictState::kLive), std::memory_order_relaxed);
  if (first_version > 1) {
    auto* buckets = reinterpret_cast<BucketLine*>(base + geometry.buckets_offset());
    for (uint32_t i = 0; i < geometry.bucket_count; ++i) {
      Put64(buckets[i].control, (first_version - 1) * kSequenceOne);
    }
  }
  FillHeader(geometry, header);
  Unmap(base, bytes);
  return Status();
}

Status Dict::RestoreHeader(const DictGeometry& geometry, int segment) {
  SH_RETURN_IF_ERROR(geometry.Validate());
  SH_ASSIGN_OR_RETURN(std::byte* const base, MapShared(segment, 0, kPageBytes, true));
  FillHeader(geometry, reinterpret_cast<DictSegmentHeader*>(base));
  Unmap(base, kPageBytes);
  return Status();
}

Status Dict::RetireSegment(int segment, DictState state) {
  SH_ASSIGN_OR_RETURN(std::byte* const base, MapShared(segment, 0, kWaitLinesOffset, true));
  auto* line = reinterpret_cast<DictLine*>(base + kDictLineOffset);
  line->state.store(static_cast<uint32_t>(state), std::memory_order_seq_cst);
  WakeSleepers(line->event);
  WakeSleepers(line->follow_event);
  Unmap(base, kWaitLinesOffset);
  return Status();
}

Dict::Dict(std::string name, const DictGeometry& geometry, Access access, int64_t clock_offset_ns)
    : name_(std::move(name)),
      geometry_(geometry),
      access_(access),
      clock_offset_ns_(clock_offset_ns),
      bucket_shift_(64 - std::countr_zero(geometry.bucket_count)),
      budgets_(new uint16_t[geometry.lane_count]()),
      untidy_(new bool[geometry.lane_count]()),
      backing_seen_(new uint64_t[geometry.lane_count]()),
      session_locks_(new std::mutex[kSessionLocks]) {}

Dict::~Dict() { Unmap(base_, geometry_.segment_bytes()); }

StatusOr<std::unique_ptr<Dict>> Dict::Map(std::string name, const DictGeometry& geometry,
                                          int segment, Access access, int64_t clock_offset_ns) {
  SH_RETURN_IF_ERROR(geometry.Validate());
  SH_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes(segment));
  if (bytes < geometry.segment_bytes() || !SizeIsSealed(segment)) {
    return Status(Reason::kBackingInvalid,
                  "dict \"" + name + "\": the segment holds " + std::to_string(bytes) + " bytes, " +
                      std::to_string(geometry.segment_bytes()) + " sealed ones are needed");
  }
  const bool writable = access == Access::kReadWrite;
  // Where the kernel refuses, whoever follows the changes looks again by time.
  if (writable) (void)JoinBarriers();
  std::unique_ptr<Dict> dict(new Dict(std::move(name), geometry, access, clock_offset_ns));
  SH_ASSIGN_OR_RETURN(dict->base_, MapShared(segment, 0, geometry.segment_bytes(), writable));
  std::byte* const base = dict->base_;
  SH_RETURN_IF_ERROR(CheckHeader(*reinterpret_cast<DictSegmentHeader*>(base), dict->name_));
  dict->line_ = reinterpret_cast<DictLine*>(base + kDictLineOffset);
  dict->admission_ = reinterpret_cast<AdmissionLine*>(base + kAdmissionLineOffset);
  dict->allocator_ = reinterpret_cast<AllocatorLine*>(base + kAllocatorLineOffset);
  dict->slabs_ = reinterpret_cast<std::atomic<uint64_t>*>(base + kSlabTableOffset);
  dict->buckets_ = reinterpret_cast<BucketLine*>(base + geometry.buckets_offset());
  dict->lanes_ = base + geometry.lanes_offset();
  dict->rings_ = base + geometry.rings_offset();
  dict->data_ = base + geometry.data_offset();
  if (geometry.lanes_offset() <= kPopulateBytesMax) {
    Populate(base, geometry.lanes_offset(), writable);
  }
  return dict;
}

uint64_t Dict::NowMs() const {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  const int64_t ns = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec + clock_offset_ns_;
  return static_cast<uint64_t>(ns) / 1'000'000;
}

uint64_t Dict::NowNs() const { return MonotonicNs() + static_cast<uint64_t>(clock_offset_ns_); }

uint32_t Dict::lane_high() const {
  return std::min(line_->lane_high.load(std::memory_order_acquire), geometry_.lane_count);
}

Status Dict::PrepareLanes(uint32_t first_lane, uint32_t lane_count) {
  SH_RETURN_IF_ERROR(CheckWritable());
  if (first_lane >= geometry_.lane_count || lane_count > geometry_.lane_count - first_lane) {
    return Status(Reason::kInvalidArgument,
                  "dict \"" + name_ + "\": no lanes from " + std::to_string(first_lane) + " on");
  }
  const uint32_t end = first_lane + lane_count;
  uint32_t high = line_->lane_high.load(std::memory_order_relaxed);
  while (high < end && !line_->lane_high.compare_exchange_weak(high, end)) {
  }
  for (uint32_t id = std::max(first_lane, 1u); id < end; ++id) {
    const Lane lane{id, kOperationTimeoutNsDefault};
    DictLaneRecord& record = Record(id);
    Populate(reinterpret_cast<std::byte*>(&record), kPreparedLaneBytes, true);
    // Where that takes too long, the lane's first change tries again.
    untidy_[id] = !TidyAll(lane).ok();
  }
  return Status();
}

std::span<const std::byte> Dict::RingOf(uint32_t lane) const {
  return {rings_ + lane * kChangeRingBytes, kChangeRingBytes};
}

DictStats Dict::Stats() const {
  DictStats stats;
  for (uint32_t lane = 1; lane < lane_high(); ++lane) {
    const DictLaneRecord& record = Record(lane);
    stats.entries += Get64(record.entries);
    stats.entry_bytes += Get64(record.bytes);
    stats.bound_entries += Get64(record.bound);
    stats.revision += Get64(record.changes);
    stats.evictions += Get64(record.evictions);
    stats.expirations += Get64(record.expirations);
    stats.counters.contended += Get64(record.contended);
    stats.counters.wakes += Get64(record.wakes);
  }
  stats.counters.mutations = stats.revision;
  // The lanes' sums are read one after another, so that a delete may be seen without its insert.
  if (static_cast<int64_t>(stats.entries) < 0) stats.entries = 0;
  if (static_cast<int64_t>(stats.entry_bytes) < 0) stats.entry_bytes = 0;
  if (static_cast<int64_t>(stats.bound_entries) < 0) stats.bound_entries = 0;
  return stats;
}

bool Dict::LockIdIsSane(uint32_t id) const {
  return id < geometry_.bucket_count || id == kAllocatorLock || id == kAdmissionLock;
}

Status Dict::CheckKey(std::string_view key) const {
  if (!key.empty() && key.size() <= kDictKeyBytesMax) [[likely]]
    return Status();
  return Status(Reason::kKeyInvalid, "dict \"" + name_ + "\": a key of " +
                                         std::to_string(key.size()) + " bytes; 1 to " +
                                         std::to_string(kDictKeyBytesMax) + " are allowed");
}

Status Dict::CheckWritable() const {
  if (access_ == Access::kReadWrite) [[likely]]
    return Status();
  return Status(Reason::kReadOnly, "dict \"" + name_ +
                                       "\" is attached read-only: the access token has no grant "
                                       "to write");
}

Status Dict::RefuseState() const {
  switch (state()) {
    case DictState::kDeleted:
      return Status(Reason::kDictNotFound, "dict \"" + name_ + "\" was deleted");
    case DictState::kMoving:
    case DictState::kMoved:
      return Status(Reason::kDictMoved,
                    "dict \"" + name_ + "\" moved to another segment: open it again");
    default:
      return Status(Reason::kDataLoss,
                    "dict \"" + name_ + "\" is quarantined: its memory was damaged");
  }
}

Status Dict::RefuseStalled(uint32_t lock) const {
  const uint32_t holder = OwnerOf(Get64(LockWord(lock)));
  return Status(Reason::kStalled, "dict \"" + name_ +
                                      "\": what the operation needs is held by lane " +
                                      std::to_string(holder) + ", which makes no progress");
}

Status Dict::RefuseDamaged(const char* what) const {
  return Status(Reason::kDataLoss,
                "dict \"" + name_ + "\": " + what + " is damaged; a writer broke the protocol");
}

}  // namespace statehouse
