#include "clients/c/src/area_watch.h"

#include <utility>

namespace statehouse {
namespace {

Status Invalid(const std::string& name, const std::string& what) {
  return Status(Reason::kInvalidArgument, "watching area \"" + name + "\": " + what);
}

StatusOr<uint64_t> LengthOf(const WatchedArea& area, uint64_t pos, uint64_t len) {
  const uint64_t rest = pos < area.size ? area.size - pos : 0;
  const uint64_t length = len == SH_TO_END ? rest : len;
  if (rest == 0 || length > rest) {
    return Status(Reason::kOutOfBounds,
                  "watching area \"" + area.name + "\": pos " + std::to_string(pos) + " and len " +
                      (len == SH_TO_END ? "to its end" : std::to_string(len)) +
                      " reach beyond its size of " + std::to_string(area.size) + " bytes");
  }
  if (length == 0)
    return Invalid(area.name, "an empty range never changes; use a len of 1 or more");
  return length;
}

StatusOr<WatchPoint> PointOf(const std::string& name, const sh_area_point& from) {
  if (from.is_set != 0) return WatchPoint{true, from.updates, from.incarnation};
  if (from.updates == 0 && from.incarnation == 0) return WatchPoint();
  return Invalid(name, "`from` has updates or an incarnation, and its is_set is 0; set it to 1");
}

bool IsInside(const v1::AreaRange& range, const v1::WatchAreaRequest& watched) {
  return range.len() > 0 && range.pos() >= watched.pos() && range.len() <= watched.len() &&
         range.pos() - watched.pos() <= watched.len() - range.len();
}

}  // namespace

StatusOr<std::unique_ptr<AreaWatch>> AreaWatch::Make(const WatchedArea& area, uint64_t pos,
                                                     uint64_t len,
                                                     const sh_area_watch_options& options) {
  std::unique_ptr<AreaWatch> watch(new AreaWatch());
  v1::WatchAreaRequest& request = watch->request_;
  SH_ASSIGN_OR_RETURN(const uint64_t length, LengthOf(area, pos, len));
  SH_ASSIGN_OR_RETURN(watch->from_, PointOf(area.name, options.from));
  const std::string what = "watching area \"" + area.name + '"';
  if (options.window_us != 0) {
    SH_ASSIGN_OR_RETURN(*request.mutable_window(), WindowOf(what, options.window_us));
  }
  if (options.progress_ms != 0) {
    SH_ASSIGN_OR_RETURN(*request.mutable_progress_interval(),
                        ProgressInterval(what, options.progress_ms));
  }
  request.set_name(area.name);
  request.set_pos(pos);
  request.set_len(length);
  request.set_skip_snapshot(options.skip_snapshot != 0);
  request.set_ranges_only(options.ranges_only != 0);
  return watch;
}

std::unique_ptr<WatchSubject::Message> AreaWatch::MakeRequest(const WatchPoint& from,
                                                              LocalFollow /*follow*/) const {
  auto request = std::make_unique<v1::WatchAreaRequest>(request_);
  if (from.is_known) request->set_from_updates(from.counter);
  request->set_from_incarnation(from.incarnation);
  return request;
}

std::unique_ptr<WatchSubject::Message> AreaWatch::MakeResponse() const {
  return std::make_unique<v1::WatchAreaResponse>();
}

WatchPoint AreaWatch::PointAfter(const Message& response, const WatchPoint& point) const {
  const auto& message = static_cast<const v1::WatchAreaResponse&>(response);
  if (message.has_resync()) return WatchPoint();
  if (!message.has_updates()) return point;
  // Before "synced" says which area it is nothing can go on: a later stream could not tell that it
  // was made anew meanwhile. A point that was given without an incarnation is the caller's choice.
  if (!message.has_synced() && !point.is_known) return point;
  return {true, message.updates(),
          message.has_synced() ? message.synced().incarnation() : point.incarnation};
}

AreaWatchReader::AreaWatchReader(std::shared_ptr<const AreaWatch> watch)
    : watch_(std::move(watch)), point_(watch_->from()) {}

WatchPoint AreaWatchReader::point() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return point_;
}

void AreaWatchReader::Take(std::unique_ptr<WatchSubject::Message> response) {
  response_.reset(static_cast<v1::WatchAreaResponse*>(response.release()));
  at_ = 0;
}

Status AreaWatchReader::ShowRange(const v1::AreaRange& range, sh_area_watch_event* event) const {
  const v1::WatchAreaRequest& watched = watch_->request();
  const bool has_bytes = !watched.ranges_only();
  // Whoever copies the bytes to where they belong relies on this.
  if (!IsInside(range, watched) || (has_bytes && range.data().size() != range.len())) {
    return Status(Reason::kInternal,
                  "watching area \"" + watch_->name() + "\": the service told of " +
                      std::to_string(range.data().size()) + " bytes at [" +
                      std::to_string(range.pos()) + ", +" + std::to_string(range.len()) +
                      "), which is no range of the watched one");
  }
  event->pos = range.pos();
  event->len = range.len();
  if (has_bytes) event->bytes = {range.data().data(), range.data().size()};
  return Status();
}

void AreaWatchReader::Finish() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    point_ = watch_->PointAfter(*response_, point_);
  }
  given_ = std::move(response_);  // The event points into it.
}

StatusOr<bool> AreaWatchReader::Next(sh_area_watch_event* event) {
  *event = sh_area_watch_event{};
  if (response_ == nullptr) return false;
  const v1::WatchAreaResponse& response = *response_;
  const int count = response.has_changes() ? response.changes().ranges_size() : 1;
  const bool is_last = at_ + 1 >= count;
  bool gives = true;
  if (response.has_snapshot()) {
    event->kind = SH_AREA_WATCH_SNAPSHOT;
    event->more = response.snapshot().more() ? 1 : 0;
    SH_RETURN_IF_ERROR(ShowRange(response.snapshot().range(), event));
  } else if (response.has_changes() && count > 0) {
    event->kind = SH_AREA_WATCH_CHANGE;
    event->more = response.changes().more() || !is_last ? 1 : 0;
    SH_RETURN_IF_ERROR(ShowRange(response.changes().ranges(at_), event));
  } else if (response.has_synced()) {
    event->kind = SH_AREA_WATCH_SYNCED;
    event->pos = response.synced().pos();
    event->len = response.synced().len();
  } else if (response.has_resync()) {
    event->kind = SH_AREA_WATCH_RESYNC;
    event->reason = ReasonOf(response.resync());
  } else if (response.has_progress()) {
    event->kind = SH_AREA_WATCH_PROGRESS;
  } else {
    gives = false;
  }
  ++at_;
  if (!is_last) return gives;
  if (gives && response.has_updates()) {
    event->has_updates = 1;
    event->updates = response.updates();
  }
  Finish();
  return gives;
}

}  // namespace statehouse
