// Whether a lock space is sound, for tests and people.
#include <set>

#include "engine/state/lock_internal.h"

namespace statehouse {

struct LockSpace::Audit {
  explicit Audit(const LockSpace& space_in) : space(space_in) {}

  void Fault(const std::string& what) { faults.push_back(what); }
  void Bucket(uint32_t bucket);
  void Lock(uint32_t number);
  void Holders(const std::string& which, const LockSlot& lock,
               const std::vector<uint32_t>& holding);
  void Queue(const std::string& which, uint32_t number, const std::vector<uint32_t>& waiting);
  std::vector<uint32_t> Walk(uint32_t lock_number, uint32_t first, RequestKind kind);
  void Request(uint32_t number, uint32_t lock_number, uint32_t before, RequestKind kind);
  void Rest();

  const LockSpace& space;
  std::vector<std::string> faults;
  std::set<uint32_t> locks_seen;
  std::set<uint32_t> requests_seen;
  std::set<uint64_t> tokens;
};

// One of a list.
void LockSpace::Audit::Request(uint32_t number, uint32_t lock_number, uint32_t before,
                               RequestKind kind) {
  const std::string who = "request " + std::to_string(number);
  const RequestSlot& request = *space.RequestAt(number);
  const uint64_t state = LoadLock(request.state);
  if (KindOf(state) != kind) Fault(who + " is of the wrong kind");
  if (LockNumberOf(state) != lock_number) Fault(who + " names another lock");
  if (BlockWordOf(state) == 0) Fault(who + " is nobody's");
  if (LowOf(LoadLock(request.links)) != before) Fault(who + " names a wrong one before it");
  if (kind != RequestKind::kHolding) return;
  const uint64_t token = LoadLock(request.token);
  if (!tokens.insert(token).second) Fault("two grants have token " + std::to_string(token));
  if (token == 0 || token > space.LastToken()) Fault(who + " has a token from the future");
}

std::vector<uint32_t> LockSpace::Audit::Walk(uint32_t lock_number, uint32_t first,
                                             RequestKind kind) {
  std::vector<uint32_t> numbers;
  uint32_t before = 0;
  for (uint32_t at = first; at != 0;) {
    const RequestSlot* const request = space.RequestAt(at);
    if (request == nullptr || !requests_seen.insert(at).second) {
      Fault("request " + std::to_string(at) + " is not there or in two lists");
      return numbers;
    }
    Request(at, lock_number, before, kind);
    numbers.push_back(at);
    before = at;
    at = HighOf(LoadLock(request->links));
  }
  return numbers;
}

void LockSpace::Audit::Holders(const std::string& which, const LockSlot& lock,
                               const std::vector<uint32_t>& holding) {
  if (holding.size() != HighOf(LoadLock(lock.holders)))
    Fault(which + " counts its holders wrongly");
  uint32_t shared = 0;
  for (const uint32_t at : holding) {
    shared += (LoadLock(space.RequestAt(at)->state) & kRequestShared) != 0 ? 1 : 0;
  }
  if (shared != 0 && shared != holding.size()) Fault(which + " has holders of both modes");
  if (shared == 0 && holding.size() > LowOf(LoadLock(lock.shape))) {
    Fault(which + " has too many holders");
  }
}

void LockSpace::Audit::Queue(const std::string& which, uint32_t number,
                             const std::vector<uint32_t>& waiting) {
  const LockSlot& lock = *space.LockAt(number);
  if (waiting.size() != LoadLock(lock.waiting)) Fault(which + " counts its waiters wrongly");
  if ((waiting.empty() ? 0 : waiting.back()) != HighOf(LoadLock(lock.queue))) {
    Fault(which + " has a lost tail");
  }
  uint64_t next_ns = 0;
  if (!waiting.empty() && space.MayServe(number, 0, &next_ns)) {
    Fault(which + " lets somebody wait who could hold");
  }
  for (size_t i = 1; i < waiting.size(); ++i) {
    if (LoadLock(space.RequestAt(waiting[i])->since_ns) <
        LoadLock(space.RequestAt(waiting[i - 1])->since_ns)) {
      Fault(which + " has a queue out of order");
    }
  }
}

void LockSpace::Audit::Lock(uint32_t number) {
  const LockSlot& lock = *space.LockAt(number);
  const std::string which = "lock " + std::to_string(number);
  if (LoadLock(lock.state) != kLockLinked) Fault(which + " is not linked");
  Holders(which, lock, Walk(number, LowOf(LoadLock(lock.holders)), RequestKind::kHolding));
  Queue(which, number, Walk(number, LowOf(LoadLock(lock.queue)), RequestKind::kWaiting));
}

void LockSpace::Audit::Bucket(uint32_t bucket) {
  if (OwnerOf(LoadLock(space.buckets_[bucket].control)) != 0) Fault("a bucket is held");
  for (uint64_t number = LoadLock(space.buckets_[bucket].head); number != 0;) {
    const LockSlot* const lock = space.LockAt(number);
    const std::string which = "lock " + std::to_string(number);
    if (lock == nullptr || !locks_seen.insert(static_cast<uint32_t>(number)).second) {
      Fault(which + " is not there or in two chains");
      return;
    }
    const uint64_t hash = LoadLock(lock->hash);
    if (hash != HashKey(space.geometry_.seed, space.NameOf(*lock)) ||
        space.BucketOf(hash) != bucket) {
      Fault(which + " is in the wrong bucket");
    }
    Lock(static_cast<uint32_t>(number));
    number = LoadLock(lock->next);
  }
}

// What no list and no chain led to.
void LockSpace::Audit::Rest() {
  for (uint32_t number = 1; number <= space.geometry_.requests_max; ++number) {
    const RequestKind kind = KindOf(LoadLock(space.RequestAt(number)->state));
    const bool listed = kind == RequestKind::kHolding || kind == RequestKind::kWaiting;
    if (listed && requests_seen.count(number) == 0) {
      Fault("request " + std::to_string(number) + " is in no list");
    }
    if (number > space.pool_->requests_high.load() && kind != RequestKind::kFree) {
      Fault("request " + std::to_string(number) + " is beyond the mark");
    }
  }
  for (uint32_t number = 1; number <= space.geometry_.locks_max; ++number) {
    if (LoadLock(space.LockAt(number)->state) == kLockLinked && locks_seen.count(number) == 0) {
      Fault("lock " + std::to_string(number) + " is in no chain");
    }
  }
}

std::vector<std::string> LockSpace::Check() const {
  Audit audit(*this);
  for (uint32_t bucket = 0; bucket < geometry_.bucket_count; ++bucket) audit.Bucket(bucket);
  audit.Rest();
  return std::move(audit.faults);
}

}  // namespace statehouse
