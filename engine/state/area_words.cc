// Word operations that do not fit the inline path: unaligned, contended, or refused.
//
#include <atomic>
#include <cstring>

#include "engine/base/mutant.h"
#include "engine/base/word.h"
#include "engine/os/futex.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/area.h"
#include "engine/state/copy.h"

namespace statehouse {
namespace {

constexpr uint64_t kStepBackNs = 2000;

// Reaches a word at any alignment with one load or store instruction.
template <typename T>
struct [[gnu::packed]] Unaligned {
  T value;
};

template <typename T>
bool IsAligned(const std::byte* place) {
  return (reinterpret_cast<uintptr_t>(place) & (sizeof(T) - 1)) == 0;
}

#if defined(__SANITIZE_THREAD__)
template <typename T>
T LoadUnaligned(const std::byte* place) {
  T value;
  CopyShared(reinterpret_cast<std::byte*>(&value), place, sizeof value);
  return value;
}

template <typename T>
void StoreUnaligned(std::byte* place, T value) {
  CopyShared(place, reinterpret_cast<const std::byte*>(&value), sizeof value);
}
#else
template <typename T>
T LoadUnaligned(const std::byte* place) {
  return reinterpret_cast<const volatile Unaligned<T>*>(place)->value;
}

template <typename T>
void StoreUnaligned(std::byte* place, T value) {
  reinterpret_cast<volatile Unaligned<T>*>(place)->value = value;
}
#endif

template <typename T>
void StoreWord(std::byte* place, T value) {
  if (IsAligned<T>(place)) {
    std::atomic_ref<T>(*reinterpret_cast<T*>(place)).store(value, std::memory_order_release);
    return;
  }
  std::atomic_thread_fence(std::memory_order_release);
  StoreUnaligned(place, value);
}

// The current value, read by the stripe's holder.
template <typename T>
T LoadHeld(std::byte* place) {
  if (IsAligned<T>(place)) {
    return std::atomic_ref<T>(*reinterpret_cast<T*>(place)).load(std::memory_order_relaxed);
  }
  return LoadUnaligned<T>(place);
}

void Count(std::atomic<uint64_t>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

template <typename T>
Status Area::LoadSlow(uint64_t pos, T* value, uint64_t operation_timeout_ns) const {
  SH_RETURN_IF_ERROR(CheckRange(pos, sizeof(T)));
  std::byte* const place = data_ + pos;
  const StripeSpan span = SpanOf(pos, sizeof(T));
  if (span.count > 1) {
    return Read(pos, std::as_writable_bytes(std::span<T>(value, 1)), nullptr, operation_timeout_ns);
  }
  const StripeLine& stripe = stripes_[span.first];
  // An unaligned word can be torn by a word writer too, so it validates the control word.
  const bool aligned = IsAligned<T>(place);
  const std::atomic<uint64_t>& guard = aligned ? stripe.range_counter : stripe.control;
  const uint64_t busy_mask = aligned ? 1 : kOwnerMask;
  Backoff backoff(operation_timeout_ns);
  do {
    const uint64_t before = guard.load(std::memory_order_acquire);
    if ((before & busy_mask) != 0) continue;
    *value = aligned
                 ? std::atomic_ref<T>(*reinterpret_cast<T*>(place)).load(std::memory_order_acquire)
                 : LoadUnaligned<T>(place);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (guard.load(std::memory_order_relaxed) == before) return Status();
  } while (backoff.Pause());
  return RefuseStalled(span.first, pos, sizeof(T), 0);
}

// After a meeting with another process on one stripe: leaves the line to it for a moment. A stripe
// that two cores take from each other at every operation costs each of them two transfers an
// operation; in turns of some dozens each works in its own cache.
void StepBack() {
  const uint64_t until = MonotonicNs() + kStepBackNs;
  while (MonotonicNs() < until) CpuRelax();
}

// As TryMutateInline, at any alignment and with patience.
template <typename T, typename Change>
Status Area::MutateSlow(const Lane& lane, uint64_t pos, Change change, uint64_t fence) {
  SH_RETURN_IF_ERROR(CheckMutation(pos, sizeof(T)));
  const StripeSpan span = SpanOf(pos, sizeof(T));
  if (span.count > 1) return MutateAcross<T>(lane, pos, change, fence);

  StripeLine& stripe = stripes_[span.first];
  LaneRecord& record = lanes_[lane.id];
  record.intent.store(span.first | uint64_t{1} << 32, std::memory_order_relaxed);
  CrashFence();
  uint64_t locked = 0;
  bool met_somebody = fence == 0;  // Without a fence only what the inline path met leads here.
  if (!TryLockOwned(stripe.control, lane.id, &locked)) {
    met_somebody = true;
    Count(record.contended);
    if (!LockOwnedSlow(stripe.control, lane.id, lane.operation_timeout_ns, &locked)) {
      return RefuseStalled(span.first, pos, sizeof(T), 0);
    }
  }
  std::atomic_thread_fence(std::memory_order_release);
  std::byte* const place = data_ + pos;
  T value = LoadHeld<T>(place);
  const bool is_late = IsLate(span, fence);
  if (is_late || !change(value)) {
    Status refused = is_late ? RefuseFence(span, fence, pos, sizeof(T), 0) : Status();
    stripe.control.store(ReleasedUnchanged(locked), std::memory_order_release);
    return refused;
  }
  if (!MutantIs(Mutant::kFenceAfterData)) RaiseFence(span, fence);
  StoreWord<T>(place, value);
  CrashFence();
  if (MutantIs(Mutant::kFenceAfterData)) RaiseFence(span, fence);
  const bool wake = OwedWakes(span) != 0;  // SYNC: area.wait
  if (wake) {
    record.pending_wake.store(span.first | uint64_t{1} << 32, std::memory_order_relaxed);
    CrashFence();
  }
  Count(record.mutations);
  stripe.control.store(ReleasedChanged(locked), std::memory_order_release);
  if (wake) FinishWake(record, span);
  if (met_somebody && IsAligned<T>(place)) StepBack();
  return Status();
}

// A word that straddles two stripes is a range of its width, computed while both are held.
template <typename T, typename Change>
Status Area::MutateAcross(const Lane& lane, uint64_t pos, Change change, uint64_t fence) {
  const StripeSpan span = SpanOf(pos, sizeof(T));
  uint64_t first_locked = 0;
  uint32_t blocker = 0;
  if (!LockSpan(lane, span, &first_locked, &blocker)) {
    return RefuseStalled(blocker, pos, sizeof(T), 0);
  }
  T value = LoadUnaligned<T>(data_ + pos);
  const bool is_late = IsLate(span, fence);
  if (is_late || !change(value)) {
    Status refused = is_late ? RefuseFence(span, fence, pos, sizeof(T), 0) : Status();
    UnlockSpan(lane.id, span, false);
    return refused;
  }
  std::memcpy(journals_ + lane.id * geometry_.atomic_range_bytes, &value, sizeof(T));
  CommitRange(lane, span, first_locked, pos, sizeof(T), fence);
  return Status();
}

template <typename T>
Status Area::StoreSlow(const Lane& lane, uint64_t pos, T value, uint64_t fence) {
  const auto change = [value](T& word) {
    word = value;
    return true;
  };
  return MutateSlow<T>(lane, pos, change, fence);
}

template <typename T>
Status Area::AddSlow(const Lane& lane, uint64_t pos, T delta, T* value, uint64_t fence) {
  const auto change = [delta, value](T& word) {
    word = static_cast<T>(word + delta);
    *value = word;
    return true;
  };
  return MutateSlow<T>(lane, pos, change, fence);
}

template Status Area::LoadSlow<uint8_t>(uint64_t, uint8_t*, uint64_t) const;
template Status Area::LoadSlow<uint16_t>(uint64_t, uint16_t*, uint64_t) const;
template Status Area::LoadSlow<uint32_t>(uint64_t, uint32_t*, uint64_t) const;
template Status Area::LoadSlow<uint64_t>(uint64_t, uint64_t*, uint64_t) const;
template Status Area::StoreSlow<uint8_t>(const Lane&, uint64_t, uint8_t, uint64_t);
template Status Area::StoreSlow<uint16_t>(const Lane&, uint64_t, uint16_t, uint64_t);
template Status Area::StoreSlow<uint32_t>(const Lane&, uint64_t, uint32_t, uint64_t);
template Status Area::StoreSlow<uint64_t>(const Lane&, uint64_t, uint64_t, uint64_t);
template Status Area::AddSlow<uint8_t>(const Lane&, uint64_t, uint8_t, uint8_t*, uint64_t);
template Status Area::AddSlow<uint16_t>(const Lane&, uint64_t, uint16_t, uint16_t*, uint64_t);
template Status Area::AddSlow<uint32_t>(const Lane&, uint64_t, uint32_t, uint32_t*, uint64_t);
template Status Area::AddSlow<uint64_t>(const Lane&, uint64_t, uint64_t, uint64_t*, uint64_t);

namespace {

// Calls `operation` with a zero of the unsigned type that has the word's width.
template <typename Operation>
Status ForWidth(WordType type, Operation operation) {
  switch (WordBytes(type)) {
    case 1: return operation(uint8_t{0});
    case 2: return operation(uint16_t{0});
    case 4: return operation(uint32_t{0});
    default: return operation(uint64_t{0});
  }
}

}  // namespace

Status Area::Load(WordType type, uint64_t pos, uint64_t* bits,
                  uint64_t operation_timeout_ns) const {
  return ForWidth(type, [&](auto zero) {
    auto value = zero;
    Status status = LoadAs(pos, &value, operation_timeout_ns);
    if (status.ok()) *bits = value;
    return status;
  });
}

Status Area::Store(const Lane& lane, WordType type, uint64_t pos, uint64_t bits, uint64_t fence) {
  return ForWidth(type, [&](auto zero) {
    return StoreAs(lane, pos, static_cast<decltype(zero)>(bits), fence);
  });
}

Status Area::Add(const Lane& lane, WordType type, uint64_t pos, uint64_t delta, uint64_t* bits,
                 uint64_t fence) {
  return ForWidth(type, [&](auto zero) {
    auto value = zero;
    Status status = AddAs(lane, pos, static_cast<decltype(zero)>(delta), &value, fence);
    if (status.ok()) *bits = value;
    return status;
  });
}

Status Area::CompareExchange(const Lane& lane, WordType type, uint64_t pos, uint64_t expected,
                             uint64_t desired, CompareExchangeResult* result, uint64_t fence) {
  return ForWidth(type, [&](auto zero) {
    using T = decltype(zero);
    const auto change = [=](T& word) {
      result->found = word;
      result->exchanged = word == static_cast<T>(expected);
      if (result->exchanged) word = static_cast<T>(desired);
      return result->exchanged;
    };
    if (fence == 0 && TryMutateInline<T>(lane, pos, change)) return Status();
    return MutateSlow<T>(lane, pos, change, fence);
  });
}

Status Area::Bitwise(const Lane& lane, BitwiseOperator op, WordType type, uint64_t pos,
                     uint64_t operand, uint64_t* bits, uint64_t fence) {
  return ForWidth(type, [&](auto zero) {
    using T = decltype(zero);
    const auto change = [=](T& word) {
      switch (op) {
        case BitwiseOperator::kAnd: word = static_cast<T>(word & operand); break;
        case BitwiseOperator::kOr: word = static_cast<T>(word | operand); break;
        case BitwiseOperator::kXor: word = static_cast<T>(word ^ operand); break;
      }
      *bits = word;
      return true;
    };
    if (fence == 0 && TryMutateInline<T>(lane, pos, change)) return Status();
    return MutateSlow<T>(lane, pos, change, fence);
  });
}

}  // namespace statehouse
