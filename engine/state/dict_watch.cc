// What lets somebody follow a dict's changes: the wake-up, and a scan that tells which changes it
// saw.
#include "engine/os/barrier.h"
#include "engine/state/dict_internal.h"

namespace statehouse {

// Clears the word first, so that only the first change after an arming pays for waking.
void Dict::WakeWatchers() const {
  if (line_->armed.exchange(0, std::memory_order_seq_cst) == 0) return;
  line_->event.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(line_->event);
}

bool Dict::ArmWatch() {
  line_->armed.store(1, std::memory_order_seq_cst);
  return BarrierEverywhere();  // SYNC: dict.watch
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
