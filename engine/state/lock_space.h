// LockSpace: the named locks of a service, as leases in one shared segment. The same code runs in
// the daemon and in each attached worker.
//
// What it is: a mapping of the segment (docs/formats/lock_segment.md, engine/shm/lock_layout.h): a
//   table of locks, and requests, which hold a lock or wait for it in a queue. A request belongs to
//   a process, and with it ends. The daemon's requests stand for clients of the network door and
//   belong to their sessions.
// Who owns it: whoever called Map. It unmaps when destroyed; no operation may be under way then.
// Threads: any number at once, as long as no two use the same Lane at the same time, and no two
//   work on the same request. Look needs no lane.
// Always true: among unexpired leases of a lock there is one exclusive holder (as many as its limit
//   for a semaphore) or any number of shared ones; requests are served in the order of their
//   arrival, shared ones that follow each other together; every grant has a higher fencing token
//   than every grant before it, of any lock. An operation happened wholly or not at all once it
//   returns or once the daemon recovered its killed lane.
// Failure: a refused operation changed nothing. A lease alone does not exclude: who writes must
//   show its token (DictSetOptions::fence), because a holder may be stopped past its lease's end.
//
// Times are on the daemon's CLOCK_MONOTONIC; `clock_offset_ns` brings this process's clock there. A
// lease lasts at least its ttl and at most 10 ms longer.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/hash.h"
#include "engine/base/limits.h"
#include "engine/base/status.h"
#include "engine/shm/lock_layout.h"
#include "engine/state/area.h"

namespace statehouse {

struct LockGeometry {
  HashSeed seed;
  uint32_t bucket_count = 0;  // A power of two.
  uint32_t locks_max = 0;
  uint32_t requests_max = 0;
  uint32_t lane_count = 0;

  // The geometry of a new space. REQUIRES: 0 < locks_max <= kLocksMaxLimit.
  static LockGeometry For(uint32_t locks_max, uint32_t lane_count = kLanesMax);
  // INVALID_ARGUMENT where the parts contradict each other: what a worker checks before it maps.
  Status Validate() const;

  uint64_t lanes_offset() const;
  uint64_t locks_offset() const;
  uint64_t requests_offset() const;
  uint64_t segment_bytes() const;

  friend bool operator==(const LockGeometry&, const LockGeometry&) = default;
};

enum class LockMode : uint8_t { kExclusive = 1, kShared = 2 };

struct LockRequest {
  LockMode mode = LockMode::kExclusive;
  // Exclusive: how many may hold it at once (a semaphore). All requests of a lock say the same
  // while it is in use.
  uint32_t limit = 1;
  uint64_t ttl_ns = kLockTtlNsDefault;
  // Renewals reach at most so far after the grant, so that a holder that hangs and renews loses it
  // in the end. 0: no bound.
  uint64_t hold_ns_max = 0;
  bool queue = true;           // False: only if it can be had at once.
  uint64_t wait_until_ns = 0;  // Not granted any more from then on; 0: no end.
  std::string_view owner;      // Who asks, for people; cut to kLockOwnerBytesMax bytes.
  // Of the daemon's requests alone.
  bool remote = false;
  uint64_t session = 0;
  uint64_t request_id = 0;
};

// A request's place, until Release: its number. 0 is none.
using LockPlace = uint32_t;

enum class LockPhase : uint8_t { kNone, kWaiting, kHolding, kLost };

// How a request stands.
struct LockLook {
  LockPhase phase = LockPhase::kNone;
  uint64_t token = 0;       // kHolding: its fencing token.
  uint64_t expires_ns = 0;  // kHolding: the lease's end.
};

// A holder or waiter, for people.
struct LockParty {
  LockMode mode = LockMode::kExclusive;
  std::string owner;
  uint64_t session = 0;  // 0: a worker of this host, with lanes of `block`.
  uint32_t block = 0;
  uint64_t token = 0;       // Of a holder.
  uint64_t since_ns = 0;    // Holds or waits since.
  uint64_t expires_ns = 0;  // Of a holder.
};

struct LockDescription {
  std::string name;
  uint32_t limit = 1;
  uint32_t holder_count = 0;
  uint32_t waiter_count = 0;
  std::vector<LockParty> holders;  // At most as many as were asked for, in no order;
  std::vector<LockParty> waiters;  // in the order in which they will be served.
};

struct LockStats {
  uint64_t grants = 0;
  uint64_t releases = 0;
  uint64_t expirations = 0;
  uint64_t contended = 0;
};

// What a look at all requests found.
struct LockScan {
  uint32_t holding = 0;
  uint32_t waiting = 0;
  uint32_t served = 0;            // Locks whose queue was moved on.
  uint64_t next_ns = UINT64_MAX;  // When the next lease ends that somebody waits for.
};

// A request of the daemon, for a daemon that starts.
struct LockRemote {
  LockPlace place = 0;
  LockPhase phase = LockPhase::kNone;
  uint64_t session = 0;
  uint64_t request_id = 0;
  std::string name;       // Of the lock, unless the request has lost it.
  uint64_t since_ns = 0;  // Holds or waits since.
};

class LockSpace final {
 public:
  // Writes a new segment's header; only the daemon calls it. Tokens are higher than `last_token`.
  static Status Format(const LockGeometry& geometry, const uint64_t uuid[2], uint64_t last_token,
                       int segment);
  // Writes the header of an existing segment again, for a daemon that takes it over.
  static Status RestoreHeader(const LockGeometry& geometry, int segment);
  // Errors: as Area::Map. The segment is always mapped for writing.
  static StatusOr<std::unique_ptr<LockSpace>> Map(const LockGeometry& geometry, int segment,
                                                  int64_t clock_offset_ns = 0);
  ~LockSpace();
  LockSpace(const LockSpace&) = delete;
  LockSpace& operator=(const LockSpace&) = delete;

  const LockGeometry& geometry() const { return geometry_; }
  bool live() const {
    return space_->state.load(std::memory_order_acquire) ==
           static_cast<uint32_t>(LockSpaceState::kLive);
  }
  uint64_t NowNs() const;
  // For tests: moves the clock of this mapping.
  void SetClockOffset(int64_t ns) { clock_offset_ns_.store(ns, std::memory_order_relaxed); }

  // Makes lanes ready. Call once for each lane before it operates, and again when another process
  // may have had it meanwhile.
  Status PrepareLanes(uint32_t first_lane, uint32_t lane_count);

  // Asks for a lock. On success *place is the request, and *look says whether it holds or waits; 0
  // where it does not `queue` and the lock is taken. Errors: NAME_INVALID, INVALID_ARGUMENT (ttl,
  // limit), CONFLICT (in use with another limit), LIMIT_EXCEEDED (locks, requests), STALLED,
  // DATA_LOSS, UNAVAILABLE (the space is gone).
  Status Acquire(const Lane& lane, std::string_view name, const LockRequest& request,
                 LockPlace* place, LockLook* look);
  // How the request stands now. An expired lease is kLost.
  LockLook Look(LockPlace place) const;
  // Sleeps until the request does not wait any more, at most `timeout_ns`. Serves the queue itself
  // where the lease of the holder before it ends, so that nothing depends on the daemon.
  StatusOr<LockLook> Wait(const Lane& lane, LockPlace place, uint64_t timeout_ns);
  // The same in parts, for a thread that must not keep its lane while it sleeps: sleeps, and says
  // in *serve that the caller shall call ServeFor with a lane and come back.
  LockLook Sleep(LockPlace place, uint64_t timeout_ns, bool* serve) const;
  Status ServeFor(const Lane& lane, LockPlace place);
  // Lengthens the lease to `ttl_ns` from now (0: the ttl that it was asked with). LOCK_LOST where
  // it is over.
  Status Renew(const Lane& lane, LockPlace place, uint64_t ttl_ns, LockLook* look);
  // Gives the lock back or leaves the queue, and ends the request. *held: it held the lock until
  // now. The places of the daemon's requests that hold a lock now through this are added to
  // `granted`, if that is not null. `own_block`: the block that asked, where it is another one of
  // this process than the lane's.
  Status Release(const Lane& lane, LockPlace place, bool* held,
                 std::vector<LockPlace>* granted = nullptr, uint32_t own_block = kLaneBlocksMax);

  // For operators: takes the lock from the holder with this token (0: from every holder). Returns
  // from how many.
  StatusOr<uint32_t> ForceRelease(const Lane& lane, std::string_view name, uint64_t token);
  // Holders and waiters, at most `parties_max` of each. *found false: nobody holds it or waits.
  Status Describe(const Lane& lane, std::string_view name, size_t parties_max,
                  LockDescription* description, bool* found) const;
  // Locks that somebody holds or waits for, from bucket *bucket on, whole buckets at a time, until
  // `limit` were given or all buckets were seen (then *bucket is bucket_count).
  Status List(const Lane& lane, std::string_view prefix, uint32_t* bucket, size_t limit,
              size_t parties_max, const std::function<void(LockDescription&)>& take) const;
  LockStats Stats() const;
  uint64_t LastToken() const { return tokens_->last.load(std::memory_order_relaxed); }

  // The daemon's part.
  //
  // Finishes what a killed lane left half done. `own` is the caller's.
  RecoveryReport RecoverLane(const Lane& own, uint32_t lane);
  // The process of the block is dead: ends all its requests. Its lanes were recovered before.
  // Returns how many locks it held.
  uint32_t RecoverBlock(const Lane& own, uint32_t block);
  // What an earlier daemon left: frees what it had not used, and tells its requests.
  std::vector<LockRemote> TakeRemotes();
  // The daemon's request of this session and id, or 0.
  LockPlace FindRemote(uint64_t session, uint64_t request_id) const;
  // Ends all requests of a session of the daemon's. Returns how many locks it held.
  uint32_t EndSession(const Lane& own, uint64_t session);
  // Looks at all requests and moves queues on whose holder's lease is over.
  LockScan ScanRequests(const Lane& own);
  // Frees idle locks, mends what only a writer that ignores the protocol leaves behind, in `locks`
  // locks from *next on, wrapping around. Returns how many buckets were mended: their holders have
  // lost their locks.
  uint32_t Sweep(const Lane& own, uint32_t* next, uint32_t locks,
                 const std::function<bool(uint32_t lane)>& is_leased);
  // Tokens are higher than this from now on.
  void RaiseToken(uint64_t last_token);
  // Sleeps until something happened to a request of the daemon's since `seen` (an earlier result),
  // or somebody began to wait, at most `timeout_ns`. Returns the new value.
  uint32_t WaitForEvent(uint32_t seen, uint64_t timeout_ns);
  void WakeDaemon();
  void Retire();

  // What is wrong with the space, for tests and people. Only while nobody changes it.
  std::vector<std::string> Check() const;

 private:
  struct Section;
  struct Audit;
  friend class LockInternals;  // Tests damage and inspect the words through it.

  explicit LockSpace(const LockGeometry& geometry, int64_t clock_offset_ns);

  // lock_space.cc: places and times.
  LockLaneRecord& Record(uint32_t lane) const {
    return *reinterpret_cast<LockLaneRecord*>(lanes_ + lane * kLockLaneRecordBytes);
  }
  LockSlot* LockAt(uint64_t number) const;        // Null for 0 and beyond the geometry.
  RequestSlot* RequestAt(uint64_t number) const;  // The same.
  uint32_t BucketOf(uint64_t hash) const {
    return static_cast<uint32_t>(hash) & (geometry_.bucket_count - 1);
  }
  uint64_t CoarseNowNs() const;
  std::string NameOf(const LockSlot& lock) const;
  bool NameIs(const LockSlot& lock, uint64_t hash, std::string_view name) const;
  Status CheckRequest(std::string_view name, const LockRequest& request) const;
  Status RefuseStalled(uint32_t bucket) const;
  Status RefuseDamaged(const char* what) const;
  Status RefuseGone() const;

  // lock_pool.cc: free locks and requests.
  StatusOr<uint32_t> ClaimRequest(const Lane& lane);
  void FreeRequest(const Lane& lane, uint32_t number);
  void ReturnRequest(uint32_t number);
  StatusOr<uint32_t> ClaimLock(const Lane& lane);
  void ReturnLock(uint32_t number) const;
  uint32_t SweepIdle(const Lane& lane, uint32_t first, uint32_t count, uint64_t idle_ns);

  // lock_section.cc: the critical section and the steps in it.
  Status Lock(Section& section, uint32_t bucket) const;
  void Unlock(Section& section) const;
  void Redo(Section& section, std::atomic<uint64_t>& place, uint64_t value) const;
  void Commit(Section& section) const;
  StatusOr<uint32_t> FindLock(uint32_t bucket, uint64_t hash, std::string_view name) const;
  void LinkLock(Section& section, uint32_t number, uint64_t hash, std::string_view name,
                uint32_t limit) const;
  bool CanHold(const LockSlot& lock, bool shared) const;
  void FillGrant(RequestSlot& request, uint64_t now) const;
  void Hold(Section& section, uint32_t lock, uint32_t request, uint64_t state) const;
  void Enqueue(Section& section, uint32_t lock, uint32_t request, uint64_t state) const;
  Status LeaveHolders(Section& section, uint32_t lock, uint32_t request, uint64_t state) const;
  Status LeaveQueue(Section& section, uint32_t lock, uint32_t request, uint64_t state) const;
  Status GrantHead(Section& section, uint32_t lock, uint64_t now) const;
  Status ExpireHolders(Section& section, uint32_t lock, uint64_t now) const;
  Status Serve(Section& section, uint32_t lock) const;
  void PayWakes(Section& section) const;
  void TellDaemon(uint64_t look_ns) const;
  void WakeRequest(RequestSlot& request, bool always) const;

  // lock_requests.cc
  Status TryAcquire(Section& section, std::string_view name, uint64_t hash,
                    const LockRequest& request, uint32_t* spare_lock, uint32_t place, bool* missing,
                    LockLook* look);
  // Locks the bucket of the lock that the request is with. *lock is 0 where it is with none.
  Status LockOf(Section& section, const RequestSlot& request, uint32_t* lock) const;
  Status End(const Lane& lane, uint32_t place, uint64_t state, bool* held,
             std::vector<LockPlace>* granted);
  bool MayServe(uint32_t lock, uint64_t now, uint64_t* next_ns) const;
  Status ServeLock(const Lane& lane, uint32_t lock);

  // lock_recovery.cc
  bool FinishStores(const LockLaneRecord& record, uint32_t bucket) const;
  void ServeBucket(const Lane& own, uint32_t bucket);
  void WakeSleepers() const;
  Status EndForGood(const Lane& own, uint32_t number, std::set<uint32_t>* stuck, bool* held);

  // lock_mend.cc
  bool ListIsSound(uint32_t lock_number, RequestKind kind, uint32_t* budget) const;
  bool ChainIsSound(uint32_t bucket) const;
  bool HangsInChain(uint32_t bucket, uint32_t lock_number) const;
  bool LooksSound(uint32_t bucket) const;
  bool LooksLost(uint32_t lock_number) const;
  bool MendBucket(const Lane& own, uint32_t bucket, uint32_t lock_number);
  void EmptyBucket(uint32_t bucket) const;

  // lock_describe.cc
  void DescribeLock(const LockSlot& lock, size_t parties_max, LockDescription* description) const;

  const LockGeometry geometry_;
  std::atomic<int64_t> clock_offset_ns_;
  std::byte* base_ = nullptr;
  SpaceLine* space_ = nullptr;
  TokenLine* tokens_ = nullptr;
  PoolLine* pool_ = nullptr;
  LockBucketLine* buckets_ = nullptr;
  std::byte* lanes_ = nullptr;
  LockSlot* locks_ = nullptr;
  RequestSlot* requests_ = nullptr;
  // Requests that a lane of this process claimed and does not use now.
  std::unique_ptr<std::vector<uint32_t>[]> spare_;
};

}  // namespace statehouse
