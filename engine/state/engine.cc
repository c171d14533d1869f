#include "engine/state/engine.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <ctime>

#include "engine/os/errno_status.h"
#include "engine/os/memory.h"
#include "engine/state/engine_state.h"
#include "engine/state/object_name.h"

namespace statehouse {
namespace {

constexpr uint32_t kDaemonLanes = kLanesPerBlock - 1;  // Lane 0 means free.

Status NoSuchArea(std::string_view name) {
  return Status(Reason::kAreaNotFound,
                "no area is named \"" + std::string(name.substr(0, kNameBytesMax)) + "\"");
}

int64_t UnixNs() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

Status RandomBytes(void* to, size_t bytes) {
  if (getrandom(to, bytes, 0) == static_cast<ssize_t>(bytes)) return Status();
  return ErrnoStatus("reading random bytes");
}

// Memory that a new area holds: its data, the control pages that every mutation touches, and the
// daemon's lanes.
uint64_t FirstBytes(const AreaGeometry& geometry, AreaBacking backing) {
  const uint64_t control = kStripeLinesOffset + geometry.stripe_count * sizeof(StripeLine);
  const uint64_t data = backing == AreaBacking::kMemory ? geometry.size : 0;
  const uint64_t lanes = kLanesPerBlock * sizeof(LaneRecord);
  uint64_t bytes = 0;
  for (const uint64_t part : {control, lanes, data}) {
    bytes += (part + kPageBytes - 1) / kPageBytes * kPageBytes;
  }
  return bytes;
}

}  // namespace

uint64_t Engine::State::AreaBytes() const {
  const std::shared_lock<std::shared_mutex> lock(mutex);
  uint64_t bytes = 0;
  for (const auto& [index, served] : by_index) {
    const StatusOr<uint64_t> held = AllocatedBytes(served->control_.get());
    if (held.ok()) bytes += *held;
  }
  return bytes;
}

void Engine::State::AddServed(std::shared_ptr<ServedArea> served, uint32_t slot) {
  slots[served->info().id] = slot;
  by_index[served->info().index] = served;
  by_name[served->info().name] = std::move(served);
}

StatusOr<std::shared_ptr<ServedArea>> Engine::State::MapEntry(const CatalogueEntry& entry,
                                                              UniqueFd control, UniqueFd data) {
  SH_ASSIGN_OR_RETURN(
      std::unique_ptr<Area> area,
      Area::Map(entry.name, entry.geometry, control.get(), data.get(), Access::kReadWrite));
  area->PrefaultLanes(0, kLanesPerBlock);
  if (entry.geometry.data_is_separate && !area->GuardAgainstTruncation()) {
    return Status(Reason::kLimitExceeded,
                  "area \"" + entry.name + "\": too many file-backed areas to guard");
  }
  AreaInfo info;
  info.id = entry.id;
  info.index = entry.index;
  info.name = entry.name;
  info.geometry = entry.geometry;
  info.backing = static_cast<AreaBacking>(entry.backing);
  info.file = entry.path;
  info.offset = entry.offset;
  info.create_time_ns = entry.create_time_ns;
  return std::make_shared<ServedArea>(std::move(info), std::move(area), std::move(control),
                                      std::move(data));
}

Status Engine::State::Restore(std::map<std::string, UniqueFd>& inherited) {
  uint32_t damaged = 0;
  for (const CatalogueEntry& entry : catalogue->Entries(&damaged)) {
    const auto control = inherited.find("area." + std::to_string(entry.id));
    const auto data = inherited.find("data." + std::to_string(entry.id));
    const bool complete =
        control != inherited.end() && (!entry.geometry.data_is_separate || data != inherited.end());
    if (!complete) {
      catalogue->Remove(entry.slot);  // Created or deleted only halfway when the last daemon died.
      continue;
    }
    UniqueFd data_fd = data != inherited.end() ? std::move(data->second) : UniqueFd();
    // Workers can write the header, so it proves nothing: the catalogue's word is written over it.
    SH_RETURN_IF_ERROR(Area::RestoreHeader(entry.geometry, control->second.get()));
    UniqueFd control_copy(dup(control->second.get()));
    auto mapped = MapEntry(entry, std::move(control->second), std::move(data_fd));
    const bool deleted = mapped.ok() && (*mapped)->area().state() == AreaState::kDeleted;
    if (!mapped.ok() || deleted) {
      // One area that cannot be served (its file was truncated) or whose deletion was cut short
      // takes no other with it.
      if (!mapped.ok()) {
        start_warnings.push_back("dropped " + mapped.status().ToString());
        SH_RETURN_IF_ERROR(Area::RetireSegment(control_copy.get(), AreaState::kQuarantined));
      }
      catalogue->Remove(entry.slot);
      SH_RETURN_IF_ERROR(vault->Remove("area." + std::to_string(entry.id)));
      if (entry.geometry.data_is_separate) {
        SH_RETURN_IF_ERROR(vault->Remove("data." + std::to_string(entry.id)));
      }
      continue;
    }
    std::shared_ptr<ServedArea> served = *std::move(mapped);
    RecoverLanes(served->area(), 0, kLanesPerBlock);  // The last daemon's own.
    AddServed(served, entry.slot);
  }
  if (damaged > 0) {
    return Status(Reason::kDataLoss,
                  std::to_string(damaged) + " records of the kept catalogue are damaged");
  }
  SH_RETURN_IF_ERROR(RestoreLeases(inherited));
  for (auto& [name, fd] : inherited) {
    // What no record claims was being created or deleted.
    const bool ours = name.starts_with("area.") || name.starts_with("data.") ||
                      name.starts_with("dict.") || name.starts_with("alive.") ||
                      name.starts_with("worker.");
    if (fd.valid() && ours) SH_RETURN_IF_ERROR(vault->Remove(name));
  }
  return Status();
}

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}

Engine::~Engine() = default;

StatusOr<std::unique_ptr<Engine>> Engine::Start(const EngineOptions& options,
                                                std::map<std::string, UniqueFd> inherited,
                                                DescriptorVault* vault) {
  auto state = std::make_unique<State>();
  state->options = options;
  state->vault = vault;
  if (auto found = inherited.find("catalogue"); found != inherited.end()) {
    SH_ASSIGN_OR_RETURN(state->catalogue, Catalogue::Adopt(std::move(found->second)));
    inherited.erase(found);
  } else {
    SH_ASSIGN_OR_RETURN(state->catalogue, Catalogue::Create());
    SH_RETURN_IF_ERROR(vault->Store("catalogue", state->catalogue->fd()));
  }
  state->registry = std::make_unique<LaneRegistry>(state->catalogue.get());
  state->catalogue->head().generation.fetch_add(1, std::memory_order_relaxed);
  state->memory = std::make_unique<MemoryBudget>(options.memory_bytes_max, [state = state.get()] {
    return state->AreaBytes() + state->dicts->MemoryBytes();
  });
  SH_ASSIGN_OR_RETURN(state->dicts, DictStore::Start({options.dicts_max, options.dict_bytes_max,
                                                      state->memory.get()},
                                                     &inherited, vault, &state->start_warnings));
  SH_ASSIGN_OR_RETURN(state->locks,
                      LockStore::Start(options.locks_max, &inherited, &state->catalogue->head(),
                                       vault, &state->start_warnings));
  state->locks->Recover(state->LaneOf(kRecoveryThread));
  SH_RETURN_IF_ERROR(state->Restore(inherited));
  return std::unique_ptr<Engine>(new Engine(std::move(state)));
}

const EngineOptions& Engine::options() const { return state_->options; }

DictStore& Engine::dicts() { return *state_->dicts; }

const DictStore& Engine::dicts() const { return *state_->dicts; }

LockSpace& Engine::locks() { return state_->locks->space(); }

const LockSpace& Engine::locks() const { return state_->locks->space(); }

StatusOr<UniqueFd> Engine::OpenLocksForWorker() const { return state_->locks->OpenForWorker(); }

Lane Engine::State::LaneOf(uint32_t thread_index) const {
  return Lane{1 + thread_index % kDaemonLanes, options.operation_timeout_ns};
}

Lane Engine::DaemonLane(uint32_t thread_index) const { return state_->LaneOf(thread_index); }

std::shared_ptr<ServedArea> Engine::State::Find(std::string_view name) const {
  if (!name.empty() && name[0] == '#') {
    const std::optional<uint32_t> index = ParseObjectIndex(name);
    const auto found = index.has_value() ? by_index.find(*index) : by_index.end();
    return found != by_index.end() ? found->second : nullptr;
  }
  const auto found = by_name.find(name);
  return found != by_name.end() ? found->second : nullptr;
}

StatusOr<std::shared_ptr<ServedArea>> Engine::FindArea(std::string_view name) const {
  const std::shared_lock<std::shared_mutex> lock(state_->mutex);
  std::shared_ptr<ServedArea> served = state_->Find(name);
  if (served == nullptr) return NoSuchArea(name);
  return served;
}

StatusOr<UniqueFd> Engine::State::OpenBacking(AreaSpec& spec) const {
  if (spec.offset % kPageBytes != 0) {
    return Status(Reason::kBackingInvalid, "area \"" + spec.name + "\": offset " +
                                               std::to_string(spec.offset) + " is no multiple of " +
                                               std::to_string(kPageBytes));
  }
  UniqueFd fd;
  if (spec.backing == AreaBacking::kFile) {
    if (spec.file.size() > kBackingPathBytesMax) {
      return Status(Reason::kBackingInvalid, "area \"" + spec.name +
                                                 "\": the file's path is longer than " +
                                                 std::to_string(kBackingPathBytesMax) + " bytes");
    }
    fd.Reset(open(spec.file.c_str(), O_RDWR | O_CLOEXEC));
    if (!fd.valid()) {
      return ErrnoStatus("area \"" + spec.name + "\": opening file \"" + spec.file + "\"",
                         Reason::kBackingInvalid);
    }
  } else {
    fd = std::move(spec.descriptor);
  }
  SH_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes(fd.get()));
  if (spec.offset > bytes || bytes - spec.offset < spec.size) {
    return Status(Reason::kBackingInvalid, "area \"" + spec.name + "\": its file holds " +
                                               std::to_string(bytes) + " bytes, offset " +
                                               std::to_string(spec.offset) + " and size " +
                                               std::to_string(spec.size) + " do not fit");
  }
  return fd;
}

Status Engine::State::CheckCount(const AreaSpec& spec) const {
  if (by_index.size() >= options.areas_max) {
    return Status(Reason::kLimitExceeded, "creating area \"" + spec.name +
                                              "\": " + std::to_string(by_index.size()) +
                                              " areas exist, the limit (areas.count_max) is " +
                                              std::to_string(options.areas_max));
  }
  return Status();
}

StatusOr<std::shared_ptr<ServedArea>> Engine::State::Make(AreaSpec spec,
                                                          const AreaGeometry& geometry) {
  UniqueFd data;
  if (geometry.data_is_separate) {
    SH_ASSIGN_OR_RETURN(data, OpenBacking(spec));
  }
  const uint64_t rounded = (geometry.size + kPageBytes - 1) / kPageBytes * kPageBytes;
  const uint64_t bytes =
      geometry.data_is_separate ? geometry.control_bytes : geometry.data_offset + rounded;
  SH_ASSIGN_OR_RETURN(UniqueFd control, CreateSealedMemory("statehouse-area", bytes));
  SH_RETURN_IF_ERROR(AllocateRange(
      control.get(), 0, kStripeLinesOffset + geometry.stripe_count * sizeof(StripeLine)));
  if (!geometry.data_is_separate) {
    SH_RETURN_IF_ERROR(AllocateRange(control.get(), geometry.data_offset, rounded));
  }
  uint64_t uuid[2];
  SH_RETURN_IF_ERROR(RandomBytes(uuid, sizeof uuid));
  SH_RETURN_IF_ERROR(Area::Format(geometry, uuid, control.get()));

  CatalogueEntry entry;
  entry.id = catalogue->head().next_id.fetch_add(1, std::memory_order_relaxed);
  entry.index = static_cast<uint32_t>(catalogue->head().next_index.load(std::memory_order_relaxed));
  entry.name = spec.name;
  entry.geometry = geometry;
  entry.backing = static_cast<uint32_t>(spec.backing);
  entry.path = spec.file;
  entry.offset = spec.offset;
  entry.create_time_ns = UnixNs();
  SH_RETURN_IF_ERROR(vault->Store("area." + std::to_string(entry.id), control.get()));
  if (data.valid())
    SH_RETURN_IF_ERROR(vault->Store("data." + std::to_string(entry.id), data.get()));
  // From here a failure leaves descriptors in the vault that no record claims; the next start drops
  // them.
  SH_ASSIGN_OR_RETURN(std::shared_ptr<ServedArea> served,
                      MapEntry(entry, std::move(control), std::move(data)));
  const std::unique_lock<std::shared_mutex> lock(mutex);
  SH_RETURN_IF_ERROR(catalogue->Add(&entry));
  catalogue->head().next_index.fetch_add(1, std::memory_order_relaxed);
  AddServed(served, entry.slot);
  return served;
}

StatusOr<Engine::Created> Engine::CreateArea(AreaSpec spec) {
  SH_RETURN_IF_ERROR(CheckObjectName("an area", spec.name));
  if (spec.size == 0 || spec.size > state_->options.area_bytes_max) {
    return Status(Reason::kSizeInvalid, "creating area \"" + spec.name + "\": size " +
                                            std::to_string(spec.size) + " is not between 1 and " +
                                            std::to_string(state_->options.area_bytes_max) +
                                            " bytes");
  }
  const uint64_t atomic = state_->options.atomic_range_bytes;
  const AreaGeometry geometry = spec.backing == AreaBacking::kMemory
                                    ? AreaGeometry::For(spec.size, atomic)
                                    : AreaGeometry::ForSeparateData(spec.size, spec.offset, atomic);
  const std::lock_guard<std::mutex> creating(state_->create_mutex);
  {
    const std::shared_lock<std::shared_mutex> lock(state_->mutex);
    if (std::shared_ptr<ServedArea> found = state_->Find(spec.name); found != nullptr) {
      const AreaInfo& info = found->info();
      const bool same = info.geometry.size == spec.size && info.backing == spec.backing &&
                        info.file == spec.file && info.offset == spec.offset;
      if (same && !spec.exclusive) return Created{std::move(found), false};
      return Status(Reason::kAreaExists, "creating area \"" + spec.name + "\" of " +
                                             std::to_string(spec.size) + " bytes: it exists with " +
                                             std::to_string(info.geometry.size) + " bytes" +
                                             (same ? "" : " or another backing"));
    }
    SH_RETURN_IF_ERROR(state_->CheckCount(spec));
  }
  SH_ASSIGN_OR_RETURN(const MemoryBudget::Reservation reserved,
                      state_->memory->Reserve(FirstBytes(geometry, spec.backing),
                                              "creating area \"" + spec.name + "\""));
  SH_ASSIGN_OR_RETURN(std::shared_ptr<ServedArea> served, state_->Make(std::move(spec), geometry));
  return Created{std::move(served), true};
}

StatusOr<AreaInfo> Engine::DescribeArea(std::string_view name) const {
  const std::shared_lock<std::shared_mutex> lock(state_->mutex);
  const std::shared_ptr<ServedArea> served = state_->Find(name);
  if (served == nullptr) return NoSuchArea(name);
  AreaInfo info = served->info();
  SH_ASSIGN_OR_RETURN(info.memory_bytes, AllocatedBytes(served->control_.get()));
  for (const auto& [block, ids] : state_->attachments)
    info.attached_processes += ids.count(info.id) > 0 ? 1 : 0;
  return info;
}

std::vector<std::shared_ptr<ServedArea>> Engine::ListAreas(std::string_view prefix,
                                                           uint32_t from_index,
                                                           size_t limit) const {
  std::vector<std::shared_ptr<ServedArea>> page;
  const std::shared_lock<std::shared_mutex> lock(state_->mutex);
  for (auto it = state_->by_index.lower_bound(from_index);
       it != state_->by_index.end() && page.size() < limit; ++it) {
    if (it->second->info().name.starts_with(prefix)) page.push_back(it->second);
  }
  return page;
}

Status Engine::DeleteArea(std::string_view name) {
  std::unique_lock<std::shared_mutex> lock(state_->mutex);
  const std::shared_ptr<ServedArea> served = state_->Find(name);
  if (served == nullptr) return NoSuchArea(name);
  const AreaInfo& info = served->info();
  // The segment first: a daemon that is killed here leaves an area that says it is deleted, and the
  // next one finishes that. The other way round workers would go on in a segment that no daemon
  // knows.
  served->area().Retire(AreaState::kDeleted);
  state_->catalogue->Remove(state_->slots[info.id]);
  state_->Sum(*served, &state_->retired_local, &state_->retired_daemon);
  state_->slots.erase(info.id);
  for (auto& [block, ids] : state_->attachments) ids.erase(info.id);
  state_->by_index.erase(info.index);
  state_->by_name.erase(info.name);
  lock.unlock();  // The vault may take its time.
  SH_RETURN_IF_ERROR(state_->vault->Remove("area." + std::to_string(info.id)));
  if (info.geometry.data_is_separate)
    SH_RETURN_IF_ERROR(state_->vault->Remove("data." + std::to_string(info.id)));
  return Status();
}

StatusOr<AreaDescriptors> Engine::OpenForWorker(const ServedArea& area, uint32_t block,
                                                Access access) {
  const bool writable = access == Access::kReadWrite;
  AreaDescriptors descriptors;
  SH_ASSIGN_OR_RETURN(descriptors.control, ReopenDescription(area.control_.get(), writable));
  if (area.info().geometry.data_is_separate) {
    SH_ASSIGN_OR_RETURN(descriptors.data, ReopenDescription(area.data_.get(), writable));
  }
  const std::unique_lock<std::shared_mutex> lock(state_->mutex);
  if (state_->slots.count(area.info().id) == 0) return NoSuchArea(area.info().name);
  if (block != 0) state_->attachments[block].insert(area.info().id);
  return descriptors;
}

std::vector<std::string> Engine::TakeStartWarnings() {
  const std::unique_lock<std::shared_mutex> lock(state_->mutex);
  return std::move(state_->start_warnings);
}

void Engine::State::Sum(const ServedArea& served, LaneCounters* local, LaneCounters* daemon) const {
  const auto add = [&](uint32_t lane, LaneCounters* to) {
    const LaneCounters counters = const_cast<ServedArea&>(served).area().CountersOf(lane);
    to->mutations += counters.mutations;
    to->contended += counters.contended;
    to->wakes += counters.wakes;
  };
  for (uint32_t lane = 1; lane < kLanesPerBlock; ++lane) add(lane, daemon);
  for (const uint32_t block : registry->BlocksEverLeased()) {
    for (uint32_t i = 0; i < kLanesPerBlock; ++i) add(block * kLanesPerBlock + i, local);
  }
}

EngineTotals Engine::Totals() const {
  EngineTotals totals;
  totals.memory_bytes = state_->memory->Used();
  const std::shared_lock<std::shared_mutex> lock(state_->mutex);
  totals.areas = static_cast<uint32_t>(state_->by_index.size());
  totals.attached_processes = static_cast<uint32_t>(state_->registry->LeasedBlocks().size());
  const CatalogueHead& head = state_->catalogue->head();
  totals.generation = head.generation.load(std::memory_order_relaxed);
  totals.recoveries = head.recoveries.load(std::memory_order_relaxed);
  totals.repairs = head.repairs.load(std::memory_order_relaxed);
  totals.redos = head.redos.load(std::memory_order_relaxed);
  totals.local = state_->retired_local;
  totals.daemon = state_->retired_daemon;
  for (const auto& [index, served] : state_->by_index)
    state_->Sum(*served, &totals.local, &totals.daemon);
  return totals;
}

}  // namespace statehouse
