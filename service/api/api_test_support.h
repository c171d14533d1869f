// What the tests of the verbs and of the doors stand on: a real engine whose vault forgets, a
// control that only remembers, an observer that counts, and identities made from grants. One thread
// at a time, except the observer.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "engine/state/engine.h"
#include "service/api/dispatcher.h"
#include "service/auth/authenticator.h"
#include "service/auth/token_file.h"
#include "service/lease/lock_service.h"
#include "service/session/bound_entries.h"
#include "service/session/session_table.h"
#include "service/watch/area_hub.h"
#include "service/watch/watch_hub.h"

namespace statehouse {

class ForgetfulVault final : public DescriptorVault {
 public:
  Status Store(const std::string& name, int fd) override { return Status(); }
  Status Remove(const std::string& name) override { return Status(); }
};

class RememberingControl final : public ServiceControl {
 public:
  static constexpr uint32_t kInFlight = 3;  // With the call that asks.
  Facts GetFacts() const override {
    Facts facts;
    facts.start_unix_ns = 1'500'000'000;
    facts.daemon_pid = 11;
    facts.keeper_pid = 12;
    facts.runtime_dir = "/run/x";
    facts.listen_addresses = {"127.0.0.1:7700"};
    facts.http_address = "127.0.0.1:7701";
    return facts;
  }
  bool draining() const override { return draining_; }
  uint32_t BeginDrain(std::chrono::milliseconds grace) override {
    grace_ = grace;
    draining_ = true;
    return kInFlight;
  }
  std::chrono::milliseconds grace() const { return grace_; }
  void set_draining(bool draining) { draining_ = draining; }

 private:
  std::atomic<bool> draining_{false};
  std::chrono::milliseconds grace_{-1};
};

class CountingObserver final : public CallObserver {
 public:
  void OnCall(Door door, std::string_view method, Reason reason,
              std::chrono::nanoseconds took) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++counts_[{std::string(method), reason}];
    ++total_;
  }
  uint64_t total() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return total_;
  }
  uint64_t count(const std::string& method, Reason reason) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = counts_.find({method, reason});
    return found == counts_.end() ? 0 : found->second;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, Reason>, uint64_t> counts_;
  uint64_t total_ = 0;
};

// An answer that may come later, on another thread.
class Answer final {
 public:
  DoneCallback Callback() {
    return [state = state_](StatusOr<std::string> result) {
      const std::lock_guard<std::mutex> lock(state->mutex);
      ++state->times;
      state->result.emplace(std::move(result));
      state->changed.notify_all();
    };
  }
  bool has_come() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->times > 0;
  }
  int times() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->times;
  }
  // Waits for it; the test's own time limit ends a wait in vain.
  StatusOr<std::string> Await() const {
    std::unique_lock<std::mutex> lock(state_->mutex);
    state_->changed.wait(lock, [this] { return state_->times > 0; });
    return *state_->result;
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    int times = 0;
    std::optional<StatusOr<std::string>> result;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

std::shared_ptr<const Identity> IdentityOf(std::vector<std::string> grants,
                                           const std::string& token_id = "testtest");

// Looks until `condition` holds; false after a minute.
template <typename Condition>
bool Eventually(const Condition& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= until) return false;
    std::this_thread::yield();
  }
  return true;
}

// A dispatcher over an engine of its own.
class TestService {
 public:
  explicit TestService(DispatcherOptions options = {}, EngineOptions engine_options = {});
  ~TestService();

  Engine& engine() { return *engine_; }
  Dispatcher& dispatcher() { return *dispatcher_; }
  RememberingControl& control() { return control_; }
  WatchHub& watches() { return *watches_; }
  BoundEntries& bound() { return *bound_; }
  AreaHub& area_watches() { return *area_watches_; }
  CountingObserver& observer() { return observer_; }

  CallContext Context(std::shared_ptr<const Identity> identity) const;
  std::shared_ptr<PendingCall> Send(std::string_view method, const std::string& request,
                                    Answer* answer);

  // One call to its end.
  template <typename Response, typename Request>
  StatusOr<Response> Call(std::string_view method, const Request& request) {
    return CallAs<Response>(identity_, method, request);
  }
  template <typename Response, typename Request>
  StatusOr<Response> CallAs(std::shared_ptr<const Identity> identity, std::string_view method,
                            const Request& request) {
    const StatusOr<std::string> bytes =
        CallForBytes(std::move(identity), method, request.SerializeAsString());
    if (!bytes.ok()) return bytes.status();
    Response response;
    EXPECT_TRUE(response.ParseFromString(*bytes));
    return response;
  }

  // The engine's area, made when it is missing.
  std::shared_ptr<ServedArea> MakeArea(const std::string& name, uint64_t size);

 private:
  StatusOr<std::string> CallForBytes(std::shared_ptr<const Identity> identity,
                                     std::string_view method, const std::string& request);

  ForgetfulVault vault_;
  RememberingControl control_;
  CountingObserver observer_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<SessionStore> session_store_;
  std::shared_ptr<LockService> locks_;
  std::shared_ptr<BoundEntries> bound_;
  std::shared_ptr<SessionTable> sessions_;
  std::shared_ptr<WatchHub> watches_;
  std::shared_ptr<AreaHub> area_watches_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::shared_ptr<const Identity> identity_;
};

}  // namespace statehouse
