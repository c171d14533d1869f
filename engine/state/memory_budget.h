// MemoryBudget: the memory that areas and dicts take together, and its limit (areas.memory_max).
//
// In use is what their segments hold by the kernel's count, and what is reserved: memory that is
// being allocated, until the segment that gets it is measured with the others. So nothing has to be
// kept in step: a deletion, a worker that touches a page and a daemon that takes over are seen by
// the next look.
//
// Who owns it: Engine. Threads: every method from any thread at once; `measure` is called with the
// budget's own lock held, so nobody reserves with a lock that it takes.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <utility>

#include "engine/base/status.h"

namespace statehouse {

class MemoryBudget final {
 public:
  // Bytes that are counted until the object is gone.
  class Reservation final {
   public:
    Reservation() = default;
    Reservation(MemoryBudget* budget, uint64_t bytes) : budget_(budget), bytes_(bytes) {}
    Reservation(Reservation&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
    Reservation& operator=(Reservation&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Reservation() {
      if (budget_ != nullptr) budget_->GiveBack(bytes_);
    }
    uint64_t bytes() const { return bytes_; }

   private:
    MemoryBudget* budget_ = nullptr;
    uint64_t bytes_ = 0;
  };

  // `measure` gives what all segments hold. limit 0: none.
  MemoryBudget(uint64_t limit, std::function<uint64_t()> measure)
      : limit_(limit), measure_(std::move(measure)) {}
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  uint64_t limit() const { return limit_; }
  uint64_t Used() const;
  // `what` is what the memory is for, as the refusal tells it. MEMORY_EXHAUSTED beyond the limit.
  // REQUIRES: bytes, unit > 0.
  StatusOr<Reservation> Reserve(uint64_t bytes, const std::string& what) {
    return ReserveUpTo(bytes, bytes, what);
  }
  // As many units as there is room for, at least one and at most `bytes` of them together.
  StatusOr<Reservation> ReserveUpTo(uint64_t bytes, uint64_t unit, const std::string& what);
  // Beyond the limit too.
  Reservation Count(uint64_t bytes);

 private:
  void GiveBack(uint64_t bytes);

  const uint64_t limit_;
  const std::function<uint64_t()> measure_;
  mutable std::mutex mutex_;
  uint64_t reserved_ = 0;  // Guarded by mutex_.
};

}  // namespace statehouse
