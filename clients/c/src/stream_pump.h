// StreamPump: the thread that serves the streams of a process: it takes the events of one
// completion queue and hands each to who asked for it.
//
// What it is: one for all clients of the process (OfThisProcess), because each thread that waits in
// gRPC costs those that make calls. Who owns it: the streams together; it ends with the last.
// Threads: OfThisProcess any. Always true: no event is outstanding when the last owner lets go, who
// is none of the pump's own handlers.
#pragma once

#include <grpcpp/completion_queue.h>

#include <memory>
#include <thread>

#include "engine/base/status.h"

namespace statehouse {

class StreamPump final {
 public:
  // A tag of the queue. Its handler runs on the pump's thread and does not block.
  class Handler {
   public:
    virtual void Handle(bool ok) = 0;

   protected:
    ~Handler() = default;
  };

  // REQUIRES: this process may use gRPC (NetworkSession::CheckUsable). LIMIT_EXCEEDED where it may
  // have no more threads.
  static StatusOr<std::shared_ptr<StreamPump>> OfThisProcess();
  ~StreamPump();
  StreamPump(const StreamPump&) = delete;
  StreamPump& operator=(const StreamPump&) = delete;

  grpc::CompletionQueue* queue() { return &queue_; }

 private:
  StreamPump() = default;
  void Run();

  grpc::CompletionQueue queue_;
  std::thread thread_;
};

}  // namespace statehouse
