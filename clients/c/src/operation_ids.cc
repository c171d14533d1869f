#include "clients/c/src/operation_ids.h"

#include <random>

namespace statehouse {

OperationIds::Lease OperationIds::Take() {
  DictOperationId id;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (free_.empty()) {
    std::random_device random;
    while (id.session == 0) id.session = uint64_t{random()} << 32 | random();
  } else {
    id = free_.back();
    free_.pop_back();
  }
  ++id.sequence;
  return Lease(this, id);
}

void OperationIds::Return(const DictOperationId& id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  free_.push_back(id);
}

}  // namespace statehouse
