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

TEST_F(AttachLimitsTest, AResponseThatOnePacketHasNoRoomForComesInParts) {
  StartDoor();
  const UniqueFd worker = Greeted();
  for (const size_t bytes :
       {kAttachPartBytesMax, kAttachPartBytesMax + 1, 3 * kAttachPartBytesMax, size_t{5} << 20}) {
    const size_t before = dispatcher_.calls().size();
    Send(worker, {7, AttachCall{"/x", 0, "", /*takes_parts=*/true}});
    ASSERT_TRUE(Eventually([&] { return dispatcher_.calls().size() == before + 1; }));
    std::string wanted(bytes, '\0');
    for (size_t i = 0; i < bytes; ++i) wanted[i] = static_cast<char>(i * 31 >> 3);
    dispatcher_.calls()[before]->done(wanted);

    std::string whole;
    size_t parts = 0;
    for (bool more = true; more;) {
      const auto packet = Receive(worker);
      ASSERT_TRUE(packet.ok()) << packet.status().ToString();
      ASSERT_EQ(packet->request_id, 7u);
      const auto* part = std::get_if<AttachCallPart>(&packet->message);
      more = part != nullptr;
      parts += more ? 1 : 0;
      whole += more ? part->bytes : std::get<AttachCallReply>(packet->message).response;
    }
    EXPECT_EQ(whole, wanted) << bytes;
    EXPECT_EQ(parts, (bytes - 1) / kAttachPartBytesMax) << bytes;
  }
}

TEST_F(AttachLimitsTest, AWorkerThatTakesNoPartsIsToldThatTheResponseIsTooLarge) {
  StartDoor();
  const UniqueFd worker = Greeted();
  Send(worker, {7, AttachCall{"/x", 0, ""}});
  ASSERT_TRUE(Eventually([&] { return dispatcher_.calls().size() == 1; }));
  EXPECT_EQ(dispatcher_.response_bytes_max(), kAttachPartBytesMax);
  dispatcher_.calls()[0]->done(std::string(kAttachBodyBytesMax, 'x'));
  const auto packet = Receive(worker);
  ASSERT_TRUE(packet.ok());
  EXPECT_EQ(std::get<AttachError>(packet->message).reason, Reason::kMessageTooLarge);
}

TEST_F(AttachLimitsTest, SoManyCallsWithResponsesInPartsAreInFlightAndNoMore) {
  StartDoor();
  const UniqueFd worker = Greeted();
  for (uint64_t id = 1; id <= kAttachPartedCallsInFlightMax; ++id) {
    Send(worker, {id, AttachCall{"/x", 0, "", /*takes_parts=*/true}});
  }
  ASSERT_TRUE(
      Eventually([&] { return dispatcher_.calls().size() == kAttachPartedCallsInFlightMax; }));
  Send(worker, {99, AttachCall{"/x", 0, "", /*takes_parts=*/true}});
  const auto refused = Receive(worker);
  ASSERT_TRUE(refused.ok());
  EXPECT_EQ(refused->request_id, 99u);
  EXPECT_EQ(std::get<AttachError>(refused->message).reason, Reason::kLimitExceeded);
  dispatcher_.calls()[0]->done(std::string("one"));
  ASSERT_TRUE(Receive(worker).ok());
  Send(worker, {99, AttachCall{"/x", 0, "", /*takes_parts=*/true}});
  EXPECT_TRUE(
      Eventually([&] { return dispatcher_.calls().size() == kAttachPartedCallsInFlightMax + 1; }));
}

TEST_F(AttachLimitsTest, ABurstOfCallsIsTakenWholeAlsoAfterQuietOnes) {
  StartDoor();
  const UniqueFd worker = Greeted();
  size_t sent = 0;
  for (const uint64_t burst : {1, 40, 1, 20}) {
    for (uint64_t i = 0; i < burst; ++i) Send(worker, {++sent, AttachCall{"/x", 0, ""}});
    ASSERT_TRUE(Eventually([&] { return dispatcher_.calls().size() == sent; }));
    for (size_t i = sent - burst; i < sent; ++i) dispatcher_.calls()[i]->done(std::string("ok"));
    for (uint64_t i = 0; i < burst; ++i) ASSERT_TRUE(Receive(worker).ok());
  }
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

// A call that holds a session ends with its connection, and a lock of the session passes to a
// waiter of another one. Nothing else happens at the door, so nothing else wakes its thread.
TEST_F(AttachLimitsTest, WhomTheEndOfAnotherConnectionAnswersHearsAtOnce) {
  constexpr int kHeardMs = 5000;  // Ample: without a wake-up it is never heard.
  StartDoor();
  UniqueFd holder = Greeted();
  const UniqueFd waiter = Greeted();
  Send(holder, {7, AttachCall{"/x", 0, ""}});
  ASSERT_TRUE(Eventually([&] { return dispatcher_.calls().size() == 1; }));
  Send(waiter, {8, AttachCall{"/x", 0, ""}});
  ASSERT_TRUE(Eventually([&] { return dispatcher_.calls().size() == 2; }));
  const auto calls = dispatcher_.calls();
  calls[0]->on_cancel = [&calls] { calls[1]->done(std::string("granted")); };

  holder.Reset();

  pollfd readable{waiter.get(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, kHeardMs), 1);
  const auto answer = Receive(waiter);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(std::get<AttachCallReply>(answer->message).response, "granted");
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

  ExpectErrorAndClosure(three, Reason::kLanesExhausted);
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

  ExpectErrorAndClosure(Attached(), Reason::kLanesExhausted);
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
