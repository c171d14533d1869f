// Raising statehouse.errors.* from a Status.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string>

#include "engine/base/status.h"

namespace statehouse::python {

// Raises the exception class that belongs to the reason; `name` is the area's, or "". Always
// returns null. An exception that is already set (by a signal handler) stays.
PyObject* Raise(const Status& status, const char* name);
PyObject* Raise(Reason reason, const std::string& message, const char* name,
                uint32_t retry_after_ms = 0);

}  // namespace statehouse::python
