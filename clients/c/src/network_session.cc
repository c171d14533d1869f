#include "clients/c/src/network_session.h"

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
#include "clients/c/src/grpc_status.h"
#include "clients/c/src/lane_pool.h"
#include "clients/c/src/retry_pause.h"

namespace statehouse {
namespace {

using google::protobuf::MessageLite;

constexpr int kMessageBytesWithEnvelope = static_cast<int>(kMessageBytesMax) + 4096;
constexpr int kReconnectMsMin = 50;
constexpr int kReconnectMsMax = 1000;
constexpr uint64_t kNoChannelYet = ~uint64_t{0};

// The fork count when this process's line first made a channel. gRPC's own state is as global as
// this.
std::atomic<uint64_t> grpc_since_fork{kNoChannelYet};

std::chrono::system_clock::time_point WallTime(Deadline deadline) {
  return std::chrono::system_clock::now() +
         std::chrono::duration_cast<std::chrono::system_clock::duration>(
             std::min<std::chrono::nanoseconds>(deadline - std::chrono::steady_clock::now(),
                                                std::chrono::hours(24 * 365)));
}

// Once, or again and again while the service is away, where that is safe.
template <typename Once>
Status UntilAnswered(const CallOptions& options, const Once& once) {
  RetryPause retry;
  for (;;) {
    Status status = once();
    const bool again = options.idempotent && (status.reason() == Reason::kUnavailable ||
                                              status.reason() == Reason::kDraining);
    if (!again || !retry.Pause(options.deadline)) return status;
    // Who says DRAINING did not begin it.
    if (status.reason() == Reason::kUnavailable) options.NoteSentAgain();
  }
}

}  // namespace

NetworkSession::NetworkSession(std::string target, TlsIdentity tls, const std::string& token,
                               std::string client_name)
    : target_(std::move(target)),
      tls_(std::move(tls)),
      authorization_(token.empty() ? "" : "Bearer " + token),
      client_name_(std::move(client_name)) {
  InstallForkHandlers();
}

void NetworkSession::Close() {
  std::shared_ptr<BatchStream> batches;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    channel_.reset();
    batches = std::move(batches_);
  }
  if (batches != nullptr && grpc_since_fork == ForkCount()) batches->Cancel();
}

std::shared_ptr<BatchStream> NetworkSession::Batches(
    const std::shared_ptr<grpc::Channel>& channel) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Reason why = Reason::kOk;
  if (batches_ != nullptr && batches_->IsOver(&why)) {
    has_no_batches_ = why == Reason::kUnimplemented || why == Reason::kLimitExceeded;
    batches_.reset();
  }
  if (batches_ == nullptr && !has_no_batches_ && !closed_) {
    batches_ = std::make_shared<BatchStream>(channel, authorization_, target_);
  }
  return batches_;
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
    channel_ = grpc::CreateCustomChannel(
        target_,
        tls_.enabled ? grpc::SslCredentials({tls_.authorities, tls_.key, tls_.certificate})
                     : grpc::InsecureChannelCredentials(),
        arguments);
  }
  return channel_;
}

Status NetworkSession::AwaitConnection(const std::shared_ptr<grpc::Channel>& channel,
                                       const std::string& method, Deadline deadline) {
  if (std::chrono::steady_clock::now() >= deadline) {  // gRPC would still give it a millisecond.
    return Status(Reason::kTimeout,
                  method + " at " + target_ + ": the deadline passed, so it was not sent");
  }
  // Nothing is sent before there is a connection, so waiting for one is safe for every call.
  if (channel->GetState(true) != GRPC_CHANNEL_READY &&
      !channel->WaitForConnected(WallTime(deadline))) {
    return Status(
        Reason::kUnavailable,
        "no connection to " + target_ + " before the deadline; is statehoused listening there" +
            (tls_.enabled ? ", with a certificate for this name of an authority that is trusted?"
                          : "?"));
  }
  return Status();
}

Status NetworkSession::RunBatchOnce(const std::string& request, std::string* response,
                                    const CallOptions& options) {
  SH_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, ChannelOfThisProcess());
  SH_RETURN_IF_ERROR(AwaitConnection(channel, kRunBatch, options.deadline));
  if (request.size() <= BatchStream::kBatchBytesMax) {
    const CallTraffic::Call call(&traffic_);
    const std::shared_ptr<BatchStream> batches = Batches(channel);
    Status status;
    if (batches != nullptr && batches->RunBatch(request, response, options.deadline, &status)) {
      return status;
    }
  }
  google::protobuf::Empty message;
  google::protobuf::Empty answer;
  if (!message.ParseFromString(request)) {
    return Status(Reason::kInternal, std::string(kRunBatch) + ": the batch is no valid message");
  }
  SH_RETURN_IF_ERROR(CallOnce(kRunBatch, message, &answer, options));
  *response = answer.SerializeAsString();
  return Status();
}

Status NetworkSession::RunBatch(const std::string& request, std::string* response,
                                const CallOptions& options) {
  return UntilAnswered(options, [&] { return RunBatchOnce(request, response, options); });
}

Status NetworkSession::CallOnce(const std::string& method, const MessageLite& request,
                                MessageLite* response, const CallOptions& options) {
  const Deadline deadline = options.deadline;
  SH_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, ChannelOfThisProcess());
  SH_RETURN_IF_ERROR(AwaitConnection(channel, method, deadline));
  const bool is_small = !options.alone && !options.long_running && !options.unhurried;
  const uint32_t field = is_small ? BatchStream::FieldOf(method) : 0;
  if (field != 0 && request.ByteSizeLong() <= BatchStream::kRequestBytesMax) {
    const CallTraffic::Call call(&traffic_);
    const std::shared_ptr<BatchStream> batches = Batches(channel);
    Status status;
    const bool was_sent =
        batches != nullptr && batches->Call(field, request, response, deadline, &status);
    // Its answer may have lacked room only beside those of others.
    const bool again = status.reason() == Reason::kMessageTooLarge && options.idempotent;
    if (was_sent && !again) return status;
    if (was_sent) options.NoteSentAgain();
  }
  grpc::ClientContext context;
  context.set_deadline(WallTime(deadline));
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
  return UntilAnswered(options, [&] { return CallOnce(method, request, response, options); });
}

}  // namespace statehouse
