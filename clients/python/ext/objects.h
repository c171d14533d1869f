// The extension's types: Session (an attachment), Area (one mapped area) and CompareExchangeResult.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <memory>

#include "clients/c/src/local_session.h"

namespace statehouse::python {

// Guarded by the GIL. Closed for good once `closed` is set and no operation runs without the GIL
// any more.
struct SessionObject {
  PyObject_HEAD std::shared_ptr<LocalSession> session;
  bool closed;
  uint32_t in_flight;  // Operations that run without the GIL.
  uint64_t
      in_flight_fork;  // ForkCount() that `in_flight` belongs to: a child has none of its parent's.
};

// Keeps its session object and its mapping alive, and so does every buffer that was exported from
// it.
struct AreaObject {
  PyObject_HEAD SessionObject* session;
  std::shared_ptr<LocalArea> area;
  PyObject* make_lock;   // Called as make_lock(area, …) by area.lock(…),
  PyObject* make_watch;  // and this one by area.watch(…).
};

struct CompareExchangeResultObject {
  PyObject_HEAD bool exchanged;
  WordType type;
  uint64_t found;
};

extern PyTypeObject session_type;
extern PyTypeObject area_type;
extern PyTypeObject compare_exchange_result_type;
extern PyTypeObject locks_type;
extern PyTypeObject lease_type;

// Makes the types ready. False with an exception set.
bool PrepareSessionType();
bool PrepareAreaType();
bool PrepareCompareExchangeResultType();
bool PrepareLockTypes();

// A new Area object. Null with an exception set.
PyObject* NewArea(SessionObject* session, std::shared_ptr<LocalArea> area, PyObject* make_lock,
                  PyObject* make_watch);

// While it lives, the GIL is released and the session is not torn down.
class WithoutGil final {
 public:
  explicit WithoutGil(SessionObject* session);
  ~WithoutGil();
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  SessionObject* const session_;
  PyThreadState* state_;
};

// Raises ClientClosed and returns null.
PyObject* RaiseClosed(const char* name);

// The methods of area_words.cc and area_ranges.cc, for the type in area.cc.
extern PyMethodDef area_word_methods[];
extern const size_t area_word_method_count;
PyObject* AreaRead(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names);
PyObject* AreaWrite(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names);
PyObject* AreaFill(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names);
PyObject* AreaWait(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names);
PyObject* AreaSubscript(PyObject* self, PyObject* key);
int AreaAssign(PyObject* self, PyObject* key, PyObject* value);
PyObject* AreaItem(PyObject* self, Py_ssize_t index);

// Gets the calling thread a lane without holding the GIL, when it has none. False with an exception
// set.
bool EnsureLaneSlow(AreaObject* self);
inline bool EnsureLane(AreaObject* self) {
  if (thread_lane.attachment_id == self->area->session()->attachment_id()) [[likely]]
    return true;
  return EnsureLaneSlow(self);
}

// A method for a PyMethodDef, whatever its signature.
template <typename Function>
PyCFunction AsMethod(Function function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

// Arguments that may come by position or by name: fills `values` in the order of `parameters`
// (null-terminated); a missing one beyond `required` stays null. False with TypeError set.
bool TakeArguments(const char* function, const char* const* parameters, size_t required,
                   PyObject* const* args, Py_ssize_t count, PyObject* names, PyObject** values);

// The keyword argument `fence` of a method of an area that has no other one: 0 where it is not
// given. False with an exception set.
bool TakeFenceSlow(const char* function, PyObject* const* args, Py_ssize_t count, PyObject* names,
                   const char* area, uint64_t* fence);
inline bool TakeFence(const char* function, PyObject* const* args, Py_ssize_t count,
                      PyObject* names, const AreaObject* area, uint64_t* fence) {
  if (names == nullptr) [[likely]]
    return true;
  return TakeFenceSlow(function, args, count, names, area->area->name().c_str(), fence);
}

}  // namespace statehouse::python
