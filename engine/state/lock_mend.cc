// What only a writer that ignores the protocol leaves behind, and how the daemon mends it: a bucket
// whose chain or lists lead where they may not is emptied, and whoever held or waited is told so.
// Nothing that is read here is trusted, and no loop takes its bound from shared memory.
#include "engine/state/lock_internal.h"

namespace statehouse {
namespace {

// A lock that nobody holds or waits for is kept so long, so that the next request finds it.
constexpr uint64_t kIdleNs = 60'000'000'000;
// Emptying a bucket looks at every request.
constexpr uint32_t kMendsPerSweep = 8;

}  // namespace

// Whether the holders or the queue of a lock are what the lock says of them. Looks at no more than
// *budget requests, and takes off what it looked at.
bool LockSpace::ListIsSound(uint32_t lock_number, RequestKind kind, uint32_t* budget) const {
  const LockSlot& lock = *LockAt(lock_number);
  const bool holding = kind == RequestKind::kHolding;
  const uint64_t ends = LoadLock(holding ? lock.holders : lock.queue);
  uint32_t before = 0;
  uint64_t count = 0;
  for (uint32_t at = LowOf(ends); at != 0; ++count) {
    const RequestSlot* const request = RequestAt(at);
    if (request == nullptr || *budget == 0) return false;
    --*budget;
    const uint64_t state = LoadLock(request->state);
    const uint64_t links = LoadLock(request->links);
    if (KindOf(state) != kind || LockNumberOf(state) != lock_number || LowOf(links) != before) {
      return false;
    }
    before = at;
    at = HighOf(links);
  }
  if (holding) return HighOf(ends) == count;
  return HighOf(ends) == before && LoadLock(lock.waiting) == count;
}

// REQUIRES: the bucket is held, or the answer is a guess.
bool LockSpace::ChainIsSound(uint32_t bucket) const {
  uint32_t budget = geometry_.requests_max;
  uint64_t number = LoadLock(buckets_[bucket].head);
  for (uint32_t steps = 0; number != 0; ++steps) {
    const LockSlot* const lock = LockAt(number);
    if (lock == nullptr || steps == kLockChainMax) return false;
    if (lock->state.load(std::memory_order_acquire) != kLockLinked ||
        BucketOf(LoadLock(lock->hash)) != bucket) {
      return false;
    }
    const auto lock_number = static_cast<uint32_t>(number);
    if (!ListIsSound(lock_number, RequestKind::kHolding, &budget) ||
        !ListIsSound(lock_number, RequestKind::kWaiting, &budget)) {
      return false;
    }
    number = LoadLock(lock->next);
  }
  return true;
}

// The same.
bool LockSpace::HangsInChain(uint32_t bucket, uint32_t lock_number) const {
  uint64_t number = LoadLock(buckets_[bucket].head);
  for (uint32_t steps = 0; steps < kLockChainMax; ++steps) {
    if (number == lock_number) return true;
    const LockSlot* const lock = LockAt(number);
    if (lock == nullptr) return false;
    number = LoadLock(lock->next);
  }
  return false;
}

// Without the bucket. What is in use, or changes meanwhile, is taken to be sound.
bool LockSpace::LooksSound(uint32_t bucket) const {
  const uint64_t word = buckets_[bucket].control.load(std::memory_order_acquire);
  if (OwnerOf(word) != 0 || ChainIsSound(bucket)) return true;
  std::atomic_thread_fence(std::memory_order_acquire);
  return buckets_[bucket].control.load(std::memory_order_relaxed) != word;
}

// The same: whether it seems that a linked lock hangs in no chain.
bool LockSpace::LooksLost(uint32_t lock_number) const {
  const LockSlot& lock = *LockAt(lock_number);
  if (lock.state.load(std::memory_order_acquire) != kLockLinked) return false;
  const uint32_t bucket = BucketOf(LoadLock(lock.hash));
  const uint64_t word = buckets_[bucket].control.load(std::memory_order_acquire);
  return OwnerOf(word) == 0 && !HangsInChain(bucket, lock_number);
}

// Empties the bucket if it is damaged, or if `lock_number` (0: none) belongs to it and does not
// hang in its chain. Returns whether it did. Killed anywhere in between, its lane's recovery does
// the rest before the bucket is free again.
bool LockSpace::MendBucket(const Lane& own, uint32_t bucket, uint32_t lock_number) {
  Section section(own, Record(own.id));
  if (!Lock(section, bucket).ok()) return false;
  bool damaged = !ChainIsSound(bucket);
  if (!damaged && lock_number != 0) {
    const LockSlot& lock = *LockAt(lock_number);
    damaged = lock.state.load(std::memory_order_acquire) == kLockLinked &&
              BucketOf(LoadLock(lock.hash)) == bucket && !HangsInChain(bucket, lock_number);
  }
  if (damaged) {
    StoreLock(section.record.redo_count, kLockRedoMend);
    CrashFence();
    StoreLock(section.record.tag, section.locked);
    CrashFence();
    EmptyBucket(bucket);
    StoreLock(section.record.tag, 0);
    CrashFence();
  }
  Unlock(section);
  return damaged;
}

// REQUIRES: the bucket is held. Can be begun again after it was cut short.
void LockSpace::EmptyBucket(uint32_t bucket) const {
  buckets_[bucket].head.store(0, std::memory_order_release);
  CrashFence();
  // A lock that another bucket is about to get stores its hash before its state.
  const auto is_of_bucket = [&](const LockSlot& lock) {
    return lock.state.load(std::memory_order_acquire) == kLockLinked &&
           BucketOf(LoadLock(lock.hash)) == bucket;
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
    CrashFence();
  }
  const uint32_t locks =
      std::min(pool_->locks_high.load(std::memory_order_acquire), geometry_.locks_max);
  for (uint32_t number = 1; number <= locks; ++number) {
    if (is_of_bucket(*LockAt(number))) ReturnLock(number);
    CrashFence();
  }
  space_->event.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(space_->event);
}

uint32_t LockSpace::Sweep(const Lane& own, uint32_t* next, uint32_t locks,
                          const std::function<bool(uint32_t lane)>& is_leased) {
  const uint32_t high =
      std::min(pool_->locks_high.load(std::memory_order_acquire), geometry_.locks_max);
  uint32_t released = 0;
  uint32_t mended = 0;
  for (uint32_t i = 0; i < std::min(locks, geometry_.bucket_count); ++i) {
    const uint32_t bucket = (*next + i) & (geometry_.bucket_count - 1);
    std::atomic<uint64_t>& control = buckets_[bucket].control;
    uint64_t word = control.load(std::memory_order_acquire);
    if (OwnerOf(word) != 0 && !is_leased(OwnerOf(word)) &&
        control.compare_exchange_strong(word, ReleasedChanged(word))) {
      ++released;
    }
    if (mended < kMendsPerSweep && !LooksSound(bucket) && MendBucket(own, bucket, 0)) ++mended;
  }
  if (high > 0) {
    const uint32_t first = *next % high;
    const uint32_t count = std::min(locks, high);
    (void)SweepIdle(own, first, count, kIdleNs);
    for (uint32_t i = 0; i < count && mended < kMendsPerSweep; ++i) {
      const uint32_t number = (first + i) % high + 1;
      if (!LooksLost(number)) continue;
      if (MendBucket(own, BucketOf(LoadLock(LockAt(number)->hash)), number)) ++mended;
    }
  }
  *next += locks;
  return released + mended;
}

}  // namespace statehouse
