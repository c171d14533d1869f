// The types of batches, for the module.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

namespace statehouse::python {

// Operation, Noted, BatchDict, and the functions that end operations. False with an exception set.
bool AddBatchTypes(PyObject* module);

}  // namespace statehouse::python
