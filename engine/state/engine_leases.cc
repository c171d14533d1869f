// Engine's leases: who has which lanes, what happens when they are gone, and the words that nobody
// holds.
#include <algorithm>
#include <atomic>
#include <mutex>
#include <string>
#include <utility>

#include "engine/shm/owned_lock.h"
#include "engine/state/engine_state.h"

namespace statehouse {
namespace {

// How long ReadArea tries where somebody holds the range.
constexpr uint64_t kReadTimeoutNs = 1'000'000;

std::string AliveName(uint32_t block) { return "alive." + std::to_string(block); }
std::string WorkerName(uint32_t block) { return "worker." + std::to_string(block); }

}  // namespace

void Engine::State::RecoverLanes(Area& area, uint32_t first_lane, uint32_t count) {
  const std::lock_guard<std::mutex> lock(recovery_mutex);
  for (uint32_t lane = first_lane; lane < first_lane + count; ++lane) {
    if (lane == 0) continue;
    const RecoveryReport report = area.RecoverLane(lane);
    if (report.redo_applied) catalogue->head().redos.fetch_add(1, std::memory_order_relaxed);
    if (report.repaired) catalogue->head().repairs.fetch_add(1, std::memory_order_relaxed);
  }
}

void Engine::State::RecoverDicts(uint32_t block) {
  const uint32_t redos = dicts->RecoverLanes(block * kLanesPerBlock, kLanesPerBlock);
  catalogue->head().redos.fetch_add(redos, std::memory_order_relaxed);
}

void Engine::State::RecoverLocks(uint32_t block) {
  const std::lock_guard<std::mutex> lock(recovery_mutex);
  const uint32_t redos = locks->RecoverProcess(LaneOf(kRecoveryThread), block);
  catalogue->head().redos.fetch_add(redos, std::memory_order_relaxed);
}

Status Engine::State::RestoreLeases(std::map<std::string, UniqueFd>& inherited) {
  const auto take = [&inherited](const std::string& name) {
    const auto found = inherited.find(name);
    return found != inherited.end() ? std::move(found->second) : UniqueFd();
  };
  for (const uint32_t block : registry->LeasedBlocks()) {
    // Without its liveness file nobody can hold the lease: the last daemon had not sent it yet, or
    // was about to free the block.
    registry->SetFile(block, take(AliveName(block)));
    UniqueFd pidfd = take(WorkerName(block));
    if (registry->IsHeld(block)) {
      survivors.push_back(SurvivingLease{block, std::move(pidfd)});
      continue;
    }
    for (auto& [index, served] : by_index) {
      RecoverLanes(served->area(), block * kLanesPerBlock, kLanesPerBlock);
    }
    RecoverDicts(block);
    RecoverLocks(block);
    catalogue->head().recoveries.fetch_add(1, std::memory_order_relaxed);
    SH_RETURN_IF_ERROR(ForgetLease(block));
    registry->Free(block);
  }
  return Status();
}

Status Engine::State::KeepLease(uint32_t block, const UniqueFd& alive, const UniqueFd& pidfd) {
  SH_RETURN_IF_ERROR(vault->Store(AliveName(block), alive.get()));
  return vault->Store(WorkerName(block), pidfd.get());
}

Status Engine::State::ForgetLease(uint32_t block) {
  const Status alive = vault->Remove(AliveName(block));
  const Status worker = vault->Remove(WorkerName(block));
  return alive.ok() ? worker : alive;
}

StatusOr<LaneLease> Engine::LeaseLanes(const UniqueFd& pidfd) {
  SH_ASSIGN_OR_RETURN(Liveness liveness, LaneRegistry::NewLiveness());
  uint32_t block = 0;
  {
    const std::unique_lock<std::shared_mutex> lock(state_->mutex);
    SH_ASSIGN_OR_RETURN(block, state_->registry->ClaimBlock());
    state_->attachments[block];
  }
  // The block is ours; the vault may take its time without holding up anybody.
  const Status kept = state_->KeepLease(block, liveness.file, pidfd);
  // What a vault cannot forget now is replaced by the block's next lease or dropped at the next
  // start.
  if (!kept.ok()) (void)state_->ForgetLease(block);
  const std::unique_lock<std::shared_mutex> lock(state_->mutex);
  if (!kept.ok()) {
    state_->attachments.erase(block);
    state_->registry->Free(block);
    return kept;
  }
  state_->registry->SetFile(block, std::move(liveness.file));
  return LaneLease{block, block * kLanesPerBlock, kLanesPerBlock, std::move(liveness.description)};
}

void Engine::RecoverBlock(uint32_t block) {
  std::vector<std::shared_ptr<ServedArea>> areas;
  {
    const std::unique_lock<std::shared_mutex> lock(state_->mutex);
    // One thread is enough, and a second one could come so late that the block is somebody else's.
    if (!state_->registry->IsLeased(block) || !state_->recovering.insert(block).second) return;
    // What a worker of an earlier daemon had attached is not known: then every area is looked at.
    const auto attached = state_->attachments.find(block);
    for (const auto& [index, served] : state_->by_index) {
      const bool skip =
          attached != state_->attachments.end() && attached->second.count(served->info().id) == 0;
      if (!skip) areas.push_back(served);
    }
  }
  state_->RecoverLocks(block);  // First: somebody may wait for what the process held.
  for (const std::shared_ptr<ServedArea>& served : areas) {
    state_->RecoverLanes(served->area(), block * kLanesPerBlock, kLanesPerBlock);
  }
  state_->RecoverDicts(block);
  // Before the block is free: a later lease of it keeps its own descriptors under the same names.
  // What a vault cannot forget is replaced by that lease or dropped at the next start.
  (void)state_->ForgetLease(block);
  const std::unique_lock<std::shared_mutex> lock(state_->mutex);
  state_->catalogue->head().recoveries.fetch_add(1, std::memory_order_relaxed);
  state_->attachments.erase(block);
  state_->registry->Free(block);
  state_->recovering.erase(block);
}

bool Engine::ReleaseBlock(uint32_t block) {
  {
    const std::shared_lock<std::shared_mutex> lock(state_->mutex);
    if (!state_->registry->IsLeased(block)) return true;
    if (state_->registry->IsHeld(block)) return false;
  }
  RecoverBlock(block);
  return true;
}

bool Engine::ProbeLease(uint32_t block) const {
  const std::shared_lock<std::shared_mutex> lock(state_->mutex);
  return state_->registry->IsLeased(block) && state_->registry->IsHeld(block);
}

std::vector<SurvivingLease> Engine::TakeSurvivingLeases() {
  const std::unique_lock<std::shared_mutex> lock(state_->mutex);
  return std::move(state_->survivors);
}

DaemonLanes::Use Engine::UseDaemonLane(const Lane& lane) {
  return lane.id != 0 && lane.id < kLanesPerBlock ? state_->daemon_lanes.Enter(lane.id)
                                                  : DaemonLanes::Use();
}

// Whether the word names an owner that cannot hold it.
bool Engine::State::HoldsNobody(const ServedArea& served, uint32_t stripe, uint64_t word) {
  const uint32_t owner = OwnerOf(word);
  if (owner >= kLanesPerBlock) {
    const std::shared_lock<std::shared_mutex> lock(mutex);
    return !registry->IsLeased(owner / kLanesPerBlock);
  }
  if (!foreign_words.Saw({served.info().id, stripe}, word)) return false;
  uint64_t again = 0;
  const Area& area = const_cast<ServedArea&>(served).area();
  const bool idle = daemon_lanes.IdleWhile(owner, [&] { again = area.ControlWord(stripe); });
  return idle && again == word;
}

Status Engine::ReadArea(ServedArea& served, uint64_t pos, std::span<std::byte> out) {
  const std::unique_lock<std::mutex> lock(state_->maintenance_mutex, std::try_to_lock);
  if (!lock.owns_lock()) {
    return Status(Reason::kStalled,
                  "area \"" + served.info().name + "\": the service tends its memory; try again");
  }
  Lane lane = DaemonLane(kMaintenanceThread);
  lane.operation_timeout_ns = std::min(lane.operation_timeout_ns, kReadTimeoutNs);
  const DaemonLanes::Use use = UseDaemonLane(lane);
  return served.area().Read(pos, out, &lane, lane.operation_timeout_ns);
}

uint32_t Engine::Scrub() {
  std::vector<std::shared_ptr<ServedArea>> areas = ListAreas("", 0, kAreasMax);
  uint32_t mended = 0;
  for (size_t i = 0; i < areas.size(); ++i) {
    const std::lock_guard<std::mutex> recovering(state_->recovery_mutex);
    if (i == 0) state_->foreign_words.BeginLook();
    mended += areas[i]->area().Scrub([&](uint32_t stripe, uint64_t word) {
      return state_->HoldsNobody(*areas[i], stripe, word);
    });
  }
  const std::lock_guard<std::mutex> maintaining(state_->maintenance_mutex);
  const Lane lane = DaemonLane(kMaintenanceThread);
  const DaemonLanes::Use use = UseDaemonLane(lane);
  const auto is_leased = [this](uint32_t owner) {
    if (owner < kLanesPerBlock) return true;
    const std::shared_lock<std::shared_mutex> lock(state_->mutex);
    return state_->registry->IsLeased(owner / kLanesPerBlock);
  };
  mended += state_->dicts->Maintain(lane, is_leased);
  mended += state_->locks->Maintain(lane, is_leased);
  if (mended > 0) state_->catalogue->head().repairs.fetch_add(mended, std::memory_order_relaxed);
  return mended;
}

}  // namespace statehouse
