// DispatcherCore: what every call of the dispatcher goes through, but its method table.
//
// Who owns it: the dispatcher. Threads: any.
// Always true: each call that began is finished once.
#pragma once

#include <google/protobuf/message_lite.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "service/api/call_log.h"
#include "service/api/dispatcher.h"
#include "service/api/slow_calls.h"
#include "service/api/verbs.h"
#include "service/api/wait_table.h"
#include "service/lease/lock_service.h"
#include "service/session/bound_entries.h"
#include "service/session/session_table.h"
#include "service/watch/area_hub.h"
#include "service/watch/entry_waits.h"
#include "service/watch/watch_hub.h"

namespace statehouse {

class BatchVerbs;

using CallClock = std::chrono::steady_clock;

// One call from Dispatch to its answer.
struct Call {
  Door door = Door::kNetwork;
  std::string_view method;  // Of the method table, or "unknown".
  CallClock::time_point began;
  CallClock::time_point deadline;
  std::shared_ptr<const Identity> identity;
  DoneCallback done;
  bool is_limited = false;  // It counts against the limit of its token until it is finished.
  std::string name = {};    // Of the object, where the log may need it.
  uint64_t response_bytes_max = UINT64_MAX;
  std::function<std::string()> peer = {};  // As the context's.
};

inline uint64_t ToNs(CallClock::time_point at) {
  return static_cast<uint64_t>(std::chrono::nanoseconds(at.time_since_epoch()).count());
}

inline Status PastDeadline(std::string_view method) {
  return Status(Reason::kTimeout, std::string(method) + ": the deadline passed before an answer");
}

inline Status WhileDraining(std::string_view method) {
  return Status(Reason::kDraining, std::string(method) +
                                       ": the service is draining before it stops; try its "
                                       "successor");
}

// Everything of the dispatcher but its method table.
class DispatcherCore {
 public:
  // `batch_verbs` outlives it.
  DispatcherCore(DispatcherOptions options, DispatcherParts parts, Lane slow_lane,
                 const BatchVerbs* batch_verbs)
      : options_(std::move(options)),
        engine_(parts.engine),
        control_(parts.control),
        observer_(parts.observer),
        log_(parts.log != nullptr ? std::move(parts.log) : std::make_shared<CallLog>()),
        batch_verbs_(batch_verbs),
        locks_(std::move(parts.locks)),
        sessions_(std::move(parts.sessions)),
        bound_(std::move(parts.bound)),
        watches_(std::move(parts.watches)),
        area_watches_(std::move(parts.area_watches)),
        waits_(WaitTable::Start(options_.waiters_max)),
        entry_waits_(EntryWaits::Start(watches_.get(), &engine_->dicts(), options_.waiters_max)),
        slow_(slow_lane) {}

  const DispatcherOptions& options() const { return options_; }
  ServiceControl& control() { return *control_; }
  const Engine& engine() const { return *engine_; }
  const std::shared_ptr<LockService>& locks() const { return locks_; }
  const std::shared_ptr<SessionTable>& sessions() const { return sessions_; }
  const std::shared_ptr<WatchHub>& watches() const { return watches_; }
  const std::shared_ptr<AreaHub>& area_watches() const { return area_watches_; }
  CallObserver& observer() { return *observer_; }
  const BatchVerbs& batch_verbs() const { return *batch_verbs_; }
  WaitTable& waits() { return *waits_; }
  const std::shared_ptr<EntryWaits>& entry_waits() const { return entry_waits_; }
  uint32_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
  void Begin() { in_flight_.fetch_add(1, std::memory_order_relaxed); }

  // The lane counts as in use until the context is gone.
  VerbContext ContextFor(const Identity& identity, Lane lane, bool fast) const {
    VerbContext context{.engine = engine_,
                        .identity = &identity,
                        .options = &options_,
                        .control = control_,
                        .locks = locks_.get(),
                        .sessions = sessions_.get(),
                        .bound = bound_.get(),
                        .lane = lane,
                        .lane_use = engine_->UseDaemonLane(lane),
                        .fast = fast};
    context.lane.operation_timeout_ns =
        std::min(lane.operation_timeout_ns, fast ? kFastTimeoutNs : kSlowSliceNs);
    return context;
  }

  // Answers a call: the only place that does.
  void Finish(Call& call, StatusOr<std::string> result) {
    const Reason reason = result.ok() ? Reason::kOk : result.status().reason();
    const CallClock::time_point now = CallClock::now();
    observer_->OnCall(call.door, call.method, reason, now - call.began);
    Log(call, reason, now);
    if (call.is_limited) call.identity->limit()->End();
    // Moved out first: the callback may free what holds the call.
    const DoneCallback done = std::move(call.done);
    in_flight_.fetch_sub(1, std::memory_order_relaxed);
    done(std::move(result));
  }

  // Of a call that begins, before its request is gone.
  void KeepName(Call& call, std::string_view request) const {
    const bool is_audited = log_->audits() && CallLog::IsAudited(call.method);
    if (!is_audited && !log_->looks_for_slow()) return;
    call.name = NameIn(request);
    // An index is given again to another object one day.
    if (is_audited && call.name.starts_with('#')) AddRealName(&call.name, call.method);
  }

  void FinishWith(Call& call, const Status& status, const google::protobuf::MessageLite& response) {
    if (!status.ok()) return Finish(call, status);
    const size_t bytes = response.ByteSizeLong();
    if (bytes > options_.message_bytes_max) {
      return Finish(call, Status(Reason::kMessageTooLarge,
                                 std::string(call.method) + ": the response of " +
                                     std::to_string(bytes) + " bytes is beyond the limit of " +
                                     std::to_string(options_.message_bytes_max)));
    }
    std::string serialized;
    if (!response.SerializeToString(&serialized)) {
      return Finish(call, Status(Reason::kInternal,
                                 std::string(call.method) + ": the response cannot be encoded"));
    }
    Finish(call, std::move(serialized));
  }

  void PostSlow(std::unique_ptr<SlowCalls::Task> task) { slow_.Post(std::move(task)); }

  void Shutdown() {
    watches_->Shutdown();
    entry_waits_->Shutdown();
    area_watches_->Shutdown();
    waits_->Shutdown();
    slow_.Shutdown();
    sessions_->Shutdown();
    locks_->Shutdown();
    bound_->Shutdown();
  }

 private:
  void AddRealName(std::string* name, std::string_view method) const {
    if (method.starts_with("/statehouse.v1.Areas/")) {
      const auto area = engine_->FindArea(*name);
      if (area.ok()) *name += " = " + (*area)->info().name;
    } else {
      const auto dict = engine_->dicts().Find(*name);
      if (dict.ok()) *name += " = " + (*dict)->record().name;
    }
  }
  void Log(const Call& call, Reason reason, CallClock::time_point now) const {
    const bool is_slow = log_->IsSlow(now - call.began) && !CallLog::Waits(call.method);
    // Of calls beyond a limit there may be a flood, and none was begun.
    const bool is_audited =
        log_->audits() && reason != Reason::kRateLimited && CallLog::IsAudited(call.method);
    if (!is_slow && !is_audited) return;
    const std::string peer = call.peer ? call.peer() : "";
    const bool is_of_lock = call.method.starts_with("/statehouse.v1.Locks/");
    const std::string name = is_of_lock ? LoggedLockName(*engine_, call.name) : call.name;
    const LoggedCall logged{call.door, call.method,     name, call.identity->token_id(), peer,
                            reason,    now - call.began};
    const auto second = std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch());
    if (is_audited) log_->Audit(logged, second.count());
    if (is_slow) log_->Slow(logged, second.count());
  }

  const DispatcherOptions options_;
  Engine* const engine_;
  ServiceControl* const control_;
  CallObserver* const observer_;
  const std::shared_ptr<CallLog> log_;
  const BatchVerbs* const batch_verbs_;
  const std::shared_ptr<LockService> locks_;
  const std::shared_ptr<SessionTable> sessions_;
  const std::shared_ptr<BoundEntries> bound_;
  const std::shared_ptr<WatchHub> watches_;
  const std::shared_ptr<AreaHub> area_watches_;
  std::atomic<uint32_t> in_flight_{0};
  const std::shared_ptr<WaitTable> waits_;
  const std::shared_ptr<EntryWaits> entry_waits_;
  SlowCalls slow_;
};

template <typename Request>
bool Decode(std::string_view bytes, Request* request) {
  return bytes.size() <= INT32_MAX &&
         request->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

inline Status Undecodable(std::string_view method) {
  return Status(Reason::kInvalidArgument,
                std::string(method) + ": the request is not a valid message of this method");
}

}  // namespace statehouse
