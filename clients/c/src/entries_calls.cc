// The part of the C interface that concerns many entries of a dict at once.
#include <algorithm>
#include <string>
#include <vector>

#include "clients/c/src/dict_handle.h"

namespace statehouse {
namespace {

constexpr uint32_t kScanLimitDefault = 1000;
constexpr uint32_t kScanLimitMax = 10'000;

Status Invalid(const char* what) { return Status(Reason::kInvalidArgument, what); }

Status GetMany(sh_dict* dict, const sh_bytes* c_keys, size_t count, int consistent,
               sh_entries* entries) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  if (entries == nullptr) return Invalid("the entries are NULL");
  SH_ASSIGN_OR_RETURN(const std::vector<std::string_view> keys, ToKeys(c_keys, count));
  EntriesBuilder builder(entries);
  if (dict->local != nullptr) {
    std::vector<DictOperationResult> found;
    SH_RETURN_IF_ERROR(dict->local->GetMany(keys, consistent != 0, &found));
    for (size_t i = 0; i < keys.size(); ++i) {
      if (found[i].result.existed) {
        builder.AddLocal(*dict->local, keys[i], found[i].entry);
      } else {
        builder.AddAbsent(keys[i]);
      }
    }
  } else {
    std::vector<NetworkEntry> found;
    SH_RETURN_IF_ERROR(dict->network->GetMany(keys, consistent != 0, &found));
    for (const NetworkEntry& entry : found) builder.AddNetwork(entry);
  }
  builder.End();
  return Status();
}

Status SetMany(sh_dict* dict, const sh_bytes* c_keys, const sh_bytes* values, size_t count,
               const sh_write_options* c_options, uint64_t* versions) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  SH_ASSIGN_OR_RETURN(const std::vector<std::string_view> keys, ToKeys(c_keys, count));
  if (values == nullptr && count > 0) return Invalid("the values are NULL");
  SH_ASSIGN_OR_RETURN(DictSetOptions options, ToSetOptions(c_options));
  if (options.condition.kind != DictCondition::Kind::kNone) {
    return Invalid("sh_dict_set_many takes no condition; use sh_dict_transact");
  }
  std::vector<DictOperation> sets(count);
  for (size_t i = 0; i < count; ++i) {
    sets[i].kind = DictOperation::Kind::kSet;
    sets[i].key = keys[i];
    SH_ASSIGN_OR_RETURN(sets[i].value, ToValue(values[i], "value"));
    sets[i].set = options;
  }
  const bool binds = options.bind_session != 0;
  std::vector<uint64_t> found;
  if (dict->local != nullptr && !binds) {
    DictTransactionResult result;
    SH_RETURN_IF_ERROR(dict->local->Transact({}, sets, {}, &result));
    for (const DictOperationResult& each : result.results) found.push_back(each.result.version);
  } else {
    const auto call = [&](uint64_t session_id) {
      for (DictOperation& set : sets) set.set.bind_session = session_id;
      return dict->network->SetMany(sets, &found);
    };
    SH_RETURN_IF_ERROR(binds ? WithSession(*dict, call) : call(0));
  }
  if (versions != nullptr) std::copy_n(found.begin(), std::min(found.size(), count), versions);
  return Status();
}

Status Scan(sh_dict* dict, sh_bytes c_prefix, uint32_t limit, sh_cursor* cursor,
            sh_entries* entries) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  if (cursor == nullptr || entries == nullptr) return Invalid("the cursor or the entries are NULL");
  SH_ASSIGN_OR_RETURN(const std::string_view prefix, ToBytes(c_prefix, "prefix"));
  limit = std::min(limit == 0 ? kScanLimitDefault : limit, kScanLimitMax);
  EntriesBuilder builder(entries);
  if (cursor->memory == nullptr) cursor->memory = new sh_cursor_memory;
  if (cursor->done != 0) {
    builder.End();
    return Status();
  }
  if (dict->local != nullptr) {
    std::vector<DictEntry> page;
    SH_RETURN_IF_ERROR(dict->local->Scan(&cursor->memory->local, limit, prefix, &page));
    for (const DictEntry& entry : page) builder.AddLocal(*dict->local, entry.key, entry);
    cursor->done = cursor->memory->local.done;
  } else {
    std::vector<NetworkEntry> page;
    SH_RETURN_IF_ERROR(dict->network->Scan(prefix, limit, &cursor->memory->page_token, &page));
    for (const NetworkEntry& entry : page) builder.AddNetwork(entry);
    cursor->done = cursor->memory->page_token.empty();
  }
  builder.End();
  return Status();
}

Status ToOperation(const sh_step& from, DictOperation* to) {
  SH_ASSIGN_OR_RETURN(to->key, ToKey(from.key));
  switch (from.kind) {
    case SH_STEP_GET: to->kind = DictOperation::Kind::kGet; return Status();
    case SH_STEP_SET: {
      to->kind = DictOperation::Kind::kSet;
      SH_ASSIGN_OR_RETURN(to->value, ToValue(from.value, "step.value"));
      SH_ASSIGN_OR_RETURN(to->set, ToSetOptions(from.options));
      return Status();
    }
    case SH_STEP_DELETE: {
      to->kind = DictOperation::Kind::kDelete;
      SH_ASSIGN_OR_RETURN(to->erase, ToDeleteOptions(from.options));
      return Status();
    }
    case SH_STEP_INCREMENT: {
      to->kind = DictOperation::Kind::kIncrement;
      const sh_increment_options options =
          from.increment != nullptr ? *from.increment : sh_increment_options{};
      if (options.steps > 0) return Invalid("a step of a transaction takes no path");
      SH_ASSIGN_OR_RETURN(to->increment, ToIncrement(from.delta, options));
      return Status();
    }
  }
  return Status(
      Reason::kInvalidArgument,
      "step.kind " + std::to_string(static_cast<int>(from.kind)) + " is none of SH_STEP_*");
}

StatusOr<std::vector<DictOperation>> ToOperations(const sh_step* steps, size_t count) {
  if (steps == nullptr && count > 0) return Invalid("the steps are NULL");
  std::vector<DictOperation> operations(count);
  for (size_t i = 0; i < count; ++i) SH_RETURN_IF_ERROR(ToOperation(steps[i], &operations[i]));
  return operations;
}

// The steps that bind their entry.
std::vector<DictOperation*> BoundIn(std::vector<DictOperation>* then,
                                    std::vector<DictOperation>* otherwise) {
  std::vector<DictOperation*> bound;
  for (std::vector<DictOperation>* const steps : {then, otherwise}) {
    for (DictOperation& step : *steps) {
      if (step.set.bind_session != 0) bound.push_back(&step);
    }
  }
  return bound;
}

StatusOr<std::vector<DictCompare>> ToCompares(const sh_compare* compares, size_t count) {
  if (compares == nullptr && count > 0) return Invalid("the compares are NULL");
  std::vector<DictCompare> result(count);
  for (size_t i = 0; i < count; ++i) {
    SH_ASSIGN_OR_RETURN(result[i].key, ToKey(compares[i].key));
    SH_ASSIGN_OR_RETURN(result[i].condition, ToCondition(compares[i].condition));
    if (result[i].condition.kind == DictCondition::Kind::kNone) {
      return Invalid("a compare has no condition");
    }
  }
  return result;
}

void ShowResults(const LocalDict& dict, std::span<const DictOperation> steps,
                 const DictTransactionResult& result, sh_entries* results) {
  EntriesBuilder builder(results);
  for (size_t i = 0; i < steps.size(); ++i) {
    const DictOperationResult& each = result.results[i];
    if (steps[i].kind == DictOperation::Kind::kIncrement) {
      builder.AddNumber(steps[i].key, each.result);
    } else if (each.result.existed) {
      builder.AddLocal(dict, steps[i].key, each.entry);
    } else {
      builder.AddAbsent(steps[i].key);
    }
  }
  builder.End();
}

Status Transact(sh_dict* dict, const sh_transaction* transaction, int* compared,
                sh_entries* results, uint64_t* versions) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  if (transaction == nullptr) return Invalid("the transaction is NULL");
  const sh_transaction& t = *transaction;
  const size_t parts[] = {t.compare_count, t.then_count, t.otherwise_count};
  size_t count = 0;
  for (const size_t part : parts) count += std::min<size_t>(part, kTransactionOpsMax + 1);
  if (count > kTransactionOpsMax) {
    return Status(Reason::kLimitExceeded,
                  "dict \"" + dict->name + "\": a transaction of more than " +
                      std::to_string(kTransactionOpsMax) + " compares and steps");
  }
  SH_ASSIGN_OR_RETURN(const auto compares, ToCompares(t.compares, t.compare_count));
  SH_ASSIGN_OR_RETURN(auto then, ToOperations(t.then, t.then_count));
  SH_ASSIGN_OR_RETURN(auto otherwise, ToOperations(t.otherwise, t.otherwise_count));
  const std::vector<DictOperation*> bound = BoundIn(&then, &otherwise);
  std::vector<uint64_t> found;
  bool held = false;
  if (dict->local != nullptr && bound.empty()) {
    DictTransactionResult result;
    SH_RETURN_IF_ERROR(dict->local->Transact(compares, then, otherwise, &result));
    held = result.compared;
    for (const DictOperationResult& each : result.results) found.push_back(each.result.version);
    if (results != nullptr) ShowResults(*dict->local, held ? then : otherwise, result, results);
  } else {
    NetworkTransactionResult result;
    const auto call = [&](uint64_t session_id) {
      for (DictOperation* const step : bound) step->set.bind_session = session_id;
      result = NetworkTransactionResult();
      return dict->network->Transact(compares, then, otherwise, &result);
    };
    SH_RETURN_IF_ERROR(bound.empty() ? call(0) : WithSession(*dict, call));
    held = result.compared;
    found = std::move(result.versions);
    if (results != nullptr) {
      const std::vector<DictOperation>& steps = held ? then : otherwise;
      EntriesBuilder builder(results);
      for (size_t i = 0; i < result.entries.size(); ++i) {
        result.entries[i].key = std::string(steps[i].key);
        builder.AddNetwork(result.entries[i]);
      }
      builder.End();
    }
  }
  if (compared != nullptr) *compared = held;
  if (versions != nullptr) std::copy(found.begin(), found.end(), versions);
  return Status();
}

}  // namespace
}  // namespace statehouse

using statehouse::Finish;
using statehouse::NameOf;

sh_reason sh_dict_get_many(sh_dict* dict, const sh_bytes* keys, size_t count, int consistent,
                           sh_entries* entries, sh_error** error) {
  return Finish(statehouse::GetMany(dict, keys, count, consistent, entries), NameOf(dict), error);
}

sh_reason sh_dict_set_many(sh_dict* dict, const sh_bytes* keys, const sh_bytes* values,
                           size_t count, const sh_write_options* options, uint64_t* versions,
                           sh_error** error) {
  return Finish(statehouse::SetMany(dict, keys, values, count, options, versions), NameOf(dict),
                error);
}

sh_reason sh_dict_scan(sh_dict* dict, sh_bytes prefix, uint32_t limit, sh_cursor* cursor,
                       sh_entries* entries, sh_error** error) {
  return Finish(statehouse::Scan(dict, prefix, limit, cursor, entries), NameOf(dict), error);
}

sh_reason sh_dict_transact(sh_dict* dict, const sh_transaction* transaction, int* compared,
                           sh_entries* results, uint64_t* versions, sh_error** error) {
  return Finish(statehouse::Transact(dict, transaction, compared, results, versions), NameOf(dict),
                error);
}
