// Locks over the network door of the real service, while clients and daemons are killed.
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "engine/os/futex.h"
#include "service/auth/token_file.h"
#include "statehouse/internal/v1/rpc_status.pb.h"
#include "statehouse/v1/admin.grpc.pb.h"
#include "statehouse/v1/error.pb.h"
#include "statehouse/v1/lock.grpc.pb.h"
#include "statehouse/v1/session.grpc.pb.h"
#include "tests/support/daemon.h"

namespace statehouse::testing {
namespace {

using Clock = std::chrono::steady_clock;

void SetMs(int64_t ms, google::protobuf::Duration* duration) {
  duration->set_seconds(ms / 1000);
  duration->set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
}

// A call under way.
template <typename Response>
struct Pending {
  grpc::ClientContext context;
  Response response;
  grpc::Status status;
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  Clock::time_point ended;

  std::function<void(grpc::Status)> Callback() {
    return [this](grpc::Status result) {
      const std::lock_guard<std::mutex> lock(mutex);
      status = std::move(result);
      ended = Clock::now();
      done = true;
      changed.notify_all();
    };
  }
  bool is_done() {
    const std::lock_guard<std::mutex> lock(mutex);
    return done;
  }
  const grpc::Status& Await() {
    std::unique_lock<std::mutex> lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, kPatience, [this] { return done; }));
    return status;
  }
};
using PendingAcquire = Pending<v1::AcquireLockResponse>;
using PendingHold = Pending<v1::HoldSessionResponse>;

// A client with a connection and a session of its own.
class Client final {
 public:
  Client(const std::string& address, const std::string& token) : token_(token) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 10);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto channel =
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
    locks_ = v1::Locks::NewStub(channel);
    sessions_ = v1::Sessions::NewStub(channel);
    admin_ = v1::Admin::NewStub(channel);
  }

  uint64_t session() const { return session_; }
  grpc::Status Open(int64_t ttl_ms = 60'000) {
    v1::OpenSessionRequest request;
    request.set_client_name("locks_test");
    SetMs(ttl_ms, request.mutable_ttl());
    v1::OpenSessionResponse response;
    const auto context = Context();
    const grpc::Status status = sessions_->OpenSession(context.get(), request, &response);
    session_ = response.session_id();
    return status;
  }
  v1::AcquireLockRequest Ask(const std::string& name) {
    v1::AcquireLockRequest request;
    request.set_name(name);
    request.set_session_id(session_);
    request.set_request_id(next_request_++);
    request.set_mode(v1::LOCK_MODE_EXCLUSIVE);
    return request;
  }
  // Waits for it.
  v1::AcquireLockResponse Acquire(const v1::AcquireLockRequest& request) {
    v1::AcquireLockResponse response;
    const auto context = Context();
    const grpc::Status status = locks_->AcquireLock(context.get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  std::unique_ptr<PendingAcquire> Begin(const v1::AcquireLockRequest& request) {
    auto pending = std::make_unique<PendingAcquire>();
    Prepare(&pending->context);
    requests_.push_back(request);
    locks_->async()->AcquireLock(&pending->context, &requests_.back(), &pending->response,
                                 pending->Callback());
    return pending;
  }
  std::unique_ptr<PendingHold> Hold() {
    auto pending = std::make_unique<PendingHold>();
    Prepare(&pending->context);
    hold_.set_session_id(session_);
    sessions_->async()->HoldSession(&pending->context, &hold_, &pending->response,
                                    pending->Callback());
    return pending;
  }
  bool Release(const std::string& name, uint64_t token) {
    v1::ReleaseLockRequest request;
    request.set_name(name);
    request.set_session_id(session_);
    request.set_token(token);
    v1::ReleaseLockResponse response;
    const auto context = Context();
    const grpc::Status status = locks_->ReleaseLock(context.get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.held();
  }
  grpc::Status Renew(const std::string& name, uint64_t token) {
    v1::RenewLockRequest request;
    request.set_name(name);
    request.set_session_id(session_);
    request.set_token(token);
    v1::RenewLockResponse response;
    const auto context = Context();
    return locks_->RenewLock(context.get(), request, &response);
  }
  v1::Lock Describe(const std::string& name) {
    v1::DescribeLockRequest request;
    request.set_name(name);
    v1::DescribeLockResponse response;
    const auto context = Context();
    const grpc::Status status = locks_->DescribeLock(context.get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.lock();
  }
  uint32_t ForceRelease(const std::string& name) {
    v1::ForceReleaseLockRequest request;
    request.set_name(name);
    v1::ForceReleaseLockResponse response;
    const auto context = Context();
    EXPECT_TRUE(locks_->ForceReleaseLock(context.get(), request, &response).ok());
    return response.released();
  }
  grpc::Status RenewSession() {
    v1::RenewSessionRequest request;
    request.set_session_id(session_);
    v1::RenewSessionResponse response;
    const auto context = Context();
    return sessions_->RenewSession(context.get(), request, &response);
  }
  void Drain() {
    v1::DrainResponse response;
    const auto context = Context();
    EXPECT_TRUE(admin_->Drain(context.get(), v1::DrainRequest(), &response).ok());
  }

 private:
  void Prepare(grpc::ClientContext* context) const {
    context->AddMetadata("authorization", "Bearer " + token_);
    context->set_deadline(std::chrono::system_clock::now() + kPatience);
    context->set_wait_for_ready(true);
  }
  std::unique_ptr<grpc::ClientContext> Context() const {
    auto context = std::make_unique<grpc::ClientContext>();
    Prepare(context.get());
    return context;
  }

  const std::string token_;
  std::unique_ptr<v1::Locks::Stub> locks_;
  std::unique_ptr<v1::Sessions::Stub> sessions_;
  std::unique_ptr<v1::Admin::Stub> admin_;
  std::deque<v1::AcquireLockRequest> requests_;  // Of calls under way.
  v1::HoldSessionRequest hold_;
  uint64_t session_ = 0;
  uint64_t next_request_ = 1;
};

v1::ErrorReason ReasonOf(const grpc::Status& status) {
  statehouse::internal::v1::RpcStatus rpc;
  v1::ErrorDetail detail;
  const bool told = rpc.ParseFromString(status.error_details()) && rpc.details_size() == 1 &&
                    rpc.details(0).UnpackTo(&detail);
  EXPECT_TRUE(told) << status.error_message();
  return detail.reason();
}

class LocksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto daemon = Daemon::Start();
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
  }
  std::unique_ptr<Client> Connect(int64_t ttl_ms = 60'000) {
    auto client = std::make_unique<Client>(daemon_->tcp_address(), daemon_->token());
    const grpc::Status opened = client->Open(ttl_ms);
    EXPECT_TRUE(opened.ok()) << opened.error_message();
    return client;
  }
  static void AwaitWaiters(Client& client, const std::string& name, uint32_t waiters) {
    EXPECT_TRUE(Eventually([&] { return client.Describe(name).waiter_count() == waiters; }));
  }

  std::unique_ptr<Daemon> daemon_;
};

TEST_F(LocksTest, OneAtATimeAndEveryGrantHasAHigherToken) {
  constexpr int kClients = 4;
  constexpr int kRounds = 50;
  int inside = 0;           // Guarded by the lock alone.
  uint64_t last_token = 0;  // The same.
  std::vector<std::thread> threads;

  for (int i = 0; i < kClients; ++i) {
    threads.emplace_back([&] {
      const auto client = Connect();
      for (int round = 0; round < kRounds; ++round) {
        const v1::AcquireLockResponse acquired = client->Acquire(client->Ask("shared thing"));
        ASSERT_TRUE(acquired.acquired());
        EXPECT_EQ(++inside, 1);
        EXPECT_GT(acquired.token(), last_token);
        last_token = acquired.token();
        --inside;
        EXPECT_TRUE(client->Release("shared thing", acquired.token()));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(LocksTest, TwoClientsTakeTurnsInOrder) {
  const auto one = Connect();
  const auto two = Connect();
  uint64_t token = one->Acquire(one->Ask("turns")).token();
  std::vector<std::unique_ptr<PendingAcquire>> waiting;
  for (uint32_t i = 0; i < 6; ++i) {
    Client& client = i % 2 == 0 ? *two : *one;
    waiting.push_back(client.Begin(client.Ask("turns")));
    AwaitWaiters(*one, "turns", i + 1);
  }

  for (size_t i = 0; i < waiting.size(); ++i) {
    Client& holder = i == 0 || i % 2 == 0 ? *one : *two;
    EXPECT_TRUE(holder.Release("turns", token));
    ASSERT_TRUE(waiting[i]->Await().ok());
    EXPECT_TRUE(waiting[i]->response.acquired());
    EXPECT_GT(waiting[i]->response.token(), token);
    for (size_t later = i + 1; later < waiting.size(); ++later) {
      EXPECT_FALSE(waiting[later]->is_done());
    }
    token = waiting[i]->response.token();
  }
}

TEST_F(LocksTest, SharedHoldersSeatsTriesAndTimeouts) {
  const auto one = Connect();
  const auto two = Connect();
  v1::AcquireLockRequest shared = one->Ask("read");
  shared.set_mode(v1::LOCK_MODE_SHARED);
  v1::AcquireLockRequest shared_too = two->Ask("read");
  shared_too.set_mode(v1::LOCK_MODE_SHARED);
  v1::AcquireLockRequest seat = one->Ask("seats");
  seat.set_limit(2);
  v1::AcquireLockRequest seat_too = two->Ask("seats");
  seat_too.set_limit(2);
  v1::AcquireLockRequest try_third = two->Ask("seats");
  try_third.set_limit(2);
  SetMs(0, try_third.mutable_timeout());
  v1::AcquireLockRequest brief = two->Ask("read");
  SetMs(30, brief.mutable_timeout());

  EXPECT_TRUE(one->Acquire(shared).acquired());
  EXPECT_TRUE(two->Acquire(shared_too).acquired());
  EXPECT_TRUE(one->Acquire(seat).acquired());
  EXPECT_TRUE(two->Acquire(seat_too).acquired());
  EXPECT_FALSE(two->Acquire(try_third).acquired());
  EXPECT_FALSE(two->Acquire(brief).acquired());

  EXPECT_EQ(one->Describe("seats").waiter_count(), 0u);
  EXPECT_EQ(one->Describe("read").waiter_count(), 0u);
  EXPECT_EQ(one->Describe("read").holder_count(), 2u);
}

TEST_F(LocksTest, AHolderIsToldOfItsLosses) {
  const auto holder = Connect();
  const auto next = Connect();
  v1::AcquireLockRequest brief = holder->Ask("brief");
  SetMs(200, brief.mutable_ttl());
  const uint64_t brief_token = holder->Acquire(brief).token();
  const uint64_t forced_token = holder->Acquire(holder->Ask("forced")).token();
  auto told = holder->Hold();
  const auto waiting = next->Begin(next->Ask("brief"));

  ASSERT_TRUE(waiting->Await().ok());
  EXPECT_GT(waiting->response.token(), forced_token);
  ASSERT_TRUE(told->Await().ok()) << told->status.error_message();
  ASSERT_EQ(told->response.lost_locks_size(), 1);
  EXPECT_EQ(told->response.lost_locks(0).token(), brief_token);
  EXPECT_EQ(ReasonOf(holder->Renew("brief", brief_token)), v1::ERROR_REASON_LOCK_LOST);

  told = holder->Hold();
  EXPECT_EQ(next->ForceRelease("forced"), 1u);
  ASSERT_TRUE(told->Await().ok());
  ASSERT_EQ(told->response.lost_locks_size(), 1);
  EXPECT_EQ(told->response.lost_locks(0).name(), "forced");
  EXPECT_EQ(told->response.lost_locks(0).token(), forced_token);
  EXPECT_FALSE(told->response.ended());
  EXPECT_FALSE(holder->Release("forced", forced_token));
}

// Runs in a process of its own: holds the lock until it is killed.
constexpr char kAddressVariable[] = "LOCKS_TEST_ADDRESS";
constexpr char kTokenVariable[] = "LOCKS_TEST_TOKEN";

TEST(LocksTestHolder, DISABLED_HoldsALockUntilItIsKilled) {
  const char* const address = getenv(kAddressVariable);
  const char* const token = getenv(kTokenVariable);
  ASSERT_TRUE(address != nullptr && token != nullptr) << "another test starts this one";
  Client client(address, token);
  ASSERT_TRUE(client.Open().ok());
  const auto held = client.Hold();
  if (client.Acquire(client.Ask("of a mortal")).acquired()) {
    (void)held->Await();  // Until it is killed.
  }
}

pid_t StartHolder(const Daemon& daemon) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  setenv(kAddressVariable, daemon.tcp_address().c_str(), 1);
  setenv(kTokenVariable, daemon.token().c_str(), 1);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int null = open("/dev/null", O_WRONLY);
  dup2(null, STDOUT_FILENO);
  execl("/proc/self/exe", "locks_test", "--gtest_also_run_disabled_tests",
        "--gtest_filter=LocksTestHolder.DISABLED_HoldsALockUntilItIsKilled", nullptr);
  _exit(127);
}

TEST_F(LocksTest, TheNextOneRunsSoonAfterAHolderIsKilled) {
  constexpr int kRounds = 20;
  const auto next = Connect();
  std::vector<double> latencies_ms;

  for (int round = 0; round < kRounds; ++round) {
    const pid_t holder = StartHolder(*daemon_);
    ASSERT_GT(holder, 0);
    ASSERT_TRUE(Eventually([&] { return next->Describe("of a mortal").holder_count() == 1; }));
    const auto waiting = next->Begin(next->Ask("of a mortal"));
    AwaitWaiters(*next, "of a mortal", 1);

    const Clock::time_point killed = Clock::now();
    kill(holder, SIGKILL);

    ASSERT_TRUE(waiting->Await().ok()) << waiting->status.error_message();
    EXPECT_TRUE(waiting->response.acquired());
    latencies_ms.push_back(
        std::chrono::duration<double, std::milli>(waiting->ended - killed).count());
    EXPECT_EQ(WaitForExit(holder), 128 + SIGKILL);
    EXPECT_TRUE(next->Release("of a mortal", waiting->response.token()));
  }

  std::sort(latencies_ms.begin(), latencies_ms.end());
  printf("holder killed -> next one has the lock: median %.2f ms, max %.2f ms, of %d\n",
         latencies_ms[kRounds / 2], latencies_ms.back(), kRounds);
}

TEST_F(LocksTest, AKilledDaemonForgetsNoSessionLeaseOrPlace) {
  const auto holder = Connect();
  const auto first = Connect();
  const auto second = Connect();
  const uint64_t token = holder->Acquire(holder->Ask("kept")).token();
  const std::vector<Client*> order = {second.get(), first.get(), second.get(), holder.get()};
  std::vector<v1::AcquireLockRequest> asks;
  std::vector<std::unique_ptr<PendingAcquire>> cut_off;
  for (size_t i = 0; i < order.size(); ++i) {
    asks.push_back(order[i]->Ask("kept"));
    cut_off.push_back(order[i]->Begin(asks.back()));
    AwaitWaiters(*holder, "kept", static_cast<uint32_t>(i + 1));
  }

  const Status killed = daemon_->KillDaemonAndWait();
  ASSERT_TRUE(killed.ok()) << killed.ToString();

  for (const auto& pending : cut_off) {
    EXPECT_EQ(pending->Await().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
  EXPECT_TRUE(holder->RenewSession().ok());
  const grpc::Status renewed = holder->Renew("kept", token);
  EXPECT_TRUE(renewed.ok()) << renewed.error_message();
  EXPECT_EQ(holder->Describe("kept").waiter_count(), order.size());
  std::vector<std::unique_ptr<PendingAcquire>> again(order.size());
  for (size_t i = order.size(); i > 0; --i) {  // In the wrong order, for their places are kept.
    again[i - 1] = order[i - 1]->Begin(asks[i - 1]);
  }
  Client* now = holder.get();
  uint64_t now_token = token;
  for (size_t i = 0; i < order.size(); ++i) {
    EXPECT_TRUE(now->Release("kept", now_token));
    ASSERT_TRUE(again[i]->Await().ok()) << again[i]->status.error_message();
    EXPECT_TRUE(again[i]->response.acquired());
    EXPECT_GT(again[i]->response.token(), now_token);
    for (size_t later = i + 1; later < order.size(); ++later) {
      EXPECT_FALSE(again[later]->is_done());
    }
    now = order[i];
    now_token = again[i]->response.token();
  }
  EXPECT_EQ(now->Acquire(asks.back()).token(), now_token) << "the lease of a repeated request";
}

TEST_F(LocksTest, WhoDoesNotComeBackAfterARestartLosesItsPlace) {
  const auto holder = Connect();
  auto gone = Connect();
  const auto next = Connect();
  const uint64_t token = holder->Acquire(holder->Ask("kept")).token();
  const auto cut_off = gone->Begin(gone->Ask("kept"));
  AwaitWaiters(*holder, "kept", 1);

  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  EXPECT_FALSE(cut_off->Await().ok());
  const auto waiting = next->Begin(next->Ask("kept"));
  AwaitWaiters(*holder, "kept", 2);
  AwaitWaiters(*holder, "kept", 1);  // After its grace.

  EXPECT_TRUE(holder->Release("kept", token));
  ASSERT_TRUE(waiting->Await().ok());
  EXPECT_TRUE(waiting->response.acquired());
}

TEST_F(LocksTest, AThousandWaitForOneLock) {
  constexpr uint32_t kWaiters = 1'000;
  const auto client = Connect();
  uint64_t token = client->Acquire(client->Ask("crowded")).token();
  std::vector<std::unique_ptr<PendingAcquire>> waiting;
  for (uint32_t i = 0; i < kWaiters; ++i) {
    waiting.push_back(client->Begin(client->Ask("crowded")));
  }
  AwaitWaiters(*client, "crowded", kWaiters);

  const Clock::time_point begin = Clock::now();
  for (const auto& next : waiting) {
    ASSERT_TRUE(client->Release("crowded", token));
    ASSERT_TRUE(next->Await().ok()) << next->status.error_message();
    ASSERT_GT(next->response.token(), token);
    token = next->response.token();
  }

  printf("%u handovers through one queue: %.3f ms each\n", kWaiters,
         std::chrono::duration<double, std::milli>(Clock::now() - begin).count() / kWaiters);
  EXPECT_EQ(client->Describe("crowded").waiter_count(), 0u);
}

TEST_F(LocksTest, ARevokedTokensSessionsEnd) {
  TokenSpec spec;
  spec.grants.push_back(*ParseGrant("lock:*:lock"));
  const auto made = CreateToken(daemon_->tokens_file(), spec);
  ASSERT_TRUE(made.ok());
  kill(daemon_->daemon_pid(), SIGHUP);
  const auto survivor = Connect();
  Client revoked(daemon_->tcp_address(), *made);
  ASSERT_TRUE(Eventually([&] { return revoked.Open().ok(); }));
  const auto held = revoked.Hold();
  ASSERT_TRUE(revoked.Acquire(revoked.Ask("theirs")).acquired());
  const auto waiting = survivor->Begin(survivor->Ask("theirs"));
  AwaitWaiters(*survivor, "theirs", 1);
  TokenParts parts;
  ASSERT_TRUE(SplitToken(*made, &parts));

  ASSERT_TRUE(RevokeToken(daemon_->tokens_file(), parts.id).ok());
  kill(daemon_->daemon_pid(), SIGHUP);

  ASSERT_TRUE(waiting->Await().ok());
  EXPECT_TRUE(waiting->response.acquired());
  ASSERT_TRUE(held->Await().ok()) << held->status.error_message();
  EXPECT_TRUE(held->response.ended());
}

TEST_F(LocksTest, ATokensSessionsEndWithItsTime) {
  TokenSpec spec;
  spec.grants.push_back(*ParseGrant("lock:*:lock"));
  spec.expires_unix_s = time(nullptr) + 5;
  const auto made = CreateToken(daemon_->tokens_file(), spec);
  ASSERT_TRUE(made.ok());
  kill(daemon_->daemon_pid(), SIGHUP);
  const auto survivor = Connect();
  Client expiring(daemon_->tcp_address(), *made);
  ASSERT_TRUE(Eventually([&] { return expiring.Open(3'600'000).ok(); }));
  const auto held = expiring.Hold();
  v1::AcquireLockRequest ask = expiring.Ask("theirs");
  SetMs(3'600'000, ask.mutable_ttl());
  ASSERT_TRUE(expiring.Acquire(ask).acquired());

  const auto waiting = survivor->Begin(survivor->Ask("theirs"));

  ASSERT_TRUE(waiting->Await().ok()) << "neither session nor lease ends by its ttl";
  EXPECT_TRUE(waiting->response.acquired());
  ASSERT_TRUE(held->Await().ok()) << held->status.error_message();
  EXPECT_TRUE(held->response.ended());
  EXPECT_GE(time(nullptr), spec.expires_unix_s);
  EXPECT_EQ(ReasonOf(expiring.RenewSession()), v1::ERROR_REASON_TOKEN_EXPIRED);
}

TEST_F(LocksTest, ADrainEndsWaitsAndHoldsButNoSession) {
  const auto client = Connect();
  ASSERT_TRUE(client->Acquire(client->Ask("drained")).acquired());
  const auto waiting = client->Begin(client->Ask("drained"));
  AwaitWaiters(*client, "drained", 1);
  const auto held = client->Hold();

  client->Drain();

  EXPECT_EQ(ReasonOf(waiting->Await()), v1::ERROR_REASON_DRAINING);
  EXPECT_EQ(ReasonOf(held->Await()), v1::ERROR_REASON_DRAINING);
}

}  // namespace
}  // namespace statehouse::testing
