#include "engine/state/memory_budget.h"

#include <algorithm>

namespace statehouse {

uint64_t MemoryBudget::Used() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return measure_() + reserved_;
}

StatusOr<MemoryBudget::Reservation> MemoryBudget::ReserveUpTo(uint64_t bytes, uint64_t unit,
                                                              const std::string& what) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (limit_ != 0) {
    const uint64_t used = measure_() + reserved_;
    const uint64_t room = used < limit_ ? limit_ - used : 0;
    if (room < unit) {
      return Status(Reason::kMemoryExhausted,
                    what + " needs " + std::to_string(unit) + " bytes: " + std::to_string(used) +
                        " of " + std::to_string(limit_) +
                        " (areas.memory_max) are in use; nothing was evicted");
    }
    bytes = std::min(bytes, room / unit * unit);
  }
  reserved_ += bytes;
  return Reservation(this, bytes);
}

MemoryBudget::Reservation MemoryBudget::Count(uint64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  reserved_ += bytes;
  return Reservation(this, bytes);
}

void MemoryBudget::GiveBack(uint64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  reserved_ -= bytes;
}

}  // namespace statehouse
