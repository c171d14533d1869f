// Who holds a lock and who waits for it, for people, and whether the space is sound, for tests.
#include <set>

#include "engine/state/lock_internal.h"

namespace statehouse {
namespace {

std::string OwnerText(const RequestSlot& request) {
  char text[kLockOwnerBytesMax];
  for (size_t at = 0; at < kLockOwnerBytesMax; at += 8) {
    const uint64_t word = LoadLock(request.owner[at / 8]);
    std::memcpy(text + at, &word, 8);
  }
  return std::string(text, strnlen(text, kLockOwnerBytesMax));
}

}  // namespace

// REQUIRES: the lock's bucket is held.
void LockSpace::DescribeLock(const LockSlot& lock, size_t parties_max,
                             LockDescription* description) const {
  description->name = NameOf(lock);
  description->limit = LowOf(LoadLock(lock.shape));
  description->holder_count = HighOf(LoadLock(lock.holders));
  description->waiter_count = LowOf(LoadLock(lock.waiting));
  const auto collect = [&](uint32_t number, bool holds, std::vector<LockParty>* parties) {
    while (parties->size() < parties_max) {
      const RequestSlot* const request = RequestAt(number);
      if (request == nullptr) return;
      LockParty party;
      const uint64_t state = LoadLock(request->state);
      party.mode = (state & kRequestShared) != 0 ? LockMode::kShared : LockMode::kExclusive;
      party.owner = OwnerText(*request);
      party.session = (state & kRequestRemote) != 0 ? LoadLock(request->session) : 0;
      party.block = BlockWordOf(state) == 0 ? 0 : BlockWordOf(state) - 1;
      party.since_ns = LoadLock(request->since_ns);
      if (holds) {
        party.token = LoadLock(request->token);
        party.expires_ns = LoadLock(request->expires_ns);
      }
      parties->push_back(std::move(party));
      number = HighOf(LoadLock(request->links));
    }
  };
  collect(LowOf(LoadLock(lock.holders)), true, &description->holders);
  collect(LowOf(LoadLock(lock.queue)), false, &description->waiters);
}

Status LockSpace::Describe(const Lane& lane, std::string_view name, size_t parties_max,
                           LockDescription* description, bool* found) const {
  *description = LockDescription();
  *found = false;
  const uint64_t hash = HashKey(geometry_.seed, name);
  Section section(lane, Record(lane.id));
  SH_RETURN_IF_ERROR(Lock(section, BucketOf(hash)));
  const auto lock = FindLock(section.bucket, hash, name);
  if (lock.ok() && *lock != 0) {
    // A lease that is over is nobody's, also while nobody asks for the lock.
    const Status expired = ExpireHolders(section, *lock, NowNs());
    if (expired.ok()) (void)Serve(section, *lock);
    DescribeLock(*LockAt(*lock), parties_max, description);
    *found = description->holder_count + description->waiter_count > 0;
  }
  Unlock(section);
  return lock.ok() ? Status() : lock.status();
}

Status LockSpace::List(const Lane& lane, std::string_view prefix, uint32_t* bucket, size_t limit,
                       size_t parties_max,
                       const std::function<void(LockDescription&)>& take) const {
  size_t given = 0;
  for (; *bucket < geometry_.bucket_count && given < limit; ++*bucket) {
    if (LoadLock(buckets_[*bucket].head) == 0) continue;
    std::vector<LockDescription> found;
    Section section(lane, Record(lane.id));
    SH_RETURN_IF_ERROR(Lock(section, *bucket));
    uint64_t number = LoadLock(buckets_[*bucket].head);
    for (uint32_t steps = 0; number != 0 && steps < kLockChainMax; ++steps) {
      const LockSlot* const lock = LockAt(number);
      if (lock == nullptr) break;
      if (LoadLock(lock->holders) != 0 || LoadLock(lock->queue) != 0) {
        LockDescription description;
        DescribeLock(*lock, parties_max, &description);
        if (description.name.starts_with(prefix)) found.push_back(std::move(description));
      }
      number = LoadLock(lock->next);
    }
    Unlock(section);
    for (LockDescription& description : found) take(description);
    given += found.size();
  }
  return Status();
}

std::vector<std::string> LockSpace::Check() const {
  std::vector<std::string> faults;
  std::set<uint32_t> locks_seen;
  std::set<uint32_t> requests_seen;
  std::set<uint64_t> tokens;
  const auto fault = [&](const std::string& what) { faults.push_back(what); };
  const auto walk = [&](uint32_t lock_number, uint32_t first, RequestKind kind) {
    std::vector<uint32_t> numbers;
    uint32_t before = 0;
    for (uint32_t at = first; at != 0;) {
      const std::string who = "request " + std::to_string(at);
      const RequestSlot* const request = RequestAt(at);
      if (request == nullptr || !requests_seen.insert(at).second) {
        fault(who + " is not there or in two lists");
        return numbers;
      }
      const uint64_t state = LoadLock(request->state);
      if (KindOf(state) != kind) fault(who + " is of the wrong kind");
      if (LockNumberOf(state) != lock_number) fault(who + " names another lock");
      if (BlockWordOf(state) == 0) fault(who + " is nobody's");
      if (LowOf(LoadLock(request->links)) != before) fault(who + " names a wrong one before it");
      if (kind == RequestKind::kHolding) {
        const uint64_t token = LoadLock(request->token);
        if (!tokens.insert(token).second) fault("two grants have token " + std::to_string(token));
        if (token == 0 || token > LastToken()) fault(who + " has a token from the future");
      }
      numbers.push_back(at);
      before = at;
      at = HighOf(LoadLock(request->links));
    }
    return numbers;
  };
  for (uint32_t bucket = 0; bucket < geometry_.bucket_count; ++bucket) {
    if (OwnerOf(LoadLock(buckets_[bucket].control)) != 0) fault("a bucket is held");
    for (uint64_t number = LoadLock(buckets_[bucket].head); number != 0;) {
      const LockSlot* const lock = LockAt(number);
      const std::string which = "lock " + std::to_string(number);
      if (lock == nullptr || !locks_seen.insert(static_cast<uint32_t>(number)).second) {
        fault(which + " is not there or in two chains");
        break;
      }
      if (LoadLock(lock->state) != kLockLinked) fault(which + " is not linked");
      if (LoadLock(lock->hash) != HashKey(geometry_.seed, NameOf(*lock)) ||
          BucketOf(LoadLock(lock->hash)) != bucket) {
        fault(which + " is in the wrong bucket");
      }
      const auto lock_number = static_cast<uint32_t>(number);
      const uint64_t holders = LoadLock(lock->holders);
      const uint64_t queue = LoadLock(lock->queue);
      const auto holding = walk(lock_number, LowOf(holders), RequestKind::kHolding);
      const auto waiting = walk(lock_number, LowOf(queue), RequestKind::kWaiting);
      if (holding.size() != HighOf(holders)) fault(which + " counts its holders wrongly");
      if (waiting.size() != LoadLock(lock->waiting)) fault(which + " counts its waiters wrongly");
      if ((waiting.empty() ? 0 : waiting.back()) != HighOf(queue))
        fault(which + " has a lost tail");
      uint32_t shared = 0;
      for (const uint32_t at : holding) {
        shared += (LoadLock(RequestAt(at)->state) & kRequestShared) != 0 ? 1 : 0;
      }
      if (shared != 0 && shared != holding.size()) fault(which + " has holders of both modes");
      if (shared == 0 && holding.size() > LowOf(LoadLock(lock->shape))) {
        fault(which + " has too many holders");
      }
      uint64_t next_ns = 0;
      if (!waiting.empty() && MayServe(lock_number, 0, &next_ns)) {
        fault(which + " lets somebody wait who could hold");
      }
      for (size_t i = 1; i < waiting.size(); ++i) {
        if (LoadLock(RequestAt(waiting[i])->since_ns) <
            LoadLock(RequestAt(waiting[i - 1])->since_ns)) {
          fault(which + " has a queue out of order");
        }
      }
      number = LoadLock(lock->next);
    }
  }
  for (uint32_t number = 1; number <= geometry_.requests_max; ++number) {
    const RequestKind kind = KindOf(LoadLock(RequestAt(number)->state));
    const bool listed = kind == RequestKind::kHolding || kind == RequestKind::kWaiting;
    if (listed && requests_seen.count(number) == 0) {
      fault("request " + std::to_string(number) + " is in no list");
    }
    if (number > pool_->requests_high.load() && kind != RequestKind::kFree) {
      fault("request " + std::to_string(number) + " is beyond the mark");
    }
  }
  for (uint32_t number = 1; number <= geometry_.locks_max; ++number) {
    if (LoadLock(LockAt(number)->state) == kLockLinked && locks_seen.count(number) == 0) {
      fault("lock " + std::to_string(number) + " is in no chain");
    }
  }
  return faults;
}

}  // namespace statehouse
