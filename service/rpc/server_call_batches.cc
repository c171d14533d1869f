// ServerCall: streams of batches. One batch is under way at a time; the next one is read while its
// answer is sent, and who sends more is held back by gRPC's flow control. From the second answer on
// that is one step (message_exchange.h).
#include <utility>

#include "service/api/batch_refusal.h"
#include "service/rpc/byte_buffers.h"
#include "service/rpc/reason_map.h"
#include "service/rpc/server_call.h"

namespace statehouse {
bool ServerCall::OpenBatches() {
  const auto refuse = [this](Reason reason, const std::string& why) {
    Finish(ToGrpcStatus(Status(reason, context_.method() + ": " + why), ""));
    return false;
  };
  if (core_->stopping()) return refuse(Reason::kDraining, "the service stops");
  if (core_->batch_streams().size() >= kBatchStreamsMax) {
    return refuse(Reason::kLimitExceeded, std::to_string(kBatchStreamsMax) +
                                              " streams of batches are open, which is the limit; "
                                              "use one for all threads of a process");
  }
  core_->batch_streams().insert(this);
  identity_generation_ = core_->tokens().generation();
  peer_ = context_.peer();
  return true;
}

void ServerCall::OnBatchRead(bool ok) {
  bool is_idle = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_reading_ = false;
    is_idle = IsIdleHeld();
  }
  has_read_ = has_read_ || ok;
  if (finish_was_called_.load(std::memory_order_relaxed)) return DeleteIfOver();
  (ok ? is_ahead_ : client_is_done_) = true;
  if (!is_idle) return;  // The end of the batch under way comes back here.
  if (ok) return RunReadBatch();
  Finish(grpc::Status::OK);
}

void ServerCall::RunReadBatch() {
  is_ahead_ = false;
  ContiguousBytes batch;
  const bool is_whole = batch.Read(message_);
  message_.Clear();
  if (!is_whole) {
    return Finish(ToGrpcStatus(
        Status(Reason::kInvalidArgument, context_.method() + ": the message cannot be read"), ""));
  }
  RunBatch(batch);
}

void ServerCall::RunBatch(const ContiguousBytes& batch) {
  auto identity = core_->tokens().Current(identity_, &identity_generation_);
  if (!identity.ok()) return Finish(ToGrpcStatus(identity.status(), ""));
  identity_ = *std::move(identity);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_running_ = true;
  }
  core_->Raise(peer_, ReadGate::Standing::kUseful);
  core_->dispatcher().Dispatch(
      MakeContext(), context_.method(), batch.view(),
      [this](StatusOr<std::string> result) { AnswerBatch(std::move(result)); });
}

void ServerCall::AnswerBatch(StatusOr<std::string> result) {
  std::string answer = result.ok() ? *std::move(result) : EncodeBatchRefusal(result.status());
  if (core_->MayKeep()) {
    kept_answer_ = std::move(answer);
    return core_->Keep(this);
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  SendAnswerHeld(std::move(answer));
}

void ServerCall::SendKept() {
  const std::lock_guard<std::mutex> lock(mutex_);
  SendAnswerHeld(std::exchange(kept_answer_, {}));
}

void ServerCall::SendAnswerHeld(std::string answer) {
  is_running_ = false;
  if (was_cancelled_) return FinishHeld(grpc::Status::CANCELLED);
  // A stream that ends with this answer must hear when that is sent, and of nothing else.
  if (ends_now_) return StartWrite(std::move(answer));
  if (was_answered_) {
    is_reading_ = exchange_.Start(context_.c_call(), std::move(answer));
    if (!is_reading_) FinishHeld(grpc::Status::CANCELLED);
    return;
  }
  was_answered_ = true;
  // In this order: the answer takes along what gRPC has to say about the room for more. Otherwise
  // that would be a packet of its own.
  StartWrite(std::move(answer));
  StartRead();
}

void ServerCall::OnBatchWritten(bool ok) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_writing_ = false;
    if (!finish_was_called_.load(std::memory_order_relaxed) && !ok) {
      FinishHeld(grpc::Status::CANCELLED);
    }
  }
  if (finish_was_called_.load(std::memory_order_relaxed)) return DeleteIfOver();
  if (ends_now_) return OnShutdown();
  if (is_ahead_) return RunReadBatch();
  if (client_is_done_) Finish(grpc::Status::OK);
}

void ServerCall::OnExchanged(bool ok) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_reading_ = false;
  }
  if (finish_was_called_.load(std::memory_order_relaxed)) return DeleteIfOver();
  if (!ok) return Finish(grpc::Status::CANCELLED);
  if (ends_now_) return OnShutdown();
  ContiguousBytes batch;
  if (!exchange_.Take(&batch)) return Finish(grpc::Status::OK);
  RunBatch(batch);
}

}  // namespace statehouse
