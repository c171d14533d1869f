#include <algorithm>
#include <utility>

#include "clients/c/src/local_session.h"
#include "clients/c/src/wait_message.h"

namespace statehouse {
namespace {

using std::chrono::steady_clock;

// How long one wait on the futex lasts while somebody wants to be asked about interrupts.
constexpr std::chrono::milliseconds kInterruptibleSlice{100};
// How long one wait lasts otherwise: long, but short enough that no sum of it with a clock
// overflows.
constexpr std::chrono::hours kSlice{1};
// How long the daemon may take to answer a wait that timed out.
constexpr std::chrono::seconds kAnswerGrace{5};

uint64_t SliceNs(Deadline deadline, std::chrono::nanoseconds slice) {
  const auto left = deadline - steady_clock::now();
  if (left <= left.zero()) return 0;
  return static_cast<uint64_t>(std::min<std::chrono::nanoseconds>(left, slice).count());
}

}  // namespace

Status LocalArea::Unusable() const {
  if (usable_.load(std::memory_order_relaxed) == kSessionClosed) {
    return Status(Reason::kClientClosed,
                  "area \"" + name() + "\": its client was closed; connect again");
  }
  return Status(Reason::kAreaNotFound,
                "area \"" + name() + "\": the service no longer has it; open it again by name");
}

Status LocalArea::Read(uint64_t pos, std::span<std::byte> out) {
  if (!writable()) {
    if (!usable()) return Unusable();
    return area_->Read(pos, out);
  }
  return WithLane(
      [&](const Lane& lane) { return area_->Read(pos, out, &lane, lane.operation_timeout_ns); });
}

StatusOr<uint64_t> LocalArea::Updates() const {
  if (!usable()) return Unusable();
  if (!area_->live()) {
    // Any operation on a retired area says why it was retired.
    uint64_t bits = 0;
    SH_RETURN_IF_ERROR(area_->Load(WordType::kU8, 0, &bits));
  }
  return area_->Updates();
}

StatusOr<WaitResult> LocalArea::Wait(uint64_t since, Deadline deadline) {
  if (!writable()) return WaitThroughDaemon(since, deadline);
  const Interrupt& interrupted = session_->options().interrupted;
  const std::chrono::nanoseconds slice = interrupted ? std::chrono::nanoseconds(kInterruptibleSlice)
                                                     : std::chrono::nanoseconds(kSlice);
  for (;;) {
    if (!usable()) return Unusable();
    const uint64_t slice_ns = SliceNs(deadline, slice);
    SH_ASSIGN_OR_RETURN(const WaitResult result, area_->Wait(since, slice_ns));
    if (result.changed || steady_clock::now() >= deadline) return result;
    if (interrupted && interrupted()) {
      return Status(Reason::kCancelled, "the caller gave up waiting for area \"" + name() + "\"");
    }
  }
}

StatusOr<WaitResult> LocalArea::WaitThroughDaemon(uint64_t since, Deadline deadline) {
  for (;;) {
    if (!usable()) return Unusable();
    const uint64_t slice_ns = SliceNs(deadline, kSlice);
    CallOptions options;
    options.deadline = steady_clock::now() + std::chrono::nanoseconds(slice_ns) + kAnswerGrace;
    options.idempotent = true;
    options.long_running = true;
    SH_ASSIGN_OR_RETURN(
        const std::string response,
        session_->Call("/statehouse.v1.Areas/WaitArea",
                       EncodeWaitAreaRequest("#" + std::to_string(index_), since, slice_ns),
                       options));
    SH_ASSIGN_OR_RETURN(const WaitResult result, DecodeWaitAreaResponse(response));
    if (result.changed || steady_clock::now() >= deadline) return result;
  }
}

}  // namespace statehouse
