#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <thread>

#include "engine/shm/layout.h"
#include "service/api/api_test_support.h"
#include "service/api/wait_table.h"
#include "service/auth/token_file.h"
#include "statehouse/v1/area.pb.h"

namespace statehouse {
namespace {

constexpr char kWaitArea[] = "/statehouse.v1.Areas/WaitArea";

class WaitTest : public ::testing::Test {
 protected:
  std::string WaitFor(const std::string& name, std::optional<uint64_t> since,
                      std::optional<int64_t> timeout_ms = std::nullopt, uint64_t pos = 0,
                      std::optional<uint64_t> len = std::nullopt) {
    v1::WaitAreaRequest request;
    request.set_name(name);
    if (since) request.set_since(*since);
    if (timeout_ms) {
      request.mutable_timeout()->set_seconds(*timeout_ms / 1000);
      request.mutable_timeout()->set_nanos(static_cast<int32_t>(*timeout_ms % 1000) * 1'000'000);
    }
    request.set_pos(pos);
    if (len) request.set_len(*len);
    return request.SerializeAsString();
  }
  void Touch(ServedArea& served, uint64_t pos = 0) {
    const std::byte byte{1};
    ASSERT_TRUE(served.area().Write(service_.engine().DaemonLane(2), pos, {&byte, 1}).ok());
  }
  static v1::WaitAreaResponse ResponseOf(const Answer& answer) {
    v1::WaitAreaResponse response;
    const StatusOr<std::string> bytes = answer.Await();
    EXPECT_TRUE(bytes.ok()) << bytes.status().ToString();
    if (bytes.ok()) {
      EXPECT_TRUE(response.ParseFromString(*bytes));
    }
    return response;
  }

  TestService service_;
};

TEST_F(WaitTest, WithoutSinceItAnswersAtOnce) {
  const auto area = service_.MakeArea("a", 8);
  Touch(*area);
  Answer answer;
  EXPECT_EQ(service_.Send(kWaitArea, WaitFor("a", std::nullopt), &answer), nullptr);

  EXPECT_FALSE(ResponseOf(answer).changed());
  EXPECT_EQ(ResponseOf(answer).updates(), area->area().Updates());
}

TEST_F(WaitTest, OldCounterAndZeroTimeoutAnswerAtOnce) {
  const auto area = service_.MakeArea("a", 8);
  const uint64_t before = area->area().Updates();
  Answer same;
  service_.Send(kWaitArea, WaitFor("a", before, 0), &same);
  EXPECT_FALSE(ResponseOf(same).changed());
  Touch(*area);
  Answer old;
  service_.Send(kWaitArea, WaitFor("a", before), &old);
  EXPECT_TRUE(ResponseOf(old).changed());
  EXPECT_EQ(ResponseOf(old).updates(), area->area().Updates());
}

TEST_F(WaitTest, ParkedWaitEndsByAChange) {
  const auto area = service_.MakeArea("a", 8);
  Answer answer;
  const auto pending = service_.Send(kWaitArea, WaitFor("a", area->area().Updates()), &answer);
  ASSERT_NE(pending, nullptr);
  EXPECT_FALSE(answer.has_come());
  EXPECT_EQ(service_.dispatcher().CallsInFlight(), 1u);

  Touch(*area);

  EXPECT_TRUE(ResponseOf(answer).changed());
  pending->Cancel();  // Too late: nothing happens.
  EXPECT_EQ(answer.times(), 1);
  EXPECT_TRUE(Eventually([this] { return service_.dispatcher().CallsInFlight() == 0; }));
}

TEST_F(WaitTest, ParkedWaitEndsByTimeoutWithoutChange) {
  const auto area = service_.MakeArea("a", 8);
  Answer answer;
  service_.Send(kWaitArea, WaitFor("a", area->area().Updates(), 20), &answer);

  EXPECT_FALSE(ResponseOf(answer).changed());
}

TEST_F(WaitTest, ParkedWaitEndsAtItsDeadlineWithTimeout) {
  const auto area = service_.MakeArea("a", 8);
  CallContext context = service_.Context(IdentityOf({"area:*:read"}));
  context.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
  Answer answer;
  service_.dispatcher().Dispatch(context, kWaitArea, WaitFor("a", area->area().Updates()),
                                 answer.Callback());

  EXPECT_EQ(answer.Await().status().reason(), Reason::kTimeout);
}

// Knows the tokens in `known` only, with the identity given there.
class FewTokens final : public Authenticator {
 public:
  StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view,
                                                         std::string_view) override {
    return Status(Reason::kInternal, "not used here");
  }
  StatusOr<std::shared_ptr<const Identity>> Revalidate(const Identity& identity) override {
    const auto found = known.find(identity.token_id());
    if (found != known.end()) return found->second;
    return Status(Reason::kUnauthenticated, "token " + identity.token_id() + " was revoked");
  }
  uint64_t generation() const override { return 1; }
  bool AnyExpired(int64_t, int64_t) const override { return false; }
  void SetTokenLimits(const CallLimits& limits) override {}
  Status Reload() override { return Status(); }

  std::map<std::string, std::shared_ptr<const Identity>> known;
};

std::shared_ptr<const Identity> Token(const std::string& id, const std::string& grant) {
  return std::make_shared<const Identity>(id, "", 0, std::vector<Grant>{*ParseGrant(grant)});
}

TEST_F(WaitTest, WaitsOfARevokedTokenEndAndThoseOfOthersStay) {
  const auto area = service_.MakeArea("a", 8);
  const std::string request = WaitFor("a", area->area().Updates());
  FewTokens tokens;
  const char* const ids[] = {"revoked", "narrowed", "kept"};
  Answer answers[3];
  for (int i = 0; i < 3; ++i) {
    const CallContext context = service_.Context(Token(ids[i], "area:*:read"));
    ASSERT_NE(service_.dispatcher().Dispatch(context, kWaitArea, request, answers[i].Callback()),
              nullptr);
  }
  tokens.known["narrowed"] = Token("narrowed", "area:b:read");
  tokens.known["kept"] = Token("kept", "area:a:read");

  service_.dispatcher().RecheckIdentities(&tokens);

  const Status revoked = answers[0].Await().status();
  EXPECT_EQ(revoked.reason(), Reason::kUnauthenticated);
  EXPECT_THAT(revoked.message(), ::testing::HasSubstr("area \"a\": token revoked was revoked"));
  EXPECT_EQ(answers[1].Await().status().reason(), Reason::kPermissionDenied);
  EXPECT_FALSE(answers[2].has_come());
  Touch(*area);
  EXPECT_TRUE(ResponseOf(answers[2]).changed());
}

TEST_F(WaitTest, ACallAuthenticatedBeforeARevocationAndParkedAfterItEndsToo) {
  const auto area = service_.MakeArea("a", 8);
  FewTokens tokens;
  service_.dispatcher().RecheckIdentities(&tokens);
  Answer late;

  const CallContext context = service_.Context(Token("revoked", "area:*:read"));
  service_.dispatcher().Dispatch(context, kWaitArea, WaitFor("a", area->area().Updates()),
                                 late.Callback());

  EXPECT_EQ(late.Await().status().reason(), Reason::kUnauthenticated);
  EXPECT_TRUE(Eventually([this] { return service_.dispatcher().CallsInFlight() == 0; }));
}

TEST_F(WaitTest, CancelEndsAParkedWaitAndLeavesNothing) {
  const auto area = service_.MakeArea("a", 8);
  Answer answer;
  const auto pending = service_.Send(kWaitArea, WaitFor("a", area->area().Updates()), &answer);

  pending->Cancel();
  pending->Cancel();

  EXPECT_EQ(answer.Await().status().reason(), Reason::kCancelled);
  EXPECT_TRUE(Eventually([this] { return service_.dispatcher().CallsInFlight() == 0; }));
  Touch(*area);
  EXPECT_EQ(answer.times(), 1);
}

TEST_F(WaitTest, DeletionEndsParkedWaitsWithNotFound) {
  const auto area = service_.MakeArea("a", 8);
  Answer answer;
  service_.Send(kWaitArea, WaitFor("a", area->area().Updates()), &answer);

  ASSERT_TRUE(service_.engine().DeleteArea("a").ok());

  EXPECT_EQ(answer.Await().status().reason(), Reason::kAreaNotFound);
}

TEST_F(WaitTest, ShutdownEndsParkedWaitsWithDraining) {
  const auto area = service_.MakeArea("a", 8);
  Answer answer;
  const auto pending = service_.Send(kWaitArea, WaitFor("a", area->area().Updates()), &answer);

  service_.dispatcher().Shutdown();

  EXPECT_EQ(answer.Await().status().reason(), Reason::kDraining);
  pending->Cancel();
  EXPECT_EQ(answer.times(), 1);
}

TEST_F(WaitTest, RangeWaitSleepsThroughChangesElsewhere) {
  const auto area = service_.MakeArea("a", 64 << 10);
  const uint64_t last = (64 << 10) - 1;
  Answer answer;
  service_.Send(kWaitArea,
                WaitFor("a", *area->area().UpdatesOfRange(last, 1), std::nullopt, last, 1),
                &answer);
  for (int i = 0; i < 1000; ++i) Touch(*area, 0);
  EXPECT_FALSE(answer.has_come());

  Touch(*area, last);

  EXPECT_TRUE(ResponseOf(answer).changed());
}

TEST_F(WaitTest, FieldsAreChecked) {
  service_.MakeArea("a", 8);
  struct Row {
    std::string request;
    Reason reason;
  };
  const Row rows[] = {
      {WaitFor("b", 0), Reason::kAreaNotFound},
      {WaitFor("a", 0, std::nullopt, 0, 0), Reason::kInvalidArgument},
      {WaitFor("a", 0, -5), Reason::kInvalidArgument},
      {WaitFor("a", 0, std::nullopt, 8), Reason::kOutOfBounds},
      {WaitFor("a", 0, std::nullopt, 4, 5), Reason::kOutOfBounds},
      {WaitFor("a", 0, std::nullopt, UINT64_MAX), Reason::kOutOfBounds},
  };
  for (const Row& row : rows) {
    Answer answer;
    service_.Send(kWaitArea, row.request, &answer);
    EXPECT_EQ(answer.Await().status().reason(), row.reason);
  }
}

TEST_F(WaitTest, MoreAreasThanWatchersAreAllServed) {
  constexpr size_t kAreas = 3 * kWatcherThreadsMax;
  std::vector<std::shared_ptr<ServedArea>> areas;
  std::vector<Answer> answers(kAreas);
  for (size_t i = 0; i < kAreas; ++i) {
    areas.push_back(service_.MakeArea("a" + std::to_string(i), 8));
    service_.Send(kWaitArea, WaitFor("#" + std::to_string(i), areas[i]->area().Updates()),
                  &answers[i]);
  }

  for (size_t i = kAreas; i > 0; --i) {
    Touch(*areas[i - 1]);
    EXPECT_TRUE(ResponseOf(answers[i - 1]).changed());
  }
}

TEST(WaitLimitTest, OneWaitBeyondTheLimitIsRefused) {
  DispatcherOptions options;
  options.waiters_max = 3;
  TestService service(options);
  const auto area = service.MakeArea("a", 8);
  v1::WaitAreaRequest request;
  request.set_name("a");
  request.set_since(area->area().Updates());
  std::vector<Answer> answers(4);
  for (Answer& answer : answers) service.Send(kWaitArea, request.SerializeAsString(), &answer);

  EXPECT_EQ(answers[3].Await().status().reason(), Reason::kLimitExceeded);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(answers[i].has_come());
}

TEST_F(WaitTest, ThousandsOfWaitsOnOneAreaEndTogetherEachOnce) {
  const auto area = service_.MakeArea("a", 8);
  std::vector<Answer> answers(5000);
  const std::string request = WaitFor("a", area->area().Updates());
  for (Answer& answer : answers) service_.Send(kWaitArea, request, &answer);
  EXPECT_EQ(service_.dispatcher().CallsInFlight(), answers.size());

  Touch(*area);

  for (Answer& answer : answers) EXPECT_TRUE(ResponseOf(answer).changed());
  for (Answer& answer : answers) EXPECT_EQ(answer.times(), 1);
}

TEST_F(WaitTest, WaitsAndChangesRaceWithoutALostWakeUp) {
  const auto area = service_.MakeArea("a", 8);
  std::atomic<uint64_t> rounds{0};
  // Read before the thread runs: a change that came first would otherwise cost a round.
  std::thread waiter([&, since = area->area().Updates()]() mutable {
    for (int i = 0; i < 2000; ++i) {
      Answer answer;
      service_.Send(kWaitArea, WaitFor("a", since), &answer);
      since = ResponseOf(answer).updates();
      rounds.fetch_add(1);
    }
  });
  // One change for each round: a lost wake-up would leave both sides waiting for ever.
  for (uint64_t i = 0; i < 2000; ++i) {
    Touch(*area);
    EXPECT_TRUE(Eventually([&] { return rounds.load() > i || rounds.load() == 2000; }));
  }
  waiter.join();
}

TEST_F(WaitTest, CancelsTimeoutsAndChangesRaceCleanly) {
  const auto area = service_.MakeArea("a", 8);
  std::vector<Answer> answers(3000);
  std::vector<std::shared_ptr<PendingCall>> pending(answers.size());
  std::thread writer([&] {
    for (int i = 0; i < 300; ++i) {
      Touch(*area);
      std::this_thread::yield();
    }
  });
  for (size_t i = 0; i < answers.size(); ++i) {
    pending[i] = service_.Send(
        kWaitArea, WaitFor("a", area->area().Updates(), static_cast<int64_t>(1 + i % 5)),
        &answers[i]);
    if (i % 3 == 0 && pending[i] != nullptr) pending[i]->Cancel();
  }
  writer.join();

  for (Answer& answer : answers) (void)answer.Await().ok();
  for (Answer& answer : answers) EXPECT_EQ(answer.times(), 1);
  EXPECT_TRUE(Eventually([this] { return service_.dispatcher().CallsInFlight() == 0; }));
}

// A worker that stopped inside an operation: its lane owns the area's first stripe.
class HeldStripe final {
 public:
  HeldStripe(Engine& engine, ServedArea& served) {
    const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
    auto lease = engine.LeaseLanes(pidfd);
    EXPECT_TRUE(lease.ok()) << lease.status().ToString();
    lease_ = *std::move(lease);
    auto opened = engine.OpenForWorker(served, lease_.block, Access::kReadWrite);
    EXPECT_TRUE(opened.ok()) << opened.status().ToString();
    memory_ = ::mmap(nullptr, 2 * kStripeLinesOffset, PROT_READ | PROT_WRITE, MAP_SHARED,
                     opened->control.get(), 0);
    EXPECT_NE(memory_, MAP_FAILED);
    stripe_ = reinterpret_cast<StripeLine*>(static_cast<std::byte*>(memory_) + kStripeLinesOffset);
    free_ = stripe_->control.load();
    stripe_->control.store(free_ | lease_.first_lane);
  }
  ~HeldStripe() {
    Release();
    ::munmap(memory_, 2 * kStripeLinesOffset);
  }
  void Release() { stripe_->control.store(free_); }

 private:
  LaneLease lease_;
  void* memory_ = nullptr;
  StripeLine* stripe_ = nullptr;
  uint64_t free_ = 0;
};

TEST_F(WaitTest, OperationOnAHeldStripeMovesToTheSlowThreadAndEndsWhenItIsFree) {
  const auto area = service_.MakeArea("a", 8);
  const auto other = service_.MakeArea("b", 4 << 20);
  HeldStripe held(service_.engine(), *area);
  v1::AddWordRequest add;
  add.set_name("a");
  add.set_type(v1::WORD_TYPE_U64);
  Answer answer;
  service_.Send("/statehouse.v1.Areas/AddWord", add.SerializeAsString(), &answer);
  EXPECT_FALSE(answer.has_come());
  // The slow thread serves others meanwhile.
  v1::FillAreaRequest fill;
  fill.set_name("b");
  fill.set_value(1);
  EXPECT_TRUE(service_.Call<v1::FillAreaResponse>("/statehouse.v1.Areas/FillArea", fill).ok());

  held.Release();

  v1::AddWordResponse response;
  const StatusOr<std::string> bytes = answer.Await();
  ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
  ASSERT_TRUE(response.ParseFromString(*bytes));
  EXPECT_EQ(response.value().unsigned_value(), 1u);
}

TEST_F(WaitTest, OperationOnAStripeThatStaysHeldEndsWithStalledOrAtItsDeadline) {
  EngineOptions engine_options;
  engine_options.operation_timeout_ns = 30'000'000;
  TestService service({}, engine_options);
  const auto area = service.MakeArea("a", 8);
  HeldStripe held(service.engine(), *area);
  v1::AddWordRequest add;
  add.set_name("a");
  add.set_type(v1::WORD_TYPE_U64);

  EXPECT_EQ(
      service.Call<v1::AddWordResponse>("/statehouse.v1.Areas/AddWord", add).status().reason(),
      Reason::kStalled);
  CallContext context = service.Context(IdentityOf({"area:*:write"}));
  context.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(5);
  Answer answer;
  service.dispatcher().Dispatch(context, "/statehouse.v1.Areas/AddWord", add.SerializeAsString(),
                                answer.Callback());
  EXPECT_EQ(answer.Await().status().reason(), Reason::kTimeout);
}

TEST_F(WaitTest, ShutdownAnswersWhatTheSlowThreadHolds) {
  const auto area = service_.MakeArea("a", 8);
  HeldStripe held(service_.engine(), *area);
  v1::AddWordRequest add;
  add.set_name("a");
  add.set_type(v1::WORD_TYPE_U64);
  std::vector<Answer> answers(20);
  for (Answer& answer : answers) {
    service_.Send("/statehouse.v1.Areas/AddWord", add.SerializeAsString(), &answer);
  }

  service_.dispatcher().Shutdown();

  for (Answer& answer : answers) {
    EXPECT_EQ(answer.Await().status().reason(), Reason::kDraining);
    EXPECT_EQ(answer.times(), 1);
  }
  EXPECT_EQ(service_.dispatcher().CallsInFlight(), 0u);
  EXPECT_EQ(service_.observer().total(), answers.size());
}

}  // namespace
}  // namespace statehouse
