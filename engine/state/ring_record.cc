#include "engine/state/ring_record.h"

namespace statehouse {

bool CopyRing(const Dict& dict, uint32_t lane, uint64_t begin, uint64_t end, std::string* bytes) {
  bytes->resize(end - begin);
  const std::span<const std::byte> ring = dict.RingOf(lane);
  const uint64_t at = begin % kChangeRingBytes;
  const size_t first = std::min<uint64_t>(bytes->size(), kChangeRingBytes - at);
  auto* to = reinterpret_cast<std::byte*>(bytes->data());
  CopyShared(to, ring.data() + at, first);
  CopyShared(to + first, ring.data(), bytes->size() - first);
  std::atomic_thread_fence(std::memory_order_acquire);
  const uint64_t reserved = dict.LaneRecordOf(lane).ring_reserve.load(std::memory_order_relaxed);
  return reserved <= begin + kChangeRingBytes;
}

bool TakeRingRecord(std::string_view bytes, RingRecord* record) {
  ChangeHeader header;
  if (bytes.size() < sizeof header) return false;
  std::memcpy(&header, bytes.data(), sizeof header);
  record->is_inline = header.value_bytes != kValueNotInline;
  record->bytes = header.record_bytes;
  const uint64_t value_bytes = record->is_inline ? header.value_bytes : 0;
  const uint64_t needed = sizeof header + header.key_bytes + value_bytes;
  if (header.record_bytes % 8 != 0 || header.record_bytes < needed ||
      header.record_bytes > bytes.size() || value_bytes > kInlineValueBytesMax ||
      header.key_bytes == 0 || header.key_bytes > kDictKeyBytesMax ||
      !IsChangeOperation(header.operation) ||
      header.kind > static_cast<uint8_t>(DictKind::kFloat64)) {
    return false;
  }
  const char* const key = bytes.data() + sizeof header;
  DictChange& change = record->change;
  change.key.assign(key, header.key_bytes);
  change.bytes.assign(key + header.key_bytes, value_bytes);
  change.operation = static_cast<FeedOperation>(header.operation);
  change.kind = static_cast<DictKind>(header.kind);
  change.value_gone = false;
  change.version = header.version;
  change.bits = header.bits;
  return true;
}

}  // namespace statehouse
