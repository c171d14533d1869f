#include "service/api/short_operations.h"

#include <algorithm>
#include <utility>

#include "engine/base/word.h"
#include "engine/state/dict_edit.h"
#include "engine/value/value.h"
#include "engine/value/wire.h"
#include "service/api/dict_fields.h"
#include "service/api/dict_verbs.h"
#include "service/api/words.h"
#include "statehouse/v1/area.pb.h"

namespace statehouse {
namespace {

// Reused by each thread of a door: an operation then allocates nothing for them.
struct Scratch {
  DictEntry entry;
  std::string wire;
};
Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

// Longer lives are the verb's to judge: about 31 years.
constexpr uint64_t kPlainTtlMsMax = 1'000'000'000'000;

Status Unreadable() {
  return Status(Reason::kInvalidArgument,
                "batch: the operation is not a valid message of its kind");
}

}  // namespace

std::string_view ShortOperations::MethodOf(uint32_t field) {
  switch (field) {
    case v1::Operation::kGet: return "/statehouse.v1.Dicts/GetEntry";
    case v1::Operation::kSet: return "/statehouse.v1.Dicts/SetEntry";
    case v1::Operation::kIncrement: return "/statehouse.v1.Dicts/IncrementEntry";
    default: return "/statehouse.v1.Areas/AddWord";
  }
}

// Null where there is none or the caller may not; the verb says which.
Dict* ShortOperations::DictAt(const VerbContext& context, uint32_t place, Verb verb) {
  if (place >= found_.size()) return nullptr;
  Found& found = found_[place];
  std::shared_ptr<ServedDict>& dict = verb == Verb::kRead ? found.read_dict : found.write_dict;
  if (dict == nullptr) {
    auto resolved = ResolveDict(context, plan_->names[place], verb);
    if (!resolved.ok()) return nullptr;
    dict = *std::move(resolved);
  }
  return &dict->dict();
}

DictOperationId ShortOperations::OperationIdOf(size_t index) const {
  const DictOperationId& first = plan_->operation_id;
  return first.valid() ? DictOperationId{first.session, first.sequence + index} : first;
}

void ShortOperations::Changed(uint32_t place) {
  const uint64_t id = found_[place].write_dict->record().id;
  if (std::find(changed_dicts_.begin(), changed_dicts_.end(), id) == changed_dicts_.end()) {
    changed_dicts_.push_back(id);
  }
}

uint64_t ShortOperations::TakeCount(uint32_t field) { return std::exchange(counts_[field], 0); }

void ShortOperations::FetchBucket(const VerbContext& context, size_t index) {
  Coming& coming = coming_[index % kComing];
  coming.dict = nullptr;
  const BatchOperation& operation = plan_->operations[index];
  if (operation.field < v1::Operation::kGet || operation.field > v1::Operation::kIncrement) return;
  const bool reads = operation.field == v1::Operation::kGet;
  uint32_t place = 0;
  std::string_view key;
  if (!ReadPlaceAndKey(operation.bytes, &place, &key)) return;
  coming.dict = DictAt(context, place, reads ? Verb::kRead : Verb::kWrite);
  if (coming.dict != nullptr) coming.hash = coming.dict->FetchBucket(key);
}

void ShortOperations::FetchEntry(size_t index) const {
  const Coming& coming = coming_[index % kComing];
  if (coming.dict != nullptr) coming.dict->FetchEntry(coming.hash);
}

void ShortOperations::Approach(const VerbContext& context, size_t index) {
  const size_t count = plan_->operations.size();
  const size_t first = fetched_;
  for (; fetched_ < std::min(index + kBucketAhead, count); ++fetched_) {
    FetchBucket(context, fetched_);
  }
  // Those of the first few come at once, and the others one by one.
  const size_t begin = first == 0 ? 0 : index + kEntryAhead;
  for (size_t i = begin; i < std::min(index + kEntryAhead + 1, count); ++i) FetchEntry(i);
}

bool ShortOperations::Try(const VerbContext& context, size_t index, BatchResultWriter* results) {
  const BatchOperation& operation = plan_->operations[index];
  bool done = false;
  switch (operation.field) {
    case v1::Operation::kGet: done = TryGet(context, operation.bytes, results); break;
    case v1::Operation::kSet: done = TrySet(context, index, results); break;
    case v1::Operation::kIncrement: done = TryIncrement(context, index, results); break;
    case v1::Operation::kAdd: done = TryAdd(context, operation.bytes, results); break;
    default: break;
  }
  if (done) {
    ++counts_[operation.field];
  } else {
    // What a name stands for may be another one after the verb: a dict moves, or is made anew.
    std::fill(found_.begin(), found_.end(), Found());
    coming_.fill(Coming());
  }
  return done;
}

bool ShortOperations::TryGet(const VerbContext& context, std::string_view bytes,
                             BatchResultWriter* results) {
  ShortGet get;
  if (!ReadShort(bytes, &get) || !CheckEntryKey(get.key).ok()) return false;
  const Dict* const dict = DictAt(context, get.dict, Verb::kRead);
  if (dict == nullptr) return false;
  Scratch& scratch = ThreadScratch();
  bool found = false;
  if (!dict->Get(get.key, &scratch.entry, &found, context.lane.operation_timeout_ns).ok()) {
    return false;
  }
  if (!found) {
    results->Add(v1::OperationResult::kGet, {});
    return true;
  }
  const std::string_view wire = WireOf(scratch.entry, &scratch.wire);
  // A worker on the host may have stored what is no value.
  if (scratch.entry.kind == DictKind::kBytes && !CheckValue(wire).ok()) return false;
  results->AddGet(wire, scratch.entry.version);
  return true;
}

bool ShortOperations::TrySet(const VerbContext& context, size_t index, BatchResultWriter* results) {
  ShortSet set;
  if (!ReadShort(plan_->operations[index].bytes, &set) || !CheckEntryKey(set.key).ok() ||
      set.ttl_ms > kPlainTtlMsMax || !CheckValue(set.value).ok()) {
    return false;
  }
  Dict* const dict = DictAt(context, set.dict, Verb::kWrite);
  if (dict == nullptr) return false;
  DictSetOptions options;
  if (set.ttl_ms != 0) options.ttl = {DictTtl::Kind::kSet, set.ttl_ms};
  options.operation = OperationIdOf(index);
  OnceGuard once;
  bool known = false;
  if (!once.Begin(context, *dict, options.operation, &known).ok()) return false;
  DictResult result = once.remembered().result;
  if (!known && !dict->Set(context.lane, set.key, DictValueOf(set.value), options, &result).ok()) {
    return false;
  }
  results->AddSet(result.version);
  Changed(set.dict);
  return true;
}

bool ShortOperations::TryIncrement(const VerbContext& context, size_t index,
                                   BatchResultWriter* results) {
  ShortIncrement increment;
  if (!ReadShort(plan_->operations[index].bytes, &increment) ||
      !CheckEntryKey(increment.key).ok()) {
    return false;
  }
  Dict* const dict = DictAt(context, increment.dict, Verb::kWrite);
  if (dict == nullptr) return false;
  DictIncrement options;
  options.delta = DictValue::Int64(increment.delta);
  options.initial = DictValue::Int64(0);
  options.operation = OperationIdOf(index);
  OnceGuard once;
  bool known = false;
  if (!once.Begin(context, *dict, options.operation, &known).ok()) return false;
  DictResult result = once.remembered().result;
  if (!known && !dict->Increment(context.lane, increment.key, options, &result).ok()) return false;
  results->AddIncrement(result.kind, result.bits, result.version);
  Changed(increment.dict);
  return true;
}

bool ShortOperations::TryAdd(const VerbContext& context, std::string_view bytes,
                             BatchResultWriter* results) {
  ShortAdd add;
  if (!ReadShort(bytes, &add) || add.area >= found_.size() || plan_->operation_id.valid()) {
    return false;
  }
  const auto type = ToWordType(static_cast<v1::WordType>(add.type));
  if (!type.ok()) return false;
  std::shared_ptr<ServedArea>& area = found_[add.area].write_area;
  if (area == nullptr) {
    auto resolved = ResolveArea(context, plan_->names[add.area], Verb::kWrite);
    if (!resolved.ok()) return false;
    area = *std::move(resolved);
  }
  uint64_t bits = 0;
  const uint64_t delta = static_cast<uint64_t>(add.delta) & WordMask(*type);
  if (!area->area().Add(context.lane, *type, add.pos, delta, &bits, /*fence=*/0).ok()) {
    return false;
  }
  v1::WordAddResult result;
  FromBits(*type, bits, result.mutable_value());
  results->Add(v1::OperationResult::kAdd, result.SerializeAsString());
  return true;
}

// Reads an operation whose form may need mending first, and gives the name that it is about.
template <typename Short>
StatusOr<std::string_view> ShortOperations::Read(const BatchOperation& operation, Short* read,
                                                 std::string* storage) const {
  if (!ReadShort(operation.bytes, read) &&
      !(NormalizeShort(operation, storage) && ReadShort(*storage, read))) {
    return Unreadable();
  }
  uint32_t place = 0;
  if constexpr (requires { read->area; }) {
    place = read->area;
  } else {
    place = read->dict;
    // As every string of a message has to be.
    if (!internal::IsUtf8(read->key)) return Unreadable();
  }
  if (place < plan_->names.size()) {
    if (!internal::IsUtf8(plan_->names[place])) return Unreadable();
    return plan_->names[place];
  }
  return Status(Reason::kInvalidArgument,
                "batch: the operation is about object " + std::to_string(place) +
                    " of batch.names, which has " + std::to_string(plan_->names.size()));
}

StatusOr<std::string> ShortOperations::RequestOf(size_t index) const {
  const BatchOperation& operation = plan_->operations[index];
  const DictOperationId id = OperationIdOf(index);
  std::string storage;
  const auto name_it = [&id](v1::OperationId* to) {
    to->set_session(id.session);
    to->set_sequence(id.sequence);
  };
  switch (operation.field) {
    case v1::Operation::kGet: {
      ShortGet get;
      SH_ASSIGN_OR_RETURN(const std::string_view name, Read(operation, &get, &storage));
      v1::GetEntryRequest request;
      request.set_name(std::string(name));
      request.set_key(std::string(get.key));
      return request.SerializeAsString();
    }
    case v1::Operation::kSet: {
      ShortSet set;
      SH_ASSIGN_OR_RETURN(const std::string_view name, Read(operation, &set, &storage));
      v1::SetEntryRequest request;
      request.set_name(std::string(name));
      request.set_key(std::string(set.key));
      // Without a value the verb says that it is missing.
      if (!set.value.empty() && !request.mutable_value()->ParseFromArray(
                                    set.value.data(), static_cast<int>(set.value.size()))) {
        return Unreadable();
      }
      if (set.ttl_ms != 0) {
        auto* const ttl = request.mutable_ttl()->mutable_duration();
        ttl->set_seconds(static_cast<int64_t>(set.ttl_ms / 1000));
        ttl->set_nanos(static_cast<int32_t>(set.ttl_ms % 1000 * 1'000'000));
      }
      if (id.valid()) name_it(request.mutable_operation_id());
      return request.SerializeAsString();
    }
    case v1::Operation::kIncrement: {
      ShortIncrement increment;
      SH_ASSIGN_OR_RETURN(const std::string_view name, Read(operation, &increment, &storage));
      v1::IncrementEntryRequest request;
      request.set_name(std::string(name));
      request.set_key(std::string(increment.key));
      request.mutable_delta()->set_int_value(increment.delta);
      if (id.valid()) name_it(request.mutable_operation_id());
      return request.SerializeAsString();
    }
    default: break;
  }
  if (id.valid()) {
    return Status(Reason::kInvalidArgument,
                  "batch: words of areas remember no operations, so a batch with an operation_id "
                  "cannot add to one; use a batch without, or a dict");
  }
  ShortAdd add;
  SH_ASSIGN_OR_RETURN(const std::string_view name, Read(operation, &add, &storage));
  v1::AddWordRequest request;
  request.set_name(std::string(name));
  request.set_pos(add.pos);
  request.set_type(static_cast<v1::WordType>(add.type));
  request.set_delta(add.delta);
  return request.SerializeAsString();
}

Status ShortOperations::AddResponse(uint32_t field, const std::string& response,
                                    BatchResultWriter* results) const {
  const Status broken(Reason::kInternal, "batch: a response cannot be read");
  switch (field) {
    case v1::Operation::kGet: {
      v1::GetEntryResponse got;
      if (!got.ParseFromString(response)) return broken;
      if (got.has_entry()) {
        results->AddGet(got.entry().value().SerializeAsString(), got.entry().version());
      } else {
        results->Add(v1::OperationResult::kGet, {});
      }
      return Status();
    }
    case v1::Operation::kSet: {
      v1::SetEntryResponse set;
      if (!set.ParseFromString(response)) return broken;
      results->AddSet(set.version());
      return Status();
    }
    case v1::Operation::kIncrement: {
      v1::IncrementEntryResponse increment;
      if (!increment.ParseFromString(response)) return broken;
      const DictValue number = increment.value().kind_case() == v1::Value::kFloatValue
                                   ? DictValue::Float64(increment.value().float_value())
                                   : DictValue::Int64(increment.value().int_value());
      results->AddIncrement(number.kind, number.bits, increment.version());
      return Status();
    }
    default: {
      v1::AddWordResponse add;
      if (!add.ParseFromString(response)) return broken;
      v1::WordAddResult result;
      *result.mutable_value() = add.value();
      results->Add(v1::OperationResult::kAdd, result.SerializeAsString());
      return Status();
    }
  }
}

std::string_view ShortOperations::NameOf(size_t index) const {
  const BatchOperation& operation = plan_->operations[index];
  const auto name_in = [&](auto read) {
    std::string storage;
    const StatusOr<std::string_view> name = Read(operation, &read, &storage);
    return name.ok() ? *name : std::string_view();
  };
  switch (operation.field) {
    case v1::Operation::kGet: return name_in(ShortGet());
    case v1::Operation::kSet: return name_in(ShortSet());
    case v1::Operation::kIncrement: return name_in(ShortIncrement());
    default: return name_in(ShortAdd());
  }
}

}  // namespace statehouse
