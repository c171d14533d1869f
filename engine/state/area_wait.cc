// Waiting and waking. A waiter reads the event word, arms, looks at the condition, and sleeps on
// the event word. A writer that finds the flag armed, inside its critical section, notes the
// wake-up in its lane, releases, clears the flag, bumps the event and wakes. The flag is one-shot,
// so that a killed waiter costs one wake-up and not one for every later write.
//
// SYNC: area.wait — the waiter's seq_cst exchange of `armed` and its seq_cst loads of the words
// stand against the writer's seq_cst lock and its seq_cst load of `armed`: one of the two sees the
// other.
#include <algorithm>

#include "engine/os/futex.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/area.h"

namespace statehouse {
namespace {

// Nobody sleeps longer than this without looking again.
constexpr uint64_t kSleepNsMax = 1'000'000'000;

void WakeCell(std::atomic<uint32_t>& armed, std::atomic<uint32_t>& event) {
  armed.store(0, std::memory_order_seq_cst);
  event.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(event);
}

}  // namespace

uint64_t Area::OwedWakes(StripeSpan span) const {
  uint64_t armed = line_->armed.load(std::memory_order_seq_cst);
  for (uint32_t i = 0; i < span.count; ++i) {
    armed += stripes_[span.first + i].armed.load(std::memory_order_seq_cst);
  }
  return armed;
}

void Area::WakeSpan(StripeSpan span, WakeWhom whom) {
  const bool everybody = whom == WakeWhom::kEverybody;
  if (everybody || line_->armed.load(std::memory_order_seq_cst) != 0) {
    WakeCell(line_->armed, line_->event);
  }
  for (uint32_t i = 0; i < span.count; ++i) {
    StripeLine& stripe = stripes_[span.first + i];
    if (everybody || stripe.armed.load(std::memory_order_seq_cst) != 0) {
      WakeCell(stripe.armed, stripe.event);
    }
  }
}

void Area::FinishWake(LaneRecord& record, StripeSpan span) {
  record.wakes.store(record.wakes.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  WakeSpan(span, WakeWhom::kArmed);
  CrashFence();
  record.pending_wake.store(0, std::memory_order_relaxed);
}

void Area::WakeAll() {
  WakeCell(line_->armed, line_->event);
  for (uint32_t i = 0; i < geometry_.stripe_count; ++i) {
    StripeLine& stripe = stripes_[i];
    if (stripe.armed.load(std::memory_order_seq_cst) != 0) WakeCell(stripe.armed, stripe.event);
  }
}

Area::Scan Area::ScanSpan(StripeSpan span) const {
  Scan scan;
  for (uint32_t i = 0; i < span.count; ++i) {
    const uint64_t word = stripes_[span.first + i].control.load(std::memory_order_seq_cst);
    scan.updates += SequenceOf(word);
    scan.any_owned |= OwnerOf(word) != 0;
  }
  return scan;
}

StatusOr<Area::StripeSpan> Area::WaitSpan(uint64_t pos, uint64_t len) const {
  SH_RETURN_IF_ERROR(CheckRange(pos, len));
  if (len == 0 && pos == 0) return StripeSpan{0, geometry_.stripe_count};
  return SpanOf(std::min(pos, geometry_.size - 1), std::max<uint64_t>(len, 1));
}

uint64_t Area::Updates() const { return ScanSpan(StripeSpan{0, geometry_.stripe_count}).updates; }

StatusOr<uint64_t> Area::UpdatesOfRange(uint64_t pos, uint64_t len) const {
  SH_ASSIGN_OR_RETURN(const StripeSpan span, WaitSpan(pos, len));
  return ScanSpan(span).updates;
}

StatusOr<WaitResult> Area::Poll(uint64_t since, uint64_t pos, uint64_t len) const {
  SH_ASSIGN_OR_RETURN(const StripeSpan span, WaitSpan(pos, len));
  const uint64_t updates = ScanSpan(span).updates;
  return WaitResult{updates != since, updates};
}

const std::atomic<uint32_t>& Area::EventWord(uint32_t cell) const {
  return cell == kWholeArea ? line_->event : stripes_[cell].event;
}

void Area::ArmEvent(uint32_t cell) {
  std::atomic<uint32_t>& armed = cell == kWholeArea ? line_->armed : stripes_[cell].armed;
  armed.exchange(1, std::memory_order_seq_cst);  // SYNC: area.wait
}

StatusOr<WaitResult> Area::Wait(uint64_t since, uint64_t timeout_ns, uint64_t pos, uint64_t len) {
  if (!writable()) {
    return Status(Reason::kReadOnly,
                  "area \"" + name_ + "\" is attached read-only: waits go through the service");
  }
  SH_ASSIGN_OR_RETURN(const StripeSpan span, WaitSpan(pos, len));
  const bool one_stripe = span.count == 1;
  StripeLine& stripe = stripes_[span.first];
  const WaitCell cell =
      one_stripe ? WaitCell{&stripe.armed, &stripe.event} : WaitCell{&line_->armed, &line_->event};

  // A first look without the clock or the flag: the usual answer when something changed since.
  Scan scan = ScanSpan(span);
  if (scan.updates != since || timeout_ns == 0)
    return WaitResult{scan.updates != since, scan.updates};

  const uint64_t begin = MonotonicNs();
  const uint64_t deadline = timeout_ns > UINT64_MAX - begin ? UINT64_MAX : begin + timeout_ns;
  Backoff changing(UINT64_MAX / 4);
  for (;;) {
    const uint32_t event = cell.event->load(std::memory_order_seq_cst);
    cell.armed->exchange(1, std::memory_order_seq_cst);
    scan = ScanSpan(span);
    if (!live()) return RefuseState();
    if (scan.updates != since) return WaitResult{true, scan.updates};
    const uint64_t now = MonotonicNs();
    if (now >= deadline) return WaitResult{false, scan.updates};
    if (scan.any_owned) {
      // A writer is inside; it may have looked at the flag before it was armed. Its release is
      // moments away.
      (void)changing.Pause();
      continue;
    }
    FutexWait(*cell.event, event, std::min(deadline - now, kSleepNsMax));
  }
}

}  // namespace statehouse
