// WaitEntry: answers at once where the entry is as asked, and parks the call otherwise.
#include <string>
#include <utility>

#include "service/api/dict_fields.h"
#include "service/api/parked_calls.h"
#include "service/watch/entry_waits.h"

namespace statehouse {
namespace {

class PendingEntryWait final : public PendingCall {
 public:
  PendingEntryWait(std::weak_ptr<EntryWaits> waits, uint64_t id)
      : waits_(std::move(waits)), id_(id) {}
  void Cancel() override {
    if (const std::shared_ptr<EntryWaits> waits = waits_.lock()) waits->Cancel(id_);
  }

 private:
  const std::weak_ptr<EntryWaits> waits_;
  const uint64_t id_;
};

struct EntryWaitPlan {
  EntryWaits::Request request;
  bool only_looks = false;
};

Status RefuseUntil(const std::string& why) {
  return Status(Reason::kInvalidArgument, "field until: " + why);
}

// The path borrows from the request.
StatusOr<EntryWait> ToEntryWait(const v1::WaitEntryRequest& request) {
  EntryWait wait;
  SH_ASSIGN_OR_RETURN(wait.path, ToPath(request.path_steps()));
  switch (request.until_case()) {
    case v1::WaitEntryRequest::kPresent:
      if (!request.present()) return RefuseUntil("present is true or left out");
      wait.kind = EntryWait::Kind::kPresent;
      break;
    case v1::WaitEntryRequest::kAbsent:
      if (!request.absent()) return RefuseUntil("absent is true or left out");
      wait.kind = EntryWait::Kind::kAbsent;
      break;
    case v1::WaitEntryRequest::kVersionAbove:
      wait.kind = EntryWait::Kind::kVersionAbove;
      wait.version = request.version_above();
      break;
    case v1::WaitEntryRequest::kVersionDiffers:
      wait.kind = EntryWait::Kind::kVersionDiffers;
      wait.version = request.version_differs();
      break;
    case v1::WaitEntryRequest::kValue: {
      wait.kind = EntryWait::Kind::kValue;
      std::string storage;
      SH_ASSIGN_OR_RETURN(const DictValue value, ToDictValue(request.value(), "value", &storage));
      DictEntry entry;
      entry.kind = value.kind;
      entry.bits = value.bits;
      entry.bytes = value.bytes;
      std::string number;
      wait.value = WireOf(entry, &number);
      break;
    }
    case v1::WaitEntryRequest::UNTIL_NOT_SET:
      return RefuseUntil(
          "say what to wait for: present, absent, version_above, version_differs or value");
  }
  SH_RETURN_IF_ERROR(CheckEntryWait(wait));
  return wait;
}

StatusOr<EntryWaitPlan> PlanWaitEntry(const VerbContext& context,
                                      std::shared_ptr<const v1::WaitEntryRequest> request) {
  SH_RETURN_IF_ERROR(CheckEntryKey(request->key()));
  EntryWaitPlan plan;
  SH_ASSIGN_OR_RETURN(plan.request.wait, ToEntryWait(*request));
  SH_ASSIGN_OR_RETURN(const std::optional<uint64_t> timeout_ns,
                      ToWaitTimeout(request->has_timeout(), request->timeout()));
  SH_ASSIGN_OR_RETURN(plan.request.served, ResolveDict(context, request->name(), Verb::kRead));
  plan.request.key = request->key();
  plan.request.keeps = std::move(request);
  plan.only_looks = timeout_ns == uint64_t{0};
  if (timeout_ns) {
    plan.request.timeout_at = CallClock::now() + std::chrono::nanoseconds(*timeout_ns);
  }
  return plan;
}

void Answer(DispatcherCore& core, Call& call, StatusOr<EntryWaits::Answer> answer) {
  if (!answer.ok()) return core.Finish(call, std::move(answer).status());
  v1::WaitEntryResponse response;
  const EntryLook& look = answer->look;
  response.set_met(look.met);
  Status status;
  if (look.found) {
    const auto* request = static_cast<const v1::WaitEntryRequest*>(answer->request.get());
    response.mutable_entry()->set_key(request->key());
    status = FromEntry(answer->served->dict(), look.entry, response.mutable_entry());
  }
  core.FinishWith(call, status, response);
}

}  // namespace

std::shared_ptr<PendingCall> RunWaitEntry(DispatcherCore& core, const Lane& lane,
                                          std::string_view bytes, Call call) {
  auto request = std::make_shared<v1::WaitEntryRequest>();
  if (!Decode(bytes, request.get())) {
    core.Finish(call, Undecodable(call.method));
    return nullptr;
  }
  const VerbContext context = core.ContextFor(*call.identity, lane, /*fast=*/true);
  StatusOr<EntryWaitPlan> plan = PlanWaitEntry(context, std::move(request));
  if (!plan.ok()) {
    core.Finish(call, plan.status());
    return nullptr;
  }
  EntryWaits::Answer found;
  found.served = plan->request.served;
  found.request = plan->request.keeps;
  const Status looked = LookAtEntry(found.served->dict(), plan->request.key, plan->request.wait,
                                    &found.look, kFastTimeoutNs);
  if (looked.ok() && (found.look.met || plan->only_looks)) {
    Answer(core, call, std::move(found));
    return nullptr;
  }
  // Whatever stands in the way of a look now is looked at again by who waits.
  plan->request.deadline = call.deadline;
  plan->request.identity = call.identity;
  auto held = std::make_shared<Call>(std::move(call));
  const uint64_t waits = core.entry_waits()->Park(
      std::move(plan->request), [&core, held](StatusOr<EntryWaits::Answer> answer) {
        Answer(core, *held, std::move(answer));
      });
  return waits == 0 ? nullptr : std::make_shared<PendingEntryWait>(core.entry_waits(), waits);
}

}  // namespace statehouse
