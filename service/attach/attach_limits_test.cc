// The attach door's limits and its answers from other threads, in one process with a dispatcher
// that the test drives.
#include <sys/wait.h>

#include <thread>

#include "service/attach/test_attach_door.h"
#include "service/attach/test_lingering_socket.h"

namespace statehouse {
namespace {

using AttachLimitsTest = AttachDoorTest;

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
    // The door may have closed this connection already; then the packet goes nowhere.
    const auto second = EncodeAttachPacket({2, AttachHello{"good", "test", true}});
    ASSERT_TRUE(second.ok());
    const int beside = lingering.get();
    (void)SendMessage(unread.get(), *second, {&beside, 1});
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
