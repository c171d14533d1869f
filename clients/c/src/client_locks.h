// ClientLocks: the locks of one client: through the door that it may use, with their renewal.
//
// Who owns it: the client handle, and each lease that was taken through it.
// Threads: any at once. A lease that is renewed has a thread that does it, one for all of a client.
// In a forked child it begins anew: the parent keeps what it has.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "clients/c/src/caller.h"
#include "clients/c/src/held_lock.h"
#include "clients/c/src/lease_renewer.h"
#include "clients/c/src/local_locks.h"
#include "clients/c/src/remote_locks.h"

namespace statehouse {

class ClientLocks final {
 public:
  // `local` null: the network door. `caller` outlives it.
  ClientLocks(std::shared_ptr<LocalSession> local, Caller* caller, std::string client_name,
              std::chrono::nanoseconds timeout)
      : local_(std::move(local)),
        caller_(caller),
        client_name_(std::move(client_name)),
        timeout_(timeout) {}
  ~ClientLocks() { Close(); }

  // *lock stays empty where it was not had in time.
  Status Acquire(LockAsk ask, std::unique_ptr<HeldLock>* lock);
  // As RemoteLocks::TryThrough. REQUIRES: the client is one of the network door.
  Status TryThrough(Caller& calls, LockAsk ask, LockAttempt* attempt,
                    std::unique_ptr<HeldLock>* lock);
  // Until Forget: renews the lease at a third of its ttl, unless its holder does; `lost` runs once
  // when it is over.
  void LookAfter(HeldLock* lock, uint64_t ttl_ns, LeaseRenewer::By renewed_by,
                 std::function<void()> lost);
  void Forget(HeldLock* lock);
  // This process's session of the service, kept alive until Close: for entries that are bound to
  // it. Errors: CLIENT_CLOSED; those of OpenSession.
  StatusOr<uint64_t> SessionId();
  // The service says that it is over: the next SessionId is another one.
  void LoseSession(uint64_t session_id);
  // Gives up what is held through the network door's session, and stops renewing.
  void Close();

 private:
  // What a process has; a child makes its own.
  struct OfProcess {
    uint64_t fork_count = 0;
    std::mutex mutex;
    std::shared_ptr<LocalLocks> local;
    bool by_calls = false;  // This token may not map the locks.
    std::shared_ptr<RemoteLocks> remote;
    std::shared_ptr<LeaseRenewer> renewer;  // Shared with calls that use it outside the mutex.
  };
  OfProcess& Here();
  StatusOr<std::shared_ptr<LocalLocks>> Local(OfProcess& here);
  std::shared_ptr<RemoteLocks> Remote(OfProcess& here);
  static std::shared_ptr<LeaseRenewer> RenewerOf(OfProcess& here);
  // REQUIRES: the mutex of `here` is held.
  LeaseRenewer& MakeRenewer(OfProcess& here);

  const std::shared_ptr<LocalSession> local_;
  Caller* const caller_;
  const std::string client_name_;
  const std::chrono::nanoseconds timeout_;
  std::atomic<bool> closed_{false};
  std::atomic<OfProcess*> here_{nullptr};  // A child leaves its parent's where it is.
};

}  // namespace statehouse
