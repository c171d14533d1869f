// Between the engine's terms and the messages of dict.proto, for NetworkDict.
#pragma once

#include <string>

#include "clients/c/src/network_dict.h"
#include "statehouse/v1/dict.pb.h"

namespace statehouse {

void SetValue(const DictValue& from, v1::Value* to);
// Wire bytes that were checked.
void SetValue(std::string_view wire, v1::Value* to);
void SetPath(std::span<const PathStep> from, google::protobuf::RepeatedPtrField<v1::PathStep>* to);

// Conditions, times and increments stand in several messages with the same fields.
template <typename Message>
void SetCondition(const DictCondition& from, Message* to) {
  switch (from.kind) {
    case DictCondition::Kind::kNone: return;
    case DictCondition::Kind::kAbsent: return to->mutable_condition()->set_absent(true);
    case DictCondition::Kind::kPresent: return to->mutable_condition()->set_present(true);
    case DictCondition::Kind::kVersion: return to->mutable_condition()->set_version(from.version);
    case DictCondition::Kind::kValue:
      return SetValue(from.value, to->mutable_condition()->mutable_value());
  }
}
template <typename Message>
void SetTtl(const DictTtl& from, Message* to) {
  switch (from.kind) {
    case DictTtl::Kind::kDefault: return;
    case DictTtl::Kind::kNone: return to->mutable_ttl()->set_none(true);
    case DictTtl::Kind::kKeep: return to->mutable_ttl()->set_keep(true);
    case DictTtl::Kind::kSet:
      to->mutable_ttl()->mutable_duration()->set_seconds(static_cast<int64_t>(from.ms / 1000));
      to->mutable_ttl()->mutable_duration()->set_nanos(
          static_cast<int32_t>(from.ms % 1000 * 1'000'000));
      return;
  }
}
template <typename Message>
void SetIncrement(const DictIncrement& from, Message* to) {
  SetValue(from.delta, to->mutable_delta());
  SetValue(from.initial, to->mutable_initial());
  to->set_must_exist(from.must_exist);
  if (from.bounded) {
    SetValue(from.min, to->mutable_min());
    SetValue(from.max, to->mutable_max());
  }
  SetTtl(from.ttl, to);
  to->set_fence(from.fence);
}

void SetStep(const DictOperation& from, v1::Step* to);
// The edit that `kind` says, out of the engine's.
void SetEdit(v1::Edit::KindCase kind, const Edit& from, v1::Edit* to);

void SetEntryWait(const EntryWait& from, v1::WaitEntryRequest* to);

NetworkEntry FromEntry(const v1::Entry& from);
// A number's bits and kind. INTERNAL where it is none.
Status FromNumber(const v1::Value& from, DictResult* result);

}  // namespace statehouse
