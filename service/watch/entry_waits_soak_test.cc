// The daemon's waits for entries, many of them: each is ended by its change, and not by time; and
// whatever ends it, its caller is answered once, for a reason that was there, and nothing is left
// behind. The seeded bugs of watch_mutant.h must be found so. STATEHOUSE_LONG=1 makes it 10,000,000
// waits and 20,000 shutdowns.
#include <array>
#include <atomic>
#include <future>
#include <random>
#include <set>
#include <thread>

#include "engine/base/watch_mutant.h"
#include "engine/os/futex.h"
#include "engine/value/value_writer.h"
#include "service/watch/entry_waits.h"
#include "service/watch/watch_hub_test_support.h"
#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

using Clock = std::chrono::steady_clock;
using Kind = EntryWait::Kind;

std::string Wire(int64_t number) {
  std::string wire;
  ValueWriter(&wire).Int(number);
  return wire;
}

void Spin(uint64_t times) {
  for (; times > 0; --times) CpuRelax();
}

// In each round some wait for each key, and it is changed once. The next round begins when all are
// answered, so no other change can wake who slept through his own; without its thread the hub looks
// but once a round, and does not notify again, either.
class WaitRounds : public WatchHubTest {
 public:
  static constexpr int kKeys = 8;
  static constexpr int kWaitsOfAKey = 4;

  WaitRounds(milliseconds patience, bool has_hub_thread)
      : patience_(patience), has_hub_thread_(has_hub_thread) {
    WatchHubOptions options;
    options.has_thread = has_hub_thread;
    Start(options);
    waits_ = EntryWaits::Start(hub.get(), store.get(), kKeys * kWaitsOfAKey);
  }
  ~WaitRounds() override { waits_->Shutdown(); }
  void TestBody() override {}

  // Until all rounds are over, or a wait was ended by time.
  void Run(int rounds) {
    std::mt19937_64 random(1);
    for (int64_t round = 1; round <= rounds && ended_by_time_ == 0; ++round) {
      for (int key = 0; key < kKeys; ++key) {
        for (int i = 0; i < kWaitsOfAKey; ++i) Park(key, i, round);
      }
      // Some have been looked at by then, or all, or none.
      random() % 2 == 0 ? Spin(random() % 4000) : SleepNs(random() % 200'000);
      for (int key = 0; key < kKeys; ++key) Change(key, round);
      if (!has_hub_thread_) hub->Turn();
      std::unique_lock<std::mutex> lock(mutex_);
      answered_.wait(lock, [&] { return waits_over_ == round * kKeys * kWaitsOfAKey; });
    }
  }
  int64_t waits_over() const { return waits_over_; }
  int64_t ended_by_time() const { return ended_by_time_; }

 private:
  // Of an odd key the entry comes and goes, an even one has a number that changes.
  static bool ComesAndGoes(int key) { return key % 2 == 1; }
  static std::string Key(int key) { return "k" + std::to_string(key); }

  void Park(int key, int i, int64_t round) {
    EntryWaits::Request request;
    request.served = served;
    request.key = Key(key);
    request.timeout_at = Clock::now() + patience_;
    if (ComesAndGoes(key)) {
      request.wait.kind = round % 2 == 1 ? Kind::kPresent : Kind::kAbsent;
    } else {
      constexpr Kind kKinds[] = {Kind::kVersionAbove, Kind::kVersionDiffers, Kind::kValue};
      request.wait.kind = kKinds[i % 3];
      request.wait.version = versions_[static_cast<size_t>(key)];
      request.wait.value = Wire(round);
    }
    waits_->Park(std::move(request), [this, timeout_at = request.timeout_at](auto answer) {
      EXPECT_TRUE(answer.ok()) << answer.status().ToString();
      const bool by_time = !answer.ok() || !answer->look.met || Clock::now() >= timeout_at;
      const std::lock_guard<std::mutex> lock(mutex_);
      ++waits_over_;
      ended_by_time_ += by_time ? 1 : 0;
      answered_.notify_one();
    });
  }
  void Change(int key, int64_t round) {
    if (ComesAndGoes(key) && round % 2 == 0) return Delete(Key(key));
    DictResult result;
    const Status status = served->dict().Set(At(1), Key(key), DictValue::Int64(round), {}, &result);
    ASSERT_TRUE(status.ok()) << status.ToString();
    versions_[static_cast<size_t>(key)] = result.version;
    // As the service does; a worker of the host does not.
    if (has_hub_thread_ && round % 4 < 2) hub->LookNow(served->record().id);
  }

  const milliseconds patience_;
  const bool has_hub_thread_;
  std::shared_ptr<EntryWaits> waits_;
  std::array<uint64_t, kKeys> versions_{};
  std::mutex mutex_;
  std::condition_variable answered_;
  int64_t waits_over_ = 0;
  int64_t ended_by_time_ = 0;
};

// Callers that cancel, deadlines that pass, changes, and an end in the middle of it.
class WaitStorm : public WatchHubTest {
 public:
  static constexpr int kCallers = 2;
  enum class End { kShutdown, kHubFirst, kDictDeleted, kGrantsGone };
  static constexpr int kEnds = 4;

  explicit WaitStorm(uint64_t seed) : random_(seed), end_(static_cast<End>(seed % kEnds)) {
    Start();
    waits_ = EntryWaits::Start(hub.get(), store.get(), /*waits_max=*/seed % 3 == 0 ? 4 : 1000);
  }
  void TestBody() override {}

  // Returns what was found wrong, each kind once.
  std::set<std::string> Run() {
    std::vector<std::thread> threads;
    for (int i = 0; i < kCallers; ++i) {
      threads.emplace_back([this, seed = random_()] { CallOften(seed); });
    }
    threads.emplace_back([this, seed = random_()] { CancelSome(seed); });
    threads.emplace_back([this, seed = random_()] { Change(seed); });
    SleepNs(random_() % 20'000'000);
    EndIt();
    for (std::thread& thread : threads) thread.join();
    CheckNothingIsLeft();
    return faults_;
  }
  // How often calls were answered with it; kOk: met or its time was over.
  void AddTo(std::map<Reason, int>* answers) const {
    for (const auto& [reason, count] : answers_) (*answers)[reason] += count;
  }

 private:
  struct Call {
    EntryWaits::TimePoint timeout_at;
    EntryWaits::TimePoint deadline;
    bool has_identity = false;
    bool is_followed = false;  // Its answer makes another call.
    std::atomic<bool> is_cancelled{false};
    std::atomic<int> answers{0};
    std::atomic<uint64_t> id{0};
  };

  static std::string AnyKey(std::mt19937_64& random) { return "k" + std::to_string(random() % 4); }

  void Fault(const std::string& what) {
    const std::lock_guard<std::mutex> lock(mutex_);
    faults_.insert(what);
  }
  std::shared_ptr<Call> Park(std::mt19937_64& random) {
    auto call = std::make_shared<Call>();
    const auto some_time = [&random] {
      if (random() % 2 == 0) return EntryWaits::TimePoint::max();
      return Clock::now() + std::chrono::microseconds(random() % 3000);
    };
    EntryWaits::Request request;
    request.served = served;
    request.key = AnyKey(random);
    request.wait.kind = random() % 2 == 0 ? Kind::kPresent : Kind::kAbsent;
    request.keeps = kept_;
    request.timeout_at = call->timeout_at = some_time();
    request.deadline = call->deadline = some_time();
    call->has_identity = random() % 2 == 0;
    call->is_followed = random() % 8 == 0;
    if (call->has_identity) request.identity = identity_;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      calls_.push_back(call);
    }
    call->id = waits_->Park(std::move(request),
                            [this, call](auto answer) { Answered(*call, std::move(answer)); });
    if (call->id == 0 && call->answers != 1) Fault("a refused call is not answered at once");
    return call;
  }
  void Cancel(Call& call) {
    call.is_cancelled = true;
    waits_->Cancel(call.id);
  }
  void Answered(Call& call, const StatusOr<EntryWaits::Answer>& answer) {
    ++call.answers;
    const auto now = Clock::now();
    bool may_be = true;
    switch (answer.status().reason()) {
      case Reason::kOk: may_be = answer->look.met || now >= call.timeout_at; break;
      case Reason::kCancelled: may_be = call.is_cancelled; break;
      case Reason::kTimeout: may_be = now >= call.deadline; break;
      case Reason::kDraining: may_be = is_ending_; break;
      case Reason::kDictNotFound: may_be = is_ending_ && end_ == End::kDictDeleted; break;
      case Reason::kPermissionDenied: may_be = is_ending_ && call.has_identity; break;
      case Reason::kLimitExceeded: break;
      default: may_be = false;
    }
    if (!may_be) Fault("there was no reason for it: " + answer.status().ToString());
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++answers_[answer.status().reason()];
    }
    if (!call.is_followed || !answer.ok()) return;
    std::mt19937_64 random(call.id);
    (void)Park(random);
  }

  void CallOften(uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int late = 20; late > 0; late -= is_over_ ? 1 : 0) {
      const std::shared_ptr<Call> call = Park(random);
      if (random() % 4 == 0) Cancel(*call);
      if (random() % 4 == 0) SleepNs(random() % 500'000);
    }
    ++callers_over_;
  }
  // Any of the calls, those that are over, too.
  void CancelSome(uint64_t seed) {
    std::mt19937_64 random(seed);
    while (callers_over_ < kCallers) {
      std::shared_ptr<Call> call;
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!calls_.empty()) call = calls_[calls_.size() - 1 - random() % calls_.size() / 8];
      }
      if (call != nullptr && call->id != 0) Cancel(*call);
      SleepNs(random() % 100'000);
    }
  }
  void Change(uint64_t seed) {
    std::mt19937_64 random(seed);
    while (callers_over_ < kCallers) {
      const std::string key = AnyKey(random);
      DictResult result;
      const Status status = random() % 2 == 0
                                ? served->dict().Set(At(1), key, DictValue::Int64(1), {}, &result)
                                : served->dict().Delete(At(1), key, {}, &result);
      if (!status.ok() && status.reason() != Reason::kDictNotFound) Fault(status.ToString());
      if (random() % 2 == 0) hub->LookNow(served->record().id);
      SleepNs(random() % 200'000);
    }
  }
  void EndIt() {
    is_ending_ = true;
    switch (end_) {
      case End::kShutdown: break;
      case End::kHubFirst: hub->Shutdown(); break;
      case End::kDictDeleted: EXPECT_TRUE(store->Delete("d").ok()); break;
      case End::kGrantsGone:
        hub->Recheck([](const Identity&, const std::string&) {
          return Status(Reason::kPermissionDenied, "not any more");
        });
    }
    if (end_ != End::kShutdown) SleepNs(random_() % 3'000'000);
    waits_->Shutdown();
    is_over_ = true;
  }
  void CheckNothingIsLeft() {
    if (waits_->size() != 0) Fault("a wait is left");
    const WatchTotals totals = hub->Totals();
    if (totals.waits + totals.watches != 0) Fault("a watch is left");
    waits_.reset();
    for (const std::shared_ptr<Call>& call : calls_) {
      if (call->answers != 1) {
        Fault("a call is answered " + std::to_string(call->answers) + " times");
      }
      if (call.use_count() != 1) Fault("a callback is left");
    }
    if (kept_.use_count() != 1) Fault("a request is left");
  }

  std::mt19937_64 random_;
  const End end_;
  const std::shared_ptr<const Identity> identity_ =
      std::make_shared<const Identity>("token", "", 0, std::vector<Grant>());
  const std::shared_ptr<const int> kept_ = std::make_shared<const int>(0);
  std::shared_ptr<EntryWaits> waits_;
  std::atomic<bool> is_ending_{false};
  std::atomic<bool> is_over_{false};
  std::atomic<int> callers_over_{0};
  std::mutex mutex_;
  std::vector<std::shared_ptr<Call>> calls_;
  std::map<Reason, int> answers_;
  std::set<std::string> faults_;
};

#ifndef SH_WATCH_MUTANT
TEST(EntryWaitsSoakTest, EveryWaitIsEndedByItsChange) {
  constexpr int kWaitsOfARound = WaitRounds::kKeys * WaitRounds::kWaitsOfAKey;
  const int rounds = Rounds(2000, 10'000'000 / kWaitsOfARound) / 2;
  for (const bool has_hub_thread : {true, false}) {
    WaitRounds soak(milliseconds(60'000), has_hub_thread);
    soak.Run(rounds);
    EXPECT_EQ(soak.waits_over(), int64_t{rounds} * kWaitsOfARound);
    EXPECT_EQ(soak.ended_by_time(), 0);
  }
}

TEST(EntryWaitsSoakTest, EveryCallIsAnsweredOnceWhateverEndsIt) {
  const int rounds = Rounds(40, 20'000);
  std::map<Reason, int> answers;
  for (int round = 1; round <= rounds; ++round) {
    WaitStorm storm(static_cast<uint64_t>(round));
    for (const std::string& fault : storm.Run())
      ADD_FAILURE() << "round " << round << ": " << fault;
    storm.AddTo(&answers);
  }
  for (const Reason reason :
       {Reason::kOk, Reason::kCancelled, Reason::kTimeout, Reason::kDraining, Reason::kDictNotFound,
        Reason::kPermissionDenied, Reason::kLimitExceeded}) {
    EXPECT_GT(answers[reason], 0) << ReasonName(reason);
  }
}
#else
class EntryWaitsMutantsTest : public testing::Test {
 protected:
  ~EntryWaitsMutantsTest() override { chosen_watch_mutant = WatchMutant::kNone; }
};

// A wait whose entry is changed while it is looked at, and the hub tells it then and never again:
// whether its change ended it.
class WaitThatIsBusy : public WatchHubTest {
 public:
  void TestBody() override {}
  bool IsEndedByItsChange(milliseconds patience) {
    WatchHubOptions options;
    options.has_thread = false;
    Start(options);
    int looks = 0;
    at_watch_point = [&](WatchPoint point) {
      if (point != WatchPoint::kWaitBetweenSteps || ++looks > 1) return;
      Put("k", "1");
      hub->Turn();
    };
    const std::shared_ptr<EntryWaits> waits = EntryWaits::Start(hub.get(), store.get(), 1);
    EntryWaits::Request request;
    request.served = served;
    request.key = "k";
    const auto timeout_at = request.timeout_at = Clock::now() + patience;
    std::promise<bool> in_time;
    waits->Park(std::move(request), [&](auto answer) {
      in_time.set_value(answer.ok() && answer->look.met && Clock::now() < timeout_at);
    });
    const bool is_in_time = in_time.get_future().get();
    waits->Shutdown();
    at_watch_point = nullptr;
    return is_in_time;
  }
};

TEST_F(EntryWaitsMutantsTest, AWakeUpThatIsLostIsFound) {
  EXPECT_TRUE(WaitThatIsBusy().IsEndedByItsChange(milliseconds(60'000)));
  chosen_watch_mutant = WatchMutant::kWaitQueuedLate;
  EXPECT_FALSE(WaitThatIsBusy().IsEndedByItsChange(milliseconds(500)));
}

TEST_F(EntryWaitsMutantsTest, CallsThatAreAnsweredTwiceOrNeverAreFound) {
  for (const WatchMutant mutant : {WatchMutant::kWaitLeftBehind, WatchMutant::kWaitForgotten}) {
    chosen_watch_mutant = mutant;
    bool found = false;
    for (uint64_t round = 1; round <= 40 && !found; ++round)
      found = !WaitStorm(round).Run().empty();
    EXPECT_TRUE(found) << "mutant " << static_cast<int>(mutant);
  }
}
#endif

}  // namespace
}  // namespace statehouse
