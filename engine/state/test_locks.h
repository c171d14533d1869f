// For tests: a lock space with few lanes over a memfd of its own.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "engine/os/memory.h"
#include "engine/state/lock_space.h"
#include "engine/state/test_lock_words.h"
#include "gtest/gtest.h"

namespace statehouse {

struct TestLocks {
  static constexpr uint32_t kLanes = 32;
  static constexpr uint64_t kSecond = 1'000'000'000;

  explicit TestLocks(uint32_t locks_max = 64) : geometry(LockGeometry::For(locks_max, kLanes)) {
    geometry.seed = {0x1234567890abcdef, 0xfedcba0987654321};
    auto made = CreateSealedMemory("test-locks", geometry.segment_bytes());
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    fd = std::move(*made);
    const uint64_t uuid[2] = {1, 2};
    const Status formatted = LockSpace::Format(geometry, uuid, 1000, fd.get());
    EXPECT_TRUE(formatted.ok()) << formatted.ToString();
    space = Map();
  }

  std::unique_ptr<LockSpace> Map() const {
    auto mapped = LockSpace::Map(geometry, fd.get());
    EXPECT_TRUE(mapped.ok()) << mapped.status().ToString();
    if (!mapped.ok()) return nullptr;
    const Status prepared = (*mapped)->PrepareLanes(0, kLanes);
    EXPECT_TRUE(prepared.ok()) << prepared.ToString();
    return std::move(*mapped);
  }

  // A lane of process `process`, 1 to 3. Lane 1 is the daemon's.
  static Lane Of(uint32_t process) {
    return {process * kLanesPerBlock, kOperationTimeoutNsDefault};
  }

  struct Asked {
    LockPlace place = 0;
    LockLook look;
    bool holds() const { return look.phase == LockPhase::kHolding; }
    bool waits() const { return look.phase == LockPhase::kWaiting; }
  };
  // A refusal fails the test.
  Asked Ask(const Lane& lane, std::string_view name, const LockRequest& request = {}) {
    Asked asked;
    const Status status = space->Acquire(lane, name, request, &asked.place, &asked.look);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return asked;
  }
  bool Release(const Lane& lane, LockPlace place) {
    bool held = false;
    const Status status = space->Release(lane, place, &held);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return held;
  }
  LockPhase PhaseOf(LockPlace place) const { return space->Look(place).phase; }
  // The clock goes on.
  void Pass(uint64_t ns) {
    passed_ns += ns;
    space->SetClockOffset(static_cast<int64_t>(passed_ns));
  }
  void ExpectSound() const {
    for (const std::string& fault : space->Check()) ADD_FAILURE() << fault;
  }

  LockGeometry geometry;
  UniqueFd fd;
  std::unique_ptr<LockSpace> space;
  Lane own{1, kOperationTimeoutNsDefault};
  uint64_t passed_ns = 0;
};

}  // namespace statehouse
