#include "service/rpc/door_core.h"

#include <grpc/support/time.h>

#include <iterator>
#include <memory>
#include <utility>

#include "engine/os/futex.h"
#include "service/rpc/acceptor.h"
#include "service/rpc/joint_sends.h"

namespace statehouse {

// One piece of work on its way through the completion queue. It owns itself until its event.
class DoorCore::Posted final : public Event {
 public:
  Posted(DoorCore* core, std::function<void()> work) : core_(core), work_(std::move(work)) {
    // Long due: gRPC hands it on at once. A time of now would be rounded up and go to its timers,
    // which sleep by the wall clock.
    alarm_.Set(core->queue(), gpr_inf_past(GPR_CLOCK_MONOTONIC), static_cast<Event*>(this));
  }
  void OnEvent(bool ok) override {
    // Whoever posted it has left Post when this lock is free.
    { const std::lock_guard<std::mutex> lock(core_->mutex_); }
    work_();
    delete this;
  }

 private:
  DoorCore* const core_;
  const std::function<void()> work_;
  grpc::Alarm alarm_;
};

void DoorCore::CountWasted(const std::string& peer) {
  // SYNC: door.acceptor.
  Acceptor* const acceptor = acceptor_.load(std::memory_order_acquire);
  if (acceptor != nullptr) acceptor->OnWasted(peer);
}

void DoorCore::Raise(const grpc::ServerContext& context, ReadGate::Standing standing) {
  // SYNC: door.acceptor.
  Acceptor* const acceptor = acceptor_.load(std::memory_order_acquire);
  if (acceptor != nullptr && acceptor->WantsStandings()) acceptor->Raise(context.peer(), standing);
}

void DoorCore::Raise(std::string_view peer, ReadGate::Standing standing) {
  // SYNC: door.acceptor.
  Acceptor* const acceptor = acceptor_.load(std::memory_order_acquire);
  if (acceptor != nullptr && acceptor->WantsStandings()) acceptor->Raise(peer, standing);
}

void DoorCore::Post(std::function<void()> work) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (posting_is_closed_) return;
  new Posted(this, std::move(work));
}

bool DoorCore::MayWakeHere() {
  const uint64_t now_ns = MonotonicNs();
  const bool goes_on =
      now_ns - last_wake_ns_.exchange(now_ns, std::memory_order_relaxed) < kAudienceGapNs;
  const uint32_t before = goes_on ? wakes_in_a_row_.load(std::memory_order_relaxed) : 0;
  wakes_in_a_row_.store(before + 1, std::memory_order_relaxed);
  return before < kForeignWritesMax && !has_wakes_.load(std::memory_order_relaxed) &&
         foreign_writes_.load(std::memory_order_relaxed) < kForeignWritesMax;
}

bool DoorCore::MayWakeNow() {
  const uint64_t round = ReadGate::round();
  const bool begins = std::exchange(wakes_round_, round) != round;
  if (!begins && wakes_until_ns_ == 0) return false;
  const uint64_t now_ns = MonotonicNs();
  if (begins) wakes_until_ns_ = now_ns + kWakesTurnNs;
  if (now_ns >= wakes_until_ns_) wakes_until_ns_ = 0;
  return wakes_until_ns_ != 0;
}

void DoorCore::Wake(const std::shared_ptr<StreamWaker>& waker) {
  const bool is_polling = OnPollingThread();
  if (is_polling ? MayWakeNow() : MayWakeHere()) return waker->Wake();
  const std::lock_guard<std::mutex> lock(mutex_);
  if (posting_is_closed_) return;
  wakes_.push_back(waker);
  if (has_wakes_.exchange(true, std::memory_order_relaxed) || is_polling) return;
  new Posted(this, [] {});  // NextEvent sees to the rest.
}

void DoorCore::WakeSome() {
  std::vector<std::shared_ptr<StreamWaker>> wakes;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    wakes.swap(wakes_);
  }
  const JointSends::Scope scope(&sends_);
  const uint64_t until_ns = MonotonicNs() + kWakesTurnNs;
  auto next = wakes.begin();
  while (next != wakes.end() && MonotonicNs() < until_ns) (*next++)->Wake();
  const std::lock_guard<std::mutex> lock(mutex_);
  wakes_.insert(wakes_.begin(), std::move_iterator(next), std::move_iterator(wakes.end()));
  has_wakes_.store(!wakes_.empty(), std::memory_order_relaxed);
  JointSends::ExpectMore(!wakes_.empty());
}

bool DoorCore::NextEvent(void** tag, bool* ok) {
  using Queue = grpc::CompletionQueue;
  for (;;) {
    if (KeepsEnough()) SendKept();
    const bool has_wakes = has_wakes_.load(std::memory_order_relaxed);
    if (!has_wakes) others_until_ns_ = 0;
    if (!has_wakes && !keeps()) return queue_->Next(tag, ok);
    const uint64_t now_ns = has_wakes ? MonotonicNs() : 0;
    if (has_wakes && others_until_ns_ == 0) others_until_ns_ = now_ns + kWakesTurnNs;
    if (!has_wakes || now_ns < others_until_ns_) {
      // Only what has come already.
      switch (queue_->AsyncNext(tag, ok, gpr_inf_past(GPR_CLOCK_MONOTONIC))) {
        case Queue::GOT_EVENT: return true;
        case Queue::SHUTDOWN: return false;
        case Queue::TIMEOUT: break;
      }
      SendKept();
      if (!has_wakes || !ReadGate::IsIdle()) continue;
    }
    others_until_ns_ = 0;
    WakeSome();
  }
}

void DoorCore::Keep(OpenStream* stream) {
  if (kept_.empty()) kept_until_ns_ = MonotonicNs() + kKeptAnswersNs;
  kept_.push_back(stream);
}

bool DoorCore::KeepsEnough() const {
  return !kept_.empty() && (kept_.size() >= kKeptAnswersMax || MonotonicNs() >= kept_until_ns_);
}

void DoorCore::SendKept() {
  sending_.swap(kept_);
  for (OpenStream* const stream : sending_) stream->SendKept();
  sending_.clear();
}

void DoorCore::ClosePosting() {
  const std::lock_guard<std::mutex> lock(mutex_);
  posting_is_closed_ = true;
}

void DoorCore::CallBegins() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++calls_;
}

void DoorCore::CallEnds() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (--calls_ == 0) no_calls_.notify_all();
}

void DoorCore::WaitUntilNoCalls() {
  std::unique_lock<std::mutex> lock(mutex_);
  no_calls_.wait(lock, [this] { return calls_ == 0; });
}

}  // namespace statehouse
