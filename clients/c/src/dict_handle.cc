#include "clients/c/src/dict_handle.h"

#include <bit>
#include <limits>
#include <new>

#include "engine/value/value.h"
#include "engine/value/wire.h"

namespace statehouse {
namespace {

Status Invalid(const std::string& what) { return Status(Reason::kInvalidArgument, what); }

}  // namespace

Status CheckDict(const sh_dict* dict) {
  return dict != nullptr ? Status() : Invalid("the dict is NULL");
}

StatusOr<std::string_view> ToBytes(sh_bytes bytes, const char* what) {
  if (bytes.data == nullptr && bytes.size > 0) {
    return Invalid(std::string(what) + ": data is NULL and size is " + std::to_string(bytes.size));
  }
  if (bytes.data == nullptr) return std::string_view("");
  return std::string_view(static_cast<const char*>(bytes.data), bytes.size);
}

StatusOr<std::string_view> ToKey(sh_bytes key) {
  SH_ASSIGN_OR_RETURN(const std::string_view bytes, ToBytes(key, "key"));
  if (!bytes.empty() && bytes.size() <= kDictKeyBytesMax && internal::IsUtf8(bytes)) return bytes;
  return Status(Reason::kKeyInvalid, "a key of " + std::to_string(bytes.size()) + " bytes; 1 to " +
                                         std::to_string(kDictKeyBytesMax) +
                                         " bytes of UTF-8 are allowed");
}

StatusOr<DictValue> ToValue(sh_bytes value, const char* what) {
  SH_ASSIGN_OR_RETURN(const std::string_view wire, ToBytes(value, what));
  if (const Status checked = CheckValue(wire); !checked.ok()) {
    return Status(checked.reason(), std::string(what) + ": " + checked.message());
  }
  return DictValueOf(wire);
}

StatusOr<DictCondition> ToCondition(const sh_condition& condition) {
  DictCondition result;
  switch (condition.kind) {
    case SH_IF_ANY: return result;
    case SH_IF_ABSENT: result.kind = DictCondition::Kind::kAbsent; return result;
    case SH_IF_PRESENT: result.kind = DictCondition::Kind::kPresent; return result;
    case SH_IF_VERSION:
      result.kind = DictCondition::Kind::kVersion;
      result.version = condition.version;
      return result;
    case SH_IF_VALUE: {
      result.kind = DictCondition::Kind::kValue;
      SH_ASSIGN_OR_RETURN(result.value, ToValue(condition.value, "condition.value"));
      return result;
    }
  }
  return Invalid("condition.kind " + std::to_string(static_cast<int>(condition.kind)) +
                 " is none of SH_IF_*");
}

DictTtl ToTtl(uint64_t ttl_ms) {
  if (ttl_ms == SH_TTL_DEFAULT) return DictTtl();
  if (ttl_ms == SH_FOREVER) return DictTtl{DictTtl::Kind::kNone, 0};
  if (ttl_ms == SH_TTL_KEEP) return DictTtl{DictTtl::Kind::kKeep, 0};
  // Longer lives are for ever in all but name; the clock must be able to add it.
  constexpr uint64_t kTtlMsMax = 9'223'372'036'000;
  return DictTtl{DictTtl::Kind::kSet, std::min(ttl_ms, kTtlMsMax)};
}

StatusOr<std::vector<PathStep>> ToPath(const sh_path_step* path, size_t steps) {
  std::vector<PathStep> result;
  if (path == nullptr && steps > 0) return Invalid("the path is NULL and has steps");
  if (steps > kPathStepsMax) {
    return Invalid("a path of " + std::to_string(steps) + " steps; at most " +
                   std::to_string(kPathStepsMax) + " are allowed");
  }
  for (size_t i = 0; i < steps; ++i) {
    SH_ASSIGN_OR_RETURN(const std::string_view key, ToBytes(path[i].key, "path.key"));
    result.push_back(path[i].is_index != 0 ? PathStep::Index(path[i].index) : PathStep::Key(key));
  }
  SH_RETURN_IF_ERROR(CheckPath(result));
  return result;
}

StatusOr<DictSetOptions> ToSetOptions(const sh_write_options* options) {
  DictSetOptions result;
  if (options == nullptr) return result;
  SH_ASSIGN_OR_RETURN(result.condition, ToCondition(options->condition));
  result.ttl = ToTtl(options->ttl_ms);
  result.fence = options->fence;
  if (options->bound != 0) result.bind_session = kOwnSession;
  return result;
}

StatusOr<DictDeleteOptions> ToDeleteOptions(const sh_write_options* options) {
  DictDeleteOptions result;
  if (options == nullptr) return result;
  SH_ASSIGN_OR_RETURN(result.condition, ToCondition(options->condition));
  result.fence = options->fence;
  return result;
}

namespace {

DictValue FromNumber(const sh_number& number) {
  return number.is_double != 0 ? DictValue::Float64(number.real) : DictValue::Int64(number.integer);
}

}  // namespace

StatusOr<DictIncrement> ToIncrement(sh_number delta, const sh_increment_options& options) {
  DictIncrement increment;
  increment.delta = FromNumber(delta);
  const bool is_int = increment.delta.kind == DictKind::kInt64;
  increment.initial = is_int ? DictValue::Int64(0) : DictValue::Float64(0);
  increment.min = is_int ? DictValue::Int64(std::numeric_limits<int64_t>::min())
                         : DictValue::Float64(-std::numeric_limits<double>::infinity());
  increment.max = is_int ? DictValue::Int64(std::numeric_limits<int64_t>::max())
                         : DictValue::Float64(std::numeric_limits<double>::infinity());
  const auto take = [&](const sh_number* from, const char* what, DictValue* to) -> Status {
    if (from == nullptr) return Status();
    *to = FromNumber(*from);
    if (to->kind == increment.delta.kind) return Status();
    return Invalid(std::string(what) + " is of another kind than delta");
  };
  SH_RETURN_IF_ERROR(take(options.initial, "initial", &increment.initial));
  SH_RETURN_IF_ERROR(take(options.min, "min", &increment.min));
  SH_RETURN_IF_ERROR(take(options.max, "max", &increment.max));
  increment.bounded = options.min != nullptr || options.max != nullptr;
  increment.must_exist = options.must_exist != 0;
  increment.ttl = ToTtl(options.ttl_ms);
  increment.fence = options.fence;
  return increment;
}

sh_number FromBits(DictKind kind, uint64_t bits) {
  return kind == DictKind::kFloat64 ? sh_double(std::bit_cast<double>(bits))
                                    : sh_int(static_cast<int64_t>(bits));
}

StatusOr<std::vector<std::string_view>> ToKeys(const sh_bytes* keys, size_t count) {
  if (keys == nullptr && count > 0) return Invalid("the keys are NULL");
  if (count > kTransactionOpsMax) {
    return Status(Reason::kLimitExceeded, std::to_string(count) + " keys in one call; at most " +
                                              std::to_string(kTransactionOpsMax) + " are allowed");
  }
  std::vector<std::string_view> result;
  for (size_t i = 0; i < count; ++i) {
    SH_ASSIGN_OR_RETURN(const std::string_view key, ToKey(keys[i]));
    result.push_back(key);
  }
  return result;
}

sh_bytes FromBytes(std::string_view bytes) { return {bytes.data(), bytes.size()}; }

LocalValue& ValueOf(sh_entry* entry) {
  if (entry->memory == nullptr) entry->memory = new sh_entry_memory;
  return entry->memory->value;
}

namespace {

void ShowFacts(const DictEntry& from, std::optional<uint64_t> ttl_ms, sh_entry* to) {
  to->version = from.version;
  to->ttl_ms = ttl_ms.value_or(SH_FOREVER);
  to->fence = from.fence;
  to->ordinal = from.ordinal;
  to->bound_session = from.bound_session;
}

void ShowFacts(const NetworkEntry& from, sh_entry* to) {
  to->version = from.version;
  to->ttl_ms = from.has_ttl ? from.ttl_ms : SH_FOREVER;
  to->fence = from.fence;
  to->ordinal = from.ordinal;
  to->bound_session = from.bound_session;
}

}  // namespace

void ShowLocal(const LocalDict& dict, sh_entry* entry) {
  const LocalValue& value = ValueOf(entry);
  entry->found = value.found;
  entry->key = sh_bytes{};
  entry->value = value.found ? FromBytes(value.wire) : sh_bytes{};
  ShowFacts(value.found ? value.entry : DictEntry(),
            value.found ? dict.TtlMs(value.entry) : std::nullopt, entry);
}

void ShowNetwork(NetworkEntry&& from, sh_entry* entry) {
  LocalValue& value = ValueOf(entry);
  value.storage = std::move(from.wire);
  entry->found = from.found;
  entry->key = sh_bytes{};
  entry->value = from.found ? FromBytes(value.storage) : sh_bytes{};
  ShowFacts(from, entry);
}

namespace {

sh_entries_memory& MemoryOf(sh_entries* entries) {
  if (entries->memory == nullptr) entries->memory = new sh_entries_memory;
  entries->memory->items.clear();
  entries->memory->bytes.clear();
  return *entries->memory;
}

}  // namespace

EntriesBuilder::EntriesBuilder(sh_entries* entries)
    : entries_(entries), memory_(MemoryOf(entries)) {}

sh_bytes EntriesBuilder::Keep(std::string bytes) {
  return FromBytes(memory_.bytes.emplace_back(std::move(bytes)));
}

sh_entry& EntriesBuilder::Add(std::string_view key) {
  sh_entry& entry = memory_.items.emplace_back();
  entry = sh_entry{};
  entry.key = Keep(std::string(key));
  return entry;
}

void EntriesBuilder::AddAbsent(std::string_view key) { Add(key).ttl_ms = SH_FOREVER; }

void EntriesBuilder::AddLocal(const LocalDict& dict, std::string_view key, const DictEntry& from) {
  sh_entry& entry = Add(key);
  std::string storage;
  entry.found = 1;
  entry.value = Keep(std::string(WireOf(from, &storage)));
  ShowFacts(from, dict.TtlMs(from), &entry);
}

void EntriesBuilder::AddNetwork(const NetworkEntry& from) {
  sh_entry& entry = Add(from.key);
  entry.found = from.found;
  if (from.found) entry.value = Keep(from.wire);
  ShowFacts(from, &entry);
}

void EntriesBuilder::AddNumber(std::string_view key, const DictResult& result) {
  DictEntry number;
  number.kind = result.kind;
  number.bits = result.bits;
  sh_entry& entry = Add(key);
  std::string storage;
  entry.found = 1;
  entry.value = Keep(std::string(WireOf(number, &storage)));
  entry.version = result.version;
  entry.ttl_ms = SH_FOREVER;
}

void EntriesBuilder::End() {
  entries_->items = memory_.items.data();
  entries_->count = memory_.items.size();
}

}  // namespace statehouse

void sh_entry_free(sh_entry* entry) {
  if (entry == nullptr) return;
  delete entry->memory;
  *entry = sh_entry{};
}

void sh_entries_free(sh_entries* entries) {
  if (entries == nullptr) return;
  delete entries->memory;
  *entries = sh_entries{};
}

void sh_cursor_free(sh_cursor* cursor) {
  if (cursor == nullptr) return;
  delete cursor->memory;
  *cursor = sh_cursor{};
}
