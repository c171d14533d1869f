// The critical section of a lock space: one bucket is held, each step changes what belongs to one
// request, as a list of stores that recovery repeats. Between two steps the queue may stand ahead
// of its turn (somebody could hold, and does not yet): whoever recovers a bucket serves it.
#include <utility>

#include "engine/state/lock_internal.h"

namespace statehouse {

Status LockSpace::Lock(Section& section, uint32_t bucket) const {
  LockLaneRecord& record = section.record;
  std::atomic<uint64_t>& control = buckets_[bucket].control;
  if (MutantIs(Mutant::kLockBeforeIntent)) {
    uint64_t early = 0;
    if (TryLockOwned(control, section.lane.id, &early)) {
      control.store(ReleasedUnchanged(early), std::memory_order_release);
    }
    CrashFence();
  }
  StoreLock(record.intent, uint64_t{bucket} + 1);
  CrashFence();
  uint64_t locked = 0;
  if (!TryLockOwned(control, section.lane.id, &locked)) {
    const uint64_t timeout = section.lane.operation_timeout_ns;
    if (!LockOwnedSlow(control, section.lane.id, timeout, &locked)) return RefuseStalled(bucket);
  }
  section.bucket = bucket;
  section.locked = locked;
  return Status();
}

// Releases the bucket; wakes whom the section gave a lock. SYNC: lock.bucket
void LockSpace::Unlock(Section& section) const {
  if (section.granted_lock != 0 && !MutantIs(Mutant::kLockWakeNotNoted)) {
    StoreLock(section.record.pending_wake, section.granted_lock);
  }
  CrashFence();
  buckets_[section.bucket].control.store(ReleasedChanged(section.locked),
                                         std::memory_order_release);
  CrashFence();
  section.locked = 0;
  if (!section.woken.empty()) PayWakes(section);
  if (section.look_ns != UINT64_MAX) TellDaemon(std::exchange(section.look_ns, UINT64_MAX));
}

// SYNC: lock.daemon — what it has to see was stored before the fence here; it fences between the
// end of its sleep and its look (WaitForEvent).
void LockSpace::TellDaemon(uint64_t look_ns) const {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const bool sleeps = space_->armed.load(std::memory_order_seq_cst) != 0;
  if (sleeps && space_->looks_ns.load(std::memory_order_relaxed) <= look_ns) return;
  space_->event.fetch_add(1, std::memory_order_seq_cst);
  if (space_->armed.load(std::memory_order_seq_cst) != 0) FutexWakeAll(space_->event);
}

void LockSpace::PayWakes(Section& section) const {
  // SYNC: lock.wake — a waiter says that it sleeps, fences and looks at its state; here the state
  // was stored before this fence and `sleeping` is looked at after it.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  bool remote = false;
  for (const auto& [number, is_remote] : section.woken) {
    RequestSlot& request = *RequestAt(number);
    remote = remote || is_remote;
    if (!is_remote) {
      WakeRequest(request, false);
    } else if (section.told != nullptr &&
               KindOf(LoadLock(request.state)) == RequestKind::kHolding) {
      section.told->push_back(number);
    }
  }
  if (remote) {
    space_->event.fetch_add(1, std::memory_order_seq_cst);
    if (space_->armed.load(std::memory_order_seq_cst) != 0) FutexWakeAll(space_->event);
  }
  CrashFence();
  StoreLock(section.record.pending_wake, 0);
  section.woken.clear();
  section.granted_lock = 0;
}

void LockSpace::WakeRequest(RequestSlot& request, bool always) const {
  if (!always && request.sleeping.load(std::memory_order_seq_cst) == 0) return;
  request.event.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(request.event);
}

void LockSpace::Redo(Section& section, std::atomic<uint64_t>& place, uint64_t value) const {
  LockRedoStore& redo = section.record.redo[section.stores++];
  StoreLock(redo.offset, static_cast<uint64_t>(reinterpret_cast<std::byte*>(&place) - base_));
  StoreLock(redo.before, LoadLock(place));
  StoreLock(redo.value, value);
}

// Makes the list of stores stand, carries it out and disarms it.
void LockSpace::Commit(Section& section) const {
  LockLaneRecord& record = section.record;
  if (MutantIs(Mutant::kLockArmedBeforeRedo)) StoreLock(record.tag, section.locked);
  CrashFence();
  StoreLock(record.redo_count, section.stores);
  CrashFence();
  if (!MutantIs(Mutant::kLockRedoNotArmed)) StoreLock(record.tag, section.locked);
  CrashFence();
  std::atomic_thread_fence(std::memory_order_release);
  for (uint32_t i = 0; i < section.stores; ++i) {
    auto* place = reinterpret_cast<std::atomic<uint64_t>*>(base_ + LoadLock(record.redo[i].offset));
    place->store(LoadLock(record.redo[i].value), std::memory_order_release);  // SYNC: lock.state
    CrashFence();
  }
  if (!MutantIs(Mutant::kLockTagKept)) StoreLock(record.tag, 0);
  CrashFence();
  section.stores = 0;
}

// The lock of this name in the bucket, or 0. Meaningful while the bucket is held; without that a
// guess.
StatusOr<uint32_t> LockSpace::FindLock(uint32_t bucket, uint64_t hash,
                                       std::string_view name) const {
  uint64_t number = LoadLock(buckets_[bucket].head);
  for (uint32_t steps = 0; number != 0; ++steps) {
    const LockSlot* const lock = LockAt(number);
    if (lock == nullptr || steps == kLockChainMax) return RefuseDamaged("a chain of locks");
    if (NameIs(*lock, hash, name)) return static_cast<uint32_t>(number);
    number = LoadLock(lock->next);
  }
  return 0u;
}

// Puts a claimed lock, new and idle, into the chain of the held bucket.
void LockSpace::LinkLock(Section& section, uint32_t number, uint64_t hash, std::string_view name,
                         uint32_t limit) const {
  LockSlot& lock = *LockAt(number);
  StoreLock(lock.hash, hash);
  StoreLock(lock.next, LoadLock(buckets_[section.bucket].head));
  StoreLock(lock.holders, 0);
  StoreLock(lock.queue, 0);
  StoreLock(lock.shape, Pack(limit, static_cast<uint32_t>(name.size())));
  StoreLock(lock.waiting, 0);
  StoreLock(lock.used_ns, CoarseNowNs());
  for (size_t at = 0; at < name.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, name.data() + at, std::min<size_t>(8, name.size() - at));
    StoreLock(lock.name[at / 8], word);
  }
  Redo(section, lock.state, kLockLinked);
  Redo(section, buckets_[section.bucket].head, number);
  Commit(section);
}

// Whether one more holder fits, leaving the queue aside.
bool LockSpace::CanHold(const LockSlot& lock, bool shared) const {
  const uint64_t holders = LoadLock(lock.holders);
  if (holders == 0) return true;
  const RequestSlot* const first = RequestAt(LowOf(holders));
  if (first == nullptr) return false;
  const bool is_shared = (LoadLock(first->state) & kRequestShared) != 0;
  if (shared || is_shared) return shared && is_shared;
  return HighOf(holders) < LowOf(LoadLock(lock.shape));
}

// The grant, in fields that nobody reads before the request's state says that it holds.
void LockSpace::FillGrant(RequestSlot& request, uint64_t now) const {
  std::atomic<uint64_t>& last = tokens_->last;
  const uint64_t token = MutantIs(Mutant::kLockTokenRepeated)
                             ? last.load(std::memory_order_relaxed)
                             : last.fetch_add(1, std::memory_order_relaxed) + 1;
  const uint64_t ttl = LoadLock(request.ttl_ns);
  const uint64_t hold = LoadLock(request.hold_ns_max);
  StoreLock(request.token, token);
  StoreLock(request.since_ns, now);
  StoreLock(request.expires_ns, now + (hold == 0 ? ttl : std::min(ttl, hold)));
}

// A request that is in no list holds from now on. `state`: as it says then.
void LockSpace::Hold(Section& section, uint32_t lock_number, uint32_t number,
                     uint64_t state) const {
  LockSlot& lock = *LockAt(lock_number);
  RequestSlot& request = *RequestAt(number);
  const uint64_t holders = LoadLock(lock.holders);
  RequestSlot* const first = RequestAt(LowOf(holders));
  StoreLock(request.links, Pack(0, LowOf(holders)));
  if (MutantIs(Mutant::kLockStateFirst)) StoreLock(request.state, state);
  Redo(section, request.state, state);
  Redo(section, lock.holders, Pack(number, HighOf(holders) + 1));
  if (first != nullptr) {
    Redo(section, first->links, Pack(number, HighOf(LoadLock(first->links))));
  }
  Commit(section);
  StoreLock(section.record.grants, LoadLock(section.record.grants) + 1);
}

void LockSpace::Enqueue(Section& section, uint32_t lock_number, uint32_t number,
                        uint64_t state) const {
  LockSlot& lock = *LockAt(lock_number);
  RequestSlot& request = *RequestAt(number);
  const uint64_t queue = LoadLock(lock.queue);
  const uint32_t last_number = HighOf(queue);
  RequestSlot* const last = RequestAt(last_number);
  StoreLock(request.links, Pack(last_number, 0));
  Redo(section, request.state, state);
  Redo(section, lock.queue, Pack(last == nullptr ? number : LowOf(queue), number));
  Redo(section, lock.waiting, LoadLock(lock.waiting) + 1);
  if (last != nullptr) Redo(section, last->links, Pack(LowOf(LoadLock(last->links)), number));
  Commit(section);
}

// Takes a holder out of the lock. The queue is not served.
Status LockSpace::LeaveHolders(Section& section, uint32_t lock_number, uint32_t number,
                               uint64_t state) const {
  LockSlot& lock = *LockAt(lock_number);
  RequestSlot& request = *RequestAt(number);
  const uint64_t links = LoadLock(request.links);
  const uint64_t holders = LoadLock(lock.holders);
  RequestSlot* const before = RequestAt(LowOf(links));
  RequestSlot* const after = RequestAt(HighOf(links));
  const bool sound = HighOf(holders) > 0 && (LowOf(links) == 0) == (LowOf(holders) == number) &&
                     (before != nullptr) == (LowOf(links) != 0) &&
                     (after != nullptr) == (HighOf(links) != 0) && before != &request &&
                     after != &request && (before == nullptr || before != after);
  if (!sound) return RefuseDamaged("a list of holders");
  const uint32_t first = before == nullptr ? HighOf(links) : LowOf(holders);
  Redo(section, request.state, state);
  // The number stands with the first one: none of both, or some of both.
  Redo(section, lock.holders, first == 0 ? 0 : Pack(first, HighOf(holders) - 1));
  if (before != nullptr) {
    Redo(section, before->links, Pack(LowOf(LoadLock(before->links)), HighOf(links)));
  }
  if (after != nullptr) {
    Redo(section, after->links, Pack(LowOf(links), HighOf(LoadLock(after->links))));
  }
  if (first == 0) StoreLock(lock.used_ns, CoarseNowNs());
  Commit(section);
  return Status();
}

Status LockSpace::LeaveQueue(Section& section, uint32_t lock_number, uint32_t number,
                             uint64_t state) const {
  LockSlot& lock = *LockAt(lock_number);
  RequestSlot& request = *RequestAt(number);
  const uint64_t links = LoadLock(request.links);
  const uint64_t queue = LoadLock(lock.queue);
  RequestSlot* const before = RequestAt(LowOf(links));
  RequestSlot* const after = RequestAt(HighOf(links));
  const bool sound = (LowOf(links) == 0) == (LowOf(queue) == number) &&
                     (HighOf(links) == 0) == (HighOf(queue) == number) &&
                     (before != nullptr) == (LowOf(links) != 0) &&
                     (after != nullptr) == (HighOf(links) != 0) && before != &request &&
                     after != &request && (before == nullptr || before != after);
  if (!sound) return RefuseDamaged("a queue");
  const uint32_t first = before == nullptr ? HighOf(links) : LowOf(queue);
  const uint32_t last = after == nullptr ? LowOf(links) : HighOf(queue);
  const uint64_t waiting = LoadLock(lock.waiting);
  Redo(section, request.state, state);
  Redo(section, lock.queue, Pack(first, last));
  Redo(section, lock.waiting, waiting == 0 ? 0 : waiting - 1);
  if (before != nullptr) {
    Redo(section, before->links, Pack(LowOf(LoadLock(before->links)), HighOf(links)));
  }
  if (after != nullptr) {
    Redo(section, after->links, Pack(LowOf(links), HighOf(LoadLock(after->links))));
  }
  Commit(section);
  return Status();
}

// The first of the queue holds from now on: one step, so that it is never in both lists or none.
Status LockSpace::GrantHead(Section& section, uint32_t lock_number, uint64_t now) const {
  LockSlot& lock = *LockAt(lock_number);
  const uint64_t queue = LoadLock(lock.queue);
  const uint32_t number = LowOf(queue);
  RequestSlot& request = *RequestAt(number);
  const uint64_t links = LoadLock(request.links);
  RequestSlot* const after = RequestAt(HighOf(links));
  const uint64_t holders = LoadLock(lock.holders);
  RequestSlot* const first = RequestAt(LowOf(holders));
  const bool sound = LowOf(links) == 0 && (HighOf(links) == 0) == (HighOf(queue) == number) &&
                     (after != nullptr) == (HighOf(links) != 0) && after != &request &&
                     first != &request && (after == nullptr || after != first);
  if (!sound) return RefuseDamaged("a queue");
  FillGrant(request, now);
  const uint64_t waiting = LoadLock(lock.waiting);
  const uint64_t queue_now = Pack(HighOf(links), after == nullptr ? 0 : HighOf(queue));
  if (MutantIs(Mutant::kLockNextFirst)) StoreLock(lock.queue, queue_now);
  Redo(section, request.state, WithKind(LoadLock(request.state), RequestKind::kHolding));
  Redo(section, request.links, Pack(0, LowOf(holders)));
  Redo(section, lock.holders, Pack(number, HighOf(holders) + 1));
  Redo(section, lock.queue, queue_now);
  Redo(section, lock.waiting, waiting == 0 ? 0 : waiting - 1);
  if (first != nullptr) {
    Redo(section, first->links, Pack(number, HighOf(LoadLock(first->links))));
  }
  if (after != nullptr) Redo(section, after->links, Pack(0, HighOf(LoadLock(after->links))));
  Commit(section);
  StoreLock(section.record.grants, LoadLock(section.record.grants) + 1);
  section.granted_lock = lock_number;
  section.woken.push_back({number, (LoadLock(request.state) & kRequestRemote) != 0});
  // Who waits next may sleep, and knows nothing of the new lease.
  if (LowOf(queue_now) != 0) {
    section.look_ns = std::min(section.look_ns, LoadLock(request.expires_ns));
  }
  return Status();
}

// Takes the lock from holders whose lease is over.
Status LockSpace::ExpireHolders(Section& section, uint32_t lock_number, uint64_t now) const {
  LockSlot& lock = *LockAt(lock_number);
  uint32_t number = LowOf(LoadLock(lock.holders));
  for (uint32_t steps = 0; number != 0; ++steps) {
    RequestSlot* const request = RequestAt(number);
    if (request == nullptr || steps > geometry_.requests_max) {
      return RefuseDamaged("a list of holders");
    }
    const uint32_t next = HighOf(LoadLock(request->links));
    const uint64_t state = LoadLock(request->state);
    if (KindOf(state) != RequestKind::kHolding || LockNumberOf(state) != lock_number) {
      return RefuseDamaged("a list of holders");
    }
    if (LoadLock(request->expires_ns) <= now) {
      SH_RETURN_IF_ERROR(
          LeaveHolders(section, lock_number, number, Unbound(state, RequestKind::kLost)));
      StoreLock(section.record.expirations, LoadLock(section.record.expirations) + 1);
    }
    number = next;
  }
  return Status();
}

// Gives the lock to those in front of the queue who can have it.
Status LockSpace::Serve(Section& section, uint32_t lock_number) const {
  LockSlot& lock = *LockAt(lock_number);
  if (LoadLock(lock.queue) == 0 || MutantIs(Mutant::kLockQueueSkipped)) return Status();
  const uint64_t now = NowNs();
  bool expired = false;
  for (uint32_t steps = 0;; ++steps) {
    const uint32_t number = LowOf(LoadLock(lock.queue));
    if (number == 0) return Status();
    if (steps > geometry_.requests_max) return RefuseDamaged("a queue");
    RequestSlot* const request = RequestAt(number);
    if (request == nullptr) return RefuseDamaged("a queue");
    const uint64_t state = LoadLock(request->state);
    if (KindOf(state) != RequestKind::kWaiting || LockNumberOf(state) != lock_number) {
      return RefuseDamaged("a queue");
    }
    const uint64_t wait_until = LoadLock(request->wait_until_ns);
    if (wait_until != 0 && wait_until <= now) {
      // Nobody waits behind this request any more: it must not get what nobody would give back.
      SH_RETURN_IF_ERROR(
          LeaveQueue(section, lock_number, number, Unbound(state, RequestKind::kLost)));
      section.woken.push_back({number, (state & kRequestRemote) != 0});
      continue;
    }
    if (!CanHold(lock, (state & kRequestShared) != 0)) {
      if (expired) return Status();
      expired = true;
      SH_RETURN_IF_ERROR(ExpireHolders(section, lock_number, now));
      continue;
    }
    SH_RETURN_IF_ERROR(GrantHead(section, lock_number, now));
  }
}

}  // namespace statehouse
