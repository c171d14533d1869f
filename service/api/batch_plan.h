// What a batch asks for (batch.proto), found in its bytes without building messages: an operation
// costs a few nanoseconds here, where its message would cost more than carrying it out.
//
// Reads the form that protobuf libraries write: fields in the order of their numbers, each once,
// numbers in their shortest form. What is written otherwise is brought into that form first, so any
// valid message is understood.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"
#include "engine/state/dict.h"

namespace statehouse {

inline constexpr size_t kBatchOperationsMax = 4096;
inline constexpr size_t kBatchNamesMax = 64;
// Of a batch with an operation id: as many as a dict remembers of a session.
inline constexpr size_t kBatchNamedOperationsMax = 64;

// One operation: its field of Operation.kind, and that field's message. 0: none is set.
struct BatchOperation {
  uint32_t field = 0;
  std::string_view bytes;
};

// Views point into the bytes that were read, or into `storage`; so it stays where it is.
struct BatchPlan {
  BatchPlan() = default;
  BatchPlan(const BatchPlan&) = delete;
  BatchPlan& operator=(const BatchPlan&) = delete;

  std::vector<std::string_view> names;
  DictOperationId operation_id;
  bool stop_at_failure = false;
  std::vector<BatchOperation> operations;
  std::string storage;
};

// Of a serialized RunBatchRequest or RunBatchesRequest. INVALID_ARGUMENT, LIMIT_EXCEEDED.
Status ReadBatch(std::string_view request, BatchPlan* plan);

// The short operations. Views point into the bytes that were read; false for what is not in the
// form above, which NormalizedShort may be able to mend.
struct ShortGet {
  uint32_t dict = 0;
  std::string_view key;
};
struct ShortSet {
  uint32_t dict = 0;
  std::string_view key;
  std::string_view value;  // The wire form, unchecked; empty where it is missing.
  uint64_t ttl_ms = 0;
};
struct ShortIncrement {
  uint32_t dict = 0;
  std::string_view key;
  int64_t delta = 1;
};
struct ShortAdd {
  uint32_t area = 0;
  uint64_t pos = 0;
  uint32_t type = 0;
  int64_t delta = 1;
};
bool ReadShort(std::string_view bytes, ShortGet* get);
bool ReadShort(std::string_view bytes, ShortSet* set);
bool ReadShort(std::string_view bytes, ShortIncrement* increment);
bool ReadShort(std::string_view bytes, ShortAdd* add);

// What get, set and increment begin with.
bool ReadPlaceAndKey(std::string_view bytes, uint32_t* dict, std::string_view* key);

// The message of a short operation in the form above; false where the bytes are no such message.
bool NormalizeShort(const BatchOperation& operation, std::string* bytes);

}  // namespace statehouse
