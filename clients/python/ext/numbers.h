// Numbers between Python and words: positions, lengths and values, checked, with a fast path for
// small ints.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>

#include "engine/base/word.h"

namespace statehouse::python {

// An int that needs at most two digits of CPython's representation. False for anything else,
// without an error set.
inline bool SmallUnsigned(PyObject* object, uint64_t* number) {
#if PY_VERSION_HEX < 0x030C0000
  if (!PyLong_CheckExact(object)) return false;
  const auto* digits = reinterpret_cast<PyLongObject*>(object)->ob_digit;
  switch (Py_SIZE(object)) {
    case 0: *number = 0; return true;
    case 1: *number = digits[0]; return true;
    case 2: *number = digits[0] | uint64_t{digits[1]} << PyLong_SHIFT; return true;
    default: return false;
  }
#else
  if (!PyLong_CheckExact(object)) return false;
  auto* const value = reinterpret_cast<PyLongObject*>(object);
  if (!PyUnstable_Long_IsCompact(value)) return false;
  const Py_ssize_t compact = PyUnstable_Long_CompactValue(value);
  *number = static_cast<uint64_t>(compact);
  return compact >= 0;
#endif
}

// What an int is, when it is no small one.
struct WideNumber {
  bool negative = false;
  bool fits = false;  // In 64 bits: an int64 when negative, else a uint64.
  uint64_t bits = 0;  // Two's complement.
};
// False with TypeError set when `object` is no int and has no __index__.
bool ParseWide(PyObject* object, WideNumber* number);

// A position or length named `what`; an area of `name`. OutOfBounds for what no position can be.
bool ParseSizeSlow(PyObject* object, const char* what, const char* name, uint64_t* size);
inline bool ParseSize(PyObject* object, const char* what, const char* name, uint64_t* size) {
  if (SmallUnsigned(object, size)) [[likely]]
    return true;
  return ParseSizeSlow(object, what, name, size);
}

// A number that must fit `type`, as the word's bits. ValueOutOfRange otherwise.
bool ParseValueSlow(PyObject* object, WordType type, const char* name, uint64_t* bits);
inline bool ParseValue(PyObject* object, WordType type, const char* name, uint64_t* bits) {
  if (SmallUnsigned(object, bits) && FitsUnsigned(type, *bits)) [[likely]]
    return true;
  return ParseValueSlow(object, type, name, bits);
}

// Any number of up to 64 bits, to be taken modulo the word's width.
bool ParseDeltaSlow(PyObject* object, const char* name, uint64_t* delta);
inline bool ParseDelta(PyObject* object, const char* name, uint64_t* delta) {
  if (SmallUnsigned(object, delta)) [[likely]]
    return true;
  return ParseDeltaSlow(object, name, delta);
}

inline PyObject* NumberFromBits(WordType type, uint64_t bits) {
  return IsSigned(type) ? PyLong_FromLongLong(SignExtend(type, bits))
                        : PyLong_FromUnsignedLongLong(bits);
}

// A fencing token; none (0) where `object` is null or None. TypeError and InvalidArgument as the
// Python modules raise them.
bool ParseFence(PyObject* object, const char* name, uint64_t* fence);

// Seconds as a float or int; None gives `none_ns`. InvalidArgument when negative or not a number.
// Infinity is for ever.
bool ParseSeconds(PyObject* object, const char* name, int64_t none_ns, int64_t* nanoseconds);

}  // namespace statehouse::python
