#include "clients/c/src/call_traffic.h"

#include <grpc/support/time.h>

#include "engine/os/futex.h"

namespace statehouse {

void CallTraffic::Begin() {
  // Before the look at who waits, as the one who waits does it the other way round: one sees the
  // other.
  calls_.fetch_add(1, std::memory_order_seq_cst);
  if (waiting_count_.load(std::memory_order_seq_cst) == 0) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  for (Waiting* const waiting : waiting_) {
    waiting->alarm = std::make_unique<grpc::Alarm>();
    waiting->alarm->Set(waiting->queue, gpr_inf_past(GPR_CLOCK_MONOTONIC), waiting);
  }
  waiting_.clear();
  waiting_count_.store(0, std::memory_order_seq_cst);
}

void CallTraffic::End() {
  last_end_ns_.store(MonotonicNs(), std::memory_order_relaxed);
  calls_.fetch_sub(1, std::memory_order_seq_cst);
}

bool CallTraffic::IsBusy() const {
  return calls_.load(std::memory_order_seq_cst) > 0 ||
         MonotonicNs() < last_end_ns_.load(std::memory_order_relaxed) + kQuietNs;
}

// Waits in gRPC until an event comes, true, or a call of another thread, false.
bool CallTraffic::TakeWhileQuiet(grpc::CompletionQueue* queue, void** tag, bool* ok) {
  Waiting waiting{queue, nullptr};
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.insert(&waiting);
    waiting_count_.store(static_cast<uint32_t>(waiting_.size()), std::memory_order_seq_cst);
  }
  bool took = false;
  if (!IsBusy()) took = queue->Next(tag, ok) && *tag != &waiting;
  bool alarm_is_due = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.erase(&waiting);
    waiting_count_.store(static_cast<uint32_t>(waiting_.size()), std::memory_order_seq_cst);
    alarm_is_due = waiting.alarm != nullptr && (took || *tag != &waiting);
  }
  if (!alarm_is_due) return took;
  // Its event comes in any case, and has to be taken before the alarm goes.
  void* other = nullptr;
  bool other_ok = false;
  if (!queue->Next(&other, &other_ok)) return took;
  if (other == &waiting) return took;
  *tag = other;
  *ok = other_ok;
  (void)queue->Next(&other, &other_ok);
  return true;
}

void CallTraffic::AwaitUnhurried(grpc::CompletionQueue* queue, const void* tag) {
  using NextStatus = grpc::CompletionQueue::NextStatus;
  void* found = nullptr;
  bool ok = false;
  while (found != tag) {
    if (!IsBusy()) {
      if (!TakeWhileQuiet(queue, &found, &ok)) found = nullptr;
    } else if (queue->AsyncNext(&found, &ok, gpr_inf_past(GPR_CLOCK_MONOTONIC)) !=
               NextStatus::GOT_EVENT) {
      found = nullptr;
      SleepNs(kLookNs);
    }
  }
  queue->Shutdown();
  while (queue->Next(&found, &ok)) continue;
}

}  // namespace statehouse
