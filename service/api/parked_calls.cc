#include "service/api/parked_calls.h"

#include <algorithm>
#include <string>
#include <utility>

#include "service/api/lock_verbs.h"

namespace statehouse {
namespace {

std::string EncodeWait(const WaitResult& result) {
  v1::WaitAreaResponse response;
  response.set_changed(result.changed);
  response.set_updates(result.updates);
  return response.SerializeAsString();
}

}  // namespace

std::shared_ptr<PendingCall> RunWait(DispatcherCore& core, const Lane& lane, std::string_view bytes,
                                     Call call) {
  v1::WaitAreaRequest request;
  if (!Decode(bytes, &request)) {
    core.Finish(call, Undecodable(call.method));
    return nullptr;
  }
  const VerbContext context = core.ContextFor(*call.identity, lane, /*fast=*/true);
  StatusOr<WaitPlan> plan = PlanWait(context, request);
  if (!plan.ok()) {
    core.Finish(call, plan.status());
    return nullptr;
  }
  if (!plan->since || plan->timeout_ns == uint64_t{0}) {
    const StatusOr<uint64_t> updates = plan->area->area().UpdatesOfRange(plan->pos, plan->len);
    if (!updates.ok()) {
      core.Finish(call, updates.status());
    } else {
      core.Finish(call, EncodeWait({plan->since && *plan->since != *updates, *updates}));
    }
    return nullptr;
  }
  WaitTable::Request wait;
  wait.area = std::move(plan->area);
  wait.since = *plan->since;
  wait.pos = plan->pos;
  wait.len = plan->len;
  wait.deadline = call.deadline;
  wait.identity = call.identity;
  if (plan->timeout_ns)
    wait.timeout_at = CallClock::now() + std::chrono::nanoseconds(*plan->timeout_ns);
  // Shared, because std::function asks for a copyable callable; it runs once.
  auto held = std::make_shared<Call>(std::move(call));
  return core.waits().Park(std::move(wait), [&core, held](StatusOr<WaitResult> result) {
    if (result.ok()) {
      core.Finish(*held, EncodeWait(*result));
    } else {
      core.Finish(*held, std::move(result).status());
    }
  });
}

namespace {

// On CLOCK_MONOTONIC, which is the steady clock.
uint64_t DeadlineNs(CallClock::time_point deadline) {
  if (deadline == CallClock::time_point::max()) return UINT64_MAX;
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(deadline.time_since_epoch()).count());
}

class PendingLock final : public PendingCall {
 public:
  PendingLock(std::weak_ptr<LockService> locks, uint64_t call)
      : locks_(std::move(locks)), call_(call) {}
  void Cancel() override {
    if (const std::shared_ptr<LockService> locks = locks_.lock()) locks->Cancel(call_);
  }

 private:
  const std::weak_ptr<LockService> locks_;
  const uint64_t call_;
};

}  // namespace

std::shared_ptr<PendingCall> RunAcquire(DispatcherCore& core, const Lane& lane,
                                        std::string_view bytes, Call call) {
  v1::AcquireLockRequest request;
  if (!Decode(bytes, &request)) {
    core.Finish(call, Undecodable(call.method));
    return nullptr;
  }
  StatusOr<LockAsk> ask = PlanAcquire(core.ContextFor(*call.identity, lane, true), request);
  if (!ask.ok()) {
    core.Finish(call, ask.status());
    return nullptr;
  }
  ask->deadline_ns = DeadlineNs(call.deadline);
  ask->outlives_call = request.has_timeout() && ask->timeout_at_ns > ask->deadline_ns;
  ask->identity = call.identity;
  auto held = std::make_shared<Call>(std::move(call));
  const uint64_t waits =
      core.locks()->Acquire(*std::move(ask), [&core, held](StatusOr<LockAnswer> answer) {
        if (answer.ok()) {
          core.Finish(*held, EncodeAcquire(*answer));
        } else {
          core.Finish(*held, std::move(answer).status());
        }
      });
  return waits == 0 ? nullptr : std::make_shared<PendingLock>(core.locks(), waits);
}

namespace {

class PendingHold final : public PendingCall {
 public:
  PendingHold(std::weak_ptr<SessionTable> sessions, uint64_t hold)
      : sessions_(std::move(sessions)), hold_(hold) {}
  void Cancel() override {
    if (const std::shared_ptr<SessionTable> sessions = sessions_.lock()) sessions->Break(hold_);
  }

 private:
  const std::weak_ptr<SessionTable> sessions_;
  const uint64_t hold_;
};

}  // namespace

std::shared_ptr<PendingCall> RunHold(DispatcherCore& core, const Lane& lane, std::string_view bytes,
                                     Call call) {
  v1::HoldSessionRequest request;
  if (!Decode(bytes, &request)) {
    core.Finish(call, Undecodable(call.method));
    return nullptr;
  }
  const std::string token_id = call.identity->token_id();
  const uint64_t deadline_ns = DeadlineNs(call.deadline);
  auto held = std::make_shared<Call>(std::move(call));
  const uint64_t holds = core.sessions()->Hold(request.session_id(), token_id, deadline_ns,
                                               [&core, held](StatusOr<HoldAnswer> answer) {
                                                 if (answer.ok()) {
                                                   core.Finish(*held, EncodeHold(*answer));
                                                 } else {
                                                   core.Finish(*held, std::move(answer).status());
                                                 }
                                               });
  return holds == 0 ? nullptr : std::make_shared<PendingHold>(core.sessions(), holds);
}

}  // namespace statehouse
