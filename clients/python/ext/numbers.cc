#include "clients/python/ext/numbers.h"

#include <cmath>
#include <limits>
#include <string>

#include "clients/python/ext/errors.h"

namespace statehouse::python {
namespace {

constexpr double kSecondsMax = 100.0 * 365 * 24 * 60 * 60;

std::string TextOf(const WideNumber& number) {
  if (!number.fits) return number.negative ? "a number below -2^63" : "a number above 2^64";
  return number.negative ? std::to_string(static_cast<int64_t>(number.bits))
                         : std::to_string(number.bits);
}

std::string Quoted(const char* name) { return "area \"" + std::string(name) + "\": "; }

}  // namespace

bool ParseWide(PyObject* object, WideNumber* number) {
  PyObject* const index = PyNumber_Index(object);
  if (index == nullptr) return false;
  int overflow = 0;
  const long long signed_value = PyLong_AsLongLongAndOverflow(index, &overflow);
  number->negative = overflow < 0 || (overflow == 0 && signed_value < 0);
  number->fits = overflow == 0;
  number->bits = static_cast<uint64_t>(signed_value);
  if (overflow > 0) {
    const unsigned long long unsigned_value = PyLong_AsUnsignedLongLong(index);
    number->fits = PyErr_Occurred() == nullptr;
    number->bits = unsigned_value;
    PyErr_Clear();  // An overflow is what `fits` says.
  }
  Py_DECREF(index);
  return true;
}

bool ParseSizeSlow(PyObject* object, const char* what, const char* name, uint64_t* size) {
  WideNumber number;
  if (!ParseWide(object, &number)) return false;
  if (number.negative || !number.fits) {
    Raise(Reason::kOutOfBounds,
          Quoted(name) + what + " is " + TextOf(number) +
              "; it must be a number of bytes inside the area",
          name);
    return false;
  }
  *size = number.bits;
  return true;
}

bool ParseValueSlow(PyObject* object, WordType type, const char* name, uint64_t* bits) {
  WideNumber number;
  if (!ParseWide(object, &number)) return false;
  const bool fits =
      number.fits && (number.negative ? FitsSigned(type, static_cast<int64_t>(number.bits))
                                      : FitsUnsigned(type, number.bits));
  if (!fits) {
    Raise(Reason::kValueOutOfRange,
          Quoted(name) + TextOf(number) + " does not fit " +
              (IsSigned(type) ? "a signed" : "an unsigned") + " word of " +
              std::to_string(WordBytes(type)) + " bytes",
          name);
    return false;
  }
  *bits = number.bits & WordMask(type);
  return true;
}

bool ParseDeltaSlow(PyObject* object, const char* name, uint64_t* delta) {
  WideNumber number;
  if (!ParseWide(object, &number)) return false;
  if (!number.fits) {
    Raise(Reason::kValueOutOfRange,
          Quoted(name) + "delta is " + TextOf(number) + "; it must fit 64 bits", name);
    return false;
  }
  *delta = number.bits;
  return true;
}

bool ParseFence(PyObject* object, const char* name, uint64_t* fence) {
  *fence = 0;
  if (object == nullptr || object == Py_None || SmallUnsigned(object, fence)) return true;
  if (PyLong_Check(object) == 0) {
    PyErr_Format(PyExc_TypeError, "fence must be an int, not %s", Py_TYPE(object)->tp_name);
    return false;
  }
  WideNumber number;
  if (!ParseWide(object, &number)) return false;
  if (number.negative || !number.fits) {
    Raise(Reason::kInvalidArgument,
          "fence is " + TextOf(number) + "; it must be 0 or more and below 2^64", name);
    return false;
  }
  *fence = number.bits;
  return true;
}

bool ParseSeconds(PyObject* object, const char* name, int64_t none_ns, int64_t* nanoseconds) {
  if (object == nullptr || object == Py_None) {
    *nanoseconds = none_ns;
    return true;
  }
  const double seconds = PyFloat_AsDouble(object);
  if (seconds == -1.0 && PyErr_Occurred() != nullptr) return false;
  if (std::isnan(seconds) || seconds < 0) {
    Raise(Reason::kInvalidArgument, "a timeout must be a number of seconds, 0 or more", name);
    return false;
  }
  *nanoseconds = static_cast<int64_t>(std::fmin(seconds, kSecondsMax) * 1e9);
  return true;
}

}  // namespace statehouse::python
