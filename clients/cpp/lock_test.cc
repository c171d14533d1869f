// The C++ header's locks against a real service, through each door. What the calls mean is tested
// in clients/c; here it is their C++ side.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "statehouse/client.hpp"
#include "tests/support/daemon.h"

namespace statehouse::client {
namespace {

using std::chrono::milliseconds;
using testing::Eventually;

class CppLockTest : public ::testing::TestWithParam<sh_transport> {
 protected:
  void SetUp() override {
    auto started = testing::Daemon::Start();
    ASSERT_TRUE(started.ok()) << started.status().message();
    daemon_ = std::move(started).value();
    client_ = Connect();
    other_ = Connect();
  }
  std::optional<Client> Connect() const {
    Options options;
    options.token = daemon_->token();
    options.transport = GetParam();
    options.client_name = "cpp-lock-test";
    options.timeout = std::chrono::seconds(60);
    auto client = Client::Connect("statehouse+unix://" + daemon_->runtime_dir(), options);
    EXPECT_TRUE(client.ok()) << client.error().message();
    return *std::move(client);
  }
  // A lock that is had: `name` is free.
  Lock Take(const std::string& name, const LockOptions& options = {}) {
    auto lock = client_->AcquireLock(name, options);
    EXPECT_TRUE(lock.ok()) << lock.error().message();
    EXPECT_TRUE(lock->has_value());
    return **std::move(lock);
  }
  bool IsFree(const std::string& name) {
    return other_->AcquireLock(name, {.try_only = true}).value().has_value();
  }

  std::unique_ptr<testing::Daemon> daemon_;
  std::optional<Client> client_;
  std::optional<Client> other_;
};

TEST_P(CppLockTest, IsHeldFromItsAcquisitionToTheEndOfItsScope) {
  uint64_t first_token = 0;
  {
    const Lock lock = Take("a");
    first_token = lock.token();
    EXPECT_GT(first_token, 0u);
    EXPECT_EQ(lock.name(), "a");
    EXPECT_TRUE(lock.held());
    EXPECT_GT(lock.left(), milliseconds(1000));
    EXPECT_LE(lock.left(), milliseconds(10'100));  // The engine rounds up.
    EXPECT_FALSE(lock.lost().stop_requested());
    EXPECT_FALSE(IsFree("a"));
    EXPECT_TRUE(IsFree("b"));
  }
  EXPECT_TRUE(IsFree("a"));
  EXPECT_GT(Take("a").token(), first_token);
}

TEST_P(CppLockTest, MovesAndAnAssignmentGivesBackWhatWasHeldBefore) {
  Lock lock = Take("a");
  const uint64_t token = lock.token();
  Lock moved = std::move(lock);
  EXPECT_EQ(moved.token(), token);
  EXPECT_EQ(lock.token(), 0u);  // NOLINT: what a moved-from lock says.
  EXPECT_FALSE(lock.held());
  EXPECT_FALSE(IsFree("a"));
  moved = Take("b");
  EXPECT_TRUE(IsFree("a"));
  EXPECT_FALSE(IsFree("b"));
}

TEST_P(CppLockTest, ReleaseSaysWhetherItWasHeldAndLeavesNothing) {
  Lock lock = Take("a");
  EXPECT_TRUE(lock.Release().value());
  EXPECT_TRUE(IsFree("a"));
  EXPECT_FALSE(lock.held());
  EXPECT_EQ(lock.token(), 0u);
  EXPECT_EQ(lock.left(), milliseconds(0));
  EXPECT_FALSE(lock.Release().value());
  EXPECT_EQ(lock.Renew().error().reason(), SH_LOCK_LOST);
}

TEST_P(CppLockTest, WhatIsNotHadInTimeIsEmpty) {
  const Lock lock = Take("a");
  EXPECT_FALSE(other_->AcquireLock("a", {.try_only = true})->has_value());
  EXPECT_FALSE(other_->AcquireLock("a", {.timeout = milliseconds(0)})->has_value());
  const auto before = std::chrono::steady_clock::now();
  EXPECT_FALSE(other_->AcquireLock("a", {.timeout = milliseconds(150)})->has_value());
  EXPECT_GE(std::chrono::steady_clock::now() - before, milliseconds(140));
}

TEST_P(CppLockTest, SharedHoldersAndSemaphores) {
  const Lock one = Take("shared", {.mode = SH_LOCK_SHARED});
  const Lock two = Take("shared", {.mode = SH_LOCK_SHARED});
  EXPECT_FALSE(IsFree("shared"));
  const Lock first = Take("three", {.limit = 2});
  const Lock second = Take("three", {.limit = 2});
  EXPECT_FALSE(other_->AcquireLock("three", {.limit = 2, .try_only = true})->has_value());
  EXPECT_EQ(other_->AcquireLock("three", {.limit = 3}).error().reason(), SH_CONFLICT);
}

TEST_P(CppLockTest, RenewLengthensAndAWrongTtlIsRefused) {
  Lock lock = Take("a", {.ttl = milliseconds(30'000), .manual_renewal = true});
  EXPECT_TRUE(lock.Renew(milliseconds(120'000)).ok());
  EXPECT_GT(lock.left(), milliseconds(60'000));
  for (const milliseconds ttl : {milliseconds(-1), milliseconds(0), milliseconds(99)}) {
    EXPECT_EQ(client_->AcquireLock("b", {.ttl = ttl}).error().reason(), SH_INVALID_ARGUMENT)
        << ttl.count();
  }
  EXPECT_EQ(client_->AcquireLock("b", {.limit = 0}).error().reason(), SH_INVALID_ARGUMENT);
  EXPECT_EQ(client_->AcquireLock("").error().reason(), SH_NAME_INVALID);
}

TEST_P(CppLockTest, LossIsToldByTheStopTokenTheCallbackAndEveryCall) {
  std::atomic<int> told{0};
  Lock lock = Take("a", {.ttl = milliseconds(300), .on_lost = [&] { ++told; }});
  const std::stop_token lost = lock.lost();
  std::atomic<bool> called_back{false};
  const std::stop_callback callback(lost, [&] { called_back = true; });

  EXPECT_EQ(other_->ForceReleaseLock("a", lock.token() + 1).value(), 0u);
  EXPECT_EQ(other_->ForceReleaseLock("a", lock.token()).value(), 1u);

  EXPECT_TRUE(Eventually([&] { return told == 1; }));
  EXPECT_TRUE(lost.stop_requested());
  EXPECT_TRUE(called_back);
  EXPECT_FALSE(lock.held());
  EXPECT_EQ(lock.left(), milliseconds(0));
  EXPECT_EQ(lock.Renew().error().reason(), SH_LOCK_LOST);
  EXPECT_TRUE(IsFree("a"));
  const auto released = lock.Release();
  ASSERT_TRUE(released.ok()) << released.error().message();
  EXPECT_FALSE(*released);
  EXPECT_EQ(told, 1);
}

TEST_P(CppLockTest, ReleaseIsNoLoss) {
  std::atomic<int> told{0};
  std::stop_token lost;
  {
    const Lock lock = Take("a", {.ttl = milliseconds(100), .on_lost = [&] { ++told; }});
    lost = lock.lost();
  }
  const auto until = std::chrono::steady_clock::now() + milliseconds(300);
  EXPECT_TRUE(Eventually([&] { return std::chrono::steady_clock::now() > until; }));
  EXPECT_EQ(told, 0);
  EXPECT_FALSE(lost.stop_requested());
}

TEST_P(CppLockTest, IsDescribedAndListed) {
  const Lock lock = Take("x/1", {.limit = 2, .owner = "me"});
  const Lock second = Take("x/1", {.limit = 2});
  const Lock shared = Take("y", {.mode = SH_LOCK_SHARED});

  const LockInfo info = client_->DescribeLock("x/1").value();
  EXPECT_EQ(info.name, "x/1");
  EXPECT_EQ(info.limit, 2u);
  EXPECT_EQ(info.holder_count, 2u);
  EXPECT_EQ(info.waiter_count, 0u);
  ASSERT_EQ(info.parties.size(), 2u);
  const LockParty& mine = info.parties[0].token == lock.token() ? info.parties[0] : info.parties[1];
  const LockParty& other = &mine == &info.parties[0] ? info.parties[1] : info.parties[0];
  EXPECT_EQ(mine.owner, "me");
  EXPECT_EQ(mine.token, lock.token());
  EXPECT_GT(mine.expires, milliseconds(0));
  EXPECT_EQ(mine.session_id == 0, GetParam() == SH_TRANSPORT_LOCAL);
  EXPECT_EQ(other.owner, "cpp-lock-test");
  EXPECT_EQ(client_->DescribeLock("y")->parties.at(0).mode, SH_LOCK_SHARED);
  EXPECT_EQ(client_->DescribeLock("nobody")->holder_count, 0u);
  EXPECT_EQ(client_->ListLocks("x/")->size(), 1u);
  EXPECT_EQ(client_->ListLocks()->size(), 2u);
}

TEST_P(CppLockTest, ALateHoldersWriteIsFenced) {
  auto dict = client_->OpenDict("d");
  ASSERT_TRUE(dict.ok()) << dict.error().message();
  const Lock late = Take("a");
  ASSERT_TRUE(dict->Set("k", "late", {.fence = late.token()}).ok());
  ASSERT_EQ(other_->ForceReleaseLock("a").value(), 1u);
  const Lock next = Take("a");
  ASSERT_TRUE(dict->Set("k", "next", {.fence = next.token()}).ok());

  EXPECT_EQ(dict->Set("k", "too late", {.fence = late.token()}).error().reason(), SH_FENCED);
  EXPECT_EQ(dict->Get<std::string>("k").value(), "next");
}

TEST_P(CppLockTest, TheLockOfARangeHasTheTokenOfItsWrites) {
  auto mine = client_->Open("web", 64 << 10);
  auto theirs = other_->Open("web");
  ASSERT_TRUE(mine.ok() && theirs.ok());
  const auto bytes = std::as_bytes(std::span("bytes", 5));
  uint64_t late = 0;
  {
    auto lock = client_->AcquireAreaLock(*mine, 100, 5000);
    ASSERT_TRUE(lock.ok() && lock->has_value()) << lock.error().message();
    late = (*lock)->token();
    EXPECT_FALSE(other_->AcquireAreaLock(*theirs, 5000, 1, {.try_only = true}).value().has_value());
    EXPECT_TRUE(other_->AcquireAreaLock(*theirs, 8192, 1, {.try_only = true}).value().has_value());
    EXPECT_TRUE(mine->Write(100, bytes, late).ok());
  }
  auto next = other_->AcquireAreaLock(*theirs, 100, 1);
  ASSERT_TRUE(next.ok() && next->has_value());
  ASSERT_TRUE(theirs->Add<uint64_t>(200, 1, (*next)->token()).ok());

  const auto is_refused = [](const auto& result) { return result.error().reason() == SH_FENCED; };
  EXPECT_TRUE(is_refused(mine->Write(100, bytes, late)));
  EXPECT_TRUE(is_refused(mine->Fill(100, 5, std::byte{1}, late)));
  EXPECT_TRUE(is_refused(mine->Store<int16_t>(100, -1, late)));
  EXPECT_TRUE(is_refused(mine->Add<uint8_t>(100, 1, late)));
  EXPECT_TRUE(is_refused(mine->CompareExchange<uint8_t>(100, 1, 2, late)));
  EXPECT_TRUE(is_refused(mine->BitwiseOr<uint32_t>(100, 1, late)));
  EXPECT_TRUE(mine->Store<int16_t>(100, -1).ok()) << "without a token nobody is late";
}

TEST_P(CppLockTest, AForkedChildGivesNothingBack) {
  Lock lock = Take("a");
  const pid_t child = fork();
  if (child == 0) {
    const bool right = !lock.held() && lock.Renew().error().reason() == SH_CLIENT_FORKED &&
                       lock.Release().error().reason() == SH_CLIENT_FORKED;
    _exit(right ? 0 : 1);
  }
  EXPECT_EQ(testing::WaitForExit(child), 0);
  EXPECT_TRUE(lock.held());
  EXPECT_FALSE(IsFree("a"));
  EXPECT_TRUE(lock.Release().value());
}

TEST_P(CppLockTest, ALockThatOutlivesItsClientIsLostAndPassesOn) {
  Lock lock = Take("a");
  client_.reset();
  EXPECT_FALSE(lock.held());
  EXPECT_EQ(lock.Renew().error().reason(), SH_CLIENT_CLOSED);
  EXPECT_TRUE(Eventually([&] { return IsFree("a"); }));
  EXPECT_EQ(lock.Release().error().reason(), SH_CLIENT_CLOSED);
}

INSTANTIATE_TEST_SUITE_P(Doors, CppLockTest,
                         ::testing::Values(SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK),
                         [](const auto& door) {
                           return door.param == SH_TRANSPORT_LOCAL ? "local" : "network";
                         });

}  // namespace
}  // namespace statehouse::client
