// Catalogue: the daemon's private record of areas and lane leases, in a memfd that no worker ever
// gets and that the keeper carries from one daemon to the next.
//
// Drawing (docs/formats/catalogue.md):
//   0        head (4 KiB): magic, version, generation, next id, next index, totals
//   4096     lease states: kLaneBlocksMax x 4 bytes (0 never leased, 1 leased, 2 freed), padded to
//   a page 8192     area records: kAreasMax x 8 KiB, sparse
//
// Crash rule: a record is filled first and its `state` is stored last, so that a daemon killed
// anywhere leaves a record that either stands or does not. Only the daemon writes here, one thread
// at a time (Engine's lock).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/state/area.h"

namespace statehouse {

inline constexpr size_t kBackingPathBytesMax = 4095;

struct CatalogueHead {
  uint64_t magic;
  uint32_t version;
  uint32_t reserved;
  std::atomic<uint64_t> generation;
  std::atomic<uint64_t> next_id;
  std::atomic<uint64_t> next_index;
  std::atomic<uint64_t> recoveries;
  std::atomic<uint64_t> repairs;
  std::atomic<uint64_t> redos;
  // Of the lock space. 0 locks: there is none.
  std::atomic<uint64_t> locks_max;
  uint64_t locks_seed_a;
  uint64_t locks_seed_b;
  std::atomic<uint64_t> lock_token_mark;  // No token up to here will be given again.
};

struct CatalogueRecord {
  std::atomic<uint32_t> state;  // 0 free, 1 used.
  uint32_t index;
  uint64_t id;
  uint64_t size;
  uint64_t data_offset;
  uint64_t atomic_range_bytes;
  int64_t create_time_ns;
  uint32_t lane_count;
  uint32_t backing;
  uint32_t name_bytes;
  uint32_t path_bytes;
  char name[kNameBytesMax + 1];
  char path[kBackingPathBytesMax + 1];
};
static_assert(sizeof(CatalogueRecord) <= 8192);

// One area as the catalogue knows it, checked.
struct CatalogueEntry {
  uint32_t slot = 0;
  uint32_t index = 0;
  uint64_t id = 0;
  std::string name;
  AreaGeometry geometry;
  uint32_t backing = 1;  // AreaBacking.
  std::string path;
  uint64_t offset = 0;
  int64_t create_time_ns = 0;
};

class Catalogue final {
 public:
  // A new, empty one; or what an earlier daemon left behind `fd`. Errors: VERSION_MISMATCH,
  // DATA_LOSS, MEMORY_EXHAUSTED.
  static StatusOr<std::unique_ptr<Catalogue>> Create();
  static StatusOr<std::unique_ptr<Catalogue>> Adopt(UniqueFd fd);
  ~Catalogue();
  Catalogue(const Catalogue&) = delete;
  Catalogue& operator=(const Catalogue&) = delete;

  int fd() const { return fd_.get(); }
  CatalogueHead& head() { return *head_; }
  const CatalogueHead& head() const { return *head_; }

  // Every area that stands, by index. A record that contradicts itself is skipped and counted in
  // *damaged.
  std::vector<CatalogueEntry> Entries(uint32_t* damaged) const;
  // Records an area in a free slot and sets entry->slot. LIMIT_EXCEEDED when none is free.
  Status Add(CatalogueEntry* entry);
  void Remove(uint32_t slot);

  bool IsLeased(uint32_t block) const;
  bool WasEverLeased(uint32_t block) const;
  void SetLeased(uint32_t block, bool leased);

 private:
  explicit Catalogue(UniqueFd fd) : fd_(std::move(fd)) {}
  Status MapAll();
  CatalogueRecord& Record(uint32_t slot) const;

  UniqueFd fd_;
  std::byte* base_ = nullptr;
  CatalogueHead* head_ = nullptr;
  std::atomic<uint32_t>* leases_ = nullptr;
};

}  // namespace statehouse
