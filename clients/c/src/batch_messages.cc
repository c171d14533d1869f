// How a batch goes over the network: messages out of operations, and results out of answers.
#include <algorithm>
#include <utility>

#include "clients/c/src/batch_handle.h"
#include "engine/value/wire.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

using internal::AppendVarint;
using internal::VarintBytes;

constexpr char kBatchTag = 1 << 3 | 2;  // RunBatchRequest.
constexpr char kNamesTag = 1 << 3 | 2;  // Batch, to kOperationsTag.
constexpr char kOperationIdTag = 2 << 3 | 2;
constexpr char kStopTag = 3 << 3;
constexpr char kOperationsTag = 4 << 3 | 2;
constexpr char kSessionTag = 1 << 3 | 1;  // OperationId.
constexpr char kSequenceTag = 2 << 3;
constexpr uint32_t kBytesType = 2;
constexpr size_t kLongHeadBytesMax = 64;  // Of a longer operation: tags, lengths, its name.

void AppendId(std::string* out, char tag_or_zero, uint32_t field, const DictOperationId& id) {
  if (tag_or_zero != 0) {
    out->push_back(tag_or_zero);
  } else {
    AppendVarint(out, uint64_t{field} << 3 | kBytesType);
  }
  AppendVarint(out, 1 + sizeof id.session + 1 + VarintBytes(id.sequence));
  out->push_back(kSessionTag);
  for (size_t i = 0; i < sizeof id.session; ++i) {
    out->push_back(static_cast<char>(id.session >> (8 * i)));
  }
  out->push_back(kSequenceTag);
  AppendVarint(out, id.sequence);
}

// The reasons of a refusal after which a batch may have been carried out all the same. Where the
// client's own door refused an answer that says so itself.
bool IsDoubtful(Reason reason) {
  return reason == Reason::kTimeout || reason == Reason::kUnavailable ||
         reason == Reason::kCancelled || reason == Reason::kInternal;
}

struct Refusal {
  Status status;
  std::string name;
};

Refusal RefusalOf(std::string_view message) {
  v1::OperationFailure failure;
  const bool sound = failure.ParseFromArray(message.data(), static_cast<int>(message.size())) &&
                     failure.detail().reason() > 0 && failure.detail().reason() < kReasonCount;
  if (!sound) return {Status(Reason::kInternal, "batch: a refusal cannot be read"), ""};
  return {Status(static_cast<Reason>(failure.detail().reason()), failure.message())
              .WithRetryAfter(failure.detail().retry_after_ms()),
          failure.detail().name()};
}

static_assert(kShortGet == v1::Operation::kGet && kShortSet == v1::Operation::kSet &&
              kShortIncrement == v1::Operation::kIncrement && kShortAdd == v1::Operation::kAdd);

}  // namespace

size_t NotedBatch::MessageEnd(size_t begin) const {
  size_t bytes = 0;
  size_t end = begin;
  while (end < operations_.size() && end - begin < kBatchMessageOperationsMax) {
    const BatchOperation& next = operations_[end];
    bytes += next.is_short ? next.end - next.begin : next.request.size() + kLongHeadBytesMax;
    if (bytes > kBatchMessageBytesMax && end > begin) break;
    ++end;
  }
  return end;
}

void NotedBatch::RunByMessages() {
  bool changes = false;
  bool once = false;
  for (const BatchOperation& operation : operations_) {
    changes = changes || operation.retry == BatchRetry::kNamed;
    once = once || operation.retry == BatchRetry::kNever;
  }
  is_named_ = changes && !once && operations_.size() <= kBatchNamedMax;
  size_t begin = 0;
  std::string why_not;
  while (begin < operations_.size() && why_not.empty()) {
    const size_t end = MessageEnd(begin);
    why_not = SendMessage(begin, end);
    begin = end;
  }
  for (; begin < operations_.size(); ++begin) {
    Fail(&operations_[begin], Status(Reason::kCancelled, "batch: not sent, because " + why_not));
  }
}

// What is sent of [begin, end): those that ask for something. With stop_at_failure nothing behind
// one that cannot even be asked for; *is_cut then.
NotedBatch::Message NotedBatch::Gather(size_t begin, size_t end) {
  Message message;
  Status no_session;  // Why tries for locks cannot be asked for: waited for once a message.
  for (size_t i = begin; i < end && !message.is_cut; ++i) {
    BatchOperation& operation = operations_[i];
    if (operation.is_late) {
      const bool is_try = operation.field == v1::Operation::kAcquireLock;
      const Status taped =
          is_try && !no_session.ok() ? no_session : TapeRequest(&operation, &operation.result);
      if (!taped.ok()) {
        if (is_try) no_session = taped;
        Fail(&operation, taped);
        message.is_cut = stop_at_failure_;
        continue;
      }
      operation.is_over = operation.field == 0;
      if (operation.is_over) continue;
      operation.is_asked = true;
    }
    message.repeatable = message.repeatable && (is_named_ || operation.retry == BatchRetry::kSafe);
    message.left.push_back(i);
  }
  return message;
}

Status NotedBatch::Ask(Message* message, Deadline deadline, std::string* answer) {
  CallOptions options;
  options.deadline = deadline;
  options.idempotent = message->repeatable;
  options.sent_again = &message->sent_again;
  if (!is_named_) return caller_->RunBatch(Encode(message->left, {}), answer, options);
  const OperationIds::Lease lease = ids_->Take(message->left.size());
  return caller_->RunBatch(Encode(message->left, lease.id()), answer, options);
}

// Takes the results of what was carried out from the message's operations.
Status NotedBatch::TakeAnswer(std::string_view answer, Message* message) {
  std::vector<size_t>& left = message->left;
  std::vector<BatchAnswered> answered;
  if (!ReadBatchAnswer(answer, &answered) || answered.size() != left.size()) {
    return Status(Reason::kInternal, "batch: the answer cannot be read");
  }
  // What the service did not come to before it stopped its successor does, as with a call of its
  // own.
  const auto is_draining = [](const BatchAnswered& each) {
    return each.field == v1::OperationResult::kFailure &&
           RefusalOf(each.message).status.reason() == Reason::kDraining;
  };
  size_t done = left.size();
  while (done > 0 && is_draining(answered[done - 1])) --done;
  for (size_t i = 0; i < done; ++i) {
    Take(&operations_[left[i]], answered[i], message->sent_again);
  }
  left.erase(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(done));
  return Status();
}

std::string NotedBatch::SendMessage(size_t begin, size_t end) {
  Message message = Gather(begin, end);
  // Gathering may have waited for a session.
  const Deadline deadline = std::chrono::steady_clock::now() + timeout_;
  const auto refuse = [&](const Status& why) {
    const bool in_doubt = IsDoubtful(why.reason()) || message.sent_again;
    for (const size_t i : message.left) Fail(&operations_[i], why, nullptr, in_doubt);
    return "what was sent before it failed: " + why.message();
  };
  while (!message.left.empty()) {
    std::string answer;
    Status status = Ask(&message, deadline, &answer);
    if (status.ok()) status = TakeAnswer(answers_.emplace_back(std::move(answer)), &message);
    if (!status.ok()) {
      if (!IsDoubtful(status.reason())) return refuse(status);
      return refuse(Status(status.reason(), status.message() + "; the operations of the batch may "
                                                               "have been carried out"));
    }
    const bool again = message.repeatable && std::chrono::steady_clock::now() < deadline;
    if (!message.left.empty() && !again) {
      return refuse(
          Status(Reason::kDraining, "batch: the service stopped before it came to this operation"));
    }
  }
  if (!message.is_cut && !(stop_at_failure_ && FirstFailed(begin, end) < end)) return "";
  for (size_t i = begin; i < end; ++i) {
    if (operations_[i].is_over) continue;
    Fail(&operations_[i],
         Status(Reason::kCancelled, "batch: not sent, because an operation before it was refused"));
  }
  return "an operation before it was refused";
}

std::string NotedBatch::Encode(std::span<const size_t> which, const DictOperationId& id) const {
  std::string batch;
  size_t bytes = 32;
  for (const std::string& name : names_) bytes += name.size() + 4;
  for (const size_t i : which) {
    const BatchOperation& operation = operations_[i];
    bytes += operation.end - operation.begin + operation.request.size() + kLongHeadBytesMax;
  }
  batch.reserve(bytes);
  for (const std::string& name : names_) {
    batch.push_back(kNamesTag);
    AppendVarint(&batch, name.size());
    batch.append(name);
  }
  if (id.valid()) AppendId(&batch, kOperationIdTag, 0, id);
  if (stop_at_failure_) {
    batch.push_back(kStopTag);
    batch.push_back(1);
  }
  for (size_t n = 0; n < which.size(); ++n) {
    const BatchOperation& operation = operations_[which[n]];
    if (operation.is_short) {
      batch.append(short_bytes_, operation.begin, operation.end - operation.begin);
      continue;
    }
    std::string name;
    if (id.valid() && operation.id_field != 0) {
      AppendId(&name, 0, operation.id_field, {id.session, id.sequence + n});
    }
    const size_t message = operation.request.size() + name.size();
    const uint64_t tag = uint64_t{operation.field} << 3 | kBytesType;
    batch.push_back(kOperationsTag);
    AppendVarint(&batch, VarintBytes(tag) + VarintBytes(message) + message);
    AppendVarint(&batch, tag);
    AppendVarint(&batch, message);
    batch.append(operation.request);
    batch.append(name);  // Behind the rest, which has none.
  }
  std::string request(1, kBatchTag);
  AppendVarint(&request, batch.size());
  request.append(batch);
  return request;
}

void NotedBatch::Take(BatchOperation* operation, const BatchAnswered& answered, bool sent_again) {
  if (answered.field == v1::OperationResult::kFailure) {
    const Refusal refusal = RefusalOf(answered.message);
    return Fail(operation, refusal.status, refusal.name.c_str(), sent_again);
  }
  if (answered.field != operation->field) {
    return Fail(operation,
                Status(Reason::kInternal, "batch: the service answered with a result of kind " +
                                              std::to_string(answered.field) +
                                              "; the operation may have been carried out"),
                nullptr, /*in_doubt=*/true);
  }
  operation->is_over = true;
  if (operation->is_short) return TakeShort(operation, answered.message);
  tape_.Give({Status(), answered.message, sent_again});
  sh_error* error = nullptr;
  (void)operation->action(BatchTarget::kTape, &operation->result, &error);
  operation->error.reset(error);
}

void NotedBatch::TakeShort(BatchOperation* operation, std::string_view message) {
  ShortResult read;
  if (!ReadShortResult(operation->field, message, &read)) {
    return Fail(operation,
                Status(Reason::kInternal,
                       "batch: a result cannot be read; the operation may have been carried out"));
  }
  BatchResult& result = operation->result;
  result.entry.found = read.has_value ? 1 : 0;
  result.entry.value = FromBytes(read.value);
  result.entry.version = read.version;
  result.outcome = {1, read.version};
  result.number = FromBits(read.is_float ? DictKind::kFloat64 : DictKind::kInt64, read.bits);
  result.count = read.bits;
}

}  // namespace statehouse
