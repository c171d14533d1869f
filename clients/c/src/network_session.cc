#include "clients/c/src/network_session.h"

#include <google/protobuf/io/coded_stream.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/impl/codegen/client_unary_call.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/async_unary_call.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include "clients/c/src/fork_registry.h"
#include "clients/c/src/lane_pool.h"
#include "clients/c/src/retry_pause.h"
#include "statehouse/v1/error.pb.h"

namespace statehouse {
namespace {

using google::protobuf::MessageLite;
using google::protobuf::io::CodedInputStream;

constexpr int kMessageBytesWithEnvelope = static_cast<int>(kMessageBytesMax) + 4096;
constexpr int kReconnectMsMin = 50;
constexpr int kReconnectMsMax = 1000;
constexpr uint64_t kNoChannelYet = ~uint64_t{0};

// The fork count when this process's line first made a channel. gRPC's own state is as global as
// this.
std::atomic<uint64_t> grpc_since_fork{kNoChannelYet};

// Calls `take(bytes)` for each length-delimited field `field` of a serialized message.
template <typename Take>
void ForEachBytesField(const std::string& message, uint32_t field, const Take& take) {
  CodedInputStream in(reinterpret_cast<const uint8_t*>(message.data()),
                      static_cast<int>(message.size()));
  for (uint32_t tag = in.ReadTag(); tag != 0; tag = in.ReadTag()) {
    uint64_t number = 0;
    uint32_t length = 0;
    std::string bytes;
    switch (tag & 7) {
      case 0:
        if (!in.ReadVarint64(&number)) return;
        break;
      case 2:
        if (!in.ReadVarint32(&length) || !in.ReadString(&bytes, static_cast<int>(length))) return;
        if (tag >> 3 == field) take(bytes);
        break;
      default: return;
    }
  }
}

// The ErrorDetail inside the google.rpc.Status that a refused call carries. False where there is
// none.
bool FindErrorDetail(const std::string& rpc_status, v1::ErrorDetail* detail) {
  bool found = false;
  ForEachBytesField(rpc_status, 3, [&](const std::string& any) {
    ForEachBytesField(any, 2, [&](const std::string& value) {
      found = found || (detail->ParseFromString(value) && detail->reason() > 0 &&
                        detail->reason() < kReasonCount);
    });
  });
  return found;
}

// For failures that come from gRPC itself and not from the service.
Reason ReasonOfCode(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::CANCELLED: return Reason::kCancelled;
    case grpc::StatusCode::DEADLINE_EXCEEDED: return Reason::kTimeout;
    case grpc::StatusCode::UNAUTHENTICATED: return Reason::kUnauthenticated;
    case grpc::StatusCode::PERMISSION_DENIED: return Reason::kPermissionDenied;
    case grpc::StatusCode::UNIMPLEMENTED: return Reason::kUnimplemented;
    case grpc::StatusCode::RESOURCE_EXHAUSTED: return Reason::kMessageTooLarge;
    case grpc::StatusCode::UNAVAILABLE: return Reason::kUnavailable;
    case grpc::StatusCode::INVALID_ARGUMENT: return Reason::kInvalidArgument;
    default: return Reason::kInternal;
  }
}

Status FromGrpc(const grpc::Status& status, const std::string& method, const std::string& target) {
  v1::ErrorDetail detail;
  if (FindErrorDetail(status.error_details(), &detail)) {
    return Status(static_cast<Reason>(detail.reason()), status.error_message());
  }
  return Status(ReasonOfCode(status.error_code()),
                method + " at " + target + ": " + status.error_message());
}

}  // namespace

NetworkSession::NetworkSession(std::string target, const std::string& token,
                               std::string client_name)
    : target_(std::move(target)),
      authorization_(token.empty() ? "" : "Bearer " + token),
      client_name_(std::move(client_name)) {
  InstallForkHandlers();
}

void NetworkSession::Close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  channel_.reset();
}

StatusOr<std::shared_ptr<grpc::Channel>> NetworkSession::ChannelOfThisProcess() {
  uint64_t since = kNoChannelYet;
  if (!grpc_since_fork.compare_exchange_strong(since, ForkCount()) && since != ForkCount()) {
    return Status(Reason::kClientForked,
                  "this process was forked after its parent used the network door to " + target_ +
                      "; connect after fork(), or use the local door, which goes on");
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) {
    return Status(Reason::kClientClosed, "the client was closed before this call; connect again");
  }
  if (channel_ == nullptr) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMessageBytesWithEnvelope);
    arguments.SetMaxSendMessageSize(kMessageBytesWithEnvelope);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    arguments.SetInt(GRPC_ARG_ENABLE_CHANNELZ, 0);
    // The service compresses nothing.
    arguments.SetInt(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
    arguments.SetInt(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMsMin);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kReconnectMsMin);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMsMax);
    arguments.SetUserAgentPrefix(client_name_);
    channel_ = grpc::CreateCustomChannel(target_, grpc::InsecureChannelCredentials(), arguments);
  }
  return channel_;
}

Status NetworkSession::CallOnce(const std::string& method, const MessageLite& request,
                                MessageLite* response, const CallOptions& options) {
  const Deadline deadline = options.deadline;
  SH_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, ChannelOfThisProcess());
  if (std::chrono::steady_clock::now() >= deadline) {  // gRPC would still give it a millisecond.
    return Status(Reason::kTimeout,
                  method + " at " + target_ + ": the deadline passed, so it was not sent");
  }
  const auto wall_deadline =
      std::chrono::system_clock::now() +
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::min<std::chrono::nanoseconds>(deadline - std::chrono::steady_clock::now(),
                                             std::chrono::hours(24 * 365)));
  // Nothing is sent before there is a connection, so waiting for one is safe for every call.
  if (channel->GetState(true) != GRPC_CHANNEL_READY && !channel->WaitForConnected(wall_deadline)) {
    return Status(
        Reason::kUnavailable,
        "no connection to " + target_ + " before the deadline; is statehoused listening there?");
  }
  grpc::ClientContext context;
  context.set_deadline(wall_deadline);
  if (!authorization_.empty()) context.AddMetadata("authorization", authorization_);
  const grpc::internal::RpcMethod rpc(method.c_str(), grpc::internal::RpcMethod::NORMAL_RPC);
  grpc::Status status;
  if (options.unhurried) {
    using Helper = grpc::internal::ClientAsyncResponseReaderHelper;
    grpc::CompletionQueue queue;
    const std::unique_ptr<grpc::ClientAsyncResponseReader<MessageLite>> reader(
        Helper::Create<MessageLite>(channel.get(), &queue, rpc, &context, request));
    reader->StartCall();
    reader->Finish(response, &status, &queue);
    traffic_.AwaitUnhurried(&queue, &queue);
  } else {
    std::optional<CallTraffic::Call> call;
    if (!options.long_running) call.emplace(&traffic_);
    status = grpc::internal::BlockingUnaryCall<MessageLite, MessageLite, MessageLite, MessageLite>(
        channel.get(), rpc, &context, request, response);
  }
  return status.ok() ? Status() : FromGrpc(status, method, target_);
}

template <typename AnyStream>
Status NetworkSession::Prepare(const std::string& method, AnyStream* stream) {
  SH_ASSIGN_OR_RETURN(stream->channel_, ChannelOfThisProcess());
  stream->method_ = method;
  stream->target_ = target_;
  stream->context_.set_wait_for_ready(true);
  if (!authorization_.empty()) stream->context_.AddMetadata("authorization", authorization_);
  return Status();
}

StatusOr<std::unique_ptr<NetworkStream>> NetworkSession::Stream(
    const std::string& method, const google::protobuf::Empty& request) {
  auto stream = std::make_unique<NetworkStream>();
  SH_RETURN_IF_ERROR(Prepare(method, stream.get()));
  const grpc::internal::RpcMethod rpc(stream->method_.c_str(),
                                      grpc::internal::RpcMethod::SERVER_STREAMING);
  stream->reader_.reset(grpc::internal::ClientReaderFactory<google::protobuf::Empty>::Create(
      stream->channel_.get(), rpc, &stream->context_, request));
  return stream;
}

StatusOr<std::unique_ptr<QueuedStream>> NetworkSession::StreamOn(grpc::CompletionQueue* queue,
                                                                 const std::string& method,
                                                                 const MessageLite& request,
                                                                 void* tag) {
  auto stream = std::make_unique<QueuedStream>();
  SH_RETURN_IF_ERROR(Prepare(method, stream.get()));
  const grpc::internal::RpcMethod rpc(stream->method_.c_str(),
                                      grpc::internal::RpcMethod::SERVER_STREAMING);
  stream->reader_.reset(grpc::internal::ClientAsyncReaderFactory<MessageLite>::Create(
      stream->channel_.get(), queue, rpc, &stream->context_, request, /*start=*/true, tag));
  return stream;
}

Status QueuedStream::EndStatus() const {
  return finished_.ok() ? Status() : FromGrpc(finished_, method_, target_);
}

bool NetworkStream::Next(google::protobuf::Empty* response, Status* status) {
  if (reader_->Read(response)) return true;
  const grpc::Status ended = reader_->Finish();
  *status = ended.ok() ? Status() : FromGrpc(ended, method_, target_);
  return false;
}

Status NetworkSession::Call(const std::string& method, const MessageLite& request,
                            MessageLite* response, const CallOptions& options) {
  RetryPause retry;
  for (;;) {
    Status status = CallOnce(method, request, response, options);
    const bool again = options.idempotent && (status.reason() == Reason::kUnavailable ||
                                              status.reason() == Reason::kDraining);
    if (!again || !retry.Pause(options.deadline)) return status;
  }
}

}  // namespace statehouse
