#include "clients/python/ext/errors.h"

namespace statehouse::python {

PyObject* Raise(const Status& status, const char* name) {
  return Raise(status.reason(), status.message(), name);
}

PyObject* Raise(Reason reason, const std::string& message, const char* name) {
  if (PyErr_Occurred() != nullptr) return nullptr;
  PyObject* const module = PyImport_ImportModule("statehouse.errors");
  if (module == nullptr) return nullptr;
  // A message may quote what is no text.
  PyObject* const text = PyUnicode_DecodeUTF8(
      message.data(), static_cast<Py_ssize_t>(message.size()), "replace");
  PyObject* const error =
      text == nullptr ? nullptr
                      : PyObject_CallMethod(module, "from_reason", "iOs", static_cast<int>(reason),
                                            text, name);
  Py_XDECREF(text);
  Py_DECREF(module);
  if (error == nullptr) return nullptr;
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error)), error);
  Py_DECREF(error);
  return nullptr;
}

}  // namespace statehouse::python
