#include "service/http2/grpc_wire.h"

#include <gtest/gtest.h>

#include "service/http2/batch_client_test_support.h"

namespace statehouse {
namespace {

TEST(SaysOnlyBatchesTest, OnlyTheFirstSettingsSaySo) {
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  const auto settings = [](const std::string& pairs, char type = 4, char flags = 0) {
    return std::string{0, 0, static_cast<char>(pairs.size()), type, flags, 0, 0, 0, 0} + pairs;
  };
  const std::string mark("SH\0\0\0\1", 6);
  const std::string window("\0\4\0\0\xff\xff", 6);

  EXPECT_TRUE(SaysOnlyBatches(preface + settings(mark)));
  EXPECT_TRUE(SaysOnlyBatches(preface + settings(window + mark)));
  EXPECT_TRUE(SaysOnlyBatches(preface + settings(mark + window) + "more"));
  EXPECT_TRUE(SaysOnlyBatches(BatchClient().TakeOutput()));
  EXPECT_FALSE(SaysOnlyBatches(""));
  EXPECT_FALSE(SaysOnlyBatches(preface));
  EXPECT_FALSE(SaysOnlyBatches(preface + settings("")));
  EXPECT_FALSE(SaysOnlyBatches(preface + settings(window)));
  EXPECT_FALSE(SaysOnlyBatches(preface + settings(std::string("SH\0\0\0\2", 6))));
  EXPECT_FALSE(SaysOnlyBatches(preface + settings(mark, 4, 1))) << "an acknowledgement";
  EXPECT_FALSE(SaysOnlyBatches(preface + settings(mark, 6))) << "a ping";
  EXPECT_FALSE(SaysOnlyBatches(preface + settings(window) + settings(mark))) << "the second";
  EXPECT_FALSE(SaysOnlyBatches((preface + settings(mark)).substr(1)));
  const std::string whole = preface + settings(mark);
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_FALSE(SaysOnlyBatches(whole.substr(0, bytes))) << bytes;
  }
}

TEST(GrpcWireTest, APrefixHasTheLengthOfItsMessage) {
  for (const size_t bytes : {0u, 1u, 255u, 256u, 65'536u, 0x1020304u}) {
    std::string prefix;
    AppendMessagePrefix(bytes, &prefix);
    EXPECT_EQ(prefix.size(), kMessagePrefixBytes);
    EXPECT_EQ(prefix[0], '\0');
    EXPECT_EQ(MessageBytesOf(prefix), bytes);
  }
}

TEST(GrpcWireTest, ReadsTimeouts) {
  const std::pair<const char*, double> kGood[] = {
      {"1H", 3600}, {"2M", 120},  {"3S", 3}, {"4m", 4e-3},
      {"5u", 5e-6}, {"6n", 6e-9}, {"0S", 0}, {"99999999H", 99'999'999.0 * 3600}};
  for (const auto& [text, seconds] : kGood) {
    const auto timeout = ParseGrpcTimeout(text);
    ASSERT_TRUE(timeout.has_value()) << text;
    EXPECT_DOUBLE_EQ(timeout->count(), seconds) << text;
  }
  for (const char* text : {"", "S", "1", "123456789S", "-1S", "1s", "1 S", "1.5S", "S1"}) {
    EXPECT_FALSE(ParseGrpcTimeout(text).has_value()) << text;
  }
}

TEST(GrpcWireTest, WritesTextAndBytesAsHeaderFields) {
  EXPECT_EQ(PercentEncoded("a \"b\" 100%\n\x7f\xc3\xa9~"), "a \"b\" 100%25%0A%7F%C3%A9~");
  EXPECT_EQ(UnpaddedBase64(""), "");
  EXPECT_EQ(UnpaddedBase64("f"), "Zg");
  EXPECT_EQ(UnpaddedBase64("fo"), "Zm8");
  EXPECT_EQ(UnpaddedBase64("foo"), "Zm9v");
  EXPECT_EQ(UnpaddedBase64("\xff\xfe"), "//4");
}

}  // namespace
}  // namespace statehouse
