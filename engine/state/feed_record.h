// What a feed's log and a follow log say of a change: both hold FeedRecord.
#pragma once

#include "engine/shm/feed_layout.h"
#include "engine/state/dict_change.h"

namespace statehouse {

// What a record with a key and a value of so many bytes takes.
inline uint64_t FeedRecordBytes(size_t key_bytes, size_t value_bytes) {
  return (sizeof(FeedRecord) + key_bytes + value_bytes + 7) / 8 * 8;
}

// All of it but the bytes of key and value, for which there is room then. REQUIRES: it makes sense.
inline void TakeFeedRecord(const FeedRecord& record, DictChange* change) {
  change->revision = record.revision;
  change->version = record.version;
  change->operation = static_cast<FeedOperation>(record.operation);
  change->kind = static_cast<DictKind>(record.kind);
  change->value_gone = (record.flags & kFeedValueGone) != 0;
  change->bits = record.bits;
  change->time_ms = record.time_ms;
  change->key.resize(record.key_bytes);
  change->bytes.resize(record.value_bytes);
}

}  // namespace statehouse
