// The daemon's waits for entries: ended by what they wait for, by time, by their caller, by the
// dict's end and by the service's, each once, and leaving nothing behind.
#include "service/watch/entry_waits.h"

#include <future>
#include <optional>
#include <thread>

#include "service/watch/watch_hub_test_support.h"

namespace statehouse {
namespace {

// Where an answer comes to, also when the test is over.
class Outcome {
 public:
  EntryWaits::Done Callback() {
    return [state = state_](StatusOr<EntryWaits::Answer> answer) {
      const std::lock_guard<std::mutex> lock(state->mutex);
      state->answer.emplace(std::move(answer));
      ++state->times;
      state->changed.notify_all();
    };
  }
  StatusOr<EntryWaits::Answer> Await() {
    std::unique_lock<std::mutex> lock(state_->mutex);
    state_->changed.wait(lock, [this] { return state_->times > 0; });
    return *state_->answer;
  }
  int times() {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->times;
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    int times = 0;
    std::optional<StatusOr<EntryWaits::Answer>> answer;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

class EntryWaitsTest : public WatchHubTest {
 protected:
  EntryWaitsTest() {
    Start();
    Restart(1000);
  }
  ~EntryWaitsTest() override { waits->Shutdown(); }
  void Restart(uint32_t waits_max) {
    if (waits != nullptr) waits->Shutdown();
    waits = EntryWaits::Start(hub.get(), store.get(), waits_max);
  }

  EntryWaits::Request For(const std::string& key,
                          EntryWait::Kind kind = EntryWait::Kind::kPresent) const {
    EntryWaits::Request request;
    request.served = served;
    request.key = key;
    request.wait.kind = kind;
    return request;
  }

  std::shared_ptr<EntryWaits> waits;
};

TEST_F(EntryWaitsTest, AnEntryThatComesEndsTheWaitForItAlone) {
  Outcome mine;
  Outcome others;
  waits->Park(For("a"), mine.Callback());
  waits->Park(For("b"), others.Callback());
  Put("a", "1");
  const auto answer = mine.Await();
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_TRUE(answer->look.met);
  EXPECT_EQ(answer->look.entry.bytes, "1");
  EXPECT_EQ(others.times(), 0);
  EXPECT_EQ(waits->size(), 1u);
}

TEST_F(EntryWaitsTest, WhatIsSoAlreadyEndsAtOnce) {
  Put("a", "1");
  Outcome outcome;
  waits->Park(For("a"), outcome.Callback());
  EXPECT_TRUE(outcome.Await()->look.met);
}

TEST_F(EntryWaitsTest, TimeAndDeadlineEndIt) {
  Outcome timeout;
  EntryWaits::Request request = For("a");
  request.timeout_at = std::chrono::steady_clock::now() + milliseconds(10);
  waits->Park(request, timeout.Callback());
  const auto answer = timeout.Await();
  ASSERT_TRUE(answer.ok());
  EXPECT_FALSE(answer->look.met);

  Outcome deadline;
  request = For("a");
  request.deadline = std::chrono::steady_clock::now() + milliseconds(10);
  waits->Park(request, deadline.Callback());
  EXPECT_EQ(deadline.Await().status().reason(), Reason::kTimeout);
  EXPECT_EQ(waits->size(), 0u);
}

TEST_F(EntryWaitsTest, AnExpiryEndsAWaitForAbsenceBeforeTheEntryIsRemoved) {
  DictSetOptions options;
  options.ttl = DictTtl{DictTtl::Kind::kSet, 30};
  DictResult result;
  ASSERT_TRUE(served->dict().Set(At(1), "a", DictValue::Int64(1), options, &result).ok());
  Outcome outcome;
  waits->Park(For("a", EntryWait::Kind::kAbsent), outcome.Callback());
  const auto answer = outcome.Await();
  ASSERT_TRUE(answer.ok());
  EXPECT_TRUE(answer->look.met);
}

TEST_F(EntryWaitsTest, ACallerThatGoesLeavesNothing) {
  Outcome outcome;
  const uint64_t id = waits->Park(For("a"), outcome.Callback());
  EXPECT_NE(id, 0u);
  waits->Cancel(id);
  EXPECT_EQ(outcome.Await().status().reason(), Reason::kCancelled);
  waits->Cancel(id);  // Too late.
  EXPECT_EQ(waits->size(), 0u);
  EXPECT_EQ(hub->Totals().waits, 0u);
}

TEST_F(EntryWaitsTest, TheLimitHoldsAtItAndRefusesOnePast) {
  Restart(2);
  Outcome first;
  Outcome second;
  Outcome third;
  waits->Park(For("a"), first.Callback());
  waits->Park(For("a"), second.Callback());
  EXPECT_EQ(waits->Park(For("a"), third.Callback()), 0u);
  EXPECT_EQ(third.Await().status().reason(), Reason::kLimitExceeded);
  Put("a", "1");
  EXPECT_TRUE(first.Await()->look.met);
  EXPECT_TRUE(second.Await()->look.met);
}

TEST_F(EntryWaitsTest, ADeletedDictAndADrainEndThem) {
  Outcome deleted;
  waits->Park(For("a"), deleted.Callback());
  ASSERT_TRUE(store->Delete("d").ok());
  EXPECT_EQ(deleted.Await().status().reason(), Reason::kDictNotFound);

  DictSpec spec;
  spec.name = "other";
  served = store->Create(spec)->dict;
  Outcome drained;
  waits->Park(For("a"), drained.Callback());
  waits->Shutdown();
  EXPECT_EQ(drained.Await().status().reason(), Reason::kDraining);
  Outcome late;
  EXPECT_EQ(waits->Park(For("a"), late.Callback()), 0u);
  EXPECT_EQ(late.Await().status().reason(), Reason::kDraining);
}

TEST_F(EntryWaitsTest, WhatItsCallerGaveAlongGoesWithNoLockHeld) {
  std::promise<size_t> left;
  std::shared_ptr<void> asks_when_it_goes(nullptr,
                                          [this, &left](void*) { left.set_value(waits->size()); });
  Outcome outcome;
  waits->Park(For("a"), [given = std::move(asks_when_it_goes), done = outcome.Callback()](
                            StatusOr<EntryWaits::Answer> answer) { done(std::move(answer)); });

  Put("a", "1");

  EXPECT_EQ(left.get_future().get(), 0u);
  EXPECT_EQ(outcome.times(), 1);
}

TEST_F(EntryWaitsTest, AWaitFollowsADictThatMoves) {
  Outcome outcome;
  waits->Park(For("late"), outcome.Callback());
  ASSERT_TRUE(store->MoveDict(At(1), served, DictStore::Move::kGrow).ok());
  served = *store->Find("d");
  Put("late", "1");
  const auto answer = outcome.Await();
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_TRUE(answer->look.met);
}

// Many wait for each step of a counter, while it is counted.
TEST_F(EntryWaitsTest, NoneIsForgotten) {
  constexpr int kWaiters = 400;
  std::vector<Outcome> outcomes(kWaiters);
  std::thread writer([this] {
    for (int i = 1; i <= kWaiters; ++i) Put("n", std::to_string(i));
  });
  for (int i = 0; i < kWaiters; ++i) {
    EntryWaits::Request request = For("n", EntryWait::Kind::kVersionAbove);
    request.wait.version = static_cast<uint64_t>(i);
    waits->Park(request, outcomes[i].Callback());
  }
  writer.join();
  // Versions are above the number of changes, so each is met by the last one at the latest.
  for (Outcome& outcome : outcomes) {
    const auto answer = outcome.Await();
    ASSERT_TRUE(answer.ok()) << answer.status().ToString();
    EXPECT_TRUE(answer->look.met);
    EXPECT_EQ(outcome.times(), 1);
  }
  EXPECT_EQ(waits->size(), 0u);
}

}  // namespace
}  // namespace statehouse
