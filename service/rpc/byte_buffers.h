// Between gRPC's byte buffers and plain bytes.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <string>
#include <string_view>

namespace statehouse {

// The bytes of a received message in one piece; copied only where gRPC received them in several.
class ContiguousBytes final {
 public:
  // False when the buffer holds no message.
  bool Read(const grpc::ByteBuffer& buffer) {
    return buffer.TrySingleSlice(&slice_).ok() || buffer.DumpToSingleSlice(&slice_).ok();
  }
  bool Read(grpc_byte_buffer* buffer);
  std::string_view view() const {
    return {reinterpret_cast<const char*>(slice_.begin()), slice_.size()};
  }

 private:
  grpc::Slice slice_;
};

// A message that takes the bytes over; small ones are copied, which is cheaper.
grpc::Slice ToSlice(std::string bytes);
grpc::ByteBuffer ToByteBuffer(std::string bytes);

// Messages that are sent in a row and are often alike, as those to an audience: alike ones share
// their bytes, if they are small. It keeps the last one. Threads: one.
class RepeatedMessages final {
 public:
  // Valid until the next call.
  const grpc::ByteBuffer& Buffer(std::string bytes);

 private:
  std::string bytes_;
  grpc::ByteBuffer buffer_;
};

}  // namespace statehouse
