#include "service/api/dict_fields.h"

#include <bit>
#include <cmath>
#include <limits>
#include <map>

#include "engine/value/value.h"
#include "engine/value/wire.h"
#include "service/session/session_table.h"

namespace statehouse {
namespace {

// Longer lives are for ever in all but name: about 292 years.
constexpr int64_t kTtlSecondsMax = 9'223'372'036;

Status Refuse(Reason reason, const char* field, const std::string& why) {
  return Status(reason, std::string("field ") + field + ": " + why);
}

}  // namespace

Status CheckEntryKey(std::string_view key) {
  if (key.empty() || key.size() > kDictKeyBytesMax) {
    return Refuse(Reason::kKeyInvalid, "key",
                  std::to_string(key.size()) + " bytes; 1 to 1024 bytes of UTF-8 are allowed");
  }
  if (!internal::IsUtf8(key)) return Refuse(Reason::kKeyInvalid, "key", "it is not UTF-8");
  return Status();
}

StatusOr<DictValue> ToDictValue(const v1::Value& value, const char* field, std::string* storage) {
  switch (value.kind_case()) {
    case v1::Value::kIntValue: return DictValue::Int64(value.int_value());
    case v1::Value::kFloatValue: return DictValue::Float64(value.float_value());
    case v1::Value::KIND_NOT_SET:
      return Refuse(Reason::kValueInvalid, field, "it is missing; null is a value too");
    default: break;
  }
  if (!value.SerializeToString(storage)) {
    return Refuse(Reason::kValueInvalid, field, "it cannot be encoded");
  }
  if (const Status checked = CheckValue(*storage); !checked.ok()) {
    return Refuse(checked.reason(), field, checked.message());
  }
  return DictValue::Bytes(*storage);
}

StatusOr<DictValue> ToNumber(const v1::Value& value, const char* field) {
  if (value.has_int_value()) return DictValue::Int64(value.int_value());
  if (value.has_float_value()) return DictValue::Float64(value.float_value());
  return Refuse(Reason::kInvalidArgument, field, "use int_value or float_value");
}

StatusOr<DictCondition> ToCondition(const v1::Condition& condition, std::string* storage) {
  DictCondition result;
  const auto must_be_true = [](bool value, const char* field) {
    return value ? Status()
                 : Refuse(Reason::kInvalidArgument, field, "set it to true or leave it out");
  };
  switch (condition.kind_case()) {
    case v1::Condition::kAbsent:
      SH_RETURN_IF_ERROR(must_be_true(condition.absent(), "condition.absent"));
      result.kind = DictCondition::Kind::kAbsent;
      break;
    case v1::Condition::kPresent:
      SH_RETURN_IF_ERROR(must_be_true(condition.present(), "condition.present"));
      result.kind = DictCondition::Kind::kPresent;
      break;
    case v1::Condition::kVersion:
      result.kind = DictCondition::Kind::kVersion;
      result.version = condition.version();
      break;
    case v1::Condition::kValue: {
      result.kind = DictCondition::Kind::kValue;
      SH_ASSIGN_OR_RETURN(result.value, ToDictValue(condition.value(), "condition.value", storage));
      break;
    }
    case v1::Condition::KIND_NOT_SET: break;
  }
  return result;
}

StatusOr<uint64_t> ToMilliseconds(const google::protobuf::Duration& duration, const char* field) {
  if (duration.seconds() < 0 || duration.nanos() < 0 || duration.nanos() > 999'999'999 ||
      (duration.seconds() == 0 && duration.nanos() == 0)) {
    return Refuse(Reason::kInvalidArgument, field, "it must be longer than nothing");
  }
  if (duration.seconds() > kTtlSecondsMax) {
    return Refuse(Reason::kInvalidArgument, field,
                  "it is longer than 292 years; for ever is no ttl");
  }
  const uint64_t ms = static_cast<uint64_t>(duration.seconds()) * 1000 +
                      static_cast<uint64_t>(duration.nanos()) / 1'000'000;
  return std::max<uint64_t>(ms, 1);
}

StatusOr<DictTtl> ToTtl(const v1::Ttl& ttl) {
  switch (ttl.kind_case()) {
    case v1::Ttl::kDuration: {
      SH_ASSIGN_OR_RETURN(const uint64_t ms, ToMilliseconds(ttl.duration(), "ttl.duration"));
      return DictTtl{DictTtl::Kind::kSet, ms};
    }
    case v1::Ttl::kNone:
    case v1::Ttl::kKeep:
      if (!ttl.none() && !ttl.keep()) {
        return Refuse(Reason::kInvalidArgument, "ttl", "set none or keep to true");
      }
      return DictTtl{ttl.none() ? DictTtl::Kind::kNone : DictTtl::Kind::kKeep, 0};
    case v1::Ttl::KIND_NOT_SET: break;
  }
  return DictTtl();
}

StatusOr<std::vector<PathStep>> ToPath(
    const google::protobuf::RepeatedPtrField<v1::PathStep>& steps) {
  std::vector<PathStep> path;
  for (const v1::PathStep& step : steps) {
    switch (step.step_case()) {
      case v1::PathStep::kKey: path.push_back(PathStep::Key(step.key())); break;
      case v1::PathStep::kIndex: path.push_back(PathStep::Index(step.index())); break;
      case v1::PathStep::STEP_NOT_SET:
        return Refuse(Reason::kInvalidArgument, "path_steps", "a step is neither key nor index");
    }
  }
  SH_RETURN_IF_ERROR(CheckPath(path));
  return path;
}

Status FromWire(std::string_view wire, v1::Value* value) {
  if (value->ParseFromArray(wire.data(), static_cast<int>(wire.size())) &&
      value->kind_case() != v1::Value::KIND_NOT_SET) {
    return Status();
  }
  return Status(Reason::kDataLoss,
                "an entry holds bytes that are no value: a worker on the "
                "host stored them; set or delete it");
}

void FromNumber(DictKind kind, uint64_t bits, v1::Value* value) {
  if (kind == DictKind::kFloat64) {
    value->set_float_value(std::bit_cast<double>(bits));
  } else {
    value->set_int_value(static_cast<int64_t>(bits));
  }
}

Status FromDictValue(const DictEntry& entry, v1::Value* value) {
  if (entry.kind == DictKind::kBytes) return FromWire(entry.bytes, value);
  FromNumber(entry.kind, entry.bits, value);
  return Status();
}

namespace {

void SetFacts(const Dict& dict, const DictEntry& entry, v1::Entry* out) {
  out->set_version(entry.version);
  out->set_fence(entry.fence);
  out->set_ordinal(entry.ordinal);
  out->set_bound_session(entry.bound_session);
  if (entry.expires_ms == 0) return;
  const uint64_t now = dict.NowMs();
  const uint64_t left = entry.expires_ms > now ? entry.expires_ms - now : 0;
  out->mutable_ttl()->set_seconds(static_cast<int64_t>(left / 1000));
  out->mutable_ttl()->set_nanos(static_cast<int32_t>(left % 1000 * 1'000'000));
}

}  // namespace

Status FromEntry(const Dict& dict, const DictEntry& entry, v1::Entry* out) {
  SetFacts(dict, entry, out);
  return FromDictValue(entry, out->mutable_value());
}

Status FromPart(const Dict& dict, const DictEntry& entry, std::string_view part, v1::Entry* out) {
  SetFacts(dict, entry, out);
  return FromWire(part, out->mutable_value());
}

Status ToIncrement(const IncrementFields& fields, DictIncrement* increment) {
  increment->delta = DictValue::Int64(1);
  if (fields.delta != nullptr) {
    SH_ASSIGN_OR_RETURN(increment->delta, ToNumber(*fields.delta, "delta"));
  }
  const bool is_int = increment->delta.kind == DictKind::kInt64;
  increment->initial = is_int ? DictValue::Int64(0) : DictValue::Float64(0);
  if (fields.initial != nullptr) {
    SH_ASSIGN_OR_RETURN(increment->initial, ToNumber(*fields.initial, "initial"));
    if (increment->initial.kind != increment->delta.kind) {
      return Refuse(Reason::kInvalidArgument, "initial", "it is of another kind than delta");
    }
  }
  increment->bounded = fields.min != nullptr || fields.max != nullptr;
  increment->min = is_int ? DictValue::Int64(std::numeric_limits<int64_t>::min())
                          : DictValue::Float64(-std::numeric_limits<double>::infinity());
  increment->max = is_int ? DictValue::Int64(std::numeric_limits<int64_t>::max())
                          : DictValue::Float64(std::numeric_limits<double>::infinity());
  const auto bound = [&](const v1::Value* from, const char* field, DictValue* to) -> Status {
    if (from == nullptr) return Status();
    SH_ASSIGN_OR_RETURN(*to, ToNumber(*from, field));
    if (to->kind != increment->delta.kind) {
      return Refuse(Reason::kInvalidArgument, field, "it is of another kind than delta");
    }
    return Status();
  };
  SH_RETURN_IF_ERROR(bound(fields.min, "min", &increment->min));
  return bound(fields.max, "max", &increment->max);
}

StatusOr<DictOperationId> ToOperationId(bool given, const v1::OperationId& operation) {
  if (!given) return DictOperationId();
  if (operation.session() == 0) {
    return Refuse(Reason::kInvalidArgument, "operation_id.session", "it must not be 0");
  }
  return DictOperationId{operation.session(), operation.sequence()};
}

Status OnceGuard::Begin(const VerbContext& context, Dict& dict, DictOperationId operation,
                        bool* known) {
  *known = false;
  if (!operation.valid()) return Status();
  held_ = dict.HoldSession(operation.session, !context.fast);
  if (!held_.owns_lock()) {
    return Status(Reason::kStalled,
                  "dict \"" + dict.name() + "\": another operation of the session is under way");
  }
  return dict.Recall(operation, &remembered_, known);
}

Status BindingGuard::Check(const VerbContext& context, uint64_t session) {
  if (session == 0) return Status();
  return context.sessions->Renew(session, context.identity->token_id()).status();
}

Status BindingGuard::Begin(const VerbContext& context, const Dict& dict,
                           std::span<const DictOperation> operations) {
  std::map<uint64_t, std::vector<std::string_view>> keys;
  for (const DictOperation& operation : operations) {
    const bool sets = operation.kind == DictOperation::Kind::kSet;
    if (sets && operation.set.bind_session != 0) {
      keys[operation.set.bind_session].push_back(operation.key);
    }
  }
  for (const auto& [session, bound] : keys) {
    SH_ASSIGN_OR_RETURN(BoundEntries::Intent intent,
                        context.bound->Intend(session, dict.name(), bound, !context.fast));
    intents_.push_back(std::move(intent));
  }
  return Status();
}

Status BindingGuard::Begin(const VerbContext& context, const Dict& dict, std::string_view key,
                           uint64_t session) {
  if (session == 0) return Status();
  SH_ASSIGN_OR_RETURN(BoundEntries::Intent intent,
                      context.bound->Intend(session, dict.name(), {&key, 1}, !context.fast));
  intents_.push_back(std::move(intent));
  return Status();
}

void BindingGuard::End(bool bound) {
  for (BoundEntries::Intent& intent : intents_) intent.Settle(bound);
}

Status MoveIfItHelps(const VerbContext& context, const std::shared_ptr<ServedDict>& served,
                     const Status& failure) {
  DictStore::Move how = DictStore::Move::kGrow;
  const bool full =
      failure.reason() == Reason::kLimitExceeded || failure.reason() == Reason::kMemoryExhausted;
  switch (failure.reason()) {
    case Reason::kDictMoved: return Status();  // It is there again under its name.
    case Reason::kDataLoss: how = DictStore::Move::kSalvage; break;
    default:
      if (failure.reason() == Reason::kMemoryExhausted && served->dict().AwaitsBacking()) {
        if (context.fast) {
          return Status(Reason::kStalled,
                        "dict \"" + served->record().name + "\" has to get memory first");
        }
        return context.engine->dicts().BackMore(*served);
      }
      if (!full || !DictStore::CanGrow(*served)) return failure;
      // Without eviction a larger table gives no more bytes.
      if (failure.reason() == Reason::kMemoryExhausted && !served->record().evict) return failure;
  }
  if (how == DictStore::Move::kSalvage && !served->MayBeSalvaged()) return failure;
  if (context.fast) {
    return Status(Reason::kStalled, "dict \"" + served->record().name + "\" has to move first");
  }
  return context.engine->dicts().MoveDict(context.lane, served, how);
}

}  // namespace statehouse
