#include "clients/c/src/dict_follow.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "clients/c/src/dict_watch.h"
#include "clients/c/src/local_follow.h"
#include "engine/os/futex.h"

namespace statehouse {
namespace {

// As the service's messages.
constexpr int kChangesPerMessage = 512;
constexpr size_t kBytesPerMessage = 64 << 10;
// What is none of the watcher's business is passed by in portions.
constexpr int kReadsPerTurn = 4096;

// False for bytes that are no value: a worker of the host stored them.
bool SetValue(const DictChange& change, v1::Value* value) {
  switch (change.kind) {
    case DictKind::kInt64: value->set_int_value(static_cast<int64_t>(change.bits)); return true;
    case DictKind::kFloat64:
      value->set_float_value(std::bit_cast<double>(change.bits));
      return true;
    case DictKind::kBytes: break;
  }
  return value->ParseFromArray(change.bytes.data(), static_cast<int>(change.bytes.size())) &&
         value->kind_case() != v1::Value::KIND_NOT_SET;
}

WatchFollow::Found FoundOf(SelectedChanges::Found next) {
  switch (next) {
    case SelectedChanges::Found::kChange: return WatchFollow::Found::kMessage;
    case SelectedChanges::Found::kMore: return WatchFollow::Found::kMore;
    case SelectedChanges::Found::kFallBack: return WatchFollow::Found::kFallBack;
    case SelectedChanges::Found::kBroken: return WatchFollow::Found::kBroken;
    case SelectedChanges::Found::kNothing: break;
  }
  return WatchFollow::Found::kNothing;
}

}  // namespace

DictFollow::DictFollow(std::shared_ptr<LocalDict> dict, const v1::WatchDictRequest& request,
                       const v1::WatchDictResponse& handed_over)
    : dict_(std::move(dict)),
      request_(request),
      revision_(handed_over.revision()),
      position_(handed_over.handed_over().position()),
      log_id_(handed_over.handed_over().log_id()),
      told_ns_(MonotonicNs()) {
  if (request.has_key()) selection_.key = request.key();
  selection_.prefix = request.prefix();
  if (request.kinds_size() > 0) selection_.kinds = 0;
  for (const int kind : request.kinds()) selection_.kinds |= 1u << kind;
  if (request.has_progress_interval()) {
    const auto& interval = request.progress_interval();
    progress_ns_ = static_cast<uint64_t>(interval.seconds()) * 1'000'000'000 +
                   static_cast<uint64_t>(interval.nanos());
  }
}

void DictFollow::Use(std::shared_ptr<const FollowLog> log, std::unique_ptr<RingFollower> rings) {
  changes_.emplace(std::move(log), position_, revision_, selection_, std::move(rings));
}

Status DictFollow::Open() {
  SH_ASSIGN_OR_RETURN(std::shared_ptr<const FollowLog> log, MapFollowLog(*dict_, log_id_));
  std::unique_ptr<RingFollower> rings;
  if (request_.follows_rings()) {
    SH_ASSIGN_OR_RETURN(rings, FollowRings(*dict_, log));
  }
  Use(std::move(log), std::move(rings));
  return Status();
}

void DictFollow::Add(DictChange* change, v1::WatchDictResponse* response) {
  v1::DictChange& out = *response->mutable_changes()->add_changes();
  out.set_revision(change->revision);
  out.set_kind(static_cast<v1::ChangeKind>(change->operation));
  out.set_key(change->key);
  out.set_version(change->version);
  if (change->operation == FeedOperation::kPut && !request_.keys_only()) {
    if (change->value_gone && dict_ != nullptr) FillValue(*dict_, change);
    if (change->value_gone || !SetValue(*change, out.mutable_value())) {
      out.clear_value();
      out.set_value_gone(true);
    }
  }
  out.mutable_time()->set_seconds(static_cast<int64_t>(change->time_ms / 1000));
  out.mutable_time()->set_nanos(static_cast<int32_t>(change->time_ms % 1000) * 1'000'000);
}

void DictFollow::EndHere() {
  changes_->EndHere();
  progress_ns_ = 0;  // The end is told next.
}

uint64_t DictFollow::progress_due_ns() const {
  return progress_ns_ == 0 ? UINT64_MAX : told_ns_ + progress_ns_;
}

uint64_t DictFollow::due_ns() const { return std::min(progress_due_ns(), changes_->due_ns()); }

WatchFollow::Found DictFollow::Read(uint64_t now_ns,
                                    std::unique_ptr<google::protobuf::MessageLite>* message) {
  std::unique_ptr<v1::WatchDictResponse> response;
  size_t bytes = 0;
  int reads_left = kReadsPerTurn;
  using Next = SelectedChanges::Found;
  Next next = Next::kChange;
  while ((next = changes_->Next(&reads_left, &change_)) == Next::kChange) {
    if (response == nullptr) response = std::make_unique<v1::WatchDictResponse>();
    Add(&change_, response.get());
    bytes += change_.key.size() + change_.bytes.size() + sizeof(DictChange);
    if (response->changes().changes_size() == kChangesPerMessage || bytes > kBytesPerMessage) break;
  }
  // What was read before is told first.
  if (response == nullptr) {
    if (next != Next::kNothing || now_ns < progress_due_ns()) return FoundOf(next);
    response = std::make_unique<v1::WatchDictResponse>();
    response->mutable_progress();
  }
  response->set_revision(changes_->revision());
  told_ns_ = now_ns;
  *message = std::move(response);
  return Found::kMessage;
}

WatchFollow::Found DictFollow::ReadInto(uint64_t now_ns, WatchReader* reader) {
  int reads_left = kReadsPerTurn;
  const SelectedChanges::Found next = changes_->Next(&reads_left, &change_);
  auto* const dict_reader = static_cast<DictWatchReader*>(reader);
  if (next == SelectedChanges::Found::kChange) {
    const bool tells_value = change_.operation == FeedOperation::kPut && !request_.keys_only();
    if (tells_value && change_.value_gone && dict_ != nullptr) FillValue(*dict_, &change_);
    dict_reader->TakeChange(&change_, tells_value);
  } else if (next == SelectedChanges::Found::kNothing && now_ns >= progress_due_ns()) {
    dict_reader->TakeProgress(changes_->revision());
  } else {
    return FoundOf(next);
  }
  told_ns_ = now_ns;
  return Found::kMessage;
}

}  // namespace statehouse
