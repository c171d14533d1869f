#include "clients/c/src/socket_caller.h"

#include <utility>

namespace statehouse {
namespace {

constexpr char kOpenSession[] = "/statehouse.v1.Sessions/OpenSession";

bool IsSmall(size_t request_bytes, const CallOptions& options) {
  return request_bytes <= SocketCaller::kRequestBytesMax && !options.long_running &&
         !options.unhurried;
}

}  // namespace

Status SocketCaller::Call(const std::string& method, const google::protobuf::MessageLite& request,
                          google::protobuf::MessageLite* response, const CallOptions& options) {
  // What holds a session goes over gRPC, so where that is not to be had a session is of no use.
  if (method == kOpenSession) SH_RETURN_IF_ERROR(network_->CheckUsable());
  StatusOr<std::string> bytes(std::string{});
  const Deadline free_by = std::chrono::steady_clock::now() + kPatience;
  if (!IsSmall(request.ByteSizeLong(), options) ||
      !session_->CallIfFree(method, request.SerializeAsString(), options, free_by, &bytes)) {
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
  const Deadline free_by = std::chrono::steady_clock::now() + kPatience;
  if (!IsSmall(request.size(), options) ||
      !session_->CallIfFree(kRunBatch, request, options, free_by, &bytes)) {
    return network_->RunBatch(request, response, options);
  }
  SH_RETURN_IF_ERROR(bytes.status());
  *response = *std::move(bytes);
  return Status();
}

}  // namespace statehouse
