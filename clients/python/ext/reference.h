// Reference: a Python reference that this scope owns.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace statehouse::python {

// A stack object; needs the GIL where it is made and where it ends.
class Reference final {
 public:
  // Takes over a new reference, or null.
  explicit Reference(PyObject* object) : object_(object) {}
  ~Reference() { Py_XDECREF(object_); }
  Reference(const Reference&) = delete;
  Reference& operator=(Reference&& other) noexcept {
    PyObject* const before = object_;
    object_ = other.Release();
    Py_XDECREF(before);
    return *this;
  }
  Reference& operator=(const Reference&) = delete;

  PyObject* get() const { return object_; }
  // Gives the reference away.
  PyObject* Release() {
    PyObject* const object = object_;
    object_ = nullptr;
    return object;
  }

 private:
  PyObject* object_;
};

}  // namespace statehouse::python
