#include "clients/c/src/batch_handle.h"

#include <algorithm>

#include "engine/value/wire.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

constexpr size_t kShortHeadBytesMax = 32;    // Of a short operation, beside its tail.
constexpr char kOperationsTag = 4 << 3 | 2;  // Of Batch.

Status Invalid(const std::string& what) { return Status(Reason::kInvalidArgument, what); }

Status OfAnotherClient(const char* what, const std::string& name) {
  return Invalid(std::string("batch: ") + what + " \"" + name +
                 "\" was opened by another client; a batch takes what its own client opened");
}

Status TooMuch(const char* unit, size_t limit) {
  return Status(Reason::kLimitExceeded, "batch: with this operation it would have more than " +
                                            std::to_string(limit) + " " + unit +
                                            "; run it, then note more");
}

}  // namespace

BatchResult::Large::~Large() {
  sh_entries_free(&entries);
  sh_lock_release(lock, nullptr, nullptr);  // By a call; what it says concerns nobody any more.
}

NotedBatch::NotedBatch(const sh_client& client, bool stop_at_failure)
    : is_local_(client.local != nullptr),
      stop_at_failure_(stop_at_failure),
      local_(client.local),
      caller_(client.network),
      locks_(client.locks),
      watches_(client.watches),
      ids_(client.batch_ids),
      timeout_(client.timeout),
      tape_caller_(std::shared_ptr<Caller>(), &tape_) {}

NotedBatch::~NotedBatch() = default;

Status NotedBatch::CheckOwn(const sh_dict* dict) const {
  if (dict == nullptr) return Invalid("batch: the dict is NULL");
  return dict->locks == locks_ ? Status() : OfAnotherClient("dict", dict->name);
}

Status NotedBatch::CheckOwn(const sh_area* area) const {
  if (area == nullptr) return Invalid("batch: the area is NULL");
  return area->watches == watches_ ? Status() : OfAnotherClient("area", area->name);
}

StatusOr<NotedBatch::Dicts*> NotedBatch::Use(const sh_dict* dict) {
  SH_RETURN_IF_ERROR(CheckOwn(dict));
  if (was_run_) Clear();
  const auto [at, is_new] = dicts_.try_emplace({dict->name, dict->local.get()});
  Dicts& both = at->second;
  if (is_new) {
    both.taped.name = dict->name;
    both.taped.network = std::make_unique<NetworkDict>(dict->name, tape_caller_, timeout_,
                                                       NetworkDict::Naming::kByCaller);
    both.taped.locks = locks_;
    if (dict->local != nullptr) {
      both.direct.name = dict->name;
      both.direct.local = dict->local;
      both.direct.network =
          std::make_unique<NetworkDict>("#" + std::to_string(dict->local->facts().index),
                                        std::make_shared<LocalCaller>(local_), timeout_);
      both.direct.locks = locks_;
    }
  }
  return &both;
}

StatusOr<NotedBatch::AreasOf*> NotedBatch::Use(const sh_area* area) {
  SH_RETURN_IF_ERROR(CheckOwn(area));
  if (was_run_) Clear();
  const auto [at, is_new] = areas_.try_emplace({area->name, area->local.get()});
  if (is_new) {
    at->second.taped = *area;
    at->second.taped.local = nullptr;
    at->second.taped.network = tape_caller_;
    at->second.direct = *area;
  }
  return &at->second;
}

Status NotedBatch::PrepareToNote(size_t request_bytes) {
  if (was_run_) Clear();
  if (operations_.size() >= SH_BATCH_OPERATIONS_MAX) {
    return TooMuch("operations", SH_BATCH_OPERATIONS_MAX);
  }
  if (request_bytes > SH_BATCH_BYTES_MAX - noted_bytes_)
    return TooMuch("bytes", SH_BATCH_BYTES_MAX);
  return Status();
}

void NotedBatch::Keep(BatchOperation&& operation, size_t request_bytes, size_t* index) {
  noted_bytes_ += request_bytes;
  if (index != nullptr) *index = operations_.size();
  operations_.push_back(std::move(operation));
}

Status NotedBatch::TapeRequest(BatchOperation* operation, BatchResult* result) {
  tape_.Note();
  sh_error* c_error = nullptr;
  const sh_reason reason = operation->action(BatchTarget::kTape, result, &c_error);
  const std::unique_ptr<sh_error, ErrorFree> error(c_error);
  operation->field = 0;
  if (!tape_.noted().has_value()) {
    if (reason == SH_OK) return Status();
    return Status(static_cast<Reason>(reason), sh_error_message(error.get()))
        .WithRetryAfter(sh_error_retry_after_ms(error.get()));
  }
  TapedRequest& noted = *tape_.noted();
  operation->field = noted.field;
  operation->id_field = noted.id_field;
  operation->retry = noted.retry;
  operation->request = std::move(noted.bytes);
  return Status();
}

Status NotedBatch::Note(uint16_t shows, BatchAction action, size_t* index) {
  BatchOperation operation;
  operation.shows = shows;
  operation.action = std::move(action);
  BatchResult scratch;
  SH_RETURN_IF_ERROR(TapeRequest(&operation, &scratch));
  if (operation.field == 0) {
    return Status(Reason::kInternal, "batch: the operation asks the service for nothing");
  }
  const size_t bytes = operation.request.size();
  if (bytes > kBatchMessageBytesMax) {
    return Status(Reason::kMessageTooLarge, "batch: an operation of " + std::to_string(bytes) +
                                                " bytes; a message has room "
                                                "for " +
                                                std::to_string(kBatchMessageBytesMax));
  }
  SH_RETURN_IF_ERROR(PrepareToNote(bytes));
  if (is_local_) operation.request = std::string();
  Keep(std::move(operation), bytes, index);
  return Status();
}

Status NotedBatch::NoteLate(uint16_t shows, uint32_t field, const std::string& name,
                            BatchAction action, sh_lock* lock, size_t* index) {
  SH_RETURN_IF_ERROR(PrepareToNote(kShortHeadBytesMax));
  BatchOperation operation;
  operation.shows = shows;
  operation.field = field;
  operation.action = std::move(action);
  operation.is_late = true;
  operation.result.Room().name = name;
  operation.result.Room().lock = lock;
  Keep(std::move(operation), kShortHeadBytesMax, index);
  return Status();
}

uint32_t NotedBatch::PlaceOf(const std::string& name) {
  const auto found = std::find(names_.begin(), names_.end(), name);
  const auto place = static_cast<uint32_t>(found - names_.begin());
  if (found == names_.end() && names_.size() < kBatchNamesMax) names_.push_back(name);
  return place;
}

Status NotedBatch::NoteShort(uint16_t shows, uint32_t field, const std::string& name,
                             std::string_view tail, const std::function<BatchAction()>& action,
                             size_t* index) {
  const size_t bytes = tail.size() + kShortHeadBytesMax;
  SH_RETURN_IF_ERROR(PrepareToNote(bytes));
  BatchOperation operation;
  operation.shows = shows;
  operation.field = field;
  if (is_local_) {
    operation.action = action();
    Keep(std::move(operation), bytes, index);
    return Status();
  }
  const uint32_t place = PlaceOf(name);
  if (place == kBatchNamesMax) return Note(shows, action(), index);
  operation.is_short = true;
  operation.retry = field == v1::Operation::kGet   ? BatchRetry::kSafe
                    : field == v1::Operation::kAdd ? BatchRetry::kNever
                                                   : BatchRetry::kNamed;
  // Operation, with the message in it: the object's place, left out where it is 0, and the rest.
  const size_t message = tail.size() + (place == 0 ? 0 : 2);
  operation.begin = short_bytes_.size();
  short_bytes_.push_back(kOperationsTag);
  internal::AppendVarint(&short_bytes_, 1 + internal::VarintBytes(message) + message);
  short_bytes_.push_back(static_cast<char>(field << 3 | 2));
  internal::AppendVarint(&short_bytes_, message);
  if (place != 0) {
    short_bytes_.push_back(1 << 3);
    short_bytes_.push_back(static_cast<char>(place));
  }
  short_bytes_.append(tail);
  operation.end = short_bytes_.size();
  Keep(std::move(operation), bytes, index);
  return Status();
}

void NotedBatch::Clear() {
  was_run_ = false;
  noted_bytes_ = 0;
  operations_.clear();
  names_.clear();
  short_bytes_.clear();
  dicts_.clear();
  areas_.clear();
  answers_.clear();
}

Status NotedBatch::Run(size_t* failed) {
  if (was_run_) {
    return Invalid("batch: it was run already; note operations, then run it again");
  }
  was_run_ = true;
  if (is_local_) {
    RunDirectly();
  } else {
    RunByMessages();
  }
  *failed = FirstFailed(0, operations_.size());
  return Status();
}

size_t NotedBatch::FirstFailed(size_t begin, size_t end) const {
  while (begin < end && operations_[begin].error == nullptr) ++begin;
  return begin;
}

void NotedBatch::Fail(BatchOperation* operation, const Status& why, const char* name,
                      bool in_doubt) {
  operation->is_over = true;
  sh_error* error = nullptr;
  // An action that was not asked yet what it wants would begin with calls of its own.
  if (operation->is_late && !operation->is_asked) {
    (void)Finish(why, operation->result.Room().name.c_str(), &error);
  } else if (operation->action && !is_local_) {
    tape_.Give({why, "", in_doubt});
    const sh_reason reason = operation->action(BatchTarget::kTape, &operation->result, &error);
    if (reason == SH_OK) return;  // It takes that for an answer.
  } else {
    (void)Finish(why, name, &error);
  }
  operation->error.reset(error);
}

void NotedBatch::RunDirectly() {
  for (size_t i = 0; i < operations_.size(); ++i) {
    BatchOperation& operation = operations_[i];
    sh_error* error = nullptr;
    (void)operation.action(BatchTarget::kDoor, &operation.result, &error);
    operation.error.reset(error);
    operation.is_over = true;
    if (error == nullptr || !stop_at_failure_) continue;
    const Status why(Reason::kCancelled, "batch: not carried out, because operation " +
                                             std::to_string(i) + " was refused");
    for (++i; i < operations_.size(); ++i) Fail(&operations_[i], why);
  }
}

StatusOr<const BatchOperation*> NotedBatch::Find(size_t index, uint16_t shows,
                                                 const char* what) const {
  if (index >= operations_.size()) {
    return Invalid("batch: there is no operation " + std::to_string(index) + "; it has " +
                   std::to_string(operations_.size()));
  }
  const BatchOperation& operation = operations_[index];
  const std::string prefix = "batch: operation " + std::to_string(index);
  if (!operation.is_over) return Invalid(prefix + " was not run yet; run the batch first");
  if (shows != kShowsNothing && (operation.shows & shows) == 0) {
    return Invalid(prefix + " gives no " + what);
  }
  return &operation;
}

StatusOr<BatchOperation*> NotedBatch::Find(size_t index, uint16_t shows, const char* what) {
  const NotedBatch& self = *this;
  SH_ASSIGN_OR_RETURN(const BatchOperation* const found, self.Find(index, shows, what));
  return const_cast<BatchOperation*>(found);
}

}  // namespace statehouse
