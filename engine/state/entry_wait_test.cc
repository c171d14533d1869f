// Waiting for entries in mapped memory: what counts as met, and that no change is slept through.
#include "engine/state/entry_wait.h"

#include <atomic>
#include <thread>

#include "engine/os/barrier.h"
#include "engine/os/futex.h"
#include "engine/state/test_dict.h"
#include "engine/value/value_writer.h"

namespace statehouse {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;

std::string Wire(int64_t number) {
  std::string wire;
  ValueWriter(&wire).Int(number);
  return wire;
}

class EntryWaitTest : public testing::Test {
 protected:
  EntryWaitTest() { EXPECT_TRUE(JoinBarriers()); }

  bool IsMet(const EntryWait& wait, std::string_view key = "k") {
    EntryLook look;
    const Status status = LookAtEntry(*t_.dict, key, wait, &look);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return look.met;
  }
  static EntryWait For(EntryWait::Kind kind, uint64_t version = 0) {
    EntryWait wait;
    wait.kind = kind;
    wait.version = version;
    return wait;
  }

  TestDict t_;
};

TEST_F(EntryWaitTest, WhatIsMet) {
  using Kind = EntryWait::Kind;
  EntryWait seven = For(Kind::kValue);
  seven.value = Wire(7);
  EXPECT_FALSE(IsMet(For(Kind::kPresent)));
  EXPECT_TRUE(IsMet(For(Kind::kAbsent)));
  EXPECT_FALSE(IsMet(For(Kind::kVersionAbove, 0)));
  EXPECT_FALSE(IsMet(For(Kind::kVersionDiffers, 0)));
  EXPECT_FALSE(IsMet(seven));
  const uint64_t version = t_.Set("k", DictValue::Int64(7)).version;
  EXPECT_TRUE(IsMet(For(Kind::kPresent)));
  EXPECT_FALSE(IsMet(For(Kind::kAbsent)));
  EXPECT_TRUE(IsMet(For(Kind::kVersionAbove, version - 1)));
  EXPECT_FALSE(IsMet(For(Kind::kVersionAbove, version)));
  EXPECT_FALSE(IsMet(For(Kind::kVersionDiffers, version)));
  EXPECT_TRUE(IsMet(For(Kind::kVersionDiffers, 0)));
  EXPECT_TRUE(IsMet(seven));
  t_.Delete("k");
  EXPECT_FALSE(IsMet(For(Kind::kVersionAbove, version)));
  EXPECT_TRUE(IsMet(For(Kind::kVersionDiffers, version)));
}

TEST_F(EntryWaitTest, APathAsksForAPart) {
  std::string map;
  ValueWriter writer(&map);
  writer.BeginMap();
  writer.Key("port");
  writer.Int(80);
  writer.EndMap();
  EntryWait wait;
  wait.path = {PathStep::Key("port")};
  EXPECT_FALSE(IsMet(wait));
  t_.Put("k", map);
  EXPECT_TRUE(IsMet(wait));
  wait.kind = EntryWait::Kind::kValue;
  wait.value = Wire(80);
  EXPECT_TRUE(IsMet(wait));
  wait.value = Wire(81);
  EXPECT_FALSE(IsMet(wait));
  // A number has no parts, now.
  t_.Set("k", DictValue::Int64(80));
  EXPECT_FALSE(IsMet(wait));
  wait.kind = EntryWait::Kind::kAbsent;
  EXPECT_TRUE(IsMet(wait));
  wait.kind = EntryWait::Kind::kVersionAbove;
  EXPECT_EQ(CheckEntryWait(wait).reason(), Reason::kInvalidArgument);
}

TEST_F(EntryWaitTest, ATimeoutIsNoError) {
  EntryLook look;
  const uint64_t begin_ns = MonotonicNs();
  ASSERT_TRUE(WaitForEntry(*t_.dict, "k", EntryWait(), 20'000'000, &look).ok());
  EXPECT_FALSE(look.met);
  EXPECT_FALSE(look.found);
  EXPECT_GE(MonotonicNs() - begin_ns, 20'000'000u);
}

TEST_F(EntryWaitTest, AnEntryThatExpiresIsAbsentWithoutAChange) {
  DictSetOptions options;
  options.ttl = DictTtl{DictTtl::Kind::kSet, 30};
  t_.Set("k", DictValue::Int64(1), options);
  EntryLook look;
  ASSERT_TRUE(
      WaitForEntry(*t_.dict, "k", For(EntryWait::Kind::kAbsent), 20 * kSecondNs, &look).ok());
  EXPECT_TRUE(look.met);
}

TEST_F(EntryWaitTest, ADictThatStopsWakesWhoWaits) {
  std::atomic<bool> waits{false};
  Status status;
  std::thread waiter([&] {
    EntryLook look;
    waits = true;
    status = WaitForEntry(*t_.dict, "k", EntryWait(), 60 * kSecondNs, &look);
  });
  while (!waits || DictInternals::Line(*t_.dict).armed == 0) std::this_thread::yield();
  t_.dict->SetState(DictState::kMoved);
  waiter.join();
  EXPECT_EQ(status.reason(), Reason::kDictMoved);
}

// Each waits for the other's number, and nobody looks by time: one lost wake-up and they sleep for
// a minute.
void PlayPingPong(TestDict& t, int rounds) {
  const auto play = [&](std::string_view mine, std::string_view his, uint32_t lane, bool begins) {
    const std::unique_ptr<Dict> dict = t.Map(Access::kReadWrite);
    DictIncrement increment;
    increment.delta = DictValue::Int64(1);
    increment.initial = DictValue::Int64(0);
    for (int64_t round = 1; round <= rounds; ++round) {
      EntryWait wait;
      wait.kind = EntryWait::Kind::kValue;
      wait.value = Wire(round);
      EntryLook look;
      if (!begins) {
        ASSERT_TRUE(WaitForEntry(*dict, his, wait, 60 * kSecondNs, &look).ok());
        ASSERT_TRUE(look.met) << "round " << round;
      }
      DictResult result;
      const Lane writer{lane, kOperationTimeoutNsDefault};
      ASSERT_TRUE(dict->Increment(writer, mine, increment, &result).ok());
      if (begins) {
        ASSERT_TRUE(WaitForEntry(*dict, his, wait, 60 * kSecondNs, &look).ok());
        ASSERT_TRUE(look.met) << "round " << round;
      }
    }
  };
  std::thread other([&] { play("b", "a", 2, false); });
  play("a", "b", 3, true);
  other.join();
}

TEST_F(EntryWaitTest, NoWakeUpIsLost) { PlayPingPong(t_, 20'000); }

TEST_F(EntryWaitTest, NoWakeUpIsLostAmongOthersChanges) {
  std::atomic<bool> stops{false};
  std::thread noise([&] {
    for (int i = 0; !stops; ++i) {
      DictResult result;
      const Lane lane{4, kOperationTimeoutNsDefault};
      ASSERT_TRUE(
          t_.dict->Set(lane, "noise" + std::to_string(i % 50), DictValue::Int64(i), {}, &result)
              .ok());
    }
  });
  PlayPingPong(t_, 300);
  stops = true;
  noise.join();
}

}  // namespace
}  // namespace statehouse
