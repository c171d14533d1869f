// The pools of locks and requests. What is free has a state of 0, and whoever changes that into a
// claim owns it: there are no lists to damage, and recovery finds what a dead process had by
// looking at the states.
#include "engine/state/lock_internal.h"

namespace statehouse {
namespace {

// Requests that a lane keeps for its next uses.
constexpr size_t kSpareMax = 64;

// Claims the first free slot from the hint on; 0 when there is none.
template <typename Slot>
uint32_t ClaimFrom(Slot* slots, uint32_t slot_count, std::atomic<uint32_t>& hint,
                   std::atomic<uint32_t>& high, uint64_t claim) {
  const uint32_t begin = std::min(hint.load(std::memory_order_relaxed), slot_count - 1);
  for (uint32_t i = 0; i < slot_count; ++i) {
    const uint32_t index = begin + i < slot_count ? begin + i : begin + i - slot_count;
    std::atomic<uint64_t>& state = slots[index].state;
    uint64_t free = 0;
    if (state.load(std::memory_order_relaxed) != 0) continue;
    // Before the claim: what is claimed is always below the mark that recovery goes by.
    uint32_t mark = high.load(std::memory_order_relaxed);
    while (mark <= index && !high.compare_exchange_weak(mark, index + 1)) {
    }
    CrashFence();
    // SYNC: lock.pool
    if (!state.compare_exchange_strong(free, claim, std::memory_order_acq_rel)) continue;
    hint.store(index + 1 < slot_count ? index + 1 : 0, std::memory_order_relaxed);
    return index + 1;
  }
  return 0;
}

// LockSlot::state of a lock that the lane's process has in its hands.
uint64_t ClaimOf(const Lane& lane) {
  return kLockClaimed | uint64_t{lane.id / kLanesPerBlock + 1} << kRequestBlockShift;
}

void LowerHint(std::atomic<uint32_t>& hint, uint32_t index) {
  if (index < hint.load(std::memory_order_relaxed)) hint.store(index, std::memory_order_relaxed);
}

}  // namespace

StatusOr<uint32_t> LockSpace::ClaimRequest(const Lane& lane) {
  std::vector<uint32_t>& spare = spare_[lane.id];
  while (!spare.empty()) {
    const uint32_t number = spare.back();
    spare.pop_back();
    if (LoadLock(RequestAt(number)->state) == ClaimedBy(lane.id)) return number;
  }
  const uint32_t number = ClaimFrom(requests_, geometry_.requests_max, pool_->requests_hint,
                                    pool_->requests_high, ClaimedBy(lane.id));
  if (number != 0) return number;
  return Status(Reason::kLimitExceeded, "locks: the service has its limit of " +
                                            std::to_string(geometry_.requests_max) +
                                            " holders and waiters (4 x locks.max)");
}

// REQUIRES: the request is claimed by this process.
void LockSpace::FreeRequest(const Lane& lane, uint32_t number) {
  std::vector<uint32_t>& spare = spare_[lane.id];
  if (spare.size() < kSpareMax) return spare.push_back(number);
  ReturnRequest(number);
}

void LockSpace::ReturnRequest(uint32_t number) {
  RequestAt(number)->state.store(0, std::memory_order_release);  // SYNC: lock.pool
  LowerHint(pool_->requests_hint, number - 1);
}

StatusOr<uint32_t> LockSpace::ClaimLock(const Lane& lane) {
  const auto claim_one = [&] {
    return ClaimFrom(locks_, geometry_.locks_max, pool_->locks_hint, pool_->locks_high,
                     ClaimOf(lane));
  };
  uint32_t number = claim_one();
  // Names that nobody uses now make room.
  if (number == 0 && SweepIdle(lane, 0, geometry_.locks_max, 0) > 0) number = claim_one();
  if (number != 0) return number;
  return Status(Reason::kLimitExceeded, "locks: the service has its limit of " +
                                            std::to_string(geometry_.locks_max) +
                                            " locks in use (locks.max)");
}

void LockSpace::ReturnLock(uint32_t number) const {
  LockAt(number)->state.store(0, std::memory_order_release);  // SYNC: lock.pool
  LowerHint(pool_->locks_hint, number - 1);
}

// Takes locks that were idle for so long out of their chains. Returns how many.
uint32_t LockSpace::SweepIdle(const Lane& lane, uint32_t first, uint32_t count, uint64_t idle_ns) {
  const uint64_t now = NowNs();
  uint32_t swept = 0;
  const auto is_idle = [&](const LockSlot& lock) {
    return LoadLock(lock.state) == kLockLinked && LoadLock(lock.holders) == 0 &&
           LoadLock(lock.queue) == 0 && LoadLock(lock.used_ns) + idle_ns <= now;
  };
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = (first + i) % geometry_.locks_max;
    LockSlot& lock = locks_[index];
    if (!is_idle(lock)) continue;
    Section section(lane, Record(lane.id));
    if (!Lock(section, BucketOf(LoadLock(lock.hash))).ok()) continue;
    bool removed = false;
    std::atomic<uint64_t>* link = &buckets_[section.bucket].head;
    for (uint32_t steps = 0; is_idle(lock) && steps < kLockChainMax; ++steps) {
      LockSlot* const at = LockAt(LoadLock(*link));
      if (at == nullptr) break;
      if (at == &lock) {
        Redo(section, *link, LoadLock(lock.next));
        // Not free before the bucket is: recovery could not tell it from itself in another chain.
        Redo(section, lock.state, ClaimOf(lane));
        Commit(section);
        removed = true;
        break;
      }
      link = &at->next;
    }
    Unlock(section);
    if (!removed) continue;
    ReturnLock(index + 1);
    ++swept;
  }
  if (swept > 0) LowerHint(pool_->locks_hint, first % geometry_.locks_max);
  return swept;
}

}  // namespace statehouse
