// The C library's locks against a real service, through each door: who holds what, how a lease
// ends, and who is told.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "service/auth/token_file.h"
#include "statehouse/statehouse.h"
#include "tests/support/daemon.h"

namespace statehouse {
namespace {

using testing::Daemon;
using testing::Eventually;

constexpr uint64_t kPatienceMs = 60'000;
constexpr uint64_t kShortTtlMs = 300;

struct ClientCloser {
  void operator()(sh_client* client) const { sh_close(client); }
};
struct DictCloser {
  void operator()(sh_dict* dict) const { sh_dict_close(dict); }
};
struct LockReleaser {
  void operator()(sh_lock* lock) const { sh_lock_release(lock, nullptr, nullptr); }
};
using ClientPtr = std::unique_ptr<sh_client, ClientCloser>;
using DictPtr = std::unique_ptr<sh_dict, DictCloser>;
using LockPtr = std::unique_ptr<sh_lock, LockReleaser>;

// What release says.
struct Released {
  sh_reason reason = SH_OK;
  bool held = false;
};
Released Release(LockPtr* lock) {
  int held = 2;
  const sh_reason reason = sh_lock_release(lock->release(), &held, nullptr);
  EXPECT_NE(held, 2);
  return {reason, held == 1};
}

bool Held(const LockPtr& lock) { return sh_lock_held(lock.get(), nullptr) == 1; }

// Counts what it is told of.
struct Told {
  std::atomic<int> count{0};
  static void Tell(void* context) { ++static_cast<Told*>(context)->count; }
};

class LockClientTest : public ::testing::TestWithParam<sh_transport> {
 protected:
  void SetUp() override {
    auto started = Daemon::Start();
    ASSERT_TRUE(started.ok()) << started.status().message();
    daemon_ = std::move(started).value();
    client_ = Connect();
    other_ = Connect();
  }

  bool local() const { return GetParam() == SH_TRANSPORT_LOCAL; }
  bool survives_fork() const { return GetParam() != SH_TRANSPORT_NETWORK; }

  ClientPtr Connect(const std::string& token, sh_transport transport) const {
    sh_options options{};
    options.token = token.c_str();
    options.timeout_ms = kPatienceMs;
    options.transport = transport;
    sh_client* client = nullptr;
    const std::string url = "statehouse+unix://" + daemon_->runtime_dir();
    EXPECT_EQ(sh_connect(url.c_str(), &options, &client, nullptr), SH_OK);
    return ClientPtr(client);
  }
  ClientPtr Connect() const { return Connect(daemon_->token(), GetParam()); }

  static sh_reason Acquire(sh_client* client, const char* name, const sh_lock_options& options,
                           LockPtr* lock) {
    sh_lock* acquired = nullptr;
    const sh_reason reason = sh_lock_acquire(client, name, &options, &acquired, nullptr);
    lock->reset(acquired);
    return reason;
  }
  // A lock that can be had.
  LockPtr Take(sh_client* client, const char* name, const sh_lock_options& options = {}) const {
    sh_lock* lock = nullptr;
    sh_error* error = nullptr;
    EXPECT_EQ(sh_lock_acquire(client, name, &options, &lock, &error), SH_OK)
        << sh_error_message(error);
    sh_error_free(error);
    EXPECT_NE(lock, nullptr);
    return LockPtr(lock);
  }
  // Whether another client can have it at once.
  bool IsFree(const char* name) const {
    LockPtr lock;
    sh_lock_options options{};
    options.try_only = 1;
    EXPECT_EQ(Acquire(other_.get(), name, options, &lock), SH_OK);
    return lock != nullptr;
  }
  uint32_t WaiterCount(const char* name) const {
    sh_lock_info* info = nullptr;
    EXPECT_EQ(sh_lock_describe(other_.get(), name, &info, nullptr), SH_OK);
    const uint32_t count = info->waiter_count;
    sh_lock_infos_free(info, 1);
    return count;
  }
  // A process of its own that takes the lock and holds it until it is killed: this program, because
  // a child of one that made calls over the network makes none.
  pid_t StartHolder(const char* name, uint64_t ttl_ms = 10'000) const {
    const pid_t child = fork();
    if (child != 0) return child;
    setenv("HOLDER_URL",
           ("statehouse+unix://" + daemon_->runtime_dir() + "?transport=" +
            (local()           ? "local"
             : survives_fork() ? "socket"
                               : "network"))
               .c_str(),
           1);
    setenv("HOLDER_LOCK", name, 1);
    setenv("HOLDER_TTL_MS", std::to_string(ttl_ms).c_str(), 1);
    setenv("STATEHOUSE_TOKEN", daemon_->token().c_str(), 1);
    execl("/proc/self/exe", "holder", "--gtest_filter=LockHolder.*", nullptr);
    _exit(99);
  }
  // A token that the service knows when it returns.
  std::string AddToken(const std::string& grant) const {
    TokenSpec spec;
    spec.description = "lock_client_test";
    auto parsed = ParseGrant(grant);
    EXPECT_TRUE(parsed.ok()) << parsed.status().message();
    if (!parsed.ok()) return "";
    spec.grants.push_back(std::move(parsed).value());
    auto token = CreateToken(daemon_->tokens_file(), spec);
    EXPECT_TRUE(token.ok()) << token.status().message();
    if (!token.ok()) return "";
    EXPECT_EQ(kill(daemon_->daemon_pid(), SIGHUP), 0);  // It reads the file again.
    EXPECT_TRUE(Eventually([&] {
      sh_options options{};
      options.token = token->c_str();
      sh_client* client = nullptr;
      const std::string url = "statehouse+unix://" + daemon_->runtime_dir();
      const sh_reason reason = sh_connect(url.c_str(), &options, &client, nullptr);
      sh_close(client);
      return reason == SH_OK;
    }));
    return *token;
  }

  std::unique_ptr<Daemon> daemon_;
  ClientPtr client_;
  ClientPtr other_;
};

// What StartHolder runs; nothing where nobody asks.
TEST(LockHolder, HoldsUntilItIsKilled) {
  const char* const url = getenv("HOLDER_URL");
  if (url == nullptr) return;
  sh_client* client = nullptr;
  ASSERT_EQ(sh_connect(url, nullptr, &client, nullptr), SH_OK);
  sh_lock* lock = nullptr;
  sh_lock_options options{};
  options.ttl_ms = std::strtoull(getenv("HOLDER_TTL_MS"), nullptr, 10);
  ASSERT_EQ(sh_lock_acquire(client, getenv("HOLDER_LOCK"), &options, &lock, nullptr), SH_OK);
  ASSERT_NE(lock, nullptr);
  for (;;) pause();
}

TEST_P(LockClientTest, OneHolderAtATimeAndTokensGrow) {
  uint64_t last_token = 0;
  for (int i = 0; i < 20; ++i) {
    LockPtr lock = Take((i % 2 == 0 ? client_ : other_).get(), "a");
    EXPECT_GT(sh_lock_token(lock.get()), last_token);
    last_token = sh_lock_token(lock.get());
    EXPECT_STREQ(sh_lock_name(lock.get()), "a");
    uint64_t left_ms = 0;
    EXPECT_EQ(sh_lock_held(lock.get(), &left_ms), 1);
    EXPECT_GT(left_ms, 1000u);
    EXPECT_LE(left_ms, 10'100u);  // The engine rounds up.
    EXPECT_FALSE(IsFree("a"));
    const Released released = Release(&lock);
    EXPECT_EQ(released.reason, SH_OK);
    EXPECT_TRUE(released.held);
  }
  EXPECT_TRUE(IsFree("a"));
}

TEST_P(LockClientTest, BothDoorsSeeTheSameLock) {
  const ClientPtr across =
      Connect(daemon_->token(), local() ? SH_TRANSPORT_NETWORK : SH_TRANSPORT_LOCAL);
  LockPtr mine = Take(client_.get(), "a");
  sh_lock_options brief{};
  brief.timeout_ms = 50;
  LockPtr theirs;
  EXPECT_EQ(Acquire(across.get(), "a", brief, &theirs), SH_OK);
  EXPECT_EQ(theirs, nullptr);
  const uint64_t token = sh_lock_token(mine.get());
  EXPECT_TRUE(Release(&mine).held);
  theirs = Take(across.get(), "a");
  EXPECT_GT(sh_lock_token(theirs.get()), token);
  EXPECT_FALSE(IsFree("a"));
}

TEST_P(LockClientTest, WaitersAreServedInTheOrderOfTheirArrival) {
  constexpr int kWaiters = 4;
  LockPtr first = Take(client_.get(), "a");
  std::vector<std::thread> threads;
  std::vector<int> order;  // Guarded by the lock itself.
  for (int i = 0; i < kWaiters; ++i) {
    threads.emplace_back([&, i] {
      const ClientPtr client = Connect();
      const LockPtr lock = Take(client.get(), "a");
      order.push_back(i);
    });
    EXPECT_TRUE(Eventually([&] { return WaiterCount("a") == static_cast<uint32_t>(i + 1); }));
  }
  EXPECT_TRUE(Release(&first).held);
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(order.size(), size_t{kWaiters});
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST_P(LockClientTest, WhoDoesNotGetItInTimeLeavesTheQueue) {
  LockPtr lock = Take(client_.get(), "a");
  sh_lock_options brief{};
  brief.timeout_ms = 100;
  LockPtr late;
  const auto before = std::chrono::steady_clock::now();
  EXPECT_EQ(Acquire(other_.get(), "a", brief, &late), SH_OK);
  EXPECT_EQ(late, nullptr);
  EXPECT_GE(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(90));
  EXPECT_EQ(WaiterCount("a"), 0u);
  EXPECT_TRUE(Release(&lock).held);
  EXPECT_TRUE(IsFree("a"));
}

TEST_P(LockClientTest, SharedHoldersHoldTogetherAndSemaphoresCount) {
  sh_lock_options shared{};
  shared.mode = SH_LOCK_SHARED;
  LockPtr readers[] = {Take(client_.get(), "s", shared), Take(other_.get(), "s", shared)};
  EXPECT_FALSE(IsFree("s"));
  for (LockPtr& reader : readers) EXPECT_TRUE(Release(&reader).held);
  EXPECT_TRUE(IsFree("s"));

  sh_lock_options three{};
  three.limit = 3;
  three.try_only = 1;
  LockPtr permits[3];
  for (LockPtr& permit : permits) permit = Take(client_.get(), "n", three);
  LockPtr fourth;
  EXPECT_EQ(Acquire(other_.get(), "n", three, &fourth), SH_OK);
  EXPECT_EQ(fourth, nullptr);
  three.limit = 4;
  EXPECT_EQ(Acquire(other_.get(), "n", three, &fourth), SH_CONFLICT);
  three.limit = 3;
  permits[1].reset();
  fourth = Take(other_.get(), "n", three);
}

TEST_P(LockClientTest, RenewalKeepsAShortLease) {
  Told told;
  sh_lock_options brief{};
  brief.ttl_ms = kShortTtlMs;
  brief.on_lost = Told::Tell;
  brief.context = &told;
  LockPtr lock = Take(client_.get(), "a", brief);
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(5 * kShortTtlMs);
  while (std::chrono::steady_clock::now() < until) {
    ASSERT_TRUE(Held(lock));
    ASSERT_FALSE(IsFree("a"));
  }
  EXPECT_TRUE(Release(&lock).held);
  EXPECT_EQ(told.count, 0);
}

TEST_P(LockClientTest, WhoRenewsAndStopsLosesItAndIsTold) {
  Told told;
  sh_lock_options brief{};
  brief.ttl_ms = kShortTtlMs;
  brief.manual_renewal = 1;
  brief.on_lost = Told::Tell;
  brief.context = &told;
  LockPtr lock = Take(client_.get(), "a", brief);
  EXPECT_EQ(sh_lock_renew(lock.get(), 0, nullptr), SH_OK);
  EXPECT_TRUE(Eventually([&] { return told.count > 0; }));
  EXPECT_FALSE(Held(lock));
  EXPECT_EQ(sh_lock_renew(lock.get(), 0, nullptr), SH_LOCK_LOST);
  EXPECT_FALSE(Held(lock)) << "it never comes back";
  EXPECT_TRUE(Eventually([&] { return IsFree("a"); }));
  const LockPtr next = Take(other_.get(), "a");
  EXPECT_EQ(sh_lock_renew(lock.get(), 0, nullptr), SH_LOCK_LOST);
  const Released released = Release(&lock);
  EXPECT_EQ(released.reason, SH_OK);
  EXPECT_FALSE(released.held);
  EXPECT_TRUE(Held(next)) << "a late release takes it from nobody";
  EXPECT_EQ(told.count, 1);
}

TEST_P(LockClientTest, AHolderThatHangsLosesItThoughItIsRenewed) {
  Told told;
  sh_lock_options bounded{};
  bounded.ttl_ms = kShortTtlMs;
  bounded.hold_max_ms = 2 * kShortTtlMs;
  bounded.on_lost = Told::Tell;
  bounded.context = &told;
  const LockPtr lock = Take(client_.get(), "a", bounded);
  const LockPtr next = Take(other_.get(), "a");
  EXPECT_TRUE(Eventually([&] { return told.count == 1; }));
  EXPECT_FALSE(Held(lock));
}

TEST_P(LockClientTest, ForceReleaseIsToldLongBeforeTheNextRenewal) {
  Told told;
  sh_lock_options long_lease{};
  long_lease.ttl_ms = 600'000;
  long_lease.on_lost = Told::Tell;
  long_lease.context = &told;
  LockPtr lock = Take(client_.get(), "a", long_lease);
  uint32_t released = 9;
  EXPECT_EQ(
      sh_lock_force_release(other_.get(), "a", sh_lock_token(lock.get()) + 1, &released, nullptr),
      SH_OK);
  EXPECT_EQ(released, 0u);
  EXPECT_EQ(sh_lock_force_release(other_.get(), "a", 0, &released, nullptr), SH_OK);
  EXPECT_EQ(released, 1u);
  EXPECT_TRUE(Eventually([&] { return !Held(lock); }));
  EXPECT_TRUE(IsFree("a"));
  EXPECT_TRUE(Eventually([&] { return told.count == 1; }));
  EXPECT_FALSE(Release(&lock).held);
}

TEST_P(LockClientTest, AWriteWithTheTokenOfALostLeaseIsFenced) {
  sh_dict* opened = nullptr;
  const sh_dict_spec spec{};
  ASSERT_EQ(sh_dict_open(client_.get(), "d", &spec, &opened, nullptr), SH_OK);
  const DictPtr dict(opened);
  const auto write = [&](const LockPtr& lock) {
    sh_write_options options{};
    options.fence = sh_lock_token(lock.get());
    sh_outcome outcome{};
    const sh_bytes key{"k", 1};
    const sh_bytes one{"\x18\x02", 2};
    return sh_dict_set(dict.get(), key, one, &options, &outcome, nullptr, nullptr);
  };
  sh_lock_options brief{};
  brief.ttl_ms = kShortTtlMs;
  brief.manual_renewal = 1;
  const LockPtr late = Take(client_.get(), "a", brief);
  ASSERT_EQ(write(late), SH_OK);
  const LockPtr next = Take(other_.get(), "a");
  EXPECT_EQ(write(late), SH_OK) << "nobody newer has written yet";
  EXPECT_EQ(write(next), SH_OK);
  EXPECT_EQ(write(late), SH_FENCED);
  EXPECT_EQ(write(next), SH_OK);
}

TEST_P(LockClientTest, AForkedChildHoldsNothingAndItsParentStillDoes) {
  LockPtr lock = Take(client_.get(), "a");
  const pid_t child = fork();
  if (child == 0) {
    const bool held = Held(lock);
    const sh_reason renewed = sh_lock_renew(lock.get(), 0, nullptr);
    const Released released = Release(&lock);
    _exit(!held && renewed == SH_CLIENT_FORKED && released.reason == SH_CLIENT_FORKED &&
                  !released.held
              ? 0
              : 1);
  }
  EXPECT_EQ(testing::WaitForExit(child), 0);
  EXPECT_TRUE(Held(lock));
  EXPECT_FALSE(IsFree("a"));
  EXPECT_EQ(sh_lock_renew(lock.get(), 0, nullptr), SH_OK);
  EXPECT_TRUE(Release(&lock).held);
}

TEST_P(LockClientTest, AForkedChildAsksForItsOwnThroughTheLocalDoor) {
  const LockPtr lock = Take(client_.get(), "a");
  const sh_reason wanted = local() ? SH_OK : SH_CLIENT_FORKED;
  const pid_t child = fork();
  if (child == 0) {
    LockPtr own;
    sh_lock_options options{};
    options.try_only = 1;
    const bool busy = Acquire(client_.get(), "a", options, &own) == wanted && own == nullptr;
    const bool had = Acquire(client_.get(), "b", options, &own) == wanted &&
                     (own != nullptr) == (wanted == SH_OK);
    _exit(busy && had ? 0 : 1);
  }
  EXPECT_EQ(testing::WaitForExit(child), 0);
  EXPECT_TRUE(Held(lock));
  EXPECT_TRUE(Eventually([&] { return IsFree("b"); })) << "the child has ended";
}

TEST_P(LockClientTest, TheLockOfAKilledHolderPassesOn) {
  const pid_t holder = StartHolder("a");
  ASSERT_TRUE(Eventually([&] { return !IsFree("a"); }));
  std::atomic<bool> had{false};
  std::thread waiter([&] {
    const LockPtr lock = Take(client_.get(), "a");
    had = true;
  });
  EXPECT_TRUE(Eventually([&] { return WaiterCount("a") == 1; }));
  EXPECT_FALSE(had);
  const auto killed = std::chrono::steady_clock::now();
  ASSERT_EQ(kill(holder, SIGKILL), 0);
  waiter.join();
  EXPECT_LT(std::chrono::steady_clock::now() - killed, std::chrono::seconds(8))
      << "by its death, not by the lease's end";
  EXPECT_EQ(testing::WaitForExit(holder), 128 + SIGKILL);
}

TEST_P(LockClientTest, AWaiterThatWasStoppedPastItsLeaseAsksAgain) {
  LockPtr first = Take(client_.get(), "a");
  const pid_t waiter = StartHolder("a", kShortTtlMs);
  ASSERT_TRUE(Eventually([&] { return WaiterCount("a") == 1; }));
  ASSERT_TRUE(testing::StopProcess(waiter));
  EXPECT_TRUE(Release(&first).held);
  LockPtr second = Take(client_.get(), "a");  // After its lease, which nobody could renew.
  ASSERT_EQ(kill(waiter, SIGCONT), 0);
  EXPECT_TRUE(Eventually([&] { return WaiterCount("a") == 1; })) << "it does not think it holds";
  EXPECT_TRUE(Release(&second).held);
  EXPECT_TRUE(Eventually([&] { return !IsFree("a"); }));
  ASSERT_EQ(kill(waiter, SIGKILL), 0);
  EXPECT_EQ(testing::WaitForExit(waiter), 128 + SIGKILL);
}

TEST_P(LockClientTest, AHolderKeepsItsLockWhenTheDaemonIsKilled) {
  LockPtr lock = Take(client_.get(), "a");
  const uint64_t token = sh_lock_token(lock.get());
  ASSERT_TRUE(daemon_->KillDaemonAndWait().ok());
  EXPECT_EQ(sh_lock_renew(lock.get(), 0, nullptr), SH_OK);
  EXPECT_TRUE(Held(lock));
  EXPECT_FALSE(IsFree("a"));
  EXPECT_TRUE(Release(&lock).held);
  EXPECT_GT(sh_lock_token(Take(other_.get(), "a").get()), token);
}

TEST_P(LockClientTest, WhileTheDaemonIsAwayLocalLocksAreTakenRenewedAndGivenBack) {
  if (!local()) return;
  LockPtr lock = Take(client_.get(), "a");
  EXPECT_TRUE(IsFree("b")) << "the other client has its lanes, too";
  ASSERT_TRUE(testing::StopProcess(daemon_->keeper_pid()));
  ASSERT_EQ(kill(daemon_->daemon_pid(), SIGKILL), 0);
  EXPECT_EQ(sh_lock_renew(lock.get(), 0, nullptr), SH_OK);
  EXPECT_FALSE(IsFree("a"));
  EXPECT_TRUE(Release(&lock).held);
  EXPECT_TRUE(IsFree("a"));
  std::thread waiter([&] { Take(other_.get(), "b"); });
  waiter.join();
  ASSERT_EQ(kill(daemon_->keeper_pid(), SIGCONT), 0);
  EXPECT_TRUE(Eventually([&] { return WaiterCount("a") == 0; }));
}

TEST_P(LockClientTest, GrantsSayWhichLocks) {
  const ClientPtr none = Connect(AddToken("area:*:read"), GetParam());
  LockPtr lock;
  EXPECT_EQ(Acquire(none.get(), "a", {}, &lock), SH_PERMISSION_DENIED);
  EXPECT_EQ(sh_lock_force_release(none.get(), "a", 0, nullptr, nullptr), SH_PERMISSION_DENIED);

  const ClientPtr some = Connect(AddToken("lock:mine/*:lock"), GetParam());
  EXPECT_EQ(Acquire(some.get(), "a", {}, &lock), SH_PERMISSION_DENIED);
  sh_lock_options brief{};
  brief.ttl_ms = kShortTtlMs;
  LockPtr mine = Take(some.get(), "mine/1", brief);
  EXPECT_FALSE(IsFree("mine/1"));
  EXPECT_EQ(sh_lock_renew(mine.get(), 0, nullptr), SH_OK);
  EXPECT_TRUE(Release(&mine).held);
  EXPECT_EQ(sh_lock_force_release(some.get(), "mine/1", 0, nullptr, nullptr), SH_PERMISSION_DENIED);
}

TEST_P(LockClientTest, ClosingAClientGivesItsLocksUp) {
  LockPtr lock = Take(client_.get(), "a");
  client_.reset();
  EXPECT_FALSE(Held(lock));
  EXPECT_EQ(sh_lock_renew(lock.get(), 0, nullptr), SH_CLIENT_CLOSED);
  const LockPtr next = Take(other_.get(), "a");
  const Released released = Release(&lock);
  EXPECT_EQ(released.reason, SH_CLIENT_CLOSED);
  EXPECT_FALSE(released.held);
  EXPECT_TRUE(Held(next));
}

TEST_P(LockClientTest, WhatMakesNoSenseIsRefused) {
  const std::string long_name(256, 'x');
  sh_lock_options mode{};
  mode.mode = static_cast<sh_lock_mode>(7);
  sh_lock_options ttl_low{};
  ttl_low.ttl_ms = 99;
  sh_lock_options ttl_high{};
  ttl_high.ttl_ms = 604'800'001;
  sh_lock_options limit{};
  limit.limit = 1'048'577;
  sh_lock_options timeout{};
  timeout.timeout_ms = UINT64_MAX;
  const struct {
    const char* name;
    sh_lock_options options;
    sh_reason reason;
  } cases[] = {{"", {}, SH_NAME_INVALID},           {long_name.c_str(), {}, SH_NAME_INVALID},
               {nullptr, {}, SH_INVALID_ARGUMENT},  {"a", mode, SH_INVALID_ARGUMENT},
               {"a", ttl_low, SH_INVALID_ARGUMENT}, {"a", ttl_high, SH_INVALID_ARGUMENT},
               {"a", limit, SH_INVALID_ARGUMENT},   {"a", timeout, SH_INVALID_ARGUMENT}};
  for (const auto& refused : cases) {
    LockPtr lock;
    EXPECT_EQ(Acquire(client_.get(), refused.name, refused.options, &lock), refused.reason)
        << (refused.name == nullptr ? "NULL" : refused.name) << " ttl " << refused.options.ttl_ms
        << " limit " << refused.options.limit;
    EXPECT_EQ(lock, nullptr);
  }
  sh_lock* lock = nullptr;
  EXPECT_EQ(sh_lock_acquire(nullptr, "a", nullptr, &lock, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_lock_acquire(client_.get(), "a", nullptr, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_lock_release(nullptr, nullptr, nullptr), SH_OK);
  EXPECT_TRUE(IsFree("a"));
}

TEST_P(LockClientTest, NoCallTakesNullForAClientALockOrAPlaceForItsAnswer) {
  sh_lock_info* info = nullptr;
  size_t count = 7;
  uint64_t left_ms = 7;

  EXPECT_EQ(sh_lock_describe(nullptr, "a", &info, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_lock_describe(client_.get(), "a", nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_lock_describe(client_.get(), nullptr, &info, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_lock_list(nullptr, nullptr, &info, &count, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_lock_list(client_.get(), nullptr, nullptr, &count, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_lock_list(client_.get(), nullptr, &info, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_lock_force_release(nullptr, "a", 0, nullptr, nullptr), SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_lock_force_release(client_.get(), nullptr, 0, nullptr, nullptr),
            SH_INVALID_ARGUMENT);
  EXPECT_EQ(sh_lock_renew(nullptr, 0, nullptr), SH_INVALID_ARGUMENT);

  EXPECT_EQ(info, nullptr);
  EXPECT_EQ(count, 7u);
  EXPECT_EQ(sh_lock_token(nullptr), 0u);
  EXPECT_STREQ(sh_lock_name(nullptr), "");
  EXPECT_EQ(sh_lock_held(nullptr, &left_ms), 0);
  EXPECT_EQ(left_ms, 0u);
  sh_lock_infos_free(nullptr, 0);
}

INSTANTIATE_TEST_SUITE_P(Doors, LockClientTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_SOCKET,
                                           SH_TRANSPORT_NETWORK),
                         [](const auto& door) {
                           return door.param == SH_TRANSPORT_LOCAL    ? "local"
                                  : door.param == SH_TRANSPORT_SOCKET ? "socket"
                                                                      : "network";
                         });

}  // namespace
}  // namespace statehouse
