// What the daemon does for a lock space: the dead, sessions, its own restart, idle locks and
// damage.
#include <string>

#include "engine/state/lock_space.h"
#include "engine/state/test_locks.h"

namespace statehouse {
namespace {

constexpr uint64_t kSecond = TestLocks::kSecond;

TEST(LockRepairTest, ADamagedBucketIsEmptiedAndItsHoldersAreTold) {
  TestLocks locks;
  const auto held = locks.Ask(locks.Of(1), "a");
  const auto waits = locks.Ask(locks.Of(2), "a");
  const auto other = locks.Ask(locks.Of(2), "b");
  ASSERT_NE(LockInternals::BucketOf(*locks.space, "a"), LockInternals::BucketOf(*locks.space, "b"));
  LockInternals::Request(*locks.space, held.place).links.store(~uint64_t{0});
  uint32_t next = 0;

  EXPECT_EQ(locks.space->Sweep(locks.own, &next, 64, [](uint32_t) { return true; }), 1u);
  EXPECT_EQ(locks.PhaseOf(held.place), LockPhase::kLost);
  EXPECT_EQ(locks.PhaseOf(waits.place), LockPhase::kLost);
  EXPECT_EQ(locks.PhaseOf(other.place), LockPhase::kHolding);
  EXPECT_TRUE(locks.Ask(locks.Of(3), "a").holds());
  locks.ExpectSound();
}

// The daemon takes a lock from its holder and dies before it forgets what it did. The holder has
// seen that and uses its request for another lock.
TEST(LockRepairTest, RecoveryLeavesARequestAloneThatIsUsedAgain) {
  TestLocks locks;
  const auto lost = locks.Ask(locks.Of(1), "a");
  const auto waiter = locks.Ask(locks.Of(2), "a");
  LockBucketLine& bucket =
      LockInternals::Bucket(*locks.space, LockInternals::BucketOf(*locks.space, "a"));
  LockLaneRecord& record = LockInternals::Record(*locks.space, locks.own.id);
  const uint64_t held = bucket.control.load() | locks.own.id;
  EXPECT_EQ(*locks.space->ForceRelease(locks.own, "a", 0), 1u);
  // What the first of its steps left: that the holder lost it.
  const auto& holders = LockInternals::Lock(*locks.space, 1).holders;
  record.redo[0].offset.store(static_cast<uint64_t>(
      reinterpret_cast<std::byte*>(&LockInternals::Request(*locks.space, lost.place).state) -
      LockInternals::Base(*locks.space)));
  record.redo[0].before.store((uint64_t{1} << 32) | 2 << 8 | 3);
  record.redo[0].value.store(2 << 8 | 4);
  record.redo_count.store(1);
  record.tag.store(held);
  bucket.control.store(held);
  locks.Release(locks.Of(1), lost.place);
  const auto again = locks.Ask(locks.Of(1), "b");
  ASSERT_EQ(again.place, lost.place);

  locks.space->RecoverLane(locks.own, locks.own.id);

  EXPECT_EQ(locks.PhaseOf(again.place), LockPhase::kHolding);
  EXPECT_EQ(locks.PhaseOf(waiter.place), LockPhase::kHolding);
  EXPECT_EQ(holders.load(), (uint64_t{1} << 32) | waiter.place);
  locks.ExpectSound();
}

// Somebody is stopped in the middle of an operation while another process dies.
TEST(LockRepairTest, ADeadProcessEndsAlsoWhereABucketIsStuck) {
  TestLocks locks;
  locks.Ask(locks.Of(1), "a");
  const auto waiter = locks.Ask(locks.Of(2), "a");
  LockBucketLine& bucket =
      LockInternals::Bucket(*locks.space, LockInternals::BucketOf(*locks.space, "a"));
  const uint64_t free = bucket.control.load();
  bucket.control = free | locks.Of(3).id;
  const Lane impatient{locks.own.id, 1};
  EXPECT_EQ(locks.space->RecoverBlock(impatient, 1), 0u);
  locks.space->ScanRequests(impatient);
  EXPECT_EQ(locks.PhaseOf(waiter.place), LockPhase::kWaiting);
  bucket.control = free;

  locks.space->ScanRequests(locks.own);

  EXPECT_EQ(locks.PhaseOf(waiter.place), LockPhase::kHolding);
  locks.ExpectSound();
}

TEST(LockRepairTest, MendingThatIsCutShortIsDoneByTheNextDaemon) {
  TestLocks locks;
  const auto held = locks.Ask(locks.Of(1), "a");
  const uint32_t index = LockInternals::BucketOf(*locks.space, "a");
  LockBucketLine& bucket = LockInternals::Bucket(*locks.space, index);
  LockLaneRecord& record = LockInternals::Record(*locks.space, locks.own.id);
  const uint64_t word = bucket.control.load() | locks.own.id;
  record.intent = index + 1;
  record.redo_count = kLockRedoMend;
  record.tag = word;
  bucket.control = word;
  bucket.head = 0;

  locks.space->RecoverLane(locks.own, locks.own.id);

  EXPECT_EQ(locks.PhaseOf(held.place), LockPhase::kLost);
  EXPECT_EQ(LockInternals::Lock(*locks.space, 1).state.load(), 0u);
  EXPECT_TRUE(locks.Ask(locks.Of(2), "a").holds());
  locks.ExpectSound();
}

TEST(LockRepairTest, WrongCountsOfHoldersAreDamageToo) {
  TestLocks locks;
  const auto held = locks.Ask(locks.Of(1), "a");
  LockInternals::Lock(*locks.space, 1).holders = held.place;
  uint32_t next = 0;

  EXPECT_EQ(locks.space->Sweep(locks.own, &next, 64, [](uint32_t) { return true; }), 1u);
  EXPECT_EQ(locks.PhaseOf(held.place), LockPhase::kLost);
  locks.ExpectSound();
}

TEST(LockRepairTest, ADeadProcessLosesItsLocksAndItsPlaces) {
  TestLocks locks;
  const auto held = locks.Ask(locks.Of(1), "a");
  locks.Ask(locks.Of(2), "b");
  locks.Ask(locks.Of(1), "b");
  const auto behind = locks.Ask(locks.Of(3), "b");
  const auto next = locks.Ask(locks.Of(2), "a");

  EXPECT_EQ(locks.space->RecoverBlock(locks.own, 1), 1u);

  EXPECT_EQ(locks.PhaseOf(held.place), LockPhase::kNone);
  EXPECT_EQ(locks.PhaseOf(next.place), LockPhase::kHolding);
  EXPECT_EQ(locks.PhaseOf(behind.place), LockPhase::kWaiting);
  LockDescription description;
  bool found = false;
  EXPECT_TRUE(locks.space->Describe(locks.own, "b", 8, &description, &found).ok());
  EXPECT_EQ(description.waiter_count, 1u);
  locks.ExpectSound();
}

TEST(LockRepairTest, ASessionsRequestsEndWithIt) {
  TestLocks locks;
  LockRequest request;
  request.remote = true;
  request.session = 77;
  request.request_id = 5;
  const auto held = locks.Ask(locks.own, "a", request);
  const auto next = locks.Ask(locks.Of(2), "a");

  EXPECT_EQ(locks.space->FindRemote(77, 5), held.place);
  EXPECT_EQ(locks.space->FindRemote(77, 6), 0u);
  EXPECT_EQ(locks.space->EndSession(locks.own, 77), 1u);
  EXPECT_EQ(locks.PhaseOf(next.place), LockPhase::kHolding);
  EXPECT_EQ(locks.space->FindRemote(77, 5), 0u);
  locks.ExpectSound();
}

TEST(LockRepairTest, ADaemonThatStartsFindsItsRequests) {
  TestLocks locks;
  LockRequest request;
  request.remote = true;
  request.session = 77;
  request.request_id = 5;
  const auto held = locks.Ask(locks.own, "a", request);
  request.request_id = 6;
  const auto waits = locks.Ask(locks.own, "a", request);
  locks.space = locks.Map();

  const auto remotes = locks.space->TakeRemotes();

  ASSERT_EQ(remotes.size(), 2u);
  EXPECT_EQ(remotes[0].place, held.place);
  EXPECT_EQ(remotes[0].phase, LockPhase::kHolding);
  EXPECT_EQ(remotes[1].place, waits.place);
  EXPECT_EQ(remotes[1].phase, LockPhase::kWaiting);
  EXPECT_EQ(remotes[1].request_id, 6u);
}

TEST(LockRepairTest, SweepingFreesIdleLocksAfterAWhile) {
  TestLocks locks;
  const auto used = locks.Ask(locks.Of(1), "used");
  const auto idle = locks.Ask(locks.Of(1), "idle");
  locks.Release(locks.Of(1), idle.place);
  const auto in_use = [&] {
    uint32_t count = 0;
    for (uint32_t i = 1; i <= locks.geometry.locks_max; ++i) {
      count += LockInternals::Lock(*locks.space, i).state.load() != 0 ? 1 : 0;
    }
    return count;
  };
  uint32_t next = 0;
  const auto leased = [](uint32_t) { return true; };

  EXPECT_EQ(locks.space->Sweep(locks.own, &next, 64, leased), 0u);
  EXPECT_EQ(in_use(), 2u);
  locks.Pass(61 * kSecond);
  EXPECT_EQ(locks.space->Sweep(locks.own, &next, 64, leased), 0u);
  EXPECT_EQ(in_use(), 1u);
  EXPECT_NE(locks.PhaseOf(used.place), LockPhase::kNone);
  locks.ExpectSound();
}

}  // namespace
}  // namespace statehouse
