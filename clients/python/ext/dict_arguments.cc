#include <bit>

#include "clients/python/ext/dict.h"
#include "clients/python/ext/errors.h"
#include "clients/python/ext/reference.h"
#include "engine/value/value.h"

namespace statehouse::python {
namespace {

constexpr long long kTtlNone = -1;
constexpr long long kTtlKeep = -2;

bool Refuse(const char* what, PyObject* object) {
  PyErr_Format(PyExc_TypeError, "a request needs %s here, not %.100s", what,
               Py_TYPE(object)->tp_name);
  return false;
}

}  // namespace

bool TextOf(PyObject* object, std::string_view* text) {
  if (!PyUnicode_Check(object)) return Refuse("a str", object);
  Py_ssize_t length = 0;
  const char* const bytes = PyUnicode_AsUTF8AndSize(object, &length);
  if (bytes == nullptr) {
    PyErr_Clear();  // It says the same in the codec's words.
    Raise(Reason::kKeyInvalid, "a key holds half a surrogate pair, which UTF-8 cannot hold", "");
    return false;
  }
  *text = {bytes, static_cast<size_t>(length)};
  return true;
}

bool BytesOf(PyObject* object, std::string_view* bytes) {
  if (!PyBytes_Check(object)) return Refuse("bytes", object);
  *bytes = {PyBytes_AS_STRING(object), static_cast<size_t>(PyBytes_GET_SIZE(object))};
  return true;
}

bool UnsignedOf(PyObject* object, uint64_t* number) {
  *number = PyLong_AsUnsignedLongLong(object);
  return PyErr_Occurred() == nullptr;
}

bool PathOf(PyObject* object, std::vector<PathStep>* path) {
  if (!PyTuple_Check(object)) return Refuse("a tuple of steps", object);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); ++i) {
    PyObject* const step = PyTuple_GET_ITEM(object, i);
    if (PyUnicode_Check(step)) {
      std::string_view key;
      if (!TextOf(step, &key)) return false;
      path->push_back(PathStep::Key(key));
    } else {
      path->push_back(PathStep::Index(PyLong_AsLongLong(step)));
      if (PyErr_Occurred() != nullptr) return false;
    }
  }
  return true;
}

bool TtlOf(PyObject* object, DictTtl* ttl) {
  const long long ms = PyLong_AsLongLong(object);
  if (ms == -1 && PyErr_Occurred() != nullptr) return false;
  if (ms > 0) {
    *ttl = DictTtl{DictTtl::Kind::kSet, static_cast<uint64_t>(ms)};
  } else if (ms == kTtlNone) {
    ttl->kind = DictTtl::Kind::kNone;
  } else if (ms == kTtlKeep) {
    ttl->kind = DictTtl::Kind::kKeep;
  }
  return true;
}

bool ConditionOf(PyObject* object, DictCondition* condition) {
  if (object == Py_None) return true;
  if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) != 2) return Refuse("a condition", object);
  std::string_view kind;
  if (!TextOf(PyTuple_GET_ITEM(object, 0), &kind)) return false;
  PyObject* const what = PyTuple_GET_ITEM(object, 1);
  if (kind == "absent") {
    condition->kind = DictCondition::Kind::kAbsent;
  } else if (kind == "present") {
    condition->kind = DictCondition::Kind::kPresent;
  } else if (kind == "version") {
    condition->kind = DictCondition::Kind::kVersion;
    return UnsignedOf(what, &condition->version);
  } else if (kind == "value") {
    std::string_view wire;
    if (!BytesOf(what, &wire)) return false;
    condition->kind = DictCondition::Kind::kValue;
    condition->value = DictValueOf(wire);
  } else {
    return Refuse("a condition of a known kind", object);
  }
  return true;
}

bool NumberOf(PyObject* object, DictValue* number) {
  if (PyFloat_Check(object)) {
    *number = DictValue::Float64(PyFloat_AS_DOUBLE(object));
    return true;
  }
  *number = DictValue::Int64(PyLong_AsLongLong(object));
  return PyErr_Occurred() == nullptr;
}

PyObject* NumberObject(DictKind kind, uint64_t bits) {
  return kind == DictKind::kFloat64 ? PyFloat_FromDouble(std::bit_cast<double>(bits))
                                    : PyLong_FromLongLong(static_cast<int64_t>(bits));
}

PyObject* BytesObject(std::string_view bytes) {
  return PyBytes_FromStringAndSize(bytes.data(), static_cast<Py_ssize_t>(bytes.size()));
}

PyObject* EntryObject(const LocalDict& dict, const DictEntry& entry, bool with_value) {
  std::string storage;
  Reference wire(BytesObject(with_value ? WireOf(entry, &storage) : std::string_view()));
  const std::optional<uint64_t> ttl_ms = dict.TtlMs(entry);
  Reference ttl(ttl_ms.has_value() ? PyFloat_FromDouble(static_cast<double>(*ttl_ms) / 1000)
                                   : Py_NewRef(Py_None));
  if (wire.get() == nullptr || ttl.get() == nullptr) return nullptr;
  return Py_BuildValue("(OKOKKK)", wire.get(), static_cast<unsigned long long>(entry.version),
                       ttl.get(), static_cast<unsigned long long>(entry.fence),
                       static_cast<unsigned long long>(entry.ordinal),
                       static_cast<unsigned long long>(entry.bound_session));
}

PyObject* CallDerived(PyObject* self, const char* name, PyObject* const* args, Py_ssize_t count,
                      PyObject* names) {
  const Reference method(PyObject_GetAttrString(self, name));
  if (method.get() == nullptr) return nullptr;
  return PyObject_Vectorcall(method.get(), args, static_cast<size_t>(count), names);
}

bool DerivedKeyOf(PyObject* self, PyObject* key, std::string_view* text, Reference* held) {
  *held = Reference(CallDerived(self, "_key", &key, 1, nullptr));
  return held->get() != nullptr && TextOf(held->get(), text);
}

}  // namespace statehouse::python
