// AreaWatch and AreaWatchReader: watching a range of an area, in terms of watch_subject.h.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "clients/c/src/watch_subject.h"
#include "statehouse/v1/watch.pb.h"

namespace statehouse {

// The area whose range is watched.
struct WatchedArea {
  std::string name;
  uint64_t size = 0;
};

class AreaWatch final : public WatchSubject {
 public:
  // `len` may be SH_TO_END. OUT_OF_BOUNDS and INVALID_ARGUMENT say what is wrong.
  static StatusOr<std::unique_ptr<AreaWatch>> Make(const WatchedArea& area, uint64_t pos,
                                                   uint64_t len,
                                                   const sh_area_watch_options& options);

  const std::string& name() const override { return request_.name(); }
  const std::string& method() const override { return method_; }
  const WatchPoint& from() const override { return from_; }
  size_t read_ahead() const override { return SH_AREA_WATCH_READ_AHEAD; }
  std::unique_ptr<Message> MakeRequest(const WatchPoint& from, LocalFollow follow) const override;
  std::unique_ptr<Message> MakeResponse() const override;
  WatchPoint PointAfter(const Message& response, const WatchPoint& point) const override;
  // What is watched.
  const v1::WatchAreaRequest& request() const { return request_; }

 private:
  AreaWatch() = default;

  const std::string method_ = "/statehouse.v1.Areas/WatchArea";
  WatchPoint from_;
  v1::WatchAreaRequest request_;  // Without a place to go on from.
};

// Nothing is told of a break: what comes after it stands over what was told before.
class AreaWatchReader final : public WatchReaderOf<sh_area_watch_event> {
 public:
  explicit AreaWatchReader(std::shared_ptr<const AreaWatch> watch);

  void Take(std::unique_ptr<WatchSubject::Message> response) override;
  void TakeBreak() override {}
  StatusOr<bool> Next(sh_area_watch_event* event) override;
  WatchPoint point() const override;

 private:
  Status ShowRange(const v1::AreaRange& range, sh_area_watch_event* event) const;
  // All of the message was given.
  void Finish();

  const std::shared_ptr<const AreaWatch> watch_;
  mutable std::mutex mutex_;  // Guards point_.
  WatchPoint point_;
  std::unique_ptr<v1::WatchAreaResponse> response_;  // Null: all of it was given.
  int at_ = 0;                                       // The next of its ranges.
  std::unique_ptr<v1::WatchAreaResponse> given_;     // What the last event may point into.
};

}  // namespace statehouse
