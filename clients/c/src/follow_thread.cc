#include "clients/c/src/follow_thread.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace statehouse {
namespace {

struct Shared {
  std::mutex mutex;
  std::weak_ptr<FollowThread> thread;
  pid_t process = 0;  // Whose it is: a forked child has none of its parent's threads.
};

// Never destroyed: watches may be closed while the process ends.
Shared& TheShared() {
  static Shared* const shared = new Shared;
  return *shared;
}

// False: there is no room for it.
bool AddWord(const std::atomic<uint32_t>* word, uint32_t seen,
             std::vector<const std::atomic<uint32_t>*>* words, std::vector<uint32_t>* all_seen) {
  const auto known = std::find(words->begin(), words->end(), word);
  if (known != words->end()) {
    // Another follower of the same dict: the older look of the two counts.
    uint32_t& older = (*all_seen)[static_cast<size_t>(known - words->begin())];
    if (static_cast<int32_t>(seen - older) < 0) older = seen;
    return true;
  }
  if (words->size() > kFollowWordsMax) return false;
  words->push_back(word);
  all_seen->push_back(seen);
  return true;
}

}  // namespace

StatusOr<std::shared_ptr<FollowThread>> FollowThread::OfThisProcess() {
  Shared& shared = TheShared();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  if (std::exchange(shared.process, ::getpid()) != ::getpid()) shared.thread.reset();
  if (std::shared_ptr<FollowThread> thread = shared.thread.lock()) return thread;
  std::shared_ptr<FollowThread> thread(new FollowThread());
  try {
    thread->thread_ = std::thread([raw = thread.get()] { raw->Run(); });
  } catch (const std::system_error& failed) {
    return Status(Reason::kLimitExceeded,
                  std::string("no thread to follow dicts could be started: ") + failed.what());
  }
  ::pthread_setname_np(thread->thread_.native_handle(), "statehouse-flw");
  shared.thread = thread;
  return thread;
}

bool FollowThread::IsSupported() {
  static const bool supported = [] {
    const std::atomic<uint32_t> word{1};
    const std::atomic<uint32_t>* const words[] = {&word};
    const uint32_t expected[] = {0};  // Differs, so nobody sleeps.
    return FutexWaitAny(words, expected, 1);
  }();
  return supported;
}

FollowThread::~FollowThread() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  Ring();
  if (thread_.joinable()) thread_.join();
}

void FollowThread::Add(Follower* follower) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    followers_.insert(follower);
  }
  Ring();
}

void FollowThread::Remove(Follower* follower) {
  {
    std::unique_lock<std::mutex> lock(mutex_);
    followers_.erase(follower);
    over_.wait(lock, [&] { return inside_ != follower; });
  }
  Ring();  // It lets go of the log.
}

void FollowThread::Ring() {
  bell_.fetch_add(1, std::memory_order_seq_cst);
  FutexWakeAll(bell_);
}

std::optional<FollowThread::Sleep> FollowThread::TurnOf(Follower* follower, bool may_wait,
                                                        std::unique_lock<std::mutex>* lock) {
  if (followers_.count(follower) == 0) return std::nullopt;
  inside_ = follower;
  lock->unlock();
  Sleep sleep = follower->Turn(may_wait);
  lock->lock();
  inside_ = nullptr;
  over_.notify_all();
  return sleep;
}

std::vector<FollowThread::Sleep> FollowThread::TakeTurns() {
  std::vector<Sleep> sleeps;
  std::vector<Follower*> waiting;
  std::unique_lock<std::mutex> lock(mutex_);
  const std::vector<Follower*> turns(followers_.begin(), followers_.end());
  for (Follower* const follower : turns) {
    std::optional<Sleep> sleep = TurnOf(follower, false, &lock);
    if (!sleep.has_value()) continue;
    if (sleep->must_wait) {
      waiting.push_back(follower);
    } else {
      sleeps.push_back(*std::move(sleep));
    }
  }
  const uint64_t until_ns = waiting.empty() ? 0 : MonotonicNs() + kFollowWaitsNs;
  for (Follower* const follower : waiting) {
    if (std::optional<Sleep> sleep = TurnOf(follower, true, &lock); sleep.has_value()) {
      sleeps.push_back(*std::move(sleep));
    }
    if (MonotonicNs() < until_ns) continue;
    // The others first, and then the rest of these.
    if (follower != waiting.back()) sleeps.push_back({{}, 0});
    break;
  }
  return sleeps;
}

void FollowThread::Run() {
  for (;;) {
    const uint32_t bell_seen = bell_.load(std::memory_order_seq_cst);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;
    }
    const std::vector<Sleep> sleeps = TakeTurns();
    std::vector<const std::atomic<uint32_t>*> words{&bell_};
    std::vector<uint32_t> seen{bell_seen};
    uint64_t until_ns = UINT64_MAX;
    bool sees_all = true;
    for (const Sleep& sleep : sleeps) {
      until_ns = std::min(until_ns, sleep.due_ns);
      for (size_t i = 0; i < sleep.events.count; ++i) {
        sees_all = AddWord(sleep.events.words[i].get(), sleep.events.seen[i], &words, &seen) &&
                   sees_all;
      }
    }
    const uint64_t now_ns = MonotonicNs();
    if (!sees_all) until_ns = std::min(until_ns, now_ns + kFollowLookNs);
    if (until_ns <= now_ns) continue;
    constexpr uint64_t kSleepNsMax = 3'600'000'000'000;
    FutexWaitAny(words, seen, std::min(until_ns - now_ns, kSleepNsMax));
  }
}

}  // namespace statehouse
