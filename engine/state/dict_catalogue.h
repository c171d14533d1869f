// DictCatalogue: the daemon's private record of its dicts, in a memfd of its own that no worker
// ever gets and that the keeper carries from one daemon to the next.
//
// Drawing (docs/formats/catalogue.md):
//   0        head (4 KiB): magic, version, next id, next index
//   4096     records: 2 x kDictsMax x 512 B, sparse
//
// Crash rule: as the catalogue of areas: a record is filled first and its `state` stored last. A
// dict that moves gets its new record before the old one goes; of two with the same id the higher
// generation counts.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/state/dict.h"

namespace statehouse {

// One dict as the catalogue knows it, checked.
struct DictRecord {
  uint32_t slot = 0;
  uint32_t index = 0;
  uint64_t id = 0;
  uint32_t generation = 1;  // Grows when the dict moves to another segment.
  std::string name;
  DictGeometry geometry;
  uint64_t max_entries = 0;  // The limit; geometry.entries_max is what this segment is made for.
  uint64_t max_bytes = 0;
  bool evict = false;  // Once the dict has max_entries; geometry.evict says whether that is now.
  int64_t create_time_ns = 0;
  // What earlier segments counted.
  uint64_t revision_base = 0;
  uint64_t evictions_base = 0;
  uint64_t expirations_base = 0;
};

class DictCatalogue final {
 public:
  // A new, empty one; or what an earlier daemon left behind `fd`. Errors: VERSION_MISMATCH,
  // MEMORY_EXHAUSTED.
  static StatusOr<std::unique_ptr<DictCatalogue>> Create();
  static StatusOr<std::unique_ptr<DictCatalogue>> Adopt(UniqueFd fd);
  ~DictCatalogue();
  DictCatalogue(const DictCatalogue&) = delete;
  DictCatalogue& operator=(const DictCatalogue&) = delete;

  int fd() const { return fd_.get(); }
  uint64_t NextId() { return head_->next_id.fetch_add(1, std::memory_order_relaxed); }
  uint32_t NextIndex() {
    return static_cast<uint32_t>(head_->next_index.fetch_add(1, std::memory_order_relaxed));
  }

  // Every record that stands, by index and generation. One that contradicts itself is skipped and
  // counted in *damaged.
  std::vector<DictRecord> Records(uint32_t* damaged) const;
  // Records a dict in a free slot and sets record->slot. LIMIT_EXCEEDED when none is free.
  Status Add(DictRecord* record);
  void Remove(uint32_t slot);

 private:
  struct Cell;
  struct Head {
    uint64_t magic;
    uint64_t version;
    std::atomic<uint64_t> next_id;
    std::atomic<uint64_t> next_index;
  };

  explicit DictCatalogue(UniqueFd fd) : fd_(std::move(fd)) {}
  Status MapAll();
  Cell& CellAt(uint32_t slot) const;

  UniqueFd fd_;
  std::byte* base_ = nullptr;
  Head* head_ = nullptr;
};

}  // namespace statehouse
