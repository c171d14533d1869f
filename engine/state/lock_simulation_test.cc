// A lock space against a plain model of it: random operations of several processes and of the
// daemon's sessions, with a clock that the test moves, and after each of them every request stands
// as the model says. Prints its seed; STATEHOUSE_MODEL_SEED=<seed> runs it again, and
// STATEHOUSE_LONG=1 makes it long.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "engine/os/futex.h"
#include "engine/state/test_locks.h"

namespace statehouse {
namespace {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kSteps = 20'000;
#else
constexpr int kSteps = 500'000;
#endif
constexpr int kStepsLong = 20'000'000;
constexpr uint32_t kProcesses = 4;  // The first is the daemon.
constexpr size_t kRequestsMax = 30;
constexpr int kCheckEvery = 64;
// The clock goes in such steps, and everything that has a time has it half a step later, so that
// what the real clock adds meanwhile makes no difference.
constexpr uint64_t kTickNs = 10'000'000'000;
constexpr uint64_t kBeginNs = 1'000'000'000'000'000;

constexpr uint64_t TicksNs(int64_t ticks) {
  return static_cast<uint64_t>(ticks) * kTickNs + kTickNs / 2;
}

struct ModelRequest {
  uint32_t id = 0;  // Also its owner's text.
  LockPlace place = 0;
  uint32_t process = 0;
  uint64_t session = 0;
  std::string lock;
  bool shared = false;
  int64_t ttl = 0;          // In ticks, as all times here.
  int64_t hold = -1;        // -1: no bound.
  int64_t wait_until = -1;  // -1: none.
  int64_t since = 0;        // Of the grant.
  int64_t end = 0;          // The last tick at which the lease is good.
  LockPhase phase = LockPhase::kWaiting;
  uint64_t token = 0;  // Once it was seen.
};

struct ModelLock {
  uint32_t limit = 1;
  std::vector<uint32_t> holders;
  std::deque<uint32_t> queue;
  bool idle() const { return holders.empty() && queue.empty(); }
};

// Who holds and who waits, by the rules of lock_space.h.
class Model final {
 public:
  std::map<uint32_t, ModelRequest> requests;
  std::map<std::string, ModelLock> locks;
  std::vector<uint32_t> granted;  // By the present operation, in their order.
  int64_t now = 0;

  // What asking gives: kNone where it is refused. *conflict: for its limit.
  LockPhase Ask(ModelRequest request, uint32_t limit, bool queue, bool* conflict) {
    ModelLock& lock = locks[request.lock];
    *conflict = false;
    if (lock.limit != limit && (lock.idle() || !request.shared)) {
      if (!lock.idle()) {
        Expire(lock);
        Serve(lock);
      }
      if (!lock.idle()) {
        *conflict = true;
        return LockPhase::kNone;
      }
      lock.limit = limit;
    }
    bool can = lock.queue.empty() && CanHold(lock, request.shared);
    if (!can) {
      Serve(lock);
      if (lock.queue.empty()) {
        Expire(lock);
        can = CanHold(lock, request.shared);
      }
    }
    if (!can && !queue) return LockPhase::kNone;
    const uint32_t id = request.id;
    requests[id] = std::move(request);
    if (can) {
      Grant(lock, requests[id]);
    } else {
      lock.queue.push_back(id);
    }
    return requests[id].phase;
  }

  // Whether it held until now.
  bool End(uint32_t id) {
    const ModelRequest request = requests.at(id);
    requests.erase(id);
    if (request.phase == LockPhase::kLost) return false;
    ModelLock& lock = locks[request.lock];
    std::erase(lock.holders, id);
    std::erase(lock.queue, id);
    Serve(lock);
    return request.phase == LockPhase::kHolding && request.end >= now;
  }

  bool Renew(uint32_t id, int64_t ttl) {
    ModelRequest& request = requests.at(id);
    if (request.phase != LockPhase::kHolding) return false;
    ModelLock& lock = locks[request.lock];
    if (request.end < now) {
      Lose(lock, id);
      Serve(lock);
      return false;
    }
    int64_t end = now + (ttl < 0 ? request.ttl : ttl);
    if (request.hold >= 0) end = std::min(end, request.since + request.hold);
    request.end = std::max(request.end, end);
    return true;
  }

  uint32_t Force(const std::string& name, uint64_t token) {
    ModelLock& lock = locks[name];
    uint32_t released = 0;
    for (const uint32_t id : std::vector<uint32_t>(lock.holders)) {
      if (token != 0 && requests.at(id).token != token) continue;
      Lose(lock, id);
      ++released;
    }
    Serve(lock);
    return released;
  }

  void Look(const std::string& name) {
    Expire(locks[name]);
    Serve(locks[name]);
  }

  void Scan() {
    for (auto& [name, lock] : locks) Serve(lock);
  }

 private:
  bool CanHold(const ModelLock& lock, bool shared) const {
    if (lock.holders.empty()) return true;
    const bool is_shared = requests.at(lock.holders.front()).shared;
    if (shared || is_shared) return shared && is_shared;
    return lock.holders.size() < lock.limit;
  }
  void Grant(ModelLock& lock, ModelRequest& request) {
    request.phase = LockPhase::kHolding;
    request.since = now;
    request.end = now + (request.hold < 0 ? request.ttl : std::min(request.ttl, request.hold));
    lock.holders.push_back(request.id);
    granted.push_back(request.id);
  }
  void Lose(ModelLock& lock, uint32_t id) {
    std::erase(lock.holders, id);
    requests.at(id).phase = LockPhase::kLost;
  }
  void Expire(ModelLock& lock) {
    for (const uint32_t id : std::vector<uint32_t>(lock.holders)) {
      if (requests.at(id).end < now) Lose(lock, id);
    }
  }
  void Serve(ModelLock& lock) {
    bool expired = false;
    while (!lock.queue.empty()) {
      ModelRequest& head = requests.at(lock.queue.front());
      if (head.wait_until >= 0 && head.wait_until < now) {
        head.phase = LockPhase::kLost;
        lock.queue.pop_front();
      } else if (CanHold(lock, head.shared)) {
        lock.queue.pop_front();
        Grant(lock, head);
      } else if (!expired) {
        Expire(lock);
        expired = true;
      } else {
        return;
      }
    }
  }
};

class Simulation final {
 public:
  explicit Simulation(uint64_t seed) : random_(seed), locks_(64) {
    for (auto& space : spaces_) space = locks_.Map();
    Tick(0);
  }

  uint64_t asked() const { return last_id_; }
  uint64_t grants() const { return spaces_[0]->Stats().grants; }

  void Step() {
    model_.granted.clear();
    switch (Below(32)) {
      case 0:
      case 1:
      case 2: Tick(model_.now + static_cast<int64_t>(1 + Below(2))); break;
      case 3: Force(); break;
      case 4:
      case 5: Describe(); break;
      case 6: Scan(); break;
      case 7: Sweep(); break;
      case 8: Below(8) == 0 ? KillProcess() : Scan(); break;
      case 9: Below(4) == 0 ? EndSession() : Renew(); break;
      case 10: Below(4) == 0 ? RestartDaemon() : Renew(); break;
      case 11:
      case 12: Renew(); break;
      default: Below(2) == 0 && model_.requests.size() < kRequestsMax ? Ask() : Release();
    }
    Compare();
    if (++steps_ % kCheckEvery == 0) {
      for (const std::string& fault : spaces_[0]->Check()) ADD_FAILURE() << fault;
    }
  }

 private:
  uint64_t Below(uint64_t bound) { return random_() % bound; }
  LockSpace& Daemon() { return *spaces_[0]; }
  // A lane of the process: any may work on any of its requests.
  Lane LaneOf(uint32_t process) {
    const auto any = static_cast<uint32_t>(1 + Below(3));
    return {process * kLanesPerBlock + any, kOperationTimeoutNsDefault};
  }
  void Tick(int64_t to) {
    model_.now = to;
    const uint64_t ns = kBeginNs + static_cast<uint64_t>(to) * kTickNs;
    clock_offset_ns_ = static_cast<int64_t>(ns - MonotonicNs());
    for (auto& space : spaces_) space->SetClockOffset(clock_offset_ns_);
  }
  std::unique_ptr<LockSpace> Map() const {
    auto space = locks_.Map();
    space->SetClockOffset(clock_offset_ns_);
    return space;
  }
  std::string AnyLock() {
    return Below(16) == 0 ? "rare" + std::to_string(Below(40)) : "l" + std::to_string(Below(4));
  }
  ModelRequest* AnyRequest() {
    if (model_.requests.empty()) return nullptr;
    auto at = model_.requests.begin();
    std::advance(at, static_cast<int64_t>(Below(model_.requests.size())));
    return &at->second;
  }

  void Ask() {
    ModelRequest asked;
    asked.id = ++last_id_;
    asked.lock = AnyLock();
    asked.process = static_cast<uint32_t>(Below(kProcesses));
    asked.session = asked.process == 0 ? 1 + Below(3) : 0;
    asked.ttl = static_cast<int64_t>(Below(4));
    if (Below(4) == 0) asked.hold = static_cast<int64_t>(Below(6));
    if (Below(4) == 0) asked.wait_until = model_.now + static_cast<int64_t>(Below(3));
    // Readers and writers, a semaphore, single holders, and all of it.
    const char kind = asked.lock.back();
    LockRequest request;
    asked.shared = (kind == '1' || kind == '3') && Below(2) == 0;
    if (!asked.shared && (kind == '2' || (kind == '3' && Below(4) == 0))) request.limit = 3;
    request.mode = asked.shared ? LockMode::kShared : LockMode::kExclusive;
    request.ttl_ns = TicksNs(asked.ttl);
    request.hold_ns_max = asked.hold < 0 ? 0 : TicksNs(asked.hold);
    request.queue = Below(4) != 0;
    if (asked.wait_until >= 0) request.wait_until_ns = kBeginNs + TicksNs(asked.wait_until);
    const std::string owner = std::to_string(asked.id);
    request.owner = owner;
    request.remote = asked.process == 0;
    request.session = asked.session;
    request.request_id = asked.id;
    LockLook look;
    const Status status = spaces_[asked.process]->Acquire(LaneOf(asked.process), asked.lock,
                                                          request, &asked.place, &look);
    bool conflict = false;
    const uint32_t id = asked.id;
    const LockPlace place = asked.place;
    const LockPhase phase = model_.Ask(std::move(asked), request.limit, request.queue, &conflict);
    EXPECT_EQ(status.reason(), conflict ? Reason::kConflict : Reason::kOk) << status.ToString();
    EXPECT_EQ(look.phase, phase) << "request " << id;
    EXPECT_EQ(place != 0, phase != LockPhase::kNone);
  }
  void Release() {
    const ModelRequest* const request = AnyRequest();
    if (request == nullptr) return;
    const uint32_t id = request->id;
    bool held = false;
    std::vector<LockPlace> told;
    const Status status =
        spaces_[request->process]->Release(LaneOf(request->process), request->place, &held, &told);
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(held, model_.End(id)) << "request " << id;
    std::vector<LockPlace> expected;
    for (const uint32_t granted : model_.granted) {
      const ModelRequest& at = model_.requests.at(granted);
      if (at.process == 0) expected.push_back(at.place);
    }
    EXPECT_EQ(told, expected);
  }
  void Renew() {
    const ModelRequest* const request = AnyRequest();
    if (request == nullptr) return;
    const int64_t ttl = static_cast<int64_t>(Below(5)) - 1;
    const bool waits = request->phase == LockPhase::kWaiting;
    LockLook look;
    const Status status = spaces_[request->process]->Renew(LaneOf(request->process), request->place,
                                                           ttl < 0 ? 0 : TicksNs(ttl), &look);
    const bool renewed = model_.Renew(request->id, ttl);
    EXPECT_EQ(status.reason(), renewed ? Reason::kOk
                               : waits ? Reason::kInvalidArgument
                                       : Reason::kLockLost)
        << status.ToString();
    if (renewed) {
      EXPECT_EQ(look.token, request->token);
      EXPECT_EQ(static_cast<int64_t>((look.expires_ns - kBeginNs) / kTickNs), request->end);
    }
  }
  void Force() {
    const std::string name = AnyLock();
    uint64_t token = 0;
    const ModelLock& lock = model_.locks[name];
    if (Below(2) == 0 && !lock.holders.empty()) {
      token = model_.requests.at(lock.holders[Below(lock.holders.size())]).token;
    }
    const auto released = Daemon().ForceRelease(LaneOf(0), name, token);
    ASSERT_TRUE(released.ok()) << released.status().ToString();
    EXPECT_EQ(*released, model_.Force(name, token));
  }
  void Describe() {
    const std::string name = AnyLock();
    LockDescription seen;
    bool found = false;
    const Status status = Daemon().Describe(LaneOf(0), name, 100, &seen, &found);
    ASSERT_TRUE(status.ok()) << status.ToString();
    model_.Look(name);
    const ModelLock& lock = model_.locks[name];
    EXPECT_EQ(found, !lock.idle());
    std::vector<std::string> waiters;
    std::vector<std::string> holders;
    for (const LockParty& party : seen.waiters) waiters.push_back(party.owner);
    for (const LockParty& party : seen.holders) holders.push_back(party.owner);
    std::vector<std::string> queue;
    std::vector<std::string> holding;
    for (const uint32_t id : lock.queue) queue.push_back(std::to_string(id));
    for (const uint32_t id : lock.holders) holding.push_back(std::to_string(id));
    std::sort(holders.begin(), holders.end());
    std::sort(holding.begin(), holding.end());
    EXPECT_EQ(waiters, queue);
    EXPECT_EQ(holders, holding);
  }
  void Scan() {
    const LockScan scan = Daemon().ScanRequests(LaneOf(0));
    model_.Scan();
    EXPECT_LE(scan.served, model_.locks.size());
  }
  void Sweep() {
    EXPECT_EQ(Daemon().Sweep(LaneOf(0), &sweep_next_, 64, [](uint32_t) { return true; }), 0u);
  }
  // In the order of their places, as the daemon does.
  template <typename Of>
  uint32_t EndAll(Of of) {
    std::map<LockPlace, uint32_t> places;
    for (const auto& [id, request] : model_.requests) {
      if (of(request)) places[request.place] = id;
    }
    uint32_t held = 0;
    for (const auto& [place, id] : places) held += model_.End(id) ? 1 : 0;
    return held;
  }
  void KillProcess() {
    Scan();  // Recovering lanes serves their last buckets: then nothing is left to do there.
    const auto process = static_cast<uint32_t>(1 + Below(kProcesses - 1));
    for (uint32_t i = 0; i < kLanesPerBlock; ++i) {
      Daemon().RecoverLane(LaneOf(0), process * kLanesPerBlock + i);
    }
    const uint32_t held = Daemon().RecoverBlock(LaneOf(0), process);
    EXPECT_EQ(held, EndAll([&](const ModelRequest& at) { return at.process == process; }));
    spaces_[process] = Map();
  }
  void EndSession() {
    const uint64_t session = 1 + Below(3);
    const uint32_t held = Daemon().EndSession(LaneOf(0), session);
    EXPECT_EQ(held, EndAll([&](const ModelRequest& at) { return at.session == session; }));
  }
  void RestartDaemon() {
    Scan();
    spaces_[0] = Map();
    for (uint32_t lane = 1; lane < kLanesPerBlock; ++lane) Daemon().RecoverLane(LaneOf(0), lane);
    std::map<uint64_t, LockPlace> remotes;
    for (const LockRemote& remote : Daemon().TakeRemotes()) {
      remotes[remote.request_id] = remote.place;
      const auto at = model_.requests.find(static_cast<uint32_t>(remote.request_id));
      ASSERT_NE(at, model_.requests.end());
      EXPECT_EQ(remote.session, at->second.session);
    }
    for (const auto& [id, request] : model_.requests) {
      if (request.process != 0) continue;
      EXPECT_EQ(remotes[id], request.place);
      EXPECT_EQ(Daemon().FindRemote(request.session, id), request.place);
    }
  }

  // Every request stands as the model says, and every grant has a higher token than those before.
  void Compare() {
    for (auto& [id, request] : model_.requests) {
      const LockLook look = spaces_[request.process]->Look(request.place);
      LockPhase expected = request.phase;
      if (expected == LockPhase::kHolding && request.end < model_.now) expected = LockPhase::kLost;
      EXPECT_EQ(look.phase, expected) << "request " << id << " of \"" << request.lock << "\"";
      if (request.token != 0 && request.phase == LockPhase::kHolding) {
        EXPECT_EQ(look.token, request.token);
      }
    }
    // A scan comes to the locks in another order than the model.
    const uint64_t before = last_token_;
    std::map<std::string, uint64_t> last_of;
    for (const uint32_t id : model_.granted) {
      const auto at = model_.requests.find(id);
      if (at == model_.requests.end()) continue;
      ModelRequest& request = at->second;
      request.token = spaces_[request.process]->Look(request.place).token;
      EXPECT_GT(request.token, std::max(before, last_of[request.lock])) << "request " << id;
      last_of[request.lock] = request.token;
      last_token_ = std::max(last_token_, request.token);
    }
  }

  std::mt19937_64 random_;
  TestLocks locks_;
  std::unique_ptr<LockSpace> spaces_[kProcesses];
  Model model_;
  uint32_t last_id_ = 0;
  uint32_t sweep_next_ = 0;
  uint64_t last_token_ = 1000;
  int64_t clock_offset_ns_ = 0;
  int steps_ = 0;
};

TEST(LockSimulationTest, RandomOperationsDoWhatAPlainModelDoes) {
  const char* const given = std::getenv("STATEHOUSE_MODEL_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  const int steps = std::getenv("STATEHOUSE_LONG") != nullptr ? kStepsLong : kSteps;
  std::printf("STATEHOUSE_MODEL_SEED=%llu\n", static_cast<unsigned long long>(seed));
  Simulation simulation(seed);

  for (int step = 0; step < steps; ++step) {
    simulation.Step();
    ASSERT_FALSE(testing::Test::HasFailure()) << "step " << step << ", seed " << seed;
  }
  std::printf("%d steps, %llu requests, %llu grants\n", steps,
              static_cast<unsigned long long>(simulation.asked()),
              static_cast<unsigned long long>(simulation.grants()));
}

}  // namespace
}  // namespace statehouse
