// What counts as a daemon lane at rest, and which words are foreign.
#include "engine/state/daemon_lanes.h"

#include <thread>

#include "gtest/gtest.h"

namespace statehouse {
namespace {

void Nothing() {}

TEST(DaemonLanesTest, ALaneIsIdleOutsideItsUsesOnly) {
  DaemonLanes lanes;
  EXPECT_TRUE(lanes.IdleWhile(1, Nothing));
  {
    const DaemonLanes::Use outer = lanes.Enter(1);
    EXPECT_FALSE(lanes.IdleWhile(1, Nothing));
    EXPECT_TRUE(lanes.IdleWhile(2, Nothing));
    { const DaemonLanes::Use inner = lanes.Enter(1); }
    EXPECT_FALSE(lanes.IdleWhile(1, Nothing));
  }
  EXPECT_TRUE(lanes.IdleWhile(1, Nothing));
}

TEST(DaemonLanesTest, ALaneThatEntersDuringTheLookIsNotIdle) {
  DaemonLanes lanes;

  EXPECT_FALSE(lanes.IdleWhile(1, [&] { const DaemonLanes::Use use = lanes.Enter(1); }));
}

TEST(DaemonLanesTest, AUseThatIsMovedEndsOnce) {
  DaemonLanes lanes;
  {
    DaemonLanes::Use first = lanes.Enter(3);
    const DaemonLanes::Use second = std::move(first);
    EXPECT_FALSE(lanes.IdleWhile(3, Nothing));
  }
  EXPECT_TRUE(lanes.IdleWhile(3, Nothing));
}

// The proof that Scrub rests on: what a lane holds inside its uses is never seen by a look that
// found it idle.
TEST(DaemonLanesTest, AnIdleLookNeverSeesWhatTheLaneHolds) {
  constexpr int kLooks = 200'000;
  DaemonLanes lanes;
  std::atomic<uint64_t> word{0};
  std::atomic<bool> stop{false};
  std::thread holder([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const DaemonLanes::Use use = lanes.Enter(1);
      word.exchange(1, std::memory_order_seq_cst);  // As a lock is taken,
      word.store(0, std::memory_order_release);     // and released.
    }
  });
  int held = 0;
  for (int i = 0; i < kLooks; ++i) {
    uint64_t seen = 0;
    const bool idle = lanes.IdleWhile(1, [&] { seen = word.load(std::memory_order_acquire); });
    held += idle && seen != 0 ? 1 : 0;
  }
  stop = true;
  holder.join();

  EXPECT_EQ(held, 0);
}

TEST(ForeignWordsTest, WhatIsMissedInOneLookIsForgotten) {
  ForeignWords words;
  for (uint32_t look = 1; look < kForeignWordLooks; ++look) {
    words.BeginLook();
    EXPECT_FALSE(words.Saw({1, 2}, 7));
  }
  words.BeginLook();
  words.BeginLook();
  EXPECT_FALSE(words.Saw({1, 2}, 7));
}

TEST(ForeignWordsTest, WordsBeyondTheLimitWaitUntilOthersAreMended) {
  ForeignWords words;
  bool last = false;
  bool beyond = false;
  for (uint32_t look = 1; look <= kForeignWordLooks; ++look) {
    words.BeginLook();
    for (uint32_t i = 0; i < kForeignWordsMax; ++i) last = words.Saw({1, i}, 7);
    beyond = words.Saw({2, 0}, 7);
  }
  EXPECT_TRUE(last);
  EXPECT_FALSE(beyond);

  for (uint32_t look = 1; look <= kForeignWordLooks; ++look) {
    words.BeginLook();
    beyond = words.Saw({2, 0}, 7);
  }
  EXPECT_TRUE(beyond);
}

}  // namespace
}  // namespace statehouse
