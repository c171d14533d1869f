#include "service/api/wait_table.h"

#include <algorithm>
#include <string>
#include <system_error>

namespace statehouse {
namespace {

// A watcher looks up from its sleep this often, to see that its area has no waits left or that the
// service stops.
constexpr uint64_t kWatchSliceNs = 100'000'000;
// A watcher whose area changes where nobody waits takes this pause between two looks.
constexpr std::chrono::milliseconds kBusyPause{1};
constexpr std::chrono::milliseconds kScanMin{1};
constexpr std::chrono::milliseconds kScanMax{5};

}  // namespace

class WaitTable::Pending final : public PendingCall {
 public:
  Pending(std::weak_ptr<WaitTable> table, uint64_t id) : table_(std::move(table)), id_(id) {}
  void Cancel() override {
    if (const std::shared_ptr<WaitTable> table = table_.lock()) table->Cancel(id_);
  }

 private:
  const std::weak_ptr<WaitTable> table_;
  const uint64_t id_;
};

std::shared_ptr<WaitTable> WaitTable::Start(uint32_t waits_max) {
  std::shared_ptr<WaitTable> table(new WaitTable(waits_max));
  WaitTable* const raw = table.get();
  table->timer_ = std::thread([raw] { raw->RunTimer(); });
  return table;
}

WaitTable::~WaitTable() { Shutdown(); }

size_t WaitTable::size() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return waits_.size();
}

std::shared_ptr<PendingCall> WaitTable::Park(Request request, Done done) {
  const std::shared_ptr<ServedArea> area = request.area;
  const uint64_t since = request.since;
  const Range range(request.pos, request.len);
  Request who;  // For `allowed`; the table has the whole request.
  who.area = area;
  who.identity = request.identity;
  std::shared_ptr<const Allowed> allowed;
  uint64_t id = 0;
  Status refused;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) {
      refused = Status(Reason::kDraining, "waiting for area \"" + area->info().name +
                                              "\": the service is draining; try its successor");
    } else if (waits_.size() >= waits_max_) {
      refused = Status(Reason::kLimitExceeded, "waiting for area \"" + area->info().name +
                                                   "\": " + std::to_string(waits_.size()) +
                                                   " calls wait, the limit is " +
                                                   std::to_string(waits_max_));
    } else {
      id = next_id_++;
      allowed = allowed_;
      const TimePoint ends = std::min(request.timeout_at, request.deadline);
      if (ends != TimePoint::max()) {
        timers_.emplace(ends, id);
        if (timers_.begin()->second == id) timer_changed_.notify_one();
      }
      Watched& watched = areas_[area.get()];
      watched.area = area;
      watched.ranges[range].insert(id);
      waits_.emplace(id, Wait{std::move(request), std::move(done)});
      if (!watched.has_watcher) EnsureWatcher();
    }
  }
  if (!refused.ok()) {
    done(std::move(refused));
    return nullptr;
  }
  if (allowed != nullptr) {
    if (Status still = CheckAllowed(*allowed, who); !still.ok()) {
      End(id, std::move(still));
      return nullptr;
    }
  }
  // The first look, now that whoever changes the area meanwhile is seen by the watcher.
  StatusOr<WaitResult> found = area->area().Poll(since, range.first, range.second);
  if (found.ok() && !found->changed) return std::make_shared<Pending>(weak_from_this(), id);
  End(id, std::move(found));
  return nullptr;
}

void WaitTable::End(uint64_t id, StatusOr<WaitResult> result) {
  Wait wait;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!Extract(id, &wait)) return;
  }
  wait.done(std::move(result));
}

Status WaitTable::CheckAllowed(const Allowed& allowed, const Request& request) {
  if (request.identity == nullptr) return Status();
  const Status status = allowed(*request.identity, *request.area);
  if (status.ok()) return status;
  return Status(status.reason(),
                "waiting for area \"" + request.area->info().name + "\": " + status.message());
}

void WaitTable::Recheck(Allowed allowed) {
  const auto shared = std::make_shared<const Allowed>(std::move(allowed));
  std::vector<std::pair<uint64_t, Request>> parked;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    allowed_ = shared;
    parked.reserve(waits_.size());
    for (const auto& [id, wait] : waits_) parked.emplace_back(id, wait.request);
  }
  for (const auto& [id, request] : parked) {
    if (Status still = CheckAllowed(*shared, request); !still.ok()) End(id, std::move(still));
  }
}

void WaitTable::Cancel(uint64_t id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (waits_.find(id) == waits_.end()) return;
  cancelled_.push_back(id);
  timer_changed_.notify_one();
}

bool WaitTable::Extract(uint64_t id, Wait* wait) {
  const auto found = waits_.find(id);
  if (found == waits_.end()) return false;
  *wait = std::move(found->second);
  waits_.erase(found);
  timers_.erase({std::min(wait->request.timeout_at, wait->request.deadline), id});
  const auto watched = areas_.find(wait->request.area.get());
  const auto range = watched->second.ranges.find({wait->request.pos, wait->request.len});
  range->second.erase(id);
  if (range->second.empty()) watched->second.ranges.erase(range);
  // A watcher removes the entry itself when it leaves the area.
  if (watched->second.ranges.empty() && !watched->second.has_watcher) areas_.erase(watched);
  return true;
}

void WaitTable::Finish(std::vector<Ended> ended) {
  for (Ended& one : ended) one.done(std::move(one.result));
}

bool WaitTable::HasUnwatched() const {
  return std::any_of(areas_.begin(), areas_.end(),
                     [](const auto& entry) { return !entry.second.has_watcher; });
}

void WaitTable::EnsureWatcher() {
  timer_changed_.notify_one();  // It looks at the area until a watcher has it.
  if (idle_watchers_ > 0) {
    watchers_changed_.notify_one();
    return;
  }
  if (watchers_.size() >= kWatcherThreadsMax) return;
  try {
    watchers_.emplace_back([this] { RunWatcher(); });
  } catch (const std::system_error&) {
    // No thread can be had now: the timer thread goes on looking, and the next Park tries again.
  }
}

void WaitTable::ExtractDue(TimePoint now, std::vector<Wait>* timed_out, std::vector<Ended>* ended) {
  Wait wait;
  for (const uint64_t id : cancelled_) {
    if (!Extract(id, &wait)) continue;
    Status status(Reason::kCancelled, "waiting for area \"" + wait.request.area->info().name +
                                          "\": the caller gave up");
    ended->push_back(Ended{std::move(wait.done), std::move(status)});
  }
  cancelled_.clear();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    const bool found = Extract(timers_.begin()->second, &wait);
    if (!found) {
      timers_.erase(timers_.begin());
    } else if (wait.request.deadline <= wait.request.timeout_at) {
      Status status(Reason::kTimeout, "waiting for area \"" + wait.request.area->info().name +
                                          "\": the deadline passed without a change");
      ended->push_back(Ended{std::move(wait.done), std::move(status)});
    } else {
      timed_out->push_back(std::move(wait));
    }
  }
}

void WaitTable::RunTimer() {
  std::chrono::milliseconds scan = kScanMin;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    std::vector<Wait> timed_out;
    std::vector<Ended> ended;
    ExtractDue(std::chrono::steady_clock::now(), &timed_out, &ended);
    const bool scanning = HasUnwatched();
    if (scanning || !timed_out.empty() || !ended.empty()) {
      lock.unlock();
      for (Wait& wait : timed_out) {
        const WaitTable::Request& request = wait.request;
        ended.push_back(Ended{std::move(wait.done),
                              request.area->area().Poll(request.since, request.pos, request.len)});
      }
      Finish(std::move(ended));
      if (scanning) scan = LookAtUnwatched() > 0 ? kScanMin : std::min(scan + kScanMin, kScanMax);
      lock.lock();
      if (stopping_ || !cancelled_.empty()) continue;
    }
    const TimePoint next = timers_.empty() ? TimePoint::max() : timers_.begin()->first;
    if (HasUnwatched()) {
      timer_changed_.wait_until(lock, std::min(next, std::chrono::steady_clock::now() + scan));
    } else if (next == TimePoint::max()) {
      timer_changed_.wait(lock);
    } else {
      timer_changed_.wait_until(lock, next);
    }
  }
}

size_t WaitTable::LookAtUnwatched() {
  std::vector<std::shared_ptr<ServedArea>> areas;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [key, watched] : areas_) {
      if (!watched.has_watcher) areas.push_back(watched.area);
    }
  }
  size_t ended = 0;
  for (const std::shared_ptr<ServedArea>& served : areas) ended += Look(*served);
  return ended;
}

size_t WaitTable::Look(ServedArea& served) {
  Area& area = served.area();
  std::vector<Range> ranges;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = areas_.find(&served);
    if (found == areas_.end()) return 0;
    for (const auto& [range, ids] : found->second.ranges) ranges.push_back(range);
  }
  std::vector<StatusOr<uint64_t>> counters;
  counters.reserve(ranges.size());
  for (const Range& range : ranges) {
    counters.push_back(area.UpdatesOfRange(range.first, range.second));
  }
  std::vector<Ended> ended;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = areas_.find(&served);
    if (found == areas_.end()) return 0;
    std::vector<std::pair<uint64_t, size_t>> changed;  // Id, index of its counter.
    for (size_t i = 0; i < ranges.size(); ++i) {
      const auto ids = found->second.ranges.find(ranges[i]);
      if (ids == found->second.ranges.end()) continue;
      for (const uint64_t id : ids->second) {
        // A wait that was parked after the counter was read has seen a later one itself: only a
        // greater counter counts.
        const uint64_t since = waits_.at(id).request.since;
        if (!counters[i].ok() || *counters[i] > since) changed.emplace_back(id, i);
      }
    }
    Wait wait;
    for (const auto& [id, i] : changed) {
      if (!Extract(id, &wait)) continue;
      if (counters[i].ok()) {
        ended.push_back(Ended{std::move(wait.done), WaitResult{true, *counters[i]}});
      } else {
        ended.push_back(Ended{std::move(wait.done), counters[i].status()});
      }
    }
  }
  const size_t count = ended.size();
  Finish(std::move(ended));
  return count;
}

void WaitTable::RunWatcher() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    const auto next = std::find_if(areas_.begin(), areas_.end(),
                                   [](const auto& entry) { return !entry.second.has_watcher; });
    if (next == areas_.end()) {
      ++idle_watchers_;
      watchers_changed_.wait(lock);
      --idle_watchers_;
      continue;
    }
    next->second.has_watcher = true;
    if (HasUnwatched()) EnsureWatcher();  // One notification may have stood for several areas.
    const std::shared_ptr<ServedArea> served = next->second.area;
    lock.unlock();
    Serve(*served);
    lock.lock();
    const auto left = areas_.find(served.get());
    if (left == areas_.end()) continue;
    left->second.has_watcher = false;
    if (left->second.ranges.empty()) areas_.erase(left);
  }
}

void WaitTable::Serve(ServedArea& served) {
  Area& area = served.area();
  for (;;) {
    const uint64_t updates = area.Updates();
    const size_t ended = Look(served);
    {
      std::unique_lock<std::mutex> lock(mutex_);
      const auto found = areas_.find(&served);
      if (stopping_ || found == areas_.end() || found->second.ranges.empty()) return;
    }
    const StatusOr<WaitResult> woken = area.Wait(updates, kWatchSliceNs);
    if (woken.ok() && !woken->changed) continue;
    if (Look(served) > 0 || ended > 0) continue;
    // It changes where nobody waits, or it is retired and about to be left.
    std::unique_lock<std::mutex> lock(mutex_);
    stopping_changed_.wait_for(lock, kBusyPause, [this] { return stopping_; });
  }
}

void WaitTable::Shutdown() {
  std::vector<std::thread> watchers;
  std::thread timer;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    watchers.swap(watchers_);
    timer.swap(timer_);
    timer_changed_.notify_all();
    watchers_changed_.notify_all();
    stopping_changed_.notify_all();
  }
  if (timer.joinable()) timer.join();
  for (std::thread& watcher : watchers) watcher.join();
  std::vector<Ended> ended;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    Wait wait;
    while (!waits_.empty()) {
      Extract(waits_.begin()->first, &wait);
      Status status(Reason::kDraining, "waiting for area \"" + wait.request.area->info().name +
                                           "\": the service is draining; try its successor");
      ended.push_back(Ended{std::move(wait.done), std::move(status)});
    }
    areas_.clear();
    cancelled_.clear();
  }
  Finish(std::move(ended));
}

}  // namespace statehouse
