#include "clients/c/src/lease_renewer.h"

#include <algorithm>
#include <utility>

namespace statehouse {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::seconds kHeartbeat{3};
// A renewal that failed because the service is away is tried again so soon.
constexpr std::chrono::milliseconds kAgain{100};

std::chrono::nanoseconds ThirdOf(uint64_t ttl_ns) { return std::chrono::nanoseconds(ttl_ns / 3); }

}  // namespace

LeaseRenewer::~LeaseRenewer() { Stop(); }

void LeaseRenewer::Stop() {
  std::thread thread;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    leases_.clear();
    thread = std::move(thread_);
  }
  changed_.notify_all();
  if (thread.joinable()) thread.join();
}

void LeaseRenewer::Add(HeldLock* lock, uint64_t ttl_ns, By renewed_by, std::function<void()> lost) {
  const TimePoint due = steady_clock::now() + ThirdOf(ttl_ns);
  bool earlier = false;
  {
    const std::lock_guard<std::mutex> guard(mutex_);
    if (stopping_) return;
    leases_[lock] = {ttl_ns, renewed_by, due, std::move(lost)};
    earlier = due < sleeps_until_;
    if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  }
  if (earlier) changed_.notify_all();
}

void LeaseRenewer::Beat() {
  {
    const std::lock_guard<std::mutex> guard(mutex_);
    if (stopping_ || beats_) return;
    beats_ = true;
    if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  }
  changed_.notify_all();
}

void LeaseRenewer::Remove(HeldLock* lock) {
  std::unique_lock<std::mutex> guard(mutex_);
  leases_.erase(lock);
  // From `lost` itself there is nothing to wait for.
  if (thread_.get_id() == std::this_thread::get_id()) return;
  changed_.wait(guard, [&] { return renewing_ != lock; });
}

void LeaseRenewer::LookNow() {
  {
    const std::lock_guard<std::mutex> guard(mutex_);
    MarkLost();
  }
  changed_.notify_all();
}

// REQUIRES: the mutex is held.
void LeaseRenewer::MarkLost() {
  for (auto& [lock, lease] : leases_) {
    if (!lock->Look().held) lease.due = steady_clock::now();
  }
}

// False when it is lost. *again: how long until it is looked after again; made shorter where that
// is needed.
bool LeaseRenewer::LookAfter(HeldLock* lock, By renewed_by, std::chrono::nanoseconds* again) const {
  const Status renewed = renewed_by == By::kRenewer ? lock->Renew(0) : Status();
  const LeaseLook look = lock->Look();
  const std::chrono::nanoseconds left(look.left_ns);
  if (!renewed.ok()) *again = std::min<std::chrono::nanoseconds>(kAgain, left);
  if (renewed_by == By::kHolder) *again = std::min(*again, left);
  return look.held;
}

void LeaseRenewer::Run() {
  std::unique_lock<std::mutex> guard(mutex_);
  heartbeat_due_ = steady_clock::now() + kHeartbeat;
  while (!stopping_) {
    const TimePoint now = steady_clock::now();
    const auto next =
        std::min_element(leases_.begin(), leases_.end(),
                         [](const auto& a, const auto& b) { return a.second.due < b.second.due; });
    const bool beats = beats_ || next != leases_.end();
    if (beats && heartbeat_due_ <= now) {
      heartbeat_due_ = now + kHeartbeat;
      guard.unlock();
      heartbeat_();
      guard.lock();
      MarkLost();
      continue;
    }
    if (next == leases_.end() || next->second.due > now) {
      sleeps_until_ = beats ? heartbeat_due_ : TimePoint::max();
      if (next != leases_.end()) sleeps_until_ = std::min(sleeps_until_, next->second.due);
      if (!beats) {
        changed_.wait(guard);
      } else {
        changed_.wait_until(guard, sleeps_until_);
      }
      sleeps_until_ = TimePoint::max();
      continue;
    }
    HeldLock* const lock = next->first;
    const By renewed_by = next->second.renewed_by;
    std::chrono::nanoseconds again = ThirdOf(next->second.ttl_ns);
    renewing_ = lock;
    guard.unlock();
    const bool lost = !LookAfter(lock, renewed_by, &again);
    guard.lock();
    std::function<void()> tell;
    if (const auto found = leases_.find(lock); found != leases_.end()) {
      if (lost) {
        tell = std::move(found->second.lost);
        leases_.erase(found);
      } else {
        found->second.due = steady_clock::now() + again;
      }
    }
    if (tell != nullptr) {
      guard.unlock();
      tell();
      guard.lock();
    }
    renewing_ = nullptr;
    changed_.notify_all();
  }
}

}  // namespace statehouse
