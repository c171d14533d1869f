// Looks at the whole of a dict and says what is wrong: entries that stand in the wrong bucket or
// twice, and blocks that are in two places or in none. Used by tests after each crash, and by the
// daemon when it suspects damage.
#include <unordered_map>
#include <unordered_set>

#include "engine/state/dict_internal.h"

namespace statehouse {
namespace {

constexpr size_t kFaultsMax = 32;

}  // namespace

class Dict::Checker final {
 public:
  Checker(const Dict& dict, DictCheck* check) : dict_(dict), check_(check) {}

  void Buckets() {
    for (uint32_t i = 0; i < dict_.geometry_.bucket_count; ++i) Bucket(i);
    check_->entries = entries_;
  }

  // REQUIRES: nobody writes.
  void Blocks() {
    const AllocatorLine& allocator = *dict_.allocator_;
    uint64_t entries = 0;
    uint64_t bytes = 0;
    uint64_t bound = 0;
    for (uint32_t lane = 1; lane < dict_.geometry_.lane_count && lane < dict_.lane_high(); ++lane) {
      Lane(lane);
      entries += Get64(dict_.Record(lane).entries);
      bytes += Get64(dict_.Record(lane).bytes);
      bound += Get64(dict_.Record(lane).bound);
    }
    if (bound != bound_entries_) {
      Fault("the lanes' sums say " + std::to_string(bound) + " bound entries, there are " +
            std::to_string(bound_entries_));
    }
    if (entries != entries_) {
      Fault("the lanes' sums say " + std::to_string(entries) + " entries, there are " +
            std::to_string(entries_));
    }
    if (bytes != entry_bytes_) {
      Fault("the lanes' sums say " + std::to_string(bytes) + " bytes, there are " +
            std::to_string(entry_bytes_));
    }
    for (uint32_t code = 1; code < kSizeClasses; ++code) {
      uint64_t steps = 0;
      for (BlockRef ref = Get64(allocator.heads[code]); ref != 0;) {
        if (!Block(ref, "a free list") || ClassOf(ref) != code || ++steps > kStepsMax) break;
        ref = Get64(*reinterpret_cast<std::atomic<uint64_t>*>(dict_.BlockAt(ref)));
      }
      const uint64_t end = Get64(allocator.bump_end[code]);
      for (uint64_t at = Get64(allocator.bump_next[code]); at < end; at += kClassBytes[code]) {
        if (!Block(MakeRef(code, at), "the unused part of a slab")) break;  // Its end is damaged.
      }
    }
    Operations();
    Slabs();
  }

 private:
  static constexpr uint64_t kStepsMax = uint64_t{1} << 32;

  void Fault(std::string what) {
    if (check_->faults.size() < kFaultsMax) check_->faults.push_back(std::move(what));
  }

  // Counts a block where it was found. False: it must not be read.
  bool Block(BlockRef ref, const char* where) {
    if (!dict_.RefIsSane(ref)) {
      Fault(std::string("no block can be at ") + std::to_string(ref) + ", found in " + where);
      return false;
    }
    ++check_->blocks;
    const auto [at, added] = seen_.emplace(PositionOf(ref), std::make_pair(ClassOf(ref), where));
    if (!added) {
      Fault("block " + std::to_string(ref) + " is in " + at->second.second + " and in " + where);
      return false;
    }
    return true;
  }

  void Bucket(uint32_t index) {
    const BucketLine& bucket = dict_.buckets_[index];
    Slots(index, bucket.slots, kBucketSlots);
    uint32_t lines = 0;
    BlockRef next = Get64(bucket.link) & kRefMask;
    while (next != 0) {
      if (++lines > kOverflowLinesMax || ClassOf(next) != 1 || !Block(next, "a bucket's lines")) {
        Fault("the lines of bucket " + std::to_string(index) + " are damaged");
        return;
      }
      const auto* line = reinterpret_cast<const OverflowLine*>(dict_.BlockAt(next));
      Slots(index, line->slots, kOverflowSlots);
      next = Get64(line->link) & kRefMask;
    }
  }

  void Slots(uint32_t bucket, const std::atomic<uint64_t>* slots, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
      const uint64_t word = Get64(slots[i]);
      if (word == 0) continue;
      Found found;
      found.ref = word & kRefMask;
      if (!Block(found.ref, "a slot")) continue;
      if (!found.ReadBlock(dict_.BlockAt(found.ref))) {
        Fault("the block of a slot in bucket " + std::to_string(bucket) + " holds no entry");
        continue;
      }
      std::string key(found.shape.key_bytes, '\0');
      CopyShared(reinterpret_cast<std::byte*>(key.data()), found.key(), key.size());
      const uint64_t hash = HashKey(dict_.geometry_.seed, key);
      if (dict_.BucketOf(hash) != bucket || (hash & kSlotTagMask) != word >> kSlotTagShift) {
        Fault("key \"" + key + "\" stands in bucket " + std::to_string(bucket) +
              ", where it does not belong");
      }
      const uint64_t sequence = SequenceOf(Get64(dict_.buckets_[bucket].control));
      if (found.version > sequence + 1) Fault("key \"" + key + "\" has a version of the future");
      if (!keys_.insert(key).second) Fault("key \"" + key + "\" stands twice");
      ++entries_;
      entry_bytes_ += BytesOfClass(ClassOf(found.ref));
      bound_entries_ += found.bound_by();
    }
  }

  void Lane(uint32_t lane) {
    const DictLaneRecord& record = dict_.Record(lane);
    for (uint32_t code = 1; code < kSizeClasses; ++code) {
      const uint64_t count = Get64(record.magazines[code].count);
      if (count > kMagazineBlocksMax) {
        Fault("a magazine of lane " + std::to_string(lane) + " holds too much");
        continue;
      }
      for (uint64_t i = 0; i < count; ++i) {
        const BlockRef ref = Get64(record.magazines[code].refs[i]);
        if (ClassOf(ref) != code) Fault("a magazine holds a block of another class");
        Block(ref, "a magazine");
      }
    }
    if (const BlockRef extent = Get64(record.extent); extent != 0) Block(extent, "a lane's extent");
    const uint64_t staged = std::min<uint64_t>(Get64(record.staged_count), kStagedBlocksMax);
    for (uint64_t i = 0; i < staged; ++i) {
      if (const BlockRef ref = Get64(record.staged[i]); ref != 0) Block(ref, "staged blocks");
    }
  }

  void Operations() {
    if (dict_.line_->operations.load(std::memory_order_relaxed) == 0) return;
    for (uint32_t row = 0; row < kOperationSets * kOperationWays; ++row) {
      for (const OperationRecord& record : dict_.RowAt(0, row)->records) {
        if (const BlockRef ref = Get64(record.block); ref != 0) Block(ref, "remembered operations");
      }
    }
  }

  // Every block of every slab was met once, and nothing outside of the slabs.
  void Slabs() {
    for (uint32_t slab = 1; slab < dict_.geometry_.slab_count(); ++slab) {
      const uint64_t state = Get64(dict_.slabs_[slab]);
      if (state == 0 || state == kExtentRest) continue;
      const uint64_t base = slab * kSlabBytes;
      const bool extent = state > kExtentHead;
      const uint32_t code = extent ? kExtentCodeBase + static_cast<uint32_t>(state - kExtentHead)
                                   : static_cast<uint32_t>(state);
      const uint64_t bytes = BytesOfClass(code);
      if (bytes == 0) {
        Fault("slab " + std::to_string(slab) + " is of no class");
        continue;
      }
      const uint64_t blocks = extent ? 1 : kSlabBytes / bytes;
      for (uint64_t i = 0; i < blocks; ++i) {
        const auto at = seen_.find(base + i * bytes);
        if (at == seen_.end() || at->second.first != code) {
          Fault("block " + std::to_string(MakeRef(code, base + i * bytes)) + " is nowhere");
          continue;
        }
        seen_.erase(at);
      }
    }
    for (const auto& [position, what] : seen_) {
      Fault("a block at " + std::to_string(position) + " in " + what.second + " is of no slab");
    }
  }

  const Dict& dict_;
  DictCheck* const check_;
  std::unordered_map<uint64_t, std::pair<uint32_t, const char*>> seen_;
  std::unordered_set<std::string> keys_;
  uint64_t entries_ = 0;
  uint64_t entry_bytes_ = 0;
  uint64_t bound_entries_ = 0;
};

DictCheck Dict::Check(bool quiet) const {
  DictCheck check;
  Checker checker(*this, &check);
  checker.Buckets();
  if (quiet) checker.Blocks();
  return check;
}

}  // namespace statehouse
