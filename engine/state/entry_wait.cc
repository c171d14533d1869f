#include "engine/state/entry_wait.h"

#include <algorithm>

#include "engine/base/watch_mutant.h"
#include "engine/os/futex.h"
#include "engine/value/value.h"

namespace statehouse {
namespace {

// Where the kernel makes no barrier for a sleeper, he looks by time.
constexpr uint64_t kLookNs = 1'000'000;
// A sleeper that was woken in vain so often in a row, each time soon, sleeps a while without
// arming: others' changes are not slowed by waking him for nothing.
constexpr int kVainMax = 8;
constexpr uint64_t kSoonNs = 500'000;
constexpr uint64_t kPauseNs = 500'000;

bool AsksForVersion(EntryWait::Kind kind) {
  return kind == EntryWait::Kind::kVersionAbove || kind == EntryWait::Kind::kVersionDiffers;
}

// The value that `wait` is about. False: there is none.
StatusOr<bool> FindPart(const EntryWait& wait, const EntryLook& look, std::string* storage,
                        std::string_view* part) {
  if (!look.found) return false;
  *part = WireOf(look.entry, storage);
  if (wait.path.empty()) return true;
  const std::string_view whole = *part;
  const Status status = GetPath(whole, wait.path, part);
  if (status.ok()) return true;
  // What has no such part has it later, perhaps.
  if (status.reason() == Reason::kPathNotFound || status.reason() == Reason::kTypeMismatch) {
    return false;
  }
  return status;
}

}  // namespace

Status CheckEntryWait(const EntryWait& wait) {
  SH_RETURN_IF_ERROR(CheckPath(wait.path));
  if (AsksForVersion(wait.kind) && !wait.path.empty()) {
    return Status(Reason::kInvalidArgument,
                  "a version belongs to the whole entry: wait for it without a path");
  }
  return wait.kind == EntryWait::Kind::kValue ? CheckValue(wait.value) : Status();
}

Status LookAtEntry(const Dict& dict, std::string_view key, const EntryWait& wait, EntryLook* look,
                   uint64_t operation_timeout_ns) {
  look->met = false;
  look->look_again_ms = 0;
  SH_RETURN_IF_ERROR(dict.Get(key, &look->entry, &look->found, operation_timeout_ns));
  const uint64_t version = look->found ? look->entry.version : 0;
  std::string storage;
  std::string_view part;
  bool has_part = false;
  if (!AsksForVersion(wait.kind)) {
    SH_ASSIGN_OR_RETURN(has_part, FindPart(wait, *look, &storage, &part));
  }
  switch (wait.kind) {
    case EntryWait::Kind::kPresent: look->met = has_part; break;
    case EntryWait::Kind::kAbsent: look->met = !has_part; break;
    case EntryWait::Kind::kVersionAbove: look->met = look->found && version > wait.version; break;
    case EntryWait::Kind::kVersionDiffers: look->met = version != wait.version; break;
    case EntryWait::Kind::kValue: look->met = has_part && part == wait.value; break;
  }
  if (look->found) look->look_again_ms = look->entry.expires_ms;
  return Status();
}

Status WaitForEntry(Dict& dict, std::string_view key, const EntryWait& wait, uint64_t timeout_ns,
                    EntryLook* look) {
  const uint64_t now_ns = MonotonicNs();
  const uint64_t end_ns = timeout_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + timeout_ns;
  SH_RETURN_IF_ERROR(LookAtEntry(dict, key, wait, look));
  for (int vain = 0; !look->met;) {
    AtWatchPoint(WatchPoint::kWaitBetweenSteps);
    // SYNC: dict.watch
    uint32_t event = dict.watch_event().load(std::memory_order_seq_cst);
    const bool is_told = WatchMutantIs(WatchMutant::kWaitNotArmed) || dict.ArmWatch();
    AtWatchPoint(WatchPoint::kWaitBetweenSteps);
    if (!WatchMutantIs(WatchMutant::kWaitNotLookedAgain)) {
      SH_RETURN_IF_ERROR(LookAtEntry(dict, key, wait, look));
    }
    AtWatchPoint(WatchPoint::kWaitBetweenSteps);
    if (WatchMutantIs(WatchMutant::kWaitEventReadLate)) event = dict.watch_event().load();
    const uint64_t begin_ns = MonotonicNs();
    if (look->met || begin_ns >= end_ns) return Status();
    uint64_t sleep_ns = end_ns - begin_ns;
    if (look->look_again_ms != 0) {
      const uint64_t now_ms = dict.NowMs();
      const uint64_t left_ms = look->look_again_ms > now_ms ? look->look_again_ms - now_ms : 0;
      sleep_ns = std::min(sleep_ns, (left_ms + 1) * 1'000'000);
    }
    FutexWait(dict.watch_event(), event, is_told ? sleep_ns : std::min(sleep_ns, kLookNs));
    // Armed or not: most often it is met now.
    SH_RETURN_IF_ERROR(LookAtEntry(dict, key, wait, look));
    const uint64_t slept_ns = MonotonicNs() - begin_ns;
    vain = slept_ns < kSoonNs ? vain + 1 : 0;
    if (!look->met && vain >= kVainMax && sleep_ns > slept_ns) {
      SleepNs(std::min(kPauseNs, sleep_ns - slept_ns));
    }
  }
  return Status();
}

}  // namespace statehouse
