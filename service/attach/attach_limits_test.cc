// The attach door's limits and its answers from other threads, in one process with a dispatcher
// that the test drives.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/attach/protocol.h"
#include "engine/os/futex.h"
#include "engine/os/process.h"
#include "service/attach/attach_door.h"
#include "service/attach/test_lingering_socket.h"
#include "service/keeper/descriptor_message.h"

namespace statehouse {
namespace {

constexpr int kPatienceMs = 60'000;
constexpr uint64_t kLookIntervalNs = 2'000'000;

class NoVault final : public DescriptorVault {
 public:
  Status Store(const std::string&, int) override { return Status(); }
  Status Remove(const std::string&) override { return Status(); }
};

// Takes the token "good" until told otherwise.
class OneToken final : public Authenticator {
 public:
  StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view token,
                                                         std::string_view peer) override {
    if (token != "good") return Status(Reason::kUnauthenticated, "unknown token");
    if (peer != "unix:uid=" + std::to_string(getuid()))
      return Status(Reason::kInternal, "unexpected peer");
    return std::make_shared<const Identity>("id", "", expires_s, std::vector<Grant>{});
  }
  StatusOr<std::shared_ptr<const Identity>> Revalidate(const Identity& identity) override {
    if (revoked) return Status(Reason::kUnauthenticated, "the token was revoked");
    return std::make_shared<const Identity>(identity);
  }
  uint64_t generation() const override { return generation_now; }
  Status Reload() override { return Status(); }

  std::atomic<bool> revoked{false};
  std::atomic<uint64_t> generation_now{1};
  int64_t expires_s = 0;
};

// Parks every call until the test answers it.
class ParkingDispatcher final : public Dispatcher {
 public:
  struct Parked final : public PendingCall {
    void Cancel() override { cancelled = true; }
    std::atomic<bool> cancelled{false};
    DoneCallback done;
  };
  std::shared_ptr<PendingCall> Dispatch(const CallContext& context, std::string_view,
                                        std::string_view, DoneCallback done) override {
    auto call = std::make_shared<Parked>();
    call->done = std::move(done);
    const std::lock_guard<std::mutex> lock(mutex_);
    doors_are_local_ = doors_are_local_ && context.door == Door::kLocal;
    calls_.push_back(call);
    return call;
  }
  bool Knows(std::string_view) const override { return true; }
  std::vector<std::string> Methods() const override { return {"/x"}; }
  uint32_t CallsInFlight() const override { return 0; }
  void RecheckIdentities(Authenticator*) override {}
  void Shutdown() override {}

  std::vector<std::shared_ptr<Parked>> calls() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return calls_;
  }
  bool doors_are_local() const { return doors_are_local_; }

 private:
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Parked>> calls_;
  std::atomic<bool> doors_are_local_{true};
};

bool Eventually(const std::function<bool()>& holds) {
  for (int i = 0; i < kPatienceMs / 2; ++i) {
    if (holds()) return true;
    SleepNs(kLookIntervalNs);
  }
  return false;
}

class AttachLimitsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
    address_.sun_family = AF_UNIX;
    const std::string path = folder_ + "/s";
    path.copy(address_.sun_path, sizeof(address_.sun_path) - 1);
    auto engine = Engine::Start({}, {}, &vault_);
    ASSERT_TRUE(engine.ok()) << engine.status().ToString();
    engine_ = *std::move(engine);
    metrics_ = NewMetrics(engine_.get(), {"/x"}, "0");
  }
  void TearDown() override {
    door_.reset();
    unlink(address_.sun_path);
    rmdir(folder_.c_str());
  }
  void StartDoor(AttachDoorOptions options = {}) {
    UniqueFd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    ASSERT_EQ(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof(address_)),
              0);
    ASSERT_EQ(listen(listener.get(), 64), 0);
    const AttachDoorParts parts{engine_.get(), &dispatcher_, &tokens_, metrics_.get(),
                                engine_->DaemonLane(2)};
    auto door = StartAttachDoor(options, std::move(listener), parts);
    ASSERT_TRUE(door.ok()) << door.status().ToString();
    door_ = *std::move(door);
  }
  UniqueFd Connect() {
    UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof(address_)), 0);
    return fd;
  }
  void Send(const UniqueFd& fd, const AttachPacket& packet,
            const std::vector<int>& descriptors = {}) {
    const auto bytes = EncodeAttachPacket(packet);
    ASSERT_TRUE(bytes.ok());
    ASSERT_EQ(SendMessage(fd.get(), *bytes, descriptors), SendResult::kSent);
  }
  // The next packet; UNAVAILABLE when the door closed the connection.
  StatusOr<AttachPacket> Receive(const UniqueFd& fd) {
    pollfd readable{fd.get(), POLLIN, 0};
    if (poll(&readable, 1, kPatienceMs) <= 0) return Status(Reason::kTimeout, "nothing came");
    std::vector<char> buffer(kAttachHeaderBytes + kAttachBodyBytesMax);
    ReceivedMessage received = ReceiveMessage(fd.get(), buffer);
    for (UniqueFd& descriptor : received.descriptors) kept_.push_back(std::move(descriptor));
    if (received.kind != ReceivedMessage::Kind::kMessage)
      return Status(Reason::kUnavailable, "closed");
    return DecodeAttachPacket(std::as_bytes(std::span(buffer).first(received.bytes)));
  }
  UniqueFd Greeted() {
    UniqueFd fd = Connect();
    Send(fd, {1, AttachHello{"good", "test", false}});
    const auto welcome = Receive(fd);
    EXPECT_TRUE(welcome.ok() && std::holds_alternative<AttachWelcome>(welcome->message));
    return fd;
  }
  // Asks for lanes with this process's pidfd, or with another one.
  UniqueFd Attached(int pidfd = -1) {
    UniqueFd fd = Connect();
    const auto own = OpenPidfd(getpid());
    EXPECT_TRUE(own.ok());
    Send(fd, {1, AttachHello{"good", "test", true}}, {pidfd >= 0 ? pidfd : own->get()});
    return fd;
  }
  bool Welcomed(const UniqueFd& fd) {
    const auto packet = Receive(fd);
    return packet.ok() && std::holds_alternative<AttachWelcome>(packet->message);
  }
  void ExpectErrorAndClosure(const UniqueFd& fd, Reason reason) {
    const auto packet = Receive(fd);
    ASSERT_TRUE(packet.ok()) << packet.status().ToString();
    const auto* error = std::get_if<AttachError>(&packet->message);
    ASSERT_NE(error, nullptr);
    EXPECT_EQ(error->reason, reason) << error->message;
    EXPECT_EQ(Receive(fd).status().reason(), Reason::kUnavailable);
  }

  std::vector<UniqueFd> kept_;  // What came beside packets.
  std::string folder_ = "/tmp/statehouse-attach-XXXXXX";
  sockaddr_un address_{};
  NoVault vault_;
  OneToken tokens_;
  ParkingDispatcher dispatcher_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<AttachDoor> door_;
};

TEST_F(AttachLimitsTest, AConnectionThatSaysNothingIsClosed) {
  AttachDoorOptions options;
  options.hello_timeout = std::chrono::milliseconds(20);
  StartDoor(options);

  const UniqueFd silent = Connect();

  ExpectErrorAndClosure(silent, Reason::kTimeout);
}

TEST_F(AttachLimitsTest, OneConnectionBeyondTheLimitIsToldSo) {
  AttachDoorOptions options;
  options.connections_max = 2;
  StartDoor(options);
  const UniqueFd one = Greeted();
  UniqueFd two = Greeted();

  const UniqueFd three = Connect();

  ExpectErrorAndClosure(three, Reason::kLimitExceeded);
  two.Reset();
  EXPECT_TRUE(Eventually([&] {
    const UniqueFd next = Connect();
    Send(next, {1, AttachHello{"good", "test", false}});
    const auto packet = Receive(next);
    return packet.ok() && std::holds_alternative<AttachWelcome>(packet->message);
  }));
}

TEST_F(AttachLimitsTest, AnswersFromOtherThreadsReachTheirConnection) {
  StartDoor();
  const UniqueFd one = Greeted();
  const UniqueFd two = Greeted();
  Send(one, {7, AttachCall{"/x", 0, ""}});
  ASSERT_TRUE(Eventually([&] { return dispatcher_.calls().size() == 1; }));
  Send(two, {8, AttachCall{"/x", 0, ""}});
  ASSERT_TRUE(Eventually([&] { return dispatcher_.calls().size() == 2; }));

  std::thread([&] { dispatcher_.calls()[1]->done(std::string("second")); }).join();
  std::thread([&] { dispatcher_.calls()[0]->done(Status(Reason::kStalled, "held")); }).join();

  const auto to_two = Receive(two);
  const auto to_one = Receive(one);
  ASSERT_TRUE(to_one.ok() && to_two.ok());
  EXPECT_EQ(to_two->request_id, 8u);
  EXPECT_EQ(std::get<AttachCallReply>(to_two->message).response, "second");
  EXPECT_EQ(to_one->request_id, 7u);
  EXPECT_EQ(std::get<AttachError>(to_one->message).reason, Reason::kStalled);
  EXPECT_TRUE(dispatcher_.doors_are_local());
}

TEST_F(AttachLimitsTest, ADisconnectCancelsItsCallsAndALateAnswerHarmsNobody) {
  StartDoor();
  UniqueFd gone = Greeted();
  Send(gone, {7, AttachCall{"/x", 0, ""}});
  ASSERT_TRUE(Eventually([&] { return dispatcher_.calls().size() == 1; }));

  gone.Reset();

  EXPECT_TRUE(Eventually([&] { return dispatcher_.calls()[0]->cancelled.load(); }));
  dispatcher_.calls()[0]->done(std::string("late"));
  EXPECT_TRUE(Greeted().valid());
}

TEST_F(AttachLimitsTest, AnAnswerAfterTheDoorHasGoneIsDropped) {
  StartDoor();
  const UniqueFd fd = Greeted();
  Send(fd, {7, AttachCall{"/x", 0, ""}});
  ASSERT_TRUE(Eventually([&] { return dispatcher_.calls().size() == 1; }));

  door_.reset();

  EXPECT_TRUE(dispatcher_.calls()[0]->cancelled);
  dispatcher_.calls()[0]->done(std::string("too late"));
  EXPECT_EQ(Receive(fd).status().reason(), Reason::kUnavailable);
}

TEST_F(AttachLimitsTest, ARequestIdInFlightMayNotBeUsedAgain) {
  StartDoor();
  const UniqueFd fd = Greeted();
  Send(fd, {7, AttachCall{"/x", 0, ""}});
  Send(fd, {7, AttachCall{"/x", 0, ""}});

  ExpectErrorAndClosure(fd, Reason::kInvalidArgument);
}

TEST_F(AttachLimitsTest, ASecondHelloIsRefused) {
  StartDoor();
  const UniqueFd fd = Greeted();

  Send(fd, {2, AttachHello{"good", "test", false}});

  ExpectErrorAndClosure(fd, Reason::kInvalidArgument);
}

TEST_F(AttachLimitsTest, LanesWithoutAPidfdAreRefused) {
  StartDoor();
  const UniqueFd fd = Connect();

  Send(fd, {1, AttachHello{"good", "test", true}});

  ExpectErrorAndClosure(fd, Reason::kInvalidArgument);
}

TEST_F(AttachLimitsTest, AProcessAtItsLimitOfLeasesGetsNoFurtherOneAndOthersDo) {
  AttachDoorOptions options;
  options.leases_per_process_max = 2;
  StartDoor(options);
  const UniqueFd one = Attached();
  const UniqueFd two = Attached();
  ASSERT_TRUE(Welcomed(one));
  ASSERT_TRUE(Welcomed(two));

  const UniqueFd three = Attached();

  ExpectErrorAndClosure(three, Reason::kLimitExceeded);
  EXPECT_TRUE(Greeted().valid());  // Without lanes there is no such limit.
  // A child is another process; it ends with 0 when it got its lanes.
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(Welcomed(Attached()) && !HasFailure() ? 0 : 1);
  int state = -1;
  ASSERT_EQ(waitpid(child, &state, 0), child);
  EXPECT_EQ(state, 0);
}

TEST_F(AttachLimitsTest, ALeaseThatWasGivenUpDoesNotCount) {
  AttachDoorOptions options;
  options.leases_per_process_max = 1;
  StartDoor(options);
  for (int i = 0; i < 10; ++i) {
    const UniqueFd fd = Attached();
    ASSERT_TRUE(Welcomed(fd));
    kept_.clear();
  }
}

TEST_F(AttachLimitsTest, ALeaseWithoutItsConnectionStillCounts) {
  AttachDoorOptions options;
  options.leases_per_process_max = 1;
  StartDoor(options);
  ASSERT_TRUE(Welcomed(Attached()));

  ExpectErrorAndClosure(Attached(), Reason::kLimitExceeded);
}

TEST_F(AttachLimitsTest, ADescriptorBesideAnotherPacketThanHelloEndsTheConnection) {
  StartDoor();
  const UniqueFd fd = Greeted();

  Send(fd, {2, AttachCall{"/x", 0, ""}}, {STDIN_FILENO});

  ExpectErrorAndClosure(fd, Reason::kInvalidArgument);
  EXPECT_TRUE(dispatcher_.calls().empty());
}

// A socket that lingers: its last close() waits for a peer that reads nothing.
TEST_F(AttachLimitsTest, ALingeringSocketIsClosedWithoutHoldingUpTheDoor) {
  StartDoor();
  UniqueFd unread_peer;
  UniqueFd lingering;
  ASSERT_NO_FATAL_FAILURE(MakeLingering(&lingering, &unread_peer));
  {
    // Beside a Hello that is refused, beside one that is never read, and as the only descriptor.
    const UniqueFd refused = Attached(lingering.get());
    UniqueFd unread = Connect();
    Send(unread, {1, AttachHello{"bad", "test", false}});
    Send(unread, {2, AttachHello{"good", "test", true}}, {lingering.get()});
    lingering.Reset();
    ExpectErrorAndClosure(refused, Reason::kInvalidArgument);
  }

  EXPECT_TRUE(Greeted().valid());

  door_.reset();
}

TEST_F(AttachLimitsTest, ARevokedTokenEndsItsIdleConnections) {
  StartDoor();
  const UniqueFd fd = Greeted();

  tokens_.revoked = true;
  tokens_.generation_now = 2;
  door_->RecheckIdentities();

  ExpectErrorAndClosure(fd, Reason::kUnauthenticated);
}

TEST_F(AttachLimitsTest, AnExpiredTokenEndsTheConnectionAtItsNextPacket) {
  tokens_.expires_s = 1;  // 1970.
  StartDoor();
  const UniqueFd fd = Greeted();

  Send(fd, {2, AttachCall{"/x", 0, ""}});

  ExpectErrorAndClosure(fd, Reason::kTokenExpired);
  EXPECT_TRUE(dispatcher_.calls().empty());
}

TEST_F(AttachLimitsTest, AReaderThatTakesNothingIsNotReadFromUntilItDoes) {
  StartDoor();
  const UniqueFd fd = Greeted();
  // Answers of 100 KB fill the socket's buffer; every one arrives all the same, once the reader
  // reads.
  constexpr uint64_t kCalls = 40;
  for (uint64_t id = 100; id < 100 + kCalls; ++id) Send(fd, {id, AttachCall{"/x", 0, ""}});
  ASSERT_TRUE(Eventually([&] { return dispatcher_.calls().size() == kCalls; }));
  for (const auto& call : dispatcher_.calls()) call->done(std::string(100'000, 'x'));

  uint64_t sum = 0;
  for (uint64_t i = 0; i < kCalls; ++i) {
    const auto packet = Receive(fd);
    ASSERT_TRUE(packet.ok()) << packet.status().ToString();
    sum += packet->request_id;
    EXPECT_EQ(std::get<AttachCallReply>(packet->message).response.size(), 100'000u);
  }
  EXPECT_EQ(sum, (100 + 100 + kCalls - 1) * kCalls / 2);
}

}  // namespace
}  // namespace statehouse
