#include "engine/state/dict_edit.h"

#include <bit>

#include "engine/value/value.h"
#include "engine/value/value_writer.h"

namespace statehouse {

DictValue DictValueOf(std::string_view wire) {
  const ValueView view(wire);
  if (view.kind() == ValueKind::kInt) return DictValue::Int64(view.AsInt());
  if (view.kind() == ValueKind::kFloat) return {DictKind::kFloat64, {}, view.FloatBits()};
  return DictValue::Bytes(wire);
}

std::string_view WireOf(const DictEntry& entry, std::string* storage) {
  if (entry.kind == DictKind::kBytes) return entry.bytes;
  storage->clear();
  ValueWriter writer(storage);
  if (entry.kind == DictKind::kInt64) {
    writer.Int(static_cast<int64_t>(entry.bits));
  } else {
    writer.FloatBits(entry.bits);
  }
  return *storage;
}

Status GetPart(const Dict& dict, std::string_view key, std::span<const PathStep> path,
               DictEntry* entry, std::string* storage, bool* found, std::string_view* part,
               uint64_t operation_timeout_ns) {
  SH_RETURN_IF_ERROR(dict.Get(key, entry, found, operation_timeout_ns));
  if (!*found) return Status();
  const std::string_view wire = WireOf(*entry, storage);
  if (path.empty()) {
    *part = wire;
    return Status();
  }
  return GetPath(wire, path, part);
}

Status EditDictEntry(Dict& dict, const Lane& lane, std::string_view key, const EntryEdit& edit,
                     EntryEditResult* result) {
  const auto refuse = [&](Reason reason, const std::string& why) {
    return Status(reason,
                  "dict \"" + dict.name() + "\": editing key \"" + std::string(key) + "\": " + why);
  };
  DictEntry entry;
  std::string next;
  for (int attempt = 0; attempt < edit.attempts_max; ++attempt) {
    bool found = false;
    SH_RETURN_IF_ERROR(dict.Get(key, &entry, &found, lane.operation_timeout_ns));
    const uint64_t version = found ? entry.version : 0;
    if (!found && !edit.create) return refuse(Reason::kKeyNotFound, "there is no such key");
    if (edit.if_version != 0 && edit.if_version != version) {
      return refuse(Reason::kConflict, "it has version " + std::to_string(version) + ", not " +
                                           std::to_string(edit.if_version) + ": read it again");
    }
    result->before = found ? std::string(WireOf(entry, &result->storage)) : std::string();
    SH_RETURN_IF_ERROR(EditValue(result->before, edit.path, edit.edit, &next, &result->edit));
    result->version = version;
    if (!result->edit.changed) return Status();
    DictSetOptions options;
    options.condition.kind = DictCondition::Kind::kVersion;
    options.condition.version = version;
    options.ttl = found ? edit.ttl : DictTtl();
    options.bind_session = found ? entry.bound_session : 0;
    options.fence = edit.fence;
    options.operation = edit.operation;
    DictResult set;
    SH_RETURN_IF_ERROR(dict.Set(lane, key, DictValueOf(next), options, &set));
    result->version = set.version;
    if (set.applied) return Status();
  }
  return refuse(Reason::kStalled, "others change it all the time");
}

}  // namespace statehouse
