// The verbs of lock.proto against a real engine.
#include "service/api/lock_verbs_test_support.h"

namespace statehouse {
namespace {

class LockVerbsTest : public LockVerbsFixture {};

TEST_F(LockVerbsTest, OneHoldsAndTheNextIsServedWhenItReleases) {
  const uint64_t one = Open();
  const uint64_t two = Open();
  const uint64_t token = Take(Ask(one));
  Answer answer;
  Wait(Ask(two), &answer);

  const auto released = Release(one, token);

  ASSERT_TRUE(released.ok());
  EXPECT_TRUE(released->held());
  ASSERT_TRUE(answer.has_come()) << "a release answers the next call itself";
  EXPECT_TRUE(Acquired(answer).acquired());
  EXPECT_GT(Acquired(answer).token(), token);
}

TEST_F(LockVerbsTest, WaitersAreServedInTheirOrder) {
  const uint64_t one = Open();
  const uint64_t two = Open();
  uint64_t token = Take(Ask(one));
  std::vector<Answer> answers(5);
  for (Answer& answer : answers) Wait(Ask(two), &answer);

  for (size_t i = 0; i < answers.size(); ++i) {
    ASSERT_TRUE(Release(i == 0 ? one : two, token).ok());
    ASSERT_TRUE(answers[i].has_come());
    for (size_t later = i + 1; later < answers.size(); ++later) {
      EXPECT_FALSE(answers[later].has_come());
    }
    token = Acquired(answers[i]).token();
  }
}

TEST_F(LockVerbsTest, SharedHoldersShareAndASemaphoreCounts) {
  const uint64_t session = Open();
  v1::AcquireLockRequest shared = Ask(session, "read");
  shared.set_mode(v1::LOCK_MODE_SHARED);
  Take(shared);
  shared.set_request_id(next_request_++);
  Take(shared);
  v1::AcquireLockRequest seat = Try(session, "seats");
  seat.set_limit(2);
  Take(seat);
  seat.set_request_id(next_request_++);
  Take(seat);
  seat.set_request_id(next_request_++);

  EXPECT_FALSE(Acquire(seat)->acquired());
  EXPECT_FALSE(Acquire(Try(session, "read"))->acquired());
  seat.set_limit(3);
  seat.set_request_id(next_request_++);
  EXPECT_EQ(Acquire(seat).status().reason(), Reason::kConflict);
}

TEST_F(LockVerbsTest, ATryAndATimeoutLeaveNothingBehind) {
  const uint64_t one = Open();
  const uint64_t two = Open();
  const uint64_t token = Take(Ask(one));
  v1::AcquireLockRequest brief = Ask(two);
  SetMs(20, brief.mutable_timeout());

  EXPECT_FALSE(Acquire(Try(two))->acquired());
  EXPECT_FALSE(Acquire(brief)->acquired());

  EXPECT_EQ(Describe().waiter_count(), 0u);
  ASSERT_TRUE(Release(one, token).ok());
  EXPECT_EQ(Describe().holder_count(), 0u);
  Take(Try(two));
}

TEST_F(LockVerbsTest, ADeadlineEndsAWaitWithTimeout) {
  const uint64_t session = Open();
  Take(Ask(session));
  CallContext context = service_.Context(IdentityOf({"lock:*:lock"}));
  context.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
  Answer answer;

  service_.dispatcher().Dispatch(context, kAcquire, Ask(session).SerializeAsString(),
                                 answer.Callback());

  EXPECT_EQ(answer.Await().status().reason(), Reason::kTimeout);
  EXPECT_EQ(Describe().waiter_count(), 0u);
}

TEST_F(LockVerbsTest, ARepeatedRequestFindsItsPlaceAndItsLease) {
  const uint64_t one = Open();
  const uint64_t two = Open();
  const v1::AcquireLockRequest first = Ask(one);
  const uint64_t token = Take(first);
  EXPECT_EQ(Take(first), token) << "the answer was lost";
  const v1::AcquireLockRequest ask = Ask(two);
  Answer lost;
  const auto lost_call = Wait(ask, &lost);
  Answer behind;
  Wait(Ask(one), &behind);
  Answer again;
  Wait(ask, &again);

  lost_call->Cancel();  // Noticed after the client came back.
  EXPECT_EQ(lost.Await().status().reason(), Reason::kCancelled);
  ASSERT_TRUE(Release(one, token).ok());

  EXPECT_TRUE(Acquired(again).acquired());
  EXPECT_FALSE(behind.has_come());
  v1::AcquireLockRequest other = ask;
  other.set_name("other");
  EXPECT_EQ(Acquire(other).status().reason(), Reason::kInvalidArgument);
}

TEST_F(LockVerbsTest, ACancelledWaitLeavesTheQueue) {
  const uint64_t one = Open();
  const uint64_t two = Open();
  Take(Ask(one));
  Answer answer;
  const auto pending = Wait(Ask(two), &answer);
  EXPECT_EQ(Describe().waiter_count(), 1u);

  pending->Cancel();

  EXPECT_EQ(answer.Await().status().reason(), Reason::kCancelled);
  EXPECT_EQ(answer.times(), 1);
  EXPECT_EQ(Describe().waiter_count(), 0u);
}

TEST_F(LockVerbsTest, ALeaseEndsWhenItIsNotRenewedAndItsHolderIsTold) {
  const uint64_t one = Open();
  const uint64_t two = Open();
  v1::AcquireLockRequest brief = Ask(one);
  SetMs(150, brief.mutable_ttl());
  const uint64_t token = Take(brief);
  const auto renewed = Renew(one, token);
  ASSERT_TRUE(renewed.ok());
  EXPECT_LE(renewed->expires_in().nanos(), 160'000'000) << "at most 10 ms longer";
  Answer told;
  Hold(one, &told);
  Answer answer;
  Wait(Ask(two), &answer);

  EXPECT_GT(Acquired(answer).token(), token);

  const v1::HoldSessionResponse loss = Told(told);
  EXPECT_FALSE(loss.ended());
  ASSERT_EQ(loss.lost_locks_size(), 1);
  EXPECT_EQ(loss.lost_locks(0).name(), "deploy");
  EXPECT_EQ(loss.lost_locks(0).token(), token);
  EXPECT_EQ(Renew(one, token).status().reason(), Reason::kLockLost);
  EXPECT_FALSE(Release(one, token)->held());
  EXPECT_EQ(Acquire(brief).status().reason(), Reason::kLockLost);
}

TEST_F(LockVerbsTest, ALossWithoutWaitersIsToldToo) {
  const uint64_t session = Open();
  v1::AcquireLockRequest brief = Ask(session);
  SetMs(100, brief.mutable_ttl());
  const uint64_t token = Take(brief);
  Answer told;
  Hold(session, &told);

  EXPECT_EQ(Told(told).lost_locks(0).token(), token);
  EXPECT_EQ(Describe().holder_count(), 0u);
}

TEST_F(LockVerbsTest, AForcedReleaseIsToldAndServesTheQueue) {
  const uint64_t one = Open("worker 7");
  const uint64_t two = Open();
  const uint64_t token = Take(Ask(one));
  Answer told;
  Hold(one, &told);
  Answer answer;
  Wait(Ask(two), &answer);
  v1::ForceReleaseLockRequest request;
  request.set_name("deploy");
  request.set_token(token + 1);
  EXPECT_EQ(service_.Call<v1::ForceReleaseLockResponse>(kForce, request)->released(), 0u);
  request.set_token(0);

  EXPECT_EQ(service_.Call<v1::ForceReleaseLockResponse>(kForce, request)->released(), 1u);

  EXPECT_EQ(Told(told).lost_locks(0).token(), token);
  EXPECT_TRUE(Acquired(answer).acquired());
}

TEST_F(LockVerbsTest, EveryFieldIsChecked) {
  const uint64_t session = Open();
  struct Case {
    const char* name;
    std::function<void(v1::AcquireLockRequest*)> change;
    Reason reason;
  };
  const std::vector<Case> cases = {
      {"no name", [](auto* r) { r->set_name(""); }, Reason::kNameInvalid},
      {"long name", [](auto* r) { r->set_name(std::string(256, 'x')); }, Reason::kNameInvalid},
      {"longest name", [](auto* r) { r->set_name(std::string(255, 'x')); }, Reason::kOk},
      {"no session", [](auto* r) { r->set_session_id(0); }, Reason::kSessionNotFound},
      {"no request id", [](auto* r) { r->set_request_id(0); }, Reason::kInvalidArgument},
      {"no mode", [](auto* r) { r->set_mode(v1::LOCK_MODE_UNSPECIFIED); },
       Reason::kInvalidArgument},
      {"unknown mode", [](auto* r) { r->set_mode(static_cast<v1::LockMode>(9)); },
       Reason::kInvalidArgument},
      {"limit", [](auto* r) { r->set_limit(kLockHoldersMax + 1); }, Reason::kInvalidArgument},
      {"shared limit",
       [](auto* r) {
         r->set_mode(v1::LOCK_MODE_SHARED);
         r->set_limit(2);
       },
       Reason::kInvalidArgument},
      {"short ttl", [](auto* r) { SetMs(99, r->mutable_ttl()); }, Reason::kInvalidArgument},
      {"long ttl", [](auto* r) { SetMs(7 * 86'400'000 + 1, r->mutable_ttl()); },
       Reason::kInvalidArgument},
      {"negative ttl", [](auto* r) { r->mutable_ttl()->set_seconds(-1); },
       Reason::kInvalidArgument},
      {"short hold", [](auto* r) { SetMs(99, r->mutable_hold_max()); }, Reason::kInvalidArgument},
      {"negative timeout", [](auto* r) { r->mutable_timeout()->set_nanos(-1); },
       Reason::kInvalidArgument},
      {"far timeout", [](auto* r) { r->mutable_timeout()->set_seconds(INT64_MAX); }, Reason::kOk},
  };
  for (const Case& one : cases) {
    v1::AcquireLockRequest request = Ask(session, one.name);
    one.change(&request);
    EXPECT_EQ(Acquire(request).status().reason(), one.reason) << one.name;
  }
  v1::OpenSessionRequest open;
  SetMs(999, open.mutable_ttl());
  EXPECT_EQ(service_.Call<v1::OpenSessionResponse>(kOpen, open).status().reason(),
            Reason::kInvalidArgument);
  SetMs(2'000, open.mutable_ttl());
  SetMs(2'001, open.mutable_linger());
  EXPECT_EQ(service_.Call<v1::OpenSessionResponse>(kOpen, open).status().reason(),
            Reason::kInvalidArgument);
}

TEST_F(LockVerbsTest, ADescriptionTellsWhoHoldsAndWaits) {
  const uint64_t one = Open("the holder");
  const uint64_t two = Open("the waiter");
  const uint64_t token = Take(Ask(one));
  v1::AcquireLockRequest ask = Ask(two);
  ask.set_owner("named by itself, and longer than the forty bytes there are");
  ask.set_mode(v1::LOCK_MODE_SHARED);
  Answer answer;
  Wait(ask, &answer);

  const v1::Lock lock = Describe();

  EXPECT_EQ(lock.name(), "deploy");
  EXPECT_EQ(lock.limit(), 1u);
  ASSERT_EQ(lock.holders_size(), 1);
  EXPECT_EQ(lock.holders(0).owner(), "the holder");
  EXPECT_EQ(lock.holders(0).session_id(), one);
  EXPECT_EQ(lock.holders(0).token(), token);
  EXPECT_TRUE(lock.holders(0).has_expires_in());
  ASSERT_EQ(lock.waiters_size(), 1);
  EXPECT_EQ(lock.waiters(0).owner(), "named by itself, and longer than the for");
  EXPECT_EQ(lock.waiters(0).mode(), v1::LOCK_MODE_SHARED);
  EXPECT_EQ(lock.waiters(0).token(), 0u);
}

TEST_F(LockVerbsTest, ListsGiveEachLockOnce) {
  const uint64_t session = Open();
  for (int i = 0; i < 50; ++i) Take(Ask(session, "a/" + std::to_string(i)));
  Take(Ask(session, "b"));
  std::map<std::string, int> seen;
  v1::ListLocksRequest request;
  request.set_prefix("a/");
  request.set_page_size(7);
  do {
    const auto page = service_.Call<v1::ListLocksResponse>(kList, request);
    ASSERT_TRUE(page.ok()) << page.status().ToString();
    EXPECT_LE(page->locks_size(), 7);
    for (const v1::Lock& lock : page->locks()) ++seen[lock.name()];
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());

  EXPECT_EQ(seen.size(), 50u);
  for (const auto& [name, times] : seen) EXPECT_EQ(times, 1) << name;
  request.set_page_token("locks.1.zz.a/");
  EXPECT_EQ(service_.Call<v1::ListLocksResponse>(kList, request).status().reason(),
            Reason::kInvalidArgument);
}

TEST_F(LockVerbsTest, ADrainAnswersDraining) {
  const uint64_t session = Open();
  Take(Ask(session));
  Answer waits;
  const auto pending = Wait(Ask(session), &waits);
  Answer held;
  const auto hold = Hold(session, &held);

  service_.dispatcher().Shutdown();
  pending->Cancel();
  hold->Cancel();

  EXPECT_EQ(waits.Await().status().reason(), Reason::kDraining);
  EXPECT_EQ(held.Await().status().reason(), Reason::kDraining);
  EXPECT_EQ(waits.times(), 1);
  EXPECT_EQ(held.times(), 1);
}

}  // namespace
}  // namespace statehouse
