#include "tests/fuzz/batch_bytes.h"

#include <google/protobuf/stubs/logging.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "service/api/batch_plan.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse::testing {
namespace {

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "batch bytes: %s\n", what);
  std::abort();
}

// The operation as protobuf has it, from the bytes that were found.
v1::Operation Whole(const BatchOperation& found) {
  std::string bytes;
  if (found.field != 0) {
    const auto put = [&bytes](uint64_t number) {
      for (; number >= 0x80; number >>= 7) bytes.push_back(static_cast<char>(number | 0x80));
      bytes.push_back(static_cast<char>(number));
    };
    put(uint64_t{found.field} << 3 | 2);
    put(found.bytes.size());
    bytes.append(found.bytes);
  }
  v1::Operation operation;
  Require(operation.ParseFromString(bytes), "an operation was cut out wrongly");
  operation.DiscardUnknownFields();
  return operation;
}

template <typename Short>
Short ReadOrMend(const BatchOperation& operation, std::string* storage) {
  Short read;
  if (!ReadShort(operation.bytes, &read)) {
    Require(NormalizeShort(operation, storage), "a short operation was not brought into form");
    Require(ReadShort(*storage, &read), "a short operation in its form was not read");
  }
  return read;
}

void CheckShort(const BatchOperation& found, const v1::Operation& operation) {
  std::string storage;
  switch (operation.kind_case()) {
    case v1::Operation::kGet: {
      const auto get = ReadOrMend<ShortGet>(found, &storage);
      Require(get.dict == operation.get().dict() && get.key == operation.get().key(), "get");
      break;
    }
    case v1::Operation::kSet: {
      const auto set = ReadOrMend<ShortSet>(found, &storage);
      const v1::EntrySet& message = operation.set();
      Require(
          set.dict == message.dict() && set.key == message.key() && set.ttl_ms == message.ttl_ms(),
          "set");
      v1::Value value;
      Require(value.ParseFromArray(set.value.data(), static_cast<int>(set.value.size())),
              "a set's value");
      Require(value.SerializeAsString() == message.value().SerializeAsString(), "a set's value");
      break;
    }
    case v1::Operation::kIncrement: {
      const auto increment = ReadOrMend<ShortIncrement>(found, &storage);
      const v1::EntryIncrement& message = operation.increment();
      Require(increment.dict == message.dict() && increment.key == message.key() &&
                  increment.delta == (message.has_delta() ? message.delta() : 1),
              "increment");
      break;
    }
    case v1::Operation::kAdd: {
      const v1::WordAdd& message = operation.add();
      if (static_cast<int>(message.type()) < 0) return;  // No word type; the verb refuses it.
      const auto add = ReadOrMend<ShortAdd>(found, &storage);
      Require(add.area == message.area() && add.pos == message.pos() &&
                  add.type == static_cast<uint32_t>(message.type()) &&
                  add.delta == (message.has_delta() ? message.delta() : 1),
              "add");
      break;
    }
    default: break;
  }
}

}  // namespace

void CheckBatchBytes(std::string_view bytes) {
  // It would write a line for each text that is not UTF-8.
  static google::protobuf::LogHandler* const was = google::protobuf::SetLogHandler(nullptr);
  (void)was;
  BatchPlan plan;
  const Status status = ReadBatch(bytes, &plan);
  v1::RunBatchRequest request;
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  request.DiscardUnknownFields();
  const v1::Batch& batch = request.batch();
  const auto operations = static_cast<size_t>(batch.operations_size());
  const bool named = batch.has_operation_id();
  const bool within =
      operations <= kBatchOperationsMax &&
      static_cast<size_t>(batch.names_size()) <= kBatchNamesMax &&
      (!named || (batch.operation_id().session() != 0 && operations <= kBatchNamedOperationsMax));
  Require(status.ok() == within, "a valid batch was refused, or one beyond its limits was not");
  if (!within) return;
  Require(plan.stop_at_failure == batch.stop_at_failure(), "stop_at_failure");
  Require(plan.operation_id.session == batch.operation_id().session() &&
              plan.operation_id.sequence == batch.operation_id().sequence(),
          "operation_id");
  Require(plan.names.size() == static_cast<size_t>(batch.names_size()), "names");
  for (int i = 0; i < batch.names_size(); ++i) {
    Require(plan.names[static_cast<size_t>(i)] == batch.names(i), "a name");
  }
  Require(plan.operations.size() == operations, "operations");
  for (size_t i = 0; i < operations; ++i) {
    const v1::Operation& operation = batch.operations(static_cast<int>(i));
    const v1::Operation whole = Whole(plan.operations[i]);
    Require(whole.SerializeAsString() == operation.SerializeAsString(), "an operation");
    CheckShort(plan.operations[i], operation);
  }
}

}  // namespace statehouse::testing
