#include "engine/state/dict_catalogue.h"

#include <algorithm>
#include <cstring>

#include "engine/os/memory.h"
#include "engine/shm/owned_lock.h"

namespace statehouse {
namespace {

constexpr uint64_t kMagic = 0x3130544143444853;  // "SHDCAT01"
constexpr uint64_t kVersion = 1;
constexpr uint64_t kCellBytes = 512;
constexpr uint32_t kCells = 2 * kDictsMax;  // A dict that moves has two for a moment.
constexpr uint64_t kBytes = kPageBytes + kCells * kCellBytes;

}  // namespace

struct DictCatalogue::Cell {
  std::atomic<uint32_t> state;  // 0 free, 1 used.
  uint32_t index;
  uint64_t id;
  uint32_t generation;
  uint32_t lane_count;
  uint64_t entries_max;
  uint64_t data_bytes;
  uint64_t seed_a;
  uint64_t seed_b;
  uint64_t default_ttl_ms;
  uint64_t max_entries;
  uint64_t max_bytes;
  int64_t create_time_ns;
  uint64_t revision_base;
  uint64_t evictions_base;
  uint64_t expirations_base;
  uint32_t evict;
  uint32_t name_bytes;
  char name[kNameBytesMax + 1];

  bool Read(DictRecord* record) const {
    if (name_bytes == 0 || name_bytes > kNameBytesMax || entries_max == 0 ||
        entries_max > kDictEntriesMax || max_entries > kDictEntriesMax ||
        data_bytes < 2 * kSlabBytes || data_bytes > kDictBytesMax + kSlabBytes) {
      return false;
    }
    record->index = index;
    record->id = id;
    record->generation = generation;
    record->name.assign(name, name_bytes);
    record->geometry = DictGeometry::For(entries_max, data_bytes - kSlabBytes, lane_count);
    record->geometry.seed = {seed_a, seed_b};
    record->geometry.default_ttl_ms = default_ttl_ms;
    record->evict = evict != 0;
    record->geometry.evict = record->evict && entries_max == max_entries;
    record->max_entries = max_entries;
    record->max_bytes = max_bytes;
    record->create_time_ns = create_time_ns;
    record->revision_base = revision_base;
    record->evictions_base = evictions_base;
    record->expirations_base = expirations_base;
    return record->geometry.Validate().ok();
  }

  void Fill(const DictRecord& record) {
    index = record.index;
    id = record.id;
    generation = record.generation;
    lane_count = record.geometry.lane_count;
    entries_max = record.geometry.entries_max;
    data_bytes = record.geometry.data_bytes;
    seed_a = record.geometry.seed.a;
    seed_b = record.geometry.seed.b;
    default_ttl_ms = record.geometry.default_ttl_ms;
    max_entries = record.max_entries;
    max_bytes = record.max_bytes;
    create_time_ns = record.create_time_ns;
    revision_base = record.revision_base;
    evictions_base = record.evictions_base;
    expirations_base = record.expirations_base;
    evict = record.evict ? 1 : 0;
    name_bytes = static_cast<uint32_t>(record.name.size());
    std::memcpy(name, record.name.data(), record.name.size());
  }
};

DictCatalogue::~DictCatalogue() { Unmap(base_, kBytes); }

Status DictCatalogue::MapAll() {
  static_assert(sizeof(Cell) <= kCellBytes);
  SH_ASSIGN_OR_RETURN(base_, MapShared(fd_.get(), 0, kBytes, true));
  head_ = reinterpret_cast<Head*>(base_);
  return Status();
}

StatusOr<std::unique_ptr<DictCatalogue>> DictCatalogue::Create() {
  SH_ASSIGN_OR_RETURN(UniqueFd fd, CreateSealedMemory("statehouse-dicts", kBytes));
  std::unique_ptr<DictCatalogue> catalogue(new DictCatalogue(std::move(fd)));
  SH_RETURN_IF_ERROR(catalogue->MapAll());
  catalogue->head_->version = kVersion;
  catalogue->head_->next_id.store(1, std::memory_order_relaxed);
  CrashFence();
  catalogue->head_->magic = kMagic;
  return catalogue;
}

StatusOr<std::unique_ptr<DictCatalogue>> DictCatalogue::Adopt(UniqueFd fd) {
  SH_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes(fd.get()));
  std::unique_ptr<DictCatalogue> catalogue(new DictCatalogue(std::move(fd)));
  if (bytes == kBytes) SH_RETURN_IF_ERROR(catalogue->MapAll());
  if (bytes != kBytes || catalogue->head_->magic != kMagic ||
      catalogue->head_->version != kVersion) {
    return Status(Reason::kVersionMismatch,
                  "the kept catalogue of dicts has another format; stop the old release first");
  }
  return catalogue;
}

DictCatalogue::Cell& DictCatalogue::CellAt(uint32_t slot) const {
  return *reinterpret_cast<Cell*>(base_ + kPageBytes + slot * kCellBytes);
}

std::vector<DictRecord> DictCatalogue::Records(uint32_t* damaged) const {
  std::vector<DictRecord> records;
  for (uint32_t slot = 0; slot < kCells; ++slot) {
    const Cell& cell = CellAt(slot);
    if (cell.state.load(std::memory_order_acquire) == 0) continue;
    DictRecord record;
    record.slot = slot;
    if (cell.Read(&record)) {
      records.push_back(std::move(record));
    } else {
      ++*damaged;
    }
  }
  std::sort(records.begin(), records.end(), [](const DictRecord& a, const DictRecord& b) {
    return a.index != b.index ? a.index < b.index : a.generation < b.generation;
  });
  return records;
}

Status DictCatalogue::Add(DictRecord* record) {
  for (uint32_t slot = 0; slot < kCells; ++slot) {
    Cell& cell = CellAt(slot);
    if (cell.state.load(std::memory_order_relaxed) != 0) continue;
    cell.Fill(*record);
    CrashFence();
    cell.state.store(1, std::memory_order_release);
    record->slot = slot;
    return Status();
  }
  return Status(Reason::kLimitExceeded,
                "no dict can be added: the catalogue holds " + std::to_string(kDictsMax));
}

void DictCatalogue::Remove(uint32_t slot) {
  CellAt(slot).state.store(0, std::memory_order_release);
}

}  // namespace statehouse
