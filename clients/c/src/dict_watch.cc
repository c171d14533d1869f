#include "clients/c/src/dict_watch.h"

#include <utility>

#include "clients/c/src/dict_follow.h"
#include "clients/c/src/dict_handle.h"
#include "clients/c/src/follow_thread.h"
#include "clients/c/src/local_follow.h"
#include "engine/value/value_writer.h"

namespace statehouse {
namespace {

constexpr uint32_t kKindsAll = SH_WATCH_MASK(SH_WATCH_PUT) | SH_WATCH_MASK(SH_WATCH_DELETE) |
                               SH_WATCH_MASK(SH_WATCH_EXPIRE) | SH_WATCH_MASK(SH_WATCH_EVICT);

Status Invalid(const std::string& name, const std::string& what) {
  return Status(Reason::kInvalidArgument, "watching dict " + name + ": " + what);
}

Status SelectKeys(const std::string& name, const sh_watch_options& options,
                  v1::WatchDictRequest* request) {
  SH_ASSIGN_OR_RETURN(const std::string_view prefix, ToBytes(options.prefix, "prefix"));
  if (options.key.data != nullptr || options.key.size > 0) {
    if (!prefix.empty()) return Invalid(name, "give a key or a prefix, not both");
    SH_ASSIGN_OR_RETURN(const std::string_view key, ToKey(options.key));
    request->set_key(std::string(key));
  } else if (!prefix.empty()) {
    SH_ASSIGN_OR_RETURN(const std::string_view checked, ToKey(options.prefix));
    request->set_prefix(std::string(checked));
  }
  return Status();
}

int64_t UnixNs(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1'000'000'000 + time.nanos();
}

}  // namespace

StatusOr<std::unique_ptr<DictWatch>> DictWatch::Make(std::string name,
                                                     const sh_watch_options& options,
                                                     std::shared_ptr<LocalDict> local) {
  std::unique_ptr<DictWatch> watch(new DictWatch());
  v1::WatchDictRequest& request = watch->request_;
  SH_RETURN_IF_ERROR(SelectKeys(name, options, &request));
  if ((options.kinds & ~kKindsAll) != 0) {
    return Invalid(name, "kinds has bits that stand for no kind of change");
  }
  for (int kind = SH_WATCH_PUT; kind <= SH_WATCH_EVICT; ++kind) {
    if ((options.kinds & SH_WATCH_MASK(kind)) != 0) {
      request.add_kinds(static_cast<v1::ChangeKind>(kind));
    }
  }
  if (options.slow < SH_SLOW_RESYNC || options.slow > SH_SLOW_CANCEL) {
    return Invalid(name, "slow is none of SH_SLOW_*");
  }
  request.set_slow_policy(static_cast<v1::SlowPolicy>(options.slow + 1));
  if (options.progress_ms != 0) {
    SH_ASSIGN_OR_RETURN(*request.mutable_progress_interval(),
                        ProgressInterval("watching dict " + name, options.progress_ms));
  }
  watch->from_ = {options.from_revision != 0, options.from_revision};
  request.set_skip_snapshot(options.skip_snapshot != 0);
  request.set_keys_only(options.keys_only != 0);
  if (options.previous != 0 && options.keys_only != 0) {
    return Invalid(name, "previous and keys_only exclude each other");
  }
  request.set_previous(options.previous != 0);
  if (options.window_us != 0) {
    SH_ASSIGN_OR_RETURN(*request.mutable_window(),
                        WindowOf("watching dict " + name, options.window_us));
  }
  request.set_name(std::move(name));
  // The rest is what the service does for a watch.
  const bool is_plain =
      options.previous == 0 && options.window_us == 0 && options.slow != SH_SLOW_LATEST;
  if (is_plain && FollowThread::IsSupported()) watch->local_ = std::move(local);
  if (watch->local_ != nullptr) request.set_follows_rings(MayFollowRings(*watch->local_));
  return watch;
}

std::unique_ptr<WatchSubject::Message> DictWatch::MakeRequest(const WatchPoint& from,
                                                              LocalFollow follow) const {
  auto request = std::make_unique<v1::WatchDictRequest>(request_);
  request->set_local_follow(static_cast<v1::LocalFollow>(follow));
  if (from.is_known) request->set_from_revision(from.counter);
  return request;
}

std::unique_ptr<WatchSubject::Message> DictWatch::MakeResponse() const {
  return std::make_unique<v1::WatchDictResponse>();
}

WatchPoint DictWatch::PointAfter(const Message& response, const WatchPoint& point) const {
  const auto& message = static_cast<const v1::WatchDictResponse&>(response);
  if (message.revision() != 0) return {true, message.revision()};
  return message.has_resync() ? WatchPoint() : point;
}

static_assert(static_cast<int>(LocalFollow::kOffered) == v1::LOCAL_FOLLOW_OFFERED &&
              static_cast<int>(LocalFollow::kReturned) == v1::LOCAL_FOLLOW_RETURNED &&
              static_cast<int>(LocalFollow::kDeclined) == v1::LOCAL_FOLLOW_DECLINED);

WatchSubject::Sign DictWatch::SignOf(const Message& response) const {
  switch (static_cast<const v1::WatchDictResponse&>(response).event_case()) {
    case v1::WatchDictResponse::kSynced: return Sign::kSynced;
    case v1::WatchDictResponse::kResync: return Sign::kResync;
    case v1::WatchDictResponse::kHandedOver: return Sign::kHandedOver;
    case v1::WatchDictResponse::kProgress:
      return request_.has_progress_interval() ? Sign::kOther : Sign::kPointAlone;
    default: return Sign::kOther;
  }
}

std::shared_ptr<WatchFollow> DictWatch::Follow(const Message& handed_over) const {
  if (local_ == nullptr) return nullptr;  // It was not offered.
  return std::make_shared<DictFollow>(local_, request_,
                                      static_cast<const v1::WatchDictResponse&>(handed_over));
}

void DictWatchReader::Take(std::unique_ptr<WatchSubject::Message> response) {
  response_.reset(static_cast<v1::WatchDictResponse*>(response.release()));
  at_ = 0;
}

void DictWatchReader::TakeBreak() {
  lost_ = told_before_sync_ && revision() == 0;
  if (lost_) told_before_sync_ = false;
}

sh_bytes DictWatchReader::Shown(const v1::Value& value, std::string* wire) {
  value.SerializeToString(wire);
  return FromBytes(*wire);
}

void DictWatchReader::ShowEntry(const v1::Entry& entry, sh_watch_event* event) {
  event->kind = SH_WATCH_ENTRY;
  event->key = FromBytes(entry.key());
  event->version = entry.version();
  if (entry.has_value()) event->value = Shown(entry.value(), &value_);
}

Status DictWatchReader::ShowChange(const v1::DictChange& change, sh_watch_event* event) {
  if (change.kind() < v1::CHANGE_KIND_PUT || change.kind() > v1::CHANGE_KIND_EVICT) {
    return Status(Reason::kInternal, "a change of kind " + std::to_string(change.kind()) +
                                         ", which this library does not know");
  }
  event->kind = static_cast<sh_watch_kind>(change.kind());
  event->key = FromBytes(change.key());
  event->version = change.version();
  event->revision = change.revision();
  event->time_ns = UnixNs(change.time());
  event->value_gone = change.value_gone() ? 1 : 0;
  event->coalesced = change.coalesced() ? 1 : 0;
  if (change.has_value()) event->value = Shown(change.value(), &value_);
  if (change.has_previous()) event->previous = Shown(change.previous(), &previous_);
  event->previous_gone = change.previous_gone() ? 1 : 0;
  return Status();
}

void DictWatchReader::TakeChange(DictChange* change, bool tells_value) {
  std::swap(change_, *change);
  followed_ = tells_value ? Followed::kChangeAndValue : Followed::kChange;
}

void DictWatchReader::TakeProgress(uint64_t revision) {
  auto response = std::make_unique<v1::WatchDictResponse>();
  response->mutable_progress();
  response->set_revision(revision);
  Take(std::move(response));
}

static_assert(static_cast<int>(FeedOperation::kPut) == SH_WATCH_PUT &&
              static_cast<int>(FeedOperation::kDelete) == SH_WATCH_DELETE &&
              static_cast<int>(FeedOperation::kExpire) == SH_WATCH_EXPIRE &&
              static_cast<int>(FeedOperation::kEvict) == SH_WATCH_EVICT);

void DictWatchReader::ShowFollowed(sh_watch_event* event) {
  const bool tells_value =
      std::exchange(followed_, Followed::kNothing) == Followed::kChangeAndValue;
  event->kind = static_cast<sh_watch_kind>(change_.operation);
  event->key = FromBytes(change_.key);
  event->version = change_.version;
  event->revision = change_.revision;
  event->time_ns = static_cast<int64_t>(change_.time_ms) * 1'000'000;
  if (tells_value) {
    event->value_gone = change_.value_gone || !ShowValue(change_, &event->value) ? 1 : 0;
  }
  SetRevision(change_.revision);
}

// False for bytes that are no value: a worker of the host stored them.
bool DictWatchReader::ShowValue(const DictChange& change, sh_bytes* value) {
  if (change.kind == DictKind::kBytes) {
    if (!CheckValue(change.bytes).ok()) return false;
    *value = FromBytes(change.bytes);
    return true;
  }
  value_.clear();
  ValueWriter writer(&value_);
  change.kind == DictKind::kInt64 ? writer.Int(static_cast<int64_t>(change.bits))
                                  : writer.FloatBits(change.bits);
  *value = FromBytes(value_);
  return true;
}

StatusOr<bool> DictWatchReader::Next(sh_watch_event* event) {
  *event = sh_watch_event{};
  if (std::exchange(lost_, false)) {
    event->kind = SH_WATCH_RESYNC;
    event->reason = SH_RESYNC_CONNECTION_LOST;
    return true;
  }
  if (followed_ != Followed::kNothing) {
    ShowFollowed(event);
    return true;
  }
  if (response_ == nullptr) return false;
  const v1::WatchDictResponse& response = *response_;
  const int count = response.has_snapshot()  ? response.snapshot().entries_size()
                    : response.has_changes() ? response.changes().changes_size()
                                             : 1;
  bool gives = at_ < count;
  if (gives && response.has_snapshot()) {
    told_before_sync_ = true;
    ShowEntry(response.snapshot().entries(at_), event);
  } else if (gives && response.has_changes()) {
    const v1::DictChange& change = response.changes().changes(at_);
    SH_RETURN_IF_ERROR(ShowChange(change, event));
    // Before the first "synced" no stream can go on from here.
    told_before_sync_ = told_before_sync_ || revision() == 0;
    if (response.revision() != 0) SetRevision(change.revision());
  } else if (response.has_synced() || response.has_progress()) {
    if (response.has_synced()) told_before_sync_ = false;
    event->kind = response.has_synced() ? SH_WATCH_SYNCED : SH_WATCH_PROGRESS;
    event->revision = response.revision();
  } else if (response.has_resync()) {
    told_before_sync_ = false;
    SetRevision(0);
    event->kind = SH_WATCH_RESYNC;
    event->reason = ReasonOf(response.resync());
  } else {
    gives = false;
  }
  if (++at_ < count) return gives;
  if (response.revision() != 0) SetRevision(response.revision());
  given_ = std::move(response_);  // The event points into it.
  return gives;
}

}  // namespace statehouse
