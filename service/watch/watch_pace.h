// WatchPace: when a live watch may be told something: its window, and its marks of progress.
//
//   changes told |--- window: none are told ---| open ...
//   anything told |------------ progress_ms ------------| progress is due
//
// Who owns it: a watch, which guards it. Time is the hub's clock.
#pragma once

#include <cstdint>

namespace statehouse {

inline constexpr uint64_t kWatchWindowMsMax = 10;

class WatchPace final {
 public:
  using ClockNs = uint64_t (*)();

  // 0: no window; no marks.
  WatchPace(uint64_t window_ns, uint64_t progress_ms)
      : window_ns_(window_ns), progress_ms_(progress_ms) {}

  void Told(uint64_t now_ns) { told_ns_ = now_ns; }
  // Changes were told, and all that there were: the window begins.
  void ToldChanges(uint64_t now_ns) {
    told_ns_ = now_ns;
    open_ns_ = now_ns + window_ns_;
  }
  // From when on changes may be told.
  uint64_t open_ns() const { return open_ns_; }
  bool IsOpen(uint64_t now_ns) const { return now_ns >= open_ns_; }
  // When progress is to be told; UINT64_MAX never.
  uint64_t progress_ns() const {
    return progress_ms_ == 0 ? UINT64_MAX : told_ns_ + progress_ms_ * 1'000'000;
  }

 private:
  const uint64_t window_ns_;
  const uint64_t progress_ms_;
  uint64_t told_ns_ = 0;
  uint64_t open_ns_ = 0;
};

}  // namespace statehouse
