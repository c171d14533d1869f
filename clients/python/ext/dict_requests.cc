// The requests of statehouse/_dict_verbs.py, carried out on memory. Each function takes the items
// of the request's tuple behind its name; what it gives is what DictCalls
// (statehouse/_dict_calls.py) reads from the service's answer.
#include <algorithm>
#include <bit>
#include <chrono>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "clients/python/ext/dict.h"
#include "clients/python/ext/errors.h"
#include "clients/python/ext/reference.h"
#include "engine/value/value.h"

namespace statehouse::python {
namespace {

using Arguments = std::span<PyObject* const>;

DictObject* Self(PyObject* self) { return reinterpret_cast<DictObject*>(self); }

PyObject* Fail(DictObject* self, const Status& status) {
  return Raise(status, self->dict->name().c_str());
}

// get(key, path=())
PyObject* Get(DictObject* self, Arguments args) {
  std::string_view key;
  std::vector<PathStep> path;
  if (!TextOf(args[0], &key) || (args.size() > 1 && !PathOf(args[1], &path))) return nullptr;
  LocalValue value;
  const Status status = RunShort(self, [&] { return self->dict->GetWire(key, path, &value); });
  if (!status.ok()) return Fail(self, status);
  if (!value.found) Py_RETURN_NONE;
  if (path.empty()) return EntryObject(*self->dict, value.entry, true);
  const Reference wire(BytesObject(value.wire));
  const Reference entry(EntryObject(*self->dict, value.entry, false));
  if (wire.get() == nullptr || entry.get() == nullptr) return nullptr;
  const Reference rest(PyTuple_GetSlice(entry.get(), 1, 5));
  const Reference first(PyTuple_Pack(1, wire.get()));
  if (rest.get() == nullptr || first.get() == nullptr) return nullptr;
  return PySequence_Concat(first.get(), rest.get());
}

bool KeysOf(PyObject* sequence, std::vector<std::string_view>* keys) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(sequence); ++i) {
    if (!TextOf(PyList_GET_ITEM(sequence, i), &keys->emplace_back())) return false;
  }
  return true;
}

bool AppendPair(PyObject* list, PyObject* key, PyObject* entry) {
  const Reference pair(key == nullptr || entry == nullptr ? nullptr : PyTuple_Pack(2, key, entry));
  return pair.get() != nullptr && PyList_Append(list, pair.get()) == 0;
}

// get_many(keys, consistent)
PyObject* GetMany(DictObject* self, Arguments args) {
  const Reference sequence(PySequence_List(args[0]));
  std::vector<std::string_view> keys;
  if (sequence.get() == nullptr || !KeysOf(sequence.get(), &keys)) return nullptr;
  const bool consistent = PyObject_IsTrue(args[1]) == 1;
  std::vector<DictOperationResult> results;
  const Status status =
      RunLong(self, [&] { return self->dict->GetMany(keys, consistent, &results); });
  if (!status.ok()) return Fail(self, status);
  Reference found(PyList_New(0));
  for (size_t i = 0; found.get() != nullptr && i < results.size(); ++i) {
    if (!results[i].result.existed) continue;
    const Reference entry(EntryObject(*self->dict, results[i].entry, true));
    PyObject* const key = PyList_GET_ITEM(sequence.get(), static_cast<Py_ssize_t>(i));
    if (!AppendPair(found.get(), key, entry.get())) return nullptr;
  }
  return found.Release();
}

// The cursor of a scan as Python carries it: (at, seed, seed), or None for a new one.
bool CursorOf(PyObject* object, LocalDictCursor* cursor) {
  if (object == Py_None) return true;
  unsigned long long at = 0;
  unsigned long long a = 0;
  unsigned long long b = 0;
  if (PyArg_ParseTuple(object, "KKK", &at, &a, &b) == 0) return false;
  cursor->at = at;
  cursor->seed = HashSeed{a, b};
  return true;
}

PyObject* CursorObject(const LocalDictCursor& cursor) {
  if (cursor.done) return Py_NewRef(Py_None);
  return Py_BuildValue("(KKK)", static_cast<unsigned long long>(cursor.at),
                       static_cast<unsigned long long>(cursor.seed.a),
                       static_cast<unsigned long long>(cursor.seed.b));
}

// scan(cursor, prefix, limit, keys_only)
PyObject* Scan(DictObject* self, Arguments args) {
  LocalDictCursor cursor;
  std::string_view prefix;
  if (!CursorOf(args[0], &cursor) || !TextOf(args[1], &prefix)) return nullptr;
  const size_t limit = PyLong_AsSize_t(args[2]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  const bool keys_only = PyObject_IsTrue(args[3]) == 1;
  std::vector<DictEntry> entries;
  const Status status =
      RunLong(self, [&] { return self->dict->Scan(&cursor, limit, prefix, &entries); });
  if (!status.ok()) return Fail(self, status);
  const Reference found(PyList_New(0));
  if (found.get() == nullptr) return nullptr;
  for (const DictEntry& entry : entries) {
    const Reference key(PyUnicode_DecodeUTF8(entry.key.data(),
                                             static_cast<Py_ssize_t>(entry.key.size()), "replace"));
    const Reference value(EntryObject(*self->dict, entry, !keys_only));
    if (!AppendPair(found.get(), key.get(), value.get())) return nullptr;
  }
  const Reference next(CursorObject(cursor));
  return next.get() == nullptr ? nullptr : PyTuple_Pack(2, found.get(), next.get());
}

PyObject* AppliedObject(DictObject* self, const DictResult& result, const DictEntry* previous) {
  const bool has_previous = previous != nullptr && result.existed;
  const Reference entry(has_previous ? EntryObject(*self->dict, *previous, true)
                                     : Py_NewRef(Py_None));
  if (entry.get() == nullptr) return nullptr;
  return Py_BuildValue("(OKO)", result.applied ? Py_True : Py_False,
                       static_cast<unsigned long long>(result.version), entry.get());
}

// set(key, wire, condition, ttl, fence, previous)
PyObject* Set(DictObject* self, Arguments args) {
  std::string_view key;
  std::string_view wire;
  DictSetOptions options;
  if (!TextOf(args[0], &key) || !BytesOf(args[1], &wire) ||
      !ConditionOf(args[2], &options.condition) || !TtlOf(args[3], &options.ttl) ||
      !UnsignedOf(args[4], &options.fence)) {
    return nullptr;
  }
  DictEntry previous;
  if (PyObject_IsTrue(args[5]) == 1) options.previous = &previous;
  DictResult result;
  const Status status =
      RunShort(self, [&] { return self->dict->Set(key, DictValueOf(wire), options, &result); });
  if (!status.ok()) return Fail(self, status);
  return AppliedObject(self, result, options.previous);
}

// set_many(items, ttl, fence)
PyObject* SetMany(DictObject* self, Arguments args) {
  DictTtl ttl;
  uint64_t fence = 0;
  if (!PyList_Check(args[0]) || !TtlOf(args[1], &ttl) || !UnsignedOf(args[2], &fence)) {
    return nullptr;
  }
  std::vector<DictOperation> sets(static_cast<size_t>(PyList_GET_SIZE(args[0])));
  for (size_t i = 0; i < sets.size(); ++i) {
    PyObject* const item = PyList_GET_ITEM(args[0], static_cast<Py_ssize_t>(i));
    std::string_view wire;
    if (!TextOf(PyTuple_GET_ITEM(item, 0), &sets[i].key) ||
        !BytesOf(PyTuple_GET_ITEM(item, 1), &wire)) {
      return nullptr;
    }
    sets[i].kind = DictOperation::Kind::kSet;
    sets[i].value = DictValueOf(wire);
    sets[i].set.ttl = ttl;
    sets[i].set.fence = fence;
  }
  DictTransactionResult result;
  const Status status = RunLong(self, [&] { return self->dict->Transact({}, sets, {}, &result); });
  if (!status.ok()) return Fail(self, status);
  Py_RETURN_NONE;
}

// delete(key, condition, fence, previous)
PyObject* Delete(DictObject* self, Arguments args) {
  std::string_view key;
  DictDeleteOptions options;
  if (!TextOf(args[0], &key) || !ConditionOf(args[1], &options.condition) ||
      !UnsignedOf(args[2], &options.fence)) {
    return nullptr;
  }
  DictEntry previous;
  if (PyObject_IsTrue(args[3]) == 1) options.previous = &previous;
  DictResult result;
  const Status status = RunShort(self, [&] { return self->dict->Delete(key, options, &result); });
  if (!status.ok()) return Fail(self, status);
  return AppliedObject(self, result, options.previous);
}

Number EditNumber(const DictValue& value) {
  if (value.kind == DictKind::kInt64) return Number::Int(static_cast<int64_t>(value.bits));
  return Number::Float(std::bit_cast<double>(value.bits));
}

// What increment()'s arguments mean, for a whole entry and for a part.
struct IncrementArguments {
  DictIncrement increment;
  bool has_min = false;
  bool has_max = false;
};

bool IncrementOf(Arguments args, IncrementArguments* out) {
  DictIncrement& increment = out->increment;
  if (!NumberOf(args[2], &increment.delta)) return false;
  const bool is_float = increment.delta.kind == DictKind::kFloat64;
  increment.initial = is_float ? DictValue::Float64(0) : DictValue::Int64(0);
  if (args[3] != Py_None && !NumberOf(args[3], &increment.initial)) return false;
  increment.must_exist = PyObject_IsTrue(args[4]) == 1;
  increment.min = is_float ? DictValue::Float64(-std::numeric_limits<double>::infinity())
                           : DictValue::Int64(std::numeric_limits<int64_t>::min());
  increment.max = is_float ? DictValue::Float64(std::numeric_limits<double>::infinity())
                           : DictValue::Int64(std::numeric_limits<int64_t>::max());
  out->has_min = args[5] != Py_None;
  out->has_max = args[6] != Py_None;
  if ((out->has_min && !NumberOf(args[5], &increment.min)) ||
      (out->has_max && !NumberOf(args[6], &increment.max))) {
    return false;
  }
  increment.bounded = out->has_min || out->has_max;
  return TtlOf(args[7], &increment.ttl) && UnsignedOf(args[8], &increment.fence);
}

PyObject* IncrementAtPath(DictObject* self, std::string_view key, std::span<const PathStep> path,
                          const IncrementArguments& wanted) {
  EntryEdit edit;
  edit.path = path;
  edit.edit.kind = EditKind::kIncrement;
  edit.edit.delta = EditNumber(wanted.increment.delta);
  if (!wanted.increment.must_exist) edit.edit.initial = EditNumber(wanted.increment.initial);
  if (wanted.has_min) edit.edit.min = EditNumber(wanted.increment.min);
  if (wanted.has_max) edit.edit.max = EditNumber(wanted.increment.max);
  edit.fence = wanted.increment.fence;
  EntryEditResult result;
  const Status status = RunShort(self, [&] { return self->dict->Edit(key, edit, &result); });
  if (!status.ok()) return Fail(self, status);
  const Number& number = result.edit.number;
  const Reference object(number.is_float ? PyFloat_FromDouble(number.real)
                                         : PyLong_FromLongLong(number.integer));
  if (object.get() == nullptr) return nullptr;
  return Py_BuildValue("(OK)", object.get(), static_cast<unsigned long long>(result.version));
}

// increment(key, path, delta, initial, must_exist, min, max, ttl, fence)
PyObject* Increment(DictObject* self, Arguments args) {
  std::string_view key;
  std::vector<PathStep> path;
  IncrementArguments wanted;
  if (!TextOf(args[0], &key) || !PathOf(args[1], &path) || !IncrementOf(args, &wanted)) {
    return nullptr;
  }
  if (!path.empty()) return IncrementAtPath(self, key, path, wanted);
  DictResult result;
  const Status status =
      RunShort(self, [&] { return self->dict->Increment(key, wanted.increment, &result); });
  if (!status.ok()) return Fail(self, status);
  const Reference number(NumberObject(result.kind, result.bits));
  if (number.get() == nullptr) return nullptr;
  return Py_BuildValue("(OK)", number.get(), static_cast<unsigned long long>(result.version));
}

struct EditName {
  std::string_view name;
  EditKind kind;
};
constexpr EditName kEditNames[] = {
    {"set", EditKind::kSet},
    {"delete", EditKind::kDelete},
    {"append", EditKind::kAppend},
    {"extend", EditKind::kExtend},
    {"insert", EditKind::kInsert},
    {"pop", EditKind::kPop},
    {"remove", EditKind::kRemoveValue},
    {"merge", EditKind::kMergeMap},
    {"clear", EditKind::kClear},
    {"slice", EditKind::kSetSlice},
    {"set_default", EditKind::kSetDefault},
    {"append_string", EditKind::kStringAppend},
    {"append_bytes", EditKind::kBytesAppend},
};

// edit(key, path, kind, wire, start, stop, create, if_version, fence); `path` keeps the steps.
bool EditOf(Arguments args, std::vector<PathStep>* path, EntryEdit* entry_edit) {
  std::string_view name;
  Edit& edit = entry_edit->edit;
  if (!PathOf(args[1], path) || !TextOf(args[2], &name)) return false;
  entry_edit->path = *path;
  const auto* const found = std::find_if(std::begin(kEditNames), std::end(kEditNames),
                                         [&](const EditName& known) { return known.name == name; });
  if (found == std::end(kEditNames)) {
    PyErr_SetString(PyExc_ValueError, "there is no edit of that name");
    return false;
  }
  edit.kind = found->kind;
  if (args[3] != Py_None && !BytesOf(args[3], &edit.value)) return false;
  if (edit.kind == EditKind::kStringAppend || edit.kind == EditKind::kBytesAppend) {
    edit.value = ValueView(edit.value).payload();
  }
  edit.start = PyLong_AsLongLong(args[4]);
  edit.stop = PyLong_AsLongLong(args[5]);
  if (PyErr_Occurred() != nullptr) return false;
  entry_edit->create = PyObject_IsTrue(args[6]) == 1;
  edit.create_parents = edit.create_missing = entry_edit->create;
  return UnsignedOf(args[7], &entry_edit->if_version) && UnsignedOf(args[8], &entry_edit->fence);
}

PyObject* EditEntry(DictObject* self, Arguments args) {
  std::string_view key;
  std::vector<PathStep> path;
  EntryEdit edit;
  if (!TextOf(args[0], &key) || !EditOf(args, &path, &edit)) return nullptr;
  EntryEditResult result;
  const Status status = RunShort(self, [&] { return self->dict->Edit(key, edit, &result); });
  if (!status.ok()) return Fail(self, status);
  std::string_view gives;
  if (edit.edit.kind == EditKind::kPop || edit.edit.kind == EditKind::kDelete) {
    gives = result.edit.removed;
  } else if (edit.edit.kind == EditKind::kSetDefault) {
    gives = result.edit.changed ? edit.edit.value : result.edit.found;
  }
  const Reference wire(gives.empty() ? Py_NewRef(Py_None) : BytesObject(gives));
  if (wire.get() == nullptr) return nullptr;
  return Py_BuildValue("(KOK)", static_cast<unsigned long long>(result.version), wire.get(),
                       static_cast<unsigned long long>(result.edit.length));
}

// touch(key, ttl)
PyObject* Touch(DictObject* self, Arguments args) {
  std::string_view key;
  DictTtl ttl;
  if (!TextOf(args[0], &key) || !TtlOf(args[1], &ttl)) return nullptr;
  DictResult result;
  const Status status = RunShort(self, [&] { return self->dict->Touch(key, ttl, &result); });
  if (!status.ok()) return Fail(self, status);
  return Py_BuildValue("(OK)", result.applied ? Py_True : Py_False,
                       static_cast<unsigned long long>(result.version));
}

PyObject* DeletePrefix(DictObject* self, Arguments args) {
  std::string_view prefix;
  if (!TextOf(args[0], &prefix)) return nullptr;
  uint64_t deleted = 0;
  const Status status = RunLong(self, [&] { return self->dict->DeletePrefix(prefix, &deleted); });
  return status.ok() ? PyLong_FromUnsignedLongLong(deleted) : Fail(self, status);
}

PyObject* Clear(DictObject* self, Arguments) {
  uint64_t deleted = 0;
  const Status status = RunLong(self, [&] { return self->dict->Clear(&deleted); });
  return status.ok() ? PyLong_FromUnsignedLongLong(deleted) : Fail(self, status);
}

PyObject* Length(DictObject* self, Arguments) {
  const Py_ssize_t length = PyObject_Size(reinterpret_cast<PyObject*>(self));
  return length < 0 ? nullptr : PyLong_FromSsize_t(length);
}

bool ComparesOf(PyObject* list, std::vector<DictCompare>* compares) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    PyObject* const item = PyList_GET_ITEM(list, i);
    DictCompare& compare = compares->emplace_back();
    if (!TextOf(PyTuple_GET_ITEM(item, 0), &compare.key) ||
        !ConditionOf(PyTuple_GET_ITEM(item, 1), &compare.condition)) {
      return false;
    }
  }
  return true;
}

// ("get", key), ("set", key, wire, condition, ttl, fence), ("delete", key, condition, fence) or
// ("increment", key, delta, initial, must_exist, min, max, ttl, fence).
bool StepOf(Arguments items, DictOperation* step) {
  std::string_view kind;
  if (!TextOf(items[0], &kind) || !TextOf(items[1], &step->key)) return false;
  if (kind == "get" && items.size() == 2) return true;
  if (kind == "set" && items.size() == 6) {
    std::string_view wire;
    step->kind = DictOperation::Kind::kSet;
    if (!BytesOf(items[2], &wire)) return false;
    step->value = DictValueOf(wire);
    return ConditionOf(items[3], &step->set.condition) && TtlOf(items[4], &step->set.ttl) &&
           UnsignedOf(items[5], &step->set.fence);
  }
  if (kind == "delete" && items.size() == 4) {
    step->kind = DictOperation::Kind::kDelete;
    return ConditionOf(items[2], &step->erase.condition) &&
           UnsignedOf(items[3], &step->erase.fence);
  }
  if (kind == "increment" && items.size() == 9) {
    IncrementArguments wanted;
    step->kind = DictOperation::Kind::kIncrement;
    if (!IncrementOf(items, &wanted)) return false;
    step->increment = wanted.increment;
    return true;
  }
  PyErr_SetString(PyExc_ValueError, "there is no step of that name and length");
  return false;
}

bool StepsOf(PyObject* list, std::vector<DictOperation>* steps) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    PyObject* const item = PyList_GET_ITEM(list, i);
    const Arguments items(&PyTuple_GET_ITEM(item, 0), static_cast<size_t>(PyTuple_GET_SIZE(item)));
    if (!StepOf(items, &steps->emplace_back())) return false;
  }
  return true;
}

// (version, entry or None, number or None)
PyObject* StepResultObject(const LocalDict& dict, const DictOperation& step,
                           const DictOperationResult& each) {
  const bool is_number = step.kind == DictOperation::Kind::kIncrement;
  const Reference entry(!is_number && each.result.existed ? EntryObject(dict, each.entry, true)
                                                          : Py_NewRef(Py_None));
  const Reference number(is_number ? NumberObject(each.result.kind, each.result.bits)
                                   : Py_NewRef(Py_None));
  if (entry.get() == nullptr || number.get() == nullptr) return nullptr;
  return Py_BuildValue("(KOO)", static_cast<unsigned long long>(each.result.version), entry.get(),
                       number.get());
}

// transact(compares, then, otherwise)
PyObject* Transact(DictObject* self, Arguments args) {
  std::vector<DictCompare> compares;
  std::vector<DictOperation> then;
  std::vector<DictOperation> otherwise;
  if (!ComparesOf(args[0], &compares) || !StepsOf(args[1], &then) ||
      !StepsOf(args[2], &otherwise)) {
    return nullptr;
  }
  DictTransactionResult result;
  const Status status =
      RunLong(self, [&] { return self->dict->Transact(compares, then, otherwise, &result); });
  if (!status.ok()) return Fail(self, status);
  const std::vector<DictOperation>& steps = result.compared ? then : otherwise;
  const Reference results(PyList_New(0));
  for (size_t i = 0; results.get() != nullptr && i < result.results.size(); ++i) {
    const Reference each(StepResultObject(*self->dict, steps[i], result.results[i]));
    if (each.get() == nullptr || PyList_Append(results.get(), each.get()) != 0) return nullptr;
  }
  if (results.get() == nullptr) return nullptr;
  return PyTuple_Pack(2, result.compared ? Py_True : Py_False, results.get());
}

struct WaitName {
  std::string_view name;
  EntryWait::Kind kind;
};
constexpr WaitName kWaitNames[] = {
    {"present", EntryWait::Kind::kPresent},
    {"absent", EntryWait::Kind::kAbsent},
    {"version_above", EntryWait::Kind::kVersionAbove},
    {"version_differs", EntryWait::Kind::kVersionDiffers},
    {"value", EntryWait::Kind::kValue},
};

// wait(key, kind, what, path, seconds)
bool WaitOf(Arguments args, EntryWait* wait, Deadline* deadline) {
  std::string_view name;
  if (!TextOf(args[1], &name) || !PathOf(args[3], &wait->path)) return false;
  const auto* const found = std::find_if(std::begin(kWaitNames), std::end(kWaitNames),
                                         [&](const WaitName& known) { return known.name == name; });
  if (found == std::end(kWaitNames)) {
    PyErr_SetString(PyExc_ValueError, "there is no wait of that kind");
    return false;
  }
  wait->kind = found->kind;
  if (wait->kind == EntryWait::Kind::kValue) {
    std::string_view wire;
    if (!BytesOf(args[2], &wire)) return false;
    wait->value = wire;
  } else if (PyLong_Check(args[2]) && !PyBool_Check(args[2]) &&
             !UnsignedOf(args[2], &wait->version)) {
    return false;
  }
  const double seconds = PyFloat_AsDouble(args[4]);
  if (PyErr_Occurred() != nullptr) return false;
  // The caller asks again after an hour.
  const std::chrono::duration<double> slice(std::clamp(seconds, 0.0, 3600.0));
  *deadline = std::chrono::steady_clock::now() +
              std::chrono::duration_cast<std::chrono::nanoseconds>(slice);
  return true;
}

PyObject* Wait(DictObject* self, Arguments args) {
  std::string_view key;
  EntryWait wait;
  Deadline deadline;
  if (!TextOf(args[0], &key) || !WaitOf(args, &wait, &deadline)) return nullptr;
  bool met = false;
  LocalValue value;
  const Status status =
      RunLong(self, [&] { return self->dict->Wait(key, wait, deadline, &met, &value); });
  if (!status.ok()) return Fail(self, status);
  const Reference entry(value.found ? EntryObject(*self->dict, value.entry, true)
                                    : Py_NewRef(Py_None));
  return entry.get() == nullptr ? nullptr
                                : Py_BuildValue("(OO)", met ? Py_True : Py_False, entry.get());
}

struct Request {
  std::string_view name;
  size_t arguments_min;
  PyObject* (*carry_out)(DictObject* self, Arguments args);
};
constexpr Request kRequests[] = {
    {"get", 1, &Get},          {"edit", 9, &EditEntry},      {"set", 6, &Set},
    {"delete", 4, &Delete},    {"increment", 9, &Increment}, {"get_many", 2, &GetMany},
    {"set_many", 3, &SetMany}, {"scan", 4, &Scan},           {"length", 0, &Length},
    {"touch", 2, &Touch},      {"transact", 3, &Transact},   {"delete_prefix", 1, &DeletePrefix},
    {"clear", 0, &Clear},      {"wait", 5, &Wait},
};

}  // namespace

PyObject* DictDo(PyObject* object, PyObject* request) {
  DictObject* const self = Self(object);
  if (self->session->closed) return RaiseClosed(self->dict->name().c_str());
  std::string_view name;
  if (!PyTuple_Check(request) || PyTuple_GET_SIZE(request) == 0 ||
      !PyUnicode_Check(PyTuple_GET_ITEM(request, 0))) {
    PyErr_SetString(PyExc_TypeError, "a request is a tuple that begins with its name");
    return nullptr;
  }
  if (!TextOf(PyTuple_GET_ITEM(request, 0), &name)) return nullptr;
  const Arguments all(&PyTuple_GET_ITEM(request, 0),
                      static_cast<size_t>(PyTuple_GET_SIZE(request)));
  for (const Request& known : kRequests) {
    if (known.name != name) continue;
    if (all.size() - 1 < known.arguments_min) break;
    return known.carry_out(self, all.subspan(1));
  }
  PyErr_Format(PyExc_ValueError, "there is no request %R", request);
  return nullptr;
}

}  // namespace statehouse::python
