// The part of the C interface that concerns one entry of a dict: check what the caller gave, then
// the local door or the network door.
#include <string>

#include "clients/c/src/dict_handle.h"
#include "engine/value/value_writer.h"

namespace statehouse {
namespace {

Status Get(sh_dict* dict, sh_bytes c_key, const sh_path_step* c_path, size_t steps,
           sh_entry* entry) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  if (entry == nullptr) return Status(Reason::kInvalidArgument, "the entry is NULL");
  SH_ASSIGN_OR_RETURN(const std::string_view key, ToBytes(c_key, "key"));
  SH_ASSIGN_OR_RETURN(const std::vector<PathStep> path, ToPath(c_path, steps));
  if (dict->local != nullptr) {
    SH_RETURN_IF_ERROR(dict->local->GetWire(key, path, &ValueOf(entry)));
    ShowLocal(*dict->local, entry);
    return Status();
  }
  SH_RETURN_IF_ERROR(ToKey(c_key).status());
  NetworkEntry found;
  SH_RETURN_IF_ERROR(dict->network->Get(key, path, &found));
  ShowNetwork(std::move(found), entry);
  return Status();
}

StatusOr<EntryWait> ToEntryWait(const sh_entry_wait& from) {
  EntryWait wait;
  SH_ASSIGN_OR_RETURN(wait.path, ToPath(from.path, from.steps));
  wait.version = from.version;
  switch (from.kind) {
    case SH_WAIT_PRESENT: wait.kind = EntryWait::Kind::kPresent; break;
    case SH_WAIT_ABSENT: wait.kind = EntryWait::Kind::kAbsent; break;
    case SH_WAIT_VERSION_ABOVE: wait.kind = EntryWait::Kind::kVersionAbove; break;
    case SH_WAIT_VERSION_DIFFERS: wait.kind = EntryWait::Kind::kVersionDiffers; break;
    case SH_WAIT_VALUE: {
      wait.kind = EntryWait::Kind::kValue;
      SH_ASSIGN_OR_RETURN(const DictValue value, ToValue(from.value, "value"));
      DictEntry entry;
      entry.kind = value.kind;
      entry.bits = value.bits;
      entry.bytes = value.bytes;
      std::string number;
      wait.value = WireOf(entry, &number);
      break;
    }
    default:
      return Status(
          Reason::kInvalidArgument,
          "kind " + std::to_string(static_cast<int>(from.kind)) + " is none of SH_WAIT_*");
  }
  SH_RETURN_IF_ERROR(CheckEntryWait(wait));
  return wait;
}

Status Wait(sh_dict* dict, sh_bytes c_key, const sh_entry_wait* c_wait, int* met, sh_entry* entry) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  if (c_wait == nullptr) return Status(Reason::kInvalidArgument, "the wait is NULL");
  SH_ASSIGN_OR_RETURN(const std::string_view key, ToKey(c_key));
  SH_ASSIGN_OR_RETURN(const EntryWait wait, ToEntryWait(*c_wait));
  const Deadline deadline = DeadlineAfterMs(c_wait->timeout_ms);
  bool is_met = false;
  if (dict->local != nullptr) {
    LocalValue own;
    LocalValue& value = entry != nullptr ? ValueOf(entry) : own;
    SH_RETURN_IF_ERROR(dict->local->Wait(key, wait, deadline, &is_met, &value));
    if (entry != nullptr) ShowLocal(*dict->local, entry);
  } else {
    NetworkEntry found;
    SH_RETURN_IF_ERROR(dict->network->Wait(key, wait, deadline, &is_met, &found));
    if (entry != nullptr) ShowNetwork(std::move(found), entry);
  }
  if (met != nullptr) *met = is_met ? 1 : 0;
  return Status();
}

// What stands in the memory of a local mutation's `previous` becomes what the caller sees.
void ShowPrevious(const LocalDict& dict, bool existed, sh_entry* previous) {
  LocalValue& value = ValueOf(previous);
  value.found = existed;
  value.wire = existed ? WireOf(value.entry, &value.storage) : std::string_view();
  ShowLocal(dict, previous);
}

Status Set(sh_dict* dict, sh_bytes c_key, const DictValue& value, const sh_write_options* c_options,
           DictResult* result, sh_entry* previous) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  SH_ASSIGN_OR_RETURN(const std::string_view key, ToKey(c_key));
  SH_ASSIGN_OR_RETURN(DictSetOptions options, ToSetOptions(c_options));
  const bool binds = options.bind_session != 0;
  if (dict->local != nullptr && !binds) {
    if (previous != nullptr) options.previous = &ValueOf(previous).entry;
    SH_RETURN_IF_ERROR(dict->local->Set(key, value, options, result));
    if (previous != nullptr) ShowPrevious(*dict->local, result->existed, previous);
    return Status();
  }
  NetworkEntry before;
  const auto call = [&](uint64_t session_id) {
    options.bind_session = session_id;
    return dict->network->Set(key, value, options, result, previous != nullptr ? &before : nullptr);
  };
  SH_RETURN_IF_ERROR(binds ? WithSession(*dict, call) : call(0));
  if (previous != nullptr) ShowNetwork(std::move(before), previous);
  return Status();
}

Status Delete(sh_dict* dict, sh_bytes c_key, const sh_write_options* c_options, DictResult* result,
              sh_entry* previous) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  SH_ASSIGN_OR_RETURN(const std::string_view key, ToKey(c_key));
  SH_ASSIGN_OR_RETURN(DictDeleteOptions options, ToDeleteOptions(c_options));
  if (dict->local != nullptr) {
    if (previous != nullptr) options.previous = &ValueOf(previous).entry;
    SH_RETURN_IF_ERROR(dict->local->Delete(key, options, result));
    if (previous != nullptr) ShowPrevious(*dict->local, result->existed, previous);
    return Status();
  }
  NetworkEntry before;
  SH_RETURN_IF_ERROR(
      dict->network->Delete(key, options, result, previous != nullptr ? &before : nullptr));
  if (previous != nullptr) ShowNetwork(std::move(before), previous);
  return Status();
}

Status Touch(sh_dict* dict, sh_bytes c_key, uint64_t ttl_ms, DictResult* result) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  SH_ASSIGN_OR_RETURN(const std::string_view key, ToKey(c_key));
  const DictTtl ttl = ToTtl(ttl_ms);
  if (ttl.kind == DictTtl::Kind::kDefault) {
    return Status(Reason::kInvalidArgument,
                  "sh_dict_touch: ttl_ms is 0; give milliseconds or SH_FOREVER");
  }
  return dict->local != nullptr ? dict->local->Touch(key, ttl, result)
                                : dict->network->Touch(key, ttl, result);
}

Number NumberOf(const DictValue& value) {
  if (value.kind == DictKind::kInt64) return Number::Int(static_cast<int64_t>(value.bits));
  return Number::Float(std::bit_cast<double>(value.bits));
}

// A number inside a value: an edit.
Status IncrementAtPath(LocalDict& dict, std::string_view key, std::span<const PathStep> path,
                       const DictIncrement& increment, const sh_increment_options& options,
                       DictResult* result) {
  EntryEdit edit;
  edit.path = path;
  edit.edit.kind = EditKind::kIncrement;
  edit.edit.delta = NumberOf(increment.delta);
  if (!increment.must_exist) edit.edit.initial = NumberOf(increment.initial);
  if (options.min != nullptr) edit.edit.min = NumberOf(increment.min);
  if (options.max != nullptr) edit.edit.max = NumberOf(increment.max);
  edit.fence = increment.fence;
  EntryEditResult edited;
  SH_RETURN_IF_ERROR(dict.Edit(key, edit, &edited));
  const Number& number = edited.edit.number;
  result->kind = number.is_float ? DictKind::kFloat64 : DictKind::kInt64;
  result->bits = number.is_float ? std::bit_cast<uint64_t>(number.real)
                                 : static_cast<uint64_t>(number.integer);
  result->version = edited.version;
  return Status();
}

Status Increment(sh_dict* dict, sh_bytes c_key, sh_number delta,
                 const sh_increment_options* c_options, DictResult* result) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  SH_ASSIGN_OR_RETURN(const std::string_view key, ToKey(c_key));
  const sh_increment_options options = c_options != nullptr ? *c_options : sh_increment_options{};
  SH_ASSIGN_OR_RETURN(const std::vector<PathStep> path, ToPath(options.path, options.steps));
  SH_ASSIGN_OR_RETURN(const DictIncrement increment, ToIncrement(delta, options));
  if (dict->local == nullptr) return dict->network->Increment(key, path, increment, result);
  if (path.empty()) return dict->local->Increment(key, increment, result);
  return IncrementAtPath(*dict->local, key, path, increment, options, result);
}

struct EditKinds {
  EditKind engine;
  v1::Edit::KindCase message;
  bool takes_value;  // As wire bytes.
};

std::optional<EditKinds> KindsOf(sh_edit_kind kind) {
  switch (kind) {
    case SH_EDIT_SET: return EditKinds{EditKind::kSet, v1::Edit::kSet, true};
    case SH_EDIT_DELETE: return EditKinds{EditKind::kDelete, v1::Edit::kDelete, false};
    case SH_EDIT_APPEND: return EditKinds{EditKind::kAppend, v1::Edit::kAppend, true};
    case SH_EDIT_EXTEND: return EditKinds{EditKind::kExtend, v1::Edit::kExtend, true};
    case SH_EDIT_INSERT: return EditKinds{EditKind::kInsert, v1::Edit::kInsert, true};
    case SH_EDIT_POP: return EditKinds{EditKind::kPop, v1::Edit::kPop, false};
    case SH_EDIT_REMOVE: return EditKinds{EditKind::kRemoveValue, v1::Edit::kRemove, true};
    case SH_EDIT_MERGE: return EditKinds{EditKind::kMergeMap, v1::Edit::kMerge, true};
    case SH_EDIT_CLEAR: return EditKinds{EditKind::kClear, v1::Edit::kClear, false};
    case SH_EDIT_SLICE: return EditKinds{EditKind::kSetSlice, v1::Edit::kSlice, true};
    case SH_EDIT_SET_DEFAULT: return EditKinds{EditKind::kSetDefault, v1::Edit::kSetDefault, true};
    case SH_EDIT_APPEND_STRING:
      return EditKinds{EditKind::kStringAppend, v1::Edit::kAppendString, false};
    case SH_EDIT_APPEND_BYTES:
      return EditKinds{EditKind::kBytesAppend, v1::Edit::kAppendBytes, false};
  }
  return std::nullopt;
}

// What the edit's value must be, beside well formed: the network door has other messages for these.
Status CheckOperand(sh_edit_kind kind, std::string_view value) {
  const ValueKind is = ValueView(value).kind();
  const bool needs_list = kind == SH_EDIT_EXTEND || kind == SH_EDIT_SLICE;
  if (needs_list && is != ValueKind::kList) {
    return Status(Reason::kInvalidArgument, "edit.value: it is no list");
  }
  if (kind == SH_EDIT_MERGE && is != ValueKind::kMap) {
    return Status(Reason::kInvalidArgument, "edit.value: it is no map");
  }
  return Status();
}

Status ToEdit(const sh_edit& from, const EditKinds& kinds, std::span<const PathStep> path,
              EntryEdit* to) {
  to->path = path;
  to->create = from.create_parents != 0;
  to->if_version = from.if_version;
  to->fence = from.fence;
  to->edit.kind = kinds.engine;
  to->edit.start = from.start;
  if (kinds.engine == EditKind::kSetSlice) to->edit.stop = from.stop;
  to->edit.create_parents = from.create_parents != 0;
  to->edit.create_missing = from.create_parents != 0;
  SH_ASSIGN_OR_RETURN(to->edit.value, ToBytes(from.value, "edit.value"));
  if (!kinds.takes_value) return Status();
  if (const Status checked = CheckValue(to->edit.value); !checked.ok()) {
    return Status(checked.reason(), "edit.value: " + checked.message());
  }
  return CheckOperand(from.kind, to->edit.value);
}

// What the edit gives back, in the memory of `result`.
void ShowEdited(const EntryEditResult& edited, const EntryEdit& edit, sh_entry* result) {
  LocalValue& value = ValueOf(result);
  std::string_view wire;
  if (edit.edit.kind == EditKind::kPop || edit.edit.kind == EditKind::kDelete) {
    wire = edited.edit.removed;
  } else if (edit.edit.kind == EditKind::kSetDefault) {
    wire = edited.edit.changed ? edit.edit.value : edited.edit.found;
  }
  value.storage.assign(wire);
  result->found = !wire.empty();
  result->value = FromBytes(value.storage);
}

Status CarryOut(sh_dict* dict, sh_bytes c_key, const sh_edit* c_edit, sh_entry* result,
                uint64_t* length, uint64_t* version) {
  SH_RETURN_IF_ERROR(CheckDict(dict));
  if (c_edit == nullptr) return Status(Reason::kInvalidArgument, "the edit is NULL");
  SH_ASSIGN_OR_RETURN(const std::string_view key, ToKey(c_key));
  SH_ASSIGN_OR_RETURN(const std::vector<PathStep> path, ToPath(c_edit->path, c_edit->steps));
  const std::optional<EditKinds> kinds = KindsOf(c_edit->kind);
  if (!kinds.has_value()) {
    return Status(
        Reason::kInvalidArgument,
        "edit.kind " + std::to_string(static_cast<int>(c_edit->kind)) + " is none of SH_EDIT_*");
  }
  EntryEdit edit;
  SH_RETURN_IF_ERROR(ToEdit(*c_edit, *kinds, path, &edit));
  if (result != nullptr) {
    ValueOf(result);  // Made before anything changes.
    sh_entry_memory* const memory = result->memory;
    *result = sh_entry{};
    result->memory = memory;
  }
  if (dict->local != nullptr) {
    EntryEditResult edited;
    SH_RETURN_IF_ERROR(dict->local->Edit(key, edit, &edited));
    if (result != nullptr) ShowEdited(edited, edit, result);
    *length = edited.edit.length;
    *version = edited.version;
  } else {
    NetworkEditResult edited;
    SH_RETURN_IF_ERROR(dict->network->Edit(key, kinds->message, edit, &edited));
    if (result != nullptr) {
      result->found = !edited.wire.empty();
      ValueOf(result).storage = std::move(edited.wire);
      result->value = FromBytes(ValueOf(result).storage);
    }
    *length = edited.length;
    *version = edited.version;
  }
  if (result != nullptr) {
    result->version = *version;
    result->ttl_ms = SH_FOREVER;
  }
  return Status();
}

// The usual cases without messages.

Status SetOrConflict(sh_dict* dict, sh_bytes key, const DictValue& value,
                     const sh_write_options* options) {
  DictResult result;
  SH_RETURN_IF_ERROR(Set(dict, key, value, options, &result, nullptr));
  if (result.applied) return Status();
  return Status(Reason::kConflict, "dict \"" + dict->name +
                                       "\": the condition does not hold; the entry has version " +
                                       std::to_string(result.version));
}

Status SetString(sh_dict* dict, sh_bytes key, sh_bytes c_text, const sh_write_options* options) {
  SH_ASSIGN_OR_RETURN(const std::string_view text, ToBytes(c_text, "text"));
  std::string wire;
  ValueWriter writer(&wire);
  writer.String(text);
  SH_RETURN_IF_ERROR(writer.Finish());
  SH_ASSIGN_OR_RETURN(const DictValue value, ToValue(FromBytes(wire), "text"));
  return SetOrConflict(dict, key, value, options);
}

Status GetNumber(sh_dict* dict, sh_bytes key, ValueKind kind, sh_number* number) {
  sh_entry entry{};
  Status status = Get(dict, key, nullptr, 0, &entry);
  const ValueView view(
      entry.found ? std::string_view(static_cast<const char*>(entry.value.data), entry.value.size)
                  : std::string_view());
  if (status.ok() && !entry.found) {
    status = Status(Reason::kKeyNotFound, "dict \"" + dict->name + "\": there is no such key");
  } else if (status.ok() && view.kind() != kind) {
    status = Status(Reason::kTypeMismatch, "dict \"" + dict->name +
                                               "\": the entry holds a value of kind " +
                                               std::string(ValueKindName(view.kind())) + ", not " +
                                               std::string(ValueKindName(kind)));
  } else if (status.ok()) {
    *number = kind == ValueKind::kInt ? sh_int(view.AsInt()) : sh_double(view.AsFloat());
  }
  sh_entry_free(&entry);
  return status;
}

sh_reason FinishWith(const Status& status, const DictResult& result, const sh_dict* dict,
                     sh_outcome* outcome, sh_error** error) {
  if (status.ok() && outcome != nullptr) *outcome = {result.applied, result.version};
  return Finish(status, NameOf(dict), error);
}

}  // namespace
}  // namespace statehouse

using statehouse::DictResult;
using statehouse::DictValue;
using statehouse::Finish;
using statehouse::NameOf;
using statehouse::Status;

sh_reason sh_dict_get(sh_dict* dict, sh_bytes key, const sh_path_step* path, size_t steps,
                      sh_entry* entry, sh_error** error) {
  return Finish(statehouse::Get(dict, key, path, steps, entry), NameOf(dict), error);
}

sh_reason sh_dict_wait(sh_dict* dict, sh_bytes key, const sh_entry_wait* wait, int* met,
                       sh_entry* entry, sh_error** error) {
  return Finish(statehouse::Wait(dict, key, wait, met, entry), NameOf(dict), error);
}

sh_reason sh_dict_set(sh_dict* dict, sh_bytes key, sh_bytes value, const sh_write_options* options,
                      sh_outcome* outcome, sh_entry* previous, sh_error** error) {
  DictResult result;
  const auto checked = statehouse::ToValue(value, "value");
  const Status status = checked.ok()
                            ? statehouse::Set(dict, key, *checked, options, &result, previous)
                            : checked.status();
  return statehouse::FinishWith(status, result, dict, outcome, error);
}

sh_reason sh_dict_delete_entry(sh_dict* dict, sh_bytes key, const sh_write_options* options,
                               sh_outcome* outcome, sh_entry* previous, sh_error** error) {
  DictResult result;
  const Status status = statehouse::Delete(dict, key, options, &result, previous);
  return statehouse::FinishWith(status, result, dict, outcome, error);
}

sh_reason sh_dict_touch(sh_dict* dict, sh_bytes key, uint64_t ttl_ms, sh_outcome* outcome,
                        sh_error** error) {
  DictResult result;
  const Status status = statehouse::Touch(dict, key, ttl_ms, &result);
  return statehouse::FinishWith(status, result, dict, outcome, error);
}

sh_reason sh_dict_increment(sh_dict* dict, sh_bytes key, sh_number delta,
                            const sh_increment_options* options, sh_number* sum, uint64_t* version,
                            sh_error** error) {
  DictResult result;
  const Status status = statehouse::Increment(dict, key, delta, options, &result);
  if (status.ok() && sum != nullptr) *sum = statehouse::FromBits(result.kind, result.bits);
  if (status.ok() && version != nullptr) *version = result.version;
  return Finish(status, NameOf(dict), error);
}

sh_reason sh_dict_edit(sh_dict* dict, sh_bytes key, const sh_edit* edit, sh_entry* result,
                       uint64_t* length, uint64_t* version, sh_error** error) {
  uint64_t new_length = 0;
  uint64_t new_version = 0;
  const Status status = statehouse::CarryOut(dict, key, edit, result, &new_length, &new_version);
  if (status.ok() && length != nullptr) *length = new_length;
  if (status.ok() && version != nullptr) *version = new_version;
  return Finish(status, NameOf(dict), error);
}

sh_reason sh_dict_set_int(sh_dict* dict, sh_bytes key, int64_t value,
                          const sh_write_options* options, sh_error** error) {
  return Finish(statehouse::SetOrConflict(dict, key, DictValue::Int64(value), options),
                NameOf(dict), error);
}

sh_reason sh_dict_set_double(sh_dict* dict, sh_bytes key, double value,
                             const sh_write_options* options, sh_error** error) {
  return Finish(statehouse::SetOrConflict(dict, key, DictValue::Float64(value), options),
                NameOf(dict), error);
}

sh_reason sh_dict_set_string(sh_dict* dict, sh_bytes key, sh_bytes text,
                             const sh_write_options* options, sh_error** error) {
  return Finish(statehouse::SetString(dict, key, text, options), NameOf(dict), error);
}

sh_reason sh_dict_get_int(sh_dict* dict, sh_bytes key, int64_t* value, sh_error** error) {
  sh_number number{};
  const Status status = statehouse::GetNumber(dict, key, statehouse::ValueKind::kInt, &number);
  if (status.ok() && value != nullptr) *value = number.integer;
  return Finish(status, NameOf(dict), error);
}

sh_reason sh_dict_get_double(sh_dict* dict, sh_bytes key, double* value, sh_error** error) {
  sh_number number{};
  const Status status = statehouse::GetNumber(dict, key, statehouse::ValueKind::kFloat, &number);
  if (status.ok() && value != nullptr) *value = number.real;
  return Finish(status, NameOf(dict), error);
}

sh_reason sh_dict_add(sh_dict* dict, sh_bytes key, int64_t delta, int64_t* sum, sh_error** error) {
  DictResult result;
  const Status status = statehouse::Increment(dict, key, sh_int(delta), nullptr, &result);
  if (status.ok() && sum != nullptr) {
    *sum = sh_number_as_int(statehouse::FromBits(result.kind, result.bits));
  }
  return Finish(status, NameOf(dict), error);
}
