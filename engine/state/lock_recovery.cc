// What the daemon does for a lock space: recovers dead lanes and processes, ends sessions, moves
// queues on, and mends what a writer that ignores the protocol leaves behind. It trusts nothing
// that it reads: numbers and offsets are checked against the geometry, and no loop takes its bound
// from shared memory.
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
        report.redo_applied = FinishStores(record, static_cast<uint32_t>(intent - 1));
      }
      CrashFence();
      if (!MutantIs(Mutant::kLockTagKept)) StoreLock(record.tag, 0);
      CrashFence();
      control.store(ReleasedChanged(word), std::memory_order_release);
      CrashFence();
      ++report.stripes_released;
    }
  }
  const uint64_t owed = LoadLock(record.pending_wake);
  if (LockAt(owed) != nullptr) {
    WakeHoldersOf(static_cast<uint32_t>(owed));
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
    // held.
    if (place->load(std::memory_order_acquire) != LoadLock(record.redo[i].before)) continue;
    place->store(LoadLock(record.redo[i].value), std::memory_order_release);
    CrashFence();
  }
  return count > 0;
}

// Whatever the flags say: whoever should have woken them may have died between any two steps.
void LockSpace::WakeHoldersOf(uint32_t lock_number) const {
  uint32_t number = LowOf(LoadLock(LockAt(lock_number)->holders));
  for (uint32_t steps = 0; number != 0 && steps < geometry_.requests_max; ++steps) {
    RequestSlot* const request = RequestAt(number);
    if (request == nullptr || LockNumberOf(LoadLock(request->state)) != lock_number) break;
    WakeRequest(*request, true);
    number = HighOf(LoadLock(request->links));
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
  const uint32_t high =
      std::min(pool_->requests_high.load(std::memory_order_acquire), geometry_.requests_max);
  for (uint32_t number = 1; number <= high; ++number) {
    const uint64_t state = LoadLock(RequestAt(number)->state);
    if (BlockWordOf(state) != owner || state == 0) continue;
    bool was_held = false;
    if (End(own, number, 0, &was_held, nullptr).reason() == Reason::kDataLoss) {
      // The lock that it names does not know it. Mending the bucket has the last word.
      const LockSlot* const lock = LockAt(LockNumberOf(state));
      if (lock != nullptr) (void)MendBucket(own, BucketOf(LoadLock(lock->hash)));
      RequestAt(number)->state.store(0, std::memory_order_release);
    }
    held += was_held ? 1 : 0;
  }
  const uint32_t locks =
      std::min(pool_->locks_high.load(std::memory_order_acquire), geometry_.locks_max);
  const uint64_t claimed = kLockClaimed | uint64_t{owner} << kRequestBlockShift;
  for (uint32_t number = 1; number <= locks; ++number) {
    if (LoadLock(LockAt(number)->state) == claimed) ReturnLock(number);
  }
  pool_->requests_hint.store(0, std::memory_order_relaxed);
  return held;
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
    const LockLook look = Look(number);
    remotes.push_back(
        {number, look.phase, LoadLock(request.session), LoadLock(request.request_id)});
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
    if (End(own, number, 0, &was_held, nullptr).ok() && was_held) ++held;
  }
  return held;
}

LockScan LockSpace::ScanRequests(const Lane& own) {
  LockScan scan;
  const uint64_t now = NowNs();
  const uint32_t high =
      std::min(pool_->requests_high.load(std::memory_order_acquire), geometry_.requests_max);
  for (uint32_t number = 1; number <= high; ++number) {
    const uint64_t state = LoadLock(RequestAt(number)->state);
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
  space_->armed.store(1, std::memory_order_seq_cst);
  const uint32_t now = space_->event.load(std::memory_order_seq_cst);
  if (now == seen) FutexWait(space_->event, now, timeout_ns);
  space_->armed.store(0, std::memory_order_seq_cst);
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

// Whether the bucket's chain and the lists of its locks lead only where they may. A bucket that is
// in use is taken to be sound.
bool LockSpace::ChainIsSound(uint32_t bucket) const {
  const uint64_t word = buckets_[bucket].control.load(std::memory_order_acquire);
  if (OwnerOf(word) != 0) return true;
  bool sound = true;
  uint64_t number = LoadLock(buckets_[bucket].head);
  for (uint32_t steps = 0; number != 0 && sound; ++steps) {
    const LockSlot* const lock = LockAt(number);
    sound = lock != nullptr && steps < kLockChainMax && LoadLock(lock->state) == kLockLinked &&
            BucketOf(LoadLock(lock->hash)) == bucket;
    if (!sound) break;
    for (const auto& [first, kind] :
         {std::pair{LowOf(LoadLock(lock->holders)), RequestKind::kHolding},
          std::pair{LowOf(LoadLock(lock->queue)), RequestKind::kWaiting}}) {
      uint32_t at = first;
      uint32_t before = 0;
      for (uint32_t i = 0; at != 0 && sound; ++i) {
        const RequestSlot* const request = RequestAt(at);
        sound = request != nullptr && i < geometry_.requests_max &&
                KindOf(LoadLock(request->state)) == kind &&
                LockNumberOf(LoadLock(request->state)) == number &&
                LowOf(LoadLock(request->links)) == before;
        if (!sound) break;
        before = at;
        at = HighOf(LoadLock(request->links));
      }
    }
    number = LoadLock(lock->next);
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  // Whatever was seen while somebody changed it says nothing.
  return sound || buckets_[bucket].control.load(std::memory_order_acquire) != word;
}

// Whether a linked lock hangs in its chain; true where the chain changes meanwhile.
bool LockSpace::IsReachable(uint32_t lock_number) const {
  const LockSlot& wanted = *LockAt(lock_number);
  const uint32_t bucket = BucketOf(LoadLock(wanted.hash));
  const uint64_t word = buckets_[bucket].control.load(std::memory_order_acquire);
  if (OwnerOf(word) != 0) return true;
  uint64_t number = LoadLock(buckets_[bucket].head);
  for (uint32_t steps = 0; steps < kLockChainMax; ++steps) {
    const LockSlot* const lock = LockAt(number);
    if (lock == nullptr) break;
    if (number == lock_number) return true;
    number = LoadLock(lock->next);
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  return buckets_[bucket].control.load(std::memory_order_acquire) != word ||
         LoadLock(wanted.state) != kLockLinked;
}

// Empties a damaged bucket: its locks are gone, and whoever held or waited is told so. False when
// the bucket cannot be had. Killed in the middle it leaves locks that hang in no chain: the next
// sweep finds them and comes here again.
bool LockSpace::MendBucket(const Lane& own, uint32_t bucket) {
  Section section(own, Record(own.id));
  if (!Lock(section, bucket).ok()) return false;
  buckets_[bucket].head.store(0, std::memory_order_release);
  CrashFence();
  const auto is_of_bucket = [&](const LockSlot& lock) {
    return LoadLock(lock.state) == kLockLinked && BucketOf(LoadLock(lock.hash)) == bucket;
  };
  const uint32_t high =
      std::min(pool_->requests_high.load(std::memory_order_acquire), geometry_.requests_max);
  for (uint32_t number = 1; number <= high; ++number) {
    RequestSlot& request = *RequestAt(number);
    const uint64_t state = LoadLock(request.state);
    if (KindOf(state) != RequestKind::kHolding && KindOf(state) != RequestKind::kWaiting) continue;
    const LockSlot* const lock = LockAt(LockNumberOf(state));
    if (lock != nullptr && !is_of_bucket(*lock)) continue;
    request.state.store(Unbound(state, RequestKind::kLost), std::memory_order_release);
    WakeRequest(request, true);
  }
  CrashFence();
  const uint32_t locks =
      std::min(pool_->locks_high.load(std::memory_order_acquire), geometry_.locks_max);
  for (uint32_t number = 1; number <= locks; ++number) {
    if (is_of_bucket(*LockAt(number))) ReturnLock(number);
  }
  space_->event.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(space_->event);
  Unlock(section);
  return true;
}

}  // namespace statehouse
