#include "service/api/batch_plan.h"

#include <algorithm>
#include <climits>
#include <utility>

#include "engine/value/wire.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

using internal::WireReader;

// Tags: field number << 3 | wire type.
constexpr char kBatchTag = 1 << 3 | 2;  // RunBatchRequest.
constexpr char kNamesTag = 1 << 3 | 2;  // Batch.
constexpr char kOperationIdTag = 2 << 3 | 2;
constexpr char kStopAtFailureTag = 3 << 3;
constexpr char kOperationsTag = 4 << 3 | 2;
constexpr char kPlaceTag = 1 << 3;    // EntryGet, EntrySet, EntryIncrement and WordAdd.
constexpr char kKeyTag = 2 << 3 | 2;  // The first three of them.
constexpr char kValueTag = 3 << 3 | 2;
constexpr char kTtlMsTag = 4 << 3;
constexpr char kDeltaTag = 3 << 3;
constexpr char kPosTag = 2 << 3;  // WordAdd.
constexpr char kTypeTag = 3 << 3;
constexpr char kAddDeltaTag = 4 << 3;

constexpr uint32_t kBytesType = 2;
constexpr size_t kOperationBytes =
    16;                              // What a short one takes at least, with a key of some bytes.
constexpr uint32_t kKindsMax = 127;  // Fields of Operation.kind.

int64_t FromZigZag(uint64_t number) {
  return static_cast<int64_t>(number >> 1) ^ -static_cast<int64_t>(number & 1);
}

// A number of a field that is left out where it is 0.
bool ReadNumber(WireReader* reader, char tag, uint64_t max, uint64_t* number) {
  *number = 0;
  return !reader->Take(tag) || (reader->Varint(number) && *number <= max);
}

bool ReadPlace(WireReader* reader, uint32_t* place) {
  uint64_t number = 0;
  if (!ReadNumber(reader, kPlaceTag, UINT32_MAX, &number)) return false;
  *place = static_cast<uint32_t>(number);
  return true;
}

bool ReadDelta(WireReader* reader, char tag, int64_t* delta) {
  if (!reader->Take(tag)) return true;
  uint64_t number = 0;
  if (!reader->Varint(&number)) return false;
  *delta = FromZigZag(number);
  return true;
}

// `bytes` are those of an Operation with one field and nothing else, or with none.
bool ReadOperation(std::string_view bytes, BatchOperation* operation) {
  *operation = BatchOperation();
  if (bytes.empty()) return true;
  WireReader reader(bytes);
  uint64_t tag = 0;
  if (!reader.Varint(&tag) || (tag & 7) != kBytesType || tag >> 3 > kKindsMax) return false;
  operation->field = static_cast<uint32_t>(tag >> 3);
  return reader.Bytes(&operation->bytes) && reader.AtEnd();
}

bool ReadOperationId(std::string_view bytes, DictOperationId* id, bool* is_named) {
  v1::OperationId message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return false;
  *id = {message.session(), message.sequence()};
  *is_named = true;
  return true;
}

// False where the bytes are not in the form that is read here.
bool ReadWritten(std::string_view request, BatchPlan* plan, bool* is_named) {
  *is_named = false;
  if (request.empty()) return true;
  WireReader outer(request);
  std::string_view batch;
  if (!outer.Field(kBatchTag, &batch) || !outer.AtEnd()) return false;
  WireReader reader(batch);
  std::string_view bytes;
  while (reader.Field(kNamesTag, &bytes)) plan->names.push_back(bytes);
  if (reader.Field(kOperationIdTag, &bytes) &&
      !ReadOperationId(bytes, &plan->operation_id, is_named)) {
    return false;
  }
  uint64_t stops = 0;
  if (!ReadNumber(&reader, kStopAtFailureTag, 1, &stops)) return false;
  plan->stop_at_failure = stops != 0;
  plan->operations.reserve(std::min(batch.size() / kOperationBytes, kBatchOperationsMax));
  while (reader.Field(kOperationsTag, &bytes)) {
    if (!ReadOperation(bytes, &plan->operations.emplace_back())) return false;
  }
  return reader.AtEnd();
}

Status CheckLimits(const BatchPlan& plan, bool is_named) {
  const auto beyond = [](Reason reason, const char* field, size_t count, size_t max,
                         const char* advice) {
    return Status(reason, std::string("field batch.") + field + ": " + std::to_string(count) +
                              " are more than the limit of " + std::to_string(max) + advice);
  };
  if (plan.operations.size() > kBatchOperationsMax) {
    return beyond(Reason::kLimitExceeded, "operations", plan.operations.size(), kBatchOperationsMax,
                  "; send several batches");
  }
  if (plan.names.size() > kBatchNamesMax) {
    return beyond(Reason::kInvalidArgument, "names", plan.names.size(), kBatchNamesMax,
                  "; send several batches, or use the longer operations");
  }
  if (!is_named) return Status();
  if (plan.operation_id.session == 0) {
    return Status(Reason::kInvalidArgument, "field batch.operation_id.session: it must not be 0");
  }
  if (plan.operations.size() > kBatchNamedOperationsMax) {
    return beyond(Reason::kInvalidArgument, "operations", plan.operations.size(),
                  kBatchNamedOperationsMax, " of a batch with an operation_id: send several");
  }
  return Status();
}

void Clear(BatchPlan* plan) {
  plan->names.clear();
  plan->operations.clear();
  plan->operation_id = DictOperationId();
  plan->stop_at_failure = false;
}

template <typename Message>
bool Normalize(std::string_view bytes, std::string* normalized) {
  Message message;
  if (bytes.size() > INT_MAX ||
      !message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return false;
  }
  message.DiscardUnknownFields();
  return message.SerializeToString(normalized);
}

}  // namespace

Status ReadBatch(std::string_view request, BatchPlan* plan) {
  Clear(plan);
  plan->storage.clear();
  bool is_named = false;
  if (!ReadWritten(request, plan, &is_named)) {
    Clear(plan);
    if (!Normalize<v1::RunBatchRequest>(request, &plan->storage)) {
      return Status(Reason::kInvalidArgument, "batch: the request is not a valid message");
    }
    if (!ReadWritten(plan->storage, plan, &is_named)) {
      return Status(Reason::kInternal, "batch: a valid request cannot be read");
    }
  }
  return CheckLimits(*plan, is_named);
}

bool ReadShort(std::string_view bytes, ShortGet* get) {
  WireReader reader(bytes);
  get->key = {};
  if (!ReadPlace(&reader, &get->dict)) return false;
  (void)reader.Field(kKeyTag, &get->key);  // Left out where it is empty.
  return reader.AtEnd();
}

bool ReadShort(std::string_view bytes, ShortSet* set) {
  WireReader reader(bytes);
  set->key = {};
  set->value = {};
  if (!ReadPlace(&reader, &set->dict)) return false;
  (void)reader.Field(kKeyTag, &set->key);
  (void)reader.Field(kValueTag, &set->value);
  return ReadNumber(&reader, kTtlMsTag, UINT64_MAX, &set->ttl_ms) && reader.AtEnd();
}

bool ReadShort(std::string_view bytes, ShortIncrement* increment) {
  WireReader reader(bytes);
  increment->key = {};
  increment->delta = 1;
  if (!ReadPlace(&reader, &increment->dict)) return false;
  (void)reader.Field(kKeyTag, &increment->key);
  return ReadDelta(&reader, kDeltaTag, &increment->delta) && reader.AtEnd();
}

bool ReadShort(std::string_view bytes, ShortAdd* add) {
  WireReader reader(bytes);
  uint64_t type = 0;
  add->delta = 1;
  if (!ReadPlace(&reader, &add->area) || !ReadNumber(&reader, kPosTag, UINT64_MAX, &add->pos) ||
      !ReadNumber(&reader, kTypeTag, INT32_MAX, &type)) {
    return false;
  }
  add->type = static_cast<uint32_t>(type);
  return ReadDelta(&reader, kAddDeltaTag, &add->delta) && reader.AtEnd();
}

bool ReadPlaceAndKey(std::string_view bytes, uint32_t* dict, std::string_view* key) {
  WireReader reader(bytes);
  return ReadPlace(&reader, dict) && reader.Field(kKeyTag, key);
}

bool NormalizeShort(const BatchOperation& operation, std::string* bytes) {
  switch (operation.field) {
    case v1::Operation::kGet: return Normalize<v1::EntryGet>(operation.bytes, bytes);
    case v1::Operation::kSet: return Normalize<v1::EntrySet>(operation.bytes, bytes);
    case v1::Operation::kIncrement: return Normalize<v1::EntryIncrement>(operation.bytes, bytes);
    case v1::Operation::kAdd: return Normalize<v1::WordAdd>(operation.bytes, bytes);
    default: return false;
  }
}

}  // namespace statehouse
