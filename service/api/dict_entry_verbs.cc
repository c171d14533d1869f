// Verbs on one entry.
#include <string>

#include "service/api/dict_fields.h"
#include "service/api/dict_verbs.h"

namespace statehouse {
namespace {

// Where a verb keeps the bytes of what it was given.
struct Scratch {
  std::string value;
  std::string condition;
  DictEntry entry;
};

// Reused by each thread of a door: a hot call then allocates nothing for them.
Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

// As many tries of an optimistic edit as a door's own thread may spend.
constexpr int kFastEdits = 16;
constexpr int kSlowEdits = 1000;

// What a set or a delete did, with the entry before it where it was asked for.
template <typename Request, typename Response>
Status Answer(const Dict& dict, const Request& request, const DictResult& result,
              const DictEntry& previous, Response* response) {
  response->set_applied(result.applied);
  response->set_version(result.version);
  if (!request.return_previous() || !result.existed) return Status();
  response->mutable_previous()->set_key(request.key());
  return FromEntry(dict, previous, response->mutable_previous());
}

template <typename Request, typename Response>
Status AnswerAgain(const Dict& dict, const Request& request, const DictRemembered& remembered,
                   Response* response) {
  return Answer(dict, request, remembered.result, remembered.previous, response);
}

// Carries out an edit, or tells again what it did: from the value that it found then.
Status EditOnce(const VerbContext& context, Dict& dict, const std::string& key,
                const EntryEdit& edit, EntryEditResult* result) {
  OnceGuard once;
  bool known = false;
  SH_RETURN_IF_ERROR(once.Begin(context, dict, edit.operation, &known));
  if (!known) return EditDictEntry(dict, context.lane, key, edit, result);
  const DictRemembered& remembered = once.remembered();
  result->before = remembered.has_previous
                       ? std::string(WireOf(remembered.previous, &result->storage))
                       : std::string();
  result->version = remembered.result.version;
  std::string next;
  return EditValue(result->before, edit.path, edit.edit, &next, &result->edit);
}

}  // namespace

Status GetEntry(const VerbContext& context, const v1::GetEntryRequest& request,
                v1::GetEntryResponse* response) {
  SH_RETURN_IF_ERROR(CheckEntryKey(request.key()));
  SH_ASSIGN_OR_RETURN(const std::vector<PathStep> path, ToPath(request.path_steps()));
  return WithDict(context, request.name(), Verb::kRead, [&](Dict& dict) -> Status {
    Scratch& scratch = ThreadScratch();
    bool found = false;
    std::string_view part;
    if (path.empty()) {
      SH_RETURN_IF_ERROR(
          dict.Get(request.key(), &scratch.entry, &found, context.lane.operation_timeout_ns));
    } else {
      SH_RETURN_IF_ERROR(GetPart(dict, request.key(), path, &scratch.entry, &scratch.value, &found,
                                 &part, context.lane.operation_timeout_ns));
    }
    response->Clear();
    if (!found) return Status();
    v1::Entry* const entry = response->mutable_entry();
    entry->set_key(request.key());
    return path.empty() ? FromEntry(dict, scratch.entry, entry)
                        : FromPart(dict, scratch.entry, part, entry);
  });
}

Status SetEntry(const VerbContext& context, const v1::SetEntryRequest& request,
                v1::SetEntryResponse* response) {
  SH_RETURN_IF_ERROR(CheckEntryKey(request.key()));
  Scratch& scratch = ThreadScratch();
  SH_ASSIGN_OR_RETURN(const DictValue value, ToDictValue(request.value(), "value", &scratch.value));
  DictSetOptions options;
  SH_ASSIGN_OR_RETURN(options.condition, ToCondition(request.condition(), &scratch.condition));
  SH_ASSIGN_OR_RETURN(options.ttl, ToTtl(request.ttl()));
  options.fence = request.fence();
  options.bind_session = request.bind_session();
  if (request.return_previous()) options.previous = &scratch.entry;
  SH_ASSIGN_OR_RETURN(options.operation,
                      ToOperationId(request.has_operation_id(), request.operation_id()));
  return WithDict(context, request.name(), Verb::kWrite, [&](Dict& dict) -> Status {
    OnceGuard once;
    bool known = false;
    SH_RETURN_IF_ERROR(once.Begin(context, dict, options.operation, &known));
    if (known) return AnswerAgain(dict, request, once.remembered(), response);
    SH_RETURN_IF_ERROR(BindingGuard::Check(context, options.bind_session));
    BindingGuard binding;
    SH_RETURN_IF_ERROR(binding.Begin(context, dict, request.key(), options.bind_session));
    DictResult result;
    SH_RETURN_IF_ERROR(dict.Set(context.lane, request.key(), value, options, &result));
    binding.End(result.applied);
    return Answer(dict, request, result, scratch.entry, response);
  });
}

Status DeleteEntry(const VerbContext& context, const v1::DeleteEntryRequest& request,
                   v1::DeleteEntryResponse* response) {
  SH_RETURN_IF_ERROR(CheckEntryKey(request.key()));
  Scratch& scratch = ThreadScratch();
  DictDeleteOptions options;
  SH_ASSIGN_OR_RETURN(options.condition, ToCondition(request.condition(), &scratch.condition));
  options.fence = request.fence();
  if (request.return_previous()) options.previous = &scratch.entry;
  SH_ASSIGN_OR_RETURN(options.operation,
                      ToOperationId(request.has_operation_id(), request.operation_id()));
  return WithDict(context, request.name(), Verb::kWrite, [&](Dict& dict) -> Status {
    OnceGuard once;
    bool known = false;
    SH_RETURN_IF_ERROR(once.Begin(context, dict, options.operation, &known));
    if (known) return AnswerAgain(dict, request, once.remembered(), response);
    DictResult result;
    SH_RETURN_IF_ERROR(dict.Delete(context.lane, request.key(), options, &result));
    return Answer(dict, request, result, scratch.entry, response);
  });
}

namespace {

StatusOr<Number> NumberOf(const DictValue& value) {
  if (value.kind == DictKind::kInt64) return Number::Int(static_cast<int64_t>(value.bits));
  return Number::Float(std::bit_cast<double>(value.bits));
}

// A number inside a value: an edit.
Status IncrementAtPath(const VerbContext& context, const v1::IncrementEntryRequest& request,
                       std::span<const PathStep> path, const DictIncrement& increment,
                       v1::IncrementEntryResponse* response) {
  EntryEdit edit;
  edit.path = path;
  edit.edit.kind = EditKind::kIncrement;
  SH_ASSIGN_OR_RETURN(edit.edit.delta, NumberOf(increment.delta));
  if (!request.must_exist()) {
    SH_ASSIGN_OR_RETURN(edit.edit.initial, NumberOf(increment.initial));
  }
  if (request.has_min()) {
    SH_ASSIGN_OR_RETURN(edit.edit.min, NumberOf(increment.min));
  }
  if (request.has_max()) {
    SH_ASSIGN_OR_RETURN(edit.edit.max, NumberOf(increment.max));
  }
  edit.fence = request.fence();
  edit.operation = increment.operation;
  edit.attempts_max = context.fast ? kFastEdits : kSlowEdits;
  return WithDict(context, request.name(), Verb::kWrite, [&](Dict& dict) -> Status {
    EntryEditResult result;
    SH_RETURN_IF_ERROR(EditOnce(context, dict, request.key(), edit, &result));
    const Number& number = result.edit.number;
    if (number.is_float) {
      response->mutable_value()->set_float_value(number.real);
    } else {
      response->mutable_value()->set_int_value(number.integer);
    }
    response->set_version(result.version);
    return Status();
  });
}

}  // namespace

Status IncrementEntry(const VerbContext& context, const v1::IncrementEntryRequest& request,
                      v1::IncrementEntryResponse* response) {
  SH_RETURN_IF_ERROR(CheckEntryKey(request.key()));
  SH_ASSIGN_OR_RETURN(const std::vector<PathStep> path, ToPath(request.path_steps()));
  DictIncrement increment;
  SH_RETURN_IF_ERROR(ToIncrement(
      {request.has_delta() ? &request.delta() : nullptr,
       request.has_initial() ? &request.initial() : nullptr,
       request.has_min() ? &request.min() : nullptr, request.has_max() ? &request.max() : nullptr},
      &increment));
  SH_ASSIGN_OR_RETURN(increment.ttl, ToTtl(request.ttl()));
  increment.must_exist = request.must_exist();
  increment.fence = request.fence();
  SH_ASSIGN_OR_RETURN(increment.operation,
                      ToOperationId(request.has_operation_id(), request.operation_id()));
  if (!path.empty()) return IncrementAtPath(context, request, path, increment, response);
  return WithDict(context, request.name(), Verb::kWrite, [&](Dict& dict) -> Status {
    OnceGuard once;
    bool known = false;
    SH_RETURN_IF_ERROR(once.Begin(context, dict, increment.operation, &known));
    DictResult result = once.remembered().result;
    if (!known) {
      SH_RETURN_IF_ERROR(dict.Increment(context.lane, request.key(), increment, &result));
    }
    FromNumber(result.kind, result.bits, response->mutable_value());
    response->set_version(result.version);
    return Status();
  });
}

Status EditEntry(const VerbContext& context, const v1::EditEntryRequest& request,
                 v1::EditEntryResponse* response) {
  SH_RETURN_IF_ERROR(CheckEntryKey(request.key()));
  SH_ASSIGN_OR_RETURN(const std::vector<PathStep> path, ToPath(request.path_steps()));
  EntryEdit edit;
  edit.path = path;
  Scratch& scratch = ThreadScratch();
  SH_RETURN_IF_ERROR(ToEdit(request, &edit, &scratch.value));
  edit.if_version = request.if_version();
  edit.fence = request.fence();
  SH_ASSIGN_OR_RETURN(edit.operation,
                      ToOperationId(request.has_operation_id(), request.operation_id()));
  edit.create = request.create_parents();
  edit.attempts_max = context.fast ? kFastEdits : kSlowEdits;
  return WithDict(context, request.name(), Verb::kWrite, [&](Dict& dict) -> Status {
    EntryEditResult result;
    SH_RETURN_IF_ERROR(EditOnce(context, dict, request.key(), edit, &result));
    response->set_version(result.version);
    response->set_length(result.edit.length);
    const bool gives_removed = request.edit().kind_case() == v1::Edit::kPop ||
                               request.edit().kind_case() == v1::Edit::kDelete;
    if (gives_removed && !result.edit.removed.empty()) {
      return FromWire(result.edit.removed, response->mutable_result());
    }
    if (request.edit().kind_case() == v1::Edit::kSetDefault) {
      return FromWire(result.edit.changed ? std::string_view(scratch.value) : result.edit.found,
                      response->mutable_result());
    }
    return Status();
  });
}

Status TouchEntry(const VerbContext& context, const v1::TouchEntryRequest& request,
                  v1::TouchEntryResponse* response) {
  SH_RETURN_IF_ERROR(CheckEntryKey(request.key()));
  if (request.ttl().kind_case() == v1::Ttl::KIND_NOT_SET) {
    return Status(Reason::kInvalidArgument, "field ttl: it is missing");
  }
  DictSetOptions options;
  SH_ASSIGN_OR_RETURN(options.ttl, ToTtl(request.ttl()));
  SH_ASSIGN_OR_RETURN(options.operation,
                      ToOperationId(request.has_operation_id(), request.operation_id()));
  return WithDict(context, request.name(), Verb::kWrite, [&](Dict& dict) -> Status {
    Scratch& scratch = ThreadScratch();
    OnceGuard once;
    bool known = false;
    SH_RETURN_IF_ERROR(once.Begin(context, dict, options.operation, &known));
    if (known) {
      response->set_applied(true);
      response->set_version(once.remembered().result.version);
      return Status();
    }
    const int attempts = context.fast ? kFastEdits : kSlowEdits;
    for (int attempt = 0; attempt < attempts; ++attempt) {
      bool found = false;
      SH_RETURN_IF_ERROR(
          dict.Get(request.key(), &scratch.entry, &found, context.lane.operation_timeout_ns));
      if (!found) {
        response->set_applied(false);
        return Status();
      }
      options.condition.kind = DictCondition::Kind::kVersion;
      options.condition.version = scratch.entry.version;
      options.bind_session = scratch.entry.bound_session;
      DictResult result;
      SH_RETURN_IF_ERROR(
          dict.Set(context.lane, request.key(), scratch.entry.value(), options, &result));
      response->set_applied(result.applied);
      response->set_version(result.version);
      if (result.applied) return Status();
    }
    return Status(Reason::kStalled, "dict \"" + dict.name() + "\": touching key \"" +
                                        request.key() + "\": others change it all the time");
  });
}

}  // namespace statehouse
