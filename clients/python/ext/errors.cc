#include "clients/python/ext/errors.h"

namespace statehouse::python {

PyObject* Raise(const Status& status, const char* name) {
  return Raise(status.reason(), status.message(), name, status.retry_after_ms());
}

PyObject* Raise(Reason reason, const std::string& message, const char* name,
                uint32_t retry_after_ms) {
  if (PyErr_Occurred() != nullptr) return nullptr;
  PyObject* const module = PyImport_ImportModule("statehouse.errors");
  if (module == nullptr) return nullptr;
  // A message may quote what is no text.
  PyObject* const text =
      PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "replace");
  PyObject* const error =
      text == nullptr ? nullptr
                      : PyObject_CallMethod(module, "from_reason", "iOsI", static_cast<int>(reason),
                                            text, name, retry_after_ms);
  Py_XDECREF(text);
  Py_DECREF(module);
  if (error == nullptr) return nullptr;
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error)), error);
  Py_DECREF(error);
  return nullptr;
}

}  // namespace statehouse::python
