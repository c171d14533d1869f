// EditEntry's edits.
#include "engine/value/value.h"
#include "engine/value/value_writer.h"
#include "service/api/dict_fields.h"

namespace statehouse {
namespace {

Status Refuse(const char* field, const std::string& why) {
  return Status(Reason::kInvalidArgument, std::string("field edit.") + field + ": " + why);
}

Status ToWire(const v1::Value& value, const char* field, std::string* wire) {
  if (value.kind_case() == v1::Value::KIND_NOT_SET) {
    return Status(Reason::kValueInvalid,
                  std::string("field edit.") + field + ": it is missing; null is a value too");
  }
  // EditValue checks the bytes.
  return value.SerializeToString(wire) ? Status() : Refuse(field, "it cannot be encoded");
}

Status ToListWire(const google::protobuf::RepeatedPtrField<v1::Value>& values, const char* field,
                  std::string* wire) {
  wire->clear();
  ValueWriter writer(wire);
  std::string one;
  writer.BeginList();
  for (const v1::Value& value : values) {
    SH_RETURN_IF_ERROR(ToWire(value, field, &one));
    writer.Wire(one);
  }
  writer.EndList();
  return writer.Finish();
}

Status MustBeTrue(bool value, const char* field) {
  return value ? Status() : Refuse(field, "set it to true or choose another edit");
}

// As Python's pop: without an item the last one of a list.
Status ToPop(const v1::EditEntryRequest& request, EntryEdit* edit) {
  SH_RETURN_IF_ERROR(MustBeTrue(request.edit().pop(), "pop"));
  edit->edit.kind = EditKind::kPop;
  return Status();
}

}  // namespace

Status ToEdit(const v1::EditEntryRequest& request, EntryEdit* edit, std::string* storage) {
  Edit& to = edit->edit;
  const v1::Edit& from = request.edit();
  to.create_parents = request.create_parents();
  to.create_missing = request.create_parents();
  switch (from.kind_case()) {
    case v1::Edit::kSet:
      to.kind = EditKind::kSet;
      SH_RETURN_IF_ERROR(ToWire(from.set(), "set", storage));
      break;
    case v1::Edit::kDelete:
      to.kind = EditKind::kDelete;
      return MustBeTrue(from.delete_(), "delete");
    case v1::Edit::kAppend:
      to.kind = EditKind::kAppend;
      SH_RETURN_IF_ERROR(ToWire(from.append(), "append", storage));
      break;
    case v1::Edit::kExtend:
      to.kind = EditKind::kExtend;
      SH_RETURN_IF_ERROR(ToListWire(from.extend().values(), "extend", storage));
      break;
    case v1::Edit::kInsert:
      to.kind = EditKind::kInsert;
      to.start = from.insert().index();
      SH_RETURN_IF_ERROR(ToWire(from.insert().value(), "insert.value", storage));
      break;
    case v1::Edit::kPop: return ToPop(request, edit);
    case v1::Edit::kRemove:
      to.kind = EditKind::kRemoveValue;
      SH_RETURN_IF_ERROR(ToWire(from.remove(), "remove", storage));
      break;
    case v1::Edit::kMerge: {
      to.kind = EditKind::kMergeMap;
      v1::Value map;
      *map.mutable_map_value() = from.merge();
      SH_RETURN_IF_ERROR(ToWire(map, "merge", storage));
      break;
    }
    case v1::Edit::kClear: to.kind = EditKind::kClear; return MustBeTrue(from.clear(), "clear");
    case v1::Edit::kSlice:
      to.kind = EditKind::kSetSlice;
      to.start = from.slice().start();
      to.stop = from.slice().stop();
      SH_RETURN_IF_ERROR(ToListWire(from.slice().values(), "slice.values", storage));
      break;
    case v1::Edit::kSetDefault:
      to.kind = EditKind::kSetDefault;
      SH_RETURN_IF_ERROR(ToWire(from.set_default(), "set_default", storage));
      break;
    case v1::Edit::kAppendString:
      to.kind = EditKind::kStringAppend;
      *storage = from.append_string();
      break;
    case v1::Edit::kAppendBytes:
      to.kind = EditKind::kBytesAppend;
      *storage = from.append_bytes();
      break;
    case v1::Edit::KIND_NOT_SET: return Refuse("kind", "it is missing");
  }
  to.value = *storage;
  return Status();
}

}  // namespace statehouse
