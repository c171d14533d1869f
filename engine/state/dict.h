// Dict: one mapped dict and every operation on it. The same code runs in the daemon and in each
// attached worker.
//
// What it is: a mapping of the dict's segment (docs/formats/dict_segment.md,
//   engine/shm/dict_layout.h): buckets of one cache line, copy-on-write entries in blocks, and for
//   each lane an intent with a redo record, magazines of free blocks and a ring of changes.
// Who owns it: whoever called Map. It unmaps when destroyed; no operation may be under way then.
// Threads: any number at once, as long as no two use the same Lane at the same time. Get, Scan and
//   Stats need no lane and never write to shared memory, so they work on a read-only mapping, and
//   they pass buckets that are held, by the living or the dead.
// Always true: an operation happened wholly or not at all, its change record included, once it
//   returns or once the daemon recovered its killed lane. Each key's version only grows, also over
//   deletes. Every block is in exactly one place.
// Failure: a refused operation changed nothing, and one that changed something is not refused.
//
// Values are opaque bytes here, except int64 and float64, which live in the entry itself.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/hash.h"
#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "engine/shm/dict_layout.h"
#include "engine/state/area.h"

namespace statehouse {

// The shape of a dict's segment and what every process must agree on. As AreaGeometry, nobody takes
// it from shared memory.
struct DictGeometry {
  uint64_t data_bytes = 0;   // Of slabs, sparse: what the entries can hold together.
  uint64_t entries_max = 0;  // Inserts beyond it are refused (or make room).
  HashSeed seed;
  uint64_t default_ttl_ms = 0;  // For entries set without one; 0 none.
  uint32_t bucket_count = 0;    // A power of two.
  uint32_t lane_count = 0;
  bool evict = false;  // When full: make room instead of refusing.

  // The geometry of a new dict. REQUIRES: 0 < entries_max <= kDictEntriesMax,
  // 0 < data_bytes <= kDictBytesMax.
  static DictGeometry For(uint64_t entries_max, uint64_t data_bytes,
                          uint32_t lane_count = kLanesMax);
  // INVALID_ARGUMENT where the parts contradict each other: what a worker checks before it maps.
  Status Validate() const;

  uint32_t slab_count() const { return static_cast<uint32_t>(data_bytes / kSlabBytes); }
  uint64_t buckets_offset() const;
  uint64_t lanes_offset() const;
  uint64_t rings_offset() const;
  uint64_t operations_offset() const;
  uint64_t data_offset() const;
  uint64_t segment_bytes() const { return data_offset() + data_bytes; }
  // Memory that a new segment holds once the daemon has its lanes in it: no slab yet.
  uint64_t first_bytes() const;

  friend bool operator==(const DictGeometry&, const DictGeometry&) = default;
};

enum class DictKind : uint8_t { kBytes = 0, kInt64 = 1, kFloat64 = 2 };

// A value as it goes in: bytes, or a number as its bits.
struct DictValue {
  DictKind kind = DictKind::kBytes;
  std::string_view bytes;
  uint64_t bits = 0;

  static DictValue Bytes(std::string_view bytes) { return {DictKind::kBytes, bytes, 0}; }
  static DictValue Int64(int64_t number) {
    return {DictKind::kInt64, {}, static_cast<uint64_t>(number)};
  }
  static DictValue Float64(double number);
};

// An entry as it comes out. Reuse one for many calls: its strings keep their memory.
struct DictEntry {
  DictKind kind = DictKind::kBytes;
  uint64_t bits = 0;  // Of a number.
  std::string bytes;  // Of everything else.
  uint64_t version = 0;
  uint64_t expires_ms = 0;  // On Dict::NowMs's clock; 0 never.
  uint64_t fence = 0;
  uint64_t ordinal = 0;        // Grows in the order of insertion.
  uint64_t bound_session = 0;  // The session that it ends with; 0: it is not bound.
  std::string key;             // Set by Scan.

  DictValue value() const { return {kind, bytes, bits}; }
};

// What must hold of the entry for the operation to happen.
struct DictCondition {
  enum class Kind : uint8_t { kNone, kAbsent, kPresent, kVersion, kValue };
  Kind kind = Kind::kNone;
  uint64_t version = 0;  // kVersion; 0 means absent.
  DictValue value;       // kValue: same kind and same bytes or bits.
};

struct DictTtl {
  enum class Kind : uint8_t { kDefault, kNone, kKeep, kSet };
  Kind kind = Kind::kDefault;  // kDefault: the dict's default_ttl_ms.
  uint64_t ms = 0;             // kSet: from now, at least 1.
};

// Names a mutation, so that it is carried out once however often it comes.
struct DictOperationId {
  uint64_t session = 0;  // 0: it has no name.
  uint64_t sequence = 0;
  bool valid() const { return session != 0; }
};

struct DictSetOptions {
  DictCondition condition;
  DictTtl ttl;
  uint64_t fence = 0;  // 0: none is claimed; refused where the entry has one that is higher.
  // The session that the entry is bound to from now on; 0: it is not bound. Its service removes it
  // when that session ends. The daemon only, except to set again what was read.
  uint64_t bind_session = 0;
  DictEntry* previous = nullptr;  // Where to put the entry as it was before, found or not.
  DictOperationId operation;      // Remembered when it is applied. The daemon only.
};

struct DictDeleteOptions {
  DictCondition condition;
  uint64_t fence = 0;
  DictEntry* previous = nullptr;
  ChangeOperation why = ChangeOperation::kDelete;
  uint64_t bound_session = 0;  // Only where the entry is bound to it; 0: whatever it is bound to.
  DictOperationId operation;
};

struct DictIncrement {
  DictValue delta;          // kInt64 or kFloat64.
  DictValue initial;        // What an absent entry counts as; the same kind as delta.
  bool must_exist = false;  // KEY_NOT_FOUND for an absent entry.
  DictTtl ttl;              // For an absent entry.
  bool bounded = false;     // Refused with VALUE_OUT_OF_RANGE outside [min, max].
  DictValue min;
  DictValue max;
  uint64_t fence = 0;
  DictOperationId operation;
};

struct DictResult {
  bool applied = false;  // False: the condition does not hold, and nothing changed.
  bool existed = false;  // There was an entry before.
  uint64_t version = 0;  // The entry's version now; 0 where there is none.
  uint64_t bits = 0;     // Increment: the new number.
  DictKind kind = DictKind::kBytes;
};

// One step of a transaction.
struct DictOperation {
  enum class Kind : uint8_t { kGet, kSet, kDelete, kIncrement };
  Kind kind = Kind::kGet;
  std::string_view key;
  DictValue value;  // kSet.
  DictSetOptions set;
  DictDeleteOptions erase;
  DictIncrement increment;
};

struct DictCompare {
  std::string_view key;
  DictCondition condition;
};

// What one step of a transaction gave: for kGet the entry (result.existed says whether it was
// there).
struct DictOperationResult {
  DictResult result;
  DictEntry entry;
};

struct DictTransactionResult {
  bool compared = false;  // Every compare held, so `then` ran; else `otherwise`.
  std::vector<DictOperationResult> results;
};

struct DictTransactOptions {
  DictOperationId operation;  // Remembered when something changes. The daemon only.
  bool keep_entries = true;   // Remember the entries of the results too, where they fit.
  // Of the entries in the results together, keys included; with more the transaction is refused
  // with MESSAGE_TOO_LARGE.
  uint64_t entry_bytes_max = UINT64_MAX;
};

// What is remembered of an operation.
struct DictRemembered {
  DictResult result;
  bool has_previous = false;
  DictEntry previous;  // The entry before; without its key.
  bool compared = false;
  std::vector<DictOperationResult> steps;  // Of a transaction.
  bool entries_kept = true;                // False: they did not fit, and each is empty.
};

struct DictStats {
  uint64_t entries = 0;
  uint64_t revision = 0;     // Changes since the dict was made.
  uint64_t entry_bytes = 0;  // Blocks that hold entries.
  uint64_t bound_entries = 0;
  uint64_t evictions = 0;
  uint64_t expirations = 0;
  LaneCounters counters;
};

// A bound entry.
struct DictBinding {
  std::string key;
  uint64_t session = 0;
};

// What Check found wrong, for people; empty when the dict is sound.
struct DictCheck {
  std::vector<std::string> faults;
  uint64_t entries = 0;
  uint64_t blocks = 0;
};

class Dict final {
 public:
  // Writes a new segment's header; only the daemon calls it. `first_version` is the lowest version
  // that entries get.
  static Status Format(const DictGeometry& geometry, const uint64_t uuid[2], int segment,
                       uint64_t first_version = 1);
  // Writes the header of an existing segment again, for a daemon that takes it over.
  static Status RestoreHeader(const DictGeometry& geometry, int segment);
  // As SetState, for a segment that nobody maps.
  static Status RetireSegment(int segment, DictState state);
  // `clock_offset_ns` is added to this process's monotonic clock to get the daemon's (they differ
  // across time namespaces). Errors: as Area::Map.
  static StatusOr<std::unique_ptr<Dict>> Map(std::string name, const DictGeometry& geometry,
                                             int segment, Access access,
                                             int64_t clock_offset_ns = 0);
  ~Dict();
  Dict(const Dict&) = delete;
  Dict& operator=(const Dict&) = delete;

  const std::string& name() const { return name_; }
  const DictGeometry& geometry() const { return geometry_; }
  bool writable() const { return access_ == Access::kReadWrite; }
  DictState state() const {
    return static_cast<DictState>(line_->state.load(std::memory_order_acquire));
  }
  // The daemon's monotonic clock in milliseconds, coarse (some milliseconds old).
  uint64_t NowMs() const;
  // The same in nanoseconds, exact.
  uint64_t NowNs() const;

  // Makes lanes ready: faults their pages in, gives back what a dead predecessor held; where
  // somebody else holds the allocator all the time, the lane's first change does that. Call once
  // for each lane before it operates. REQUIRES: writable, and nobody else uses the lanes.
  Status PrepareLanes(uint32_t first_lane, uint32_t lane_count);

  // Reads the entry of a key; *found false when there is none. Errors: KEY_INVALID, DICT_NOT_FOUND,
  // DICT_MOVED, DATA_LOSS, STALLED (a transaction holds the key and makes no progress).
  Status Get(std::string_view key, DictEntry* entry, bool* found,
             uint64_t operation_timeout_ns = kOperationTimeoutNsDefault) const;

  // For a caller that knows which keys come next: begins to bring the bucket of a key from memory,
  // and, some time after that, its entry, by what FetchBucket gave for it. They wait for nothing
  // and change nothing.
  uint64_t FetchBucket(std::string_view key) const;
  void FetchEntry(uint64_t hash) const;

  // Sets, deletes, adds. result->applied says whether the condition held. Errors: as Get, and
  // READ_ONLY, FENCED, MEMORY_EXHAUSTED (max bytes), LIMIT_EXCEEDED (max entries), STALLED; of
  // Increment: KEY_NOT_FOUND, TYPE_MISMATCH, VALUE_OUT_OF_RANGE.
  Status Set(const Lane& lane, std::string_view key, const DictValue& value,
             const DictSetOptions& options, DictResult* result);
  Status Delete(const Lane& lane, std::string_view key, const DictDeleteOptions& options,
                DictResult* result);
  Status Increment(const Lane& lane, std::string_view key, const DictIncrement& increment,
                   DictResult* result);

  // All of `then` where every compare holds, else all of `otherwise`; atomic for everybody. A step
  // whose own condition does not hold refuses the whole transaction with CONFLICT. At most
  // kTransactionOpsMax compares and steps together; a key at most once in each list that changes
  // something.
  Status Transact(const Lane& lane, std::span<const DictCompare> compares,
                  std::span<const DictOperation> then, std::span<const DictOperation> otherwise,
                  DictTransactionResult* result, const DictTransactOptions& options = {});

  // Operation ids, for the daemon. Whoever carries out a named mutation holds its session
  // meanwhile, so that two copies of it do not run at once. Without `wait` the lock may come back
  // empty.
  std::unique_lock<std::mutex> HoldSession(uint64_t session, bool wait);
  // What happened to the operation: nothing yet (*found false), or what is remembered. CONFLICT for
  // one that is older than what is remembered of its session. REQUIRES: the session is held.
  Status Recall(DictOperationId operation, DictRemembered* remembered, bool* found) const;

  // Calls `take` for each entry of buckets from *bucket on, whole buckets at a time, until `limit`
  // entries were given or all buckets seen (then *bucket is bucket_count). An entry that is there
  // all the time comes exactly once. The entry's strings may be moved from.
  Status Scan(uint32_t* bucket, size_t limit, std::string_view prefix,
              const std::function<void(DictEntry&)>& take,
              uint64_t operation_timeout_ns = kOperationTimeoutNsDefault) const;

  DictStats Stats() const;

  // Where the service has a limit of memory, a dict uses only slabs that have theirs, and asks for
  // more: whether there are such that have none yet, so that asking may help after
  // MEMORY_EXHAUSTED; the word that changes when the service answers (DictStore::BackMore).
  bool AwaitsBacking() const;
  // Slabs from here on are not to be used: there are none, or they have no memory.
  uint64_t UsableSlabs() const;
  uint64_t slabs_backed() const;
  // When the service has answered that it has no more: whether the lane was refused before somebody
  // else's question got the dict memory, or got it told to make room, so that trying again may
  // help.
  bool BackingIsNews(const Lane& lane) const;

  // The daemon's part.
  //
  // The word: how many slabs have memory, with the unused first one; 0: each gets it when it is
  // touched. With kBackingRefused there is no more, and the dict makes room: only one that evicts
  // is told so.
  void SetSlabsBacked(uint64_t word);
  bool BackingIsRefused() const;
  // One past the last slab that is cut into blocks.
  uint64_t SlabsInUse() const;
  // Calls `act` with one past the last slab that is in use, or `least` where that is more, while
  // nobody can begin to use another one. STALLED.
  Status WithUnusedSlabs(const Lane& lane, uint64_t least,
                         const std::function<void(uint64_t first)>& act) const;
  // The bound entries of one bucket, expired ones too. STALLED: it does not stand still. DATA_LOSS:
  // some of its entries are damaged, and *bound has the others.
  Status FindBound(uint32_t bucket, std::vector<DictBinding>* bound,
                   uint64_t operation_timeout_ns = kOperationTimeoutNsDefault) const;
  // Removes entries whose time is over from `buckets` buckets from *bucket on, wrapping around.
  StatusOr<uint32_t> Expire(const Lane& lane, uint32_t* bucket, uint32_t buckets);
  RecoveryReport RecoverLane(uint32_t lane);
  // Frees what only a writer that ignores the protocol leaves behind, in `buckets` buckets from
  // *bucket on. Returns how many were mended.
  uint32_t Scrub(uint32_t* bucket, uint32_t buckets,
                 const std::function<bool(uint32_t lane)>& is_leased);
  // Looks at everything. Blocks are counted only when nobody writes meanwhile (`quiet`).
  DictCheck Check(bool quiet) const;
  void SetState(DictState state);
  // Waits until nobody is inside a critical section. With state kMoving nobody enters one again.
  Status WaitUntilIdle(uint64_t timeout_ns) const;
  // Copies every sound entry into `target` (another, empty segment that nobody else uses), expired
  // ones too: their removal is yet to be told. Entries keep version, ordinal, expiry and fence; the
  // target's own versions are all higher. Returns how many were dropped because they were damaged.
  StatusOr<uint64_t> CopyInto(const Lane& lane, Dict& target) const;
  // The remembered operations alone.
  StatusOr<uint64_t> CopyOperations(const Lane& lane, Dict& target) const;
  uint64_t HighestVersion() const;

  // For whoever follows the changes, any number: the next change, and a change of state, bumps the
  // event word and wakes all who sleep on it, once. What was changed before ArmWatch is in the
  // rings when it returned true; where it returned false, look again by time. kArmedFollow sleeps
  // on follow_event; kArmedLate on watch_event, and is not woken by a change that wakes
  // kArmedFollow: those do it.
  bool ArmWatch(uint32_t who = kArmedWatch);
  bool IsArmed(uint32_t who) const {
    return (line_->armed.load(std::memory_order_relaxed) & who) != 0;
  }
  void WakeLate() const;
  const std::atomic<uint32_t>& watch_event() const { return line_->event; }
  const std::atomic<uint32_t>& follow_event() const { return line_->follow_event; }
  // See change_claim.h. To be written only where it is writable().
  std::atomic<uint64_t>& claim() const { return line_->claim; }
  // As Scan of one bucket. *sequence: the version up to which its changes are in what was given, so
  // of a change record of that bucket whether the scan saw it. STALLED while somebody is inside the
  // bucket; with `accept_held` a deletion that he is about to finish may be in what was given and
  // be told again. A damaged bucket gives its sound entries.
  Status ScanBucket(uint32_t bucket, std::string_view prefix, bool accept_held,
                    const std::function<void(DictEntry&)>& take, uint64_t* sequence,
                    uint64_t operation_timeout_ns = kOperationTimeoutNsDefault) const;
  uint32_t BucketOfKey(std::string_view key) const {
    return BucketOf(HashKey(geometry_.seed, key));
  }

  // A lane's ring of changes, for the merger: the bytes, and the words that say what is in them.
  const DictLaneRecord& LaneRecordOf(uint32_t lane) const { return Record(lane); }
  std::span<const std::byte> RingOf(uint32_t lane) const;
  uint32_t lane_high() const;

 private:
  struct Found;
  struct Section;
  class Transaction;
  class AllocatorSection;
  class Checker;
  friend class DictInternals;  // Tests damage and inspect the words through it.

  Dict(std::string name, const DictGeometry& geometry, Access access, int64_t clock_offset_ns);

  // dict.cc: places.
  DictLaneRecord& Record(uint32_t lane) const {
    return *reinterpret_cast<DictLaneRecord*>(lanes_ + lane * kLaneRecordBytes);
  }
  uint32_t BucketOf(uint64_t hash) const { return static_cast<uint32_t>(hash >> bucket_shift_); }
  std::byte* BlockAt(BlockRef ref) const { return data_ + PositionOf(ref); }
  bool RefIsSane(BlockRef ref) const;
  std::atomic<uint64_t>& LockWord(uint32_t id) const;
  bool LockIdIsSane(uint32_t id) const;

  // dict_read.cc
  bool Look(uint64_t hash, std::string_view key, Found* found) const;
  void TakeEntry(const Found& found, DictEntry* entry) const;
  template <typename Take, typename Reset>
  Status VisitBucket(uint32_t bucket, uint64_t operation_timeout_ns, Take take, Reset reset,
                     uint64_t* control = nullptr) const;
  Status ReadBucket(uint32_t bucket, std::string_view prefix, uint64_t operation_timeout_ns,
                    std::vector<DictEntry>* entries, uint64_t* sequence = nullptr,
                    bool* held = nullptr) const;
  Status ReadSound(uint32_t bucket, uint64_t operation_timeout_ns, std::vector<DictEntry>* entries,
                   uint64_t* misplaced) const;
  Status FindExpired(uint32_t bucket, uint64_t operation_timeout_ns,
                     std::vector<std::pair<std::string, uint64_t>>* expired) const;
  bool IsExpired(uint64_t expires_ms) const { return expires_ms != 0 && expires_ms <= NowMs(); }

  // dict_section.cc
  bool Lock(Section& section, uint32_t id) const;
  bool LockSlow(Section& section, uint32_t id, uint64_t* locked) const;
  Status LockBucket(Section& section, uint32_t bucket) const;
  Status LockBucketSlow(Section& section, uint32_t bucket) const;
  void Unlock(Section& section, bool changed) const;
  void Redo(Section& section, std::atomic<uint64_t>& place, uint64_t value) const;
  void Commit(Section& section) const;
  void AppendChange(Section& section, ChangeOperation operation, std::string_view key,
                    const DictValue& value, uint64_t version) const;
  void PutRing(uint32_t lane, uint64_t position, const void* bytes, size_t len) const;

  // dict_blocks.cc
  uint64_t UsableSlabs(uint64_t backed) const;
  Status RefuseFull() const;
  Status RefillMagazine(const Lane& lane, uint32_t code) const;
  Status FlushMagazine(const Lane& lane, uint32_t code, uint64_t keep) const;
  Status AllocateExtent(const Lane& lane, uint32_t slabs) const;
  Status FreeExtent(const Lane& lane) const;
  Status AllocateStaged(const Lane& lane, std::span<const uint32_t> codes) const;
  Status FreeStaged(const Lane& lane) const;
  StatusOr<BlockRef> BlockInHand(const Lane& lane, uint32_t code) const;
  Status Tidy(const Lane& lane, uint32_t code) const;
  Status TidyAll(const Lane& lane) const;
  void TidyAfter(const Lane& lane, uint32_t code) const;
  Status BeginChange(const Lane& lane) const;
  void TakeBlock(Section& section, BlockRef now, BlockRef before) const;
  void GiveBlock(Section& section, BlockRef before) const;

  // dict_watch.cc
  void TellWatchers() const;
  void WakeWatchers() const;

  // dict_write.cc
  void Fill(BlockRef ref, uint64_t hash, std::string_view key, const DictValue& value,
            uint64_t bind_session) const;
  bool HasBudget(const Lane& lane) const;
  uint64_t RoomForEntries(const Lane& lane, uint64_t inserts) const;
  Status Admit(Section& section) const;
  Status MakeRoom(const Lane& lane, uint32_t code, Status full);
  bool EvictOne(const Lane& lane, uint32_t code);
  Status Extend(Section& section, Found* found) const;
  uint64_t ExpiryFor(const DictTtl& ttl, uint64_t current) const;
  bool Holds(const DictCondition& condition, bool present, const Found& found) const;
  Status CheckFence(std::string_view key, uint64_t fence, bool present, const Found& found) const;
  Status PrepareSet(std::string_view key, const DictValue& value) const;
  Status TrySet(const Lane& lane, std::string_view key, uint64_t hash, const DictValue& value,
                const DictSetOptions& options, const DictEntry* restored, DictResult* result,
                bool* again);
  Status SetWith(const Lane& lane, std::string_view key, const DictValue& value,
                 const DictSetOptions& options, const DictEntry* restored, DictResult* result);
  void Restore(const DictEntry& restored, BlockRef ref) const;
  void FinishEntry(Section& section, const Found& found, bool present, BlockRef ref,
                   uint64_t fence) const;
  Status TryIncrement(const Lane& lane, std::string_view key, uint64_t hash,
                      const DictIncrement& increment, DictResult* result, bool* absent);
  Status AddTo(DictKind kind, uint64_t current, const DictIncrement& increment,
               std::string_view key, uint64_t* sum) const;

  // dict_operations.cc
  OperationRow* RowAt(uint32_t set, uint32_t way) const;
  OperationRow* RowOf(uint64_t session, bool take) const;
  BlockRef Remember(Section& section, DictOperationId operation, const DictResult& result,
                    uint64_t facts, BlockRef block) const;
  void FillResults(BlockRef block, std::span<const DictOperation> operations,
                   std::span<const DictOperationResult> results, bool with_entries) const;
  Status ReadResults(BlockRef block, uint64_t count,
                     std::vector<DictOperationResult>* results) const;

  // dict_recovery.cc
  std::vector<std::pair<uint64_t, uint64_t>> CopyRedo(const DictLaneRecord& record) const;
  bool ReleaseDead(uint32_t id, uint32_t lane);

  // Errors.
  Status CheckKey(std::string_view key) const;
  Status CheckWritable() const;
  Status RefuseState() const;
  Status RefuseMoving() const;
  Status RefuseStalled(uint32_t lock) const;
  Status RefuseDamaged(const char* what) const;

  const std::string name_;
  const DictGeometry geometry_;
  const Access access_;
  const int64_t clock_offset_ns_;
  const int bucket_shift_;  // The top bits of a hash say the bucket: a scan goes in their order.
  std::byte* base_ = nullptr;
  std::byte* lanes_ = nullptr;
  std::byte* rings_ = nullptr;
  std::byte* data_ = nullptr;
  DictLine* line_ = nullptr;
  AdmissionLine* admission_ = nullptr;
  AllocatorLine* allocator_ = nullptr;
  std::atomic<uint64_t>* slabs_ = nullptr;
  BucketLine* buckets_ = nullptr;
  // Inserts that a lane of this process may still make without being admitted.
  std::unique_ptr<uint16_t[]> budgets_;
  // Lanes of this process that must give blocks back before their next change.
  std::unique_ptr<bool[]> untidy_;
  // What lanes of this process had read in slabs_backed when they last found no slab; with
  // kBackingRefused only where they then tried to make room.
  std::unique_ptr<uint64_t[]> backing_seen_;
  static constexpr size_t kSessionLocks = 64;
  std::unique_ptr<std::mutex[]> session_locks_;
};

}  // namespace statehouse
