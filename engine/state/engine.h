// Engine: the daemon's side of the state. It makes, finds, lists and deletes areas, leases lanes to
// workers and recovers what dead ones left. service/ includes this header; a worker never does.
//
// Who owns it: the composition root. Threads: every method may be called from any thread at once.
// Always true: whatever Create acknowledged is in the vault and in the catalogue, so the next
// daemon finds it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/state/area.h"
#include "engine/state/daemon_lanes.h"
#include "engine/state/descriptor_vault.h"
#include "engine/state/dict_store.h"
#include "engine/state/lock_space.h"

namespace statehouse {

enum class AreaBacking : uint8_t { kMemory = 1, kFile = 2, kDescriptor = 3 };

struct AreaSpec {
  std::string name;
  uint64_t size = 0;
  AreaBacking backing = AreaBacking::kMemory;
  std::string file;     // kFile: opened for reading and writing; it must hold offset + size bytes.
  UniqueFd descriptor;  // kDescriptor.
  uint64_t offset = 0;  // A multiple of the page size.
  bool exclusive = false;
};

// What the daemon knows of an area, from private memory.
struct AreaInfo {
  uint64_t id = 0;
  uint32_t index = 0;
  std::string name;
  AreaGeometry geometry;
  AreaBacking backing = AreaBacking::kMemory;
  std::string file;
  uint64_t offset = 0;
  int64_t create_time_ns = 0;  // Unix time.
  uint64_t memory_bytes = 0;
  uint32_t attached_processes = 0;
};

// An area that is being served. Holders keep it mapped; `area` fails its operations once the area
// is deleted.
class ServedArea final {
 public:
  ServedArea(AreaInfo info, std::unique_ptr<Area> area, UniqueFd control, UniqueFd data)
      : info_(std::move(info)),
        area_(std::move(area)),
        control_(std::move(control)),
        data_(std::move(data)) {}
  const AreaInfo& info() const { return info_; }  // attached_processes is not kept here.
  Area& area() { return *area_; }

 private:
  friend class Engine;
  AreaInfo info_;
  std::unique_ptr<Area> area_;
  UniqueFd control_;
  UniqueFd data_;
};

// Descriptors for one worker, opened for its access.
struct AreaDescriptors {
  UniqueFd control;
  UniqueFd data;  // Valid only when the geometry says so.
};

// A block of lanes leased to one process. `liveness` is for the worker; the daemon closes its copy
// after sending it.
struct LaneLease {
  uint32_t block = 0;
  uint32_t first_lane = 0;
  uint32_t lane_count = 0;
  UniqueFd liveness;
};

struct EngineOptions {
  uint32_t areas_max = kAreasMax;
  uint32_t dicts_max = kDictsMax;
  uint64_t dict_bytes_max = kDictBytesMax;  // The largest max_bytes of a dict.
  uint32_t locks_max = kLocksMaxDefault;    // Of a new state; one that is taken over keeps its own.
  uint64_t area_bytes_max = kAreaBytesMax;
  uint64_t memory_bytes_max = 0;  // Of areas and dicts together; 0: no limit.
  uint64_t atomic_range_bytes = kAtomicRangeBytesDefault;
  uint64_t operation_timeout_ns = kOperationTimeoutNsDefault;
};

struct EngineTotals {
  uint32_t areas = 0;
  uint64_t memory_bytes = 0;  // Of areas and dicts.
  uint32_t attached_processes = 0;
  uint64_t generation = 0;  // 1 for the first daemon of this state.
  uint64_t recoveries = 0;  // Dead lane blocks recovered, over all generations.
  uint64_t repairs = 0;     // Damaged control memory that was repaired.
  uint64_t redos = 0;       // Range writes completed on behalf of a dead worker.
  LaneCounters local;       // Summed over workers' lanes.
  LaneCounters daemon;      // Summed over the daemon's own lanes.
};

// A worker's lease that was found at start (its daemon died, the worker lives). `pidfd` may be
// invalid when it was lost; the owner then polls Engine::ProbeLease.
struct SurvivingLease {
  uint32_t block = 0;
  UniqueFd pidfd;
};

// The daemon's thread that calls Scrub, for DaemonLane.
inline constexpr uint32_t kMaintenanceThread = 6;
// Whoever recovers, one at a time, in the locks' segment. The thread that moves dicts has the same
// lane, and changes nothing but dicts with it.
inline constexpr uint32_t kRecoveryThread = 3;

class Engine final {
 public:
  // Takes over what an earlier daemon left in `inherited` (name -> descriptor), recovers every dead
  // lane, and is ready. `vault` must outlive the engine. Errors: VERSION_MISMATCH, DATA_LOSS
  // (catalogue damaged), MEMORY_EXHAUSTED.
  static StatusOr<std::unique_ptr<Engine>> Start(const EngineOptions& options,
                                                 std::map<std::string, UniqueFd> inherited,
                                                 DescriptorVault* vault);
  ~Engine();

  // The engine's own lanes, one for each of the daemon's threads that mutate: 1 … 7.
  Lane DaemonLane(uint32_t thread_index) const;  // REQUIRES: thread_index < 7.
  // Says that this thread may be inside an operation with its daemon lane until the Use is gone:
  // whoever uses one holds a Use, or Scrub may free what it holds. Nothing for a worker's lane.
  DaemonLanes::Use UseDaemonLane(const Lane& lane);

  struct Created {
    std::shared_ptr<ServedArea> area;
    bool created = false;
  };
  StatusOr<Created> CreateArea(AreaSpec spec);
  // By name or "#<index>".
  StatusOr<std::shared_ptr<ServedArea>> FindArea(std::string_view name) const;
  StatusOr<AreaInfo> DescribeArea(std::string_view name) const;
  // Areas with index >= `from_index` whose name begins with `prefix`, in order, at most `limit`.
  std::vector<std::shared_ptr<ServedArea>> ListAreas(std::string_view prefix, uint32_t from_index,
                                                     size_t limit) const;
  Status DeleteArea(std::string_view name);
  // As Area::Read with a lane: writers that never pause cannot starve it. STALLED, soon, where the
  // range is held by somebody who makes no progress, or while Scrub uses the lane. Any thread.
  Status ReadArea(ServedArea& served, uint64_t pos, std::span<std::byte> out);

  // Leases a free block to the process behind `pidfd`, which goes to the vault first. Errors:
  // LANES_EXHAUSTED.
  StatusOr<LaneLease> LeaseLanes(const UniqueFd& pidfd);
  // Descriptors of an area for the worker of `block`; counts it as attached.
  StatusOr<AreaDescriptors> OpenForWorker(const ServedArea& area, uint32_t block, Access access);
  // The process of `block` is dead: recovers its lanes in every area and frees the block.
  // Idempotent. REQUIRES: the caller knows the process is dead (its pidfd is readable, or
  // ProbeLease said so).
  void RecoverBlock(uint32_t block);
  // The worker closed its connection and lives on: frees the block if its liveness lock is gone,
  // else keeps it leased. Returns true when the block was freed.
  bool ReleaseBlock(uint32_t block);
  // Whether the liveness lock of `block` is still held. False means dead or never leased.
  bool ProbeLease(uint32_t block) const;
  // Leases that were alive at Start. Call once.
  std::vector<SurvivingLease> TakeSurvivingLeases();
  // What Start could not carry on with, a line each, for the log: areas that were dropped. Call
  // once.
  std::vector<std::string> TakeStartWarnings();

  // Frees what no leased lane and no daemon lane can hold: only a writer that ignores the protocol
  // leaves such words. A word that names a daemon lane is freed at its kForeignWordLooks-th look at
  // the earliest. Returns how many were mended. One thread calls it, every second or so.
  uint32_t Scrub();

  // Everything about dicts.
  DictStore& dicts();
  const DictStore& dicts() const;

  // The locks of the service.
  LockSpace& locks();
  const LockSpace& locks() const;
  // Their segment, for a worker that may lock everything. It is always writable.
  StatusOr<UniqueFd> OpenLocksForWorker() const;

  EngineTotals Totals() const;
  const EngineOptions& options() const;

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace statehouse
