#include "tests/crash/dict_crash_scene.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "engine/os/futex.h"
#include "engine/os/memory.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/test_dict.h"

namespace statehouse {
namespace {

DictGeometry GeometryOf(const SceneShape& shape) {
  DictGeometry geometry = DictGeometry::For(shape.entries_max, shape.data_bytes, kLanesPerBlock);
  geometry.seed = {0x1234567890abcdef, 0xfedcba0987654321};
  geometry.evict = shape.evict;
  return geometry;
}

}  // namespace

void Must(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "the crash test cannot go on: %s failed\n", what);
  std::abort();
}

DictSegment::DictSegment(const DictGeometry& geometry_in) : geometry(geometry_in) {
  auto made = CreateSealedMemory("crash-dict", geometry.segment_bytes());
  Must(made.ok(), "making a segment");
  fd = std::move(*made);
  const uint64_t uuid[2] = {1, 2};
  Must(Dict::Format(geometry, uuid, fd.get()).ok(), "formatting a segment");
  auto mapped = Dict::Map("crash", geometry, fd.get(), Access::kReadWrite);
  Must(mapped.ok(), "mapping a segment");
  dict = std::move(*mapped);
  Must(dict->PrepareLanes(0, kSceneLanes).ok(), "preparing lanes");
}

SeenDict DictSegment::Read() const {
  SeenDict seen;
  uint32_t bucket = 0;
  const Status status = dict->Scan(
      &bucket, SIZE_MAX, "",
      [&](DictEntry& entry) {
        seen[entry.key] =
            SeenEntry{entry.kind,       entry.bits,    entry.bytes,   entry.fence,
                      entry.expires_ms, entry.ordinal, entry.version, entry.bound_session};
      },
      1);
  Must(status.ok(), "reading a dict that nobody holds");
  return seen;
}

DictScene::DictScene(const SceneShape& shape, const std::function<void(DictScene&)>& prepare)
    : live(GeometryOf(shape)),
      clone(GeometryOf(shape)),
      between(GeometryOf(shape)),
      last(GeometryOf(shape)) {
  Put("old", DictValue::Int64(0));
  prepare(*this);
  FinishPast();
  before = live.Read();
  ring_head_before = VictimRecord(dict()).ring_head.load();
  stats_before = dict().Stats();
  for (uint32_t i = 0; i < live.geometry.bucket_count; ++i) {
    sequences_before.push_back(SequenceOf(DictInternals::Bucket(dict(), i).control.load()));
  }
  const std::byte* const base = DictInternals::Base(dict());
  for (uint64_t i = 0; i < kOperationSets * kOperationWays; ++i) {
    const uint64_t offset = live.geometry.operations_offset() + i * sizeof(OperationRow);
    if (reinterpret_cast<const OperationRow*>(base + offset)->session != 0) rows_.push_back(offset);
  }
  // Somebody sleeps until the dict changes.
  Must(dict().ArmWatch(), "this kernel has no membarrier");
  Copy(live, last);
}

// The victim's last change was to "old", and now every lock stands at the sequence which that
// bucket had: what is left of that change in the victim's record would fit any lock that it takes
// next.
void DictScene::FinishPast() {
  const DictGeometry& geometry = live.geometry;
  const uint64_t highest = 1000 * kSequenceOne;  // More than any scene needs.
  const auto each_bucket = [&](auto visit) {
    for (uint32_t i = 0; i < geometry.bucket_count; ++i) {
      visit(DictInternals::Bucket(dict(), i).control);
    }
  };
  each_bucket([&](auto& word) { Must(word.load() < highest, "aligning the buckets"); });
  each_bucket([&](auto& word) { word = highest; });
  DictIncrement one;
  one.delta = DictValue::Int64(1);
  DictResult result;
  Must(dict().Increment(kVictim, "old", one, &result).ok(), "the victim's past");
  AllocatorLine& allocator = DictInternals::Allocator(dict());
  auto& admission =
      reinterpret_cast<AdmissionLine*>(DictInternals::Base(dict()) + kAdmissionLineOffset)->control;
  Must(highest >= allocator.control.load() && highest >= admission.load(), "aligning the locks");
  allocator.control = highest;
  admission = highest;
}

DictLaneRecord& DictScene::VictimRecord(Dict& dict) const {
  return DictInternals::Record(dict, kVictimLane);
}

void DictScene::PutBy(const Lane& lane, std::string_view key, const DictValue& value,
                      const DictSetOptions& options) {
  DictResult result;
  const Status status = dict().Set(lane, key, value, options, &result);
  Must(status.ok() && result.applied, "setting a key of the scene");
}

void DictScene::Put(std::string_view key, const DictValue& value, const DictSetOptions& options) {
  PutBy(kOther, key, value, options);
}

void DictScene::DeleteBy(const Lane& lane, std::string_view key) {
  DictResult result;
  const Status status = dict().Delete(lane, key, {}, &result);
  Must(status.ok() && result.applied, "deleting a key of the scene");
}

void DictScene::PutExpired(std::string_view key, const DictValue& value) {
  DictSetOptions options;
  options.ttl = {DictTtl::Kind::kSet, 1};
  Put(key, value, options);
  WaitUntilPast(dict(), dict().NowMs() + 1);
}

std::string DictScene::KeyIn(uint32_t bucket, int n, const std::string& prefix) const {
  for (int i = 0;; ++i) {
    std::string key = prefix + std::to_string(i);
    if (DictInternals::BucketOf(*live.dict, key) == bucket && n-- == 0) return key;
  }
}

// The parts of a segment that operations of these lanes reach, except the blocks.
template <typename Visit>
void DictScene::ForEachControlRange(uint32_t first_lane, uint32_t end_lane, Visit visit) const {
  const DictGeometry& geometry = live.geometry;
  visit(uint64_t{0}, geometry.lanes_offset());
  for (uint64_t lane = first_lane; lane < end_lane; ++lane) {
    visit(geometry.lanes_offset() + lane * kLaneRecordBytes, uint64_t{sizeof(DictLaneRecord)});
    visit(geometry.rings_offset() + lane * kChangeRingBytes, kChangeRingBytes);
  }
  for (const uint64_t row : rows_) visit(row, uint64_t{sizeof(OperationRow)});
}

void DictScene::Copy(const DictSegment& from, const DictSegment& to) const {
  const DictGeometry& geometry = from.geometry;
  const std::byte* const source = DictInternals::Base(*from.dict);
  std::byte* const target = DictInternals::Base(*to.dict);
  const auto copy = [&](uint64_t offset, uint64_t bytes) {
    std::memcpy(target + offset, source + offset, bytes);
  };
  ForEachControlRange(1, kSceneLanes, copy);
  const auto* slabs = reinterpret_cast<const std::atomic<uint64_t>*>(source + kSlabTableOffset);
  for (uint64_t slab = 1; slab < geometry.slab_count(); ++slab) {
    if (slabs[slab].load() != 0) copy(geometry.data_offset() + slab * kSlabBytes, kSlabBytes);
  }
}

bool DictScene::Changed(bool bulk) {
  const DictGeometry& geometry = live.geometry;
  std::byte* const now = DictInternals::Base(*live.dict);
  std::byte* const then = DictInternals::Base(*last.dict);
  bool changed = false;
  const auto compare = [&](uint64_t offset, uint64_t bytes) {
    if (std::memcmp(now + offset, then + offset, bytes) == 0) return;
    changed = true;
    std::memcpy(then + offset, now + offset, bytes);
  };
  ForEachControlRange(kVictimLane, kVictimLane + 1, compare);
  const auto* slabs = reinterpret_cast<const std::atomic<uint64_t>*>(now + kSlabTableOffset);
  for (uint64_t slab = 1; bulk && slab < geometry.slab_count(); ++slab) {
    if (slabs[slab].load() != 0) compare(geometry.data_offset() + slab * kSlabBytes, kSlabBytes);
  }
  return changed;
}

uint64_t DictScene::VersionBefore(std::string_view key) const {
  return sequences_before[DictInternals::BucketOf(*live.dict, key)];
}

std::vector<SeenChange> ReadRing(const Dict& dict, uint32_t lane, uint64_t from, uint64_t to,
                                 bool* sound) {
  const std::span<const std::byte> ring = dict.RingOf(lane);
  const auto read = [&](uint64_t position, void* target, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) {
      static_cast<std::byte*>(target)[i] = ring[(position + i) % kChangeRingBytes];
    }
  };
  std::vector<SeenChange> changes;
  *sound = false;
  for (uint64_t at = from; at < to;) {
    ChangeHeader header;
    read(at, &header, sizeof header);
    SeenChange change{static_cast<ChangeOperation>(header.operation),
                      static_cast<DictKind>(header.kind),
                      std::string(header.key_bytes, '\0'),
                      "",
                      header.value_bytes != kValueNotInline,
                      header.version,
                      header.bits};
    if (change.is_inline) change.bytes.resize(header.value_bytes);
    const size_t bytes = sizeof header + change.key.size() + change.bytes.size();
    if (header.record_bytes != (bytes + 7) / 8 * 8 || at + header.record_bytes > to) return {};
    read(at + sizeof header, change.key.data(), change.key.size());
    read(at + sizeof header + change.key.size(), change.bytes.data(), change.bytes.size());
    at += header.record_bytes;
    changes.push_back(std::move(change));
  }
  *sound = true;
  return changes;
}

void WaitUntilPast(const Dict& dict, uint64_t ms) {
  while (dict.NowMs() <= ms) CpuRelax();
}

}  // namespace statehouse
