// The inline half of Area's word operations: an aligned word in a stripe that nobody holds.
// Included by area.h only.
//
// SYNC: area.word — a mutation's release store of the word pairs with a load's acquire load of it;
// the fence after the lock orders a range write's odd counter before its bytes.
#pragma once

#include <atomic>

#include "engine/base/mutant.h"
#include "engine/shm/owned_lock.h"
#include "engine/state/area.h"

namespace statehouse {

template <typename T>
[[gnu::always_inline]] inline bool Area::TryLoadInline(uint64_t pos, T* value) const {
  if (pos >= inline_load_end_ || (pos & (sizeof(T) - 1)) != 0) [[unlikely]]
    return false;
  if (line_->state.load(std::memory_order_acquire) != static_cast<uint32_t>(AreaState::kLive))
      [[unlikely]] {
    return false;
  }
  // An aligned word is torn by nothing but a range write, so only that counter is checked: word
  // writers, alive or dead, never block a load.
  const std::atomic<uint64_t>& counter = stripes_[pos >> geometry_.stripe_shift].range_counter;
  const uint64_t before = counter.load(std::memory_order_acquire);
  if ((before & 1) != 0) [[unlikely]]
    return false;
  *value = std::atomic_ref<T>(*reinterpret_cast<T*>(data_ + pos)).load(std::memory_order_acquire);
  std::atomic_thread_fence(std::memory_order_acquire);
  return counter.load(std::memory_order_relaxed) == before;
}

// The word is read before the lock is taken: as every change of the stripe moves its sequence, an
// exchange that finds the sequence unchanged proves that the word is still the same. That keeps the
// load off the path between two locked instructions (docs/decisions/0002-word-path.md has the
// figures).
//
// No redo is needed, because the only store to the data is a single instruction. A lane killed
// before it has done nothing, one killed after it has done everything; recovery only releases the
// stripe.
template <typename T, typename Change>
[[gnu::always_inline]] inline bool Area::TryMutateInline(const Lane& lane, uint64_t pos,
                                                         Change change) {
  if (pos >= inline_mutate_end_ || (pos & (sizeof(T) - 1)) != 0) [[unlikely]]
    return false;
  if (line_->state.load(std::memory_order_acquire) != static_cast<uint32_t>(AreaState::kLive))
      [[unlikely]] {
    return false;
  }
  const auto index = static_cast<uint32_t>(pos >> geometry_.stripe_shift);
  StripeLine& stripe = stripes_[index];
  LaneRecord& record = lanes_[lane.id];
  const uint64_t counted = record.mutations.load(std::memory_order_relaxed);
  record.intent.store(index | uint64_t{1} << 32, std::memory_order_relaxed);
  record.mutations.store(counted + 1, std::memory_order_relaxed);
  CrashFence();
  uint64_t word = stripe.control.load(std::memory_order_acquire);
  const std::atomic_ref<T> data(*reinterpret_cast<T*>(data_ + pos));
  T value = data.load(std::memory_order_relaxed);
  if (OwnerOf(word) != 0) [[unlikely]] {
    record.mutations.store(counted, std::memory_order_relaxed);
    return false;
  }
  if (!change(value)) {
    // Nothing to store: a load, valid when nothing changed around it.
    record.mutations.store(counted, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    return stripe.control.load(std::memory_order_relaxed) == word;
  }
  // SYNC: stripe.lock, as TryLockOwned.
  if (!stripe.control.compare_exchange_strong(word, word | lane.id, std::memory_order_seq_cst,
                                              std::memory_order_relaxed)) [[unlikely]] {
    record.mutations.store(counted, std::memory_order_relaxed);
    return false;
  }
  std::atomic_thread_fence(std::memory_order_release);
  data.store(value, std::memory_order_release);
  CrashFence();

  // SYNC: area.wait — seq_cst after the lock's seq_cst exchange: either this load sees the waiter's
  // arming, or the waiter's scan sees this stripe held or changed.
  const bool wake = (stripe.armed.load(std::memory_order_seq_cst) |
                     line_->armed.load(std::memory_order_seq_cst)) != 0;
  if (wake && !MutantIs(Mutant::kWakeNotNoted)) [[unlikely]] {
    record.pending_wake.store(index | uint64_t{1} << 32, std::memory_order_relaxed);
    CrashFence();
  }
  stripe.control.store(word + kSequenceOne, std::memory_order_release);
  if (wake) [[unlikely]]
    FinishWake(record, StripeSpan{index, 1});
  return true;
}

template <typename T>
[[gnu::always_inline]] inline Status Area::LoadAs(uint64_t pos, T* value,
                                                  uint64_t operation_timeout_ns) const {
  if (TryLoadInline(pos, value)) [[likely]]
    return Status();
  return LoadSlow(pos, value, operation_timeout_ns);
}

template <typename T>
[[gnu::always_inline]] inline Status Area::StoreAs(const Lane& lane, uint64_t pos, T value,
                                                   uint64_t fence) {
  const auto change = [value](T& word) {
    word = value;
    return true;
  };
  if (fence == 0 && TryMutateInline<T>(lane, pos, change)) [[likely]]
    return Status();
  return StoreSlow(lane, pos, value, fence);
}

template <typename T>
[[gnu::always_inline]] inline Status Area::AddAs(const Lane& lane, uint64_t pos, T delta,
                                                 T* value, uint64_t fence) {
  const auto change = [delta, value](T& word) {
    word = static_cast<T>(word + delta);
    *value = word;
    return true;
  };
  if (fence == 0 && TryMutateInline<T>(lane, pos, change)) [[likely]]
    return Status();
  return AddSlow(lane, pos, delta, value, fence);
}

}  // namespace statehouse
