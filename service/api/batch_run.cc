#include "service/api/batch_run.h"

#include <algorithm>
#include <utility>

#include "statehouse/v1/lock.pb.h"

namespace statehouse {
namespace {

// One turn of a batch, before other calls have theirs.
constexpr std::chrono::milliseconds kTurnTime{1};
constexpr size_t kLookEvery = 64;
constexpr size_t kMovedBytes = 16 << 10;  // An operation that moves so many is no short one.

}  // namespace

// A turn of a batch on the slow thread.
class BatchRun::Turn final : public SlowCalls::Task {
 public:
  explicit Turn(BatchRun* run) : run_(run) {}
  bool Try(const Lane& lane) override {
    run_->Continue(lane);
    return true;
  }
  void Abandon(const Status& why) override {
    if (run_->answer_) run_->TakeAnswer();
    run_->RefuseRest(why);
    run_->Finish();
  }

 private:
  BatchRun* const run_;
};

BatchRun::BatchRun(DispatcherCore& core, Call call) : core_(core), call_(std::move(call)) {}

void BatchRun::Begin(DispatcherCore& core, const Lane& lane, std::string_view bytes, Call call) {
  auto* const run = new BatchRun(core, std::move(call));  // Deletes itself.
  run->request_ = bytes;
  const uint64_t bytes_max =
      std::min(core.options().message_bytes_max, run->call_.response_bytes_max);
  Status status = ReadBatch(bytes, &run->plan_);
  const size_t count = run->plan_.operations.size();
  if (status.ok() && !BatchResultWriter::HasRoomFor(bytes_max, count)) {
    const bool door_is_small = bytes_max < core.options().message_bytes_max;
    status = Status(door_is_small ? Reason::kMessageTooLarge : Reason::kLimitExceeded,
                    "field batch.operations: a response of " + std::to_string(bytes_max) +
                        " bytes, the limit, has no room for " + std::to_string(count) +
                        " results; send several batches");
  }
  if (!status.ok()) {
    Call refused = std::move(run->call_);
    delete run;
    core.Finish(refused, std::move(status));
    return;
  }
  // The batch itself was counted as one.
  if (run->call_.is_limited && count > 1) {
    run->call_.identity->limit()->Spend(count - 1, ToNs(run->call_.began));
  }
  run->short_.emplace(&run->plan_);
  run->results_.emplace(bytes_max, count);
  run->Continue(lane);
}

void BatchRun::Continue(const Lane& lane) {
  if (answer_) TakeAnswer();
  const CallClock::time_point now = CallClock::now();
  if (now >= call_.deadline) RefuseRest(PastDeadline(call_.method));
  turn_until_ = now + kTurnTime;
  {
    const VerbContext context = core_.ContextFor(*call_.identity, lane, /*fast=*/true);
    bool is_over = false;
    while (next_ < plan_.operations.size() && !is_over) {
      const size_t at = next_;
      const size_t bytes_before = results_->bytes();
      short_->Approach(context, at);
      if (!Step(context)) return;
      // The clock costs as much as a short operation.
      const size_t moved = plan_.operations[at].bytes.size() + (results_->bytes() - bytes_before);
      const bool look = at % kLookEvery == kLookEvery - 1 || !IsShortAt(at) || moved >= kMovedBytes;
      is_over = look && CallClock::now() >= turn_until_;
    }
  }
  if (next_ == plan_.operations.size()) return Finish();
  KeepRequest();
  core_.PostSlow(std::make_unique<Turn>(this));
}

bool BatchRun::Step(const VerbContext& context) {
  const BatchOperation& operation = plan_.operations[next_];
  const bool is_short = IsShortAt(next_);
  if (is_short && short_->Try(context, next_, &*results_)) [[likely]] {
    ++next_;
    return true;
  }
  if (CallClock::now() >= call_.deadline) {
    RefuseRest(PastDeadline(call_.method));
    return true;
  }
  const BatchVerb* const verb = core_.batch_verbs().Find(operation.field);
  if (verb == nullptr) {
    Refuse(operation.field == 0
               ? Status(Reason::kInvalidArgument, "batch: the operation has no kind")
               : Status(Reason::kUnimplemented, "batch: this service does not know operation " +
                                                    std::to_string(operation.field)));
    return true;
  }
  if (is_short) {
    StatusOr<std::string> request = short_->RequestOf(next_);
    if (!request.ok()) {
      Refuse(request.status());
      return true;
    }
    verb_request_ = *std::move(request);
    return RunVerb(context, *verb, verb_request_);
  }
  if (operation.field == v1::Operation::kAcquireLock) {
    if (core_.control().draining()) {
      // What comes behind it is served while the drain lingers; where it is not to be, the
      // successor may be asked for the whole rest.
      const Status why = WhileDraining(verb->path);
      plan_.stop_at_failure ? Refuse(why) : RefuseOne(why);
      return true;
    }
    v1::AcquireLockRequest request;
    if (Decode(operation.bytes, &request) &&
        (!request.has_timeout() || request.timeout().seconds() != 0 ||
         request.timeout().nanos() != 0)) {
      Refuse(Status(Reason::kInvalidArgument,
                    "field timeout: in a batch a lock may only be tried for, with a timeout of 0; "
                    "wait by a call of AcquireLock"));
      return true;
    }
  }
  return RunVerb(context, *verb, operation.bytes);
}

bool BatchRun::RunVerb(const VerbContext& context, const BatchVerb& verb,
                       std::string_view request) {
  meeting_.store(0, std::memory_order_relaxed);
  core_.Begin();
  Call call{
      call_.door,       verb.path,
      CallClock::now(), call_.deadline,
      call_.identity,   [this](StatusOr<std::string> answer) {
              OnAnswer(std::move(answer)); }};
  call.peer = call_.peer;
  core_.KeepName(call, request);
  verb.run(core_, context.lane, request, std::move(call));
  if (meeting_.load(std::memory_order_acquire) == 0) KeepRequest();
  if (meeting_.fetch_add(1, std::memory_order_acq_rel) == 0) return false;
  TakeAnswer();
  return true;
}

// On whatever thread the verb ended.
void BatchRun::OnAnswer(StatusOr<std::string> answer) {
  answer_.emplace(std::move(answer));
  if (meeting_.fetch_add(1, std::memory_order_acq_rel) == 0) return;
  core_.PostSlow(std::make_unique<Turn>(this));
}

void BatchRun::TakeAnswer() {
  const StatusOr<std::string> answer = *std::exchange(answer_, std::nullopt);
  if (!answer.ok()) return Refuse(answer.status());
  const uint32_t field = plan_.operations[next_].field;
  if (!IsShortAt(next_)) {
    results_->Add(field, *answer);
  } else if (const Status status = short_->AddResponse(field, *answer, &*results_); !status.ok()) {
    return Refuse(status);
  }
  ++next_;
}

// The operation under way has failed, and nothing else.
void BatchRun::RefuseOne(const Status& why) {
  const BatchOperation& operation = plan_.operations[next_];
  const BatchVerb* const verb = core_.batch_verbs().Find(operation.field);
  std::string_view name;
  if (IsShortAt(next_)) {
    name = short_->NameOf(next_);
  } else if (verb != nullptr) {
    name = ObjectNameOf(verb->path, operation.bytes);
  }
  results_->AddFailure(why, name);
  ++next_;
}

// The operation under way has failed, which may be the end of the batch.
void BatchRun::Refuse(const Status& why) {
  const size_t failed = next_;
  RefuseOne(why);
  // The service stops, and nothing is begun any more.
  if (why.reason() == Reason::kDraining) return RefuseRest(why);
  if (!plan_.stop_at_failure) return;
  RefuseRest(Status(Reason::kCancelled, "batch: not carried out, because operation " +
                                            std::to_string(failed) + " was refused"));
}

void BatchRun::RefuseRest(const Status& why) {
  for (; next_ < plan_.operations.size(); ++next_) results_->AddFailure(why, "");
}

void BatchRun::KeepRequest() {
  if (!kept_request_.empty() || request_.empty()) return;
  kept_request_.assign(request_);
  const auto keep = [this](std::string_view* view) {
    const auto at = reinterpret_cast<uintptr_t>(view->data());
    const auto begin = reinterpret_cast<uintptr_t>(request_.data());
    if (at < begin || at > begin + request_.size()) return;  // It is in the plan's storage.
    *view = {kept_request_.data() + (at - begin), view->size()};
  };
  for (std::string_view& name : plan_.names) keep(&name);
  for (BatchOperation& operation : plan_.operations) keep(&operation.bytes);
  request_ = kept_request_;
}

void BatchRun::Finish() {
  const auto took = CallClock::now() - call_.began;
  const size_t count = std::max<size_t>(plan_.operations.size(), 1);
  for (uint32_t field = v1::Operation::kGet; field <= v1::Operation::kAdd; ++field) {
    const uint64_t done = short_->TakeCount(field);
    if (done == 0) continue;
    core_.observer().OnCalls(call_.door, ShortOperations::MethodOf(field), Reason::kOk, done,
                             took / count);
  }
  core_.Finish(call_, results_->Finish());
  // After the caller, unless its answer is kept back for a moment.
  for (const uint64_t dict : short_->changed_dicts()) {
    if (core_.watches()->FollowsAny()) core_.watches()->LookNow(dict);
  }
  delete this;
}

std::shared_ptr<PendingCall> RunBatch(DispatcherCore& core, const Lane& lane,
                                      std::string_view bytes, Call call) {
  BatchRun::Begin(core, lane, bytes, std::move(call));
  return nullptr;
}

}  // namespace statehouse
