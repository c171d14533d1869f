// sh_call: one unary call by its method's path, with bytes that the caller encoded.
#include <google/protobuf/empty.pb.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "clients/c/src/client_handle.h"

namespace statehouse {
namespace {

// Any message's bytes travel in an Empty: what it does not know it keeps as it is.
Status RawCall(sh_client* client, const char* method, const void* request, size_t request_bytes,
               bool idempotent, void** response, size_t* response_bytes) {
  if (client == nullptr || method == nullptr || response == nullptr || response_bytes == nullptr ||
      (request == nullptr && request_bytes > 0)) {
    return Status(Reason::kInvalidArgument, "sh_call: an argument is NULL that must not be");
  }
  if (request_bytes > kMessageBytesMax) {
    return Status(Reason::kMessageTooLarge,
                  std::string(method) + ": a request of " + std::to_string(request_bytes) +
                      " bytes, the limit is " + std::to_string(kMessageBytesMax));
  }
  google::protobuf::Empty message;
  if (!message.ParseFromArray(request, static_cast<int>(request_bytes))) {
    return Status(Reason::kInvalidArgument,
                  std::string(method) + ": the request is no encoded message");
  }
  google::protobuf::Empty answer;
  SH_RETURN_IF_ERROR(
      client->caller().Call(method, message, &answer, OptionsFor(client->timeout, idempotent)));
  const size_t bytes = answer.ByteSizeLong();
  void* const copy = std::malloc(bytes == 0 ? 1 : bytes);
  if (copy == nullptr || !answer.SerializeToArray(copy, static_cast<int>(bytes))) {
    std::free(copy);
    return Status(Reason::kMemoryExhausted, std::string(method) + ": no memory for the answer of " +
                                                std::to_string(bytes) + " bytes");
  }
  *response = copy;
  *response_bytes = bytes;
  return Status();
}

}  // namespace
}  // namespace statehouse

extern "C" {

sh_reason sh_call(sh_client* client, const char* method, const void* request, size_t request_bytes,
                  int idempotent, void** response, size_t* response_bytes, sh_error** error) {
  return statehouse::Finish(statehouse::RawCall(client, method, request, request_bytes,
                                                idempotent != 0, response, response_bytes),
                            method, error);
}

void sh_call_free(void* response) { std::free(response); }

}  // extern "C"
