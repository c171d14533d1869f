#include "clients/c/src/network_dict_fields.h"

#include <bit>

namespace statehouse {

void SetValue(std::string_view wire, v1::Value* to) {
  // It was checked; what a parser refuses all the same arrives as no value, which the service
  // refuses.
  if (!to->ParseFromArray(wire.data(), static_cast<int>(wire.size()))) to->Clear();
}

void SetValue(const DictValue& from, v1::Value* to) {
  switch (from.kind) {
    case DictKind::kBytes: return SetValue(from.bytes, to);
    case DictKind::kInt64: return to->set_int_value(static_cast<int64_t>(from.bits));
    case DictKind::kFloat64: return to->set_float_value(std::bit_cast<double>(from.bits));
  }
}

void SetPath(std::span<const PathStep> from, google::protobuf::RepeatedPtrField<v1::PathStep>* to) {
  for (const PathStep& step : from) {
    v1::PathStep* const added = to->Add();
    if (step.kind == PathStep::Kind::kIndex) {
      added->set_index(step.index);
    } else {
      added->set_key(std::string(step.key));
    }
  }
}

void SetEntryWait(const EntryWait& from, v1::WaitEntryRequest* to) {
  switch (from.kind) {
    case EntryWait::Kind::kPresent: to->set_present(true); break;
    case EntryWait::Kind::kAbsent: to->set_absent(true); break;
    case EntryWait::Kind::kVersionAbove: to->set_version_above(from.version); break;
    case EntryWait::Kind::kVersionDiffers: to->set_version_differs(from.version); break;
    case EntryWait::Kind::kValue: SetValue(from.value, to->mutable_value()); break;
  }
  SetPath(from.path, to->mutable_path_steps());
}

void SetStep(const DictOperation& from, v1::Step* to) {
  const std::string key(from.key);
  switch (from.kind) {
    case DictOperation::Kind::kGet: return to->set_get(key);
    case DictOperation::Kind::kSet: {
      v1::Step::Set* const set = to->mutable_set();
      set->set_key(key);
      SetValue(from.value, set->mutable_value());
      SetCondition(from.set.condition, set);
      SetTtl(from.set.ttl, set);
      set->set_fence(from.set.fence);
      set->set_bind_session(from.set.bind_session);
      return;
    }
    case DictOperation::Kind::kDelete:
      to->mutable_delete_()->set_key(key);
      SetCondition(from.erase.condition, to->mutable_delete_());
      to->mutable_delete_()->set_fence(from.erase.fence);
      return;
    case DictOperation::Kind::kIncrement:
      to->mutable_increment()->set_key(key);
      return SetIncrement(from.increment, to->mutable_increment());
  }
}

namespace {

// The values of the list that the edit's bytes are.
void SetValues(std::string_view wire, google::protobuf::RepeatedPtrField<v1::Value>* to) {
  v1::Value list;
  SetValue(wire, &list);
  to->Swap(list.mutable_list_value()->mutable_values());
}

}  // namespace

void SetEdit(v1::Edit::KindCase kind, const Edit& from, v1::Edit* to) {
  switch (kind) {
    case v1::Edit::kSet: return SetValue(from.value, to->mutable_set());
    case v1::Edit::kDelete: return to->set_delete_(true);
    case v1::Edit::kAppend: return SetValue(from.value, to->mutable_append());
    case v1::Edit::kExtend: return SetValues(from.value, to->mutable_extend()->mutable_values());
    case v1::Edit::kInsert:
      to->mutable_insert()->set_index(from.start);
      return SetValue(from.value, to->mutable_insert()->mutable_value());
    case v1::Edit::kPop: return to->set_pop(true);
    case v1::Edit::kRemove: return SetValue(from.value, to->mutable_remove());
    case v1::Edit::kMerge: {
      v1::Value map;
      SetValue(from.value, &map);
      to->mutable_merge()->Swap(map.mutable_map_value());
      return;
    }
    case v1::Edit::kClear: return to->set_clear(true);
    case v1::Edit::kSlice:
      to->mutable_slice()->set_start(from.start);
      to->mutable_slice()->set_stop(from.stop);
      return SetValues(from.value, to->mutable_slice()->mutable_values());
    case v1::Edit::kSetDefault: return SetValue(from.value, to->mutable_set_default());
    case v1::Edit::kAppendString: return to->set_append_string(std::string(from.value));
    case v1::Edit::kAppendBytes: return to->set_append_bytes(std::string(from.value));
    case v1::Edit::KIND_NOT_SET: return;
  }
}

NetworkEntry FromEntry(const v1::Entry& from) {
  NetworkEntry entry;
  entry.found = true;
  entry.key = from.key();
  entry.wire = from.value().SerializeAsString();
  entry.version = from.version();
  entry.has_ttl = from.has_ttl();
  entry.ttl_ms = static_cast<uint64_t>(from.ttl().seconds()) * 1000 +
                 static_cast<uint64_t>(from.ttl().nanos()) / 1'000'000;
  entry.fence = from.fence();
  entry.ordinal = from.ordinal();
  entry.bound_session = from.bound_session();
  return entry;
}

Status FromNumber(const v1::Value& from, DictResult* result) {
  if (from.has_int_value()) {
    result->kind = DictKind::kInt64;
    result->bits = static_cast<uint64_t>(from.int_value());
    return Status();
  }
  if (from.has_float_value()) {
    result->kind = DictKind::kFloat64;
    result->bits = std::bit_cast<uint64_t>(from.float_value());
    return Status();
  }
  return Status(Reason::kInternal, "the service answered an addition without a number");
}

}  // namespace statehouse
