// Recovery: what the daemon does for a lane whose process is dead. It trusts nothing that it reads:
// each field is copied once, checked against the private geometry, and no loop takes its bound from
// shared memory.
#include "engine/base/mutant.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/area.h"
#include "engine/state/copy.h"

namespace statehouse {
namespace {

struct PackedSpan {
  uint32_t first;
  uint32_t count;
};

PackedSpan Unpack(uint64_t packed) {
  return PackedSpan{static_cast<uint32_t>(packed), static_cast<uint32_t>(packed >> 32)};
}

bool InBounds(PackedSpan span, uint32_t stripe_count) {
  return span.count > 0 && span.count <= stripe_count && span.first <= stripe_count - span.count;
}

}  // namespace

// The redo of an armed record, copied again. False when record and intent contradict each other:
// then nothing was armed.
bool Area::ApplyRedo(const LaneRecord& record, uint32_t lane, StripeSpan span) {
  const uint64_t pos = record.redo_pos.load(std::memory_order_relaxed);
  const uint64_t len = record.redo_len.load(std::memory_order_relaxed);
  if (len == 0 || len > geometry_.atomic_range_bytes || !Contains(pos, len)) return false;
  const StripeSpan covered = SpanOf(pos, len);
  if (covered.first != span.first || covered.count != span.count) return false;
  CopyShared(data_ + pos, journals_ + lane * geometry_.atomic_range_bytes, len);
  return true;
}

RecoveryReport Area::RecoverLane(uint32_t lane) {
  RecoveryReport report;
  if (lane == 0 || lane >= geometry_.lane_count) return report;
  LaneRecord& record = lanes_[lane];

  const PackedSpan intent = Unpack(record.intent.load(std::memory_order_relaxed));
  const bool intent_is_sane = InBounds(intent, geometry_.stripe_count);
  if (intent_is_sane) {
    const StripeSpan span{intent.first, intent.count};
    const uint64_t first_word = stripes_[span.first].control.load(std::memory_order_acquire);
    const bool armed =
        OwnerOf(first_word) == lane && record.tag.load(std::memory_order_relaxed) == first_word;
    if (armed) report.redo_applied = ApplyRedo(record, lane, span);
    CrashFence();
    // As the writer does: once a stripe is released, the redo must never be applied again.
    if (!MutantIs(Mutant::kTagKept)) record.tag.store(0, std::memory_order_relaxed);
    CrashFence();
    // Note the wake-up that the releases owe, as a living writer would: this recovery can be killed
    // too.
    for (uint32_t i = 0; i < span.count; ++i) {
      if (OwnerOf(stripes_[span.first + i].control.load(std::memory_order_relaxed)) == lane) {
        record.pending_wake.store(span.first | uint64_t{span.count} << 32,
                                  std::memory_order_relaxed);
        break;
      }
    }
    CrashFence();
    // Counters first, words in falling order, as the writer does.
    for (uint32_t i = span.count; i-- > 0;) {
      StripeLine& stripe = stripes_[span.first + i];
      const uint64_t word = stripe.control.load(std::memory_order_relaxed);
      if (OwnerOf(word) != lane) continue;
      const uint64_t counter = stripe.range_counter.load(std::memory_order_relaxed);
      if ((counter & 1) != 0 && !MutantIs(Mutant::kCountersLeftOdd)) {
        stripe.range_counter.store(counter + 1, std::memory_order_release);
      }
      CrashFence();
      stripe.control.store(ReleasedChanged(word), std::memory_order_release);
      CrashFence();
      ++report.stripes_released;
    }
  }

  const PackedSpan owed = Unpack(record.pending_wake.load(std::memory_order_relaxed));
  if (InBounds(owed, geometry_.stripe_count)) {
    // Whatever the flags say: the lane may have died between clearing a flag and bumping its event.
    WakeSpan(StripeSpan{owed.first, owed.count}, WakeWhom::kEverybody);
    report.wake_replayed = true;
  }
  CrashFence();
  record.pending_wake.store(0, std::memory_order_relaxed);

  // Whatever still names the lane was not covered by its intent: the record was damaged.
  for (uint32_t i = 0; i < geometry_.stripe_count; ++i) {
    StripeLine& stripe = stripes_[i];
    const uint64_t word = stripe.control.load(std::memory_order_relaxed);
    if (OwnerOf(word) != lane) continue;
    const uint64_t counter = stripe.range_counter.load(std::memory_order_relaxed);
    if ((counter & 1) != 0) stripe.range_counter.store(counter + 1, std::memory_order_release);
    stripe.control.store(ReleasedChanged(word), std::memory_order_release);
    ++report.stripes_released;
    report.repaired = true;
  }
  if (report.repaired) WakeAll();
  return report;
}

uint32_t Area::Scrub(const HoldsNobody& holds_nobody) {
  uint32_t mended = 0;
  for (uint32_t i = 0; i < geometry_.stripe_count; ++i) {
    StripeLine& stripe = stripes_[i];
    uint64_t word = stripe.control.load(std::memory_order_acquire);
    const uint64_t counter = stripe.range_counter.load(std::memory_order_acquire);
    const uint32_t owner = OwnerOf(word);
    if (owner != 0 && holds_nobody(i, word)) {
      if ((counter & 1) != 0) stripe.range_counter.store(counter + 1, std::memory_order_release);
      if (stripe.control.compare_exchange_strong(word, ReleasedChanged(word))) ++mended;
    } else if (owner == 0 && (counter & 1) != 0 &&
               stripe.control.load(std::memory_order_acquire) == word) {
      // Free before and after the odd counter was read: no holder is using it.
      uint64_t odd = counter;
      if (stripe.range_counter.compare_exchange_strong(odd, counter + 1)) ++mended;
    }
  }
  if (mended > 0) WakeAll();
  return mended;
}

}  // namespace statehouse
