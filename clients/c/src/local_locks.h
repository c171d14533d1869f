// LocalLocks: the locks of the local door. Asking, waiting, renewing and releasing run the engine
// on memory that this process maps; the daemon has a part in them only when a process dies or
// hangs.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "clients/c/src/held_lock.h"
#include "clients/c/src/lane_pool.h"
#include "clients/c/src/local_session.h"
#include "engine/base/status.h"
#include "engine/state/lock_space.h"

namespace statehouse {

// Who owns it: the session and every lock that was taken through it.
// Threads: any at once.
// Failure: those of engine/state/lock_space.h; CLIENT_CLOSED after the session closed; UNAVAILABLE
// when the service that kept the locks is gone; CANCELLED when the caller gave up.
class LocalLocks final : public std::enable_shared_from_this<LocalLocks> {
 public:
  LocalLocks(std::shared_ptr<LocalSession> session, std::unique_ptr<LockSpace> space, dev_t device,
             ino_t inode)
      : session_(std::move(session)), space_(std::move(space)), device_(device), inode_(inode) {}

  // *lock stays empty where it was not had in time.
  Status Acquire(const LockAsk& ask, std::unique_ptr<HeldLock>* lock);
  bool usable() const { return CheckUsable().ok(); }

 private:
  friend class LocalSession;
  friend class LocalLock;

  static constexpr uint8_t kUsable = 0;
  static constexpr uint8_t kSessionClosed = 1;
  static constexpr uint8_t kReplaced = 2;

  Status AcquireOnce(const LockAsk& ask, std::unique_ptr<HeldLock>* lock, bool* lost);
  Status CheckUsable() const;
  Status PrepareLanes();
  template <typename Operation>
  Status WithLane(const Operation& operation);
  Status WaitFor(LockPlace place, const LockAsk& ask, LockLook* look);

  const std::shared_ptr<LocalSession> session_;
  const std::unique_ptr<LockSpace> space_;
  const dev_t device_;  // Of the segment: tells one from another.
  const ino_t inode_;
  std::atomic<uint8_t> usable_{kUsable};
  std::atomic<uint64_t> prepared_id_{0};  // The attachment whose lanes were made ready last.
  std::mutex prepare_mutex_;
};

}  // namespace statehouse
