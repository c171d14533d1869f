// MessageExchange: an answer of a stream sent and its next message asked for in one step of gRPC's,
// with one event for both. The C++ classes have a step and an event for each.
//
// Who owns it: the call. Threads: one at a time; the call sees to it. Always true: between Start
// and its event it must stay, and the call's context with it. Failure: where the stream is broken,
// the event says false.
#pragma once

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/impl/codegen/completion_queue_tag.h>

#include <string>

#include "service/rpc/byte_buffers.h"
#include "service/rpc/door_core.h"

namespace statehouse {

class MessageExchange final : private grpc::internal::CompletionQueueTag {
 public:
  // `event` hears of each exchange; with false where the stream is broken.
  explicit MessageExchange(Event* event) : event_(event) {}
  ~MessageExchange() override;
  MessageExchange(const MessageExchange&) = delete;
  MessageExchange& operator=(const MessageExchange&) = delete;

  // REQUIRES: initial metadata was sent, and no message of the call is being sent or read. False:
  // gRPC refuses, and there is no event.
  bool Start(grpc_call* call, std::string answer);
  // After its event: the message that came; the bytes are the buffer's. False: the client has no
  // more.
  bool Take(ContiguousBytes* message);

 private:
  bool FinalizeResult(void** tag, bool* ok) override;

  Event* const event_;
  grpc_byte_buffer* sent_ = nullptr;
  grpc_byte_buffer* received_ = nullptr;
};

}  // namespace statehouse
