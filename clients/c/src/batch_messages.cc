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
using internal::WireReader;

constexpr char kBatchTag = 1 << 3 | 2;  // RunBatchRequest.
constexpr char kNamesTag = 1 << 3 | 2;  // Batch, to kOperationsTag.
constexpr char kOperationIdTag = 2 << 3 | 2;
constexpr char kStopTag = 3 << 3;
constexpr char kOperationsTag = 4 << 3 | 2;
constexpr char kSessionTag = 1 << 3 | 1;  // OperationId.
constexpr char kSequenceTag = 2 << 3;
constexpr char kResultTag = 1 << 3 | 2;   // RunBatchResponse.
constexpr char kResultsTag = 1 << 3 | 2;  // BatchResult.
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

// The reasons of a refusal after which a batch may have been carried out all the same.
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

int64_t FromZigZag(uint64_t number) {
  return static_cast<int64_t>(number >> 1) ^ -static_cast<int64_t>(number & 1);
}

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
  for (size_t i = begin; i < end && !message.is_cut; ++i) {
    BatchOperation& operation = operations_[i];
    if (operation.is_late) {
      if (const Status taped = TapeRequest(&operation, &operation.result); !taped.ok()) {
        Fail(&operation, taped);
        message.is_cut = stop_at_failure_;
        continue;
      }
      operation.is_over = operation.field == 0;
      if (operation.is_over) continue;
    }
    message.repeatable = message.repeatable && (is_named_ || operation.retry == BatchRetry::kSafe);
    message.left.push_back(i);
  }
  return message;
}

Status NotedBatch::Ask(const Message& message, Deadline deadline, std::string* answer) {
  CallOptions options;
  options.deadline = deadline;
  options.idempotent = message.repeatable;
  if (!is_named_) return caller_->RunBatch(Encode(message.left, {}), answer, options);
  const OperationIds::Lease lease = ids_->Take(message.left.size());
  return caller_->RunBatch(Encode(message.left, lease.id()), answer, options);
}

// Takes the results of what was carried out from the message's operations.
Status NotedBatch::TakeAnswer(std::string_view answer, Message* message) {
  std::vector<size_t>& left = message->left;
  std::vector<Answered> answered;
  if (!ReadAnswer(answer, &answered) || answered.size() != left.size()) {
    return Status(Reason::kInternal, "batch: the answer cannot be read");
  }
  // What the service did not come to before it stopped its successor does, as with a call of its
  // own.
  const auto is_draining = [](const Answered& each) {
    return each.field == v1::OperationResult::kFailure &&
           RefusalOf(each.message).status.reason() == Reason::kDraining;
  };
  size_t done = left.size();
  while (done > 0 && is_draining(answered[done - 1])) --done;
  for (size_t i = 0; i < done; ++i) Take(&operations_[left[i]], answered[i]);
  left.erase(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(done));
  return Status();
}

std::string NotedBatch::SendMessage(size_t begin, size_t end) {
  const Deadline deadline = std::chrono::steady_clock::now() + timeout_;
  Message message = Gather(begin, end);
  const auto refuse = [&](const Status& why) {
    for (const size_t i : message.left) Fail(&operations_[i], why);
    return "what was sent before it failed: " + why.message();
  };
  while (!message.left.empty()) {
    std::string answer;
    Status status = Ask(message, deadline, &answer);
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

bool NotedBatch::ReadAnswer(std::string_view answer, std::vector<Answered>* answered) {
  WireReader outer(answer);
  std::string_view result;
  if (!outer.AtEnd() && !outer.Field(kResultTag, &result)) return false;
  WireReader results(result);
  while (!results.AtEnd()) {
    std::string_view one;
    Answered& next = answered->emplace_back();
    if (!results.Field(kResultsTag, &one)) return false;
    WireReader inner(one);
    uint64_t tag = 0;
    if (!inner.Varint(&tag) || (tag & 7) != kBytesType || !inner.Bytes(&next.message)) return false;
    next.field = static_cast<uint32_t>(tag >> 3);
  }
  return true;
}

void NotedBatch::Take(BatchOperation* operation, const Answered& answered) {
  if (answered.field == v1::OperationResult::kFailure) {
    const Refusal refusal = RefusalOf(answered.message);
    return Fail(operation, refusal.status, refusal.name.c_str());
  }
  if (answered.field != operation->field) {
    return Fail(operation,
                Status(Reason::kInternal, "batch: the service answered with a result of kind " +
                                              std::to_string(answered.field) +
                                              "; the operation may have been carried out"));
  }
  operation->is_over = true;
  if (operation->is_short) return TakeShort(operation, answered.message);
  tape_.Answer(Status(), answered.message);
  sh_error* error = nullptr;
  (void)operation->action(BatchTarget::kTape, &operation->result, &error);
  operation->error.reset(error);
}

void NotedBatch::TakeShort(BatchOperation* operation, std::string_view message) {
  WireReader in(message);
  BatchResult& result = operation->result;
  uint64_t version = 0;
  uint64_t number = 0;
  bool sound = true;
  switch (operation->field) {
    case v1::Operation::kGet: {
      std::string_view value;
      result.entry.found = in.Field(1 << 3 | 2, &value) ? 1 : 0;
      if (in.Take(2 << 3)) sound = in.Varint(&version);
      result.entry.value = FromBytes(value);
      result.entry.version = version;
      break;
    }
    case v1::Operation::kSet:
      if (in.Take(1 << 3)) sound = in.Varint(&version);
      result.outcome = {1, version};
      break;
    case v1::Operation::kIncrement: {
      uint64_t bits = 0;
      if (in.Take(1 << 3)) sound = in.Varint(&number);
      if (sound && in.Take(2 << 3)) sound = in.Varint(&version);
      const bool is_float = sound && in.Take(3 << 3 | 1);
      if (is_float) sound = in.Fixed64(&bits);
      result.number = is_float ? FromBits(DictKind::kFloat64, bits) : sh_int(FromZigZag(number));
      result.outcome.version = version;
      break;
    }
    default: {  // add: the number of a WordValue, unsigned or signed.
      std::string_view word;
      sound = in.Field(1 << 3 | 2, &word);
      WireReader inner(word);
      sound = sound && (inner.Take(1 << 3) || inner.Take(2 << 3)) && inner.Varint(&number);
      result.count = number;
    }
  }
  if (sound && in.AtEnd()) return;
  Fail(operation,
       Status(Reason::kInternal,
              "batch: a result cannot be read; the operation may have been carried out"));
}

}  // namespace statehouse
