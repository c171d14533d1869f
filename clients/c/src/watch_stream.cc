#include "clients/c/src/watch_stream.h"

#include <grpc/support/time.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace statehouse {
namespace {

// Of the ends that another stream may follow. CANCELLED comes from a service that ends.
bool GoesOn(const Status& end) {
  return end.ok() || end.reason() == Reason::kUnavailable || end.reason() == Reason::kDraining ||
         end.reason() == Reason::kCancelled;
}

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
  const std::lock_guard<std::mutex> lock(watch->mutex_);
  watch->BeginStream();
  return watch;
}

WatchStream::~WatchStream() {
  Stop(Status(Reason::kClientClosed, "the watch was closed"));
  std::unique_lock<std::mutex> lock(mutex_);
  over_.wait(lock, [this] { return step_ == Step::kOver; });
}

WatchStream::Taken WatchStream::Take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  Taken taken;
  if (!items_.empty()) {
    Item item = std::move(items_.front());
    items_.pop_front();
    bytes_ -= item.bytes;
    if (step_ == Step::kHeld) ReadOrHold();
    taken.kind = item.message != nullptr ? Taken::Kind::kMessage : Taken::Kind::kBreak;
    taken.message = std::move(item.message);
  } else if (end_.has_value()) {
    taken.kind = Taken::Kind::kEnd;
    taken.end = *end_;
  } else if (std::exchange(signalled_, false)) {
    eventfd_t count = 0;
    ::eventfd_read(ready_.get(), &count);
  }
  return taken;
}

void WatchStream::Stop(Status why) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (std::exchange(stopped_, true)) return;
  items_.clear();
  bytes_ = 0;
  end_ = std::move(why);
  SignalReady();
  if (stream_ != nullptr) stream_->Cancel();
  if (step_ == Step::kHeld) Finish();
  if (step_ == Step::kPausing) alarm_.Cancel();
}

Status WatchStream::StopStatus() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return stopped_ ? *end_ : Status();
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
  auto begun = session_->StreamOn(pump_->queue(), subject_->method(),
                                  *subject_->MakeRequest(point_), static_cast<Handler*>(this));
  if (!begun.ok()) return End(begun.status());
  stream_ = std::move(begun).value();
  step_ = Step::kBeginning;
}

void WatchStream::ReadOrHold() {
  if (stopped_) return Finish();
  if (IsFull()) {
    step_ = Step::kHeld;
    return;
  }
  reading_ = subject_->MakeResponse();
  step_ = Step::kReading;
  stream_->Read(reading_.get(), static_cast<Handler*>(this));
}

void WatchStream::Keep() {
  if (stopped_) return;
  point_ = subject_->PointAfter(*reading_, point_);
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
  if (stopped_) return End(*end_);
  if (!GoesOn(status)) return End(status);
  if (items_.empty() || items_.back().message != nullptr) {
    items_.push_back(Item{});
    // Else it is no news until the next message.
    if (!point_.is_known) SignalReady();
  }
  if (point_ != began_from_) pause_ = RetryPause();
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
  if (std::exchange(signalled_, true)) return;
  ::eventfd_write(ready_.get(), 1);
}

}  // namespace statehouse
