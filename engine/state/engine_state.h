// Engine::State: what Engine's methods work on. For engine*.cc only.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <string>
#include <vector>

#include "engine/state/catalogue.h"
#include "engine/state/daemon_lanes.h"
#include "engine/state/engine.h"
#include "engine/state/lane_registry.h"
#include "engine/state/lock_store.h"
#include "engine/state/memory_budget.h"

namespace statehouse {

struct Engine::State {
  EngineOptions options;
  DescriptorVault* vault = nullptr;

  // Lock order: create_mutex, mutex, recovery_mutex. create_mutex makes areas one at a time, so
  // that their memory can be allocated and handed to the vault while others go on looking areas up.
  // `mutex` guards the maps, catalogue and registry; shared for look-ups. `memory` looks areas and
  // dicts up, so nobody reserves while he holds `mutex`.
  std::mutex create_mutex;
  mutable std::shared_mutex mutex;
  std::mutex recovery_mutex;  // One recovery at a time.
  std::unique_ptr<Catalogue> catalogue;
  std::unique_ptr<LaneRegistry> registry;
  std::unique_ptr<MemoryBudget> memory;
  std::unique_ptr<DictStore> dicts;  // With locks of its own; called without ours.
  std::unique_ptr<LockStore> locks;
  std::map<std::string, std::shared_ptr<ServedArea>, std::less<>> by_name;
  std::map<uint32_t, std::shared_ptr<ServedArea>> by_index;
  std::map<uint64_t, uint32_t> slots;                  // Area id -> catalogue slot.
  std::map<uint32_t, std::set<uint64_t>> attachments;  // Block -> area ids.
  std::set<uint32_t> recovering;                       // Blocks; each by one thread.
  std::vector<SurvivingLease> survivors;
  std::vector<std::string> start_warnings;
  LaneCounters retired_local;  // Of deleted areas.
  LaneCounters retired_daemon;
  DaemonLanes daemon_lanes;
  ForeignWords foreign_words;    // Guarded by recovery_mutex.
  std::mutex maintenance_mutex;  // Of the maintenance lane; nothing else is taken before it.

  void AddServed(std::shared_ptr<ServedArea> served, uint32_t slot);
  uint64_t AreaBytes() const;
  Status Restore(std::map<std::string, UniqueFd>& inherited);
  StatusOr<std::shared_ptr<ServedArea>> MapEntry(const CatalogueEntry& entry, UniqueFd control,
                                                 UniqueFd data);
  Status RestoreLeases(std::map<std::string, UniqueFd>& inherited);
  Status KeepLease(uint32_t block, const UniqueFd& alive, const UniqueFd& pidfd);
  Status ForgetLease(uint32_t block);
  bool HoldsNobody(const ServedArea& served, uint32_t stripe, uint64_t word);
  void RecoverLanes(Area& area, uint32_t first_lane, uint32_t count);
  void RecoverDicts(uint32_t block);
  void RecoverLocks(uint32_t block);
  Lane LaneOf(uint32_t thread_index) const;
  std::shared_ptr<ServedArea> Find(std::string_view name) const;
  StatusOr<UniqueFd> OpenBacking(AreaSpec& spec) const;
  Status CheckCount(const AreaSpec& spec) const;
  StatusOr<std::shared_ptr<ServedArea>> Make(AreaSpec spec, const AreaGeometry& geometry);
  void Sum(const ServedArea& served, LaneCounters* local, LaneCounters* daemon) const;
};

}  // namespace statehouse
