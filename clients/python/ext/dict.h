// The type Dict: one dict of the local door. The package's LocalSharedDict derives from it; the
// methods here are those that are called all the time, and _do, which carries out the requests of
// statehouse/_dict_verbs.py.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "clients/c/src/local_dict.h"
#include "clients/python/ext/objects.h"
#include "clients/python/ext/reference.h"

namespace statehouse::python {

// Keeps its session object alive. Guarded by the GIL.
struct DictObject {
  PyObject_HEAD SessionObject* session;
  std::shared_ptr<LocalDict> dict;
  bool any_keys;
};

extern PyTypeObject dict_type;
bool PrepareDictType();

// dict_follow.cc: the type DictFollow, a watch of a dict that reads the follow log by itself.
extern PyTypeObject dict_follow_type;
bool PrepareDictFollowType();

// Runs an operation of the dict. It keeps the GIL, because giving it away costs more than the
// operation, unless a thread of this session is doing something without it: that thread may hold
// what the operation has to wait for, and need the GIL to let go of it.
template <typename Operation>
Status RunShort(DictObject* self, const Operation& operation) {
  const SessionObject& session = *self->session;
  const bool others = session.in_flight > 0 && session.in_flight_fork == ForkCount();
  if (!others && thread_lane.attachment_id == self->dict->session()->attachment_id()) [[likely]] {
    return operation();
  }
  const WithoutGil without_gil(self->session);
  return operation();
}

// The same without the GIL: for what may take long.
template <typename Operation>
Status RunLong(DictObject* self, const Operation& operation) {
  const WithoutGil without_gil(self->session);
  return operation();
}

// dict_arguments.cc: between Python objects and what the engine takes. False or null with an
// exception set. Views borrow from the objects.
bool TextOf(PyObject* object, std::string_view* text);
bool BytesOf(PyObject* object, std::string_view* bytes);
bool UnsignedOf(PyObject* object, uint64_t* number);
bool PathOf(PyObject* object, std::vector<PathStep>* path);
bool TtlOf(PyObject* object, DictTtl* ttl);                    // As _dict_calls.py writes them.
bool ConditionOf(PyObject* object, DictCondition* condition);  // None or (kind, what).
bool NumberOf(PyObject* object, DictValue* number);            // An int of 64 bits or a float.
PyObject* NumberObject(DictKind kind, uint64_t bits);
// (wire bytes, version, seconds to live or None, fence, ordinal)
PyObject* EntryObject(const LocalDict& dict, const DictEntry& entry, bool with_value);
PyObject* BytesObject(std::string_view bytes);

// Calls a method of the Python class that derives from a type here. Null with an exception set.
PyObject* CallDerived(PyObject* self, const char* name, PyObject* const* args, Py_ssize_t count,
                      PyObject* names);
// The text of a key that is another object, or none at all: Python's part knows (_key).
bool DerivedKeyOf(PyObject* self, PyObject* key, std::string_view* text, Reference* held);
// A key's bytes. `held` keeps them where they are not those of the object itself.
inline bool KeyOf(PyObject* self, bool any_keys, PyObject* key, std::string_view* text,
                  Reference* held) {
  if (PyUnicode_Check(key)) [[likely]] {
    if (!TextOf(key, text)) return false;
    if (!any_keys || (!text->empty() && text->front() != '\0')) [[likely]]
      return true;
  }
  return DerivedKeyOf(self, key, text, held);
}

// dict_requests.cc: _do(request).
PyObject* DictDo(PyObject* self, PyObject* request);

}  // namespace statehouse::python
