// Attachment and ThreadLane: which lane of the process's block each thread writes with.
//
// A lane belongs to one thread at a time. The first threads of a process get one each and keep it
// until they end, so that an operation looks at one thread-local record and takes no lock; the last
// lane of the block is shared by all further threads, under a mutex.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/os/unique_fd.h"
#include "engine/state/area.h"

namespace statehouse {

// Not the id of any attachment: what a session shows while it has no lanes.
inline constexpr uint64_t kUnattached = ~uint64_t{0};

// A block of lanes that the daemon leased to this process, alive as long as `liveness` is open.
//
// Who owns it: the session that attached, and each thread that holds one of its lanes; so the lease
// of a replaced attachment ends
//   when its last thread moved on, and never under a running operation.
// Threads: Take and Return from any; the rest is constant, except `liveness` (guarded by the
// session's mutex).
class Attachment final {
 public:
  // REQUIRES: lane_count > 0.
  Attachment(UniqueFd liveness, uint32_t first_lane, uint32_t lane_count,
             uint64_t operation_timeout_ns);
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;

  // Unlike that of any other attachment of this process, its forebears included.
  uint64_t id() const { return id_; }
  uint32_t first_lane() const { return first_lane_; }
  uint32_t lane_count() const { return lane_count_; }

  // A lane for the calling thread; `*shared` is the mutex to hold during each operation, or null.
  Lane Take(std::mutex** shared);
  // The lane that any number of threads use, each holding `*shared` during its operation.
  Lane SharedLane(std::mutex** shared);
  // The calling thread is done with what Take gave. In a forked child it does nothing.
  void Return(const Lane& lane);

  // The session has newer lanes: threads give theirs back when they next look.
  void Retire() { retired_.store(true, std::memory_order_relaxed); }
  bool retired() const { return retired_.load(std::memory_order_relaxed); }

  UniqueFd liveness;

 private:
  const uint64_t id_;
  const uint32_t first_lane_;
  const uint32_t lane_count_;
  const uint64_t operation_timeout_ns_;
  const uint64_t fork_count_;
  std::atomic<bool> retired_{false};
  std::mutex mutex_;
  std::vector<uint32_t> free_;  // Lanes for one thread alone; guarded by mutex_.
  std::mutex shared_lane_mutex_;
};

// What a thread knows of the lane it used last. Constant-initialised and trivially destructible, so
// that reading it costs no guard.
struct ThreadLane {
  uint64_t attachment_id = 0;  // 0: none.
  Lane lane;
  std::mutex* shared = nullptr;
};

extern thread_local constinit ThreadLane thread_lane __attribute__((tls_model("initial-exec")));

// Points `thread_lane` at the calling thread's lane of `attachment`, taking one on first use. The
// lane returns to its attachment when the thread ends, or at the first call here after the
// attachment was retired.
void UseLaneOf(const std::shared_ptr<Attachment>& attachment);

// How many forks lie between the process that loaded the library and this one.
uint64_t ForkCount();
void CountFork();  // Called in the child only.

}  // namespace statehouse
