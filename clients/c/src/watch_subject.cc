#include "clients/c/src/watch_subject.h"

namespace statehouse {
namespace {

constexpr uint64_t kProgressMsMin = 100;
constexpr uint64_t kProgressMsMax = 3'600'000;

}  // namespace

StatusOr<google::protobuf::Duration> ProgressInterval(const std::string& what,
                                                      uint64_t progress_ms) {
  if (progress_ms < kProgressMsMin || progress_ms > kProgressMsMax) {
    return Status(Reason::kInvalidArgument,
                  what + ": progress_ms is " + std::to_string(progress_ms) + "; use 0 or " +
                      std::to_string(kProgressMsMin) + " to " + std::to_string(kProgressMsMax));
  }
  google::protobuf::Duration interval;
  interval.set_seconds(static_cast<int64_t>(progress_ms / 1000));
  interval.set_nanos(static_cast<int32_t>(progress_ms % 1000 * 1'000'000));
  return interval;
}

StatusOr<google::protobuf::Duration> WindowOf(const std::string& what, uint64_t window_us) {
  if (window_us > SH_WATCH_WINDOW_US_MAX) {
    return Status(Reason::kInvalidArgument, what + ": window_us is " + std::to_string(window_us) +
                                                "; use 0 to " +
                                                std::to_string(SH_WATCH_WINDOW_US_MAX));
  }
  google::protobuf::Duration window;
  window.set_nanos(static_cast<int32_t>(window_us * 1000));
  return window;
}

sh_resync_reason ReasonOf(const v1::WatchResync& resync) {
  const int reason = resync.reason();
  const bool known = reason >= SH_RESYNC_HISTORY_GONE && reason <= SH_RESYNC_DAMAGED;
  return known ? static_cast<sh_resync_reason>(reason) : SH_RESYNC_UNSPECIFIED;
}

}  // namespace statehouse
