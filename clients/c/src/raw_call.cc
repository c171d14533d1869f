// sh_call and sh_stream: a call by its method's path, with bytes that the caller encoded.
#include <google/protobuf/empty.pb.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "clients/c/src/client_handle.h"

struct sh_stream {
  std::string method;
  std::unique_ptr<statehouse::NetworkStream> network;
  std::optional<statehouse::Status> ended;
};

namespace statehouse {
namespace {

// A message's bytes in memory of the C library.
Status CopyOut(const google::protobuf::Empty& message, const char* method, void** response,
               size_t* response_bytes) {
  const size_t bytes = message.ByteSizeLong();
  void* const copy = std::malloc(bytes == 0 ? 1 : bytes);
  if (copy == nullptr || !message.SerializeToArray(copy, static_cast<int>(bytes))) {
    std::free(copy);
    return Status(Reason::kMemoryExhausted, std::string(method) + ": no memory for the answer of " +
                                                std::to_string(bytes) + " bytes");
  }
  *response = copy;
  *response_bytes = bytes;
  return Status();
}

Status ParseRequest(const char* method, const void* request, size_t request_bytes,
                    google::protobuf::Empty* message) {
  if (request_bytes > kMessageBytesMax) {
    return Status(Reason::kMessageTooLarge,
                  std::string(method) + ": a request of " + std::to_string(request_bytes) +
                      " bytes, the limit is " + std::to_string(kMessageBytesMax));
  }
  if (!message->ParseFromArray(request, static_cast<int>(request_bytes))) {
    return Status(Reason::kInvalidArgument,
                  std::string(method) + ": the request is no encoded message");
  }
  return Status();
}

// Any message's bytes travel in an Empty: what it does not know it keeps as it is.
Status RawCall(sh_client* client, const char* method, const void* request, size_t request_bytes,
               bool idempotent, void** response, size_t* response_bytes) {
  if (client == nullptr || method == nullptr || response == nullptr || response_bytes == nullptr ||
      (request == nullptr && request_bytes > 0)) {
    return Status(Reason::kInvalidArgument, "sh_call: an argument is NULL that must not be");
  }
  google::protobuf::Empty message;
  SH_RETURN_IF_ERROR(ParseRequest(method, request, request_bytes, &message));
  google::protobuf::Empty answer;
  CallOptions options = OptionsFor(client->timeout, idempotent);
  options.alone = true;
  SH_RETURN_IF_ERROR(client->caller().Call(method, message, &answer, options));
  return CopyOut(answer, method, response, response_bytes);
}

Status OpenStream(sh_client* client, const char* method, const void* request, size_t request_bytes,
                  sh_stream** stream) {
  if (client == nullptr || method == nullptr || stream == nullptr ||
      (request == nullptr && request_bytes > 0)) {
    return Status(Reason::kInvalidArgument, "sh_stream_open: an argument is NULL that must not be");
  }
  google::protobuf::Empty message;
  SH_RETURN_IF_ERROR(ParseRequest(method, request, request_bytes, &message));
  SH_ASSIGN_OR_RETURN(std::unique_ptr<NetworkStream> opened,
                      client->streams->Stream(method, message));
  *stream = new sh_stream{method, std::move(opened), std::nullopt};
  return Status();
}

Status Next(sh_stream* stream, void** response, size_t* response_bytes) {
  if (stream == nullptr || response == nullptr || response_bytes == nullptr) {
    return Status(Reason::kInvalidArgument, "sh_stream_next: an argument is NULL that must not be");
  }
  *response = nullptr;
  *response_bytes = 0;
  if (!stream->ended.has_value()) {
    google::protobuf::Empty message;
    Status status;
    if (stream->network->Next(&message, &status)) {
      return CopyOut(message, stream->method.c_str(), response, response_bytes);
    }
    stream->ended = std::move(status);
  }
  return *stream->ended;
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

sh_reason sh_stream_open(sh_client* client, const char* method, const void* request,
                         size_t request_bytes, sh_stream** stream, sh_error** error) {
  return statehouse::Finish(statehouse::OpenStream(client, method, request, request_bytes, stream),
                            method, error);
}

sh_reason sh_stream_next(sh_stream* stream, void** response, size_t* response_bytes,
                         sh_error** error) {
  const char* const method = stream == nullptr ? nullptr : stream->method.c_str();
  return statehouse::Finish(statehouse::Next(stream, response, response_bytes), method, error);
}

void sh_stream_cancel(sh_stream* stream) {
  if (stream != nullptr) stream->network->Cancel();
}

void sh_stream_close(sh_stream* stream) {
  if (stream == nullptr) return;
  // Ended for gRPC, too, which otherwise warns of a call that was not finished.
  stream->network->Cancel();
  google::protobuf::Empty rest;
  statehouse::Status status;
  while (!stream->ended.has_value()) {
    if (!stream->network->Next(&rest, &status)) stream->ended = status;
  }
  delete stream;
}

}  // extern "C"
