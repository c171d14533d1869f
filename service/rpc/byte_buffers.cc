#include "service/rpc/byte_buffers.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>

#include <utility>

namespace statehouse {
namespace {

constexpr size_t kCopiedBytesMax = 4096;

}  // namespace

bool ContiguousBytes::Read(grpc_byte_buffer* buffer) {
  if (buffer == nullptr) return false;
  const grpc_slice_buffer& slices = buffer->data.raw.slice_buffer;
  if (slices.count == 1) {
    slice_ = grpc::Slice(slices.slices[0], grpc::Slice::ADD_REF);
    return true;
  }
  grpc_byte_buffer_reader reader;
  if (!grpc_byte_buffer_reader_init(&reader, buffer)) return false;
  slice_ = grpc::Slice(grpc_byte_buffer_reader_readall(&reader), grpc::Slice::STEAL_REF);
  grpc_byte_buffer_reader_destroy(&reader);
  return true;
}

grpc::Slice ToSlice(std::string bytes) {
  if (bytes.size() <= kCopiedBytesMax) return grpc::Slice(bytes.data(), bytes.size());
  auto* const held = new std::string(std::move(bytes));  // gRPC frees it by the callback below.
  return grpc::Slice(
      held->data(), held->size(), [](void* text) { delete static_cast<std::string*>(text); }, held);
}

grpc::ByteBuffer ToByteBuffer(std::string bytes) {
  const grpc::Slice slice = ToSlice(std::move(bytes));
  return grpc::ByteBuffer(&slice, 1);
}

const grpc::ByteBuffer& RepeatedMessages::Buffer(std::string bytes) {
  if (buffer_.Valid() && !bytes.empty() && bytes == bytes_) return buffer_;
  // A large one is not kept for the next.
  bytes_ = bytes.size() <= kCopiedBytesMax ? bytes : std::string();
  buffer_ = ToByteBuffer(std::move(bytes));
  return buffer_;
}

}  // namespace statehouse
