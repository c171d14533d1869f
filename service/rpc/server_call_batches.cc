// ServerCall: streams of batches. One batch is under way at a time; the next one is read while its
// answer is sent, and who sends more is held back by gRPC's flow control.
#include <utility>

#include "service/api/error_detail.h"
#include "service/rpc/byte_buffers.h"
#include "service/rpc/reason_map.h"
#include "service/rpc/server_call.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

constexpr size_t kMessageTextBytesMax = 1024;

std::string Refusal(const Status& why) {
  v1::RunBatchesResponse response;
  FillErrorDetail(why, "", response.mutable_failure()->mutable_detail());
  response.mutable_failure()->set_message(PresentableText(why.message(), kMessageTextBytesMax));
  return response.SerializeAsString();
}

}  // namespace

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
  if (ok) return RunBatch();
  Finish(grpc::Status::OK);
}

void ServerCall::RunBatch() {
  is_ahead_ = false;
  auto identity = core_->tokens().Current(identity_, &identity_generation_);
  if (!identity.ok()) return Finish(ToGrpcStatus(identity.status(), ""));
  identity_ = *std::move(identity);
  batch_ = std::move(message_);
  message_.Clear();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_running_ = true;
  }
  ContiguousBytes bytes;
  if (!bytes.Read(batch_)) {
    return AnswerBatch(
        Status(Reason::kInvalidArgument, context_.method() + ": the message cannot be read"));
  }
  core_->Raise(context_, ReadGate::Standing::kUseful);
  core_->dispatcher().Dispatch(
      MakeContext(), context_.method(), bytes.view(),
      [this](StatusOr<std::string> result) { AnswerBatch(std::move(result)); });
}

void ServerCall::AnswerBatch(StatusOr<std::string> result) {
  const std::lock_guard<std::mutex> lock(mutex_);
  is_running_ = false;
  if (was_cancelled_) return FinishHeld(grpc::Status::CANCELLED);
  // In this order: the answer takes along what gRPC has to say about the room for more. Otherwise
  // that would be a packet of its own.
  StartWrite(result.ok() ? *std::move(result) : Refusal(result.status()));
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
  if (is_ahead_) return RunBatch();
  if (client_is_done_) Finish(grpc::Status::OK);
}

}  // namespace statehouse
