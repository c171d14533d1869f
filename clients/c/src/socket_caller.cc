#include "clients/c/src/socket_caller.h"

#include <utility>

namespace statehouse {
namespace {

constexpr char kOpenSession[] = "/statehouse.v1.Sessions/OpenSession";

bool IsSmall(size_t request_bytes, const CallOptions& options) {
  return request_bytes <= LocalSession::kSmallRequestBytesMax && !options.unhurried;
}

}  // namespace

bool SocketCaller::CallBySocket(const std::string& method, const std::string& request,
                                const CallOptions& options, StatusOr<std::string>* response) {
  if (options.long_running) {
    // By gRPC, and where that is not to be had by a connection of its own.
    if (network_->CheckUsable().reason() != Reason::kClientForked) return false;
    *response = session_->Call(method, request, options);
    return true;
  }
  const Deadline free_by = std::chrono::steady_clock::now() + LocalSession::kBusyPatience;
  if (session_->CallIfFree(method, request, options, free_by, response)) return true;
  if (network_->CheckUsable().reason() != Reason::kClientForked) return false;
  if (!session_->CallIfFree(method, request, options, options.deadline, response)) {
    *response = Status(Reason::kTimeout, method +
                                             ": other threads' calls kept the attach "
                                             "connection busy until the deadline");
  }
  return true;
}

Status SocketCaller::Call(const std::string& method, const google::protobuf::MessageLite& request,
                          google::protobuf::MessageLite* response, const CallOptions& options) {
  // What holds a session goes over gRPC, so where that is not to be had a session is of no use.
  if (method == kOpenSession) SH_RETURN_IF_ERROR(network_->CheckUsable());
  StatusOr<std::string> bytes(std::string{});
  if (!IsSmall(request.ByteSizeLong(), options) ||
      !CallBySocket(method, request.SerializeAsString(), options, &bytes)) {
    return network_->Call(method, request, response, options);
  }
  SH_RETURN_IF_ERROR(bytes.status());
  if (response->ParseFromString(*bytes)) return Status();
  return Status(Reason::kInternal, "the answer to " + method +
                                       " is no valid message; check that client and service are of "
                                       "the same release");
}

Status SocketCaller::RunBatch(const std::string& request, std::string* response,
                              const CallOptions& options) {
  StatusOr<std::string> bytes(std::string{});
  if (!IsSmall(request.size(), options) || !CallBySocket(kRunBatch, request, options, &bytes)) {
    return network_->RunBatch(request, response, options);
  }
  SH_RETURN_IF_ERROR(bytes.status());
  *response = *std::move(bytes);
  return Status();
}

}  // namespace statehouse
