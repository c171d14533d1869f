// Word operations: loads that never write, and mutations under one stripe's owned lock.
//
// SYNC: area.word — a mutation's release store of the word pairs with LoadAs's acquire load of it;
// the fence after the lock orders a range write's odd counter before its bytes.
#include <atomic>
#include <cstring>

#include "engine/base/word.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/area.h"

namespace statehouse {
namespace {

// Reaches a word at any alignment with one load or store instruction.
template <typename T>
struct [[gnu::packed]] Unaligned {
  T value;
};

template <typename T>
bool IsAligned(const std::byte* place) {
  return (reinterpret_cast<uintptr_t>(place) & (sizeof(T) - 1)) == 0;
}

template <typename T>
T LoadUnaligned(const std::byte* place) {
  return reinterpret_cast<const volatile Unaligned<T>*>(place)->value;
}

template <typename T>
void StoreWord(std::byte* place, T value) {
  if (IsAligned<T>(place)) {
    std::atomic_ref<T>(*reinterpret_cast<T*>(place)).store(value, std::memory_order_release);
    return;
  }
  std::atomic_thread_fence(std::memory_order_release);
  reinterpret_cast<volatile Unaligned<T>*>(place)->value = value;
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
Status Area::LoadAs(uint64_t pos, uint64_t* bits) const {
  SH_RETURN_IF_ERROR(CheckRange(pos, sizeof(T)));
  std::byte* const place = data_ + pos;
  const StripeSpan span = SpanOf(pos, sizeof(T));
  if (span.count > 1) [[unlikely]] {
    T value = 0;
    SH_RETURN_IF_ERROR(Read(pos, std::as_writable_bytes(std::span<T>(&value, 1))));
    *bits = value;
    return Status();
  }
  const StripeLine& stripe = stripes_[span.first];
  // An aligned word is torn by nothing but a range write, so only that counter is checked; word
  // writers never block it.
  const bool aligned = IsAligned<T>(place);
  const std::atomic<uint64_t>& guard = aligned ? stripe.range_counter : stripe.control;
  const uint64_t busy_mask = aligned ? 1 : kOwnerMask;
  Backoff backoff(kOperationTimeoutNsDefault);
  do {
    const uint64_t before = guard.load(std::memory_order_acquire);
    if ((before & busy_mask) == 0) [[likely]] {
      const T value =
          aligned ? std::atomic_ref<T>(*reinterpret_cast<T*>(place)).load(std::memory_order_acquire)
                  : LoadUnaligned<T>(place);
      std::atomic_thread_fence(std::memory_order_acquire);
      if (guard.load(std::memory_order_relaxed) == before) [[likely]] {
        *bits = value;
        return Status();
      }
    }
  } while (backoff.Pause());
  return RefuseStalled(span.first, pos, sizeof(T), 0);
}

// One stripe: no redo is needed, because the only store to the data is a single instruction. A lane
// killed before it has done nothing, one killed after it has done everything; recovery only
// releases the stripe.
template <typename T, typename Change>
Status Area::MutateAs(const Lane& lane, uint64_t pos, Change change) {
  SH_RETURN_IF_ERROR(CheckMutation(pos, sizeof(T)));
  const StripeSpan span = SpanOf(pos, sizeof(T));
  if (span.count > 1) [[unlikely]]
    return MutateAcross<T>(lane, pos, change);

  StripeLine& stripe = stripes_[span.first];
  LaneRecord& record = lanes_[lane.id];
  record.intent.store(span.first | uint64_t{1} << 32, std::memory_order_relaxed);
  CrashFence();
  uint64_t locked = 0;
  if (!TryLockOwned(stripe.control, lane.id, &locked)) [[unlikely]] {
    Count(record.contended);
    if (!LockOwnedSlow(stripe.control, lane.id, lane.operation_timeout_ns, &locked)) {
      return RefuseStalled(span.first, pos, sizeof(T), 0);
    }
  }
  std::atomic_thread_fence(std::memory_order_release);

  std::byte* const place = data_ + pos;
  T value = LoadHeld<T>(place);
  if (!change(value)) {
    stripe.control.store(ReleasedUnchanged(locked), std::memory_order_release);
    return Status();
  }
  StoreWord<T>(place, value);
  CrashFence();

  // SYNC: area.wait — seq_cst after the lock's seq_cst exchange: either this load sees the waiter's
  // arming, or the waiter's scan sees this stripe held or changed.
  const bool wake = (stripe.armed.load(std::memory_order_seq_cst) |
                     line_->armed.load(std::memory_order_seq_cst)) != 0;
  if (wake) [[unlikely]] {
    record.pending_wake.store(span.first | uint64_t{1} << 32, std::memory_order_relaxed);
    CrashFence();
  }
  Count(record.mutations);
  stripe.control.store(ReleasedChanged(locked), std::memory_order_release);
  if (wake) [[unlikely]]
    FinishWake(record, span);
  return Status();
}

// A word that straddles two stripes is a range of its width, computed while both are held.
template <typename T, typename Change>
Status Area::MutateAcross(const Lane& lane, uint64_t pos, Change change) {
  const StripeSpan span = SpanOf(pos, sizeof(T));
  uint64_t first_locked = 0;
  uint32_t blocker = 0;
  if (!LockSpan(lane, span, &first_locked, &blocker))
    return RefuseStalled(blocker, pos, sizeof(T), 0);
  T value = LoadUnaligned<T>(data_ + pos);
  if (!change(value)) {
    UnlockSpan(lane.id, span, false);
    return Status();
  }
  std::memcpy(journals_ + lane.id * geometry_.atomic_range_bytes, &value, sizeof(T));
  CommitRange(lane, span, first_locked, pos, sizeof(T));
  return Status();
}

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

Status Area::Load(WordType type, uint64_t pos, uint64_t* bits) const {
  return ForWidth(type, [&](auto zero) { return LoadAs<decltype(zero)>(pos, bits); });
}

Status Area::Store(const Lane& lane, WordType type, uint64_t pos, uint64_t bits) {
  return ForWidth(type, [&](auto zero) {
    using T = decltype(zero);
    return MutateAs<T>(lane, pos, [bits](T& value) {
      value = static_cast<T>(bits);
      return true;
    });
  });
}

Status Area::Add(const Lane& lane, WordType type, uint64_t pos, uint64_t delta, uint64_t* bits) {
  return ForWidth(type, [&](auto zero) {
    using T = decltype(zero);
    return MutateAs<T>(lane, pos, [delta, bits](T& value) {
      value = static_cast<T>(value + delta);
      *bits = value;
      return true;
    });
  });
}

Status Area::CompareExchange(const Lane& lane, WordType type, uint64_t pos, uint64_t expected,
                             uint64_t desired, CompareExchangeResult* result) {
  return ForWidth(type, [&](auto zero) {
    using T = decltype(zero);
    return MutateAs<T>(lane, pos, [=](T& value) {
      result->found = value;
      result->exchanged = value == static_cast<T>(expected);
      if (result->exchanged) value = static_cast<T>(desired);
      return result->exchanged;
    });
  });
}

Status Area::Bitwise(const Lane& lane, BitwiseOperator op, WordType type, uint64_t pos,
                     uint64_t operand, uint64_t* bits) {
  return ForWidth(type, [&](auto zero) {
    using T = decltype(zero);
    return MutateAs<T>(lane, pos, [=](T& value) {
      switch (op) {
        case BitwiseOperator::kAnd: value = static_cast<T>(value & operand); break;
        case BitwiseOperator::kOr: value = static_cast<T>(value | operand); break;
        case BitwiseOperator::kXor: value = static_cast<T>(value ^ operand); break;
      }
      *bits = value;
      return true;
    });
  });
}

}  // namespace statehouse
