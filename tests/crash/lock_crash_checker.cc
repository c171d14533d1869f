#include <algorithm>
#include <set>

#include "engine/state/test_locks.h"
#include "tests/crash/lock_crash_scene.h"

namespace statehouse {
namespace {

uint64_t StateOf(LockSpace& space, LockPlace place) {
  return LockInternals::Request(space, place).state.load();
}
RequestKind KindNow(LockSpace& space, LockPlace place) {
  return static_cast<RequestKind>(StateOf(space, place) & kRequestKindMask);
}
uint32_t BlockWordNow(LockSpace& space, LockPlace place) {
  return static_cast<uint32_t>(StateOf(space, place) >> kRequestBlockShift) & 0xffff;
}
bool Names(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}
std::string Sound(const LockSpace& space) {
  const auto faults = space.Check();
  return faults.empty() ? "" : faults[0];
}
bool MayRefuse(const Status& status) {
  return status.reason() == Reason::kStalled || status.reason() == Reason::kLimitExceeded ||
         status.reason() == Reason::kConflict;
}

}  // namespace

bool LockCrashChecker::IsGone(const LockPartySeen& party) const {
  const uint32_t block = party.lane.id / kLanesPerBlock;
  return (operation_.dead_block != 0 && block == operation_.dead_block) ||
         Names(operation_.gone, party.name);
}

std::string LockCrashChecker::Check(const LockSegment& image, bool finished) {
  if (std::string wrong = Between(image); !wrong.empty()) {
    return "when others act before the recovery: " + wrong;
  }
  LockScene::Copy(image, scene_.clone);
  LockSpace& space = *scene_.clone.space;
  Must(space.PrepareLanes(0, kLockLanes).ok(), "preparing lanes");
  if (std::string wrong = RecoverLanes(space); !wrong.empty()) return wrong;
  if (!operation_.damaged) {
    if (std::string wrong = Sound(space); !wrong.empty()) return wrong;
  }
  if (operation_.done != nullptr && !burying_) {
    const bool is_done = operation_.done(scene_, space);
    if (was_done_ && !is_done) return "an outcome was taken back";
    if (finished && !is_done) return "a finished operation is lost";
    was_done_ = is_done;
  }
  Bury(space);
  if (std::string wrong = Sound(space); !wrong.empty()) return "the dead gone: " + wrong;
  if (std::string wrong = Parties(space); !wrong.empty()) return wrong;
  if (std::string wrong = Queues(space); !wrong.empty()) return wrong;
  if (std::string wrong = Leaks(space); !wrong.empty()) return wrong;
  return FollowUp(space);
}

// As the daemon does, twice.
std::string LockCrashChecker::RecoverLanes(LockSpace& space) const {
  for (const uint32_t lane : {kRecoveryLane.id, operation_.lane}) {
    (void)space.RecoverLane(kDaemonLane, lane);
    const RecoveryReport again = space.RecoverLane(kDaemonLane, lane);
    if (again.stripes_released != 0 || again.redo_applied || again.wake_replayed ||
        again.repaired) {
      return "a second recovery found work";
    }
  }
  return "";
}

void LockCrashChecker::Bury(LockSpace& space) const {
  if (operation_.lane < kLanesPerBlock) (void)space.TakeRemotes();
  if (operation_.dead_block != 0) (void)space.RecoverBlock(kDaemonLane, operation_.dead_block);
  if (operation_.next_daemon != nullptr) operation_.next_daemon(space);
}

// Survivors that lost something use its request for something else, others try every lock, and what
// they got before the recovery they have after it.
std::string LockCrashChecker::Between(const LockSegment& image) {
  LockScene::Copy(image, scene_.between);
  LockSpace& space = *scene_.between.space;
  Must(space.PrepareLanes(0, kLockLanes).ok(), "preparing lanes");
  std::vector<std::pair<LockPlace, uint64_t>> got;
  const auto ask = [&](const Lane& lane, const std::string& lock) -> std::string {
    LockRequest request;
    request.queue = false;
    LockPlace place = 0;
    LockLook look;
    const Status status = space.Acquire(lane, lock, request, &place, &look);
    if (place != 0) got.emplace_back(place, look.token);
    const bool may = status.ok() || MayRefuse(status) || operation_.damaged;
    return may ? "" : status.ToString();
  };
  for (const LockPartySeen& party : scene_.parties) {
    if (IsGone(party) || party.remote || KindNow(space, party.place) != RequestKind::kLost)
      continue;
    bool held = false;
    const Status released = space.Release(party.lane, party.place, &held);
    if (!released.ok()) return released.ToString();
    if (std::string wrong = ask(party.lane, "instead of " + party.lock); !wrong.empty())
      return wrong;
  }
  if (std::string wrong = ask(kOtherLane, "another"); !wrong.empty()) return wrong;
  for (const std::string& lock : scene_.locks) {
    if (std::string wrong = ask(kOtherLane, lock); !wrong.empty()) return wrong;
  }
  if (std::string wrong = RecoverLanes(space); !wrong.empty()) return wrong;
  Bury(space);
  if (std::string wrong = Sound(space); !wrong.empty()) return wrong;
  for (const auto& [place, token] : got) {
    if (operation_.damaged) break;  // What hung in a damaged bucket is lost.
    if (KindNow(space, place) != RequestKind::kHolding ||
        LockInternals::Request(space, place).token.load() != token) {
      return "recovery took what was granted meanwhile";
    }
  }
  return "";
}

std::string LockCrashChecker::Parties(LockSpace& space) const {
  const uint32_t daemon_event = space.WaitForEvent(~0u, 0);
  for (const LockPartySeen& party : scene_.parties) {
    const std::string who = "\"" + party.name + "\"";
    if (IsGone(party)) continue;
    const RequestSlot& request = LockInternals::Request(space, party.place);
    const RequestKind kind = KindNow(space, party.place);
    const uint64_t token = request.token.load();
    const bool holds = kind == RequestKind::kHolding;
    const bool waits = kind == RequestKind::kWaiting;
    const bool lost = kind == RequestKind::kLost && Names(operation_.loses, party.name);
    if (party.holds && !lost && !(holds && token == party.token)) return who + " lost its lock";
    if (!party.holds && !lost && !holds && !waits) return who + " lost its place";
    if (!party.holds && holds && token <= scene_.last_token) return who + " has an old token";
    if (!party.holds && !waits && party.sleeps && !party.remote &&
        request.event.load() == party.event) {
      return who + " is not woken";
    }
    if (!party.holds && !waits && party.remote && daemon_event == scene_.daemon_event) {
      return "the daemon is not told of " + who;
    }
    if (Names(operation_.holds, party.name) && !holds) return who + " does not hold";
    if (Names(operation_.waits, party.name) && !waits) return who + " does not wait";
  }
  return "";
}

// Whoever came later has nothing that an earlier one waits for, and stands behind it.
std::string LockCrashChecker::Queues(LockSpace& space) const {
  std::map<std::string, size_t> waits;  // The first of each lock.
  for (size_t i = 0; i < scene_.parties.size(); ++i) {
    const LockPartySeen& party = scene_.parties[i];
    if (IsGone(party)) continue;
    const RequestKind kind = KindNow(space, party.place);
    if (kind == RequestKind::kWaiting) waits.emplace(party.lock, i);
    if (kind == RequestKind::kHolding && !party.holds && waits.count(party.lock) > 0) {
      return "\"" + party.name + "\" overtook \"" + scene_.parties[waits[party.lock]].name + "\"";
    }
  }
  for (uint32_t number = 1; number <= kLocksInScene; ++number) {
    const LockSlot& lock = LockInternals::Lock(space, number);
    if (lock.state.load() != kLockLinked) continue;
    size_t before = 0;
    for (auto at = static_cast<uint32_t>(lock.queue.load()); at != 0;
         at = static_cast<uint32_t>(LockInternals::Request(space, at).links.load() >> 32)) {
      size_t index = 0;
      while (index < scene_.parties.size() &&
             (scene_.parties[index].place != at || IsGone(scene_.parties[index]))) {
        ++index;
      }
      if (index == scene_.parties.size()) return "nobody that is known waits";
      if (index < before) return "a queue changed its order";
      before = index;
    }
  }
  return "";
}

std::string LockCrashChecker::Leaks(LockSpace& space) const {
  for (LockPlace place = 1; place <= scene_.live.geometry.requests_max; ++place) {
    const RequestKind kind = KindNow(space, place);
    if (kind == RequestKind::kFree) continue;
    const uint32_t block = BlockWordNow(space, place) - 1;
    if (operation_.dead_block != 0 && block == operation_.dead_block) {
      return "the dead process has request " + std::to_string(place);
    }
    if (kind == RequestKind::kClaimed && (block != 0 || operation_.lane >= kLanesPerBlock))
      continue;
    bool known = false;
    for (const LockPartySeen& party : scene_.parties) {
      known = known || (party.place == place && !IsGone(party));
    }
    if (!known) return "request " + std::to_string(place) + " is nobody's";
  }
  for (uint32_t number = 1; number <= kLocksInScene; ++number) {
    const uint64_t state = LockInternals::Lock(space, number).state.load();
    if (state != 0 && state != kLockLinked) {
      return "lock " + std::to_string(number) + " is neither free nor linked";
    }
  }
  return "";
}

// Everybody gives back what it has, then every lock can be had and given back.
std::string LockCrashChecker::FollowUp(LockSpace& space) const {
  bool held = false;
  for (const LockPartySeen& party : scene_.parties) {
    if (IsGone(party)) continue;
    const Status released = space.Release(party.lane, party.place, &held);
    if (!released.ok()) return "\"" + party.name + "\" cannot release: " + released.ToString();
  }
  std::vector<std::string> names = scene_.locks;
  names.push_back("fresh");
  const Lane heir{kVictimLane.id, kOtherLane.operation_timeout_ns};
  uint64_t token = space.LastToken();
  for (const std::string& name : names) {
    for (const Lane& lane : {kOtherLane, heir, kDaemonLane}) {
      LockPlace place = 0;
      LockLook look;
      const Status status = space.Acquire(lane, name, {}, &place, &look);
      if (!status.ok()) return "\"" + name + "\" cannot be had: " + status.ToString();
      if (look.phase != LockPhase::kHolding || look.token <= token)
        return "\"" + name + "\" is not given to whoever asks";
      token = look.token;
      const Status released = space.Release(lane, place, &held);
      if (!released.ok() || !held) return "\"" + name + "\" cannot be given back";
    }
  }
  for (LockPlace place = 1; place <= scene_.live.geometry.requests_max; ++place) {
    const RequestKind kind = KindNow(space, place);
    if (kind != RequestKind::kFree && kind != RequestKind::kClaimed) {
      return "a request is left when all is given back";
    }
  }
  const std::string fault = Sound(space);
  return fault.empty() ? "" : "after more operations: " + fault;
}

}  // namespace statehouse
