// What lets somebody follow a dict's changes: the wake-up, and a scan that tells which changes it
// saw.
#include "engine/os/barrier.h"
#include "engine/state/dict_internal.h"

namespace statehouse {

// Clears the word first, so that only the first change after an arming pays for waking.
void Dict::WakeWatchers() const {
  uint32_t armed = line_->armed.load(std::memory_order_relaxed);
  uint32_t left = 0;
  do {
    left = (armed & kArmedFollow) != 0 ? armed & kArmedLate : 0;
    if (armed == left) return;
  } while (!line_->armed.compare_exchange_weak(armed, left, std::memory_order_seq_cst));
  if ((armed & kArmedFollow) != 0) WakeSleepers(line_->follow_event);
  if ((armed & ~left & ~kArmedFollow) != 0) WakeSleepers(line_->event);
}

bool Dict::ArmWatch(uint32_t who) {
  line_->armed.fetch_or(who, std::memory_order_seq_cst);
  return BarrierEverywhere();  // SYNC: dict.watch
}

// SYNC: dict.watch — who is late arms and looks at the rings; whoever calls this has seen a change
// in them.
void Dict::WakeLate() const {
  if (!IsArmed(kArmedLate)) return;
  const uint32_t armed = line_->armed.fetch_and(~kArmedLate, std::memory_order_seq_cst);
  if ((armed & kArmedLate) != 0) WakeSleepers(line_->event);
}

Status Dict::ScanBucket(uint32_t bucket, std::string_view prefix, bool accept_held,
                        const std::function<void(DictEntry&)>& take, uint64_t* sequence,
                        uint64_t operation_timeout_ns) const {
  Backoff backoff(operation_timeout_ns);
  std::vector<DictEntry> entries;
  for (;;) {
    const DictState now = state();
    if (now != DictState::kLive && now != DictState::kMoving) return RefuseState();
    entries.clear();
    bool held = false;
    const Status read = ReadBucket(bucket, prefix, operation_timeout_ns, &entries, sequence, &held);
    if (!read.ok() && read.reason() != Reason::kDataLoss) return read;
    if (!held || accept_held) break;
    if (!backoff.Pause()) return RefuseStalled(bucket);
  }
  for (DictEntry& entry : entries) take(entry);
  return Status();
}

}  // namespace statehouse
