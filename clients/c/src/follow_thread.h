// FollowThread: the thread that reads follow logs for a process: it sleeps on all logs that are
// followed, and reads on in those that somebody wants to poll for.
//
// What it is: one for all clients of the process (OfThisProcess). Who owns it: the watches
// together; it ends with the last. Threads: all methods any, but none is called from Turn.
// Always true: after Remove the follower is not touched any more. Followers of more than
// kFollowWordsMax words are looked at every kFollowLookNs instead of being woken. Those
// that must wait for the daemon never have two turns that take kFollowWaitsNs, or begin after so
// long, without one of everybody else in between.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/futex.h"
#include "engine/state/follow_events.h"

namespace statehouse {

// The first word that it sleeps on is its own.
inline constexpr size_t kFollowWordsMax = kFutexWordsMax - 1;
inline constexpr uint64_t kFollowLookNs = 1'000'000;
inline constexpr uint64_t kFollowWaitsNs = 10'000'000;

class FollowThread final {
 public:
  // What a follower waits for.
  struct Sleep {
    FollowEvents events;           // None: for nothing but `due_ns`.
    uint64_t due_ns = UINT64_MAX;  // Monotonic; 0: it has more to do at once.
    bool must_wait = false;        // It did nothing: it would have had to wait for the daemon.
  };

  class Follower {
   public:
    // Reads what there is. On the thread; with `may_wait` it may take a second.
    virtual Sleep Turn(bool may_wait) = 0;

   protected:
    ~Follower() = default;
  };

  // LIMIT_EXCEEDED where it may have no more threads. A forked child gets one of its own; what it
  // has of its parent's must not be touched, nor destroyed.
  static StatusOr<std::shared_ptr<FollowThread>> OfThisProcess();
  // Whether this kernel lets a thread sleep on several words.
  static bool IsSupported();
  ~FollowThread();
  FollowThread(const FollowThread&) = delete;
  FollowThread& operator=(const FollowThread&) = delete;

  // From now on it has its turns. Idempotent.
  void Add(Follower* follower);
  // Waits until its turn is over.
  void Remove(Follower* follower);
  // Every follower has a turn soon.
  void Ring();

 private:
  FollowThread() = default;
  void Run();
  // A turn of each, and then of those that must wait for the daemon, while there is time; how long
  // to sleep on what.
  std::vector<Sleep> TakeTurns();
  // Nothing where it was removed. With mutex_ held, but not inside the turn.
  std::optional<Sleep> TurnOf(Follower* follower, bool may_wait,
                              std::unique_lock<std::mutex>* lock);

  std::atomic<uint32_t> bell_{0};
  std::mutex mutex_;  // Guards what follows.
  std::condition_variable over_;
  std::set<Follower*> followers_;
  Follower* inside_ = nullptr;  // Whose turn it is.
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace statehouse
