// A client that asks for much and reads none of it: what it costs the kernel, and nobody else.
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

#include <optional>
#include <string>

#include "service/rpc/acceptor.h"
#include "service/rpc/grpc_door_test_support.h"
#include "service/rpc/sole_poller.h"
#include "tests/support/http2.h"

namespace statehouse {
namespace {

using testing::EncodeFrame;
using testing::FrameType;
using testing::Http2Connection;

class SlowReaderTest : public GrpcDoorTest {
 protected:
  static constexpr size_t kAreaBytes = 12 << 20;
  static constexpr uint32_t kLargestWindow = 0x7fffffff;
  static constexpr uint32_t kFirstWindow = 65'535;

  SlowReaderTest() : reader_("127.0.0.1:" + std::to_string(port_)) {
    service_->MakeArea("large", kAreaBytes);
    service_->MakeArea("a", 64);
  }
  // On stream 1, by a client whose windows have room for everything.
  bool AskForAll() {
    v1::ReadAreaRequest request;
    request.set_name("large");
    const std::string all = EncodeFrame(FrameType::kWindowUpdate, 0, 0,
                                        testing::BigEndian32(kLargestWindow - kFirstWindow));
    return reader_.Send(testing::Preface(testing::Setting(4, kLargestWindow)) + all +
                        testing::UnaryCall(1, "/statehouse.v1.Areas/ReadArea", token_,
                                           request.SerializeAsString()));
  }
  // The service's end of the reader's connection; -1: none.
  int ServiceEnd() const {
    sockaddr_in own{};
    socklen_t bytes = sizeof(own);
    if (getsockname(reader_.fd(), reinterpret_cast<sockaddr*>(&own), &bytes) != 0) return -1;
    for (int fd = 3; fd < 1024; ++fd) {
      sockaddr_in peer{};
      bytes = sizeof(peer);
      if (fd == reader_.fd() || getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &bytes) != 0 ||
          peer.sin_family != AF_INET || peer.sin_port != own.sin_port) {
        continue;
      }
      return fd;
    }
    return -1;
  }
  static int UnsentBytes(int fd) {
    int bytes = 0;
    return ioctl(fd, SIOCOUTQNSD, &bytes) == 0 ? bytes : -1;
  }

  Http2Connection reader_;
};

TEST_F(SlowReaderTest, TheKernelHoldsLittleOfWhatItDoesNotRead) {
  ASSERT_TRUE(AskForAll());
  ASSERT_TRUE(Eventually([&] { return UnsentBytes(ServiceEnd()) >= kUnsentBytesMax; }));

  for (int i = 0; i < 100; ++i) EXPECT_TRUE(AddOnce(*Areas(), "a").ok());

  // The last piece that was let in may go beyond it.
  EXPECT_LE(UnsentBytes(ServiceEnd()), 2 * kUnsentBytesMax);
  const std::optional<std::string> answer = reader_.Answer(1);
  ASSERT_TRUE(answer.has_value());
  EXPECT_GT(answer->size(), kAreaBytes) << "all of it comes once it is read";
}

TEST_F(SlowReaderTest, ItDoesNotGetGrpcsBackupToPoll) {
  ASSERT_TRUE(Eventually([] { return SolePoller::IsInForce(); }))
      << "SolePoller does not know this version of gRPC";
  const uint64_t before = SolePoller::pauses();

  ASSERT_TRUE(AskForAll());

  EXPECT_TRUE(Eventually([&] { return SolePoller::pauses() > before + 1; }));
  EXPECT_TRUE(AddOnce(*Areas(), "a").ok());
  EXPECT_TRUE(reader_.Answer(1).has_value());
  door_->Shutdown(std::chrono::milliseconds(1000));
  EXPECT_FALSE(SolePoller::IsInForce()) << "nobody else polls then";
}

}  // namespace
}  // namespace statehouse
