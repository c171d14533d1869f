#include "engine/state/dict_store.h"

#include <sys/random.h>

#include <algorithm>
#include <ctime>

#include "engine/base/mutant.h"
#include "engine/os/errno_status.h"
#include "engine/os/memory.h"
#include "engine/state/object_name.h"

namespace statehouse {
namespace {

// What a new dict's first segment is made for; each move multiplies it.
constexpr uint64_t kFirstEntries = 8192;
constexpr uint64_t kGrowth = 8;
// How long a move waits for writers that are inside.
constexpr uint64_t kIdleTimeoutNs = 1'000'000'000;
constexpr uint64_t kSalvageEveryMs = 1000;
// Of each dict in one round of maintenance, at least; and a whole round takes so many rounds.
constexpr uint32_t kMaintainBucketsMin = 4096;
constexpr uint32_t kMaintainRounds = 16;
// How many slabs get their memory at once: as many as there are, within these; of a large dict an
// eighth.
constexpr uint64_t kBackedAtOnceMin = 4;
constexpr uint64_t kBackedAtOnceFew = 64;
constexpr uint64_t kBackedAtOnceMax = 256;
// How long the upkeep waits for a dict's allocator.
constexpr uint64_t kSpareTimeoutNs = 1'000'000;

int64_t UnixNs() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

Status RandomBytes(void* to, size_t bytes) {
  if (getrandom(to, bytes, 0) == static_cast<ssize_t>(bytes)) return Status();
  return ErrnoStatus("reading random bytes");
}

Status NoSuchDict(std::string_view name) {
  return Status(Reason::kDictNotFound, "dict \"" + std::string(name.substr(0, kNameBytesMax)) +
                                           "\" does not exist; create it, or list the dicts");
}

// The geometry of a segment for so many entries, or for as many as the dict may have. Only the
// largest one evicts: the others are followed by a larger one.
void SetGeometry(DictRecord* record, uint64_t entries) {
  const uint64_t default_ttl_ms = record->geometry.default_ttl_ms;
  record->geometry = DictGeometry::For(std::min(record->max_entries, entries), record->max_bytes);
  record->geometry.default_ttl_ms = default_ttl_ms;
  record->geometry.evict = record->evict && record->geometry.entries_max == record->max_entries;
}

uint64_t NextEntries(const DictRecord& record, DictStore::Move how) {
  if (how == DictStore::Move::kClear) return kFirstEntries;
  return record.geometry.entries_max * (how == DictStore::Move::kGrow ? kGrowth : 1);
}

}  // namespace

DictStats ServedDict::Stats() const {
  DictStats stats = dict_->Stats();
  stats.revision += record_.revision_base;
  stats.evictions += record_.evictions_base;
  stats.expirations += record_.expirations_base;
  return stats;
}

bool ServedDict::MayBeSalvaged() const { return dict_->NowMs() - since_ms_ >= kSalvageEveryMs; }

StatusOr<uint64_t> ServedDict::MemoryBytes() const { return AllocatedBytes(segment_.get()); }

std::string DictStore::VaultName(const DictRecord& record) {
  return "dict." + std::to_string(record.id) + "." + std::to_string(record.generation);
}

StatusOr<std::unique_ptr<DictStore>> DictStore::Start(const DictStoreOptions& options,
                                                      std::map<std::string, UniqueFd>* inherited,
                                                      DescriptorVault* vault,
                                                      std::vector<std::string>* warnings) {
  std::unique_ptr<DictStore> store(new DictStore(options, vault));
  if (const auto kept = inherited->find("dicts"); kept != inherited->end()) {
    SH_ASSIGN_OR_RETURN(store->catalogue_, DictCatalogue::Adopt(std::move(kept->second)));
    inherited->erase(kept);
    SH_RETURN_IF_ERROR(store->Restore(inherited, warnings));
  } else {
    SH_ASSIGN_OR_RETURN(store->catalogue_, DictCatalogue::Create());
    SH_RETURN_IF_ERROR(vault->Store("dicts", store->catalogue_->fd()));
  }
  return store;
}

Status DictStore::Restore(std::map<std::string, UniqueFd>* inherited,
                          std::vector<std::string>* warnings) {
  uint32_t damaged = 0;
  const std::vector<DictRecord> records = catalogue_->Records(&damaged);
  if (damaged > 0) {
    warnings->push_back(std::to_string(damaged) + " damaged records of dicts were skipped");
  }
  for (size_t i = 0; i < records.size(); ++i) {
    const DictRecord& record = records[i];
    const auto segment = inherited->find(VaultName(record));
    // The last daemon died after a move was complete: only the last segment counts, and workers
    // that wait in the other one go on to it.
    const bool moved_on = i + 1 < records.size() && records[i + 1].id == record.id;
    Status status;
    if (segment == inherited->end()) {
      status = Status(Reason::kDataLoss, "its segment was not kept");
    } else if (moved_on) {
      SH_RETURN_IF_ERROR(Dict::RetireSegment(segment->second.get(), DictState::kMoved));
      SH_RETURN_IF_ERROR(vault_->Remove(VaultName(record)));
    } else {
      status = RestoreOne(record, std::move(segment->second));
    }
    if (!status.ok()) {
      warnings->push_back("dropped dict \"" + record.name + "\": " + status.ToString());
      SH_RETURN_IF_ERROR(vault_->Remove(VaultName(record)));
    }
    if (!status.ok() || moved_on) catalogue_->Remove(record.slot);
    if (segment != inherited->end()) inherited->erase(segment);
  }
  return Status();
}

Status DictStore::RestoreOne(const DictRecord& record, UniqueFd segment) {
  // Workers can write the header, so it proves nothing: the catalogue's word is written over it.
  SH_RETURN_IF_ERROR(Dict::RestoreHeader(record.geometry, segment.get()));
  SH_ASSIGN_OR_RETURN(std::unique_ptr<Dict> dict,
                      Dict::Map(record.name, record.geometry, segment.get(), Access::kReadWrite));
  if (dict->state() == DictState::kDeleted) {
    return Status(Reason::kDictNotFound, "its deletion was cut short");
  }
  for (uint32_t lane = 1; lane < kLanesPerBlock; ++lane) (void)dict->RecoverLane(lane);
  // A move that was cut short did not happen. A segment that a writer marked otherwise is served
  // all the same: only this store says what becomes of a dict.
  dict->SetState(DictState::kLive);
  SH_RETURN_IF_ERROR(dict->PrepareLanes(0, kLanesPerBlock));
  const auto served = std::make_shared<ServedDict>(record, std::move(dict), std::move(segment));
  RestoreBacking(*served);
  // With any lane of the daemon: nobody else has begun to use one.
  GiveBackSpare(Lane{1, kSpareTimeoutNs}, *served);
  Serve(served);
  return Status();
}

void DictStore::Serve(std::shared_ptr<ServedDict> served) {
  by_index_[served->record().index] = served;
  by_name_[served->record().name] = std::move(served);
}

StatusOr<std::shared_ptr<ServedDict>> DictStore::MakeSegment(DictRecord record,
                                                             uint64_t first_version) {
  if (record.geometry.seed == HashSeed()) {
    SH_RETURN_IF_ERROR(RandomBytes(&record.geometry.seed, sizeof record.geometry.seed));
  }
  const DictGeometry& geometry = record.geometry;
  SH_ASSIGN_OR_RETURN(UniqueFd segment,
                      CreateSealedMemory("statehouse-dict", geometry.segment_bytes()));
  // What every operation touches is there from the start; slabs come as they are needed.
  SH_RETURN_IF_ERROR(AllocateRange(segment.get(), 0, kSlabTableOffset));
  SH_RETURN_IF_ERROR(AllocateRange(segment.get(), geometry.buckets_offset(),
                                   geometry.lanes_offset() - geometry.buckets_offset()));
  uint64_t uuid[2];
  SH_RETURN_IF_ERROR(RandomBytes(uuid, sizeof uuid));
  SH_RETURN_IF_ERROR(Dict::Format(geometry, uuid, segment.get(), first_version));
  SH_ASSIGN_OR_RETURN(std::unique_ptr<Dict> dict,
                      Dict::Map(record.name, geometry, segment.get(), Access::kReadWrite));
  SH_RETURN_IF_ERROR(dict->PrepareLanes(0, kLanesPerBlock));
  SH_RETURN_IF_ERROR(vault_->Store(VaultName(record), segment.get()));
  return std::make_shared<ServedDict>(std::move(record), std::move(dict), std::move(segment));
}

StatusOr<DictStore::Created> DictStore::Create(const DictSpec& spec) {
  SH_RETURN_IF_ERROR(CheckObjectName("a dict", spec.name));
  const uint64_t max_entries = spec.max_entries.value_or(kDictEntriesDefault);
  const uint64_t max_bytes =
      spec.max_bytes.value_or(std::min(kDictBytesDefault, options_.dict_bytes_max));
  const auto refuse_size = [&](const char* field, uint64_t is, uint64_t least, uint64_t most) {
    return Status(Reason::kSizeInvalid, "creating dict \"" + spec.name + "\": " + field + " " +
                                            std::to_string(is) + " is not between " +
                                            std::to_string(least) + " and " + std::to_string(most));
  };
  if (max_entries == 0 || max_entries > kDictEntriesMax) {
    return refuse_size("max_entries", max_entries, 1, kDictEntriesMax);
  }
  if (max_bytes < kSlabBytes || max_bytes > options_.dict_bytes_max) {
    return refuse_size("max_bytes", max_bytes, kSlabBytes, options_.dict_bytes_max);
  }
  const std::lock_guard<std::mutex> making(make_mutex_);
  if (const std::shared_ptr<ServedDict> found = FindLocked(spec.name); found != nullptr) {
    const DictRecord& is = found->record();
    const bool same =
        spec.max_entries.value_or(is.max_entries) == is.max_entries &&
        spec.max_bytes.value_or(is.max_bytes) == is.max_bytes &&
        spec.default_ttl_ms.value_or(is.geometry.default_ttl_ms) == is.geometry.default_ttl_ms &&
        spec.evict.value_or(is.evict) == is.evict;
    if (same && !spec.exclusive) return Created{found, false};
    return Status(Reason::kDictExists,
                  "creating dict \"" + spec.name + "\": it exists with max_entries " +
                      std::to_string(is.max_entries) + " and max_bytes " +
                      std::to_string(is.max_bytes) +
                      (same ? "" : ", or with another default_ttl or full_policy"));
  }
  if (All().size() >= options_.dicts_max) {
    return Status(Reason::kLimitExceeded, "creating dict \"" + spec.name +
                                              "\": " + std::to_string(options_.dicts_max) +
                                              " dicts exist, which is the limit (dicts.count_max)");
  }
  DictRecord record;
  record.id = catalogue_->NextId();
  record.index = catalogue_->NextIndex();
  record.name = spec.name;
  record.max_entries = max_entries;
  record.max_bytes = max_bytes;
  record.evict = spec.evict.value_or(false);
  record.geometry.default_ttl_ms = spec.default_ttl_ms.value_or(0);
  SetGeometry(&record, kFirstEntries);
  record.create_time_ns = UnixNs();
  MemoryBudget::Reservation reserved;
  if (options_.memory != nullptr) {
    SH_ASSIGN_OR_RETURN(reserved, options_.memory->Reserve(record.geometry.first_bytes(),
                                                           "creating dict \"" + spec.name + "\""));
  }
  SH_ASSIGN_OR_RETURN(std::shared_ptr<ServedDict> served, MakeSegment(std::move(record), 1));
  if (IsLimited()) BackWhatIsUsed(*served);
  SH_RETURN_IF_ERROR(Publish(served, nullptr));
  return Created{std::move(served), true};
}

// Makes a segment the one that is served, first for the next daemon, then for everybody.
Status DictStore::Publish(const std::shared_ptr<ServedDict>& served, ServedDict* before) {
  SH_RETURN_IF_ERROR(catalogue_->Add(&served->record_));
  {
    // Whoever finds the new segment finds the one before closed: else a reader there would miss
    // what a writer does here. The record of the one before goes after that, so that a daemon that
    // takes over closes it.
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    if (before != nullptr) before->dict().SetState(DictState::kMoved);
    Serve(served);
  }
  if (before != nullptr) catalogue_->Remove(before->record().slot);
  return Status();
}

std::shared_ptr<ServedDict> DictStore::FindLocked(std::string_view name) const {
  const std::shared_lock<std::shared_mutex> lock(mutex_);
  if (name.starts_with('#')) {
    const auto index = ParseObjectIndex(name);
    const auto at = index.has_value() ? by_index_.find(*index) : by_index_.end();
    return at == by_index_.end() ? nullptr : at->second;
  }
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : at->second;
}

StatusOr<std::shared_ptr<ServedDict>> DictStore::Find(std::string_view name) const {
  std::shared_ptr<ServedDict> served = FindLocked(name);
  if (served == nullptr) return NoSuchDict(name);
  return served;
}

std::vector<std::shared_ptr<ServedDict>> DictStore::List(std::string_view prefix,
                                                         uint32_t from_index, size_t limit) const {
  std::vector<std::shared_ptr<ServedDict>> page;
  const std::shared_lock<std::shared_mutex> lock(mutex_);
  for (auto it = by_index_.lower_bound(from_index); it != by_index_.end() && page.size() < limit;
       ++it) {
    if (it->second->record().name.starts_with(prefix)) page.push_back(it->second);
  }
  return page;
}

std::vector<std::shared_ptr<ServedDict>> DictStore::All() const { return List("", 0, SIZE_MAX); }

Status DictStore::Delete(std::string_view name) {
  const std::lock_guard<std::mutex> making(make_mutex_);
  const std::shared_ptr<ServedDict> served = FindLocked(name);
  if (served == nullptr) return NoSuchDict(name);
  const DictRecord& record = served->record();
  // The segment first, as for areas: a daemon that is killed here leaves a dict that says it is
  // deleted, and the next one finishes that.
  served->dict().SetState(DictState::kDeleted);
  catalogue_->Remove(record.slot);
  {
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    by_index_.erase(record.index);
    by_name_.erase(record.name);
    const DictStats stats = served->Stats();
    gone_.changes += stats.revision;
    gone_.contended += stats.counters.contended;
    gone_.evictions += stats.evictions;
    gone_.expirations += stats.expirations;
    for (auto& [block, ids] : attachments_) ids.erase(record.id);
  }
  return vault_->Remove(VaultName(record));
}

Status DictStore::MoveDict(const Lane& lane, const std::shared_ptr<ServedDict>& served, Move how) {
  const std::lock_guard<std::mutex> making(make_mutex_);
  if (FindLocked(served->record().name) != served) return Status();  // Somebody else was first.
  if (how == Move::kGrow && !CanGrow(*served)) return Status();
  uint64_t entries = 0;
  return MoveLocked(lane, served, how, &entries);
}

Status DictStore::ClearDict(const Lane& lane, const std::shared_ptr<ServedDict>& served,
                            uint64_t* entries, bool* cleared) {
  const std::lock_guard<std::mutex> making(make_mutex_);
  *cleared = FindLocked(served->record().name) == served;
  return *cleared ? MoveLocked(lane, served, Move::kClear, entries) : Status();
}

Status DictStore::MoveLocked(const Lane& lane, const std::shared_ptr<ServedDict>& served, Move how,
                             uint64_t* entries) {
  // Until the new segment is the one that is measured.
  const auto reserved = ReserveForMove(*served, how);
  if (!reserved.ok()) {
    const std::lock_guard<std::mutex> backing(served->backing_mutex_);
    return MakesDo(*served) ? Status() : reserved.status();
  }
  Dict& from = served->dict();
  from.SetState(DictState::kMoving);
  const auto target = CopyToNewSegment(lane, *served, how);
  *entries = served->Stats().entries;
  const Status moved = target.ok() ? Publish(*target, served.get()) : target.status();
  if (!moved.ok()) {
    from.SetState(DictState::kLive);
    if (target.ok()) SH_RETURN_IF_ERROR(vault_->Remove(VaultName((*target)->record())));
    return moved;
  }
  {
    const std::unique_lock<std::shared_mutex> lock(mutex_);
    gone_.contended += from.Stats().counters.contended;
  }
  moves_.fetch_add(1, std::memory_order_relaxed);
  return vault_->Remove(VaultName(served->record()));
}

StatusOr<std::shared_ptr<ServedDict>> DictStore::CopyToNewSegment(const Lane& lane,
                                                                  ServedDict& served, Move how) {
  Dict& from = served.dict();
  SH_RETURN_IF_ERROR(from.WaitUntilIdle(kIdleTimeoutNs));
  const DictStats stats = served.Stats();
  DictRecord record = served.record();
  ++record.generation;
  record.revision_base = stats.revision;
  record.evictions_base = stats.evictions;
  record.expirations_base = stats.expirations;
  const uint64_t entries = NextEntries(record, how);
  const HashSeed seed = record.geometry.seed;
  SetGeometry(&record, entries);
  // The same seed in a larger table keeps the order of entries, so that a scan goes on where it
  // was.
  if (how == Move::kGrow) record.geometry.seed = seed;
  SH_ASSIGN_OR_RETURN(std::shared_ptr<ServedDict> target,
                      MakeSegment(std::move(record), from.HighestVersion() + 1));
  const Lane patient{lane.id, kIdleTimeoutNs};
  const StatusOr<uint64_t> dropped = how == Move::kClear
                                         ? from.CopyOperations(patient, target->dict())
                                         : from.CopyInto(patient, target->dict());
  if (!dropped.ok()) {
    SH_RETURN_IF_ERROR(vault_->Remove(VaultName(target->record())));
    return dropped.status();
  }
  repairs_.fetch_add(*dropped, std::memory_order_relaxed);
  if (IsLimited()) BackWhatIsUsed(*target);
  return target;
}

// What the segment after a move can take at most. The blocks of a class need no more slabs than
// they have, and one more of each class for the copying lane.
StatusOr<MemoryBudget::Reservation> DictStore::ReserveForMove(ServedDict& served, Move how) {
  if (options_.memory == nullptr) return MemoryBudget::Reservation();
  const DictRecord& record = served.record();
  DictRecord next = record;
  SetGeometry(&next, NextEntries(record, how));
  const uint64_t first = next.geometry.first_bytes();
  if (how == Move::kClear) {
    // Without entries it ends with less than it began with: the way out of a full service.
    return options_.memory->Count(first);
  }
  const Dict& dict = served.dict();
  // A worker of an older release does not ask before it uses another slab.
  const uint64_t backed = IsLimited() ? dict.UsableSlabs() : 1;
  const uint64_t slabs = std::max(backed, dict.SlabsInUse()) - 1;
  const uint64_t most = std::min<uint64_t>(slabs + std::min<uint64_t>(slabs, kSizeClasses),
                                           record.geometry.slab_count() - 1);
  return options_.memory->Reserve(
      first + most * kSlabBytes,
      (how == Move::kGrow ? "growing dict \"" : "mending dict \"") + record.name + "\"");
}

// The last daemon may have had no limit where this one has, and the other way round; it may have
// been killed between an allocation and the word.
void DictStore::RestoreBacking(ServedDict& served) const {
  if (!IsLimited()) {
    served.dict().SetSlabsBacked(0);
    return;
  }
  // Workers can write the word, so it proves nothing: where it says more than the kernel, they did.
  const DictGeometry& geometry = served.record().geometry;
  const uint64_t word = served.dict().slabs_backed() & ~kBackingRefused;
  const uint64_t fixed = kSlabTableOffset + geometry.lanes_offset() - geometry.buckets_offset();
  const StatusOr<uint64_t> memory = served.MemoryBytes();
  const uint64_t bytes = memory.ok() ? std::max(*memory, fixed) - fixed : 0;
  const uint64_t held = std::min<uint64_t>(1 + bytes / kSlabBytes, geometry.slab_count());
  const bool trusted = MutantIs(Mutant::kDictWordTrusted) && word <= geometry.slab_count();
  BackWhatIsUsed(served, trusted ? word : std::min(word, held));
  served.may_hold_spare_ = true;
}

// From here on the dict uses only slabs that have their memory: those that it has begun to use, and
// `slabs_min`.
// REQUIRES: it is not served yet.
void DictStore::BackWhatIsUsed(ServedDict& served, uint64_t slabs_min) const {
  const uint64_t slabs = std::max(served.dict().SlabsInUse(), slabs_min);
  // Where there is no memory it is as it was: a touch may fail.
  (void)AllocateRange(served.segment_.get(), served.record().geometry.data_offset() + kSlabBytes,
                      (slabs - 1) * kSlabBytes);
  served.backed_ = slabs;
  served.dict().SetSlabsBacked(slabs);
}

Status DictStore::BackMore(ServedDict& served) {
  const std::lock_guard<std::mutex> backing(served.backing_mutex_);
  const DictGeometry& geometry = served.record().geometry;
  const uint64_t slabs = served.backed_ & ~kBackingRefused;
  if (slabs == 0 || slabs >= geometry.slab_count()) {
    // All may be used already: who asks was misled by a word that a worker wrote over.
    served.dict().SetSlabsBacked(served.backed_);
    return Status();
  }
  const uint64_t few = std::clamp(slabs, kBackedAtOnceMin, kBackedAtOnceFew);
  const uint64_t wanted =
      std::min({std::max(few, slabs / 8), kBackedAtOnceMax, geometry.slab_count() - slabs});
  const auto reserved = options_.memory->ReserveUpTo(wanted * kSlabBytes, kSlabBytes,
                                                     "dict \"" + served.record().name + "\"");
  Status status = reserved.status();
  if (MutantIs(Mutant::kDictBackedBeforeMemory) && status.ok())
    served.dict().SetSlabsBacked(slabs + reserved->bytes() / kSlabBytes);
  if (status.ok()) {
    status = AllocateRange(served.segment_.get(), geometry.data_offset() + slabs * kSlabBytes,
                           reserved->bytes());
    served.may_hold_spare_ |= !status.ok();
  }
  if (!status.ok()) return MakesDo(served) ? Status() : status;
  served.backed_ = slabs + reserved->bytes() / kSlabBytes;
  served.dict().SetSlabsBacked(served.backed_);
  return Status();
}

// There is no memory for it: whether it was told just now to make room within what it has.
// REQUIRES: its backing_mutex_ is held.
bool DictStore::MakesDo(ServedDict& served) const {
  if (!served.record().evict || (served.backed_ & kBackingRefused) != 0) return false;
  served.backed_ |= kBackingRefused;
  served.dict().SetSlabsBacked(served.backed_);
  return true;
}

// From now on memory may be free again; and what a worker wrote over the word does not stay.
void DictStore::TendBacking(const Lane& lane, ServedDict& served) const {
  const std::lock_guard<std::mutex> backing(served.backing_mutex_);
  served.backed_ &= ~kBackingRefused;
  if (served.dict().slabs_backed() != served.backed_ && !MutantIs(Mutant::kDictWordKept)) {
    served.dict().SetSlabsBacked(served.backed_);
  }
  GiveBackSpare(lane, served);
}

// What slabs hold that may not be used would be counted once more when they get their memory. Where
// somebody holds the allocator, the next upkeep does it.
// REQUIRES: its backing_mutex_ is held, or it is not served yet.
void DictStore::GiveBackSpare(const Lane& lane, ServedDict& served) const {
  if (!served.may_hold_spare_ || MutantIs(Mutant::kDictSpareKept)) return;
  const DictGeometry& geometry = served.record().geometry;
  Status released;
  const auto release = [&](uint64_t first) {
    released = ReleaseRange(served.segment_.get(), geometry.data_offset() + first * kSlabBytes,
                            geometry.data_bytes - first * kSlabBytes);
  };
  const Lane impatient{lane.id, kSpareTimeoutNs};
  const Status looked = served.dict().WithUnusedSlabs(impatient, served.backed_, release);
  served.may_hold_spare_ = !looked.ok() || !released.ok();
}

uint64_t DictStore::MemoryBytes() const {
  uint64_t bytes = 0;
  for (const std::shared_ptr<ServedDict>& served : All()) {
    const StatusOr<uint64_t> held = served->MemoryBytes();
    if (held.ok()) bytes += *held;
  }
  return bytes;
}

StatusOr<UniqueFd> DictStore::OpenForWorker(const ServedDict& served, uint32_t block,
                                            Access access) {
  SH_ASSIGN_OR_RETURN(UniqueFd segment,
                      ReopenDescription(served.segment_.get(), access == Access::kReadWrite));
  const std::unique_lock<std::shared_mutex> lock(mutex_);
  if (block != 0) attachments_[block].insert(served.record().id);
  return segment;
}

uint32_t DictStore::AttachedProcesses(uint64_t id) const {
  const std::shared_lock<std::shared_mutex> lock(mutex_);
  return static_cast<uint32_t>(
      std::count_if(attachments_.begin(), attachments_.end(),
                    [id](const auto& attached) { return attached.second.count(id) > 0; }));
}

uint32_t DictStore::RecoverLanes(uint32_t first_lane, uint32_t lane_count) {
  uint32_t redos = 0;
  {
    const std::lock_guard<std::mutex> recovering(recovery_mutex_);
    for (const std::shared_ptr<ServedDict>& served : All()) {
      // Lanes that never changed the dict have nothing to recover.
      const uint32_t end = std::min(first_lane + lane_count, served->dict().lane_high());
      for (uint32_t lane = first_lane; lane < end; ++lane) {
        redos += served->dict().RecoverLane(lane).redo_applied ? 1 : 0;
      }
    }
  }
  const std::unique_lock<std::shared_mutex> lock(mutex_);
  attachments_.erase(first_lane / kLanesPerBlock);
  return redos;
}

uint32_t DictStore::Maintain(const Lane& lane,
                             const std::function<bool(uint32_t lane)>& is_leased) {
  uint32_t mended = 0;
  for (const std::shared_ptr<ServedDict>& served : All()) {
    const uint32_t buckets =
        std::max(kMaintainBucketsMin, served->record().geometry.bucket_count / kMaintainRounds);
    {
      const std::lock_guard<std::mutex> recovering(recovery_mutex_);
      mended += served->dict().Scrub(&served->scrub_at_, buckets, is_leased);
    }
    TendBacking(lane, *served);
    // A bucket that is held or damaged is left to the operations that need it.
    (void)served->dict().Expire(lane, &served->expire_at_, buckets);
  }
  repairs_.fetch_add(mended, std::memory_order_relaxed);
  return mended;
}

DictTotals DictStore::Totals() const {
  DictTotals totals;
  {
    const std::shared_lock<std::shared_mutex> lock(mutex_);
    totals = gone_;
  }
  for (const std::shared_ptr<ServedDict>& served : All()) {
    const DictStats stats = served->Stats();
    ++totals.dicts;
    totals.entries += stats.entries;
    totals.entry_bytes += stats.entry_bytes;
    totals.bound_entries += stats.bound_entries;
    totals.changes += stats.revision;
    totals.contended += stats.counters.contended;
    totals.evictions += stats.evictions;
    totals.expirations += stats.expirations;
  }
  totals.moves = moves_.load(std::memory_order_relaxed);
  totals.repairs = repairs_.load(std::memory_order_relaxed);
  return totals;
}

}  // namespace statehouse
