// Who holds a lock and who waits for it, for people.
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

}  // namespace statehouse
