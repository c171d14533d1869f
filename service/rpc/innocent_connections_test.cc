// Connections that take the polling thread's time and waste none of it: none of them is read more
// slowly or ended, however long they go on without an event of the completion queue.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <vector>

#include "engine/os/futex.h"
#include "service/rpc/grpc_door_test_support.h"
#include "service/rpc/host_debts.h"
#include "tests/support/http2.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using testing::EncodeFrame;
using testing::Frame;
using testing::FrameType;
using testing::Http2Connection;

class InnocentConnectionsTest : public GrpcDoorTest {
 protected:
  InnocentConnectionsTest() : GrpcDoorTest(Options(&disturbed_, &held_here_, &held_elsewhere_)) {}
  static GrpcDoorOptions Options(std::atomic<int>* disturbed, std::atomic<int>* held_here,
                                 std::atomic<int>* held_elsewhere) {
    GrpcDoorOptions options;
    options.on_connection_throttled = [disturbed](const std::string&) { disturbed->fetch_add(1); };
    options.on_connection_ended = [disturbed] { disturbed->fetch_add(1); };
    options.on_connection_held = [held_here, held_elsewhere](const std::string& peer) {
      (peer.starts_with("127.0.0.1:") ? held_here : held_elsewhere)->fetch_add(1);
    };
    return options;
  }
  std::string Address() const { return "127.0.0.1:" + std::to_string(port_); }

  std::atomic<int> disturbed_{0};
  std::atomic<int> held_here_{0};       // Of 127.0.0.1.
  std::atomic<int> held_elsewhere_{0};  // Of other hosts.
};

std::string PingFrame(const char (&eight_bytes)[9]) {
  return EncodeFrame(FrameType::kPing, 0, 0, eight_bytes);
}

// Whether the service still answers there.
bool Lives(Http2Connection* connection) {
  if (!connection->Send(PingFrame("the last"))) return false;
  for (;;) {
    const std::optional<Frame> frame = connection->Receive();
    if (!frame.has_value()) return false;
    if (frame->type == FrameType::kPing && frame->payload == "the last") return true;
  }
}

TEST_F(InnocentConnectionsTest, IdleOnesThatPing) {
  constexpr size_t kConnections = 100;
  constexpr int kRounds = 80;
  constexpr uint64_t kPauseNs = 200'000;
  std::vector<Http2Connection> connections;
  for (size_t i = 0; i < kConnections; ++i) {
    connections.emplace_back(Address());
    ASSERT_TRUE(connections.back().Send(testing::Preface()));
  }

  for (int round = 0; round < kRounds; ++round) {
    for (Http2Connection& connection : connections) {
      EXPECT_TRUE(connection.Send(PingFrame("are you?")));
      SleepNs(kPauseNs);
    }
  }

  EXPECT_TRUE(std::all_of(connections.begin(), connections.end(),
                          [](Http2Connection& connection) { return Lives(&connection); }));
  EXPECT_EQ(disturbed_.load(), 0);
}

// Sends the bytes on stream 1 in small frames, as far as flow control lets it, and slowly.
class SlowSender final {
 public:
  explicit SlowSender(Http2Connection* connection) : connection_(connection) {}

  bool Send(std::string_view bytes) {
    constexpr size_t kPieceBytes = 1400;
    constexpr uint64_t kPauseNs = 100'000;
    while (!bytes.empty()) {
      const std::string_view piece = bytes.substr(0, kPieceBytes);
      const auto size = static_cast<int64_t>(piece.size());
      while (Take(milliseconds(0))) continue;
      while (std::min(all_, stream_) < size) {
        if (!Take(milliseconds(10'000))) return false;
      }
      bytes.remove_prefix(piece.size());
      all_ -= size;
      stream_ -= size;
      const uint8_t flags = bytes.empty() ? testing::kEndStream : 0;
      if (!connection_->Send(EncodeFrame(FrameType::kData, flags, 1, piece))) return false;
      SleepNs(kPauseNs);
    }
    return true;
  }

 private:
  static constexpr int64_t kFirstWindow = 65'535;

  // False: no frame came.
  bool Take(milliseconds patience) {
    const std::optional<Frame> frame = connection_->Receive(patience);
    if (!frame.has_value()) return false;
    const auto number = [&](size_t at, size_t count) {
      int64_t value = 0;
      for (size_t i = at; i < at + count; ++i) {
        value = value << 8 | static_cast<uint8_t>(frame->payload.at(i));
      }
      return value;
    };
    if (frame->type == FrameType::kWindowUpdate) {
      (frame->stream == 0 ? all_ : stream_) += number(0, 4);
    }
    if (frame->type != FrameType::kSettings) return true;
    for (size_t at = 0; at + 6 <= frame->payload.size(); at += 6) {
      if (number(at, 2) != 4) continue;  // The window of new streams.
      stream_ += number(at + 2, 4) - window_;
      window_ = number(at + 2, 4);
    }
    return true;
  }

  Http2Connection* const connection_;
  int64_t window_ = kFirstWindow;
  int64_t all_ = kFirstWindow;     // That may be sent on the connection,
  int64_t stream_ = kFirstWindow;  // and on the stream.
};

TEST_F(InnocentConnectionsTest, OneThatSendsALargeMessageSlowly) {
  constexpr size_t kBytes = 15 << 20;
  service_->MakeArea("a", kBytes);
  v1::WriteAreaRequest request;
  request.set_name("a");
  request.set_data(std::string(kBytes, 'x'));
  Http2Connection connection(Address());
  ASSERT_TRUE(
      connection.Send(testing::Preface() +
                      EncodeFrame(FrameType::kHeaders, testing::kEndHeaders, 1,
                                  testing::CallHeaders("/statehouse.v1.Areas/WriteArea", token_))));

  EXPECT_TRUE(SlowSender(&connection).Send(testing::GrpcMessage(request.SerializeAsString())));

  EXPECT_TRUE(connection.Answer(1).has_value());
  EXPECT_EQ(disturbed_.load(), 0);
}

// A host of its own opens more connections than it may at once.
TEST_F(InnocentConnectionsTest, OnesOfAnotherHostThanOneThatOpensMany) {
  constexpr size_t kMany = 4 * kConnectionsAtOnce;
  service_->MakeArea("a", 64);
  std::vector<Http2Connection> many;
  for (size_t i = 0; i < kMany; ++i) {
    many.emplace_back(Address(), "127.0.0.2");
    ASSERT_TRUE(many.back().valid());
    ASSERT_TRUE(many.back().Send(testing::Preface()));
  }

  EXPECT_TRUE(AddOnce(*Areas(), "a").ok());

  EXPECT_TRUE(std::all_of(many.begin(), many.end(), [](Http2Connection& connection) {
    return Lives(&connection);
  })) << "one that waited was not taken";
  EXPECT_GT(held_elsewhere_.load(), 0);
  EXPECT_EQ(held_here_.load(), 0);
  EXPECT_EQ(disturbed_.load(), 0);
}

// Each shows at once that it is of use, so the next one need not wait.
TEST_F(InnocentConnectionsTest, ManyOfOneHostThatAreOfUseOneAfterTheOther) {
  constexpr size_t kMany = 2 * kConnectionsAtOnce;
  service_->MakeArea("a", 64);
  v1::AddWordRequest request = Add("a");
  std::vector<Http2Connection> many;
  for (size_t i = 0; i < kMany; ++i) {
    many.emplace_back(Address());
    ASSERT_TRUE(many.back().Send(testing::Preface() +
                                 testing::UnaryCall(1, "/statehouse.v1.Areas/AddWord", token_,
                                                    request.SerializeAsString())));
    ASSERT_TRUE(many.back().Answer(1).has_value());
  }

  EXPECT_EQ(held_here_.load(), 0);
}

}  // namespace
}  // namespace statehouse
