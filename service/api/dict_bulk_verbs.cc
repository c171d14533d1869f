// Verbs on many entries.
#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "service/api/dict_fields.h"
#include "service/api/dict_verbs.h"
#include "service/api/paging.h"

namespace statehouse {
namespace {

constexpr std::string_view kScanToken = "scan1.";
constexpr uint32_t kScanEntriesDefault = 1000;
constexpr uint32_t kScanEntriesMax = 10'000;
constexpr size_t kScanBytesMax = 4 << 20;
// Entries that one turn of DeletePrefix looks at.
constexpr size_t kDeleteBatch = 256;

Status TooMany(const char* field, int count) {
  return Status(Reason::kLimitExceeded, std::string("field ") + field + ": " +
                                            std::to_string(count) + ", at most " +
                                            std::to_string(kTransactionOpsMax) + " are allowed");
}

// Of a response, what is left beside the entries of a transaction's results.
constexpr size_t kResultBytes = 128;

// Carries out a transaction, or tells again what it did.
Status TransactOnce(const VerbContext& context, Dict& dict, std::span<const DictCompare> compares,
                    std::span<const DictOperation> then, std::span<const DictOperation> otherwise,
                    const DictTransactOptions& options, DictTransactionResult* result) {
  OnceGuard once;
  bool known = false;
  SH_RETURN_IF_ERROR(once.Begin(context, dict, options.operation, &known));
  if (!known) {
    for (const auto& steps : {then, otherwise}) {
      for (const DictOperation& step : steps) {
        SH_RETURN_IF_ERROR(BindingGuard::Check(context, step.set.bind_session));
      }
    }
    BindingGuard binding;
    SH_RETURN_IF_ERROR(binding.Begin(context, dict, then));
    SH_RETURN_IF_ERROR(binding.Begin(context, dict, otherwise));
    SH_RETURN_IF_ERROR(dict.Transact(context.lane, compares, then, otherwise, result, options));
    binding.End(true);
    return Status();
  }
  result->compared = once.remembered().compared;
  result->results = once.remembered().steps;
  if (result->results.size() != (result->compared ? then : otherwise).size()) {
    return Status(Reason::kInvalidArgument,
                  "field operation_id: it was used for another transaction before");
  }
  if (once.remembered().entries_kept || !options.keep_entries) return Status();
  return Status(Reason::kMessageTooLarge,
                "operation " + std::to_string(options.operation.sequence) +
                    " of its session was carried out once, and its first answer is gone: its "
                    "entries had more than 1 MiB or found no memory. Read them again");
}

}  // namespace

Status GetEntries(const VerbContext& context, const v1::GetEntriesRequest& request,
                  v1::GetEntriesResponse* response) {
  if (request.keys_size() > static_cast<int>(kTransactionOpsMax)) {
    return TooMany("keys", request.keys_size());
  }
  for (const std::string& key : request.keys()) SH_RETURN_IF_ERROR(CheckEntryKey(key));
  const Verb verb = request.consistent() ? Verb::kWrite : Verb::kRead;
  return WithDict(context, request.name(), verb, [&](Dict& dict) -> Status {
    response->Clear();
    const auto add = [&](const std::string& key, const DictEntry& entry) {
      v1::Entry* const out = response->add_entries();
      out->set_key(key);
      return FromEntry(dict, entry, out);
    };
    if (!request.consistent()) {
      DictEntry entry;
      for (const std::string& key : request.keys()) {
        bool found = false;
        SH_RETURN_IF_ERROR(dict.Get(key, &entry, &found, context.lane.operation_timeout_ns));
        if (found) SH_RETURN_IF_ERROR(add(key, entry));
      }
      return Status();
    }
    std::vector<DictOperation> gets(static_cast<size_t>(request.keys_size()));
    for (size_t i = 0; i < gets.size(); ++i) gets[i].key = request.keys(static_cast<int>(i));
    DictTransactionResult result;
    SH_RETURN_IF_ERROR(TransactOnce(context, dict, {}, gets, {}, {}, &result));
    for (size_t i = 0; i < gets.size(); ++i) {
      if (!result.results[i].result.existed) continue;
      SH_RETURN_IF_ERROR(add(request.keys(static_cast<int>(i)), result.results[i].entry));
    }
    return Status();
  });
}

Status SetEntries(const VerbContext& context, const v1::SetEntriesRequest& request,
                  v1::SetEntriesResponse* response) {
  if (request.entries_size() > static_cast<int>(kTransactionOpsMax)) {
    return TooMany("entries", request.entries_size());
  }
  SH_ASSIGN_OR_RETURN(const DictTtl ttl, ToTtl(request.ttl()));
  std::deque<std::string> storage;  // Stays where it is while it grows.
  std::vector<DictOperation> sets;
  for (const v1::Entry& entry : request.entries()) {
    SH_RETURN_IF_ERROR(CheckEntryKey(entry.key()));
    DictOperation& set = sets.emplace_back();
    set.kind = DictOperation::Kind::kSet;
    set.key = entry.key();
    SH_ASSIGN_OR_RETURN(set.value,
                        ToDictValue(entry.value(), "entries.value", &storage.emplace_back()));
    set.set.ttl = ttl;
    set.set.fence = request.fence();
    set.set.bind_session = request.bind_session();
  }
  SH_ASSIGN_OR_RETURN(const DictOperationId operation,
                      ToOperationId(request.has_operation_id(), request.operation_id()));
  return WithDict(context, request.name(), Verb::kWrite, [&](Dict& dict) -> Status {
    DictTransactionResult result;
    DictTransactOptions options;
    options.operation = operation;
    options.keep_entries = false;  // The answer has none.
    SH_RETURN_IF_ERROR(TransactOnce(context, dict, {}, sets, {}, options, &result));
    response->Clear();
    for (const DictOperationResult& each : result.results) {
      response->add_versions(each.result.version);
    }
    return Status();
  });
}

Status DeletePrefix(const VerbContext& context, const v1::DeletePrefixRequest& request,
                    v1::DeletePrefixResponse* response) {
  if (request.prefix().empty()) {
    return Status(Reason::kInvalidArgument,
                  "field prefix: it is empty; to delete everything, clear the dict");
  }
  uint64_t deleted = 0;
  const Status status = WithDict(context, request.name(), Verb::kWrite, [&](Dict& dict) -> Status {
    // After a move the buckets are others: begin again. What is deleted stays deleted.
    uint32_t bucket = 0;
    std::vector<std::string> keys;
    while (bucket < dict.geometry().bucket_count) {
      keys.clear();
      SH_RETURN_IF_ERROR(dict.Scan(
          &bucket, kDeleteBatch, request.prefix(),
          [&](DictEntry& entry) { keys.push_back(std::move(entry.key)); },
          kOperationTimeoutNsDefault));
      for (const std::string& key : keys) {
        DictResult result;
        SH_RETURN_IF_ERROR(dict.Delete(Lane{context.lane.id, kOperationTimeoutNsDefault}, key,
                                       DictDeleteOptions(), &result));
        deleted += result.applied ? 1 : 0;
      }
    }
    return Status();
  });
  response->set_deleted(deleted);
  return status;
}

Status ScanEntries(const VerbContext& context, const v1::ScanEntriesRequest& request,
                   v1::ScanEntriesResponse* response) {
  SH_ASSIGN_OR_RETURN(uint32_t at, ParsePageToken(kScanToken, request.page_token(),
                                                  request.prefix(), kDictKeyBytesMax));
  const size_t wanted = std::min(
      request.page_size() == 0 ? kScanEntriesDefault : request.page_size(), kScanEntriesMax);
  return WithDict(context, request.name(), Verb::kRead, [&](Dict& dict) -> Status {
    // A token says which part of the hash space is done, so that it outlives a move. See
    // ScanCursor.
    const uint32_t bucket_count = dict.geometry().bucket_count;
    response->Clear();
    uint32_t bucket = ScanCursor::Bucket(at, bucket_count);
    size_t bytes = 0;
    Status status;
    while (bucket < bucket_count && static_cast<size_t>(response->entries_size()) < wanted &&
           bytes < kScanBytesMax) {
      SH_RETURN_IF_ERROR(dict.Scan(
          &bucket, 1, request.prefix(),
          [&](DictEntry& entry) {
            v1::Entry* const out = response->add_entries();
            if (request.keys_only()) {
              out->set_version(entry.version);
              out->set_ordinal(entry.ordinal);
            } else if (status.ok()) {
              status = FromEntry(dict, entry, out);
            }
            bytes += entry.key.size() + entry.bytes.size() + kEntryOverheadBytes;
            out->set_key(std::move(entry.key));
          },
          context.lane.operation_timeout_ns));
    }
    if (bucket < bucket_count) {
      response->set_next_page_token(
          PageToken(kScanToken, ScanCursor::Token(bucket, bucket_count), request.prefix()));
    }
    return status;
  });
}

namespace {

// The steps of one list of a transaction. Keys are borrowed from the message, values from *storage.
Status ToOperations(const google::protobuf::RepeatedPtrField<v1::Step>& steps,
                    std::deque<std::string>* storage, std::vector<DictOperation>* operations) {
  for (const v1::Step& step : steps) {
    DictOperation& operation = operations->emplace_back();
    switch (step.kind_case()) {
      case v1::Step::kGet:
        operation.kind = DictOperation::Kind::kGet;
        operation.key = step.get();
        break;
      case v1::Step::kSet: {
        const v1::Step::Set& set = step.set();
        operation.kind = DictOperation::Kind::kSet;
        operation.key = set.key();
        SH_ASSIGN_OR_RETURN(operation.value,
                            ToDictValue(set.value(), "set.value", &storage->emplace_back()));
        SH_ASSIGN_OR_RETURN(operation.set.condition,
                            ToCondition(set.condition(), &storage->emplace_back()));
        SH_ASSIGN_OR_RETURN(operation.set.ttl, ToTtl(set.ttl()));
        operation.set.fence = set.fence();
        operation.set.bind_session = set.bind_session();
        break;
      }
      case v1::Step::kDelete: {
        const v1::Step::Delete& erase = step.delete_();
        operation.kind = DictOperation::Kind::kDelete;
        operation.key = erase.key();
        SH_ASSIGN_OR_RETURN(operation.erase.condition,
                            ToCondition(erase.condition(), &storage->emplace_back()));
        operation.erase.fence = erase.fence();
        break;
      }
      case v1::Step::kIncrement: {
        const v1::Step::Increment& add = step.increment();
        operation.kind = DictOperation::Kind::kIncrement;
        operation.key = add.key();
        SH_RETURN_IF_ERROR(ToIncrement(
            {add.has_delta() ? &add.delta() : nullptr, add.has_initial() ? &add.initial() : nullptr,
             add.has_min() ? &add.min() : nullptr, add.has_max() ? &add.max() : nullptr},
            &operation.increment));
        SH_ASSIGN_OR_RETURN(operation.increment.ttl, ToTtl(add.ttl()));
        operation.increment.must_exist = add.must_exist();
        operation.increment.fence = add.fence();
        break;
      }
      case v1::Step::KIND_NOT_SET:
        return Status(Reason::kInvalidArgument, "a step of the transaction has no kind");
    }
    SH_RETURN_IF_ERROR(CheckEntryKey(operation.key));
  }
  return Status();
}

Status FromResults(const Dict& dict, std::span<const DictOperation> operations,
                   const DictTransactionResult& result, v1::TransactDictResponse* response) {
  response->set_compared(result.compared);
  for (size_t i = 0; i < operations.size(); ++i) {
    const DictOperationResult& each = result.results[i];
    v1::StepResult* const out = response->add_results();
    out->set_version(each.result.version);
    if (operations[i].kind == DictOperation::Kind::kIncrement) {
      FromNumber(each.result.kind, each.result.bits, out->mutable_value());
    } else if (each.result.existed) {
      out->mutable_entry()->set_key(std::string(operations[i].key));
      SH_RETURN_IF_ERROR(FromEntry(dict, each.entry, out->mutable_entry()));
    }
  }
  return Status();
}

}  // namespace

Status TransactDict(const VerbContext& context, const v1::TransactDictRequest& request,
                    v1::TransactDictResponse* response) {
  const int count = request.compares_size() + request.then_steps_size() + request.else_steps_size();
  if (count > static_cast<int>(kTransactionOpsMax)) return TooMany("compares and steps", count);
  std::deque<std::string> storage;
  std::vector<DictCompare> compares;
  for (const v1::Compare& compare : request.compares()) {
    SH_RETURN_IF_ERROR(CheckEntryKey(compare.key()));
    if (compare.condition().kind_case() == v1::Condition::KIND_NOT_SET) {
      return Status(Reason::kInvalidArgument, "field compares.condition: it is missing");
    }
    DictCompare& to = compares.emplace_back();
    to.key = compare.key();
    SH_ASSIGN_OR_RETURN(to.condition, ToCondition(compare.condition(), &storage.emplace_back()));
  }
  std::vector<DictOperation> then;
  std::vector<DictOperation> otherwise;
  SH_RETURN_IF_ERROR(ToOperations(request.then_steps(), &storage, &then));
  SH_RETURN_IF_ERROR(ToOperations(request.else_steps(), &storage, &otherwise));
  SH_ASSIGN_OR_RETURN(const DictOperationId operation,
                      ToOperationId(request.has_operation_id(), request.operation_id()));
  return WithDict(context, request.name(), Verb::kWrite, [&](Dict& dict) -> Status {
    DictTransactionResult result;
    DictTransactOptions options;
    options.operation = operation;
    // What cannot be answered is refused before it happens.
    const uint64_t frames = std::max(then.size(), otherwise.size()) * kResultBytes + kResultBytes;
    const uint64_t message_bytes_max = context.options->message_bytes_max;
    options.entry_bytes_max = message_bytes_max - std::min(frames, message_bytes_max);
    SH_RETURN_IF_ERROR(TransactOnce(context, dict, compares, then, otherwise, options, &result));
    response->Clear();
    return FromResults(dict, result.compared ? then : otherwise, result, response);
  });
}

}  // namespace statehouse
