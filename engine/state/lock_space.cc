// Geometry, mapping and small facts of a lock space. The operations stand in lock_requests.cc, the
// steps that they are made of in lock_section.cc, the pools in lock_pool.cc, what the daemon does
// in lock_recovery.cc.
#include "engine/state/lock_space.h"

#include <bit>
#include <ctime>

#include "engine/os/memory.h"
#include "engine/state/lock_internal.h"

namespace statehouse {
namespace {

constexpr uint64_t RoundUp(uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

void FillHeader(const LockGeometry& geometry, LockSegmentHeader* header) {
  header->abi_major = kSegmentAbiMajor;
  header->abi_minor = kSegmentAbiMinor;
  header->byte_order_probe = kByteOrderProbe;
  header->required_features = 0;
  header->bucket_count = geometry.bucket_count;
  header->lane_count = geometry.lane_count;
  header->locks_max = geometry.locks_max;
  header->requests_max = geometry.requests_max;
  CrashFence();
  header->magic = kLockSegmentMagic;  // Last: a header without it is no lock space.
}

}  // namespace

LockGeometry LockGeometry::For(uint32_t locks_max, uint32_t lane_count) {
  LockGeometry geometry;
  geometry.locks_max = locks_max;
  geometry.requests_max = locks_max * kLockRequestsPerLock;
  geometry.bucket_count = std::bit_ceil(std::max(64u, locks_max / 2));
  geometry.lane_count = lane_count;
  return geometry;
}

Status LockGeometry::Validate() const {
  const auto refuse = [](const char* why) {
    return Status(Reason::kInvalidArgument, std::string("lock space geometry: ") + why);
  };
  if (locks_max == 0 || locks_max > kLocksMaxLimit) return refuse("locks_max out of range");
  if (lane_count < kLanesPerBlock || lane_count > kLanesMax)
    return refuse("lane_count out of range");
  const LockGeometry expected = For(locks_max, lane_count);
  if (bucket_count != expected.bucket_count || requests_max != expected.requests_max)
    return refuse("its parts do not follow from locks_max");
  return Status();
}

uint64_t LockGeometry::lanes_offset() const {
  return kLockBucketsOffset + RoundUp(bucket_count * sizeof(LockBucketLine));
}
uint64_t LockGeometry::locks_offset() const {
  return lanes_offset() + RoundUp(lane_count * kLockLaneRecordBytes);
}
uint64_t LockGeometry::requests_offset() const {
  return locks_offset() + RoundUp(locks_max * sizeof(LockSlot));
}
uint64_t LockGeometry::segment_bytes() const {
  return requests_offset() + RoundUp(requests_max * sizeof(RequestSlot));
}

Status LockSpace::Format(const LockGeometry& geometry, const uint64_t uuid[2], uint64_t last_token,
                         int segment) {
  SH_RETURN_IF_ERROR(geometry.Validate());
  SH_ASSIGN_OR_RETURN(std::byte* const base, MapShared(segment, 0, kLockBucketsOffset, true));
  auto* header = reinterpret_cast<LockSegmentHeader*>(base);
  header->uuid[0] = uuid[0];
  header->uuid[1] = uuid[1];
  reinterpret_cast<TokenLine*>(base + kTokenLineOffset)->last.store(last_token);
  reinterpret_cast<SpaceLine*>(base + kSpaceLineOffset)
      ->state.store(static_cast<uint32_t>(LockSpaceState::kLive));
  FillHeader(geometry, header);
  Unmap(base, kLockBucketsOffset);
  return Status();
}

Status LockSpace::RestoreHeader(const LockGeometry& geometry, int segment) {
  SH_RETURN_IF_ERROR(geometry.Validate());
  SH_ASSIGN_OR_RETURN(std::byte* const base, MapShared(segment, 0, kLockBucketsOffset, true));
  FillHeader(geometry, reinterpret_cast<LockSegmentHeader*>(base));
  reinterpret_cast<SpaceLine*>(base + kSpaceLineOffset)
      ->state.store(static_cast<uint32_t>(LockSpaceState::kLive));
  Unmap(base, kLockBucketsOffset);
  return Status();
}

LockSpace::LockSpace(const LockGeometry& geometry, int64_t clock_offset_ns)
    : geometry_(geometry),
      clock_offset_ns_(clock_offset_ns),
      spare_(new std::vector<uint32_t>[geometry.lane_count]) {}

LockSpace::~LockSpace() { Unmap(base_, geometry_.segment_bytes()); }

StatusOr<std::unique_ptr<LockSpace>> LockSpace::Map(const LockGeometry& geometry, int segment,
                                                    int64_t clock_offset_ns) {
  SH_RETURN_IF_ERROR(geometry.Validate());
  SH_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes(segment));
  if (bytes < geometry.segment_bytes() || !SizeIsSealed(segment)) {
    return Status(Reason::kBackingInvalid,
                  "lock space: the segment holds " + std::to_string(bytes) + " bytes, " +
                      std::to_string(geometry.segment_bytes()) + " sealed ones are needed");
  }
  std::unique_ptr<LockSpace> space(new LockSpace(geometry, clock_offset_ns));
  SH_ASSIGN_OR_RETURN(space->base_, MapShared(segment, 0, geometry.segment_bytes(), true));
  std::byte* const base = space->base_;
  const auto& header = *reinterpret_cast<LockSegmentHeader*>(base);
  if (header.magic != kLockSegmentMagic || header.byte_order_probe != kByteOrderProbe ||
      header.abi_major != kSegmentAbiMajor || header.required_features != 0) {
    return Status(Reason::kVersionMismatch,
                  "lock space: the descriptor holds no lock space of this byte order and format " +
                      std::to_string(kSegmentAbiMajor) + "; update the older side");
  }
  space->space_ = reinterpret_cast<SpaceLine*>(base + kSpaceLineOffset);
  space->tokens_ = reinterpret_cast<TokenLine*>(base + kTokenLineOffset);
  space->pool_ = reinterpret_cast<PoolLine*>(base + kPoolLineOffset);
  space->buckets_ = reinterpret_cast<LockBucketLine*>(base + kLockBucketsOffset);
  space->lanes_ = base + geometry.lanes_offset();
  space->locks_ = reinterpret_cast<LockSlot*>(base + geometry.locks_offset());
  space->requests_ = reinterpret_cast<RequestSlot*>(base + geometry.requests_offset());
  return space;
}

Status LockSpace::PrepareLanes(uint32_t first_lane, uint32_t lane_count) {
  if (first_lane >= geometry_.lane_count || lane_count > geometry_.lane_count - first_lane) {
    return Status(Reason::kInvalidArgument,
                  "lock space: no lanes from " + std::to_string(first_lane) + " on");
  }
  for (uint32_t id = first_lane; id < first_lane + lane_count; ++id) {
    spare_[id].clear();  // Whoever had the lane meanwhile may have ended: they are not ours.
    if (id != 0) Populate(reinterpret_cast<std::byte*>(&Record(id)), kLockLaneRecordBytes, true);
  }
  return Status();
}

uint64_t LockSpace::NowNs() const {
  return MonotonicNs() + static_cast<uint64_t>(clock_offset_ns_.load(std::memory_order_relaxed));
}

uint64_t LockSpace::CoarseNowNs() const {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<uint64_t>(int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec +
                               clock_offset_ns_.load(std::memory_order_relaxed));
}

LockSlot* LockSpace::LockAt(uint64_t number) const {
  return number == 0 || number > geometry_.locks_max ? nullptr : &locks_[number - 1];
}

RequestSlot* LockSpace::RequestAt(uint64_t number) const {
  return number == 0 || number > geometry_.requests_max ? nullptr : &requests_[number - 1];
}

std::string LockSpace::NameOf(const LockSlot& lock) const {
  const size_t bytes = std::min<size_t>(HighOf(LoadLock(lock.shape)), kNameBytesMax);
  std::string name(bytes, '\0');
  for (size_t at = 0; at < bytes; at += 8) {
    const uint64_t word = LoadLock(lock.name[at / 8]);
    std::memcpy(name.data() + at, &word, std::min<size_t>(8, bytes - at));
  }
  return name;
}

bool LockSpace::NameIs(const LockSlot& lock, uint64_t hash, std::string_view name) const {
  if (LoadLock(lock.hash) != hash || HighOf(LoadLock(lock.shape)) != name.size()) return false;
  for (size_t at = 0; at < name.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, name.data() + at, std::min<size_t>(8, name.size() - at));
    if (LoadLock(lock.name[at / 8]) != word) return false;
  }
  return true;
}

LockStats LockSpace::Stats() const {
  LockStats stats;
  for (uint32_t lane = 1; lane < geometry_.lane_count; ++lane) {
    const LockLaneRecord& record = Record(lane);
    stats.grants += LoadLock(record.grants);
    stats.releases += LoadLock(record.releases);
    stats.expirations += LoadLock(record.expirations);
    stats.contended += LoadLock(record.contended);
  }
  return stats;
}

Status LockSpace::RefuseStalled(uint32_t bucket) const {
  const uint32_t holder = OwnerOf(LoadLock(buckets_[bucket].control));
  return Status(Reason::kStalled, "locks: what the operation needs is held by lane " +
                                      std::to_string(holder) + ", which makes no progress");
}

Status LockSpace::RefuseDamaged(const char* what) const {
  return Status(Reason::kDataLoss,
                std::string("locks: ") + what + " is damaged; a writer broke the protocol");
}

Status LockSpace::RefuseGone() const {
  return Status(Reason::kUnavailable,
                "locks: the service that kept them is gone; connect to it again");
}

}  // namespace statehouse
