#include "clients/c/src/operation_ids.h"

#include <random>

#include "clients/c/src/lane_pool.h"

namespace statehouse {

OperationIds::~OperationIds() {
  OfProcess* const here = here_.load(std::memory_order_acquire);
  if (here != nullptr && here->fork_count == ForkCount()) delete here;
}

OperationIds::OfProcess& OperationIds::Here() {
  OfProcess* here = here_.load(std::memory_order_acquire);
  for (;;) {
    if (here != nullptr && here->fork_count == ForkCount()) return *here;
    auto* made = new OfProcess;
    made->fork_count = ForkCount();
    if (here_.compare_exchange_strong(here, made, std::memory_order_acq_rel)) return *made;
    delete made;
  }
}

OperationIds::Lease OperationIds::Take(uint64_t count) {
  OfProcess& here = Here();
  DictOperationId id;
  const std::lock_guard<std::mutex> lock(here.mutex);
  if (here.free.empty()) {
    std::random_device random;
    while (id.session == 0) id.session = uint64_t{random()} << 32 | random();
  } else {
    id = here.free.back();
    here.free.pop_back();
  }
  ++id.sequence;
  return Lease(this, id, count);
}

void OperationIds::Return(const DictOperationId& id) {
  OfProcess& here = Here();
  const std::lock_guard<std::mutex> lock(here.mutex);
  here.free.push_back(id);
}

}  // namespace statehouse
