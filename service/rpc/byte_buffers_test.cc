#include "service/rpc/byte_buffers.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace statehouse {
namespace {

// Where the message has its bytes.
const uint8_t* BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  return slices.size() == 1 ? slices[0].begin() : nullptr;
}

std::string TextOf(const grpc::ByteBuffer& buffer) {
  ContiguousBytes bytes;
  EXPECT_TRUE(bytes.Read(buffer));
  return std::string(bytes.view());
}

TEST(RepeatedMessagesTest, AlikeMessagesShareTheirBytes) {
  RepeatedMessages messages;
  const std::string text(100, 'a');
  const grpc::ByteBuffer first = messages.Buffer(text);

  const grpc::ByteBuffer second = messages.Buffer(text);

  EXPECT_EQ(TextOf(second), text);
  EXPECT_EQ(BytesOf(second), BytesOf(first));
}

TEST(RepeatedMessagesTest, OthersDoNot) {
  RepeatedMessages messages;
  const grpc::ByteBuffer first = messages.Buffer(std::string(100, 'a'));

  for (const std::string& text : {std::string(100, 'b'), std::string(99, 'b'), std::string(),
                                  std::string(), std::string(100, 'a')}) {
    EXPECT_EQ(TextOf(messages.Buffer(text)), text);
  }

  EXPECT_EQ(TextOf(first), std::string(100, 'a'));
}

TEST(RepeatedMessagesTest, LargeOnesAreNotKept) {
  RepeatedMessages messages;
  const std::string text(1 << 20, 'a');
  const grpc::ByteBuffer first = messages.Buffer(text);

  const grpc::ByteBuffer second = messages.Buffer(text);

  EXPECT_EQ(TextOf(second), text);
  EXPECT_NE(BytesOf(second), BytesOf(first));
}

}  // namespace
}  // namespace statehouse
