#include <string>
#include <utility>

#include "service/api/verbs.h"

namespace statehouse {

StatusOr<WaitPlan> PlanWait(const VerbContext& context, const v1::WaitAreaRequest& request) {
  WaitPlan plan;
  SH_ASSIGN_OR_RETURN(plan.area, ResolveArea(context, request.name(), Verb::kRead));
  const Area& area = plan.area->area();
  if (request.has_len() && request.len() == 0) {
    return Status(Reason::kInvalidArgument,
                  "field len: an empty range never changes; set 1 or more, or leave it unset");
  }
  plan.pos = request.pos();
  if (request.has_len()) {
    plan.len = request.len();
  } else if (request.pos() != 0) {
    // To the end; a position at or beyond the end fails below as a range of one byte there.
    plan.len = request.pos() < area.size() ? area.size() - request.pos() : 1;
  }
  SH_RETURN_IF_ERROR(CheckBounds(area, plan.pos, plan.len));
  if (request.has_since()) plan.since = request.since();
  SH_ASSIGN_OR_RETURN(plan.timeout_ns, ToWaitTimeout(request.has_timeout(), request.timeout()));
  return plan;
}

StatusOr<std::optional<uint64_t>> ToWaitTimeout(bool given,
                                                const google::protobuf::Duration& timeout) {
  if (!given) return std::optional<uint64_t>();
  if (timeout.seconds() < 0 || timeout.nanos() < 0 || timeout.nanos() > 999'999'999) {
    return Status(Reason::kInvalidArgument,
                  "field timeout: it is negative or malformed; zero only looks");
  }
  // Beyond ten years is the same as never.
  constexpr int64_t kSecondsMax = int64_t{10} * 366 * 86'400;
  if (timeout.seconds() >= kSecondsMax) return std::optional<uint64_t>();
  return std::optional<uint64_t>(static_cast<uint64_t>(timeout.seconds()) * 1'000'000'000 +
                                 static_cast<uint64_t>(timeout.nanos()));
}

}  // namespace statehouse
