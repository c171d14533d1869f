// RemoteLocks: locks by calls to the service, for clients of the network door and for those of the
// host whose access token may not lock every name. They belong to a session of the service, which
// ends when this client's connection breaks; entries of dicts can be bound to it, over either door.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "clients/c/src/caller.h"
#include "clients/c/src/held_lock.h"
#include "clients/c/src/lane_pool.h"
#include "engine/base/status.h"

namespace statehouse {

class RemoteLock;

// A lock that is tried for by an operation of a batch.
struct LockAttempt {
  uint64_t session_id = 0;
  uint64_t request_id = 0;
  Deadline began;
};

// Who owns it: the client handle and every lock that was taken through it.
// Threads: any at once. Once a lock was asked for there is one of its own, which waits for what the
// service tells of the session.
// Failure: the service's reasons. A lock whose session ended is lost.
class RemoteLocks final : public std::enable_shared_from_this<RemoteLocks> {
 public:
  // `caller` outlives it. `lost` runs, on any thread, when locks were lost.
  RemoteLocks(Caller* caller, std::string client_name, std::chrono::nanoseconds timeout,
              std::function<void()> lost)
      : caller_(caller),
        client_name_(std::move(client_name)),
        timeout_(timeout),
        lost_(std::move(lost)) {}
  ~RemoteLocks();

  // *lock stays empty where it was not had in time.
  Status Acquire(const LockAsk& ask, std::unique_ptr<HeldLock>* lock);
  // Tries for a lock as an operation of a batch, by `calls`: once to note it, and once with the
  // answer. The session is opened before, by calls of its own.
  Status TryThrough(Caller& calls, const LockAsk& ask, LockAttempt* attempt,
                    std::unique_ptr<HeldLock>* lock);
  // The session, opened where there is none, once the service says that this client's connection
  // holds it: whatever it has ends with this process. Somebody has to renew it from then on.
  StatusOr<uint64_t> SessionId(Deadline deadline);
  // The service says that it is over.
  void Lose(uint64_t session_id);
  // Lengthens the session, where there is one. For the renewer.
  void RenewSession();
  // Ends the session: its locks pass on. In a forked child it does nothing: they are the parent's.
  void Close();

 private:
  friend class RemoteLock;

  Status AcquireOnce(Caller& calls, const LockAsk& ask, const LockAttempt& attempt,
                     Deadline call_until, std::unique_ptr<HeldLock>* lock);
  // REQUIRES mutex_ held.
  Status OpenSession(Deadline deadline);
  // False where it is over, or not the client's any more.
  StatusOr<bool> AwaitHeld(uint64_t session_id, Deadline deadline);
  void HoldSession(uint64_t session_id);
  CallOptions OptionsUntil(Deadline deadline, bool idempotent) const;

  Caller* const caller_;
  const std::string client_name_;
  const std::chrono::nanoseconds timeout_;
  const std::function<void()> lost_;
  const uint64_t fork_count_ = ForkCount();
  std::atomic<uint64_t> next_request_id_{1};
  std::atomic<bool> closed_{false};  // Set under the mutex.
  std::mutex mutex_;                 // Guards what follows.
  uint64_t session_id_ = 0;
  bool is_held_ = false;              // session_id_, as the service said since the last break.
  std::vector<std::thread> holders_;  // One for each session there was; all but the last have ended
                                      // or will in a moment.
  std::map<uint64_t, RemoteLock*> locks_;  // By token: those whose handles live.
};

}  // namespace statehouse
