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

Status Dict::ScanWithSequences(uint32_t* bucket, uint32_t buckets_max, size_t limit,
                               std::string_view prefix, const std::function<void(DictEntry&)>& take,
                               std::vector<uint64_t>* sequences,
                               uint64_t operation_timeout_ns) const {
  size_t given = 0;
  std::vector<DictEntry> entries;
  const uint32_t end = *bucket + std::min(buckets_max, geometry_.bucket_count - *bucket);
  while (*bucket < end && given < limit) {
    const DictState now = state();
    if (now != DictState::kLive && now != DictState::kMoving) return RefuseState();
    entries.clear();
    uint64_t sequence = 0;
    const Status read = ReadBucket(*bucket, prefix, operation_timeout_ns, &entries, &sequence);
    if (!read.ok() && read.reason() != Reason::kDataLoss) return read;
    for (DictEntry& entry : entries) take(entry);
    given += entries.size();
    sequences->push_back(sequence);
    ++*bucket;
  }
  return Status();
}

}  // namespace statehouse
