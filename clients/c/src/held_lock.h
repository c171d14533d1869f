// HeldLock: a lease that this process has, through either door.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "clients/c/src/attach_connection.h"
#include "engine/base/status.h"
#include "engine/state/lock_space.h"

namespace statehouse {

class Caller;

// How long a lease is good for, as its holder may count on it.
struct LeaseLook {
  bool held = false;     // False: it is lost. It never comes back.
  uint64_t left_ns = 0;  // Of the lease.
};

// Who owns it: the handle of the language, and the renewer while it renews it.
// Threads: any at once. Release once.
// Failure: LOCK_LOST when the lease is over; CLIENT_FORKED in a child of the process that took it.
class HeldLock {
 public:
  virtual ~HeldLock() = default;
  virtual const std::string& name() const = 0;
  virtual uint64_t token() const = 0;
  virtual LeaseLook Look() = 0;
  // 0: as it was asked for.
  virtual Status Renew(uint64_t ttl_ns) = 0;
  // *held: it was held until now. The service's word, but for a release that was sent again, whose
  // "not held" may be because of the first sending: there this process's clock decides.
  virtual Status Release(bool* held) = 0;
  // Release as one operation of a batch, by `calls`: once to note it, and once with the answer.
  // Only an answer ends the lease. UNIMPLEMENTED where it takes no call, or several.
  virtual Status ReleaseThrough(Caller& /*calls*/, bool* /*held*/) {
    return Status(Reason::kUnimplemented, "this lock is given back by no single call");
  }
  // Whether it is several leases at the service.
  virtual bool has_parts() const { return false; }
  // Instead of Release, where nobody can wait for one: the lease is not given back, and passes on
  // at its ttl.
  virtual void Abandon() = 0;
};

// What to ask for. `request.queue` and `request.wait_until_ns` follow from `wait`.
struct LockAsk {
  std::string name;
  LockRequest request;
  bool wait = true;                     // False: only if it can be had at once.
  Deadline deadline = Deadline::max();  // Of waiting.
  Interrupt interrupted;
};

}  // namespace statehouse
