#include "service/api/slow_calls.h"

#include <string>
#include <utility>

namespace statehouse {
namespace {

Status Draining() {
  return Status(Reason::kDraining, "the service is draining before it stops; try its successor");
}

}  // namespace

SlowCalls::SlowCalls(Lane lane) : lane_(lane), thread_([this] { Run(); }) {}

SlowCalls::~SlowCalls() { Shutdown(); }

void SlowCalls::Post(std::unique_ptr<Task> task) {
  Status refused;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) {
      refused = Draining();
    } else if (tasks_.size() + running_ >= kSlowCallsMax) {
      refused = Status(Reason::kLimitExceeded,
                       std::to_string(kSlowCallsMax) + " calls wait for held bytes already");
    } else {
      tasks_.push_back(std::move(task));
      changed_.notify_one();
      return;
    }
  }
  task->Abandon(refused);
}

void SlowCalls::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (stopping_) return;
    std::unique_ptr<Task> task = std::move(tasks_.front());
    tasks_.pop_front();
    running_ = 1;
    lock.unlock();
    const bool ended = task->Try(lane_);
    if (ended) task.reset();
    lock.lock();
    running_ = 0;
    if (!ended) tasks_.push_back(std::move(task));
  }
}

void SlowCalls::Shutdown() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
  std::deque<std::unique_ptr<Task>> left;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    left.swap(tasks_);
  }
  for (const std::unique_ptr<Task>& task : left) task->Abandon(Draining());
}

}  // namespace statehouse
