#include "service/watch/entry_waits.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "engine/base/watch_mutant.h"

namespace statehouse {
namespace {

using Clock = std::chrono::steady_clock;

// The thread stays with a held bucket for so long, and comes back after a while.
constexpr uint64_t kLookTimeoutNs = 100'000;
constexpr std::chrono::milliseconds kRetry{5};

Status Refuse(const EntryWaits::Request& request, Reason reason, const std::string& why) {
  return Status(reason, "waiting for key \"" + request.key + "\" of dict \"" +
                            request.served->record().name + "\": " + why);
}

}  // namespace

std::shared_ptr<EntryWaits> EntryWaits::Start(WatchHub* hub, DictStore* dicts, uint32_t waits_max) {
  std::shared_ptr<EntryWaits> waits(new EntryWaits(hub, dicts, waits_max));
  waits->thread_ = std::thread([raw = waits.get()] { raw->Run(); });
  return waits;
}

EntryWaits::~EntryWaits() { Shutdown(); }

size_t EntryWaits::size() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return waits_.size();
}

uint64_t EntryWaits::Park(Request request, Done done) {
  Status refused;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) {
      refused = Refuse(request, Reason::kDraining, "the service is draining; try its successor");
    } else if (waits_.size() >= waits_max_) {
      refused = Refuse(request, Reason::kLimitExceeded,
                       std::to_string(waits_.size()) + " calls wait, the limit is " +
                           std::to_string(waits_max_));
    } else {
      auto wait = std::make_shared<Wait>();
      wait->id = next_id_++;
      wait->request = std::move(request);
      wait->done = std::move(done);
      waits_.emplace(wait->id, wait);
      SetDueHeld(*wait, std::min(wait->request.timeout_at, wait->request.deadline));
      QueueHeld(*wait);
      return wait->id;
    }
  }
  done(std::move(refused));
  return 0;
}

void EntryWaits::Cancel(uint64_t id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto at = waits_.find(id);
  if (at == waits_.end()) return;
  at->second->cancelled = true;
  QueueHeld(*at->second);
}

void EntryWaits::Queue(uint64_t id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto at = waits_.find(id);
  if (at != waits_.end()) QueueHeld(*at->second);
}

void EntryWaits::QueueHeld(Wait& wait) {
  if (wait.queued) return;
  wait.queued = true;
  queue_.push_back(wait.id);
  changed_.notify_one();
}

void EntryWaits::SetDueHeld(Wait& wait, TimePoint due) {
  if (wait.due != TimePoint::max()) timers_.erase({wait.due, wait.id});
  wait.due = due;
  if (due != TimePoint::max()) timers_.emplace(due, wait.id);
}

void EntryWaits::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    const TimePoint now = Clock::now();
    while (!timers_.empty() && timers_.begin()->first <= now) {
      Wait& due = *waits_.at(timers_.begin()->second);
      SetDueHeld(due, TimePoint::max());
      QueueHeld(due);
    }
    if (queue_.empty()) {
      if (timers_.empty()) {
        changed_.wait(lock);
      } else {
        changed_.wait_until(lock, TimePoint(timers_.begin()->first));
      }
      continue;
    }
    const auto at = waits_.find(queue_.front());
    queue_.pop_front();
    if (at == waits_.end()) continue;
    std::shared_ptr<Wait> wait = at->second;
    wait->queued = WatchMutantIs(WatchMutant::kWaitQueuedLate);
    const bool cancelled = wait->cancelled;
    lock.unlock();
    Turn(wait, cancelled);
    if (WatchMutantIs(WatchMutant::kWaitQueuedLate)) {
      const std::lock_guard<std::mutex> late(mutex_);
      wait->queued = false;
    }
    wait.reset();  // The watch and `done` of one that has ended go here, with no lock held.
    lock.lock();
  }
}

void EntryWaits::Turn(const std::shared_ptr<Wait>& wait, bool cancelled) {
  const Request& request = wait->request;
  if (cancelled) {
    return End(wait, Refuse(request, Reason::kCancelled, "the caller has gone"));
  }
  const StatusOr<TimePoint> look_again = Look(*wait);
  if (!look_again.ok()) return End(wait, look_again.status());
  if (wait->answer.look.met) return End(wait, std::move(wait->answer));
  const TimePoint now = Clock::now();
  if (now >= request.timeout_at && wait->has_answer) return End(wait, std::move(wait->answer));
  if (now >= request.deadline) {
    return End(wait, Refuse(request, Reason::kTimeout, "the deadline passed before it was so"));
  }
  TimePoint due = std::min(*look_again, request.deadline);
  // What could not be looked at yet is, even when its time is over.
  if (wait->has_answer) due = std::min(due, request.timeout_at);
  const std::lock_guard<std::mutex> lock(mutex_);
  SetDueHeld(*wait, due);
}

// The watch is armed first and the entry is looked at then, so that a change after that look wakes
// the wait.
StatusOr<EntryWaits::TimePoint> EntryWaits::Look(Wait& wait) {
  Request& request = wait.request;
  if (wait.watch == nullptr) {
    WatchAsk ask;
    ask.served = request.served;
    ask.key = request.key;
    ask.snapshot = false;
    ask.keys_only = true;
    ask.is_wait = true;
    ask.identity = request.identity;
    SH_ASSIGN_OR_RETURN(wait.watch,
                        hub_->Open(std::move(ask), [weak = weak_from_this(), id = wait.id] {
                          if (const std::shared_ptr<EntryWaits> self = weak.lock()) self->Queue(id);
                        }));
  }
  WatchEvent event;
  Watch::Found found = Watch::Found::kEvent;
  while (found == Watch::Found::kEvent) found = wait.watch->Poll(&event);
  if (found == Watch::Found::kEnd) return wait.watch->status();

  const DictRecord& record = request.served->record();
  SH_ASSIGN_OR_RETURN(wait.answer.served, dicts_->Find("#" + std::to_string(record.index)));
  const Dict& dict = wait.answer.served->dict();
  const Status looked =
      LookAtEntry(dict, request.key, request.wait, &wait.answer.look, kLookTimeoutNs);
  AtWatchPoint(WatchPoint::kWaitBetweenSteps);
  // It moves just now, or somebody is inside of the bucket.
  const bool soon = looked.reason() == Reason::kStalled || looked.reason() == Reason::kDictMoved;
  if (soon) return Clock::now() + kRetry;
  if (!looked.ok()) return looked;
  wait.has_answer = true;
  wait.answer.request = request.keeps;
  const uint64_t again_ms = wait.answer.look.look_again_ms;
  if (again_ms == 0) return TimePoint::max();
  const uint64_t now_ms = dict.NowMs();
  // Beyond a day it is looked at once a day.
  constexpr uint64_t kDayMs = 86'400'000;
  const uint64_t left_ms = again_ms > now_ms ? std::min(again_ms - now_ms, kDayMs) : 0;
  return Clock::now() + std::chrono::milliseconds(left_ms + 1);
}

void EntryWaits::End(const std::shared_ptr<Wait>& wait, StatusOr<Answer> answer) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    SetDueHeld(*wait, TimePoint::max());
    if (!WatchMutantIs(WatchMutant::kWaitLeftBehind)) waits_.erase(wait->id);
  }
  if (wait->watch != nullptr) wait->watch->Close();
  wait->done(std::move(answer));
}

void EntryWaits::Shutdown() {
  std::vector<std::shared_ptr<Wait>> left;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
    changed_.notify_one();
  }
  thread_.join();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [id, wait] : waits_) {
      if (!WatchMutantIs(WatchMutant::kWaitForgotten) || !wait->queued) left.push_back(wait);
    }
  }
  for (const std::shared_ptr<Wait>& wait : left) {
    End(wait,
        Refuse(wait->request, Reason::kDraining, "the service is draining; try its successor"));
  }
}

}  // namespace statehouse
