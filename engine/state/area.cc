// Mapping, bounds and small facts of an area. The operations stand in area_words.cc,
// area_ranges.cc, area_wait.cc and area_recovery.cc.
#include "engine/state/area.h"

#include <algorithm>
#include <bit>

#include "engine/os/fault_guard.h"
#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "engine/shm/owned_lock.h"

namespace statehouse {
namespace {

// Areas up to this size get their page tables filled when they are mapped.
constexpr uint64_t kPopulateBytesMax = 64 << 20;

constexpr uint64_t RoundUp(uint64_t bytes, uint64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

uint64_t LaneRecordsOffset(const AreaGeometry& geometry) {
  return kStripeLinesOffset + RoundUp(geometry.stripe_count * sizeof(StripeLine), kPageBytes);
}

uint64_t JournalsOffset(const AreaGeometry& geometry) {
  return LaneRecordsOffset(geometry) +
         RoundUp(geometry.lane_count * sizeof(LaneRecord), kPageBytes);
}

uint64_t ControlBytes(const AreaGeometry& geometry) {
  return JournalsOffset(geometry) +
         RoundUp(geometry.lane_count * geometry.atomic_range_bytes, kPageBytes);
}

Status CheckHeader(const SegmentHeader& header, const std::string& name) {
  if (header.magic != kSegmentMagic || header.byte_order_probe != kByteOrderProbe) {
    return Status(Reason::kVersionMismatch,
                  "area \"" + name + "\": the descriptor holds no area segment of this byte order");
  }
  if (header.abi_major != kSegmentAbiMajor || header.required_features != 0) {
    return Status(Reason::kVersionMismatch,
                  "area \"" + name + "\": segment format " + std::to_string(header.abi_major) +
                      "." + std::to_string(header.abi_minor) + " with features " +
                      std::to_string(header.required_features) + ", this library speaks " +
                      std::to_string(kSegmentAbiMajor) + "; update the older side");
  }
  return Status();
}

Status CheckLength(int fd, uint64_t needed, const std::string& name, const char* what) {
  SH_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes(fd));
  if (bytes < needed) {
    return Status(Reason::kBackingInvalid, "area \"" + name + "\": the " + what + " holds " +
                                               std::to_string(bytes) + " bytes, " +
                                               std::to_string(needed) + " are needed");
  }
  return Status();
}

}  // namespace

AreaGeometry AreaGeometry::For(uint64_t size, uint64_t atomic_range_bytes, uint32_t lane_count) {
  AreaGeometry geometry;
  geometry.size = size;
  geometry.atomic_range_bytes = atomic_range_bytes;
  geometry.lane_count = lane_count;
  const uint64_t least = RoundUp(size, kStripesMax) / kStripesMax;
  const uint64_t stripe = std::bit_ceil(least < kStripeBytesMin ? kStripeBytesMin : least);
  geometry.stripe_shift = static_cast<uint32_t>(std::countr_zero(stripe));
  geometry.stripe_count = static_cast<uint32_t>(RoundUp(size, stripe) / stripe);
  geometry.control_bytes = ControlBytes(geometry);
  geometry.data_offset = geometry.control_bytes;
  return geometry;
}

AreaGeometry AreaGeometry::ForSeparateData(uint64_t size, uint64_t data_offset,
                                           uint64_t atomic_range_bytes, uint32_t lane_count) {
  AreaGeometry geometry = For(size, atomic_range_bytes, lane_count);
  geometry.data_offset = data_offset;
  geometry.data_is_separate = true;
  return geometry;
}

Status AreaGeometry::Validate() const {
  const auto refuse = [](const char* why) {
    return Status(Reason::kInvalidArgument, std::string("area geometry: ") + why);
  };
  if (size == 0 || size > kAreaBytesMax) return refuse("size out of range");
  if (atomic_range_bytes < kPageBytes || atomic_range_bytes > kAtomicRangeBytesMax ||
      atomic_range_bytes % kPageBytes != 0) {
    return refuse("atomic_range_bytes out of range");
  }
  if (lane_count < kLanesPerBlock || lane_count > kLanesMax)
    return refuse("lane_count out of range");
  const AreaGeometry expected =
      data_is_separate ? ForSeparateData(size, data_offset, atomic_range_bytes, lane_count)
                       : For(size, atomic_range_bytes, lane_count);
  if (!(*this == expected))
    return refuse("stripes, control_bytes and data_offset do not follow from size");
  if (data_offset % kPageBytes != 0) return refuse("data_offset is no multiple of the page size");
  if (data_offset > (uint64_t{1} << 62)) return refuse("data_offset out of range");
  return Status();
}

Area::Area(std::string name, const AreaGeometry& geometry, Access access)
    : name_(std::move(name)), geometry_(geometry), access_(access) {}

Area::~Area() {
  if (guarded_) FaultGuard::Unregister(data_);
  Unmap(control_, mapped_bytes_);
  if (geometry_.data_is_separate) Unmap(data_, geometry_.size);
}

namespace {

void FillHeader(const AreaGeometry& geometry, SegmentHeader* header) {
  header->abi_major = kSegmentAbiMajor;
  header->abi_minor = kSegmentAbiMinor;
  header->byte_order_probe = kByteOrderProbe;
  header->required_features = 0;
  header->size = geometry.size;
  header->stripe_shift = geometry.stripe_shift;
  header->stripe_count = geometry.stripe_count;
  header->lane_count = geometry.lane_count;
  header->atomic_range_bytes = geometry.atomic_range_bytes;
  CrashFence();
  header->magic = kSegmentMagic;  // Last: a header without it is no area.
}

}  // namespace

Status Area::Format(const AreaGeometry& geometry, const uint64_t uuid[2], int control) {
  SH_RETURN_IF_ERROR(geometry.Validate());
  SH_ASSIGN_OR_RETURN(std::byte* const base, MapShared(control, 0, kStripeLinesOffset, true));
  auto* header = reinterpret_cast<SegmentHeader*>(base);
  header->uuid[0] = uuid[0];
  header->uuid[1] = uuid[1];
  auto* line = reinterpret_cast<AreaLine*>(base + kAreaLineOffset);
  line->state.store(static_cast<uint32_t>(AreaState::kLive), std::memory_order_relaxed);
  FillHeader(geometry, header);
  Unmap(base, kStripeLinesOffset);
  return Status();
}

Status Area::RestoreHeader(const AreaGeometry& geometry, int control) {
  SH_RETURN_IF_ERROR(geometry.Validate());
  SH_ASSIGN_OR_RETURN(std::byte* const base, MapShared(control, 0, kStripeLinesOffset, true));
  FillHeader(geometry, reinterpret_cast<SegmentHeader*>(base));
  Unmap(base, kStripeLinesOffset);
  return Status();
}

Status Area::RetireSegment(int control, AreaState state) {
  SH_ASSIGN_OR_RETURN(std::byte* const base, MapShared(control, 0, kStripeLinesOffset, true));
  auto* line = reinterpret_cast<AreaLine*>(base + kAreaLineOffset);
  line->state.store(static_cast<uint32_t>(state), std::memory_order_release);
  line->event.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(line->event);
  Unmap(base, kStripeLinesOffset);
  return Status();
}

StatusOr<std::unique_ptr<Area>> Area::Map(std::string name, const AreaGeometry& geometry,
                                          int control, int data, Access access) {
  SH_RETURN_IF_ERROR(geometry.Validate());
  const bool writable = access == Access::kReadWrite;
  const uint64_t mapped = geometry.data_is_separate
                              ? geometry.control_bytes
                              : geometry.data_offset + RoundUp(geometry.size, kPageBytes);
  SH_RETURN_IF_ERROR(CheckLength(control, mapped, name, "segment"));
  if (!SizeIsSealed(control)) {
    return Status(Reason::kBackingInvalid,
                  "area \"" + name + "\": the segment's size is not sealed");
  }
  std::unique_ptr<Area> area(new Area(std::move(name), geometry, access));
  SH_ASSIGN_OR_RETURN(area->control_, MapShared(control, 0, mapped, writable));
  area->mapped_bytes_ = mapped;
  SH_RETURN_IF_ERROR(CheckHeader(*reinterpret_cast<SegmentHeader*>(area->control_), area->name_));
  if (geometry.data_is_separate) {
    SH_RETURN_IF_ERROR(
        CheckLength(data, geometry.data_offset + geometry.size, area->name_, "data file"));
    SH_ASSIGN_OR_RETURN(area->data_,
                        MapShared(data, geometry.data_offset, geometry.size, writable));
  } else {
    area->data_ = area->control_ + geometry.data_offset;
  }
  area->line_ = reinterpret_cast<AreaLine*>(area->control_ + kAreaLineOffset);
  area->stripes_ = reinterpret_cast<StripeLine*>(area->control_ + kStripeLinesOffset);
  area->lanes_ = reinterpret_cast<LaneRecord*>(area->control_ + LaneRecordsOffset(geometry));
  area->journals_ = area->control_ + JournalsOffset(geometry);
  if (geometry.size <= kPopulateBytesMax && !geometry.data_is_separate) {
    Populate(area->data_, geometry.size, writable);
  }
  Populate(area->control_, kStripeLinesOffset + geometry.stripe_count * sizeof(StripeLine),
           writable);
  area->inline_load_end_ =
      geometry.size >= sizeof(uint64_t) ? geometry.size - sizeof(uint64_t) + 1 : 0;
  area->inline_mutate_end_ = writable ? area->inline_load_end_ : 0;
  return area;
}

bool Area::live() const {
  return line_->state.load(std::memory_order_acquire) == static_cast<uint32_t>(AreaState::kLive);
}

void Area::PrefaultLanes(uint32_t first_lane, uint32_t lane_count) const {
  if (first_lane >= geometry_.lane_count || lane_count > geometry_.lane_count - first_lane) return;
  Populate(reinterpret_cast<std::byte*>(lanes_ + first_lane), lane_count * sizeof(LaneRecord),
           writable());
}

bool Area::GuardAgainstTruncation() {
  guarded_ = FaultGuard::Register(data_, geometry_.size, &line_->state,
                                  static_cast<uint32_t>(AreaState::kQuarantined));
  return guarded_;
}

uint32_t Area::HolderOf(uint64_t pos) const {
  if (!Contains(pos, 1)) return 0;
  return OwnerOf(stripes_[pos >> geometry_.stripe_shift].control.load(std::memory_order_relaxed));
}

void Area::Retire(AreaState state) {
  line_->state.store(static_cast<uint32_t>(state), std::memory_order_release);
  WakeAll();
}

LaneCounters Area::CountersOf(uint32_t lane) const {
  LaneCounters counters;
  if (lane >= geometry_.lane_count) return counters;
  const LaneRecord& record = lanes_[lane];
  counters.mutations = record.mutations.load(std::memory_order_relaxed);
  counters.contended = record.contended.load(std::memory_order_relaxed);
  counters.wakes = record.wakes.load(std::memory_order_relaxed);
  return counters;
}

Area::StripeSpan Area::SpanOf(uint64_t pos, uint64_t len) const {
  const auto first = static_cast<uint32_t>(pos >> geometry_.stripe_shift);
  const auto last = static_cast<uint32_t>((pos + len - 1) >> geometry_.stripe_shift);
  return StripeSpan{first, last - first + 1};
}

Status Area::CheckRange(uint64_t pos, uint64_t len) const {
  if (!live()) [[unlikely]]
    return RefuseState();
  if (!Contains(pos, len)) [[unlikely]]
    return RefuseBounds(pos, len);
  return Status();
}

Status Area::CheckMutation(uint64_t pos, uint64_t len) const {
  if (access_ != Access::kReadWrite) [[unlikely]] {
    return Status(
        Reason::kReadOnly,
        "area \"" + name_ + "\" is attached read-only: the access token has no grant to write");
  }
  return CheckRange(pos, len);
}

Status Area::RefuseState() const {
  if (line_->state.load(std::memory_order_relaxed) == static_cast<uint32_t>(AreaState::kDeleted)) {
    return Status(Reason::kAreaNotFound, "area \"" + name_ + "\" was deleted");
  }
  return Status(
      Reason::kDataLoss,
      "area \"" + name_ + "\" is quarantined: its memory was damaged or its file was truncated");
}

Status Area::RefuseBounds(uint64_t pos, uint64_t len) const {
  return Status(Reason::kOutOfBounds, "area \"" + name_ + "\": pos " + std::to_string(pos) +
                                          " and len " + std::to_string(len) +
                                          " do not fit its size of " +
                                          std::to_string(geometry_.size) + " bytes");
}

Status Area::RefuseStalled(uint32_t stripe, uint64_t pos, uint64_t len, uint64_t done) const {
  const uint32_t holder = OwnerOf(stripes_[stripe].control.load(std::memory_order_relaxed));
  std::string message = "area \"" + name_ + "\": pos " + std::to_string(pos) + " and len " +
                        std::to_string(len) + " are held by lane " + std::to_string(holder) +
                        ", which makes no progress";
  if (done > 0) message += "; the first " + std::to_string(done) + " bytes were done";
  return Status(Reason::kStalled, std::move(message));
}

uint64_t Area::NewestFence(StripeSpan span) const {
  uint64_t newest = 0;
  for (uint32_t i = 0; i < span.count; ++i) {
    newest = std::max(newest, stripes_[span.first + i].fence.load(std::memory_order_relaxed));
  }
  return newest;
}

Status Area::RefuseFence(StripeSpan span, uint64_t fence, uint64_t pos, uint64_t len,
                         uint64_t done) const {
  std::string message = "area \"" + name_ + "\": the stripes of pos " + std::to_string(pos) +
                        " and len " + std::to_string(len) + " were written with fencing token " +
                        std::to_string(NewestFence(span)) + ", newer than " +
                        std::to_string(fence) +
                        ": the caller's lease is over; stop, or take the lock again";
  if (done > 0) message += "; the first " + std::to_string(done) + " bytes were done";
  return Status(Reason::kFenced, std::move(message));
}

void Area::StoreFence(StripeSpan span, uint64_t fence) {
  for (uint32_t i = 0; i < span.count; ++i) {
    stripes_[span.first + i].fence.store(fence, std::memory_order_relaxed);
  }
  CrashFence();
}

}  // namespace statehouse
