// NetworkSession: the network door of the C library: gRPC calls over one channel, made at the
// first call.
#pragma once

#include <google/protobuf/empty.pb.h>
#include <google/protobuf/message_lite.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/sync_stream.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "clients/c/src/batch_stream.h"
#include "clients/c/src/call_traffic.h"
#include "clients/c/src/caller.h"
#include "clients/c/src/endpoint.h"
#include "engine/base/status.h"

namespace statehouse {

// The responses of a streaming call. Next: one thread at a time; Cancel: any. Any message's bytes
// travel in an Empty: what it does not know it keeps as it is.
class NetworkStream final {
 public:
  // False at the end; then *status says why, OK where the service ended it.
  bool Next(google::protobuf::Empty* response, Status* status);
  void Cancel() { context_.TryCancel(); }

 private:
  friend class NetworkSession;
  std::string method_;
  std::string target_;
  std::shared_ptr<grpc::Channel> channel_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<google::protobuf::Empty>> reader_;
};

// The same for a thread that serves many of them from one completion queue: each call below posts
// one event of that queue, with the tag that is given. Who owns it: whoever began it, until the
// event of Finish has come. Threads: one at a time; Cancel: any.
class QueuedStream final {
 public:
  using Message = google::protobuf::MessageLite;

  // `response` is filled when the event comes with `ok`; without, Finish says why.
  void Read(Message* response, void* tag) { reader_->Read(response, tag); }
  // REQUIRES: no other event is to come.
  void Finish(void* tag) { reader_->Finish(&finished_, tag); }
  // Why it ended: OK where the service ended it. REQUIRES: the event of Finish has come.
  Status EndStatus() const;
  void Cancel() { context_.TryCancel(); }

 private:
  friend class NetworkSession;
  std::string method_;
  std::string target_;
  std::shared_ptr<grpc::Channel> channel_;
  grpc::ClientContext context_;
  grpc::Status finished_;
  std::unique_ptr<grpc::ClientAsyncReader<Message>> reader_;
};

// Who owns it: shared by the client handle and its areas.
// Threads: any at once. Always true: no thread and no channel before the first call, so that a
// process may fork until then. Failure: only calls marked idempotent are sent again, and only after
// UNAVAILABLE. In a forked child CLIENT_FORKED once any
//   client of the parent had made a call: the gRPC library does not survive fork.
class NetworkSession final : public Caller {
 public:
  NetworkSession(std::string target, TlsIdentity tls, const std::string& token,
                 std::string client_name);

  Status Call(const std::string& method, const google::protobuf::MessageLite& request,
              google::protobuf::MessageLite* response, const CallOptions& options) override;
  Status RunBatch(const std::string& request, std::string* response,
                  const CallOptions& options) override;
  // Begins a streaming call; it waits for the service as long as that takes.
  StatusOr<std::unique_ptr<NetworkStream>> Stream(const std::string& method,
                                                  const google::protobuf::Empty& request);
  // The same on a completion queue; `tag` is the event that it has begun.
  StatusOr<std::unique_ptr<QueuedStream>> StreamOn(grpc::CompletionQueue* queue,
                                                   const std::string& method,
                                                   const QueuedStream::Message& request, void* tag);
  // CLIENT_CLOSED or CLIENT_FORKED where no call can be made any more.
  Status CheckUsable() { return ChannelOfThisProcess().status(); }
  // Later calls fail with CLIENT_CLOSED; streams go on until they are closed.
  void Close();

 private:
  StatusOr<std::shared_ptr<grpc::Channel>> ChannelOfThisProcess();
  template <typename AnyStream>
  Status Prepare(const std::string& method, AnyStream* stream);
  // The stream for small calls; null where the service has none.
  std::shared_ptr<BatchStream> Batches(const std::shared_ptr<grpc::Channel>& channel);
  Status RunBatchOnce(const std::string& request, std::string* response,
                      const CallOptions& options);
  Status AwaitConnection(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                         Deadline deadline);
  Status CallOnce(const std::string& method, const google::protobuf::MessageLite& request,
                  google::protobuf::MessageLite* response, const CallOptions& options);

  const std::string target_;
  const TlsIdentity tls_;
  const std::string authorization_;  // Empty: none.
  const std::string client_name_;
  CallTraffic traffic_;
  std::mutex mutex_;
  bool closed_ = false;
  std::shared_ptr<grpc::Channel> channel_;
  std::shared_ptr<BatchStream> batches_;  // Guarded by mutex_.
  bool has_no_batches_ = false;           // The service has no such stream, or none to spare.
};

}  // namespace statehouse
