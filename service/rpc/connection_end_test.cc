// Connections that the door ends by itself: those whose client is not there any more, and those
// that nobody uses.
#include <chrono>
#include <optional>
#include <string>

#include "engine/os/futex.h"
#include "service/rpc/grpc_door_test_support.h"
#include "statehouse/v1/watch.pb.h"
#include "tests/support/http2.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::Frame;
using testing::FrameType;
using testing::Http2Connection;

constexpr milliseconds kLong{15'000};

class ConnectionEndTest : public GrpcDoorTest {
 protected:
  explicit ConnectionEndTest(GrpcDoorOptions options) : GrpcDoorTest(WithCount(options, &open_)) {}

  std::string Address() const { return "127.0.0.1:" + std::to_string(port_); }
  // Reads without an answer to anything until the service closes. False: it does not.
  static bool ReadToTheEnd(const Http2Connection& connection) {
    const steady_clock::time_point until = steady_clock::now() + kLong;
    char buffer[4096];
    while (steady_clock::now() < until) {
      pollfd readable{connection.fd(), POLLIN, 0};
      if (poll(&readable, 1, 1000) == 1 && recv(connection.fd(), buffer, sizeof(buffer), 0) <= 0) {
        return true;
      }
    }
    return false;
  }
  // Reads and answers pings for so long. False: the service closes meanwhile.
  static bool Stays(Http2Connection* connection, milliseconds time) {
    const steady_clock::time_point until = steady_clock::now() + time;
    while (steady_clock::now() < until) {
      if (!connection->Receive(milliseconds(100)).has_value() && HasEnded(*connection))
        return false;
    }
    return true;
  }
  static bool HasEnded(const Http2Connection& connection) {
    char byte = 0;
    return recv(connection.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
  }
  using Reader = grpc::ClientReader<v1::WatchAreaResponse>;
  // A watch of area "a" that has told what is there.
  std::unique_ptr<Reader> BeginWatch(v1::Areas::Stub* stub, grpc::ClientContext* context) {
    Authorize(context);
    v1::WatchAreaRequest request;
    request.set_name("a");
    auto reader = stub->WatchArea(context, request);
    v1::WatchAreaResponse response;
    EXPECT_TRUE(reader->Read(&response));
    return reader;
  }
  static bool ReadChange(Reader* reader) {
    v1::WatchAreaResponse response;
    while (reader->Read(&response)) {
      if (response.has_changes()) return true;
    }
    return false;
  }
  bool AwaitOpen(int count) const {
    const steady_clock::time_point until = steady_clock::now() + kLong;
    while (open_.load() != count && steady_clock::now() < until) std::this_thread::yield();
    return open_.load() == count;
  }

  std::atomic<int> open_{0};

 private:
  static GrpcDoorOptions WithCount(GrpcDoorOptions options, std::atomic<int>* open) {
    options.on_connection_open = [open](int change) { open->fetch_add(change); };
    return options;
  }
};

class KeepaliveTest : public ConnectionEndTest {
 protected:
  KeepaliveTest() : ConnectionEndTest(Options()) {}
  static GrpcDoorOptions Options() {
    GrpcDoorOptions options;
    options.keepalive_s = 1;
    options.keepalive_timeout_s = 1;
    return options;
  }
};

TEST_F(KeepaliveTest, AWatchWhoseClientAnswersNoPingEnds) {
  service_->MakeArea("a", 64);
  v1::WatchAreaRequest request;
  request.set_name("a");
  Http2Connection silent(Address());
  ASSERT_TRUE(
      silent.Send(testing::Preface() + testing::UnaryCall(1, "/statehouse.v1.Areas/WatchArea",
                                                          token_, request.SerializeAsString())));

  EXPECT_TRUE(ReadToTheEnd(silent));
}

TEST_F(KeepaliveTest, WhoAnswersPingsStaysWithoutACall) {
  Http2Connection idle(Address());
  ASSERT_TRUE(idle.Send(testing::Preface()));

  EXPECT_TRUE(Stays(&idle, seconds(5)));
}

TEST_F(KeepaliveTest, AClientOfGrpcThatWaitsForNewsStays) {
  service_->MakeArea("a", 64);
  auto stub = Areas();
  grpc::ClientContext context;
  auto reader = BeginWatch(stub.get(), &context);
  std::thread writer([this] {
    SleepNs(4'000'000'000);
    auto areas = Areas();
    EXPECT_TRUE(AddOnce(*areas, "a").ok());
  });

  EXPECT_TRUE(ReadChange(reader.get()));
  writer.join();
  context.TryCancel();
  (void)reader->Finish();
}

class IdleTest : public ConnectionEndTest {
 protected:
  IdleTest() : ConnectionEndTest(Options()) {}
  static GrpcDoorOptions Options() {
    GrpcDoorOptions options;
    options.idle_s = 1;
    return options;
  }
};

TEST_F(IdleTest, AConnectionWithoutACallEnds) {
  Http2Connection never(Address());
  ASSERT_TRUE(never.Send(testing::Preface()));
  service_->MakeArea("a", 64);
  Http2Connection once(Address());
  ASSERT_TRUE(
      once.Send(testing::Preface() + testing::UnaryCall(1, "/statehouse.v1.Areas/AddWord", token_,
                                                        Add("a").SerializeAsString())));
  ASSERT_TRUE(once.Answer(1, kLong).has_value());

  EXPECT_TRUE(ReadToTheEnd(never));
  EXPECT_TRUE(ReadToTheEnd(once));
  EXPECT_TRUE(AwaitOpen(0));
}

TEST_F(IdleTest, OneWithACallThatLastsStaysAndItsClientCallsOn) {
  service_->MakeArea("a", 64);
  auto stub = Areas();
  grpc::ClientContext context;
  auto reader = BeginWatch(stub.get(), &context);
  SleepNs(2'500'000'000);

  EXPECT_EQ(open_.load(), 1) << "the watch's connection has ended, or another one was made";
  ASSERT_TRUE(AddOnce(*stub, "a").ok());
  EXPECT_TRUE(ReadChange(reader.get()));
  context.TryCancel();
  (void)reader->Finish();
  // Without a call its connection ends, and the next call makes one, as if nothing were.
  EXPECT_TRUE(AwaitOpen(0));
  EXPECT_TRUE(AddOnce(*stub, "a").ok());
  EXPECT_EQ(open_.load(), 1);
}

class ConnectionsMaxTest : public ConnectionEndTest {
 protected:
  ConnectionsMaxTest() : ConnectionEndTest(Options(&refused_)) {}
  static GrpcDoorOptions Options(std::atomic<int>* refused) {
    GrpcDoorOptions options;
    options.connections_max = 2;
    options.on_connection_refused = [refused](const std::string& peer) {
      EXPECT_TRUE(peer.starts_with("127.0.0.1:")) << peer;
      refused->fetch_add(1);
    };
    return options;
  }
  std::atomic<int> refused_{0};
};

TEST_F(ConnectionsMaxTest, WhatIsOpenIsToldAndSoIsOneBeyondTheLimit) {
  Http2Connection first(Address());
  Http2Connection second(Address());
  ASSERT_TRUE(AwaitOpen(2));
  EXPECT_EQ(refused_.load(), 0);

  Http2Connection beyond(Address());
  EXPECT_TRUE(ReadToTheEnd(beyond));
  EXPECT_EQ(refused_.load(), 1);
  EXPECT_EQ(open_.load(), 2);

  first.Close();
  EXPECT_TRUE(AwaitOpen(1));
  Http2Connection next(Address());
  EXPECT_TRUE(AwaitOpen(2));
  EXPECT_EQ(refused_.load(), 1);
}

}  // namespace
}  // namespace statehouse
