#include "clients/c/src/dict_follow.h"

#include <bit>
#include <map>
#include <mutex>
#include <utility>

#include "engine/os/futex.h"

namespace statehouse {
namespace {

// As the service's messages.
constexpr int kChangesPerMessage = 512;
constexpr size_t kBytesPerMessage = 64 << 10;
// What is none of the watcher's business is passed by in portions.
constexpr int kReadsPerTurn = 4096;
constexpr std::chrono::milliseconds kOpenTimeout{1'000};

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

// The logs that this process has mapped: watches of one dict share a mapping, so that they sleep on
// one word. Whoever was handed over to a log may read its dict.
struct Mapped {
  std::mutex mutex;
  std::map<uint64_t, std::weak_ptr<const FollowLog>> by_id;
};

// Never destroyed, as the threads that use it.
Mapped& TheMapped() {
  static Mapped* const mapped = new Mapped;
  return *mapped;
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
  for (const int kind : request.kinds()) kinds_ |= 1u << kind;
  if (request.kinds_size() == 0) kinds_ = ~0u;
  if (request.has_progress_interval()) {
    const auto& interval = request.progress_interval();
    progress_ns_ = static_cast<uint64_t>(interval.seconds()) * 1'000'000'000 +
                   static_cast<uint64_t>(interval.nanos());
  }
}

void DictFollow::Use(std::shared_ptr<const FollowLog> log) {
  reader_.emplace(std::move(log), position_, revision_);
}

Status DictFollow::Open() {
  const FollowLogFacts facts{dict_->facts().id, log_id_};
  Mapped& mapped = TheMapped();
  // Of FollowThread alone, which opens one after another.
  const std::lock_guard<std::mutex> lock(mapped.mutex);
  if (std::shared_ptr<const FollowLog> known = mapped.by_id[log_id_].lock()) {
    if (known->facts().dict_id != facts.dict_id) {
      return Status(Reason::kDataLoss, "the follow log is of another dict");
    }
    Use(std::move(known));
    return Status();
  }
  const Deadline deadline = std::chrono::steady_clock::now() + kOpenTimeout;
  SH_ASSIGN_OR_RETURN(const UniqueFd fd,
                      dict_->session()->OpenFollowLog(dict_->facts().index, log_id_, deadline));
  SH_ASSIGN_OR_RETURN(std::shared_ptr<const FollowLog> log, FollowLog::Map(facts, fd.get()));
  std::erase_if(mapped.by_id, [](const auto& each) { return each.second.expired(); });
  mapped.by_id[log_id_] = log;
  Use(std::move(log));
  return Status();
}

bool DictFollow::Wants(const DictChange& change) const {
  if ((kinds_ >> static_cast<uint32_t>(change.operation) & 1) == 0) return false;
  return request_.has_key() ? change.key == request_.key()
                            : std::string_view(change.key).starts_with(request_.prefix());
}

// A value that the log could not hold is taken from the entry, if that is still the one.
void DictFollow::FillValue(DictChange* change) const {
  DictEntry entry;
  bool found = false;
  if (dict_ == nullptr || !dict_->Peek(change->key, &entry, &found).ok() || !found ||
      entry.version != change->version) {
    return;
  }
  change->value_gone = false;
  change->bytes = std::move(entry.bytes);
}

void DictFollow::Add(DictChange* change, v1::WatchDictResponse* response) {
  v1::DictChange& out = *response->mutable_changes()->add_changes();
  out.set_revision(change->revision);
  out.set_kind(static_cast<v1::ChangeKind>(change->operation));
  out.set_key(change->key);
  out.set_version(change->version);
  if (change->operation == FeedOperation::kPut && !request_.keys_only()) {
    if (change->value_gone) FillValue(change);
    if (change->value_gone || !SetValue(*change, out.mutable_value())) {
      out.clear_value();
      out.set_value_gone(true);
    }
  }
  out.mutable_time()->set_seconds(static_cast<int64_t>(change->time_ms / 1000));
  out.mutable_time()->set_nanos(static_cast<int32_t>(change->time_ms % 1000) * 1'000'000);
}

void DictFollow::EndHere() {
  reader_->EndHere();
  progress_ns_ = 0;  // The end is told next.
}

uint64_t DictFollow::due_ns() const {
  return progress_ns_ == 0 ? UINT64_MAX : told_ns_ + progress_ns_;
}

WatchFollow::Found DictFollow::Read(uint64_t now_ns,
                                    std::unique_ptr<google::protobuf::MessageLite>* message) {
  std::unique_ptr<v1::WatchDictResponse> response;
  size_t bytes = 0;
  std::optional<Found> falls_back;
  bool is_end = false;
  for (int reads = 0; reads < kReadsPerTurn && !is_end; ++reads) {
    switch (reader_->Next(&change_)) {
      case FollowLogReader::Found::kNothing: is_end = true; continue;
      case FollowLogReader::Found::kOverrun:
        is_end = true;
        falls_back = Found::kFallBack;
        continue;
      case FollowLogReader::Found::kDamaged:
        is_end = true;
        falls_back = Found::kBroken;
        continue;
      case FollowLogReader::Found::kChange: break;
    }
    if (change_.operation == FeedOperation::kGap) {
      // The stream tells why, and begins anew.
      reader_->StepBack();
      is_end = true;
      falls_back = Found::kFallBack;
    } else if (change_.operation != FeedOperation::kMoved && Wants(change_)) {
      if (response == nullptr) response = std::make_unique<v1::WatchDictResponse>();
      Add(&change_, response.get());
      bytes += change_.key.size() + change_.bytes.size() + sizeof(DictChange);
      is_end = response->changes().changes_size() == kChangesPerMessage || bytes > kBytesPerMessage;
      if (is_end) break;
    }
  }
  // What was read before it is told first.
  if (response == nullptr && falls_back.has_value()) return *falls_back;
  if (response == nullptr && !is_end) return Found::kMore;
  if (response == nullptr) {
    if (now_ns < due_ns()) return Found::kNothing;
    response = std::make_unique<v1::WatchDictResponse>();
    response->mutable_progress();
  }
  response->set_revision(reader_->revision());
  told_ns_ = now_ns;
  *message = std::move(response);
  return Found::kMessage;
}

}  // namespace statehouse
