#include "clients/c/src/network_dict.h"

#include <algorithm>
#include <unordered_map>

#include "clients/c/src/network_dict_fields.h"

namespace statehouse {
namespace {

// One call of a wait lasts this long at most; then it is asked again.
constexpr std::chrono::minutes kWaitSlice{1};

}  // namespace

template <typename Request, typename Response>
Status NetworkDict::Call(const char* verb, const Request& request, Response* response,
                         Retry retry) const {
  CallOptions options;
  options.deadline = std::chrono::steady_clock::now() + timeout_;
  options.idempotent = retry == Retry::kSafe;
  return caller_->Call(std::string("/statehouse.v1.Dicts/") + verb, request, response, options);
}

// A mutation under a name of its own.
template <typename Request, typename Response>
Status NetworkDict::CallOnce(const char* verb, Request* request, Response* response) {
  if (naming_ == Naming::kByCaller) return Call(verb, *request, response, Retry::kSafe);
  const OperationIds::Lease lease = operation_ids_.Take();
  request->mutable_operation_id()->set_session(lease.id().session);
  request->mutable_operation_id()->set_sequence(lease.id().sequence);
  return Call(verb, *request, response, Retry::kSafe);
}

Status NetworkDict::Get(std::string_view key, std::span<const PathStep> path, NetworkEntry* entry) {
  v1::GetEntryRequest request;
  request.set_name(name_);
  request.set_key(std::string(key));
  SetPath(path, request.mutable_path_steps());
  v1::GetEntryResponse response;
  SH_RETURN_IF_ERROR(Call("GetEntry", request, &response, Retry::kSafe));
  *entry = response.has_entry() ? FromEntry(response.entry()) : NetworkEntry();
  return Status();
}

Status NetworkDict::Wait(std::string_view key, const EntryWait& wait, Deadline deadline, bool* met,
                         NetworkEntry* entry) {
  using std::chrono::steady_clock;
  v1::WaitEntryRequest request;
  request.set_name(name_);
  request.set_key(std::string(key));
  SetEntryWait(wait, &request);
  v1::WaitEntryResponse response;
  do {
    const auto left = std::max<std::chrono::nanoseconds>(deadline - steady_clock::now(),
                                                         std::chrono::nanoseconds(0));
    const auto slice = std::min<std::chrono::nanoseconds>(left, kWaitSlice);
    request.mutable_timeout()->set_seconds(slice / std::chrono::seconds(1));
    request.mutable_timeout()->set_nanos(
        static_cast<int32_t>((slice % std::chrono::seconds(1)).count()));
    CallOptions options;
    options.deadline = steady_clock::now() + slice + timeout_;
    options.idempotent = true;
    options.long_running = slice.count() > 0;
    SH_RETURN_IF_ERROR(
        caller_->Call("/statehouse.v1.Dicts/WaitEntry", request, &response, options));
  } while (!response.met() && steady_clock::now() < deadline);
  *met = response.met();
  *entry = response.has_entry() ? FromEntry(response.entry()) : NetworkEntry();
  return Status();
}

Status NetworkDict::Set(std::string_view key, const DictValue& value, const DictSetOptions& options,
                        DictResult* result, NetworkEntry* previous) {
  v1::SetEntryRequest request;
  request.set_name(name_);
  request.set_key(std::string(key));
  SetValue(value, request.mutable_value());
  SetCondition(options.condition, &request);
  SetTtl(options.ttl, &request);
  request.set_fence(options.fence);
  request.set_bind_session(options.bind_session);
  request.set_return_previous(previous != nullptr);
  v1::SetEntryResponse response;
  SH_RETURN_IF_ERROR(CallOnce("SetEntry", &request, &response));
  result->applied = response.applied();
  result->version = response.version();
  if (previous == nullptr) return Status();
  *previous = response.has_previous() ? FromEntry(response.previous()) : NetworkEntry();
  return Status();
}

Status NetworkDict::Delete(std::string_view key, const DictDeleteOptions& options,
                           DictResult* result, NetworkEntry* previous) {
  v1::DeleteEntryRequest request;
  request.set_name(name_);
  request.set_key(std::string(key));
  SetCondition(options.condition, &request);
  request.set_fence(options.fence);
  request.set_return_previous(previous != nullptr);
  v1::DeleteEntryResponse response;
  SH_RETURN_IF_ERROR(CallOnce("DeleteEntry", &request, &response));
  result->applied = response.applied();
  result->version = response.version();
  if (previous == nullptr) return Status();
  *previous = response.has_previous() ? FromEntry(response.previous()) : NetworkEntry();
  return Status();
}

Status NetworkDict::Touch(std::string_view key, const DictTtl& ttl, DictResult* result) {
  v1::TouchEntryRequest request;
  request.set_name(name_);
  request.set_key(std::string(key));
  SetTtl(ttl, &request);
  v1::TouchEntryResponse response;
  SH_RETURN_IF_ERROR(CallOnce("TouchEntry", &request, &response));
  result->applied = response.applied();
  result->version = response.version();
  return Status();
}

Status NetworkDict::Increment(std::string_view key, std::span<const PathStep> path,
                              const DictIncrement& increment, DictResult* result) {
  v1::IncrementEntryRequest request;
  request.set_name(name_);
  request.set_key(std::string(key));
  SetPath(path, request.mutable_path_steps());
  SetIncrement(increment, &request);
  v1::IncrementEntryResponse response;
  SH_RETURN_IF_ERROR(CallOnce("IncrementEntry", &request, &response));
  result->applied = true;
  result->version = response.version();
  return FromNumber(response.value(), result);
}

Status NetworkDict::Edit(std::string_view key, v1::Edit::KindCase kind, const EntryEdit& edit,
                         NetworkEditResult* result) {
  v1::EditEntryRequest request;
  request.set_name(name_);
  request.set_key(std::string(key));
  SetPath(edit.path, request.mutable_path_steps());
  SetEdit(kind, edit.edit, request.mutable_edit());
  request.set_create_parents(edit.create);
  request.set_if_version(edit.if_version);
  request.set_fence(edit.fence);
  v1::EditEntryResponse response;
  SH_RETURN_IF_ERROR(CallOnce("EditEntry", &request, &response));
  result->version = response.version();
  result->length = response.length();
  result->wire = response.has_result() ? response.result().SerializeAsString() : std::string();
  return Status();
}

Status NetworkDict::GetMany(std::span<const std::string_view> keys, bool consistent,
                            std::vector<NetworkEntry>* entries) {
  v1::GetEntriesRequest request;
  request.set_name(name_);
  for (const std::string_view key : keys) request.add_keys(std::string(key));
  request.set_consistent(consistent);
  v1::GetEntriesResponse response;
  SH_RETURN_IF_ERROR(Call("GetEntries", request, &response, Retry::kSafe));
  std::unordered_map<std::string_view, const v1::Entry*> by_key;
  for (const v1::Entry& entry : response.entries()) by_key[entry.key()] = &entry;
  entries->clear();
  for (const std::string_view key : keys) {
    const auto found = by_key.find(key);
    entries->push_back(found == by_key.end() ? NetworkEntry() : FromEntry(*found->second));
    entries->back().key = std::string(key);
  }
  return Status();
}

Status NetworkDict::SetMany(std::span<const DictOperation> sets, std::vector<uint64_t>* versions) {
  v1::SetEntriesRequest request;
  request.set_name(name_);
  for (const DictOperation& set : sets) {
    v1::Entry* const entry = request.add_entries();
    entry->set_key(std::string(set.key));
    SetValue(set.value, entry->mutable_value());
  }
  if (!sets.empty()) {
    SetTtl(sets.front().set.ttl, &request);
    request.set_fence(sets.front().set.fence);
    request.set_bind_session(sets.front().set.bind_session);
  }
  v1::SetEntriesResponse response;
  SH_RETURN_IF_ERROR(CallOnce("SetEntries", &request, &response));
  versions->assign(response.versions().begin(), response.versions().end());
  return Status();
}

Status NetworkDict::Scan(std::string_view prefix, uint32_t limit, std::string* page_token,
                         std::vector<NetworkEntry>* entries) {
  v1::ScanEntriesRequest request;
  request.set_name(name_);
  request.set_prefix(std::string(prefix));
  request.set_page_size(limit);
  request.set_page_token(*page_token);
  v1::ScanEntriesResponse response;
  SH_RETURN_IF_ERROR(Call("ScanEntries", request, &response, Retry::kSafe));
  entries->clear();
  for (const v1::Entry& entry : response.entries()) entries->push_back(FromEntry(entry));
  *page_token = response.next_page_token();
  return Status();
}

Status NetworkDict::Transact(std::span<const DictCompare> compares,
                             std::span<const DictOperation> then,
                             std::span<const DictOperation> otherwise,
                             NetworkTransactionResult* result) {
  v1::TransactDictRequest request;
  request.set_name(name_);
  for (const DictCompare& compare : compares) {
    v1::Compare* const added = request.add_compares();
    added->set_key(std::string(compare.key));
    SetCondition(compare.condition, added);
  }
  for (const DictOperation& step : then) SetStep(step, request.add_then_steps());
  for (const DictOperation& step : otherwise) SetStep(step, request.add_else_steps());
  v1::TransactDictResponse response;
  SH_RETURN_IF_ERROR(CallOnce("TransactDict", &request, &response));
  result->compared = response.compared();
  for (const v1::StepResult& each : response.results()) {
    NetworkEntry& entry = result->entries.emplace_back();
    if (each.has_value()) {
      entry.found = true;
      entry.wire = each.value().SerializeAsString();
      entry.version = each.version();
    } else if (each.has_entry()) {
      entry = FromEntry(each.entry());
    }
    result->versions.push_back(each.version());
  }
  const size_t steps = result->compared ? then.size() : otherwise.size();
  if (result->entries.size() == steps) return Status();
  return Status(Reason::kInternal, "dict \"" + name_ + "\": the service gave " +
                                       std::to_string(result->entries.size()) + " results of " +
                                       std::to_string(steps) + " steps");
}

Status NetworkDict::Clear(uint64_t* deleted) {
  v1::ClearDictRequest request;
  request.set_name(name_);
  v1::ClearDictResponse response;
  SH_RETURN_IF_ERROR(Call("ClearDict", request, &response, Retry::kNever));
  *deleted = response.deleted();
  return Status();
}

Status NetworkDict::DeletePrefix(std::string_view prefix, uint64_t* deleted) {
  v1::DeletePrefixRequest request;
  request.set_name(name_);
  request.set_prefix(std::string(prefix));
  v1::DeletePrefixResponse response;
  SH_RETURN_IF_ERROR(Call("DeletePrefix", request, &response, Retry::kNever));
  *deleted = response.deleted();
  return Status();
}

StatusOr<uint64_t> NetworkDict::Length() {
  v1::DescribeDictRequest request;
  request.set_name(name_);
  v1::DescribeDictResponse response;
  SH_RETURN_IF_ERROR(Call("DescribeDict", request, &response, Retry::kSafe));
  return response.dict().entries();
}

}  // namespace statehouse
