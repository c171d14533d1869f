// Records of the lanes' rings of changes, as the feed and those who follow the rings read them.
// Whoever may write the dict wrote them: nothing of them is believed.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "engine/state/copy.h"
#include "engine/state/dict.h"
#include "engine/state/dict_change.h"

namespace statehouse {

// The longest record.
inline constexpr uint64_t kRingRecordBytesMax =
    (sizeof(ChangeHeader) + kDictKeyBytesMax + kInlineValueBytesMax + 7) / 8 * 8;

inline bool IsChangeOperation(uint8_t operation) {
  return operation >= static_cast<uint8_t>(ChangeOperation::kPut) &&
         operation <= static_cast<uint8_t>(ChangeOperation::kEvict);
}

// Where a lane's ring ends now.
inline uint64_t RingHead(const Dict& dict, uint32_t lane) {
  return dict.LaneRecordOf(lane).ring_head.load(std::memory_order_acquire) & ~uint64_t{7};
}

// The bytes of a lane's ring from `begin` to `end`. False: they may have been written over. SYNC:
// dict.ring. REQUIRES: not more than kChangeRingBytes.
bool CopyRing(const Dict& dict, uint32_t lane, uint64_t begin, uint64_t end, std::string* bytes);

struct RingRecord {
  DictChange change;       // Without revision and time.
  bool is_inline = false;  // It has the value.
  uint64_t bytes = 0;      // In the ring.
};
// What the first record of `bytes` says. False: it makes no sense.
bool TakeRingRecord(std::string_view bytes, RingRecord* record);

}  // namespace statehouse
