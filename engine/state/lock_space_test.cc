#include "engine/state/lock_space.h"

#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/state/test_locks.h"

namespace statehouse {
namespace {

constexpr uint64_t kSecond = TestLocks::kSecond;

LockRequest Shared() {
  LockRequest request;
  request.mode = LockMode::kShared;
  return request;
}

LockRequest Try() {
  LockRequest request;
  request.queue = false;
  return request;
}

LockRequest SemaphoreOf(uint32_t limit) {
  LockRequest request;
  request.limit = limit;
  return request;
}

LockRequest WithTtl(uint64_t ttl_ns) {
  LockRequest request;
  request.ttl_ns = ttl_ns;
  return request;
}

TEST(LockSpaceTest, OneHoldsAndTheOthersWaitInOrder) {
  TestLocks locks;
  const auto first = locks.Ask(locks.Of(1), "deploy");
  const auto second = locks.Ask(locks.Of(2), "deploy");
  const auto third = locks.Ask(locks.Of(3), "deploy");

  EXPECT_TRUE(first.holds());
  EXPECT_TRUE(second.waits());
  EXPECT_TRUE(third.waits());
  EXPECT_TRUE(locks.Release(locks.Of(1), first.place));
  EXPECT_EQ(locks.PhaseOf(second.place), LockPhase::kHolding);
  EXPECT_EQ(locks.PhaseOf(third.place), LockPhase::kWaiting);
  EXPECT_TRUE(locks.Release(locks.Of(2), second.place));
  EXPECT_EQ(locks.PhaseOf(third.place), LockPhase::kHolding);
  locks.ExpectSound();
}

TEST(LockSpaceTest, EveryGrantHasAHigherTokenThanAnyBefore) {
  TestLocks locks;
  uint64_t last = 1000;
  for (int i = 0; i < 10; ++i) {
    const auto asked = locks.Ask(locks.Of(1), i % 2 == 0 ? "a" : "b");
    EXPECT_GT(asked.look.token, last);
    last = asked.look.token;
    locks.Release(locks.Of(1), asked.place);
  }
  EXPECT_EQ(locks.space->LastToken(), last);
}

TEST(LockSpaceTest, ARequestThatDoesNotQueueIsRefusedAtOnce) {
  TestLocks locks;
  const auto first = locks.Ask(locks.Of(1), "deploy", Try());
  const auto second = locks.Ask(locks.Of(2), "deploy", Try());

  EXPECT_TRUE(first.holds());
  EXPECT_EQ(second.place, 0u);
  EXPECT_EQ(second.look.phase, LockPhase::kNone);
  locks.Release(locks.Of(1), first.place);
  EXPECT_TRUE(locks.Ask(locks.Of(2), "deploy", Try()).holds());
  locks.ExpectSound();
}

TEST(LockSpaceTest, SharedHoldersAreTogetherAndDoNotOvertake) {
  TestLocks locks;
  const auto reader = locks.Ask(locks.Of(1), "table", Shared());
  const auto other = locks.Ask(locks.Of(2), "table", Shared());
  const auto writer = locks.Ask(locks.Of(3), "table");
  const auto late = locks.Ask(locks.Of(1), "table", Shared());
  const auto later = locks.Ask(locks.Of(2), "table", Shared());

  EXPECT_TRUE(reader.holds());
  EXPECT_TRUE(other.holds());
  EXPECT_TRUE(writer.waits());
  EXPECT_TRUE(late.waits()) << "a reader overtook a waiting writer";
  locks.Release(locks.Of(1), reader.place);
  EXPECT_EQ(locks.PhaseOf(writer.place), LockPhase::kWaiting);
  locks.Release(locks.Of(2), other.place);
  EXPECT_EQ(locks.PhaseOf(writer.place), LockPhase::kHolding);
  locks.Release(locks.Of(3), writer.place);
  EXPECT_EQ(locks.PhaseOf(late.place), LockPhase::kHolding);
  EXPECT_EQ(locks.PhaseOf(later.place), LockPhase::kHolding);
  locks.ExpectSound();
}

TEST(LockSpaceTest, ASemaphoreHasAsManyHoldersAsItsLimit) {
  TestLocks locks;
  std::vector<TestLocks::Asked> asked;
  for (int i = 0; i < 5; ++i) asked.push_back(locks.Ask(locks.Of(1), "pool", SemaphoreOf(3)));

  EXPECT_TRUE(asked[2].holds());
  EXPECT_TRUE(asked[3].waits());
  locks.Release(locks.Of(1), asked[1].place);
  EXPECT_EQ(locks.PhaseOf(asked[3].place), LockPhase::kHolding);
  EXPECT_EQ(locks.PhaseOf(asked[4].place), LockPhase::kWaiting);
  locks.ExpectSound();
}

TEST(LockSpaceTest, AnotherLimitIsRefusedWhileTheLockIsInUse) {
  TestLocks locks;
  const auto held = locks.Ask(locks.Of(1), "pool", SemaphoreOf(3));
  LockPlace place = 0;
  LockLook look;
  const Status other = locks.space->Acquire(locks.Of(1), "pool", SemaphoreOf(2), &place, &look);

  EXPECT_EQ(other.reason(), Reason::kConflict) << other.ToString();
  EXPECT_EQ(place, 0u);
  locks.Release(locks.Of(1), held.place);
  EXPECT_TRUE(locks.Ask(locks.Of(1), "pool", SemaphoreOf(2)).holds());
}

TEST(LockSpaceTest, AnExpiredLeaseGoesToTheNextAndItsHolderIsTold) {
  TestLocks locks;
  const auto holder = locks.Ask(locks.Of(1), "deploy", WithTtl(kSecond));
  const auto waiter = locks.Ask(locks.Of(2), "deploy");

  locks.Pass(kSecond / 2);
  EXPECT_EQ(locks.space->ScanRequests(locks.own).served, 0u);
  locks.Pass(kSecond);
  EXPECT_EQ(locks.PhaseOf(holder.place), LockPhase::kLost);
  EXPECT_EQ(locks.space->ScanRequests(locks.own).served, 1u);
  EXPECT_EQ(locks.PhaseOf(waiter.place), LockPhase::kHolding);
  EXPECT_GT(locks.space->Look(waiter.place).token, holder.look.token);
  EXPECT_FALSE(locks.Release(locks.Of(1), holder.place)) << "it did not hold it any more";
  EXPECT_EQ(locks.PhaseOf(waiter.place), LockPhase::kHolding);
  locks.ExpectSound();
}

TEST(LockSpaceTest, WhoeverAsksTakesOverAnExpiredLease) {
  TestLocks locks;
  locks.Ask(locks.Of(1), "deploy", WithTtl(kSecond));
  locks.Pass(2 * kSecond);

  EXPECT_TRUE(locks.Ask(locks.Of(2), "deploy", Try()).holds());
  locks.ExpectSound();
}

TEST(LockSpaceTest, RenewingLengthensTheLeaseUpToItsBound) {
  TestLocks locks;
  LockRequest request = WithTtl(kSecond);
  request.hold_ns_max = 3 * kSecond;
  const auto holder = locks.Ask(locks.Of(1), "deploy", request);
  LockLook look;

  for (int i = 0; i < 3; ++i) {
    locks.Pass(kSecond * 9 / 10);
    EXPECT_TRUE(locks.space->Renew(locks.Of(1), holder.place, 0, &look).ok());
    EXPECT_EQ(look.token, holder.look.token);
  }
  EXPECT_LE(look.expires_ns, locks.space->NowNs() + kSecond / 2);
  locks.Pass(kSecond * 9 / 10);
  const Status late = locks.space->Renew(locks.Of(1), holder.place, 0, &look);
  EXPECT_EQ(late.reason(), Reason::kLockLost) << late.ToString();
  locks.ExpectSound();
}

TEST(LockSpaceTest, ALateRenewalPassesTheLockOn) {
  TestLocks locks;
  const auto holder = locks.Ask(locks.Of(1), "deploy", WithTtl(kSecond));
  const auto waiter = locks.Ask(locks.Of(2), "deploy");
  locks.Pass(2 * kSecond);
  LockLook look;

  const Status late = locks.space->Renew(locks.Of(1), holder.place, 0, &look);

  EXPECT_EQ(late.reason(), Reason::kLockLost);
  EXPECT_EQ(locks.PhaseOf(waiter.place), LockPhase::kHolding);
}

TEST(LockSpaceTest, AWaiterThatGivesUpLeavesTheQueue) {
  TestLocks locks;
  const auto holder = locks.Ask(locks.Of(1), "deploy");
  const auto second = locks.Ask(locks.Of(2), "deploy");
  const auto third = locks.Ask(locks.Of(3), "deploy");

  EXPECT_FALSE(locks.Release(locks.Of(2), second.place));
  locks.Release(locks.Of(1), holder.place);
  EXPECT_EQ(locks.PhaseOf(third.place), LockPhase::kHolding);
  locks.ExpectSound();
}

TEST(LockSpaceTest, AWaitingWriterThatGivesUpLetsTheReadersBehindItIn) {
  TestLocks locks;
  locks.Ask(locks.Of(1), "table", Shared());
  const auto writer = locks.Ask(locks.Of(2), "table");
  const auto reader = locks.Ask(locks.Of(3), "table", Shared());

  locks.Release(locks.Of(2), writer.place);
  EXPECT_EQ(locks.PhaseOf(reader.place), LockPhase::kHolding);
}

TEST(LockSpaceTest, NobodyIsGrantedAfterItsWaitIsOver) {
  TestLocks locks;
  const auto holder = locks.Ask(locks.Of(1), "deploy");
  LockRequest request;
  request.wait_until_ns = locks.space->NowNs() + kSecond;
  const auto gone = locks.Ask(locks.Of(2), "deploy", request);
  const auto third = locks.Ask(locks.Of(3), "deploy");
  locks.Pass(2 * kSecond);

  locks.Release(locks.Of(1), holder.place);
  EXPECT_EQ(locks.PhaseOf(gone.place), LockPhase::kLost);
  EXPECT_EQ(locks.PhaseOf(third.place), LockPhase::kHolding);
  locks.ExpectSound();
}

TEST(LockSpaceTest, ForceReleaseTakesTheLockFromWhoeverHoldsIt) {
  TestLocks locks;
  const auto holder = locks.Ask(locks.Of(1), "deploy");
  const auto waiter = locks.Ask(locks.Of(2), "deploy");

  EXPECT_EQ(*locks.space->ForceRelease(locks.own, "deploy", holder.look.token + 1), 0u);
  EXPECT_EQ(*locks.space->ForceRelease(locks.own, "deploy", holder.look.token), 1u);
  EXPECT_EQ(locks.PhaseOf(holder.place), LockPhase::kLost);
  EXPECT_EQ(locks.PhaseOf(waiter.place), LockPhase::kHolding);
  EXPECT_EQ(*locks.space->ForceRelease(locks.own, "nobody's", 0), 0u);
  locks.ExpectSound();
}

TEST(LockSpaceTest, DescribeTellsHoldersAndQueue) {
  TestLocks locks;
  LockRequest request;
  request.owner = "worker 1";
  const auto holder = locks.Ask(locks.Of(1), "deploy", request);
  // A letter of two bytes, of which one would have room.
  request.owner = "a text that is longer than the forty byëes that there are";
  locks.Ask(locks.Of(2), "deploy", request);
  LockDescription description;
  bool found = false;

  EXPECT_TRUE(locks.space->Describe(locks.own, "deploy", 8, &description, &found).ok());
  ASSERT_TRUE(found);
  ASSERT_EQ(description.holders.size(), 1u);
  EXPECT_EQ(description.holders[0].owner, "worker 1");
  EXPECT_EQ(description.holders[0].token, holder.look.token);
  EXPECT_EQ(description.holders[0].block, 1u);
  ASSERT_EQ(description.waiters.size(), 1u);
  EXPECT_EQ(description.waiters[0].owner, "a text that is longer than the forty by");
  EXPECT_TRUE(locks.space->Describe(locks.own, "other", 8, &description, &found).ok());
  EXPECT_FALSE(found);
}

TEST(LockSpaceTest, ListGivesEachLockInUseOnce) {
  TestLocks locks;
  for (int i = 0; i < 30; ++i) locks.Ask(locks.Of(1), "job/" + std::to_string(i));
  const auto idle = locks.Ask(locks.Of(1), "job/idle");
  locks.Release(locks.Of(1), idle.place);
  locks.Ask(locks.Of(1), "other");
  std::multiset<std::string> names;
  uint32_t bucket = 0;

  while (bucket < locks.geometry.bucket_count) {
    EXPECT_TRUE(locks.space
                    ->List(locks.own, "job/", &bucket, 7, 1,
                           [&](LockDescription& description) { names.insert(description.name); })
                    .ok());
  }
  EXPECT_EQ(names.size(), 30u);
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), 30u);
}

TEST(LockSpaceTest, LimitsAreKeptAndTheOneBefore) {
  TestLocks locks;
  LockPlace place = 0;
  LockLook look;
  const auto ask = [&](const std::string& name, const LockRequest& request) {
    return locks.space->Acquire(locks.Of(1), name, request, &place, &look).reason();
  };
  EXPECT_EQ(ask(std::string(255, 'n'), {}), Reason::kOk);
  EXPECT_EQ(ask(std::string(256, 'n'), {}), Reason::kNameInvalid);
  EXPECT_EQ(ask("", {}), Reason::kNameInvalid);
  EXPECT_EQ(ask("t1", WithTtl(kLockTtlNsMin)), Reason::kOk);
  EXPECT_EQ(ask("t2", WithTtl(kLockTtlNsMin - 1)), Reason::kInvalidArgument);
  EXPECT_EQ(ask("t3", WithTtl(kLockTtlNsMax)), Reason::kOk);
  EXPECT_EQ(ask("t4", WithTtl(kLockTtlNsMax + 1)), Reason::kInvalidArgument);
  LockRequest held;
  held.hold_ns_max = kLockTtlNsMin;
  EXPECT_EQ(ask("h1", held), Reason::kOk);
  held.hold_ns_max = kLockTtlNsMin - 1;
  EXPECT_EQ(ask("h2", held), Reason::kInvalidArgument);
  EXPECT_EQ(ask("s1", SemaphoreOf(kLockHoldersMax)), Reason::kOk);
  EXPECT_EQ(ask("s2", SemaphoreOf(kLockHoldersMax + 1)), Reason::kInvalidArgument);
  EXPECT_EQ(ask("s3", SemaphoreOf(0)), Reason::kInvalidArgument);
  locks.ExpectSound();
}

TEST(LockSpaceTest, LocksInUseAreLimitedAndIdleOnesMakeRoom) {
  TestLocks locks(8);
  std::vector<TestLocks::Asked> asked;
  for (int i = 0; i < 8; ++i) asked.push_back(locks.Ask(locks.Of(1), std::to_string(i)));
  LockPlace place = 0;
  LockLook look;
  const Status beyond = locks.space->Acquire(locks.Of(1), "one more", {}, &place, &look);

  EXPECT_EQ(beyond.reason(), Reason::kLimitExceeded) << beyond.ToString();
  EXPECT_EQ(place, 0u);
  locks.Release(locks.Of(1), asked[3].place);
  EXPECT_TRUE(locks.Ask(locks.Of(1), "one more").holds());
  locks.ExpectSound();
}

TEST(LockSpaceTest, RequestsAreLimited) {
  TestLocks locks(8);
  for (uint32_t i = 0; i < locks.geometry.requests_max; ++i) locks.Ask(locks.Of(1), "a");
  LockPlace place = 0;
  LockLook look;

  const Status beyond = locks.space->Acquire(locks.Of(1), "a", {}, &place, &look);
  EXPECT_EQ(beyond.reason(), Reason::kLimitExceeded) << beyond.ToString();
  locks.ExpectSound();
}

TEST(LockSpaceTest, TokensAreRaisedAndNeverLowered) {
  TestLocks locks;
  locks.space->RaiseToken(5000);
  EXPECT_GT(locks.Ask(locks.Of(1), "a").look.token, 5000u);
  locks.space->RaiseToken(10);
  EXPECT_GT(locks.Ask(locks.Of(1), "b").look.token, 5001u);
}

TEST(LockSpaceTest, SomebodyElsesRequestIsNotReleased) {
  TestLocks locks;
  const auto asked = locks.Ask(locks.Of(1), "a");
  bool held = false;

  EXPECT_EQ(locks.space->Release(locks.Of(2), asked.place, &held).reason(),
            Reason::kInvalidArgument);
  EXPECT_EQ(locks.space->Release(locks.Of(1), 9999, &held).reason(), Reason::kInvalidArgument);
  EXPECT_EQ(locks.PhaseOf(asked.place), LockPhase::kHolding);
}

TEST(LockSpaceTest, AWaiterSleepsUntilItsTurn) {
  TestLocks locks;
  const auto holder = locks.Ask(locks.Of(1), "a");
  const auto waiter = locks.Ask(locks.Of(2), "a");
  std::thread other([&] {
    while (LockInternals::Request(*locks.space, waiter.place).sleeping.load() == 0) {
      std::this_thread::yield();
    }
    locks.Release(locks.Of(1), holder.place);
  });
  const auto look = locks.space->Wait(locks.Of(2), waiter.place, 60 * kSecond);
  other.join();

  ASSERT_TRUE(look.ok()) << look.status().ToString();
  EXPECT_EQ(look->phase, LockPhase::kHolding);
}

TEST(LockSpaceTest, AWaiterTakesOverAtTheEndOfTheLeaseWithoutTheDaemon) {
  TestLocks locks;
  const auto holder = locks.Ask(locks.Of(1), "a", WithTtl(kLockTtlNsMin));
  const auto waiter = locks.Ask(locks.Of(2), "a");

  const auto look = locks.space->Wait(locks.Of(2), waiter.place, 60 * kSecond);

  ASSERT_TRUE(look.ok());
  EXPECT_EQ(look->phase, LockPhase::kHolding);
  EXPECT_GE(locks.space->NowNs(), holder.look.expires_ns);
  EXPECT_EQ(locks.PhaseOf(holder.place), LockPhase::kLost);
}

TEST(LockSpaceTest, AWaitEndsAfterItsTimeAndKeepsItsPlace) {
  TestLocks locks;
  locks.Ask(locks.Of(1), "a");
  const auto waiter = locks.Ask(locks.Of(2), "a");

  const auto look = locks.space->Wait(locks.Of(2), waiter.place, 1'000'000);

  ASSERT_TRUE(look.ok());
  EXPECT_EQ(look->phase, LockPhase::kWaiting);
  EXPECT_FALSE(locks.Release(locks.Of(2), waiter.place));
  locks.ExpectSound();
}

TEST(LockSpaceTest, TheDaemonIsWokenForItsRequests) {
  TestLocks locks;
  const auto holder = locks.Ask(locks.Of(1), "a");
  LockRequest request;
  request.remote = true;
  request.session = 1;
  const auto remote = locks.Ask(locks.own, "a", request);
  const uint32_t seen = locks.space->WaitForEvent(~0u, 0);
  std::thread other([&] { locks.Release(locks.Of(1), holder.place); });

  const uint32_t now = locks.space->WaitForEvent(seen, 60 * kSecond);
  other.join();
  EXPECT_NE(now, seen);
  EXPECT_EQ(locks.PhaseOf(remote.place), LockPhase::kHolding);
}

TEST(LockSpaceTest, AReleaseTellsWhichOfTheDaemonsRequestsHoldNow) {
  TestLocks locks;
  LockRequest request;
  request.remote = true;
  request.session = 1;
  const auto holder = locks.Ask(locks.own, "a", request);
  request.session = 2;
  const auto waiter = locks.Ask(locks.own, "a", request);
  std::vector<LockPlace> granted;
  bool held = false;

  EXPECT_TRUE(locks.space->Release(locks.own, holder.place, &held, &granted).ok());
  EXPECT_EQ(granted, std::vector<LockPlace>{waiter.place});
}

TEST(LockSpaceTest, ARequestIsReleasedOnce) {
  TestLocks locks;
  const auto asked = locks.Ask(locks.Of(1), "a");
  bool held = false;
  locks.Release(locks.Of(1), asked.place);

  EXPECT_EQ(locks.space->Release(locks.Of(1), asked.place, &held).reason(),
            Reason::kInvalidArgument);
  const auto one = locks.Ask(locks.Of(1), "b");
  const auto other = locks.Ask(locks.Of(1), "c");
  EXPECT_NE(one.place, other.place);
  locks.ExpectSound();
}

TEST(LockSpaceTest, ALeaseThatIsOverDoesNotBindTheLimit) {
  TestLocks locks;
  LockRequest request = SemaphoreOf(3);
  request.ttl_ns = kSecond;
  locks.Ask(locks.Of(1), "pool", request);
  locks.Pass(2 * kSecond);

  EXPECT_TRUE(locks.Ask(locks.Of(2), "pool").holds());
  locks.ExpectSound();
}

TEST(LockSpaceTest, AnIdleLockForgetsItsLimitForSharedHoldersToo) {
  TestLocks locks;
  const auto one = locks.Ask(locks.Of(1), "pool", SemaphoreOf(3));
  locks.Release(locks.Of(1), one.place);
  locks.Ask(locks.Of(1), "pool", Shared());

  EXPECT_TRUE(locks.Ask(locks.Of(2), "pool").waits());
}

TEST(LockSpaceTest, AnUnreachableBoundOfRenewalsIsNoBound) {
  TestLocks locks;
  LockRequest request = WithTtl(kSecond);
  request.hold_ns_max = UINT64_MAX;
  const auto asked = locks.Ask(locks.Of(1), "a", request);
  LockLook look;
  locks.Pass(kSecond / 2);

  EXPECT_TRUE(locks.space->Renew(locks.Of(1), asked.place, 0, &look).ok());
  EXPECT_GT(look.expires_ns, asked.look.expires_ns);
}

TEST(LockSpaceTest, TheDaemonIsToldOfANewWaiterAlsoBeforeItSleeps) {
  TestLocks locks;
  const uint32_t seen = locks.space->WaitForEvent(~0u, 0);
  locks.Ask(locks.Of(1), "a");
  EXPECT_EQ(locks.space->WaitForEvent(~0u, 0), seen) << "nobody waits: there is nothing to tell";

  locks.Ask(locks.Of(2), "a");
  EXPECT_NE(locks.space->WaitForEvent(~0u, 0), seen);
}

TEST(LockSpaceTest, TheDaemonIsToldOfALeaseThatEndsBeforeItsNextLook) {
  TestLocks locks;
  const auto first = locks.Ask(locks.Of(1), "a");
  locks.Ask(locks.Of(2), "a", WithTtl(kSecond));
  locks.Ask(locks.Of(3), "a");
  const uint32_t seen = locks.space->WaitForEvent(~0u, 0);
  locks.Release(locks.Of(1), first.place);

  EXPECT_NE(locks.space->WaitForEvent(~0u, 0), seen);
}

TEST(LockSpaceTest, WhoeverWaitedTooLongIsToldWhenTheQueueMovesOn) {
  TestLocks locks;
  const auto holder = locks.Ask(locks.Of(1), "a");
  LockRequest request;
  request.remote = true;
  request.session = 5;
  request.wait_until_ns = locks.space->NowNs() + kSecond;
  const auto remote = locks.Ask(locks.own, "a", request);
  const uint32_t seen = locks.space->WaitForEvent(~0u, 0);
  locks.Pass(2 * kSecond);

  EXPECT_EQ(locks.space->ScanRequests(locks.own).served, 1u);
  EXPECT_EQ(locks.PhaseOf(remote.place), LockPhase::kLost);
  EXPECT_NE(locks.space->WaitForEvent(~0u, 0), seen);
  EXPECT_EQ(locks.PhaseOf(holder.place), LockPhase::kHolding);
}

// Processes that take turns at a lock, each adding to a word that only the lock protects.
TEST(LockSpaceTest, ThreadsExcludeEachOther) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 2000;
  TestLocks locks;
  uint64_t unprotected = 0;
  std::atomic<int> inside{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const Lane lane{8 + static_cast<uint32_t>(t), kOperationTimeoutNsDefault};
      for (int i = 0; i < kRounds; ++i) {
        auto asked = locks.Ask(lane, "word");
        while (!asked.holds()) {
          const auto look = locks.space->Wait(lane, asked.place, 60 * kSecond);
          ASSERT_TRUE(look.ok());
          asked.look = *look;
        }
        ASSERT_EQ(inside.fetch_add(1), 0);
        ++unprotected;
        inside.fetch_sub(1);
        ASSERT_TRUE(locks.Release(lane, asked.place));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(unprotected, uint64_t{kThreads * kRounds});
  locks.ExpectSound();
}

}  // namespace
}  // namespace statehouse
