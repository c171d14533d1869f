#include "engine/state/catalogue.h"

#include <algorithm>
#include <cstring>

#include "engine/os/memory.h"
#include "engine/shm/owned_lock.h"

namespace statehouse {
namespace {

constexpr uint64_t kMagic = 0x3130544143544153;  // "SATCAT01"
constexpr uint32_t kVersion = 2;                 // 2: a liveness file for each lease.
constexpr uint64_t kLeasesOffset = kPageBytes;
constexpr uint64_t kRecordsOffset = 2 * kPageBytes;
constexpr uint64_t kRecordBytes = 8192;
constexpr uint64_t kBytes = kRecordsOffset + kAreasMax * kRecordBytes;
static_assert(kLaneBlocksMax * sizeof(uint32_t) <= kPageBytes);

bool ReadEntry(const CatalogueRecord& record, uint32_t slot, CatalogueEntry* entry) {
  if (record.name_bytes == 0 || record.name_bytes > kNameBytesMax ||
      record.path_bytes > kBackingPathBytesMax || record.size == 0 || record.size > kAreaBytesMax) {
    return false;
  }
  entry->slot = slot;
  entry->index = record.index;
  entry->id = record.id;
  entry->name.assign(record.name, record.name_bytes);
  entry->path.assign(record.path, record.path_bytes);
  entry->backing = record.backing;
  entry->create_time_ns = record.create_time_ns;
  if (record.backing == 1) {
    entry->geometry = AreaGeometry::For(record.size, record.atomic_range_bytes, record.lane_count);
  } else {
    entry->offset = record.data_offset;
    entry->geometry = AreaGeometry::ForSeparateData(record.size, record.data_offset,
                                                    record.atomic_range_bytes, record.lane_count);
  }
  return entry->geometry.Validate().ok();
}

}  // namespace

Catalogue::~Catalogue() { Unmap(base_, kBytes); }

Status Catalogue::MapAll() {
  SH_ASSIGN_OR_RETURN(base_, MapShared(fd_.get(), 0, kBytes, true));
  head_ = reinterpret_cast<CatalogueHead*>(base_);
  leases_ = reinterpret_cast<std::atomic<uint32_t>*>(base_ + kLeasesOffset);
  return Status();
}

StatusOr<std::unique_ptr<Catalogue>> Catalogue::Create() {
  SH_ASSIGN_OR_RETURN(UniqueFd fd, CreateSealedMemory("statehouse-catalogue", kBytes));
  std::unique_ptr<Catalogue> catalogue(new Catalogue(std::move(fd)));
  SH_RETURN_IF_ERROR(catalogue->MapAll());
  catalogue->head_->version = kVersion;
  catalogue->head_->next_id.store(1, std::memory_order_relaxed);
  CrashFence();
  catalogue->head_->magic = kMagic;
  return catalogue;
}

StatusOr<std::unique_ptr<Catalogue>> Catalogue::Adopt(UniqueFd fd) {
  SH_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes(fd.get()));
  if (bytes != kBytes) {
    return Status(Reason::kVersionMismatch,
                  "the kept catalogue has " + std::to_string(bytes) + " bytes, this release uses " +
                      std::to_string(kBytes) + "; stop the old release first");
  }
  std::unique_ptr<Catalogue> catalogue(new Catalogue(std::move(fd)));
  SH_RETURN_IF_ERROR(catalogue->MapAll());
  if (catalogue->head_->magic != kMagic || catalogue->head_->version != kVersion) {
    return Status(Reason::kVersionMismatch,
                  "the kept catalogue has another format; stop the old release first");
  }
  return catalogue;
}

CatalogueRecord& Catalogue::Record(uint32_t slot) const {
  return *reinterpret_cast<CatalogueRecord*>(base_ + kRecordsOffset + slot * kRecordBytes);
}

std::vector<CatalogueEntry> Catalogue::Entries(uint32_t* damaged) const {
  std::vector<CatalogueEntry> entries;
  for (uint32_t slot = 0; slot < kAreasMax; ++slot) {
    const CatalogueRecord& record = Record(slot);
    if (record.state.load(std::memory_order_acquire) == 0) continue;
    CatalogueEntry entry;
    if (ReadEntry(record, slot, &entry)) {
      entries.push_back(std::move(entry));
    } else {
      ++*damaged;
    }
  }
  std::sort(entries.begin(), entries.end(),
            [](const CatalogueEntry& a, const CatalogueEntry& b) { return a.index < b.index; });
  return entries;
}

Status Catalogue::Add(CatalogueEntry* entry) {
  for (uint32_t slot = 0; slot < kAreasMax; ++slot) {
    CatalogueRecord& record = Record(slot);
    if (record.state.load(std::memory_order_relaxed) != 0) continue;
    record.index = entry->index;
    record.id = entry->id;
    record.size = entry->geometry.size;
    record.data_offset = entry->geometry.data_offset;
    record.atomic_range_bytes = entry->geometry.atomic_range_bytes;
    record.lane_count = entry->geometry.lane_count;
    record.backing = entry->backing;
    record.create_time_ns = entry->create_time_ns;
    record.name_bytes = static_cast<uint32_t>(entry->name.size());
    record.path_bytes = static_cast<uint32_t>(entry->path.size());
    std::memcpy(record.name, entry->name.data(), entry->name.size());
    std::memcpy(record.path, entry->path.data(), entry->path.size());
    CrashFence();
    record.state.store(1, std::memory_order_release);
    entry->slot = slot;
    return Status();
  }
  return Status(Reason::kLimitExceeded,
                "no area can be added: the catalogue holds " + std::to_string(kAreasMax));
}

void Catalogue::Remove(uint32_t slot) { Record(slot).state.store(0, std::memory_order_release); }

bool Catalogue::IsLeased(uint32_t block) const {
  return leases_[block].load(std::memory_order_acquire) == 1;
}

bool Catalogue::WasEverLeased(uint32_t block) const {
  return leases_[block].load(std::memory_order_acquire) != 0;
}

void Catalogue::SetLeased(uint32_t block, bool leased) {
  leases_[block].store(leased ? 1 : 2, std::memory_order_release);
}

}  // namespace statehouse
