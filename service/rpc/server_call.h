// ServerCall: one call of the network door, from the moment gRPC may hand one over until its last
// event.
//
// It walks through these steps, each an event of the completion queue:
//
//   requested -> started -> read -> (dispatched, perhaps parked) -> finished        unary
//                        -> read -> written -> read …            -> finished        reflection
//                        -> read -> written (again at each change of health)        health watch
//                        -> read -> written (again when its stream has more)        served stream
//                        -> read -> (dispatched) -> written, read …      -> finished        batches
//
// Who owns it: itself. It is deleted by the polling thread when Finish has been delivered, gRPC has
// said that the call is over
//   and no other event is under way.
// Threads: the polling thread, except Answer and AnswerBatch, which the dispatcher may call from
//   another one, and OnReady: whoever has news of a served stream sends it.
// Always true: Finish is called exactly once for every started call. A call that its client gave up
// while it was parked is
//   cancelled in the dispatcher, whose answer then finishes it.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "service/api/dispatcher.h"
#include "service/auth/authenticator.h"
#include "service/rpc/door_core.h"
#include "service/rpc/message_exchange.h"
#include "service/rpc/reflection.h"

namespace statehouse {

class ServerCall final : public OpenStream {
 public:
  // Asks gRPC for the next call.
  static void Request(DoorCore* core);

  void OnHealthChange() override;
  void OnReady() override;
  void SendKept() override;
  void OnShutdown() override;

 private:
  enum class Kind : uint8_t { kUnary, kHealthCheck, kHealthWatch, kReflection, kServed, kBatches };

  // Calls one member function; the object that a tag points to.
  class Step final : public Event {
   public:
    using Handler = void (ServerCall::*)(bool ok);
    Step(ServerCall* call, Handler handler) : call_(call), handler_(handler) {}
    void OnEvent(bool ok) override { (call_->*handler_)(ok); }

   private:
    ServerCall* const call_;
    const Handler handler_;
  };

  explicit ServerCall(DoorCore* core);
  ~ServerCall() override;

  void OnStarted(bool ok);
  void OnRead(bool ok);
  void OnWritten(bool ok);
  void OnServedWritten(bool ok);
  void OnBatchRead(bool ok);
  void OnBatchWritten(bool ok);
  void OnExchanged(bool ok);
  void OnFinished(bool ok);
  void OnOver(bool ok);

  void Route();
  bool OpenAsStream();
  bool OpenBatches();
  void CountWasted();
  void StartRead();
  void StartWrite(std::string bytes);
  void StartWrite(const grpc::ByteBuffer& message);
  void DispatchUnary(std::string_view request);
  void AnswerHealthCheck(std::string_view request);
  void BeginHealthWatch(std::string_view request);
  void SendHealth();
  void BeginServed(std::string_view request);
  // Sends what there is. REQUIRES: mutex_ held.
  void Serve();
  CallContext MakeContext();
  void AnswerReflection(std::string_view request);
  StatusOr<std::shared_ptr<const Identity>> Authenticate();
  std::chrono::steady_clock::time_point Deadline() const;
  void RunReadBatch();
  // Dispatches a batch.
  void RunBatch(const ContiguousBytes& batch);
  // Of the batch under way. Any thread.
  void AnswerBatch(StatusOr<std::string> result);
  // REQUIRES: mutex_ held.
  void SendAnswerHeld(std::string answer);
  // REQUIRES: mutex_ held.
  bool IsIdleHeld() const { return !is_writing_ && !is_running_; }
  // Finishes a unary call. Any thread, once.
  void Answer(StatusOr<std::string> result);
  void Finish(const grpc::Status& status);
  // REQUIRES: mutex_ held.
  void FinishHeld(const grpc::Status& status);
  void DeleteIfOver();

  DoorCore* const core_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_;
  Step started_;
  Step read_;
  Step written_;
  Step finished_;
  Step over_;
  Step exchanged_;

  Kind kind_ = Kind::kUnary;
  grpc::ByteBuffer message_;  // The request, kept until the answer for its object's name.
  std::shared_ptr<const Identity> identity_;
  std::shared_ptr<PendingCall> pending_;
  bool has_read_ = false;    // A request has come.
  bool is_reading_ = false;  // Or exchanges. Of batches: guarded by mutex_.
  bool is_writing_ = false;  // Of a served stream: guarded by mutex_.
  bool finish_was_delivered_ = false;
  bool is_over_ = false;
  bool was_cancelled_ = false;  // As is_writing_.
  bool ends_now_ = false;
  bool was_wasted_ = false;              // It was counted.
  std::atomic<bool> was_useful_{false};  // A caller with a token was answered.

  // Health watch.
  std::string watched_service_;
  bool is_watching_ = false;
  int status_sent_ = -1;
  ReflectionStream reflection_;

  // Served stream.
  std::unique_ptr<ServedStream> served_;  // Guarded by mutex_; goes without it, on the polling
                                          // thread: its watch waits until nobody notifies.
  bool is_foreign_write_ = false;         // Of the message under way. Guarded by mutex_.
  bool has_more_ = false;                 // Perhaps, behind that one. Guarded by mutex_.
  std::shared_ptr<StreamWaker> waker_;

  // Batches. The first one is read and answered by steps of its own: its answer has initial
  // metadata. If it has been read ahead and not dispatched, the second is in message_.
  MessageExchange exchange_;
  bool was_answered_ = false;  // The first one; guarded by mutex_.
  std::string peer_;
  uint64_t identity_generation_ = 0;  // That identity_ is of.
  bool is_ahead_ = false;             // message_ holds the next batch.
  bool client_is_done_ = false;       // It sends no more.
  bool is_running_ = false;  // A batch is dispatched and its answer not sent: guarded by mutex_.
  std::string kept_answer_;  // Waits for SendKept.

  // Held while another thread finishes the call or serves it, so that the polling thread does not
  // delete it under its feet. Taken after the waker's and before those of what is served.
  std::mutex mutex_;
  std::atomic<bool> finish_was_called_{false};
};

}  // namespace statehouse
