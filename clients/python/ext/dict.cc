// The type Dict: what is called all the time. No keyword parsing here; calls with options go
// through the class that derives from it (SharedDict.set and SharedDict.incr).
#include "clients/python/ext/dict.h"

#include <bit>
#include <cstring>
#include <new>

#include "clients/python/ext/errors.h"
#include "clients/python/ext/reference.h"
#include "clients/python/ext/value.h"
#include "engine/value/value.h"
#include "engine/value/wire.h"

namespace statehouse::python {
namespace {

DictObject* Self(PyObject* self) { return reinterpret_cast<DictObject*>(self); }
const char* NameOf(const DictObject* self) { return self->dict->name().c_str(); }

PyObject* RaiseMissing(DictObject* self, PyObject* key) {
  const Reference error(
      CallDerived(reinterpret_cast<PyObject*>(self), "_missing", &key, 1, nullptr));
  if (error.get() != nullptr) {
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.get())), error.get());
  }
  return nullptr;
}

// The value of an entry that was read; containers are tracked.
PyObject* ValueObject(DictObject* self, std::string_view key, const DictEntry& entry) {
  if (entry.kind != DictKind::kBytes) return NumberObject(entry.kind, entry.bits);
  if (IsPlainScalar(entry.bytes)) return DecodeValue(entry.bytes, nullptr);
  const Reference text(
      PyUnicode_DecodeUTF8(key.data(), static_cast<Py_ssize_t>(key.size()), nullptr));
  const Reference version(PyLong_FromUnsignedLongLong(entry.version));
  if (text.get() == nullptr || version.get() == nullptr) return nullptr;
  const Reference root(PyObject_CallFunctionObjArgs(
      value_hooks.root, reinterpret_cast<PyObject*>(self), text.get(), version.get(), nullptr));
  return root.get() == nullptr ? nullptr : DecodeValue(entry.bytes, root.get());
}

// Reads the entry of a key. False with an exception set.
bool Look(DictObject* self, std::string_view key, DictEntry* entry, bool* found) {
  if (self->session->closed) [[unlikely]]
    return RaiseClosed(NameOf(self)) != nullptr;
  // A read needs no lane, but whoever reads may have to follow the dict.
  const SessionObject& session = *self->session;
  const bool others = session.in_flight > 0 && session.in_flight_fork == ForkCount();
  const auto read = [&] { return self->dict->Get(key, entry, found); };
  const Status status = others ? RunLong(self, read) : read();
  return status.ok() || Raise(status, NameOf(self)) != nullptr;
}

PyObject* Subscript(PyObject* object, PyObject* key_object) {
  DictObject* const self = Self(object);
  std::string_view key;
  Reference held(nullptr);
  DictEntry entry;
  bool found = false;
  if (!KeyOf(object, self->any_keys, key_object, &key, &held) ||
      !Look(self, key, &entry, &found)) {
    return nullptr;
  }
  if (!found) [[unlikely]]
    return RaiseMissing(self, key_object);
  return ValueObject(self, key, entry);
}

int Contains(PyObject* object, PyObject* key_object) {
  DictObject* const self = Self(object);
  std::string_view key;
  Reference held(nullptr);
  DictEntry entry;
  bool found = false;
  if (!KeyOf(object, self->any_keys, key_object, &key, &held) ||
      !Look(self, key, &entry, &found)) {
    return -1;
  }
  return found ? 1 : 0;
}

// get(key, default=None)
PyObject* Get(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  static constexpr const char* kParameters[] = {"key", "default", nullptr};
  PyObject* values[2] = {};
  if (names == nullptr && (count == 1 || count == 2)) [[likely]] {
    values[0] = args[0];
    if (count == 2) values[1] = args[1];
  } else if (!TakeArguments("get", kParameters, 1, args, count, names, values)) {
    return nullptr;
  }
  DictObject* const self = Self(object);
  std::string_view key;
  Reference held(nullptr);
  DictEntry entry;
  bool found = false;
  if (!KeyOf(object, self->any_keys, values[0], &key, &held) ||
      !Look(self, key, &entry, &found)) {
    return nullptr;
  }
  if (!found) return Py_NewRef(values[1] == nullptr ? Py_None : values[1]);
  return ValueObject(self, key, entry);
}

// The engine's form of a Python value: short texts and bytes without an allocation.
class StoredValue final {
 public:
  // False with an exception set.
  bool Set(PyObject* object, bool any_keys) {
    if (PyFloat_CheckExact(object)) {
      value_ = DictValue::Float64(PyFloat_AS_DOUBLE(object));
      return true;
    }
    if (PyLong_CheckExact(object)) {
      int overflow = 0;
      const long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
      value_ = DictValue::Int64(number);
      if (overflow == 0) return true;
    }
    if (PyBytes_CheckExact(object) && PyBytes_GET_SIZE(object) < kShort) {
      return Short(internal::kBytesTag, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object));
    }
    if (PyUnicode_CheckExact(object)) {
      Py_ssize_t length = 0;
      const char* const text = PyUnicode_AsUTF8AndSize(object, &length);
      if (text != nullptr && length < kShort) return Short(internal::kStringTag, text, length);
      PyErr_Clear();  // EncodeValue says so in its own words.
    }
    if (!EncodeValue(object, any_keys, &wire_)) return false;
    value_ = DictValueOf(wire_);
    return true;
  }

  const DictValue& value() const { return value_; }

 private:
  static constexpr Py_ssize_t kShort = 500;

  bool Short(char tag, const char* bytes, Py_ssize_t length) {
    short_[0] = tag;
    char* const at = internal::PutVarint(short_ + 1, static_cast<uint64_t>(length));
    std::memcpy(at, bytes, static_cast<size_t>(length));
    value_ = DictValue::Bytes({short_, static_cast<size_t>(at - short_ + length)});
    return true;
  }

  DictValue value_;
  std::string wire_;
  char short_[kShort + 1 + internal::kVarintBytesMax];
};

bool SetItem(PyObject* object, PyObject* key_object, PyObject* value_object) {
  DictObject* const self = Self(object);
  std::string_view key;
  Reference held(nullptr);
  StoredValue stored;
  if (self->session->closed) [[unlikely]]
    return RaiseClosed(NameOf(self)) != nullptr;
  if (!KeyOf(object, self->any_keys, key_object, &key, &held) ||
      !stored.Set(value_object, self->any_keys)) {
    return false;
  }
  DictResult result;
  const Status status = RunShort(
      self, [&] { return self->dict->Set(key, stored.value(), DictSetOptions(), &result); });
  return status.ok() || Raise(status, NameOf(self)) != nullptr;
}

bool IsTracked(PyObject* object) {
  auto* const type = reinterpret_cast<PyObject*>(Py_TYPE(object));
  return type == value_hooks.tracked_dict || type == value_hooks.tracked_list ||
         type == value_hooks.tracked_set || type == value_hooks.tracked_any_dict;
}

// d[key] = value, and del d[key] where `value` is null.
int Assign(PyObject* object, PyObject* key, PyObject* value) {
  if (value == nullptr) {
    const Reference done(CallDerived(object, "_delete_item", &key, 1, nullptr));
    return done.get() == nullptr ? -1 : 0;
  }
  if (IsTracked(value)) {
    const Reference stored(PyObject_CallMethod(object, "_is_stored", "OO", key, value));
    if (stored.get() == nullptr) return -1;
    if (stored.get() == Py_True) return 0;
  }
  return SetItem(object, key, value) ? 0 : -1;
}

// set(key, value) -> True; with options: SharedDict.set.
PyObject* Set(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  if (names != nullptr || count != 2) return CallDerived(object, "_set_with", args, count, names);
  if (!SetItem(object, args[0], args[1])) return nullptr;
  Py_RETURN_TRUE;
}

// incr(key, delta=1); with options, and for numbers that are no small ints: SharedDict.incr.
PyObject* Increment(PyObject* object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  DictIncrement increment;
  bool simple = names == nullptr && (count == 1 || count == 2);
  long long delta = 1;
  if (simple && count == 2) {
    int overflow = 1;
    if (PyLong_CheckExact(args[1])) delta = PyLong_AsLongLongAndOverflow(args[1], &overflow);
    simple = overflow == 0;
  }
  if (!simple) return CallDerived(object, "_incr_with", args, count, names);
  DictObject* const self = Self(object);
  if (self->session->closed) [[unlikely]]
    return RaiseClosed(NameOf(self));
  std::string_view key;
  Reference held(nullptr);
  if (!KeyOf(object, self->any_keys, args[0], &key, &held)) return nullptr;
  increment.delta = DictValue::Int64(delta);
  increment.initial = DictValue::Int64(0);
  DictResult result;
  const Status status =
      RunShort(self, [&] { return self->dict->Increment(key, increment, &result); });
  if (!status.ok()) [[unlikely]]
    return Raise(status, NameOf(self));
  return NumberObject(result.kind, result.bits);
}

Py_ssize_t Length(PyObject* object) {
  DictObject* const self = Self(object);
  if (self->session->closed) {
    RaiseClosed(NameOf(self));
    return -1;
  }
  uint64_t length = 0;
  const Status status = RunShort(self, [&]() -> Status {
    SH_ASSIGN_OR_RETURN(length, self->dict->Length());
    return Status();
  });
  if (!status.ok()) {
    Raise(status, NameOf(self));
    return -1;
  }
  return static_cast<Py_ssize_t>(length);
}

// Dict(session, name, any_keys): opens a dict that exists.
PyObject* New(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject* session_object = nullptr;
  const char* name_text = nullptr;
  int any_keys = 0;
  if (PyArg_ParseTuple(args, "O!sp", &session_type, &session_object, &name_text, &any_keys) == 0) {
    return nullptr;
  }
  auto* const session = reinterpret_cast<SessionObject*>(session_object);
  if (session->closed) return RaiseClosed(name_text);
  const std::string name(name_text);
  StatusOr<std::shared_ptr<LocalDict>> dict = std::shared_ptr<LocalDict>();
  {
    const WithoutGil without_gil(session);
    dict = session->session->OpenDict(name);
  }
  if (!dict.ok()) return Raise(dict.status(), name.c_str());
  auto* const self = Self(type->tp_alloc(type, 0));
  if (self == nullptr) return nullptr;
  Py_INCREF(session);
  self->session = session;
  new (&self->dict) std::shared_ptr<LocalDict>(*std::move(dict));
  self->any_keys = any_keys != 0;
  return reinterpret_cast<PyObject*>(self);
}

void Destroy(PyObject* object) {
  DictObject* const self = Self(object);
  self->dict.~shared_ptr();
  Py_DECREF(self->session);
  Py_TYPE(object)->tp_free(object);
}

PyObject* GetName(PyObject* self, void*) {
  const std::string& name = Self(self)->dict->name();
  return PyUnicode_FromStringAndSize(name.data(), static_cast<Py_ssize_t>(name.size()));
}

PyObject* GetAnyKeys(PyObject* self, void*) { return PyBool_FromLong(Self(self)->any_keys); }

PyMethodDef methods[] = {
    {"get", AsMethod(&Get), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("get(key, default=None): the value, or `default` where there is none.")},
    {"set", AsMethod(&Set), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("set(key, value, *, ttl=None, if_absent=False, if_present=False, if_version=None, "
               "if_value=..., fence=None) -> bool: see SharedDict.set.")},
    {"incr", AsMethod(&Increment), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("incr(key, delta=1, *, path=(), default=0, min=None, max=None, ttl=None, "
               "fence=None): adds and returns the new number; see SharedDict.incr.")},
    {"_do", &DictDo, METH_O, PyDoc_STR("_do(request): carries out a verb's request.")},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef properties[] = {
    {"name", &GetName, nullptr, PyDoc_STR("The dict's name."), nullptr},
    {"_any_keys", &GetAnyKeys, nullptr, PyDoc_STR("Whether keys may be other than str."), nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMappingMethods mapping_slots = {&Length, &Subscript, &Assign};
PySequenceMethods sequence_slots = {};

}  // namespace

PyTypeObject dict_type = {PyVarObject_HEAD_INIT(nullptr, 0)};

bool PrepareDictType() {
  sequence_slots.sq_contains = &Contains;
  dict_type.tp_name = "statehouse._local.Dict";
  dict_type.tp_doc =
      PyDoc_STR("One dict of the local door: entries in memory that this process maps.");
  dict_type.tp_basicsize = sizeof(DictObject);
  dict_type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE;
  dict_type.tp_new = &New;
  dict_type.tp_dealloc = &Destroy;
  dict_type.tp_methods = methods;
  dict_type.tp_getset = properties;
  dict_type.tp_as_mapping = &mapping_slots;
  dict_type.tp_as_sequence = &sequence_slots;
  return PyType_Ready(&dict_type) == 0;
}

}  // namespace statehouse::python
