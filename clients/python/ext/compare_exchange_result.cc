// CompareExchangeResult: true when the word was exchanged, with what was found.
#include "clients/python/ext/numbers.h"
#include "clients/python/ext/objects.h"

namespace statehouse::python {
namespace {

CompareExchangeResultObject* Self(PyObject* self) {
  return reinterpret_cast<CompareExchangeResultObject*>(self);
}

PyObject* GetExchanged(PyObject* self, void*) { return PyBool_FromLong(Self(self)->exchanged); }

PyObject* GetFound(PyObject* self, void*) {
  return NumberFromBits(Self(self)->type, Self(self)->found);
}

int IsTrue(PyObject* self) { return Self(self)->exchanged; }

PyObject* Represent(PyObject* self) {
  PyObject* const found = GetFound(self, nullptr);
  if (found == nullptr) return nullptr;
  PyObject* const text = PyUnicode_FromFormat("CompareExchangeResult(exchanged=%s, found=%R)",
                                              Self(self)->exchanged ? "True" : "False", found);
  Py_DECREF(found);
  return text;
}

// CompareExchangeResult(exchanged, found), for the network door.
PyObject* New(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kNames[] = {"exchanged", "found", nullptr};
  int exchanged = 0;
  PyObject* found = nullptr;
  if (PyArg_ParseTupleAndKeywords(args, kwargs, "pO", const_cast<char**>(kNames), &exchanged,
                                  &found) == 0) {
    return nullptr;
  }
  WideNumber number;
  if (!ParseWide(found, &number)) return nullptr;
  if (!number.fits) {
    PyErr_SetString(PyExc_OverflowError, "found must fit 64 bits");
    return nullptr;
  }
  PyObject* const object = type->tp_alloc(type, 0);
  if (object == nullptr) return nullptr;
  Self(object)->exchanged = exchanged != 0;
  Self(object)->type = number.negative ? WordType::kI64 : WordType::kU64;
  Self(object)->found = number.bits;
  return object;
}

PyGetSetDef properties[] = {
    {"exchanged", &GetExchanged, nullptr, PyDoc_STR("Whether `desired` was written."), nullptr},
    {"found", &GetFound, nullptr, PyDoc_STR("What the word held before."), nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyNumberMethods number_slots = {};

}  // namespace

PyTypeObject compare_exchange_result_type = {PyVarObject_HEAD_INIT(nullptr, 0)};

bool PrepareCompareExchangeResultType() {
  number_slots.nb_bool = &IsTrue;
  PyTypeObject& type = compare_exchange_result_type;
  type.tp_name = "statehouse._local.CompareExchangeResult";
  type.tp_doc = PyDoc_STR("True when the word was exchanged; `found` is what it held before.");
  type.tp_basicsize = sizeof(CompareExchangeResultObject);
  type.tp_flags = Py_TPFLAGS_DEFAULT;
  type.tp_new = &New;
  type.tp_repr = &Represent;
  type.tp_getset = properties;
  type.tp_as_number = &number_slots;
  return PyType_Ready(&type) == 0;
}

}  // namespace statehouse::python
