// Area: one mapped area and every operation on it. The same code runs in the daemon and in each
// attached worker.
//
// What it is: a mapping of the area's control segment (header, lane records, stripe lines,
// journals) and of its data; the
//   drawing is in docs/formats/area_segment.md and engine/shm/layout.h.
// Who owns it: whoever called Map. It unmaps when destroyed; no operation may be under way then.
// Threads: any number may operate at once, as long as no two use the same Lane at the same time.
// Load, Read and Updates
//   need no lane and never write to shared memory, so they work on a read-only mapping.
// Always true: a mutation happened wholly or not at all once it returns or once the daemon
// recovered its killed lane. Failure: a refused operation changed nothing, except where TIMEOUT,
// STALLED or FENCED of a range beyond `atomic_range_bytes` left its
//   first pieces written; the message says how many bytes.
//
// The protocol and its evidence: an owned sequence lock for each stripe, a lane intent and a redo
// record.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "engine/base/word.h"
#include "engine/os/unique_fd.h"
#include "engine/shm/layout.h"

namespace statehouse {

// The shape of an area's segment. A worker takes it from the daemon's answer, the daemon from its
// catalogue; nobody takes it from shared memory.
struct AreaGeometry {
  uint64_t size = 0;           // Bytes of data.
  uint64_t control_bytes = 0;  // Header … journals, a multiple of the page size.
  uint64_t data_offset = 0;    // In the segment, or in the data descriptor when `data_is_separate`.
  uint64_t atomic_range_bytes = kAtomicRangeBytesDefault;
  uint32_t stripe_shift = 0;
  uint32_t stripe_count = 0;
  uint32_t lane_count = 0;
  bool data_is_separate = false;

  // The geometry of a new area. REQUIRES: 0 < size <= kAreaBytesMax.
  static AreaGeometry For(uint64_t size, uint64_t atomic_range_bytes = kAtomicRangeBytesDefault,
                          uint32_t lane_count = kLanesMax);
  // The same with the data in a descriptor of its own, from `data_offset`.
  static AreaGeometry ForSeparateData(uint64_t size, uint64_t data_offset,
                                      uint64_t atomic_range_bytes = kAtomicRangeBytesDefault,
                                      uint32_t lane_count = kLanesMax);
  // INVALID_ARGUMENT where the parts contradict each other: what a worker checks before it maps.
  Status Validate() const;

  friend bool operator==(const AreaGeometry&, const AreaGeometry&) = default;
};

enum class Access : uint8_t { kReadOnly, kReadWrite };

// How long an operation that meets a held lock tries before STALLED, and where a thread's identity
// comes from.
struct Lane {
  uint32_t id = 0;  // 1 … kLanesMax - 1. One thread at a time.
  uint64_t operation_timeout_ns = kOperationTimeoutNsDefault;
};

struct CompareExchangeResult {
  bool exchanged = false;
  uint64_t found = 0;  // Bits of the word before.
};

struct WaitResult {
  bool changed = false;
  uint64_t updates = 0;
};

// What recovery of a dead lane found and did.
struct RecoveryReport {
  uint32_t stripes_released = 0;
  bool redo_applied = false;
  bool wake_replayed = false;
  bool repaired = false;  // The lane record was damaged; the stripes were released by a full scan.
};

class Area final {
 public:
  // Maps an area. `control` and `data` (only with geometry.data_is_separate) may be closed
  // afterwards. Errors: INVALID_ARGUMENT (geometry), VERSION_MISMATCH (another format),
  // BACKING_INVALID (descriptor too short), MEMORY_EXHAUSTED (mmap failed). `Format` writes a new
  // segment's header first; only the daemon calls it.
  static Status Format(const AreaGeometry& geometry, const uint64_t uuid[2], int control);
  // Writes the header of an existing segment again, without touching its state. For a daemon that
  // takes a segment over.
  static Status RestoreHeader(const AreaGeometry& geometry, int control);
  // As Retire, for a segment that cannot be mapped as an area.
  static Status RetireSegment(int control, AreaState state);
  static StatusOr<std::unique_ptr<Area>> Map(std::string name, const AreaGeometry& geometry,
                                             int control, int data, Access access);
  ~Area();
  Area(const Area&) = delete;
  Area& operator=(const Area&) = delete;

  const std::string& name() const { return name_; }
  uint64_t size() const { return geometry_.size; }
  const AreaGeometry& geometry() const { return geometry_; }
  bool writable() const { return access_ == Access::kReadWrite; }
  // False once the area was deleted (or quarantined); every operation then fails with
  // AREA_NOT_FOUND (DATA_LOSS).
  bool live() const;
  // As stored in shared memory; may be a number that is no AreaState where a worker scribbled.
  AreaState state() const {
    return static_cast<AreaState>(line_->state.load(std::memory_order_acquire));
  }
  // The bytes themselves, unlocked and uncounted: for zero-copy views.
  std::byte* data() const { return data_; }

  // Touches the lane's pages so that no operation faults inside a critical section. Call once for
  // each lane block.
  void PrefaultLanes(uint32_t first_lane, uint32_t lane_count) const;

  // Word operations. `bits` is the word in the low end (word.h). Linearizable at any alignment.
  // Errors of all: AREA_NOT_FOUND, OUT_OF_BOUNDS; of the mutating ones: READ_ONLY, STALLED, FENCED.
  // `fence` of a mutation is a fencing token, 0 for none: it is refused with FENCED where a higher
  // one wrote to a stripe that it touches, else it becomes the fence of those stripes. One that
  // changes nothing (compare_exchange) is refused as well, but raises no fence. A mutation with a
  // fence takes the stripe's lock and the slow path.
  // A load that meets a range write waits for it for `operation_timeout_ns`, then fails with
  // STALLED.
  Status Load(WordType type, uint64_t pos, uint64_t* bits,
              uint64_t operation_timeout_ns = kOperationTimeoutNsDefault) const;
  Status Store(const Lane& lane, WordType type, uint64_t pos, uint64_t bits, uint64_t fence = 0);
  // Adds modulo the width; *bits is the new value.
  Status Add(const Lane& lane, WordType type, uint64_t pos, uint64_t delta, uint64_t* bits,
             uint64_t fence = 0);
  Status CompareExchange(const Lane& lane, WordType type, uint64_t pos, uint64_t expected,
                         uint64_t desired, CompareExchangeResult* result, uint64_t fence = 0);
  Status Bitwise(const Lane& lane, BitwiseOperator op, WordType type, uint64_t pos,
                 uint64_t operand, uint64_t* bits, uint64_t fence = 0);

  // The same by C++ type (uint8_t … uint64_t), with the aligned, uncontended case inline: what a
  // caller that counts nanoseconds uses.
  template <typename T>
  Status LoadAs(uint64_t pos, T* value,
                uint64_t operation_timeout_ns = kOperationTimeoutNsDefault) const;
  template <typename T>
  Status StoreAs(const Lane& lane, uint64_t pos, T value, uint64_t fence = 0);
  template <typename T>
  Status AddAs(const Lane& lane, uint64_t pos, T delta, T* value, uint64_t fence = 0);

  // Range operations, atomic up to geometry().atomic_range_bytes, longer ones piece by piece.
  // Read without a lane retries against writers for `operation_timeout_ns`, then fails with
  // STALLED; with a lane (REQUIRES: writable) it falls back to taking the stripes, so that a stream
  // of writers cannot starve it.
  Status Read(uint64_t pos, std::span<std::byte> out, const Lane* lane = nullptr,
              uint64_t operation_timeout_ns = kOperationTimeoutNsDefault) const;
  // An empty write counts as an update and changes no byte. `fence` as for words, piece by piece.
  Status Write(const Lane& lane, uint64_t pos, std::span<const std::byte> bytes,
               uint64_t fence = 0);
  Status Fill(const Lane& lane, uint64_t pos, uint64_t len, std::byte value, uint64_t fence = 0);

  // The update counter of the stripes that cover [pos, pos + len); the whole area by default.
  // Bounds as for Read.
  uint64_t Updates() const;
  StatusOr<uint64_t> UpdatesOfRange(uint64_t pos, uint64_t len) const;

  // Waits until the counter of the range differs from `since` or `timeout_ns` has passed (then
  // changed = false). Sleeps on a futex. REQUIRES: writable (a read-only worker asks the daemon).
  // `len` 0 with pos 0 means the whole area. Errors: AREA_NOT_FOUND also when the area is deleted
  // meanwhile, OUT_OF_BOUNDS, READ_ONLY.
  StatusOr<WaitResult> Wait(uint64_t since, uint64_t timeout_ns, uint64_t pos = 0,
                            uint64_t len = 0);
  // Looks once, as Wait with timeout 0 would, but also on a read-only mapping.
  StatusOr<WaitResult> Poll(uint64_t since, uint64_t pos = 0, uint64_t len = 0) const;

  // For who sleeps on several areas at once. A cell is that of a stripe, or of the whole area: read
  // the word, arm the cell, look (ControlWord), and sleep while the word is the same. Whoever
  // changes the stripe (any stripe) after the look bumps it; but not who was inside it at the look.
  // Arming is good for one bump. REQUIRES: writable; cell < geometry().stripe_count or kWholeArea.
  static constexpr uint32_t kWholeArea = UINT32_MAX;
  const std::atomic<uint32_t>& EventWord(uint32_t cell) const;
  void ArmEvent(uint32_t cell);

  // For the daemon only.
  // Keeps this process alive when somebody truncates the file behind the data: the area is
  // quarantined instead. False when the table of guarded ranges is full.
  bool GuardAgainstTruncation();
  // Completes or undoes what a dead lane left. Idempotent. REQUIRES: no thread will ever store
  // through `lane` again, and one recovery at a time for an area.
  RecoveryReport RecoverLane(uint32_t lane);
  // Frees stripes whose word `holds_nobody` takes for foreign, and range counters that no holder
  // left odd: what only a writer that ignores the protocol leaves behind. `holds_nobody` is asked
  // for words with an owner only. Returns how many words it mended.
  using HoldsNobody = std::function<bool(uint32_t stripe, uint64_t word)>;
  uint32_t Scrub(const HoldsNobody& holds_nobody);
  // REQUIRES: stripe < geometry().stripe_count.
  uint64_t ControlWord(uint32_t stripe) const {
    return stripes_[stripe].control.load(std::memory_order_seq_cst);  // SYNC: area.wait
  }
  // The lane that holds the stripe of `pos` now, or 0. A hint for "is the holder dead?".
  uint32_t HolderOf(uint64_t pos) const;
  // Marks the area deleted, or quarantined, for every worker that maps it, and wakes all waiters.
  void Retire(AreaState state);
  // Wakes every waiter once: they look again.
  void WakeAll();
  // Operations that the lane counted; see LaneCounters.
  LaneCounters CountersOf(uint32_t lane) const;

 private:
  Area(std::string name, const AreaGeometry& geometry, Access access);

  // The stripes first … first + count - 1 that cover a range.
  struct StripeSpan {
    uint32_t first = 0;
    uint32_t count = 0;
  };
  // Where a waiter sleeps.
  struct WaitCell {
    std::atomic<uint32_t>* armed;
    std::atomic<uint32_t>* event;
  };
  struct Scan {
    uint64_t updates = 0;
    bool any_owned = false;
  };

  bool Contains(uint64_t pos, uint64_t len) const {
    return len <= geometry_.size && pos <= geometry_.size - len;
  }
  StripeSpan SpanOf(uint64_t pos, uint64_t len) const;  // REQUIRES: len > 0, inside the area.
  Status CheckMutation(uint64_t pos, uint64_t len) const;
  Status CheckRange(uint64_t pos, uint64_t len) const;
  Status RefuseState() const;
  Status RefuseBounds(uint64_t pos, uint64_t len) const;
  Status RefuseStalled(uint32_t stripe, uint64_t pos, uint64_t len, uint64_t done) const;
  // Whether a higher token than `fence` wrote to one of the stripes; nobody is late without one.
  // REQUIRES: all of them are held.
  bool IsLate(StripeSpan span, uint64_t fence) const {
    return fence != 0 && NewestFence(span) > fence;
  }
  uint64_t NewestFence(StripeSpan span) const;
  Status RefuseFence(StripeSpan span, uint64_t fence, uint64_t pos, uint64_t len,
                     uint64_t done) const;
  // Before the data, so that no crash leaves bytes of a token that the fence does not show; a fence
  // without bytes is harmless. REQUIRES: all stripes are held and IsLate was false.
  void RaiseFence(StripeSpan span, uint64_t fence) {
    if (fence != 0) [[unlikely]]
      StoreFence(span, fence);
  }
  void StoreFence(StripeSpan span, uint64_t fence);

  // area_inline.h: the aligned word of a free stripe. False: nothing was done, take the slow path.
  template <typename T>
  bool TryLoadInline(uint64_t pos, T* value) const;
  template <typename T, typename Change>
  bool TryMutateInline(const Lane& lane, uint64_t pos, Change change);

  // area_words.cc: any alignment, any contention. `change` decides the new value (false: leave it).
  template <typename T>
  Status LoadSlow(uint64_t pos, T* value, uint64_t operation_timeout_ns) const;
  template <typename T, typename Change>
  Status MutateSlow(const Lane& lane, uint64_t pos, Change change, uint64_t fence);
  template <typename T, typename Change>
  Status MutateAcross(const Lane& lane, uint64_t pos, Change change, uint64_t fence);
  template <typename T>
  Status StoreSlow(const Lane& lane, uint64_t pos, T value, uint64_t fence);
  template <typename T>
  Status AddSlow(const Lane& lane, uint64_t pos, T delta, T* value, uint64_t fence);

  // area_ranges.cc
  bool LockSpan(const Lane& lane, StripeSpan span, uint64_t* first_locked, uint32_t* blocker);
  void UnlockSpan(uint32_t lane, StripeSpan span, bool changed);
  void CommitRange(const Lane& lane, StripeSpan span, uint64_t first_locked, uint64_t pos,
                   uint64_t len, uint64_t fence);
  template <typename FillJournal>
  Status MutateRange(const Lane& lane, uint64_t pos, uint64_t len, uint64_t fence,
                     FillJournal fill);
  bool TryReadPiece(uint64_t pos, std::span<std::byte> out) const;
  Status ReadLocked(const Lane& lane, uint64_t pos, std::span<std::byte> out);

  // area_wait.cc
  uint64_t OwedWakes(StripeSpan span) const;
  enum class WakeWhom : uint8_t { kArmed, kEverybody };
  void WakeSpan(StripeSpan span, WakeWhom whom);
  void FinishWake(LaneRecord& record, StripeSpan span);
  Scan ScanSpan(StripeSpan span) const;
  StatusOr<StripeSpan> WaitSpan(uint64_t pos, uint64_t len) const;

  // area_recovery.cc
  bool ApplyRedo(const LaneRecord& record, uint32_t lane, StripeSpan span);

  // Set by Map.
  std::string name_;
  AreaGeometry geometry_;
  Access access_;
  std::byte* control_ = nullptr;
  uint64_t mapped_bytes_ = 0;  // Of `control_`; the data too unless it is separate.
  std::byte* data_ = nullptr;
  AreaLine* line_ = nullptr;
  StripeLine* stripes_ = nullptr;
  LaneRecord* lanes_ = nullptr;
  std::byte* journals_ = nullptr;
  bool guarded_ = false;
  // Positions below these may hold a word of any width; 0 where the inline path must not be taken
  // at all.
  uint64_t inline_load_end_ = 0;
  uint64_t inline_mutate_end_ = 0;

  friend class AreaInternals;  // Crash tests damage and inspect the protocol's words through it.
};

}  // namespace statehouse

#include "engine/state/area_inline.h"
