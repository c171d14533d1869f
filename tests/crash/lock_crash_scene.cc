#include "tests/crash/lock_crash_scene.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "engine/os/memory.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/test_locks.h"

namespace statehouse {

void Must(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "the crash test cannot go on: %s failed\n", what);
  std::abort();
}

LockSegment::LockSegment() : geometry(LockGeometry::For(kLocksInScene, kLockLanes)) {
  geometry.seed = {0x1234567890abcdef, 0xfedcba0987654321};
  auto made = CreateSealedMemory("crash-locks", geometry.segment_bytes());
  Must(made.ok(), "making a segment");
  fd = std::move(*made);
  const uint64_t uuid[2] = {1, 2};
  Must(LockSpace::Format(geometry, uuid, 1000, fd.get()).ok(), "formatting a segment");
  auto mapped = LockSpace::Map(geometry, fd.get());
  Must(mapped.ok(), "mapping a segment");
  space = std::move(*mapped);
  Must(space->PrepareLanes(0, kLockLanes).ok(), "preparing lanes");
}

LockScene::LockScene(const LockCrashOperation& operation) {
  Use(kVictimLane, "past");
  operation.prepare(*this);
  if (!operation.damaged) FinishPast();
  for (LockPartySeen& party : parties) {
    const RequestSlot& request = LockInternals::Request(*live.space, party.place);
    party.holds =
        (request.state.load() & kRequestKindMask) == static_cast<uint64_t>(RequestKind::kHolding);
    party.token = request.token.load();
    party.event = request.event.load();
  }
  last_token = live.space->LastToken();
  daemon_event = live.space->WaitForEvent(~0u, 0);
  Copy(live, last);
}

// The victim's last change was at a bucket which had the sequence that every bucket has now: what
// is left of it in the victim's record would fit any bucket that it takes next.
void LockScene::FinishPast() {
  const uint64_t highest = 1000 * kSequenceOne;  // More than any scene needs.
  const auto align = [&] {
    for (uint32_t i = 0; i < live.geometry.bucket_count; ++i) {
      std::atomic<uint64_t>& word = LockInternals::Bucket(*live.space, i).control;
      Must(OwnerOf(word.load()) == 0, "aligning the buckets");
      word = highest;
    }
  };
  LockPlace place = 0;
  LockLook look;
  bool held = false;
  Must(live.space->Acquire(kVictimLane, "past", {}, &place, &look).ok(), "the victim's past");
  align();
  Must(live.space->Release(kVictimLane, place, &held).ok() && held, "the victim's past");
  align();
}

LockPlace LockScene::Ask(std::string_view name, const Lane& lane, std::string_view lock,
                         LockRequest request) {
  LockPartySeen party;
  party.name = name;
  party.lock = lock;
  party.lane = lane;
  party.remote = request.remote;
  LockLook look;
  if (request.ttl_ns == kLockTtlNsDefault) request.ttl_ns = 3600 * kSecondNs;
  request.owner = name;
  Must(live.space->Acquire(lane, lock, request, &party.place, &look).ok() && party.place != 0,
       "asking for a lock");
  parties.push_back(party);
  bool known = false;
  for (const std::string& seen : locks) known = known || seen == lock;
  if (!known) locks.emplace_back(lock);
  return party.place;
}

LockPlace LockScene::AskShared(std::string_view name, const Lane& lane, std::string_view lock) {
  LockRequest request;
  request.mode = LockMode::kShared;
  return Ask(name, lane, lock, request);
}

LockPlace LockScene::AskRemote(std::string_view name, std::string_view lock, bool shared,
                               uint64_t session) {
  LockRequest request;
  request.mode = shared ? LockMode::kShared : LockMode::kExclusive;
  request.remote = true;
  request.session = session;
  request.request_id = parties.size();
  return Ask(name, kDaemonLane, lock, request);
}

void LockScene::Use(const Lane& lane, std::string_view lock) {
  LockPlace place = 0;
  LockLook look;
  bool held = false;
  Must(live.space->Acquire(lane, lock, {}, &place, &look).ok(), "using a lock");
  Must(live.space->Release(lane, place, &held).ok(), "using a lock");
}

void LockScene::Sleeps(std::string_view name) {
  for (LockPartySeen& party : parties) {
    if (party.name != name) continue;
    party.sleeps = true;
    LockInternals::Request(*live.space, party.place).sleeping = 1;
  }
}

void LockScene::Pass(uint64_t ns) {
  passed_ns_ += ns;
  for (LockSegment* const segment : {&live, &clone, &between, &last}) {
    segment->space->SetClockOffset(static_cast<int64_t>(passed_ns_));
  }
}

void LockScene::Copy(const LockSegment& from, const LockSegment& to) {
  std::memcpy(LockInternals::Base(*to.space), LockInternals::Base(*from.space),
              from.geometry.segment_bytes());
}

bool LockScene::Changed() {
  std::byte* const now = LockInternals::Base(*live.space);
  std::byte* const then = LockInternals::Base(*last.space);
  const size_t bytes = live.geometry.segment_bytes();
  if (std::memcmp(now, then, bytes) == 0) return false;
  std::memcpy(then, now, bytes);
  return true;
}

const LockPartySeen& LockScene::party(std::string_view name) const {
  for (const LockPartySeen& party : parties) {
    if (party.name == name) return party;
  }
  Must(false, "finding a party");
  std::abort();
}

}  // namespace statehouse
