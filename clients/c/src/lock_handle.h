// What stands behind sh_lock.
#pragma once

#include <memory>

#include "clients/c/src/client_locks.h"
#include "statehouse/lock.h"

struct sh_lock {
  std::shared_ptr<statehouse::ClientLocks> locks;
  std::unique_ptr<statehouse::HeldLock> held;
};

namespace statehouse {

// INVALID_ARGUMENT for what is no mode, and for times that cannot be meant. `request.owner` points
// into the options.
StatusOr<LockAsk> ToAsk(const sh_lock_options& options);
// The handle of a lease that was had, looked after as the options say.
sh_lock* MakeLock(std::shared_ptr<ClientLocks> locks, std::unique_ptr<HeldLock> held,
                  const sh_lock_options& options, uint64_t ttl_ns);

}  // namespace statehouse
