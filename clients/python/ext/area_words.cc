// The word methods of Area: load_u64 and its fifty-five siblings. Hot: no keyword parsing and no
// allocation but the result.
#include <array>
#include <string>

#include "clients/python/ext/errors.h"
#include "clients/python/ext/numbers.h"
#include "clients/python/ext/objects.h"

namespace statehouse::python {
namespace {

AreaObject* Self(PyObject* self) { return reinterpret_cast<AreaObject*>(self); }
const char* NameOf(const AreaObject* self) { return self->area->name().c_str(); }

PyObject* WrongCount(const char* signature) {
  PyErr_Format(PyExc_TypeError, "call it as %s", signature);
  return nullptr;
}

template <WordType kType>
PyObject* Load(PyObject* self_object, PyObject* pos_object) {
  AreaObject* const self = Self(self_object);
  if (self->session->closed) [[unlikely]]
    return RaiseClosed(NameOf(self));
  uint64_t pos = 0;
  if (!ParseSize(pos_object, "pos", NameOf(self), &pos)) return nullptr;
  uint64_t bits = 0;
  const Status status = self->area->Load(kType, pos, &bits);
  if (!status.ok()) [[unlikely]]
    return Raise(status, NameOf(self));
  return NumberFromBits(kType, bits);
}

// What the mutating methods begin with: open, with a lane, and the position.
bool Begin(AreaObject* self, PyObject* pos_object, uint64_t* pos) {
  if (self->session->closed) [[unlikely]]
    return RaiseClosed(NameOf(self)) != nullptr;
  return ParseSize(pos_object, "pos", NameOf(self), pos) && EnsureLane(self);
}

template <WordType kType>
PyObject* Store(PyObject* self_object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  if (count != 2) return WrongCount("store_…(pos, value, *, fence=None)");
  AreaObject* const self = Self(self_object);
  uint64_t pos = 0;
  uint64_t bits = 0;
  uint64_t fence = 0;
  if (!Begin(self, args[0], &pos) || !ParseValue(args[1], kType, NameOf(self), &bits) ||
      !TakeFence("store_…", args, count, names, self, &fence)) {
    return nullptr;
  }
  const Status status = self->area->Store(kType, pos, bits, fence);
  if (!status.ok()) [[unlikely]]
    return Raise(status, NameOf(self));
  Py_RETURN_NONE;
}

template <WordType kType>
PyObject* Add(PyObject* self_object, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  if (count != 1 && count != 2) return WrongCount("add_…(pos, delta=1, *, fence=None)");
  AreaObject* const self = Self(self_object);
  uint64_t pos = 0;
  uint64_t delta = 1;
  uint64_t fence = 0;
  if (!Begin(self, args[0], &pos)) return nullptr;
  if (count == 2 && !ParseDelta(args[1], NameOf(self), &delta)) return nullptr;
  if (!TakeFence("add_…", args, count, names, self, &fence)) return nullptr;
  uint64_t bits = 0;
  const Status status = self->area->Add(kType, pos, delta, &bits, fence);
  if (!status.ok()) [[unlikely]]
    return Raise(status, NameOf(self));
  return NumberFromBits(kType, bits);
}

template <WordType kType, BitwiseOperator kOperator>
PyObject* Bitwise(PyObject* self_object, PyObject* const* args, Py_ssize_t count,
                  PyObject* names) {
  if (count != 2) return WrongCount("bitwise_…(pos, operand, *, fence=None)");
  AreaObject* const self = Self(self_object);
  uint64_t pos = 0;
  uint64_t operand = 0;
  uint64_t fence = 0;
  if (!Begin(self, args[0], &pos) || !ParseValue(args[1], kType, NameOf(self), &operand) ||
      !TakeFence("bitwise_…", args, count, names, self, &fence)) {
    return nullptr;
  }
  uint64_t bits = 0;
  const Status status = self->area->Bitwise(kOperator, kType, pos, operand, &bits, fence);
  if (!status.ok()) [[unlikely]]
    return Raise(status, NameOf(self));
  return NumberFromBits(kType, bits);
}

template <WordType kType>
PyObject* CompareExchange(PyObject* self_object, PyObject* const* args, Py_ssize_t count,
                          PyObject* names) {
  static constexpr const char* kParameters[] = {"pos", "expected", "desired", "fence", nullptr};
  if (count > 3) return WrongCount("compare_exchange_…(pos, expected, desired, *, fence=None)");
  PyObject* values[4] = {};
  if (!TakeArguments("compare_exchange_…", kParameters, 3, args, count, names, values)) {
    return nullptr;
  }
  AreaObject* const self = Self(self_object);
  uint64_t pos = 0;
  uint64_t expected = 0;
  uint64_t desired = 0;
  uint64_t fence = 0;
  if (!Begin(self, values[0], &pos) || !ParseValue(values[1], kType, NameOf(self), &expected) ||
      !ParseValue(values[2], kType, NameOf(self), &desired) ||
      !ParseFence(values[3], NameOf(self), &fence)) {
    return nullptr;
  }
  CompareExchangeResult result;
  const Status status = self->area->CompareExchange(kType, pos, expected, desired, &result, fence);
  if (!status.ok()) [[unlikely]]
    return Raise(status, NameOf(self));
  auto* const object = PyObject_New(CompareExchangeResultObject, &compare_exchange_result_type);
  if (object == nullptr) return nullptr;
  object->exchanged = result.exchanged;
  object->type = kType;
  object->found = result.found;
  return reinterpret_cast<PyObject*>(object);
}

#define SH_LOAD_DOC "The word at `pos`."
#define SH_STORE_DOC "Writes `value` to the word at `pos`."
#define SH_ADD_DOC "Adds `delta`, modulo the word's width, and returns the new value."
#define SH_CAS_DOC \
  "Writes `desired` if the word equals `expected`; the result is true then and has `found`."
#define SH_BITWISE_DOC "Combines the word with `operand` and returns the new value."
#define SH_WORD_METHODS(suffix, type)                                                         \
  {"load_" suffix, AsMethod(&Load<type>), METH_O, PyDoc_STR(SH_LOAD_DOC)},                    \
      {"store_" suffix, AsMethod(&Store<type>), METH_FASTCALL | METH_KEYWORDS,                \
       PyDoc_STR(SH_STORE_DOC)},                                                              \
      {"add_" suffix, AsMethod(&Add<type>), METH_FASTCALL | METH_KEYWORDS,                    \
       PyDoc_STR(SH_ADD_DOC)},                                                                \
      {"compare_exchange_" suffix, AsMethod(&CompareExchange<type>),                          \
       METH_FASTCALL | METH_KEYWORDS, PyDoc_STR(SH_CAS_DOC)},                                 \
      {"bitwise_and_" suffix, AsMethod(&Bitwise<type, BitwiseOperator::kAnd>),                \
       METH_FASTCALL | METH_KEYWORDS, PyDoc_STR(SH_BITWISE_DOC)},                             \
      {"bitwise_or_" suffix, AsMethod(&Bitwise<type, BitwiseOperator::kOr>),                  \
       METH_FASTCALL | METH_KEYWORDS, PyDoc_STR(SH_BITWISE_DOC)},                             \
  {                                                                                           \
    "bitwise_xor_" suffix, AsMethod(&Bitwise<type, BitwiseOperator::kXor>),                   \
        METH_FASTCALL | METH_KEYWORDS, PyDoc_STR(SH_BITWISE_DOC)                              \
  }

}  // namespace

bool TakeFenceSlow(const char* function, PyObject* const* args, Py_ssize_t count, PyObject* names,
                   const char* area, uint64_t* fence) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i) {
    PyObject* const name = PyTuple_GET_ITEM(names, i);
    if (PyUnicode_CompareWithASCIIString(name, "fence") != 0) {
      PyErr_Format(PyExc_TypeError, "%s has no keyword argument %R", function, name);
      return false;
    }
    if (!ParseFence(args[count + i], area, fence)) return false;
  }
  return true;
}

PyMethodDef area_word_methods[] = {
    SH_WORD_METHODS("u8", WordType::kU8),   SH_WORD_METHODS("u16", WordType::kU16),
    SH_WORD_METHODS("u32", WordType::kU32), SH_WORD_METHODS("u64", WordType::kU64),
    SH_WORD_METHODS("i8", WordType::kI8),   SH_WORD_METHODS("i16", WordType::kI16),
    SH_WORD_METHODS("i32", WordType::kI32), SH_WORD_METHODS("i64", WordType::kI64),
};
const size_t area_word_method_count = std::size(area_word_methods);

}  // namespace statehouse::python
