// CallTraffic: keeps a call that is in no hurry out of the way of those that their callers wait
// for.
//
// One thread of a process reads for all of them in gRPC. Where that one waits for something else,
// it has to wake the thread whose answer came: two wake-ups for a call instead of one. So a thread
// that only waits for news leaves gRPC while calls are made, and looks in once a millisecond.
//
// Who owns it: the network session. Threads: any.
// Always true: an answer is taken at most kLookNs and a look later than it came.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>

namespace statehouse {

class CallTraffic final {
 public:
  // Calls are on their way for so long after the last one.
  static constexpr uint64_t kQuietNs = 2'000'000;
  static constexpr uint64_t kLookNs = 1'000'000;

  // A call whose thread waits for the answer, from before it is sent.
  class Call final {
   public:
    explicit Call(CallTraffic* traffic) : traffic_(traffic) { traffic_->Begin(); }
    ~Call() { traffic_->End(); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    CallTraffic* const traffic_;
  };

  // Waits for the event `tag` of `queue`, the only one that is to come, and shuts the queue down.
  // REQUIRES: the call has a deadline.
  void AwaitUnhurried(grpc::CompletionQueue* queue, const void* tag);
  // Threads that wait in gRPC and were not called out of it.
  uint32_t waiting_count() const { return waiting_count_.load(std::memory_order_seq_cst); }

 private:
  // A thread that waits in gRPC.
  struct Waiting {
    grpc::CompletionQueue* queue = nullptr;
    std::unique_ptr<grpc::Alarm> alarm;  // Brings it out.
  };

  void Begin();
  void End();
  bool IsBusy() const;
  bool TakeWhileQuiet(grpc::CompletionQueue* queue, void** tag, bool* ok);

  std::atomic<uint32_t> calls_{0};
  std::atomic<uint64_t> last_end_ns_{0};
  std::atomic<uint32_t> waiting_count_{0};  // waiting_.size()
  std::mutex mutex_;
  std::set<Waiting*> waiting_;  // Guarded by mutex_.
};

}  // namespace statehouse
