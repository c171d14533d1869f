// Caller: one unary call to the service, over whichever door the client uses.
#pragma once

#include <google/protobuf/empty.pb.h>
#include <google/protobuf/message_lite.h>

#include <memory>
#include <string>

#include "clients/c/src/local_session.h"
#include "engine/base/status.h"

namespace statehouse {

// Threads: any at once. Failure: the service's reason, or UNAVAILABLE, TIMEOUT, CLIENT_CLOSED,
// CLIENT_FORKED.
class Caller {
 public:
  virtual ~Caller() = default;
  virtual Status Call(const std::string& method, const google::protobuf::MessageLite& request,
                      google::protobuf::MessageLite* response, const CallOptions& options) = 0;
  // Batches.RunBatch with serialized messages; those that fit go with the small calls.
  virtual Status RunBatch(const std::string& request, std::string* response,
                          const CallOptions& options);
};

inline constexpr char kRunBatch[] = "/statehouse.v1.Batches/RunBatch";

// Any message's bytes travel in an Empty: what it does not know it keeps as it is.
inline Status Caller::RunBatch(const std::string& request, std::string* response,
                               const CallOptions& options) {
  google::protobuf::Empty message;
  google::protobuf::Empty answer;
  if (!message.ParseFromString(request)) {
    return Status(Reason::kInternal, std::string(kRunBatch) + ": the batch is no valid message");
  }
  SH_RETURN_IF_ERROR(Call(kRunBatch, message, &answer, options));
  *response = answer.SerializeAsString();
  return Status();
}

// Control calls of the local door, over the attach socket. Owned by the client handle.
class LocalCaller final : public Caller {
 public:
  explicit LocalCaller(std::shared_ptr<LocalSession> session) : session_(std::move(session)) {}

  Status Call(const std::string& method, const google::protobuf::MessageLite& request,
              google::protobuf::MessageLite* response, const CallOptions& options) override {
    SH_ASSIGN_OR_RETURN(const std::string bytes,
                        session_->Call(method, request.SerializeAsString(), options));
    if (response->ParseFromString(bytes)) return Status();
    return Status(Reason::kInternal, "the answer to " + method +
                                         " is no valid message; check that client and service "
                                         "are of the same release");
  }

 private:
  const std::shared_ptr<LocalSession> session_;
};

}  // namespace statehouse
