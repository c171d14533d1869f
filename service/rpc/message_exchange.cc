#include "service/rpc/message_exchange.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>

#include <array>
#include <utility>

namespace statehouse {

MessageExchange::~MessageExchange() {
  grpc_byte_buffer_destroy(sent_);
  grpc_byte_buffer_destroy(received_);
}

bool MessageExchange::Start(grpc_call* call, std::string answer) {
  grpc_slice slice = ToSlice(std::move(answer)).c_slice();
  sent_ = grpc_raw_byte_buffer_create(&slice, 1);
  grpc_slice_unref(slice);
  grpc_byte_buffer_destroy(std::exchange(received_, nullptr));
  std::array<grpc_op, 2> operations{};
  operations[0].op = GRPC_OP_SEND_MESSAGE;
  operations[0].data.send_message.send_message = sent_;
  operations[1].op = GRPC_OP_RECV_MESSAGE;
  operations[1].data.recv_message.recv_message = &received_;
  return grpc_call_start_batch(call, operations.data(), operations.size(),
                               static_cast<grpc::internal::CompletionQueueTag*>(this),
                               nullptr) == GRPC_CALL_OK;
}

bool MessageExchange::Take(ContiguousBytes* message) {
  return received_ != nullptr && message->Read(received_);
}

bool MessageExchange::FinalizeResult(void** tag, bool* ok) {
  grpc_byte_buffer_destroy(std::exchange(sent_, nullptr));
  *tag = event_;
  return true;
}

}  // namespace statehouse
