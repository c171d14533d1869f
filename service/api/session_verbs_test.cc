// The verbs of session.proto against a real engine.
#include "service/api/lock_verbs_test_support.h"

namespace statehouse {
namespace {

class SessionVerbsTest : public LockVerbsFixture {};

TEST_F(SessionVerbsTest, ASessionsEndGivesItsLocksToTheNext) {
  struct Case {
    const char* name;
    std::function<void(uint64_t)> end;
  };
  Answer held;
  std::shared_ptr<PendingCall> hold;
  const std::vector<Case> cases = {
      {"closed",
       [&](uint64_t session) {
         v1::CloseSessionRequest request;
         request.set_session_id(session);
         const auto closed = service_.Call<v1::CloseSessionResponse>(kClose, request);
         EXPECT_EQ(closed->released_locks(), 1u);
         EXPECT_EQ(service_.Call<v1::CloseSessionResponse>(kClose, request)->released_locks(), 0u);
       }},
      {"its connection breaks", [&](uint64_t session) { Hold(session, &held)->Cancel(); }},
      {"nothing is heard of it", [](uint64_t) {}},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.name);
    const uint64_t session =
        Open("holder", std::string(one.name).starts_with("nothing") ? 1'000 : 60'000);
    const uint64_t next = Open();
    Take(Ask(session, one.name));
    Answer waits_with_it;
    Wait(Ask(session, one.name), &waits_with_it);
    Answer answer;
    Wait(Ask(next, one.name), &answer);

    one.end(session);

    EXPECT_TRUE(Acquired(answer).acquired());
    EXPECT_EQ(waits_with_it.Await().status().reason(), Reason::kSessionNotFound);
    EXPECT_EQ(Acquire(Ask(session)).status().reason(), Reason::kSessionNotFound);
  }
}

TEST_F(SessionVerbsTest, ASessionIsHeldWhileAnyConnectionHoldsIt) {
  const uint64_t session = Open();
  Answer first;
  Answer second;
  const auto old = Hold(session, &first);
  const auto young = Hold(session, &second);

  old->Cancel();
  v1::RenewSessionRequest renew;
  renew.set_session_id(session);
  EXPECT_TRUE(service_.Call<v1::RenewSessionResponse>(kRenewSession, renew).ok());
  young->Cancel();

  EXPECT_EQ(service_.Call<v1::RenewSessionResponse>(kRenewSession, renew).status().reason(),
            Reason::kSessionNotFound);
  EXPECT_EQ(first.times(), 1);
  EXPECT_EQ(second.times(), 1);
}

TEST_F(SessionVerbsTest, ASessionLingersAfterItsConnection) {
  v1::OpenSessionRequest open;
  SetMs(60'000, open.mutable_ttl());
  SetMs(100, open.mutable_linger());
  const uint64_t session = service_.Call<v1::OpenSessionResponse>(kOpen, open)->session_id();
  Take(Ask(session));
  Answer first;
  Answer second;

  Hold(session, &first)->Cancel();
  EXPECT_EQ(Describe().holder_count(), 1u);
  Hold(session, &second)->Cancel();

  EXPECT_TRUE(Eventually([&] { return Describe().holder_count() == 0; }));
}

TEST_F(SessionVerbsTest, AHeldCallAnswersBeforeItsDeadline) {
  const uint64_t session = Open();
  v1::HoldSessionRequest request;
  request.set_session_id(session);
  CallContext context = service_.Context(IdentityOf({}));
  context.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
  Answer answer;

  const auto pending = service_.dispatcher().Dispatch(context, kHold, request.SerializeAsString(),
                                                      answer.Callback());

  EXPECT_FALSE(Told(answer).ended());
  pending->Cancel();
  Take(Ask(session));
}

TEST_F(SessionVerbsTest, ARenewalTellsWhetherAConnectionHoldsTheSession) {
  const uint64_t session = Open();
  v1::RenewSessionRequest renew;
  renew.set_session_id(session);
  const auto is_held = [&] {
    return service_.Call<v1::RenewSessionResponse>(kRenewSession, renew)->held();
  };
  EXPECT_FALSE(is_held());
  Answer answer;
  const auto pending = Hold(session, &answer);
  EXPECT_TRUE(is_held());
  pending->Cancel();  // The session ends with it, and what it would tell.
  EXPECT_TRUE(Eventually(
      [&] { return !service_.Call<v1::RenewSessionResponse>(kRenewSession, renew).ok(); }));
}

TEST_F(SessionVerbsTest, SessionsAreTheirTokensOwn) {
  const uint64_t session = Open();
  const auto stranger = IdentityOf({"lock:*:lock", "service:*:admin"}, "stranger");
  v1::RenewSessionRequest renew;
  renew.set_session_id(session);
  v1::CloseSessionRequest close;
  close.set_session_id(session);

  EXPECT_EQ(
      service_.CallAs<v1::RenewSessionResponse>(stranger, kRenewSession, renew).status().reason(),
      Reason::kSessionNotFound);
  EXPECT_EQ(
      service_.CallAs<v1::AcquireLockResponse>(stranger, kAcquire, Ask(session)).status().reason(),
      Reason::kSessionNotFound);
  EXPECT_TRUE(service_.CallAs<v1::CloseSessionResponse>(stranger, kClose, close).ok());
  Take(Ask(session));
}

TEST_F(SessionVerbsTest, SessionsAreListed) {
  std::map<uint64_t, std::string> opened;
  for (int i = 0; i < 5; ++i) {
    const std::string name = "client\n" + std::to_string(i);
    opened[Open(name)] = "client?" + std::to_string(i);
  }
  Take(Ask(opened.begin()->first));
  std::map<uint64_t, std::string> listed;
  uint32_t locks = 0;
  v1::ListSessionsRequest request;
  request.set_page_size(2);
  do {
    const auto page = service_.Call<v1::ListSessionsResponse>(kListSessions, request);
    ASSERT_TRUE(page.ok()) << page.status().ToString();
    for (const v1::Session& session : page->sessions()) {
      listed[session.session_id()] = session.client_name();
      EXPECT_EQ(session.token_id(), "testtest");
      locks += session.lock_count();
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());

  EXPECT_EQ(listed, opened);
  EXPECT_EQ(locks, 1u);
}

}  // namespace
}  // namespace statehouse
