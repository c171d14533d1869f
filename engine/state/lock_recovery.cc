// What the daemon does for a lock space: recovers dead lanes and processes, ends sessions and moves
// queues on. It trusts nothing
// that it reads: numbers and offsets are checked against the geometry, and no loop takes its bound
// from shared memory.
#include <set>

#include "engine/state/lock_internal.h"

namespace statehouse {
namespace {

constexpr uint64_t kDaemonBlockWord = 1;  // Block 0.

}  // namespace

RecoveryReport LockSpace::RecoverLane(const Lane& own, uint32_t lane) {
  RecoveryReport report;
  if (lane == 0 || lane >= geometry_.lane_count) return report;
  LockLaneRecord& record = Record(lane);
  const uint64_t intent = LoadLock(record.intent);
  const bool names_bucket = intent != 0 && intent <= geometry_.bucket_count;
  if (names_bucket) {
    std::atomic<uint64_t>& control = buckets_[intent - 1].control;
    const uint64_t word = control.load(std::memory_order_acquire);
    if (OwnerOf(word) == lane) {
      if (LoadLock(record.tag) == word) {
        const auto bucket = static_cast<uint32_t>(intent - 1);
        report.repaired = LoadLock(record.redo_count) == kLockRedoMend;
        if (report.repaired) {
          EmptyBucket(bucket);
        } else {
          report.redo_applied = FinishStores(record, bucket);
        }
      }
      // It may have died before it noted whom it owes a wake-up.
      WakeSleepers();
      CrashFence();
      if (!MutantIs(Mutant::kLockTagKept)) StoreLock(record.tag, 0);
      CrashFence();
      control.store(ReleasedChanged(word), std::memory_order_release);
      CrashFence();
      ++report.stripes_released;
    }
  }
  if (LoadLock(record.pending_wake) != 0) {
    WakeSleepers();
    report.wake_replayed = true;
  }
  CrashFence();
  StoreLock(record.pending_wake, 0);
  // The lane may have died between two steps.
  if (names_bucket) ServeBucket(own, static_cast<uint32_t>(intent - 1));
  return report;
}

// Carries out what is left of the list of stores. Returns whether there was one.
bool LockSpace::FinishStores(const LockLaneRecord& record, uint32_t bucket) const {
  const uint64_t count = std::min<uint64_t>(LoadLock(record.redo_count), kLockRedoStoresMax);
  const uint64_t head =
      kLockBucketsOffset + bucket * sizeof(LockBucketLine) + offsetof(LockBucketLine, head);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t offset = LoadLock(record.redo[i].offset);
    const bool inside =
        offset % 8 == 0 && offset >= geometry_.locks_offset() && offset < geometry_.segment_bytes();
    if (!inside && offset != head) continue;
    auto* const place = reinterpret_cast<std::atomic<uint64_t>*>(base_ + offset);
    // Else the dead lane stored it, and it may have changed since: a request that it took from its
    // holder can be a holder again, elsewhere. Nobody can bring `before` back while the bucket is
    // held, because it names the lock.
    if (place->load(std::memory_order_acquire) != LoadLock(record.redo[i].before)) continue;
    place->store(LoadLock(record.redo[i].value), std::memory_order_release);
    CrashFence();
  }
  return count > 0;
}

// Wakes everybody who sleeps and does not wait any more: whoever should have done it may have died
// between any two steps.
void LockSpace::WakeSleepers() const {
  // SYNC: lock.wake
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const uint32_t high =
      std::min(pool_->requests_high.load(std::memory_order_acquire), geometry_.requests_max);
  for (uint32_t number = 1; number <= high; ++number) {
    RequestSlot& request = *RequestAt(number);
    const RequestKind kind = KindOf(request.state.load(std::memory_order_acquire));
    if (kind == RequestKind::kHolding || kind == RequestKind::kLost) WakeRequest(request, false);
  }
  space_->event.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(space_->event);
}

void LockSpace::ServeBucket(const Lane& own, uint32_t bucket) {
  uint64_t number = LoadLock(buckets_[bucket].head);
  for (uint32_t steps = 0; number != 0 && steps < kLockChainMax; ++steps) {
    const LockSlot* const lock = LockAt(number);
    if (lock == nullptr) return;
    // What it refuses is damaged, or held for long: the next scan comes back to it.
    if (LoadLock(lock->queue) != 0) (void)ServeLock(own, static_cast<uint32_t>(number));
    number = LoadLock(lock->next);
  }
}

uint32_t LockSpace::RecoverBlock(const Lane& own, uint32_t block) {
  const uint32_t owner = block + 1;
  uint32_t held = 0;
  std::vector<uint32_t> unknown;  // Requests that the locks which they name do not know.
  std::set<uint32_t> buckets;
  std::set<uint32_t> stuck;
  const uint32_t high =
      std::min(pool_->requests_high.load(std::memory_order_acquire), geometry_.requests_max);
  for (uint32_t number = 1; number <= high; ++number) {
    const uint64_t state = LoadLock(RequestAt(number)->state);
    if (BlockWordOf(state) != owner || state == 0) continue;
    bool was_held = false;
    if (EndForGood(own, number, &stuck, &was_held).reason() == Reason::kDataLoss) {
      const LockSlot* const lock = LockAt(LockNumberOf(state));
      if (lock != nullptr) buckets.insert(BucketOf(LoadLock(lock->hash)));
      unknown.push_back(number);
    }
    held += was_held ? 1 : 0;
  }
  // Each bucket once, however many there are.
  for (const uint32_t bucket : buckets) (void)MendBucket(own, bucket, 0);
  for (const uint32_t number : unknown) ReturnRequest(number);
  const uint32_t locks =
      std::min(pool_->locks_high.load(std::memory_order_acquire), geometry_.locks_max);
  const uint64_t claimed = kLockClaimed | uint64_t{owner} << kRequestBlockShift;
  for (uint32_t number = 1; number <= locks; ++number) {
    if (LoadLock(LockAt(number)->state) == claimed) ReturnLock(number);
  }
  pool_->requests_hint.store(0, std::memory_order_relaxed);
  return held;
}

// Ends a request whose process or session is gone. Where its bucket cannot be had now, the next
// scan does it.
Status LockSpace::EndForGood(const Lane& own, uint32_t number, std::set<uint32_t>* stuck,
                             bool* held) {
  const LockSlot* const lock = LockAt(LockNumberOf(LoadLock(RequestAt(number)->state)));
  const uint32_t bucket = lock == nullptr ? 0 : BucketOf(LoadLock(lock->hash));
  // A bucket is waited for once, however many requests there are in it.
  const bool skip = lock != nullptr && stuck->count(bucket) > 0;
  const Status ended = skip ? RefuseStalled(bucket) : End(own, number, 0, held, nullptr);
  if (ended.reason() == Reason::kStalled) stuck->insert(bucket);
  if (!ended.ok()) StoreLock(RequestAt(number)->session, kGoneSession);
  return ended;
}

std::vector<LockRemote> LockSpace::TakeRemotes() {
  std::vector<LockRemote> remotes;
  const uint32_t high =
      std::min(pool_->requests_high.load(std::memory_order_acquire), geometry_.requests_max);
  for (uint32_t number = 1; number <= high; ++number) {
    RequestSlot& request = *RequestAt(number);
    const uint64_t state = request.state.load(std::memory_order_acquire);
    if (BlockWordOf(state) != kDaemonBlockWord) continue;
    if (KindOf(state) == RequestKind::kClaimed) {
      request.state.store(0, std::memory_order_release);
      continue;
    }
    LockRemote remote;
    remote.place = number;
    remote.phase = Look(number).phase;
    remote.session = LoadLock(request.session);
    remote.request_id = LoadLock(request.request_id);
    remote.since_ns = LoadLock(request.since_ns);
    const LockSlot* const lock = LockAt(LockNumberOf(state));
    if (lock != nullptr) remote.name = NameOf(*lock);
    remotes.push_back(std::move(remote));
  }
  const uint64_t claimed = kLockClaimed | kDaemonBlockWord << kRequestBlockShift;
  const uint32_t locks =
      std::min(pool_->locks_high.load(std::memory_order_acquire), geometry_.locks_max);
  for (uint32_t number = 1; number <= locks; ++number) {
    if (LoadLock(LockAt(number)->state) == claimed) ReturnLock(number);
  }
  return remotes;
}

LockPlace LockSpace::FindRemote(uint64_t session, uint64_t request_id) const {
  const uint32_t high =
      std::min(pool_->requests_high.load(std::memory_order_acquire), geometry_.requests_max);
  for (uint32_t number = 1; number <= high; ++number) {
    const RequestSlot& request = *RequestAt(number);
    const uint64_t state = LoadLock(request.state);
    if (BlockWordOf(state) == kDaemonBlockWord && KindOf(state) != RequestKind::kClaimed &&
        LoadLock(request.session) == session && LoadLock(request.request_id) == request_id) {
      return number;
    }
  }
  return 0;
}

uint32_t LockSpace::EndSession(const Lane& own, uint64_t session) {
  uint32_t held = 0;
  std::set<uint32_t> stuck;
  const uint32_t high =
      std::min(pool_->requests_high.load(std::memory_order_acquire), geometry_.requests_max);
  for (uint32_t number = 1; number <= high; ++number) {
    const RequestSlot& request = *RequestAt(number);
    const uint64_t state = LoadLock(request.state);
    if (BlockWordOf(state) != kDaemonBlockWord || KindOf(state) == RequestKind::kClaimed ||
        LoadLock(request.session) != session) {
      continue;
    }
    bool was_held = false;
    if (EndForGood(own, number, &stuck, &was_held).ok() && was_held) ++held;
  }
  return held;
}

LockScan LockSpace::ScanRequests(const Lane& own) {
  LockScan scan;
  std::set<uint32_t> stuck;
  const uint64_t now = NowNs();
  const uint32_t high =
      std::min(pool_->requests_high.load(std::memory_order_acquire), geometry_.requests_max);
  for (uint32_t number = 1; number <= high; ++number) {
    // SYNC: lock.state — who asks stores the session before the state.
    uint64_t state = RequestAt(number)->state.load(std::memory_order_acquire);
    const bool asked =
        KindOf(state) != RequestKind::kFree && KindOf(state) != RequestKind::kClaimed;
    if (asked && LoadLock(RequestAt(number)->session) == kGoneSession) {
      bool held = false;
      (void)EndForGood(own, number, &stuck, &held);
      state = LoadLock(RequestAt(number)->state);
    }
    if (KindOf(state) == RequestKind::kHolding) ++scan.holding;
    if (KindOf(state) != RequestKind::kWaiting) continue;
    ++scan.waiting;
    const uint32_t lock_number = LockNumberOf(state);
    const LockSlot* const lock = LockAt(lock_number);
    if (lock == nullptr || LowOf(LoadLock(lock->queue)) != number) continue;
    if (MayServe(lock_number, now, &scan.next_ns) && ServeLock(own, lock_number).ok()) {
      ++scan.served;
    }
  }
  return scan;
}

void LockSpace::RaiseToken(uint64_t last_token) {
  uint64_t last = tokens_->last.load(std::memory_order_relaxed);
  while (last < last_token && !tokens_->last.compare_exchange_weak(last, last_token)) {
  }
}

uint32_t LockSpace::WaitForEvent(uint32_t seen, uint64_t timeout_ns) {
  const uint64_t begin = NowNs();
  space_->looks_ns.store(timeout_ns > UINT64_MAX - begin ? UINT64_MAX : begin + timeout_ns,
                         std::memory_order_relaxed);
  // SYNC: lock.daemon
  space_->armed.store(1, std::memory_order_seq_cst);
  const uint32_t now = space_->event.load(std::memory_order_seq_cst);
  if (now == seen) FutexWait(space_->event, now, timeout_ns);
  space_->armed.store(0, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return space_->event.load(std::memory_order_seq_cst);
}

void LockSpace::WakeDaemon() {
  space_->event.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(space_->event);
}

void LockSpace::Retire() {
  space_->state.store(static_cast<uint32_t>(LockSpaceState::kRetired), std::memory_order_seq_cst);
  const uint32_t high =
      std::min(pool_->requests_high.load(std::memory_order_acquire), geometry_.requests_max);
  for (uint32_t number = 1; number <= high; ++number) WakeRequest(*RequestAt(number), true);
}

}  // namespace statehouse
