#include "service/api/area_stream.h"

#include <algorithm>
#include <utility>

#include "service/api/durations.h"
#include "service/api/watch_stream.h"

namespace statehouse {
namespace {

Status Refuse(const char* field, const std::string& why) {
  return Status(Reason::kInvalidArgument, std::string("field ") + field + ": " + why);
}

void FillRange(AreaWatchEvent::Told&& told, v1::AreaRange* range) {
  range->set_pos(told.part.pos);
  range->set_len(told.part.len);
  range->set_data(std::move(told.bytes));
}

std::string Encode(AreaWatchEvent&& event, const AreaWatchAsk& ask) {
  v1::WatchAreaResponse message;
  if (event.updates) message.set_updates(*event.updates);
  switch (event.kind) {
    case AreaWatchEvent::Kind::kSnapshot:
      FillRange(std::move(event.parts.front()), message.mutable_snapshot()->mutable_range());
      message.mutable_snapshot()->set_more(event.more);
      break;
    case AreaWatchEvent::Kind::kChanges:
      for (AreaWatchEvent::Told& told : event.parts) {
        FillRange(std::move(told), message.mutable_changes()->add_ranges());
      }
      message.mutable_changes()->set_more(event.more);
      break;
    case AreaWatchEvent::Kind::kSynced:
      message.mutable_synced()->set_incarnation(IncarnationOf(*ask.served));
      message.mutable_synced()->set_pos(ask.part.pos);
      message.mutable_synced()->set_len(ask.part.len);
      break;
    case AreaWatchEvent::Kind::kResync:
      message.mutable_resync()->set_reason(MessageOf(event.reason));
      break;
    case AreaWatchEvent::Kind::kProgress: message.mutable_progress(); break;
  }
  return message.SerializeAsString();
}

class AreaStream final : public ServedStream {
 public:
  AreaStream(std::shared_ptr<AreaWatch> watch, std::function<void(Reason)> ended)
      : watch_(std::move(watch)), ended_(std::move(ended)) {}
  ~AreaStream() override {
    watch_->Close();
    ended_(end_);
  }

  Found Poll(std::string* message, Status* status) override {
    AreaWatchEvent event;
    switch (watch_->Poll(&event)) {
      case AreaWatch::Found::kNothing: return Found::kNothing;
      case AreaWatch::Found::kEvent:
        *message = Encode(std::move(event), watch_->ask());
        return Found::kMessage;
      case AreaWatch::Found::kEnd: break;
    }
    *status = watch_->status();
    end_ = status->reason();
    return Found::kEnd;
  }

 private:
  const std::shared_ptr<AreaWatch> watch_;
  const std::function<void(Reason)> ended_;
  Reason end_ = Reason::kCancelled;  // Unless it ends by itself.
};

}  // namespace

StatusOr<AreaWatchAsk> PlanWatchArea(const VerbContext& context,
                                     const v1::WatchAreaRequest& request) {
  AreaWatchAsk ask;
  SH_ASSIGN_OR_RETURN(ask.served, ResolveArea(context, request.name(), Verb::kRead));
  const Area& area = ask.served->area();
  if (request.has_len() && request.len() == 0) {
    return Refuse("len", "an empty range never changes; set 1 or more, or leave it unset");
  }
  // To the end; a position at or beyond the end fails below as a range of one byte there.
  const uint64_t rest = request.pos() < area.size() ? area.size() - request.pos() : 1;
  ask.part = {request.pos(), request.has_len() ? request.len() : rest};
  SH_RETURN_IF_ERROR(CheckBounds(area, ask.part.pos, ask.part.len));
  if (request.has_from_updates()) ask.from_updates = request.from_updates();
  ask.from_incarnation = request.from_incarnation();
  ask.snapshot = !request.skip_snapshot();
  ask.ranges_only = request.ranges_only();
  SH_ASSIGN_OR_RETURN(ask.window_ns, ToWindowNs(request.window()));
  if (request.has_progress_interval()) {
    SH_ASSIGN_OR_RETURN(ask.progress_ms, ToProgressMs(request.progress_interval()));
  }
  ask.piece_bytes = std::min(kAreaPieceBytes, context.options->message_bytes_max / 4);
  return ask;
}

StatusOr<std::unique_ptr<ServedStream>> OpenAreaStream(AreaHub& watches, AreaWatchAsk ask,
                                                       std::function<void()> notify,
                                                       std::function<void(Reason)> ended) {
  SH_ASSIGN_OR_RETURN(std::shared_ptr<AreaWatch> watch,
                      watches.Open(std::move(ask), std::move(notify)));
  return std::unique_ptr<ServedStream>(
      std::make_unique<AreaStream>(std::move(watch), std::move(ended)));
}

}  // namespace statehouse
