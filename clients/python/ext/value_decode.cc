// From wire bytes to Python objects.
#include "clients/python/ext/errors.h"
#include "clients/python/ext/reference.h"
#include "clients/python/ext/value.h"
#include "engine/value/value.h"

namespace statehouse::python {

ValueHooks value_hooks;

namespace {

// One run. A method that returns null has set an exception.
class Decoder final {
 public:
  PyObject* Value(std::string_view wire, PyObject* node);

 private:
  PyObject* List(std::string_view payload, PyObject* node);
  PyObject* Map(std::string_view payload, PyObject* node);
  PyObject* Tagged(const ValueView& view, PyObject* node);
  PyObject* KnownTag(std::string_view tag, std::string_view payload, PyObject* node);
  PyObject* Set(std::string_view payload, PyObject* type);
  PyObject* Tuple(std::string_view payload);
  PyObject* AnyDict(std::string_view payload, PyObject* node);
  PyObject* Timestamp(const ValueView& view);
  PyObject* Tensor(const ValueView& view);
  PyObject* Child(std::string_view wire, PyObject* node, PyObject* step);

  size_t depth_ = 0;
};

// Whether what these bytes hold can be tracked.
bool IsContainer(std::string_view wire) {
  const ValueKind kind = ValueView(wire).kind();
  return kind == ValueKind::kList || kind == ValueKind::kMap || kind == ValueKind::kTagged;
}

PyObject* Damaged() {
  return Raise(Reason::kDataLoss,
               "the value is damaged: its bytes are no value; a worker that maps the dict wrote "
               "them. Set the key again",
               "");
}

PyObject* Text(std::string_view text) {
  PyObject* const object =
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), nullptr);
  if (object != nullptr || PyErr_ExceptionMatches(PyExc_UnicodeDecodeError) == 0) return object;
  PyErr_Clear();
  return Damaged();
}

PyObject* Blob(std::string_view bytes) {
  return PyBytes_FromStringAndSize(bytes.data(), static_cast<Py_ssize_t>(bytes.size()));
}

PyObject* BigInt(std::string_view bytes) {
  const Reference from_bytes(
      PyObject_GetAttrString(reinterpret_cast<PyObject*>(&PyLong_Type), "from_bytes"));
  const Reference arguments(
      Py_BuildValue("(y#s)", bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "big"));
  const Reference names(Py_BuildValue("{sO}", "signed", Py_True));
  if (from_bytes.get() == nullptr || arguments.get() == nullptr || names.get() == nullptr) {
    return nullptr;
  }
  return PyObject_Call(from_bytes.get(), arguments.get(), names.get());
}

// A tracked container that stands at `node`.
PyObject* NewTracked(PyObject* type, PyObject* node) {
  Reference container(PyObject_CallNoArgs(type));
  if (container.get() == nullptr || PyObject_SetAttrString(container.get(), "_node", node) != 0) {
    return nullptr;
  }
  return container.Release();
}

PyObject* Decoder::Value(std::string_view wire, PyObject* node) {
  const ValueView view(wire);
  if (depth_ == kValueDepthMax) return Damaged();
  ++depth_;
  PyObject* object = nullptr;
  switch (view.kind()) {
    case ValueKind::kInvalid: object = Damaged(); break;
    case ValueKind::kNull: object = Py_NewRef(Py_None); break;
    case ValueKind::kBool: object = PyBool_FromLong(view.AsBool() ? 1 : 0); break;
    case ValueKind::kInt: object = PyLong_FromLongLong(view.AsInt()); break;
    case ValueKind::kBigInt: object = BigInt(view.payload()); break;
    case ValueKind::kFloat: object = PyFloat_FromDouble(view.AsFloat()); break;
    case ValueKind::kBytes: object = Blob(view.payload()); break;
    case ValueKind::kString: object = Text(view.payload()); break;
    case ValueKind::kList: object = List(view.payload(), node); break;
    case ValueKind::kMap: object = Map(view.payload(), node); break;
    case ValueKind::kTagged: object = Tagged(view, node); break;
    case ValueKind::kTimestamp: object = Timestamp(view); break;
    case ValueKind::kTensor: object = Tensor(view); break;
  }
  --depth_;
  return object;
}

// A value inside a container; tracked when the container is.
PyObject* Decoder::Child(std::string_view wire, PyObject* node, PyObject* step) {
  if (node == nullptr || !IsContainer(wire)) return Value(wire, nullptr);
  const Reference child(PyObject_CallFunctionObjArgs(value_hooks.node, node, step, nullptr));
  return child.get() == nullptr ? nullptr : Value(wire, child.get());
}

PyObject* Decoder::List(std::string_view payload, PyObject* node) {
  Reference list(node == nullptr ? PyList_New(0) : NewTracked(value_hooks.tracked_list, node));
  if (list.get() == nullptr) return nullptr;
  ListReader reader(payload);
  std::string_view wire;
  for (Py_ssize_t i = 0; reader.Next(&wire); ++i) {
    const Reference step(node == nullptr ? nullptr : PyLong_FromSsize_t(i));
    if (node != nullptr && step.get() == nullptr) return nullptr;
    const Reference item(Child(wire, node, step.get()));
    if (item.get() == nullptr || PyList_Append(list.get(), item.get()) != 0) return nullptr;
  }
  return reader.ok() ? list.Release() : Damaged();
}

PyObject* Decoder::Map(std::string_view payload, PyObject* node) {
  Reference dict(node == nullptr ? PyDict_New() : NewTracked(value_hooks.tracked_dict, node));
  if (dict.get() == nullptr) return nullptr;
  MapReader reader(payload);
  std::string_view key_text;
  std::string_view wire;
  while (reader.Next(&key_text, &wire)) {
    const Reference key(Text(key_text));
    if (key.get() == nullptr) return nullptr;
    const Reference item(Child(wire, node, key.get()));
    if (item.get() == nullptr || PyDict_SetItem(dict.get(), key.get(), item.get()) != 0) {
      return nullptr;
    }
  }
  return reader.ok() ? dict.Release() : Damaged();
}

PyObject* Decoder::Tuple(std::string_view payload) {
  const Reference list(List(payload, nullptr));
  return list.get() == nullptr ? nullptr : PyList_AsTuple(list.get());
}

// Fills a new object of `type`, a kind of set. None where an item is not hashable.
PyObject* Decoder::Set(std::string_view payload, PyObject* type) {
  const Reference items(List(payload, nullptr));
  if (items.get() == nullptr) return nullptr;
  PyObject* const set = PyObject_CallOneArg(type, items.get());
  if (set == nullptr && PyErr_ExceptionMatches(PyExc_TypeError) != 0) {
    PyErr_Clear();
    return Py_NewRef(Py_None);
  }
  return set;
}

// None where the list holds something else than pairs, or keys that are not hashable.
PyObject* Decoder::AnyDict(std::string_view payload, PyObject* node) {
  Reference dict(node == nullptr ? PyDict_New() : NewTracked(value_hooks.tracked_any_dict, node));
  const Reference pairs(List(payload, nullptr));
  if (dict.get() == nullptr || pairs.get() == nullptr) return nullptr;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pairs.get()); ++i) {
    PyObject* const pair = PyList_GET_ITEM(pairs.get(), i);
    if (!PyList_CheckExact(pair) || PyList_GET_SIZE(pair) != 2) return Py_NewRef(Py_None);
    if (PyDict_SetItem(dict.get(), PyList_GET_ITEM(pair, 0), PyList_GET_ITEM(pair, 1)) == 0) {
      continue;
    }
    if (PyErr_ExceptionMatches(PyExc_TypeError) == 0) return nullptr;
    PyErr_Clear();
    return Py_NewRef(Py_None);
  }
  return dict.Release();
}

// The tags that need no help from Python; None for any other, and for a list that is not of the
// form that its tag asks for.
PyObject* Decoder::KnownTag(std::string_view tag, std::string_view payload, PyObject* node) {
  if (tag == "tuple") return Tuple(payload);
  if (tag == "frozenset") return Set(payload, reinterpret_cast<PyObject*>(&PyFrozenSet_Type));
  if (tag == "dict") return AnyDict(payload, node);
  if (tag != "set") return Py_NewRef(Py_None);
  if (node == nullptr) return Set(payload, reinterpret_cast<PyObject*>(&PySet_Type));
  Reference set(Set(payload, value_hooks.tracked_set));
  if (set.get() == nullptr || set.get() == Py_None) return set.Release();
  return PyObject_SetAttrString(set.get(), "_node", node) == 0 ? set.Release() : nullptr;
}

PyObject* Decoder::Tagged(const ValueView& view, PyObject* node) {
  TaggedValue tagged;
  if (!view.ReadTagged(&tagged)) return Damaged();
  if (const ValueView inner(tagged.value); inner.kind() == ValueKind::kList) {
    Reference known(KnownTag(tagged.tag, inner.payload(), node));
    if (known.get() != Py_None) return known.Release();
  }
  const Reference tag(Text(tagged.tag));
  const Reference value(tag.get() == nullptr ? nullptr : Value(tagged.value, nullptr));
  if (value.get() == nullptr) return nullptr;
  return PyObject_CallFunctionObjArgs(value_hooks.restore, tag.get(), value.get(), nullptr);
}

PyObject* Decoder::Timestamp(const ValueView& view) {
  TimestampValue timestamp;
  if (!view.ReadTimestamp(&timestamp)) return Damaged();
  return PyObject_CallFunction(value_hooks.timestamp, "Li",
                               static_cast<long long>(timestamp.seconds),
                               static_cast<int>(timestamp.nanos));
}

PyObject* Decoder::Tensor(const ValueView& view) {
  TensorValue tensor;
  if (!view.ReadTensor(&tensor)) return Damaged();
  const Reference dtype(Text(tensor.dtype));  // A known one, so it is ASCII.
  const Reference data(Blob(tensor.data));
  const Reference shape(PyTuple_New(static_cast<Py_ssize_t>(tensor.dimensions)));
  if (dtype.get() == nullptr || data.get() == nullptr || shape.get() == nullptr) return nullptr;
  for (size_t i = 0; i < tensor.dimensions; ++i) {
    PyObject* const length = PyLong_FromUnsignedLongLong(tensor.shape[i]);
    if (length == nullptr) return nullptr;
    PyTuple_SET_ITEM(shape.get(), static_cast<Py_ssize_t>(i), length);
  }
  return PyObject_CallFunctionObjArgs(value_hooks.tensor, dtype.get(), shape.get(), data.get(),
                                      nullptr);
}

// set_value_hooks(reduce, restore, timestamp, tensor, root, node, tracked_dict, tracked_list,
// tracked_set, tracked_any_dict)
PyObject* SetValueHooks(PyObject*, PyObject* args) {
  ValueHooks hooks;
  if (PyArg_ParseTuple(args, "OOOOOOOOOO", &hooks.reduce, &hooks.restore, &hooks.timestamp,
                       &hooks.tensor, &hooks.root, &hooks.node, &hooks.tracked_dict,
                       &hooks.tracked_list, &hooks.tracked_set, &hooks.tracked_any_dict) == 0) {
    return nullptr;
  }
  for (PyObject* const hook :
       {hooks.reduce, hooks.restore, hooks.timestamp, hooks.tensor, hooks.root, hooks.node,
        hooks.tracked_dict, hooks.tracked_list, hooks.tracked_set, hooks.tracked_any_dict}) {
    Py_INCREF(hook);
  }
  value_hooks = hooks;  // Those of an earlier call are kept: a conversion may be using them.
  Py_RETURN_NONE;
}

// encode_value(object, any_keys=False) -> bytes
PyObject* EncodeValueFunction(PyObject*, PyObject* args) {
  PyObject* object = nullptr;
  int any_keys = 0;
  if (PyArg_ParseTuple(args, "O|p", &object, &any_keys) == 0) return nullptr;
  std::string wire;
  return EncodeValue(object, any_keys != 0, &wire) ? Blob(wire) : nullptr;
}

// decode_value(bytes, node=None) -> object
PyObject* DecodeValueFunction(PyObject*, PyObject* args) {
  PyObject* bytes = nullptr;
  PyObject* node = Py_None;
  if (PyArg_ParseTuple(args, "S|O", &bytes, &node) == 0) return nullptr;
  return DecodeValue({PyBytes_AS_STRING(bytes), static_cast<size_t>(PyBytes_GET_SIZE(bytes))},
                     node == Py_None ? nullptr : node);
}

}  // namespace

PyObject* DecodeValue(std::string_view wire, PyObject* node) { return Decoder().Value(wire, node); }

bool IsPlainScalar(std::string_view wire) {
  switch (ValueView(wire).kind()) {
    case ValueKind::kList:
    case ValueKind::kMap:
    case ValueKind::kTagged:
    case ValueKind::kTimestamp:
    case ValueKind::kTensor: return false;
    default: return true;
  }
}

PyMethodDef value_functions[] = {
    {"set_value_hooks", &SetValueHooks, METH_VARARGS, PyDoc_STR("Python's part of the codec.")},
    {"encode_value", &EncodeValueFunction, METH_VARARGS,
     PyDoc_STR("encode_value(object, any_keys=False) -> bytes: the wire form of a value.")},
    {"decode_value", &DecodeValueFunction, METH_VARARGS,
     PyDoc_STR("decode_value(bytes, node=None) -> object: tracked containers with a node.")},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace statehouse::python
