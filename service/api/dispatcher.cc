#include "service/api/dispatcher.h"

#include <google/protobuf/message_lite.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <unordered_map>
#include <utility>

#include "service/api/area_stream.h"
#include "service/api/batch_run.h"
#include "service/api/dict_verbs.h"
#include "service/api/dispatcher_core.h"
#include "service/api/lock_verbs.h"
#include "service/api/parked_calls.h"
#include "service/api/watch_stream.h"

namespace statehouse {
namespace {

// A request up to this size is decoded into a message that its thread uses again.
constexpr size_t kReusedRequestBytesMax = 4096;

constexpr std::string_view kRunBatches = "/statehouse.v1.Batches/RunBatches";
constexpr std::string_view kWatchArea = "/statehouse.v1.Areas/WatchArea";
constexpr std::string_view kWatchDict = "/statehouse.v1.Dicts/WatchDict";

struct Method {
  std::string path;
  bool names_area = false;
  std::shared_ptr<PendingCall> (*run)(DispatcherCore&, const Lane&, std::string_view,
                                      Call) = nullptr;
  // No limit of its token's calls holds it up: else a token beyond it loses the locks and sessions
  // that it has, and nobody of it can give back what others of it wait for.
  bool is_unlimited = false;
  // What it begins is meant to outlive the call, and so is not begun while the service drains.
  bool begins_to_last = false;
};

bool IsUnlimited(std::string_view path) {
  static constexpr std::string_view kUnlimited[] = {
      "/statehouse.v1.Locks/RenewLock",       "/statehouse.v1.Locks/ReleaseLock",
      "/statehouse.v1.Sessions/RenewSession", "/statehouse.v1.Sessions/HoldSession",
      "/statehouse.v1.Sessions/CloseSession", "/statehouse.v1.Admin/Drain"};
  return std::find(std::begin(kUnlimited), std::end(kUnlimited), path) != std::end(kUnlimited);
}

bool BeginsToLast(std::string_view path) {
  return path == "/statehouse.v1.Locks/AcquireLock" ||
         path == "/statehouse.v1.Sessions/OpenSession";
}

// A call on the slow thread. It holds its messages, because a range goes on where its last turn
// ended.
template <typename Request, typename Response, auto kVerb>
class SlowVerb final : public SlowCalls::Task {
 public:
  SlowVerb(DispatcherCore& core, Call call, std::unique_ptr<Request> request)
      : core_(core), call_(std::move(call)), request_(std::move(request)) {}

  bool Try(const Lane& lane) override {
    const CallClock::time_point now = CallClock::now();
    if (now >= call_.deadline) {
      core_.Finish(call_,
                   Status(Reason::kTimeout, PastDeadline(call_.method).message() + HowFar()));
      return true;
    }
    if (stalled_since_ == CallClock::time_point()) stalled_since_ = now;
    VerbContext context = core_.ContextFor(*call_.identity, lane, /*fast=*/false);
    context.turns = &turns_;
    const uint64_t done_before = turns_.done;
    const Status status = kVerb(context, *request_, &response_);
    if (status.reason() == Reason::kStalled) {
      const CallClock::time_point after = CallClock::now();
      if (turns_.done != done_before) stalled_since_ = after;
      if (after - stalled_since_ < std::chrono::nanoseconds(lane.operation_timeout_ns)) {
        return false;
      }
    }
    core_.FinishWith(call_, status, response_);
    return true;
  }

  void Abandon(const Status& why) override {
    core_.Finish(call_,
                 Status(why.reason(), std::string(call_.method) + ": " + why.message() + HowFar()));
  }

 private:
  std::string HowFar() const {
    return turns_.done == 0 ? "" : " (" + std::to_string(turns_.done) + " bytes were done)";
  }

  DispatcherCore& core_;
  Call call_;
  const std::unique_ptr<Request> request_;
  Response response_;
  RangeTurns turns_;
  CallClock::time_point stalled_since_;
};

// Runs a verb on the door's thread; one that stalls goes on on the slow thread.
template <typename Request, typename Response, auto kVerb>
std::shared_ptr<PendingCall> RunFast(DispatcherCore& core, const Lane& lane, std::string_view bytes,
                                     Call call) {
  static thread_local Request reused_request;
  static thread_local Response response;
  std::unique_ptr<Request> own;
  if (bytes.size() > kReusedRequestBytesMax) own = std::make_unique<Request>();
  Request& request = own != nullptr ? *own : reused_request;
  if (!Decode(bytes, &request)) {
    core.Finish(call, Undecodable(call.method));
    return nullptr;
  }
  response.Clear();
  const VerbContext context = core.ContextFor(*call.identity, lane, /*fast=*/true);
  const Status status = kVerb(context, request, &response);
  if (status.reason() != Reason::kStalled) {
    core.FinishWith(call, status, response);
    return nullptr;
  }
  if (own == nullptr) own = std::make_unique<Request>(request);
  core.PostSlow(
      std::make_unique<SlowVerb<Request, Response, kVerb>>(core, std::move(call), std::move(own)));
  return nullptr;
}

// As RunFast, of a verb that changes the dict it names: its watchers are told from here, after the
// caller, without a thread in between.
template <typename Request, typename Response, auto kVerb>
std::shared_ptr<PendingCall> RunDictWrite(DispatcherCore& core, const Lane& lane,
                                          std::string_view bytes, Call call) {
  WatchHub& watches = *core.watches();
  const bool is_followed = watches.FollowsAny();
  std::shared_ptr<PendingCall> pending =
      RunFast<Request, Response, kVerb>(core, lane, bytes, std::move(call));
  if (!is_followed) return pending;
  const auto served = core.engine().dicts().Find(NameIn(bytes));
  if (served.ok()) watches.LookNow((*served)->record().id);
  return pending;
}

// For verbs that make system calls or walk the whole catalogue.
template <typename Request, typename Response, auto kVerb>
std::shared_ptr<PendingCall> RunSlow(DispatcherCore& core, const Lane& lane, std::string_view bytes,
                                     Call call) {
  auto request = std::make_unique<Request>();
  if (!Decode(bytes, request.get())) {
    core.Finish(call, Undecodable(call.method));
    return nullptr;
  }
  core.PostSlow(std::make_unique<SlowVerb<Request, Response, kVerb>>(core, std::move(call),
                                                                     std::move(request)));
  return nullptr;
}

#define SH_VERB(service, name, runner, is_named)                          \
  Method {                                                                \
    "/statehouse.v1." #service "/" #name, is_named,                       \
        &runner<v1::name##Request, v1::name##Response, &statehouse::name> \
  }

std::vector<Method> AllMethods() {
  std::vector<Method> methods = {
      SH_VERB(Areas, CreateArea, RunSlow, true),
      SH_VERB(Areas, DescribeArea, RunFast, true),
      SH_VERB(Areas, ListAreas, RunSlow, false),
      SH_VERB(Areas, DeleteArea, RunSlow, true),
      SH_VERB(Areas, ReadArea, RunFast, true),
      SH_VERB(Areas, WriteArea, RunFast, true),
      SH_VERB(Areas, FillArea, RunFast, true),
      SH_VERB(Areas, LoadWord, RunFast, true),
      SH_VERB(Areas, StoreWord, RunFast, true),
      SH_VERB(Areas, AddWord, RunFast, true),
      SH_VERB(Areas, CompareExchangeWord, RunFast, true),
      SH_VERB(Areas, BitwiseWord, RunFast, true),
      Method{"/statehouse.v1.Areas/WaitArea", true, &RunWait},
      SH_VERB(Dicts, CreateDict, RunSlow, true),
      SH_VERB(Dicts, DescribeDict, RunFast, true),
      SH_VERB(Dicts, ListDicts, RunSlow, false),
      SH_VERB(Dicts, DeleteDict, RunSlow, true),
      SH_VERB(Dicts, ClearDict, RunSlow, true),
      SH_VERB(Dicts, GetEntry, RunFast, true),
      SH_VERB(Dicts, SetEntry, RunDictWrite, true),
      SH_VERB(Dicts, DeleteEntry, RunDictWrite, true),
      SH_VERB(Dicts, IncrementEntry, RunDictWrite, true),
      SH_VERB(Dicts, EditEntry, RunDictWrite, true),
      SH_VERB(Dicts, TouchEntry, RunDictWrite, true),
      SH_VERB(Dicts, GetEntries, RunFast, true),
      SH_VERB(Dicts, SetEntries, RunDictWrite, true),
      SH_VERB(Dicts, DeletePrefix, RunSlow, true),
      SH_VERB(Dicts, ScanEntries, RunSlow, true),
      SH_VERB(Dicts, TransactDict, RunDictWrite, true),
      Method{"/statehouse.v1.Dicts/WaitEntry", true, &RunWaitEntry},
      Method{"/statehouse.v1.Locks/AcquireLock", true, &RunAcquire},
      SH_VERB(Locks, RenewLock, RunFast, true),
      SH_VERB(Locks, ReleaseLock, RunFast, true),
      SH_VERB(Locks, DescribeLock, RunFast, true),
      SH_VERB(Locks, ListLocks, RunSlow, false),
      SH_VERB(Locks, ForceReleaseLock, RunFast, true),
      SH_VERB(Sessions, OpenSession, RunFast, false),
      SH_VERB(Sessions, RenewSession, RunFast, false),
      Method{"/statehouse.v1.Sessions/HoldSession", false, &RunHold},
      SH_VERB(Sessions, CloseSession, RunFast, false),
      SH_VERB(Sessions, ListSessions, RunFast, false),
      Method{"/statehouse.v1.Batches/RunBatch", false, &RunBatch},
      Method{std::string(kRunBatches), false, &RunBatch},
      SH_VERB(Admin, GetStatus, RunFast, false),
      SH_VERB(Admin, Drain, RunFast, false),
  };
  for (Method& method : methods) {
    method.is_unlimited = IsUnlimited(method.path);
    method.begins_to_last = BeginsToLast(method.path);
  }
  return methods;
}

#undef SH_VERB

// What operations of a batch run as: an operation of type XRequest is the verb X.
void AddBatchVerbs(const std::vector<Method>& methods, BatchVerbs* verbs) {
  const google::protobuf::Descriptor* const operation = v1::Operation::descriptor();
  for (int i = 0; i < operation->field_count(); ++i) {
    const auto field = static_cast<uint32_t>(operation->field(i)->number());
    const std::string& type = operation->field(i)->message_type()->name();
    const std::string ending = "/" + type.substr(0, type.find("Request"));
    const auto of_field = [&](const Method& method) {
      return ShortOperations::IsShort(field) ? method.path == ShortOperations::MethodOf(field)
                                             : method.path.ends_with(ending);
    };
    const auto found = std::find_if(methods.begin(), methods.end(), of_field);
    if (found != methods.end()) verbs->Add(field, {found->path, found->run});
  }
}

class DispatcherImpl final : public Dispatcher {
 public:
  DispatcherImpl(DispatcherOptions options, DispatcherParts parts, Lane slow_lane)
      : core_(std::move(options), std::move(parts), slow_lane, &batch_verbs_),
        methods_(AllMethods()) {
    for (const Method& method : methods_) by_path_.emplace(method.path, &method);
    AddBatchVerbs(methods_, &batch_verbs_);
  }
  ~DispatcherImpl() override { Shutdown(); }

  std::shared_ptr<PendingCall> Dispatch(const CallContext& context, std::string_view method,
                                        std::string_view request, DoneCallback done) override {
    const auto found = by_path_.find(method);
    const CallClock::time_point now = CallClock::now();
    const std::string_view label =
        found != by_path_.end() ? std::string_view(found->second->path) : "unknown";
    Call call{context.door, label, now, context.deadline, context.identity, std::move(done)};
    call.response_bytes_max = context.response_bytes_max;
    call.peer = context.peer;
    core_.Begin();
    Status refused = Check(context, method, request.size(),
                           found == by_path_.end() ? nullptr : found->second, now);
    CallLimit* const limit = context.identity->limit().get();
    if (limit != nullptr && refused.ok() && !found->second->is_unlimited) {
      refused = limit->Begin(context.identity->token_id(), ToNs(now));
      call.is_limited = refused.ok();
    }
    if (!refused.ok()) {
      core_.Finish(call, std::move(refused));
      return nullptr;
    }
    if (found->second->names_area) core_.KeepName(call, request);
    return found->second->run(core_, context.lane, request, std::move(call));
  }

  bool Knows(std::string_view method) const override {
    return by_path_.find(method) != by_path_.end();
  }

  bool Streams(std::string_view method) const override {
    return method == kWatchDict || method == kWatchArea;
  }

  bool Converses(std::string_view method) const override { return method == kRunBatches; }

  StatusOr<std::unique_ptr<ServedStream>> OpenStream(const CallContext& context,
                                                     std::string_view method,
                                                     std::string_view request,
                                                     std::function<void()> notify) override {
    const CallClock::time_point began = CallClock::now();
    StatusOr<std::unique_ptr<ServedStream>> stream =
        OpenWatch(context, method, request, std::move(notify));
    if (!stream.ok()) {
      core_.observer().OnCall(context.door, Streams(method) ? method : "unknown",
                              stream.status().reason(), CallClock::now() - began);
    }
    return stream;
  }

  std::vector<std::string> Methods() const override {
    std::vector<std::string> paths;
    for (const Method& method : methods_) paths.push_back(method.path);
    paths.emplace_back(kWatchArea);
    paths.emplace_back(kWatchDict);
    return paths;
  }

  uint32_t CallsInFlight() const override { return core_.in_flight(); }

  void RecheckIdentities(Authenticator* authenticator) override {
    core_.waits().Recheck(
        [authenticator](const Identity& identity, const ServedArea& area) -> Status {
          SH_ASSIGN_OR_RETURN(const std::shared_ptr<const Identity> now,
                              authenticator->Revalidate(identity));
          return now->Require(ObjectKind::kArea, area.info().name, Verb::kRead);
        });
    core_.locks()->Recheck([authenticator, engine = &core_.engine()](
                               const Identity& identity, const std::string& name) -> Status {
      SH_ASSIGN_OR_RETURN(const std::shared_ptr<const Identity> now,
                          authenticator->Revalidate(identity));
      return RequireLock(*engine, *now, name, Verb::kLock);
    });
    core_.watches()->Recheck(
        [authenticator](const Identity& identity, const std::string& dict) -> Status {
          SH_ASSIGN_OR_RETURN(const std::shared_ptr<const Identity> now,
                              authenticator->Revalidate(identity));
          return now->Require(ObjectKind::kDict, dict, Verb::kRead);
        });
    core_.area_watches()->Recheck(
        [authenticator](const Identity& identity, const std::string& area) -> Status {
          SH_ASSIGN_OR_RETURN(const std::shared_ptr<const Identity> now,
                              authenticator->Revalidate(identity));
          return now->Require(ObjectKind::kArea, area, Verb::kRead);
        });
    core_.sessions()->Recheck([authenticator](const std::string& token_id) {
      return authenticator->Revalidate(Identity(token_id, "", 0, {})).ok();
    });
  }

  void Shutdown() override {
    stopped_.store(true, std::memory_order_relaxed);
    core_.Shutdown();
  }

 private:
  StatusOr<std::unique_ptr<ServedStream>> OpenWatch(const CallContext& context,
                                                    std::string_view method, std::string_view bytes,
                                                    std::function<void()> notify) {
    const CallClock::time_point began = CallClock::now();
    const bool of_area = method == kWatchArea;
    const Method* const known = of_area                ? &watch_area_
                                : method == kWatchDict ? &watch_dict_
                                                       : nullptr;
    SH_RETURN_IF_ERROR(Check(context, method, bytes.size(), known, began));
    // A stream counts as a call when it begins; how many there are has limits of its own.
    if (CallLimit* const limit = context.identity->limit().get(); limit != nullptr) {
      SH_RETURN_IF_ERROR(limit->Begin(context.identity->token_id(), ToNs(began)));
      limit->End();
    }
    const auto ended = [observer = &core_.observer(), door = context.door,
                        label = std::string_view(known->path), took = CallClock::now() - began](
                           Reason reason) { observer->OnCall(door, label, reason, took); };
    const VerbContext verb = core_.ContextFor(*context.identity, context.lane, true);
    if (of_area) {
      v1::WatchAreaRequest request;
      if (!Decode(bytes, &request)) return Undecodable(method);
      SH_ASSIGN_OR_RETURN(AreaWatchAsk ask, PlanWatchArea(verb, request));
      ask.identity = context.identity;
      return OpenAreaStream(*core_.area_watches(), std::move(ask), std::move(notify), ended);
    }
    v1::WatchDictRequest request;
    if (!Decode(bytes, &request)) return Undecodable(method);
    SH_ASSIGN_OR_RETURN(WatchAsk ask, PlanWatchDict(verb, request));
    ask.identity = context.identity;
    // Nobody else can map a follow log, and one costs the daemon a copy of each change.
    ask.hand_over = ask.hand_over && context.is_same_host;
    return OpenDictStream(*core_.watches(), std::move(ask), std::move(notify), ended);
  }

  // What is refused before a verb runs.
  Status Check(const CallContext& context, std::string_view method, size_t request_bytes,
               const Method* known, CallClock::time_point now) {
    const bool converses = Converses(method) && context.door == Door::kLocal;
    if ((known == nullptr && Streams(method)) || converses) {
      return Status(Reason::kUnimplemented,
                    std::string(method) + ": it streams, and only the network door carries that");
    }
    if (known == nullptr) {
      return Status(Reason::kUnimplemented, "method \"" + std::string(method.substr(0, 256)) +
                                                "\": this service does not know it");
    }
    if (request_bytes > core_.options().message_bytes_max) {
      return Status(Reason::kMessageTooLarge,
                    known->path + ": the request of " + std::to_string(request_bytes) +
                        " bytes is beyond the limit of " +
                        std::to_string(core_.options().message_bytes_max));
    }
    if (now >= context.deadline) return PastDeadline(known->path);
    const bool stopped = stopped_.load(std::memory_order_relaxed);
    if (stopped || (known->begins_to_last && core_.control().draining())) {
      return WhileDraining(known->path);
    }
    return Status();
  }

  const Method watch_area_{std::string(kWatchArea), true, nullptr, false, true};
  const Method watch_dict_{std::string(kWatchDict), true, nullptr, false, true};
  BatchVerbs batch_verbs_;
  DispatcherCore core_;
  const std::vector<Method> methods_;
  std::unordered_map<std::string_view, const Method*> by_path_;  // Views into methods_.
  std::atomic<bool> stopped_{false};
};

}  // namespace

std::unique_ptr<Dispatcher> NewDispatcher(DispatcherOptions options, DispatcherParts parts,
                                          Lane slow_lane) {
  return std::make_unique<DispatcherImpl>(std::move(options), std::move(parts), slow_lane);
}

}  // namespace statehouse
