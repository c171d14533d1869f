// Range operations. A range write puts its bytes into the lane's journal, takes the stripes in
// rising order, makes their range counters odd, arms the redo record, copies, makes the counters
// even, disarms, and releases in falling order. Only while every stripe is held may the redo be
// applied: in a released stripe it would undo what others wrote since.
//
// SYNC: area.range — counters odd, then the release fence, then the bytes; a reader's acquire fence
// stands between the bytes and its second look at the words.
#include <algorithm>
#include <cstring>

#include "engine/base/mutant.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/area.h"
#include "engine/state/copy.h"

namespace statehouse {
namespace {

// Attempts of an optimistic read before it takes the stripes (with a lane) or starts to back off
// (without).
constexpr int kOptimisticReads = 64;

}  // namespace

bool Area::LockSpan(const Lane& lane, StripeSpan span, uint64_t* first_locked, uint32_t* blocker) {
  LaneRecord& record = lanes_[lane.id];
  record.intent.store(span.first | uint64_t{span.count} << 32, std::memory_order_relaxed);
  CrashFence();
  for (uint32_t i = 0; i < span.count; ++i) {
    StripeLine& stripe = stripes_[span.first + i];
    uint64_t locked = 0;
    if (!TryLockOwned(stripe.control, lane.id, &locked)) {
      record.contended.store(record.contended.load(std::memory_order_relaxed) + 1,
                             std::memory_order_relaxed);
      if (!LockOwnedSlow(stripe.control, lane.id, lane.operation_timeout_ns, &locked)) {
        *blocker = span.first + i;
        UnlockSpan(lane.id, StripeSpan{span.first, i}, false);
        return false;
      }
    }
    if (i == 0) *first_locked = locked;
  }
  return true;
}

void Area::UnlockSpan(uint32_t lane, StripeSpan span, bool changed) {
  for (uint32_t i = span.count; i-- > 0;) {
    std::atomic<uint64_t>& control = stripes_[span.first + i].control;
    const uint64_t locked = control.load(std::memory_order_relaxed);
    control.store(changed ? ReleasedChanged(locked) : ReleasedUnchanged(locked),
                  std::memory_order_release);
    CrashFence();
  }
}

void Area::CommitRange(const Lane& lane, StripeSpan span, uint64_t first_locked, uint64_t pos,
                       uint64_t len, uint64_t fence) {
  LaneRecord& record = lanes_[lane.id];
  if (!MutantIs(Mutant::kFenceAfterData)) RaiseFence(span, fence);
  for (uint32_t i = 0; i < span.count; ++i) {
    std::atomic<uint64_t>& counter = stripes_[span.first + i].range_counter;
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  std::atomic_thread_fence(std::memory_order_release);
  if (MutantIs(Mutant::kArmedBeforeRedo)) record.tag.store(first_locked);
  record.redo_pos.store(pos, std::memory_order_relaxed);
  record.redo_len.store(len, std::memory_order_relaxed);
  CrashFence();
  if (!MutantIs(Mutant::kRedoNotArmed)) record.tag.store(first_locked, std::memory_order_relaxed);
  CrashFence();

  CopyShared(data_ + pos, journals_ + lane.id * geometry_.atomic_range_bytes, len);
  if (MutantIs(Mutant::kJournalSkipped))
    std::memset(journals_ + lane.id * geometry_.atomic_range_bytes, 0, len);

  CrashFence();
  for (uint32_t i = 0; i < span.count; ++i) {
    std::atomic<uint64_t>& counter = stripes_[span.first + i].range_counter;
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }
  CrashFence();
  // Disarmed before the first release: from then on another lane may write into a released stripe,
  // and a redo would undo that.
  if (!MutantIs(Mutant::kTagKept)) record.tag.store(0, std::memory_order_relaxed);
  CrashFence();
  if (MutantIs(Mutant::kFenceAfterData)) RaiseFence(span, fence);
  const bool wake = OwedWakes(span) != 0;
  if (wake && !MutantIs(Mutant::kWakeNotNoted)) {
    record.pending_wake.store(span.first | uint64_t{span.count} << 32, std::memory_order_relaxed);
    CrashFence();
  }
  record.mutations.store(record.mutations.load(std::memory_order_relaxed) + 1,
                         std::memory_order_relaxed);
  UnlockSpan(lane.id, span, true);
  if (wake) FinishWake(record, span);
}

template <typename FillJournal>
Status Area::MutateRange(const Lane& lane, uint64_t pos, uint64_t len, uint64_t fence,
                         FillJournal fill) {
  SH_RETURN_IF_ERROR(CheckMutation(pos, len));
  std::byte* const journal = journals_ + lane.id * geometry_.atomic_range_bytes;
  uint64_t done = 0;
  while (done < len) {
    const uint64_t piece = std::min(len - done, geometry_.atomic_range_bytes);
    fill(journal, done, piece);
    const StripeSpan span = SpanOf(pos + done, piece);
    uint64_t first_locked = 0;
    uint32_t blocker = 0;
    if (!LockSpan(lane, span, &first_locked, &blocker))
      return RefuseStalled(blocker, pos, len, done);
    if (IsLate(span, fence)) [[unlikely]] {
      Status refused = RefuseFence(span, fence, pos, len, done);
      UnlockSpan(lane.id, span, false);
      return refused;
    }
    CommitRange(lane, span, first_locked, pos + done, piece, fence);
    done += piece;
  }
  return Status();
}

Status Area::Write(const Lane& lane, uint64_t pos, std::span<const std::byte> bytes,
                   uint64_t fence) {
  if (bytes.empty()) {
    // Nothing to store, but an update to count: take the nearest stripe and release it as changed.
    SH_RETURN_IF_ERROR(CheckMutation(pos, 0));
    const StripeSpan span = SpanOf(std::min(pos, geometry_.size - 1), 1);
    uint64_t first_locked = 0;
    uint32_t blocker = 0;
    if (!LockSpan(lane, span, &first_locked, &blocker)) return RefuseStalled(blocker, pos, 0, 0);
    if (IsLate(span, fence)) {
      Status refused = RefuseFence(span, fence, pos, 0, 0);
      UnlockSpan(lane.id, span, false);
      return refused;
    }
    RaiseFence(span, fence);
    LaneRecord& record = lanes_[lane.id];
    const bool wake = OwedWakes(span) != 0;
    if (wake) record.pending_wake.store(span.first | uint64_t{1} << 32, std::memory_order_relaxed);
    CrashFence();
    UnlockSpan(lane.id, span, true);
    if (wake) FinishWake(record, span);
    return Status();
  }
  return MutateRange(lane, pos, bytes.size(), fence,
                     [&](std::byte* journal, uint64_t done, uint64_t piece) {
                       std::memcpy(journal, bytes.data() + done, piece);
                     });
}

Status Area::Fill(const Lane& lane, uint64_t pos, uint64_t len, std::byte value, uint64_t fence) {
  if (len == 0) return Write(lane, pos, {}, fence);
  return MutateRange(lane, pos, len, fence, [&](std::byte* journal, uint64_t done, uint64_t piece) {
    if (done == 0)
      std::memset(journal, static_cast<int>(value), piece);  // Later pieces find it filled.
  });
}

// One optimistic attempt: every stripe free and unchanged around the copy.
bool Area::TryReadPiece(uint64_t pos, std::span<std::byte> out) const {
  const StripeSpan span = SpanOf(pos, out.size());
  const StripeLine* const first = stripes_ + span.first;
  const StripeLine* const end = first + span.count;
  // The words are summed instead of kept: each sequence only grows, so equal sums of free words are
  // equal words.
  uint64_t before = 0;
  for (const StripeLine* stripe = first; stripe != end; ++stripe) {
    const uint64_t word = stripe->control.load(std::memory_order_acquire);
    if (OwnerOf(word) != 0) return false;
    before += word;
  }
  CopyShared(out.data(), data_ + pos, out.size());
  std::atomic_thread_fence(std::memory_order_acquire);
  uint64_t after = 0;
  for (const StripeLine* stripe = first; stripe != end; ++stripe) {
    const uint64_t word = stripe->control.load(std::memory_order_relaxed);
    if (OwnerOf(word) != 0) return false;
    after += word;
  }
  return before == after;
}

Status Area::ReadLocked(const Lane& lane, uint64_t pos, std::span<std::byte> out) {
  const StripeSpan span = SpanOf(pos, out.size());
  uint64_t first_locked = 0;
  uint32_t blocker = 0;
  if (!LockSpan(lane, span, &first_locked, &blocker))
    return RefuseStalled(blocker, pos, out.size(), 0);
  CopyShared(out.data(), data_ + pos, out.size());
  UnlockSpan(lane.id, span, false);
  return Status();
}

Status Area::Read(uint64_t pos, std::span<std::byte> out, const Lane* lane,
                  uint64_t operation_timeout_ns) const {
  if (live() && Contains(pos, out.size()) && out.size() <= geometry_.atomic_range_bytes &&
      !out.empty() && TryReadPiece(pos, out)) [[likely]] {
    return Status();
  }
  SH_RETURN_IF_ERROR(CheckRange(pos, out.size()));
  uint64_t done = 0;
  while (done < out.size()) {
    const uint64_t piece = std::min<uint64_t>(out.size() - done, geometry_.atomic_range_bytes);
    const std::span<std::byte> target = out.subspan(done, piece);
    bool accepted = false;
    for (int i = 0; i < kOptimisticReads && !accepted; ++i)
      accepted = TryReadPiece(pos + done, target);
    if (!accepted && lane != nullptr) {
      // Reading under the locks changes nothing that others see, so a const area may do it.
      SH_RETURN_IF_ERROR(const_cast<Area*>(this)->ReadLocked(*lane, pos + done, target));
      accepted = true;
    }
    Backoff backoff(operation_timeout_ns);
    while (!accepted && backoff.Pause()) accepted = TryReadPiece(pos + done, target);
    if (!accepted) return RefuseStalled(SpanOf(pos + done, piece).first, pos, out.size(), done);
    done += piece;
  }
  return Status();
}

}  // namespace statehouse
