// The rare parts of a dict's critical sections; the usual ones are in dict_internal.h.
//
// SYNC: dict.bucket — a mutation's release store of the slot (or of a number's version) pairs with
// a reader's acquire load; the reader accepts what it copied when the control word is the same
// before and after, even when it is held: what a slot published stays unchanged until the word
// moved on.
#include "engine/state/dict_internal.h"

namespace statehouse {

bool Dict::LockSlow(Section& section, uint32_t id, uint64_t* locked) const {
  Put64(section.record.contended, Get64(section.record.contended) + 1);
  return LockOwnedSlow(LockWord(id), section.lane.id, section.lane.operation_timeout_ns, locked);
}

// The bucket could not be locked, or was while the dict is not live. Waits while it is being moved.
Status Dict::LockBucketSlow(Section& section, uint32_t bucket) const {
  Backoff moving(section.lane.operation_timeout_ns);
  bool held = section.locks > 0 && section.locked_last == bucket;
  for (;;) {
    if (!held) {
      const Status stalled = RefuseStalled(bucket);
      Unlock(section, false);
      return stalled;
    }
    const uint32_t state = line_->state.load(std::memory_order_seq_cst);
    if (state == static_cast<uint32_t>(DictState::kLive)) return Status();
    const bool alone = section.locks == 1;
    Unlock(section, false);
    while (this->state() == DictState::kMoving) {
      if (!moving.Pause()) return RefuseMoving();
    }
    // With other locks the caller begins again, in this segment or in the next one.
    if (!alone || this->state() != DictState::kLive) {
      return this->state() == DictState::kLive ? RefuseMoving() : RefuseState();
    }
    held = Lock(section, bucket);
  }
}

Status Dict::RefuseMoving() const {
  return Status(Reason::kStalled,
                "dict \"" + name_ + "\" is being moved to another segment; try again");
}

void Dict::PutRing(uint32_t lane, uint64_t position, const void* bytes, size_t len) const {
  std::byte* const ring = rings_ + lane * kChangeRingBytes;
  const auto* from = static_cast<const std::byte*>(bytes);
  const uint64_t at = position % kChangeRingBytes;
  const size_t first = std::min<uint64_t>(len, kChangeRingBytes - at);
  CopyShared(ring + at, from, first);
  if (first < len) CopyShared(ring, from + first, len - first);
}

}  // namespace statehouse
