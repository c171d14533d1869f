#include "clients/c/src/watch_stream.h"

#include <grpc/support/time.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "engine/os/futex.h"

namespace statehouse {
namespace {

// Of the ends that another stream may follow. CANCELLED comes from a service that ends.
bool GoesOn(const Status& end) {
  return end.ok() || end.reason() == Reason::kUnavailable || end.reason() == Reason::kDraining ||
         end.reason() == Reason::kCancelled;
}

// Of the failures to open what is followed.
bool MayPass(const Status& failed) {
  return failed.reason() == Reason::kTimeout || failed.reason() == Reason::kUnavailable;
}

// After so many reads of what is followed others may have the lock; for so long, because a mutex
// does not queue those who want it.
constexpr int kReadsAtOnce = 8;
constexpr uint64_t kReadPauseNs = 100'000;

}  // namespace

StatusOr<std::unique_ptr<WatchStream>> WatchStream::Begin(
    std::shared_ptr<NetworkSession> session, std::shared_ptr<const WatchSubject> subject) {
  // First, because nothing of a pump may be touched in a forked child.
  SH_RETURN_IF_ERROR(session->CheckUsable());
  std::unique_ptr<WatchStream> watch(new WatchStream(std::move(session), std::move(subject)));
  watch->ready_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!watch->ready_.valid()) {
    return Status(Reason::kLimitExceeded,
                  "watching " + watch->subject_->name() +
                      ": no descriptor to tell of its events: " + std::strerror(errno));
  }
  SH_ASSIGN_OR_RETURN(watch->pump_, StreamPump::OfThisProcess());
  if (watch->subject_->may_follow()) watch->offer_ = LocalFollow::kOffered;
  const std::lock_guard<std::mutex> lock(watch->mutex_);
  watch->BeginStream();
  return watch;
}

WatchStream::~WatchStream() {
  Stop(Status(Reason::kClientClosed, "the watch was closed"));
  {
    std::unique_lock<std::mutex> lock(mutex_);
    over_.wait(lock, [this] { return step_ == Step::kOver; });
  }
  if (thread_ != nullptr) thread_->Remove(this);
}

WatchStream::Taken WatchStream::Take(WatchReader* reader, Status* end) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!items_.empty()) {
    Item item = std::move(items_.front());
    items_.pop_front();
    bytes_ -= item.bytes;
    if (step_ == Step::kHeld) ReadOrHold();
    if (!IsFull() && std::exchange(is_held_, false)) thread_->Ring();
    item.message != nullptr ? reader->Take(std::move(item.message)) : reader->TakeBreak();
    return Taken::kSomething;
  }
  if (!end_.has_value() && IsFollowing() && TakeFollowed(reader)) return Taken::kSomething;
  if (end_.has_value()) {  // Maybe since what was followed had no more.
    *end = *end_;
    return Taken::kEnd;
  }
  if (std::exchange(signalled_, false)) {
    eventfd_t count = 0;
    ::eventfd_read(ready_.get(), &count);
  }
  return Taken::kNothing;
}

void WatchStream::Stop(Status why) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (stopped_) return;
  items_.clear();
  bytes_ = 0;
  end_ = std::move(why);
  stopped_.store(true, std::memory_order_release);
  LeaveFollow();
  SignalReady();
  if (stream_ != nullptr) stream_->Cancel();
  if (step_ == Step::kHeld) Finish();
  if (step_ == Step::kPausing) alarm_.Cancel();
}

Status WatchStream::StopStatus() const {
  if (!stopped_.load(std::memory_order_acquire)) return Status();
  const std::lock_guard<std::mutex> lock(mutex_);
  return *end_;
}

void WatchStream::Handle(bool ok) {
  const std::lock_guard<std::mutex> lock(mutex_);
  switch (step_) {
    case Step::kBeginning: ok ? ReadOrHold() : Finish(); return;
    case Step::kReading:
      if (!ok) return Finish();
      Keep();
      return ReadOrHold();
    case Step::kFinishing: return AfterEnd(stream_->EndStatus());
    case Step::kPausing: return BeginStream();
    case Step::kHeld:
    case Step::kOver: return;  // No event is outstanding.
  }
}

void WatchStream::BeginStream() {
  if (stopped_) return End(*end_);
  began_from_ = point_;
  auto begun =
      session_->StreamOn(pump_->queue(), subject_->method(), *subject_->MakeRequest(point_, offer_),
                         static_cast<Handler*>(this));
  if (!begun.ok()) return End(begun.status());
  stream_ = std::move(begun).value();
  step_ = Step::kBeginning;
}

void WatchStream::ReadOrHold() {
  if (stopped_) return Finish();
  // A stream that has handed over is read for its end.
  if (IsFull() && follow_ == nullptr) {
    step_ = Step::kHeld;
    return;
  }
  reading_ = subject_->MakeResponse();
  step_ = Step::kReading;
  stream_->Read(reading_.get(), static_cast<Handler*>(this));
}

void WatchStream::Keep() {
  if (stopped_) return;
  returning_until_.reset();
  point_ = subject_->PointAfter(*reading_, point_);
  switch (subject_->SignOf(*reading_)) {
    case WatchSubject::Sign::kHandedOver: return BeginFollow(*reading_);
    case WatchSubject::Sign::kResync: is_synced_ = false; break;
    case WatchSubject::Sign::kSynced:
      if (std::exchange(is_synced_, false)) return;
      break;
    case WatchSubject::Sign::kPointAlone: return;
    case WatchSubject::Sign::kOther: break;
  }
  Item item{std::move(reading_), 0};
  item.bytes = item.message->ByteSizeLong();
  bytes_ += item.bytes;
  items_.push_back(std::move(item));
  SignalReady();
}

void WatchStream::Finish() {
  step_ = Step::kFinishing;
  stream_->Finish(static_cast<Handler*>(this));
}

void WatchStream::AfterEnd(const Status& status) {
  stream_.reset();
  reading_.reset();
  const bool falls_back = std::exchange(falls_back_, false);
  if (IsRefusedReturn(status)) return Pause();
  if (!stopped_ && !GoesOn(status) && follow_ != nullptr) return EndFollow(status);
  if (follow_ != nullptr) {
    LeaveFollow();
    WakeAwaiting();  // It sleeps on what is followed no more.
  }
  if (stopped_) return End(*end_);
  if (!GoesOn(status)) return End(status);
  if (falls_back) return BeginStream();
  returning_until_.reset();
  // Another service may do better.
  if (subject_->may_follow()) offer_ = LocalFollow::kOffered;
  failed_opens_ = 0;
  is_synced_ = false;
  if (items_.empty() || items_.back().message != nullptr) {
    items_.push_back(Item{});
    // Else it is no news until the next message.
    if (!point_.is_known) SignalReady();
  }
  if (point_ != began_from_) pause_ = RetryPause();
  Pause();
}

bool WatchStream::IsRefusedReturn(const Status& end) const {
  // The hint tells it from the end of a slow watcher.
  return !stopped_ && end.reason() == Reason::kLimitExceeded && end.retry_after_ms() > 0 &&
         returning_until_.has_value() && std::chrono::steady_clock::now() < *returning_until_;
}

void WatchStream::Pause() {
  step_ = Step::kPausing;
  alarm_.Set(pump_->queue(),
             gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                          gpr_time_from_micros(pause_.Draw().count(), GPR_TIMESPAN)),
             static_cast<Handler*>(this));
}

void WatchStream::End(Status why) {
  if (!end_.has_value()) end_ = std::move(why);
  SignalReady();
  step_ = Step::kOver;
  over_.notify_all();
}

void WatchStream::SignalReady() {
  WakeAwaiting();
  if (std::exchange(signalled_, true)) return;
  ::eventfd_write(ready_.get(), 1);
}

void WatchStream::WakeAwaiting() {
  poke_.fetch_add(1, std::memory_order_release);
  if (awaiting_ > 0) FutexWakeAll(poke_);
}

int WatchStream::fd() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!std::exchange(is_polled_, true) && thread_ != nullptr) thread_->Ring();
  return ready_.get();
}

bool WatchStream::PollReady(Deadline deadline) const {
  constexpr int64_t kPollMsMax = 3'600'000;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  if (left.count() <= 0) return false;
  pollfd waits{ready_.get(), POLLIN, 0};
  ::poll(&waits, 1, static_cast<int>(std::min<int64_t>(left.count(), kPollMsMax)));
  return true;  // Or a signal came; whoever asks looks again.
}

bool WatchStream::Await(Deadline deadline) {
  if (!subject_->may_follow()) return PollReady(deadline);
  constexpr uint64_t kSleepNsMax = 3'600'000'000'000;
  const auto left = deadline - std::chrono::steady_clock::now();
  if (left <= left.zero()) return false;
  uint64_t sleep_ns = std::min<uint64_t>(
      kSleepNsMax,
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(left).count()));
  const std::atomic<uint32_t>* words[3] = {&poke_};
  uint32_t seen[3] = {};
  size_t count = 1;
  FollowEvents events;  // Stay mapped.
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!items_.empty() || end_.has_value()) return true;
    seen[0] = poke_.load(std::memory_order_acquire);
    if (IsFollowing() && follow_end_.has_value() && !has_more_) return true;
    if (IsFollowing() && has_more_) {
      sleep_ns = std::min(sleep_ns, kReadPauseNs);
    } else if (IsFollowing()) {
      events = follow_events_;
      for (size_t i = 0; i < events.count; ++i) {
        words[count] = events.words[i].get();
        seen[count++] = events.seen[i];
      }
      const uint64_t now_ns = MonotonicNs();
      const uint64_t due_ns = follow_->due_ns();
      if (due_ns <= now_ns) return true;
      sleep_ns = std::min(sleep_ns, due_ns - now_ns);
    }
    ++awaiting_;
  }
  FutexWaitAny(std::span(words, count), std::span(seen, count), sleep_ns);
  --awaiting_;
  return true;
}

bool WatchStream::OpenFollow(std::unique_lock<std::mutex>* lock) {
  const std::shared_ptr<WatchFollow> opening = follow_;
  lock->unlock();
  const Status opened = opening->Open();
  lock->lock();
  // Meanwhile the stream may have ended, and another one handed over.
  if (follow_ != opening) return false;
  if (!opened.ok()) {
    const bool tries_again = MayPass(opened) && ++failed_opens_ < kFollowOpensMax;
    FallBack(tries_again ? LocalFollow::kReturned : LocalFollow::kDeclined);
    return false;
  }
  is_open_ = true;
  failed_opens_ = 0;
  if (follow_end_.has_value()) follow_->EndHere();
  follow_events_ = follow_->events();
  --follow_events_.seen[0];  // Not read yet.
  WakeAwaiting();
  return true;
}

FollowThread::Sleep WatchStream::Turn(bool may_wait) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (follow_ != nullptr && !is_open_) {
    if (!may_wait) return {{}, UINT64_MAX, true};
    if (!OpenFollow(&lock)) return {{}, follow_ != nullptr ? 0 : UINT64_MAX};
  }
  if (!IsFollowing() || !is_polled_) return {};
  for (int reads = 0; !IsFull(); ++reads) {
    if (reads == kReadsAtOnce) return {{}, MonotonicNs() + kReadPauseNs};
    std::unique_ptr<Message> message;
    const WatchFollow::Found found =
        ReadFollow([&](uint64_t now_ns) { return follow_->Read(now_ns, &message); });
    if (found == WatchFollow::Found::kMore) continue;
    if (found == WatchFollow::Found::kMessage) {
      Item item{std::move(message), 0};
      item.bytes = item.message->ByteSizeLong();
      bytes_ += item.bytes;
      items_.push_back(std::move(item));
      SignalReady();
      continue;
    }
    if (!IsFollowing()) return {};
    return {follow_events_, follow_->due_ns()};
  }
  is_held_ = true;
  return {};
}

void WatchStream::BeginFollow(const Message& handed_over) {
  follow_ = subject_->Follow(handed_over);
  is_open_ = false;
  is_held_ = false;
  if (thread_ == nullptr && follow_ != nullptr) {
    StatusOr<std::shared_ptr<FollowThread>> thread = FollowThread::OfThisProcess();
    if (thread.ok()) thread_ = *std::move(thread);
  }
  if (thread_ == nullptr || follow_ == nullptr) return FallBack(LocalFollow::kDeclined);
  thread_->Add(this);
}

// kNothing, or what ended the following.
template <typename Read>
WatchFollow::Found WatchStream::ReadFollow(const Read& read) {
  follow_events_ = follow_->events();
  const WatchFollow::Found found = read(MonotonicNs());
  has_more_ = found == WatchFollow::Found::kMore;
  point_ = {true, follow_->counter()};
  if (found == WatchFollow::Found::kFallBack) FallBack(LocalFollow::kReturned);
  if (found == WatchFollow::Found::kBroken) FallBack(LocalFollow::kDeclined);
  // As far as the stream was.
  if (found == WatchFollow::Found::kNothing && follow_end_.has_value()) {
    FallBack(LocalFollow::kNone);
  }
  return found;
}

// False: there is nothing, or not for now (has_more_), or no more of what is followed.
bool WatchStream::TakeFollowed(WatchReader* reader) {
  WatchFollow::Found found = WatchFollow::Found::kMore;
  for (int reads = 0; reads < kReadsAtOnce && found == WatchFollow::Found::kMore; ++reads) {
    found = ReadFollow([&](uint64_t now_ns) { return follow_->ReadInto(now_ns, reader); });
  }
  // The thread that sleeps in the caller's stead does not know of it.
  const bool pauses = found == WatchFollow::Found::kNothing && IsFollowing();
  if (pauses && is_polled_ && follow_->is_pausing()) thread_->Ring();
  return found == WatchFollow::Found::kMessage;
}

void WatchStream::LeaveFollow() {
  follow_.reset();
  follow_events_ = {};  // They hold what was mapped.
}

// The next stream goes on where this stops, unless none may.
void WatchStream::FallBack(LocalFollow how) {
  LeaveFollow();
  if (follow_end_.has_value()) return End(*std::exchange(follow_end_, std::nullopt));
  offer_ = how;
  falls_back_ = true;
  is_synced_ = true;
  pause_ = RetryPause();
  returning_until_ = std::chrono::steady_clock::now() + kReturnPatience;
  if (stream_ != nullptr) stream_->Cancel();
}

// No stream goes on. What was committed before is read first, as a stream would have brought it.
void WatchStream::EndFollow(const Status& why) {
  follow_end_ = why;
  if (is_open_) follow_->EndHere();
  WakeAwaiting();
  thread_->Ring();  // To read what is polled for, or to open it.
  step_ = Step::kOver;
  over_.notify_all();
}

}  // namespace statehouse
