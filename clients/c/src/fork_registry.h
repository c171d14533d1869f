// ForkRegistry: tells every living session of the process about fork().
//
// What it is: the one place with static state in the client library, because pthread_atfork
// handlers have no argument. Threads: any. Always true: while a fork is under way, no other thread
// holds the registry's or a session's mutex, so that
//   the child finds them consistent. Lock order: the registry, then sessions.
#pragma once

namespace statehouse {

class ForkObserver {
 public:
  virtual ~ForkObserver() = default;
  // In the parent before, and after; the calling thread forks.
  virtual void LockForFork() = 0;
  virtual void UnlockAfterFork() = 0;
  // In the child, between the two: only the calling thread is left.
  virtual void OnForkedChild() = 0;
};

// From now on forks are counted (ForkCount in lane_pool.h). Idempotent.
void InstallForkHandlers();

// From AddForkObserver to RemoveForkObserver the observer is told of forks.
void AddForkObserver(ForkObserver* observer);
void RemoveForkObserver(ForkObserver* observer);

}  // namespace statehouse
