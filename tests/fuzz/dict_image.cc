#include "tests/fuzz/dict_image.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/os/memory.h"
#include "engine/shm/dict_layout.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/dict.h"

namespace statehouse {
namespace {

constexpr uint32_t kLanes = kLanesPerBlock;
constexpr uint32_t kLanesUsed = 4;
constexpr int kKeys = 30;
constexpr uint64_t kSession = 0x0123456789abcdef;
constexpr uint64_t kDataBytes = 12 << 16;
constexpr size_t kGuardBytes = 1 << 20;
constexpr int kEditsMax = 24;
const Lane kLane{1, 1};  // Nobody else is there: what is held stays held.

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "a damaged dict: %s\n", what);
  std::abort();
}

std::string KeyOf(uint64_t i) { return "key" + std::to_string(i); }

// A part of the segment that is damaged and restored.
struct Region {
  uint64_t offset;
  uint64_t bytes;
};

class Scene final {
 public:
  Scene() : geometry_(DictGeometry::For(60, kDataBytes, kLanes)) {
    geometry_.seed = {0x1234567890abcdef, 0xfedcba0987654321};
    geometry_.evict = true;
    Make(&fd_, &dict_, &base_);
    Make(&target_fd_, &target_, &target_base_);
    target_image_.assign(target_base_, target_base_ + geometry_.lanes_offset());
    Fill();
    FindRegions();
    for (const Region& region : regions_) {
      image_.insert(image_.end(), base_ + region.offset, base_ + region.offset + region.bytes);
    }
  }

  void Restore() {
    const std::byte* from = image_.data();
    for (const Region& region : regions_) {
      std::memcpy(base_ + region.offset, from, region.bytes);
      from += region.bytes;
    }
  }

  void Damage(ImageSource& source) {
    bool more = true;
    const uint64_t edits = 1 + source.Next(&more) % kEditsMax;
    for (uint64_t i = 0; i < edits && more; ++i) {
      const uint64_t word = source.Next(&more);
      uint64_t* const at = Word(word & 0xff, word >> 8);
      const uint64_t argument = source.Next(&more);
      // A dict that says that it is not live refuses everything, which proves little.
      const bool closes = (word & 0xff) % regions_.size() == 0;
      if (closes && argument % 16 != 0) continue;
      switch (word >> 60) {
        case 0: *at = argument; break;
        case 1: *at ^= uint64_t{1} << argument % 64; break;
        case 2: *at = argument % 70; break;
        case 3: *at += argument % 4096 - 2048; break;
        case 4: *at = 0; break;
        case 5: *at = ~uint64_t{0}; break;
        case 6: *at = (*at & ~kOwnerMask) | argument % kLanes; break;
        case 7: *at ^= kLinkTransaction; break;
        // What stands elsewhere is the most plausible: a block twice, a lock's word as a tag.
        default: *at = *Word(argument & 0xff, argument >> 8); break;
      }
    }
  }

  void Use(uint64_t turn);

 private:
  void Make(UniqueFd* fd, std::unique_ptr<Dict>* dict, std::byte** base);
  void Fill();
  void FindRegions();
  uint64_t* Word(uint64_t region, uint64_t index) {
    const Region& in = regions_[region % regions_.size()];
    return reinterpret_cast<uint64_t*>(base_ + in.offset) + index % (in.bytes / sizeof(uint64_t));
  }
  void Read();
  void Write(uint64_t turn);
  void Transact();
  void Mend();
  void CopyOut();

  DictGeometry geometry_;
  UniqueFd fd_;
  std::unique_ptr<Dict> dict_;
  std::byte* base_ = nullptr;
  UniqueFd target_fd_;
  std::unique_ptr<Dict> target_;
  std::byte* target_base_ = nullptr;
  std::vector<std::byte> target_image_;
  std::vector<Region> regions_;
  std::vector<uint64_t> rows_;  // Where sessions have remembered operations.
  std::vector<std::byte> image_;
};

// Nothing may be mapped beside the segment, so that a stray access is seen.
void Guard(std::byte* at) {
  (void)mmap(at, kGuardBytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

void Scene::Make(UniqueFd* fd, std::unique_ptr<Dict>* dict, std::byte** base) {
  auto made = CreateSealedMemory("fuzz-dict", geometry_.segment_bytes());
  Require(made.ok(), "no memory");
  *fd = std::move(*made);
  const uint64_t uuid[2] = {1, 2};
  Require(Dict::Format(geometry_, uuid, fd->get()).ok(), "not formatted");
  auto mapped = Dict::Map("fuzz", geometry_, fd->get(), Access::kReadWrite);
  Require(mapped.ok(), "not mapped");
  *dict = std::move(*mapped);
  // The ring of lane 0 begins at a known distance from the segment's beginning.
  *base = const_cast<std::byte*>((*dict)->RingOf(0).data()) - geometry_.rings_offset();
  Guard(*base - kGuardBytes);
  Guard(*base + (geometry_.segment_bytes() + kPageBytes - 1) / kPageBytes * kPageBytes);
  Require((*dict)->PrepareLanes(0, kLanesUsed).ok(), "no lanes");
}

// Entries of every kind, lines on a bucket, large values, remembered operations, a history for the
// lanes.
void Scene::Fill() {
  const auto set = [this](uint32_t lane, const std::string& key, const DictValue& value,
                          DictSetOptions options = {}) {
    DictResult result;
    Require(dict_->Set({lane, kOperationTimeoutNsDefault}, key, value, options, &result).ok(),
            "the sound image was not made");
  };
  for (uint64_t i = 0; i < kKeys; ++i) {
    const auto lane = static_cast<uint32_t>(1 + i % 3);
    DictSetOptions options;
    options.bind_session = i % 5 == 0 ? kSession : 0;
    if (i % 3 == 0) {
      set(lane, KeyOf(i), DictValue::Int64(static_cast<int64_t>(i)), options);
    } else {
      set(lane, KeyOf(i), DictValue::Bytes(std::string(i % 3 == 1 ? 20 : 300, 'v')), options);
    }
  }
  set(2, "large", DictValue::Bytes(std::string(2 * kSlabBytes, 'l')));
  DictSetOptions named;
  named.operation = {77, 1};
  set(1, KeyOf(1), DictValue::Bytes("again"), named);
  DictOperation step;
  step.kind = DictOperation::Kind::kIncrement;
  step.key = "key3";
  step.increment.delta = DictValue::Int64(1);
  DictTransactionResult result;
  Require(dict_->Transact({1, 1'000'000}, {}, {&step, 1}, {}, &result, {77, 2}).ok(),
          "the sound image was not made");
  const DictCheck check = dict_->Check(true);
  Require(check.faults.empty(), "the image is not sound");
}

void Scene::FindRegions() {
  const uint64_t lanes = geometry_.lanes_offset();
  regions_ = {{kDictLineOffset, 64},
              {kAdmissionLineOffset, 64},
              {kAllocatorLineOffset, sizeof(AllocatorLine)},
              {kSlabTableOffset, geometry_.slab_count() * sizeof(uint64_t)},
              {geometry_.buckets_offset(), geometry_.bucket_count * sizeof(BucketLine)},
              {geometry_.buckets_offset(), geometry_.bucket_count * sizeof(BucketLine)}};
  // Of each lane: its words and magazines, where its redo begins, its locks and its staged blocks.
  for (uint64_t lane = 1; lane < kLanesUsed; ++lane) {
    const uint64_t at = lanes + lane * kLaneRecordBytes;
    regions_.push_back({at, 128});
    regions_.push_back({at + offsetof(DictLaneRecord, magazines), sizeof(Magazine) * kSizeClasses});
    regions_.push_back({at + offsetof(DictLaneRecord, redo), 1024});
    regions_.push_back({at + offsetof(DictLaneRecord, more_locks), 64});
    regions_.push_back({at + offsetof(DictLaneRecord, staged), 64});
  }
  for (uint64_t row = 0; row < kOperationSets * kOperationWays; ++row) {
    const uint64_t at = geometry_.operations_offset() + row * sizeof(OperationRow);
    if (reinterpret_cast<const OperationRow*>(base_ + at)->session != 0) {
      regions_.push_back({at, 4 * 64});
      rows_.push_back(at);
    }
  }
  const auto* slabs = reinterpret_cast<const std::atomic<uint64_t>*>(base_ + kSlabTableOffset);
  for (uint64_t slab = 1; slab < geometry_.slab_count(); ++slab) {
    // The parts of slabs that hold entries; what large values hold is nobody's pointer.
    if (slabs[slab] != 0) {
      regions_.push_back({geometry_.data_offset() + slab * kSlabBytes, 4096});
    }
  }
}

void Scene::Read() {
  DictEntry entry;
  bool found = false;
  for (uint64_t i = 0; i < kKeys; i += 4) {
    (void)dict_->Get(KeyOf(i), &entry, &found, 1);
    if (found) Require(entry.bytes.size() <= kExtentSlabsMax * kSlabBytes, "an entry is too large");
  }
  (void)dict_->Get("large", &entry, &found, 1);
  (void)dict_->Get("absent", &entry, &found, 1);
  uint32_t bucket = 0;
  (void)dict_->Scan(
      &bucket, SIZE_MAX, "key", [](DictEntry&) {}, 1);
  Require(bucket <= geometry_.bucket_count, "a scan went past the end");
  std::vector<DictBinding> bound;
  for (bucket = 0; bucket < geometry_.bucket_count; ++bucket) {
    (void)dict_->FindBound(bucket, &bound, 1);
    for (const DictBinding& binding : bound) {
      Require(binding.session != 0 && binding.key.size() <= UINT16_MAX, "a binding of nobody");
    }
  }
  (void)dict_->Stats();
  (void)dict_->HighestVersion();
  DictRemembered remembered;
  (void)dict_->Recall({77, 1}, &remembered, &found);
  remembered = DictRemembered();
  (void)dict_->Recall({77, 2}, &remembered, &found);
}

void Scene::Write(uint64_t turn) {
  DictResult result;
  DictEntry previous;
  DictSetOptions options;
  options.previous = &previous;
  (void)dict_->Set(kLane, KeyOf(turn % kKeys), DictValue::Bytes("short"), options, &result);
  (void)dict_->Set(kLane, "absent", DictValue::Int64(1), {}, &result);
  (void)dict_->Set({2, 1}, KeyOf(turn / 7 % kKeys), DictValue::Bytes(std::string(300, 's')), {},
                   &result);
  if (turn % 4 == 0) {
    (void)dict_->Set({2, 1}, "large", DictValue::Bytes(std::string(kSlabBytes, 'm')), {}, &result);
  }
  options.operation = {77, 65};
  (void)dict_->Set(kLane, KeyOf(4), DictValue::Int64(2), options, &result);
  (void)dict_->Delete({3, 1}, KeyOf((turn + 11) % kKeys), {}, &result);
  DictSetOptions bound;
  bound.bind_session = kSession;
  (void)dict_->Set(kLane, KeyOf((turn + 5) % kKeys), DictValue::Bytes("bound"), bound, &result);
  DictDeleteOptions of_session;
  of_session.bound_session = kSession;
  (void)dict_->Delete({3, 1}, KeyOf((turn + 15) % kKeys), of_session, &result);
  (void)dict_->Delete(kLane, "large", {}, &result);
  DictIncrement one;
  one.delta = DictValue::Int64(1);
  (void)dict_->Increment(kLane, KeyOf(turn % kKeys / 3 * 3), one, &result);
  (void)dict_->Increment({3, 1}, "counted", one, &result);
}

void Scene::Transact() {
  DictOperation steps[3];
  steps[0].key = "key0";
  steps[1].kind = DictOperation::Kind::kSet;
  steps[1].key = "key1";
  steps[1].value = DictValue::Bytes("transacted");
  steps[2].kind = DictOperation::Kind::kDelete;
  steps[2].key = "key2";
  DictCompare compare;
  compare.key = "key3";
  compare.condition.kind = DictCondition::Kind::kPresent;
  DictTransactionResult result;
  (void)dict_->Transact(kLane, {&compare, 1}, steps, {steps, 1}, &result, {77, 66});
}

void Scene::Mend() {
  for (uint32_t lane = 0; lane < kLanes + 2; ++lane) {
    (void)dict_->RecoverLane(lane);
    (void)dict_->RecoverLane(lane);
  }
  uint32_t bucket = 0;
  (void)dict_->Scrub(&bucket, geometry_.bucket_count, [](uint32_t) { return false; });
  (void)dict_->Expire(kLane, &bucket, geometry_.bucket_count);
  (void)dict_->WaitUntilIdle(1);
  (void)dict_->PrepareLanes(0, kLanesUsed);
}

void Scene::CopyOut() {
  std::memcpy(target_base_, target_image_.data(), target_image_.size());
  for (uint64_t lane = 1; lane < kLanesUsed; ++lane) {
    std::memset(target_base_ + geometry_.lanes_offset() + lane * kLaneRecordBytes, 0,
                offsetof(DictLaneRecord, redo));
  }
  for (const uint64_t row : rows_) std::memset(target_base_ + row, 0, sizeof(OperationRow));
  const uint64_t highest = dict_->HighestVersion();
  auto* buckets = reinterpret_cast<BucketLine*>(target_base_ + geometry_.buckets_offset());
  for (uint32_t i = 0; i < geometry_.bucket_count; ++i) {
    buckets[i].control = highest * kSequenceOne;
  }
  // Nothing is held any more; but what is damaged may say that there is more than there can be.
  const auto copied = dict_->CopyInto({1, 1'000'000}, *target_);
  Require(copied.ok() || copied.status().reason() == Reason::kMemoryExhausted ||
              copied.status().reason() == Reason::kLimitExceeded,
          "it cannot be salvaged");
  const DictCheck check = target_->Check(true);
  if (!check.faults.empty()) std::fprintf(stderr, "%s\n", check.faults[0].c_str());
  Require(check.faults.empty(), "what was salvaged is not sound");
}

void Scene::Use(uint64_t turn) {
  Read();
  Write(turn);
  Transact();
  Mend();
  Read();
  Write(turn + 1);
  Transact();
  if (turn % 8 == 0) (void)dict_->Check(true);
  if (turn % 8 == 1) CopyOut();
}

}  // namespace

void LiveWithDamagedDict(ImageSource& source) {
  static Scene& scene = *new Scene;
  bool more = false;
  const uint64_t turn = source.Next(&more) % 4096;
  scene.Restore();
  scene.Damage(source);
  scene.Use(turn);
}

}  // namespace statehouse
