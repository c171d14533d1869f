#include "service/api/watch_stream.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "service/api/dict_fields.h"

namespace statehouse {
namespace {

Status Refuse(const char* field, const std::string& why) {
  return Status(Reason::kInvalidArgument, std::string("field ") + field + ": " + why);
}

v1::ChangeKind KindOf(FeedOperation operation) {
  switch (operation) {
    case FeedOperation::kPut: return v1::CHANGE_KIND_PUT;
    case FeedOperation::kDelete: return v1::CHANGE_KIND_DELETE;
    case FeedOperation::kExpire: return v1::CHANGE_KIND_EXPIRE;
    case FeedOperation::kEvict: return v1::CHANGE_KIND_EVICT;
    case FeedOperation::kGap:
    case FeedOperation::kMoved: break;
  }
  return v1::CHANGE_KIND_UNSPECIFIED;
}

// A value that is none is told as gone: whoever reads the entry gets DATA_LOSS.
std::string EncodeChange(const DictChange& change, bool with_value, bool coalesced) {
  v1::DictChange message;
  message.set_revision(change.revision);
  message.set_kind(KindOf(change.operation));
  message.set_key(change.key);
  message.set_version(change.version);
  if (change.operation == FeedOperation::kPut && with_value) {
    DictEntry entry;
    entry.kind = change.kind;
    entry.bits = change.bits;
    entry.bytes = change.bytes;
    if (change.value_gone || !FromDictValue(entry, message.mutable_value()).ok()) {
      message.clear_value();
      message.set_value_gone(true);
    }
  }
  message.set_coalesced(coalesced);
  message.mutable_time()->set_seconds(static_cast<int64_t>(change.time_ms / 1000));
  message.mutable_time()->set_nanos(static_cast<int32_t>(change.time_ms % 1000) * 1'000'000);
  return message.SerializeAsString();
}

// What a watch that asked for it is told of the value before: fields to follow upon those of the
// change. One that is no value is not known.
std::string EncodePrevious(const PreviousValue& previous) {
  v1::DictChange message;
  bool is_gone = previous.kind == PreviousValue::Kind::kUnknown;
  if (previous.kind == PreviousValue::Kind::kValue) {
    DictEntry entry;
    entry.kind = previous.put->kind;
    entry.bits = previous.put->bits;
    entry.bytes = previous.put->bytes;
    is_gone = !FromDictValue(entry, message.mutable_previous()).ok();
    if (is_gone) message.clear_previous();
  }
  message.set_previous_gone(is_gone);
  return message.SerializeAsString();
}

using google::protobuf::io::CodedOutputStream;

constexpr uint32_t kLengthDelimited = 2;

// A WatchDictResponse up to its changes, which are of so many bytes.
std::string EncodeBeforeChanges(uint64_t revision, size_t changes_bytes) {
  std::string message;
  google::protobuf::io::StringOutputStream stream(&message);
  CodedOutputStream output(&stream);
  output.WriteTag(v1::WatchDictResponse::kRevisionFieldNumber << 3);
  output.WriteVarint64(revision);
  output.WriteTag(v1::WatchDictResponse::kChangesFieldNumber << 3 | kLengthDelimited);
  output.WriteVarint32(static_cast<uint32_t>(changes_bytes));
  output.Trim();
  return message;
}

// A change in WatchChanges up to its own fields, which are of so many bytes.
std::string EncodeBeforeChange(size_t change_bytes) {
  std::string message;
  google::protobuf::io::StringOutputStream stream(&message);
  CodedOutputStream output(&stream);
  output.WriteTag(v1::WatchChanges::kChangesFieldNumber << 3 | kLengthDelimited);
  output.WriteVarint32(static_cast<uint32_t>(change_bytes));
  output.Trim();
  return message;
}

WatchedChange::Message EncodeAlone(const DictChange& change) {
  const std::string fields = EncodeChange(change, true, false);
  const std::string before = EncodeBeforeChange(fields.size());
  WatchedChange::Message message;
  message.bytes = EncodeBeforeChanges(change.revision, before.size() + fields.size()) + before;
  message.change_begin = message.bytes.size();
  message.bytes += fields;
  return message;
}

// A WatchDictResponse with the changes as they were encoded once for all watchers.
std::string EncodeChanges(const WatchEvent& event, bool keys_only, bool with_previous) {
  std::string changes;
  for (const WatchEvent::Told& told : event.changes) {
    std::string own;
    if (keys_only || told.coalesced) {
      own = EncodeChange(told.change->change, !keys_only, told.coalesced);
    }
    const WatchedChange::Message* const shared =
        own.empty() ? &told.change->Encoded(&EncodeAlone) : nullptr;
    const bool is_alone = event.changes.size() == 1 && !with_previous &&
                          event.revision == told.change->change.revision;
    if (shared != nullptr && is_alone) return shared->bytes;
    const std::string_view fields = shared != nullptr ? shared->change() : own;
    const std::string previous = with_previous ? EncodePrevious(told.previous) : "";
    changes += EncodeBeforeChange(fields.size() + previous.size());
    changes += fields;
    changes += previous;
  }
  return EncodeBeforeChanges(event.revision, changes.size()) + changes;
}

class DictStream final : public ServedStream {
 public:
  DictStream(std::shared_ptr<Watch> watch, std::shared_ptr<ServedDict> served,
             std::function<void(Reason)> ended)
      : watch_(std::move(watch)), served_(std::move(served)), ended_(std::move(ended)) {}
  ~DictStream() override {
    watch_->Close();
    ended_(end_);
  }

  Found Poll(std::string* message, Status* status) override {
    WatchEvent event;
    const Watch::Found found = watch_->Poll(&event, /*may_wait=*/true);
    if (found == Watch::Found::kNothing) return Found::kNothing;
    if (found == Watch::Found::kEnd) return EndWith(watch_->status(), status);
    StatusOr<std::string> encoded = EncodeWatchEvent(served_->dict(), event, watch_->ask());
    if (!encoded.ok()) return EndWith(encoded.status(), status);
    *message = *std::move(encoded);
    return event.waits ? Found::kLastMessage : Found::kMessage;
  }

 private:
  Found EndWith(const Status& why, Status* status) {
    end_ = why.reason();
    *status = why;
    return Found::kEnd;
  }

  const std::shared_ptr<Watch> watch_;
  const std::shared_ptr<ServedDict> served_;  // For the times to live of its entries.
  const std::function<void(Reason)> ended_;
  Reason end_ = Reason::kCancelled;  // Unless it ends by itself.
};

}  // namespace

v1::ResyncReason MessageOf(ResyncReason reason) {
  switch (reason) {
    case ResyncReason::kHistoryGone: return v1::RESYNC_REASON_HISTORY_GONE;
    case ResyncReason::kRevisionUnknown: return v1::RESYNC_REASON_REVISION_UNKNOWN;
    case ResyncReason::kSlowWatcher: return v1::RESYNC_REASON_SLOW_WATCHER;
    case ResyncReason::kOverrun: return v1::RESYNC_REASON_OVERRUN;
    case ResyncReason::kReplaced: return v1::RESYNC_REASON_REPLACED;
    case ResyncReason::kDamaged: return v1::RESYNC_REASON_DAMAGED;
  }
  return v1::RESYNC_REASON_UNSPECIFIED;
}

StatusOr<uint64_t> ToProgressMs(const google::protobuf::Duration& interval) {
  SH_ASSIGN_OR_RETURN(const uint64_t progress_ms, ToMilliseconds(interval, "progress_interval"));
  if (progress_ms < kProgressMsMin || progress_ms > kProgressMsMax) {
    return Refuse("progress_interval",
                  std::to_string(progress_ms) + " ms is not between 100 ms and 1 hour");
  }
  return progress_ms;
}

StatusOr<uint64_t> ToWindowNs(const google::protobuf::Duration& window) {
  constexpr int64_t kNanosMax = int64_t{kWatchWindowMsMax} * 1'000'000;
  if (window.seconds() != 0 || window.nanos() < 0 || window.nanos() > kNanosMax) {
    return Refuse("window", "it is not between 0 and 10 ms");
  }
  return static_cast<uint64_t>(window.nanos());
}

StatusOr<std::unique_ptr<ServedStream>> OpenDictStream(WatchHub& watches, WatchAsk ask,
                                                       std::function<void()> notify,
                                                       std::function<void(Reason)> ended) {
  std::shared_ptr<ServedDict> served = ask.served;
  SH_ASSIGN_OR_RETURN(std::shared_ptr<Watch> watch,
                      watches.Open(std::move(ask), std::move(notify)));
  return std::unique_ptr<ServedStream>(
      std::make_unique<DictStream>(std::move(watch), std::move(served), std::move(ended)));
}

namespace {

// What is not followed stays with the stream, which is no error.
Status PlanLocalFollow(const v1::WatchDictRequest& request, WatchAsk* ask) {
  const v1::LocalFollow local_follow = request.local_follow();
  if (local_follow < v1::LOCAL_FOLLOW_UNSPECIFIED || local_follow > v1::LOCAL_FOLLOW_DECLINED) {
    return Refuse("local_follow", std::to_string(local_follow) + " says nothing");
  }
  ask->has_followed = local_follow == v1::LOCAL_FOLLOW_RETURNED;
  ask->declines = local_follow == v1::LOCAL_FOLLOW_DECLINED;
  const bool is_offered = ask->has_followed || local_follow == v1::LOCAL_FOLLOW_OFFERED;
  ask->hand_over = is_offered && !ask->previous && ask->window_ns == 0 &&
                   ask->slow_policy != SlowPolicy::kLatest;
  ask->follows_rings = ask->hand_over && request.follows_rings();
  return Status();
}

}  // namespace

StatusOr<WatchAsk> PlanWatchDict(const VerbContext& context, const v1::WatchDictRequest& request) {
  WatchAsk ask;
  SH_ASSIGN_OR_RETURN(ask.served, ResolveDict(context, request.name(), Verb::kRead));
  switch (request.select_case()) {
    case v1::WatchDictRequest::kKey:
      SH_RETURN_IF_ERROR(CheckEntryKey(request.key()));
      ask.key = request.key();
      break;
    case v1::WatchDictRequest::kPrefix:
      if (!request.prefix().empty()) SH_RETURN_IF_ERROR(CheckEntryKey(request.prefix()));
      ask.prefix = request.prefix();
      break;
    case v1::WatchDictRequest::SELECT_NOT_SET: break;
  }
  if (request.has_from_revision()) {
    if (request.from_revision() == 0) {
      return Refuse("from_revision", "0 is no revision; leave it out to begin with a snapshot");
    }
    ask.from_revision = request.from_revision();
  }
  ask.snapshot = !request.skip_snapshot();
  ask.keys_only = request.keys_only();
  if (request.kinds_size() > 0) ask.kinds = 0;
  for (const int kind : request.kinds()) {
    if (kind <= v1::CHANGE_KIND_UNSPECIFIED || kind > v1::CHANGE_KIND_EVICT) {
      return Refuse("kinds", std::to_string(kind) + " is no kind of change");
    }
    ask.kinds |= 1u << kind;  // As FeedOperation.
  }
  switch (request.slow_policy()) {
    case v1::SLOW_POLICY_UNSPECIFIED:
    case v1::SLOW_POLICY_RESYNC: break;
    case v1::SLOW_POLICY_LATEST: ask.slow_policy = SlowPolicy::kLatest; break;
    case v1::SLOW_POLICY_CANCEL: ask.slow_policy = SlowPolicy::kCancel; break;
    default: return Refuse("slow_policy", std::to_string(request.slow_policy()) + " is no policy");
  }
  if (request.has_progress_interval()) {
    SH_ASSIGN_OR_RETURN(ask.progress_ms, ToProgressMs(request.progress_interval()));
  }
  SH_ASSIGN_OR_RETURN(ask.window_ns, ToWindowNs(request.window()));
  ask.previous = request.previous();
  if (ask.previous && ask.keys_only) {
    return Refuse("previous", "with keys_only no values are sent; leave one of the two out");
  }
  SH_RETURN_IF_ERROR(PlanLocalFollow(request, &ask));
  return ask;
}

static_assert(static_cast<int>(FeedOperation::kPut) == v1::CHANGE_KIND_PUT &&
              static_cast<int>(FeedOperation::kDelete) == v1::CHANGE_KIND_DELETE &&
              static_cast<int>(FeedOperation::kExpire) == v1::CHANGE_KIND_EXPIRE &&
              static_cast<int>(FeedOperation::kEvict) == v1::CHANGE_KIND_EVICT);

StatusOr<std::string> EncodeWatchEvent(const Dict& dict, const WatchEvent& event,
                                       const WatchAsk& ask) {
  const bool keys_only = ask.keys_only;
  if (event.kind == WatchEvent::Kind::kChanges) {
    return EncodeChanges(event, keys_only, ask.previous);
  }
  v1::WatchDictResponse message;
  message.set_revision(event.revision);
  switch (event.kind) {
    case WatchEvent::Kind::kSnapshot:
      for (const DictEntry& entry : event.entries) {
        v1::Entry* const out = message.mutable_snapshot()->add_entries();
        out->set_key(entry.key);
        DictEntry facts;
        if (keys_only) {
          facts = entry;
          facts.kind = DictKind::kInt64;  // Whatever it holds: it is not sent.
        }
        SH_RETURN_IF_ERROR(FromEntry(dict, keys_only ? facts : entry, out));
        if (keys_only) out->clear_value();
      }
      break;
    case WatchEvent::Kind::kSynced: message.mutable_synced(); break;
    case WatchEvent::Kind::kResync:
      message.mutable_resync()->set_reason(MessageOf(event.reason));
      break;
    case WatchEvent::Kind::kProgress: message.mutable_progress(); break;
    case WatchEvent::Kind::kHandedOver:
      message.mutable_handed_over()->set_log_id(event.log_id);
      message.mutable_handed_over()->set_position(event.position);
      break;
    case WatchEvent::Kind::kChanges: break;
  }
  return message.SerializeAsString();
}

}  // namespace statehouse
