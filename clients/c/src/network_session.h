// NetworkSession: the network door of the C library: unary gRPC calls over one channel, made at the
// first call.
#pragma once

#include <grpcpp/channel.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "clients/c/src/caller.h"
#include "engine/base/status.h"

namespace statehouse {

// Who owns it: shared by the client handle and its areas.
// Threads: any at once. Always true: no thread and no channel before the first call, so that a
// process may fork until then. Failure: only calls marked idempotent are sent again, and only after
// UNAVAILABLE. In a forked child CLIENT_FORKED once any
//   client of the parent had made a call: the gRPC library does not survive fork.
class NetworkSession final : public Caller {
 public:
  NetworkSession(std::string target, const std::string& token, std::string client_name);

  Status Call(const std::string& method, const google::protobuf::MessageLite& request,
              google::protobuf::MessageLite* response, const CallOptions& options) override;
  // Later calls fail with CLIENT_CLOSED.
  void Close();

 private:
  StatusOr<std::shared_ptr<grpc::Channel>> ChannelOfThisProcess();
  Status CallOnce(const std::string& method, const google::protobuf::MessageLite& request,
                  google::protobuf::MessageLite* response, Deadline deadline);

  const std::string target_;
  const std::string authorization_;  // Empty: none.
  const std::string client_name_;
  std::mutex mutex_;
  bool closed_ = false;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace statehouse
