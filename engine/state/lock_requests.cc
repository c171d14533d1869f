// What a request can do: ask, wait, renew, and give back.
#include <utility>

#include "engine/state/lock_internal.h"

namespace statehouse {
namespace {

// How long the first waiter looks before it sleeps.
constexpr uint32_t kSpins = 300;
// When to look again at what changed during a look.
constexpr uint64_t kAgainNs = 1'000'000;

// As much of it as there is room for; a letter of several bytes is not cut in two.
std::string_view CutText(std::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  size_t end = bytes_max;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end);
}

}  // namespace

Status LockSpace::CheckRequest(std::string_view name, const LockRequest& request) const {
  const auto refuse = [&](Reason reason, const std::string& why) {
    return Status(reason, "lock \"" + std::string(CutText(name, kNameBytesMax)) + "\": " + why);
  };
  if (name.empty() || name.size() > kNameBytesMax) [[unlikely]] {
    return refuse(Reason::kNameInvalid,
                  "its name has " + std::to_string(name.size()) + " bytes; 1 to 255 are allowed");
  }
  if (request.ttl_ns < kLockTtlNsMin || request.ttl_ns > kLockTtlNsMax) [[unlikely]] {
    return refuse(Reason::kInvalidArgument, "a ttl of " +
                                                std::to_string(request.ttl_ns / 1'000'000) +
                                                " ms; 100 ms to 7 days are allowed");
  }
  if (request.hold_ns_max != 0 && request.hold_ns_max < kLockTtlNsMin) [[unlikely]] {
    return refuse(Reason::kInvalidArgument, "a hold_max of " +
                                                std::to_string(request.hold_ns_max / 1'000'000) +
                                                " ms; 100 ms and more are allowed");
  }
  if (request.limit == 0 || request.limit > kLockHoldersMax ||
      (request.mode == LockMode::kShared && request.limit != 1)) [[unlikely]] {
    return refuse(Reason::kInvalidArgument,
                  "a limit of " + std::to_string(request.limit) + " holders; 1 to " +
                      std::to_string(kLockHoldersMax) +
                      " are allowed, and 1 for shared requests, which have no limit");
  }
  return Status();
}

Status LockSpace::Acquire(const Lane& lane, std::string_view name, const LockRequest& request,
                          LockPlace* place, LockLook* look) {
  *place = 0;
  *look = LockLook();
  SH_RETURN_IF_ERROR(CheckRequest(name, request));
  if (!live()) [[unlikely]]
    return RefuseGone();
  SH_ASSIGN_OR_RETURN(const uint32_t number, ClaimRequest(lane));
  RequestSlot& slot = *RequestAt(number);
  StoreLock(slot.ttl_ns, request.ttl_ns);
  StoreLock(slot.hold_ns_max, request.hold_ns_max);
  StoreLock(slot.session, request.session);
  StoreLock(slot.request_id, request.request_id);
  StoreLock(slot.wait_until_ns, request.wait_until_ns);
  slot.sleeping.store(0, std::memory_order_relaxed);
  const std::string_view owner = CutText(request.owner, kLockOwnerBytesMax);
  for (size_t at = 0; at < kLockOwnerBytesMax; at += 8) {
    uint64_t word = 0;
    if (at < owner.size()) {
      std::memcpy(&word, owner.data() + at, std::min<size_t>(8, owner.size() - at));
    }
    StoreLock(slot.owner[at / 8], word);
  }
  const uint64_t hash = HashKey(geometry_.seed, name);
  uint32_t spare_lock = 0;
  Status status;
  for (;;) {
    Section section(lane, Record(lane.id));
    bool missing = false;
    status = TryAcquire(section, name, hash, request, &spare_lock, number, &missing, look);
    if (section.locked != 0) Unlock(section);
    if (!missing) break;
    auto claimed = ClaimLock(lane);
    if (!claimed.ok()) {
      status = std::move(claimed).status();
      break;
    }
    spare_lock = *claimed;
  }
  // Not needed: another process linked the name meanwhile, or the request was refused.
  if (spare_lock != 0) ReturnLock(spare_lock);
  if (look->phase == LockPhase::kNone) {
    FreeRequest(lane, number);
  } else {
    *place = number;
  }
  return status;
}

Status LockSpace::TryAcquire(Section& section, std::string_view name, uint64_t hash,
                             const LockRequest& request, uint32_t* spare_lock, uint32_t place,
                             bool* missing, LockLook* look) {
  const uint32_t bucket = BucketOf(hash);
  SH_RETURN_IF_ERROR(Lock(section, bucket));
  SH_ASSIGN_OR_RETURN(uint32_t number, FindLock(bucket, hash, name));
  if (number == 0) {
    *missing = *spare_lock == 0;
    if (*missing) return Status();
    number = std::exchange(*spare_lock, 0);
    LinkLock(section, number, hash, name, request.limit);
  }
  LockSlot& lock = *LockAt(number);
  const auto is_idle = [&] { return LoadLock(lock.holders) == 0 && LoadLock(lock.queue) == 0; };
  bool idle = is_idle();
  const bool shared = request.mode == LockMode::kShared;
  const uint64_t shape = LoadLock(lock.shape);
  if (LowOf(shape) != request.limit && (idle || !shared)) {
    if (!idle) {
      // A lease that is over is nobody's.
      SH_RETURN_IF_ERROR(ExpireHolders(section, number, NowNs()));
      SH_RETURN_IF_ERROR(Serve(section, number));
      idle = is_idle();
    }
    if (!idle) {
      return Status(Reason::kConflict,
                    "lock \"" + std::string(name) + "\" is in use with a limit of " +
                        std::to_string(LowOf(shape)) + " holders; asked was one of " +
                        std::to_string(request.limit));
    }
    StoreLock(lock.shape, Pack(request.limit, HighOf(shape)));
  }
  const uint64_t state = ClaimedBy(section.lane.id) | uint64_t{number} << kRequestLockShift |
                         (shared ? kRequestShared : 0) | (request.remote ? kRequestRemote : 0);
  RequestSlot& slot = *RequestAt(place);
  // SYNC: lock.bucket — the queue is looked at with the bucket held.
  bool can = idle || (LoadLock(lock.queue) == 0 && CanHold(lock, shared));
  if (!can) {
    SH_RETURN_IF_ERROR(Serve(section, number));
    if (LoadLock(lock.queue) == 0) {
      SH_RETURN_IF_ERROR(ExpireHolders(section, number, NowNs()));
      can = CanHold(lock, shared);
    }
  }
  if (can) {
    FillGrant(slot, CoarseNowNs() + kCoarseLagNs);
    Hold(section, number, place, WithKind(state, RequestKind::kHolding));
    *look = {LockPhase::kHolding, LoadLock(slot.token), LoadLock(slot.expires_ns)};
    return Status();
  }
  StoreLock(section.record.contended, LoadLock(section.record.contended) + 1);
  if (!request.queue) return Status();
  StoreLock(slot.since_ns, NowNs());
  const bool first = LoadLock(lock.queue) == 0;
  Enqueue(section, number, place, WithKind(state, RequestKind::kWaiting));
  look->phase = LockPhase::kWaiting;
  // Somebody has to look after the holders' leases while everybody sleeps. Behind the first who
  // waits that is so already.
  if (first && MayServe(number, 0, &section.look_ns)) section.look_ns = 0;
  return Status();
}

LockLook LockSpace::Look(LockPlace place) const {
  const RequestSlot* const request = RequestAt(place);
  if (request == nullptr) return LockLook();
  // SYNC: lock.state
  const uint64_t state = request->state.load(std::memory_order_acquire);
  switch (KindOf(state)) {
    case RequestKind::kWaiting: return {LockPhase::kWaiting, 0, 0};
    case RequestKind::kHolding: {
      const uint64_t expires = LoadLock(request->expires_ns);
      const uint64_t token = LoadLock(request->token);
      return {expires > NowNs() ? LockPhase::kHolding : LockPhase::kLost, token, expires};
    }
    case RequestKind::kLost: return {LockPhase::kLost, LoadLock(request->token), 0};
    default: return LockLook();
  }
}

// Whether the first of the queue could be served now; else lowers *next_ns to when it can be, as
// far as that is known. Works without the bucket: a look that is out of date is taken again.
bool LockSpace::MayServe(uint32_t lock_number, uint64_t now, uint64_t* next_ns) const {
  const LockSlot* const lock = LockAt(lock_number);
  if (lock == nullptr) return false;
  const RequestSlot* const head = RequestAt(LowOf(LoadLock(lock->queue)));
  if (head == nullptr) return false;
  if (CanHold(*lock, (LoadLock(head->state) & kRequestShared) != 0)) return true;
  const uint64_t wait_until = LoadLock(head->wait_until_ns);
  if (wait_until != 0 && wait_until <= now) return true;  // It makes room for those behind it.
  if (wait_until != 0) *next_ns = std::min(*next_ns, wait_until);
  uint32_t number = LowOf(LoadLock(lock->holders));
  for (uint32_t steps = 0; number != 0 && steps < geometry_.requests_max; ++steps) {
    const RequestSlot* const holder = RequestAt(number);
    if (holder == nullptr) return true;  // Whoever takes the bucket finds the damage.
    if (LockNumberOf(LoadLock(holder->state)) != lock_number) {
      *next_ns = std::min(*next_ns, now + kAgainNs);
      return false;
    }
    const uint64_t expires = LoadLock(holder->expires_ns);
    if (expires <= now) return true;
    *next_ns = std::min(*next_ns, expires);
    number = HighOf(LoadLock(holder->links));
  }
  return false;
}

Status LockSpace::ServeLock(const Lane& lane, uint32_t lock_number) {
  const LockSlot* const lock = LockAt(lock_number);
  if (lock == nullptr) return RefuseDamaged("a request");
  const uint64_t hash = LoadLock(lock->hash);
  Section section(lane, Record(lane.id));
  SH_RETURN_IF_ERROR(Lock(section, BucketOf(hash)));
  Status served;
  // It may be another lock by now.
  if (LoadLock(lock->state) == kLockLinked && LoadLock(lock->hash) == hash) {
    served = Serve(section, lock_number);
  }
  Unlock(section);
  return served;
}

LockLook LockSpace::Sleep(LockPlace place, uint64_t timeout_ns, bool* serve) const {
  bool served = std::exchange(*serve, false);
  RequestSlot* const request = RequestAt(place);
  if (request == nullptr) return LockLook();
  for (uint32_t i = 0; i < kSpins; ++i) {
    if (KindOf(request->state.load(std::memory_order_acquire)) != RequestKind::kWaiting) {
      return Look(place);
    }
    CpuRelax();
  }
  const uint64_t begin = NowNs();
  const uint64_t deadline = timeout_ns > UINT64_MAX - begin ? UINT64_MAX : begin + timeout_ns;
  for (;; served = false) {
    // SYNC: lock.wake — sleeping, then the state; see PayWakes.
    const uint32_t event = request->event.load(std::memory_order_acquire);
    request->sleeping.store(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const uint64_t state = request->state.load(std::memory_order_acquire);
    const uint64_t now = NowNs();
    uint64_t until = std::min(deadline, now + kLockSleepNsMax);
    bool over = KindOf(state) != RequestKind::kWaiting || now >= deadline || !live();
    if (!over) {
      const LockSlot* const lock = LockAt(LockNumberOf(state));
      const bool may = lock != nullptr && LowOf(LoadLock(lock->queue)) == place &&
                       MayServe(LockNumberOf(state), now, &until);
      *serve = may && !served;
      // Where serving did not help there is no reason to do nothing else.
      if (may && served) until = std::min(until, now + kAgainNs);
      over = *serve;
    }
    if (over) {
      request->sleeping.store(0, std::memory_order_relaxed);
      return Look(place);
    }
    FutexWait(request->event, event, until - now);
  }
}

Status LockSpace::ServeFor(const Lane& lane, LockPlace place) {
  const RequestSlot* const request = RequestAt(place);
  if (request == nullptr) return Status();
  const uint64_t state = request->state.load(std::memory_order_acquire);
  if (KindOf(state) != RequestKind::kWaiting) return Status();
  return ServeLock(lane, LockNumberOf(state));
}

StatusOr<LockLook> LockSpace::Wait(const Lane& lane, LockPlace place, uint64_t timeout_ns) {
  if (RequestAt(place) == nullptr) {
    return Status(Reason::kInvalidArgument, "locks: no such request");
  }
  const uint64_t begin = NowNs();
  for (bool serve = false;;) {
    const uint64_t passed = NowNs() - begin;
    const LockLook look = Sleep(place, timeout_ns - std::min(timeout_ns, passed), &serve);
    if (!live()) return RefuseGone();
    if (!serve) return look;
    SH_RETURN_IF_ERROR(ServeFor(lane, place));
  }
}

Status LockSpace::LockOf(Section& section, const RequestSlot& request,
                         uint32_t* lock_number) const {
  for (;;) {
    const uint64_t state = request.state.load(std::memory_order_acquire);
    const RequestKind kind = KindOf(state);
    *lock_number = 0;
    if (kind != RequestKind::kHolding && kind != RequestKind::kWaiting) return Status();
    const LockSlot* const lock = LockAt(LockNumberOf(state));
    if (lock == nullptr) return RefuseDamaged("a request");
    SH_RETURN_IF_ERROR(Lock(section, BucketOf(LoadLock(lock->hash))));
    *lock_number = LockNumberOf(state);
    const uint64_t again = LoadLock(request.state);
    if (LockNumberOf(again) == *lock_number && BucketOf(LoadLock(lock->hash)) == section.bucket) {
      return Status();
    }
    Unlock(section);  // It lost its lock just now.
  }
}

Status LockSpace::Renew(const Lane& lane, LockPlace place, uint64_t ttl_ns, LockLook* look) {
  *look = LockLook();
  RequestSlot* const request = RequestAt(place);
  if (request == nullptr) return Status(Reason::kInvalidArgument, "locks: no such request");
  if (ttl_ns != 0 && (ttl_ns < kLockTtlNsMin || ttl_ns > kLockTtlNsMax)) {
    return Status(Reason::kInvalidArgument, "locks: renewing for " +
                                                std::to_string(ttl_ns / 1'000'000) +
                                                " ms; 100 ms to 7 days are allowed");
  }
  const auto lost = [&](const std::string& why) {
    look->phase = LockPhase::kLost;
    return Status(Reason::kLockLost, "the lease " + why);
  };
  Section section(lane, Record(lane.id));
  uint32_t number = 0;
  SH_RETURN_IF_ERROR(LockOf(section, *request, &number));
  if (number == 0) return lost("is over: it was taken from its holder, or ended");
  const uint64_t state = LoadLock(request->state);
  if (KindOf(state) != RequestKind::kHolding) {
    Unlock(section);
    look->phase = LockPhase::kWaiting;
    return Status(Reason::kInvalidArgument, "locks: the request still waits; there is no lease");
  }
  const uint64_t now = NowNs();
  const uint64_t expires = LoadLock(request->expires_ns);
  if (expires <= now) {
    const std::string name = NameOf(*LockAt(number));
    Status left = LeaveHolders(section, number, place, Unbound(state, RequestKind::kLost));
    if (left.ok()) {
      StoreLock(section.record.expirations, LoadLock(section.record.expirations) + 1);
      left = Serve(section, number);
    }
    Unlock(section);
    if (!left.ok()) return left;
    return lost("of lock \"" + name + "\" ended " + std::to_string((now - expires) / 1'000'000) +
                " ms before it was renewed");
  }
  const uint64_t ttl = ttl_ns == 0 ? LoadLock(request->ttl_ns) : ttl_ns;
  const uint64_t hold = LoadLock(request->hold_ns_max);
  const uint64_t since = LoadLock(request->since_ns);
  const uint64_t bound = hold == 0 || hold > UINT64_MAX - since ? UINT64_MAX : since + hold;
  // Never earlier than it was promised.
  const uint64_t end = std::max(expires, std::min(now + ttl, bound));
  StoreLock(request->expires_ns, end);
  *look = {LockPhase::kHolding, LoadLock(request->token), end};
  Unlock(section);
  return Status();
}

Status LockSpace::Release(const Lane& lane, LockPlace place, bool* held,
                          std::vector<LockPlace>* granted, uint32_t own_block) {
  *held = false;
  const RequestSlot* const request = RequestAt(place);
  const uint32_t block = own_block < kLaneBlocksMax ? own_block : lane.id / kLanesPerBlock;
  const uint64_t state = request == nullptr ? 0 : LoadLock(request->state);
  // What is only claimed is not asked for: it was released before.
  const bool mine =
      state != 0 && KindOf(state) != RequestKind::kClaimed && BlockWordOf(state) == block + 1;
  if (!mine) {
    return Status(Reason::kInvalidArgument, "locks: the request is not this process's");
  }
  SH_RETURN_IF_ERROR(End(lane, place, ClaimedBy(lane.id), held, granted));
  FreeRequest(lane, place);
  return Status();
}

// Ends a request, whatever it is at. `state`: what it is then.
Status LockSpace::End(const Lane& lane, uint32_t place, uint64_t state, bool* held,
                      std::vector<LockPlace>* granted) {
  RequestSlot& request = *RequestAt(place);
  Section section(lane, Record(lane.id));
  section.told = granted;
  uint32_t number = 0;
  SH_RETURN_IF_ERROR(LockOf(section, request, &number));
  if (number == 0) {
    request.state.store(state, std::memory_order_release);
    return Status();
  }
  Status status;
  if (KindOf(LoadLock(request.state)) == RequestKind::kHolding) {
    *held = LoadLock(request.expires_ns) > CoarseNowNs();
    status = LeaveHolders(section, number, place, state);
    if (status.ok()) StoreLock(section.record.releases, LoadLock(section.record.releases) + 1);
  } else {
    status = LeaveQueue(section, number, place, state);
  }
  // What it refuses is damaged and will be mended; the request has ended all the same.
  if (status.ok()) (void)Serve(section, number);
  Unlock(section);
  return status;
}

StatusOr<uint32_t> LockSpace::ForceRelease(const Lane& lane, std::string_view name,
                                           uint64_t token) {
  const uint64_t hash = HashKey(geometry_.seed, name);
  Section section(lane, Record(lane.id));
  SH_RETURN_IF_ERROR(Lock(section, BucketOf(hash)));
  uint32_t released = 0;
  const auto release = [&]() -> Status {
    SH_ASSIGN_OR_RETURN(const uint32_t lock, FindLock(section.bucket, hash, name));
    if (lock == 0) return Status();
    uint32_t number = LowOf(LoadLock(LockAt(lock)->holders));
    for (uint32_t steps = 0; number != 0; ++steps) {
      RequestSlot* const request = RequestAt(number);
      if (request == nullptr || steps > geometry_.requests_max) {
        return RefuseDamaged("a list of holders");
      }
      const uint32_t next = HighOf(LoadLock(request->links));
      if (token == 0 || LoadLock(request->token) == token) {
        const bool was_remote = (LoadLock(request->state) & kRequestRemote) != 0;
        const uint64_t state = Unbound(LoadLock(request->state), RequestKind::kLost);
        SH_RETURN_IF_ERROR(LeaveHolders(section, lock, number, state));
        section.woken.push_back({number, was_remote});
        ++released;
      }
      number = next;
    }
    return Serve(section, lock);
  };
  const Status status = release();
  Unlock(section);
  if (!status.ok()) return status;
  return released;
}

}  // namespace statehouse
