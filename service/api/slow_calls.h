// SlowCalls: the calls that a door's thread may not finish itself, because they met a held stripe,
// have many pieces or make system calls. One thread takes them in turn, a slice of time each, so
// that one stalled area holds up nobody else.
//
// Who owns it: the dispatcher. Threads: Post from any; tasks run on the thread of this object.
// Always true: a posted task ends exactly once, by Try returning true or by Abandon.
// Failure: a task beyond kSlowCallsMax is abandoned with LIMIT_EXCEEDED, one that Shutdown finds
// with DRAINING.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/base/status.h"
#include "engine/state/area.h"

namespace statehouse {

inline constexpr size_t kSlowCallsMax = 4096;

class SlowCalls final {
 public:
  class Task {
   public:
    virtual ~Task() = default;
    // One turn, with the slow thread's lane. True when the call was answered.
    virtual bool Try(const Lane& lane) = 0;
    // Answers with why it cannot go on.
    virtual void Abandon(const Status& why) = 0;
  };

  explicit SlowCalls(Lane lane);
  ~SlowCalls();
  SlowCalls(const SlowCalls&) = delete;
  SlowCalls& operator=(const SlowCalls&) = delete;

  void Post(std::unique_ptr<Task> task);
  // Abandons what waits and joins the thread. Idempotent.
  void Shutdown();

 private:
  void Run();

  const Lane lane_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<Task>> tasks_;  // Guarded by mutex_.
  size_t running_ = 0;                       // Guarded by mutex_.
  bool stopping_ = false;                    // Guarded by mutex_.
  std::thread thread_;
};

}  // namespace statehouse
