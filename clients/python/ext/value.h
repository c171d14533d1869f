// The codec: Python objects <-> the wire bytes of statehouse.v1.Value (docs/formats/value.md),
// without a protobuf library.
//
// What has no type of its own on the wire goes through Python: statehouse/_values.py says how to
// write it (`reduce`) and makes it again (`restore`). Everything here needs the GIL.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string>
#include <string_view>

namespace statehouse::python {

// Python's part of the codec. Set once, when the package is imported, and kept for ever.
struct ValueHooks {
  PyObject* reduce = nullptr;     // (object) -> how to write it; see statehouse/_values.py.
  PyObject* restore = nullptr;    // (tag, value) -> object
  PyObject* timestamp = nullptr;  // (seconds, nanos) -> datetime
  PyObject* tensor = nullptr;     // (dtype, shape, data) -> array
  PyObject* root = nullptr;       // (dict, key, version) -> where what is tracked begins
  PyObject* node = nullptr;       // (parent, step) -> where a tracked container stands
  PyObject* tracked_dict = nullptr;
  PyObject* tracked_list = nullptr;
  PyObject* tracked_set = nullptr;
  PyObject* tracked_any_dict = nullptr;  // A dict whose keys are not all texts.
};
extern ValueHooks value_hooks;

// Writes the value behind what `wire` holds. With `any_keys` dicts may have keys of any hashable
// kind. False with an exception set: TypeError for what no value can hold, InvalidArgument
// (VALUE_INVALID) for what is too deep, too large, holds itself or is no UTF-8; the message says
// where.
bool EncodeValue(PyObject* object, bool any_keys, std::string* wire);

// Makes the object. With a node, containers are tracked ones that stand there, else plain ones.
// `wire` may be any bytes: DataLoss where they are no value. Null with an exception set. Runs
// Python code, so nobody else may change the bytes.
PyObject* DecodeValue(std::string_view wire, PyObject* node);
// Whether DecodeValue would run Python code or make a container, so that it may take long.
bool IsPlainScalar(std::string_view wire);

// The module's functions: set_value_hooks, encode_value, decode_value.
extern PyMethodDef value_functions[];

}  // namespace statehouse::python
