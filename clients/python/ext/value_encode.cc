// From Python objects to wire bytes.
#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "clients/python/ext/errors.h"
#include "clients/python/ext/reference.h"
#include "clients/python/ext/value.h"
#include "engine/value/value_writer.h"

namespace statehouse::python {
namespace {

// The forms that `reduce` answers with, as first item of a tuple.
enum Form : long {
  kPlain = 0,      // (0, object): written as that object.
  kTagged = 1,     // (1, tag, object)
  kTimestamp = 2,  // (2, seconds, nanos)
  kTensor = 3,     // (3, dtype, shape, bytes)
};

// Where an encoder is: the container and the step into it.
struct Level {
  PyObject* container = nullptr;
  PyObject* key = nullptr;  // Of a dict; else `index`.
  Py_ssize_t index = -1;    // -1: no step yet.
};

// One run. A method that returns false has set an exception.
class Encoder final {
 public:
  Encoder(bool any_keys, std::string* wire)
      : any_keys_(any_keys), out_(wire), begin_(wire->size()) {}

  bool Encode(PyObject* object) {
    ValueWriter writer(out_);
    writer_ = &writer;
    return Value(object) && Finished(writer);
  }

 private:
  bool Value(PyObject* object);
  bool Known(PyObject* object, bool* known);
  bool Subclass(PyObject* object);
  bool Reduced(PyObject* object, PyObject* form);
  bool Int(PyObject* object);
  bool Text(PyObject* object);
  bool Blob(PyObject* object);
  bool Items(PyObject* sequence);
  bool List(PyObject* sequence);
  bool Tuple(PyObject* sequence);
  bool Set(PyObject* set, const char* tag);
  bool Dict(PyObject* dict);
  bool Key(PyObject* key);
  bool AnyDict(PyObject* dict);
  bool Tensor(PyObject* form);

  bool Finished(ValueWriter& writer) {
    const Status status = writer.Finish();
    return status.ok() || Raise(status, "") != nullptr;
  }
  // The bytes written so far must be allowed; `more` are about to be written.
  bool Fits(size_t more) {
    if (written_elsewhere_ + out_->size() - begin_ + more <= kValueBytesMax) return true;
    return Invalid(
        "it is larger than 1 MiB (1,048,576 bytes), which is the most that a value may have");
  }
  std::string Where(size_t levels) const;
  bool Invalid(const std::string& why) { return Refuse(depth_, why); }
  bool Refuse(size_t levels, const std::string& why) {
    return Raise(Reason::kValueInvalid, "the value" + Where(levels) + ": " + why, "") != nullptr;
  }
  bool TooDeep();
  bool NoSuchType(const std::string& why) {
    PyErr_SetString(PyExc_TypeError, ("the value" + Where(depth_) + ": " + why).c_str());
    return false;
  }

  const bool any_keys_;
  std::string* out_;
  size_t begin_;
  size_t written_elsewhere_ = 0;
  ValueWriter* writer_ = nullptr;
  std::array<Level, kValueDepthMax> levels_{};
  size_t depth_ = 0;
};

// `["a"][0]`, cut after some two hundred bytes; empty at the top.
std::string Encoder::Where(size_t levels) const {
  std::string text;
  for (size_t i = 0; i < levels && text.size() < 200; ++i) {
    const Level& level = levels_[i];
    if (level.key != nullptr) {
      const Reference representation(PyObject_Repr(level.key));
      const char* const bytes =
          representation.get() == nullptr ? nullptr : PyUnicode_AsUTF8(representation.get());
      if (bytes == nullptr) PyErr_Clear();  // The place is a service to the reader, not a must.
      text += "[" + std::string(bytes == nullptr ? "?" : bytes).substr(0, 100) + "]";
    } else if (level.index >= 0) {
      text += "[" + std::to_string(level.index) + "]";
    }
  }
  return text.empty() ? text : " at " + text;
}

bool Encoder::TooDeep() {
  for (size_t i = 0; i < depth_; ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (levels_[i].container != nullptr && levels_[i].container == levels_[j].container) {
        // The place where it is met again says more than the deepest one.
        return Refuse(i, "it holds itself");
      }
    }
  }
  return Invalid("it is more than 32 levels deep");
}

bool Encoder::Value(PyObject* object) {
  if (depth_ == kValueDepthMax) return TooDeep();
  levels_[depth_++] = Level{object, nullptr, -1};
  bool known = true;
  bool good = Known(object, &known);
  if (good && !known) {
    const Reference form(PyObject_CallOneArg(value_hooks.reduce, object));
    good = form.get() != nullptr &&
           (form.get() == Py_None ? Subclass(object) : Reduced(object, form.get()));
  }
  --depth_;
  return good && Fits(0);
}

// The types that have a form of their own; *known false for any other.
bool Encoder::Known(PyObject* object, bool* known) {
  if (object == Py_None) return writer_->Null(), true;
  if (object == Py_True || object == Py_False) return writer_->Bool(object == Py_True), true;
  PyTypeObject* const type = Py_TYPE(object);
  if (type == &PyUnicode_Type) return Text(object);
  if (type == &PyLong_Type) return Int(object);
  if (type == &PyFloat_Type) return writer_->Float(PyFloat_AS_DOUBLE(object)), true;
  if (type == &PyDict_Type) return Dict(object);
  if (type == &PyList_Type) return List(object);
  if (type == &PyTuple_Type) return Tuple(object);
  if (type == &PyBytes_Type || type == &PyByteArray_Type || type == &PyMemoryView_Type) {
    return Blob(object);
  }
  if (type == &PySet_Type) return Set(object, "set");
  if (type == &PyFrozenSet_Type) return Set(object, "frozenset");
  auto* const as_object = reinterpret_cast<PyObject*>(type);
  if (as_object == value_hooks.tracked_dict || as_object == value_hooks.tracked_any_dict) {
    return Dict(object);
  }
  if (as_object == value_hooks.tracked_list) return List(object);
  if (as_object == value_hooks.tracked_set) return Set(object, "set");
  *known = false;
  return true;
}

// An object of a subclass that nobody claimed is written as what it derives from.
bool Encoder::Subclass(PyObject* object) {
  if (PyUnicode_Check(object)) return Text(object);
  if (PyLong_Check(object)) return Int(object);
  if (PyFloat_Check(object)) return writer_->Float(PyFloat_AS_DOUBLE(object)), true;
  if (PyList_Check(object)) return List(object);
  if (PyTuple_Check(object)) return Tuple(object);
  if (PyBytes_Check(object) || PyByteArray_Check(object)) return Blob(object);
  if (PyFrozenSet_Check(object)) return Set(object, "frozenset");
  if (PyAnySet_Check(object)) return Set(object, "set");
  if (PyDict_Check(object)) {
    // An OrderedDict's order is not that of its table.
    const Reference plain(PyDict_New());
    const Reference items(PyMapping_Items(object));
    if (plain.get() == nullptr || items.get() == nullptr ||
        PyDict_MergeFromSeq2(plain.get(), items.get(), 1) != 0) {
      return false;
    }
    return Dict(plain.get());
  }
  return NoSuchType(std::string("objects of type ") + Py_TYPE(object)->tp_name +
                    " cannot be stored; convert it, or tell how with statehouse.register()");
}

bool Encoder::Reduced(PyObject* object, PyObject* form) {
  if (PyUnicode_Check(form)) {  // Why it cannot be stored.
    const char* const why = PyUnicode_AsUTF8(form);
    return why != nullptr && NoSuchType(why);
  }
  if (!PyTuple_Check(form) || PyTuple_GET_SIZE(form) < 2) {
    return NoSuchType("reduce() answered with something else than a form");
  }
  const long kind = PyLong_AsLong(PyTuple_GET_ITEM(form, 0));
  PyObject* const second = PyTuple_GET_ITEM(form, 1);
  if (kind == kPlain) return Value(second);
  if (kind == kTensor && PyTuple_GET_SIZE(form) == 4) return Tensor(form);
  if (PyTuple_GET_SIZE(form) != 3) return NoSuchType("reduce() answered with half a form");
  PyObject* const third = PyTuple_GET_ITEM(form, 2);
  if (kind == kTimestamp) {
    const int64_t seconds = PyLong_AsLongLong(second);
    const long nanos = PyLong_AsLong(third);
    if (PyErr_Occurred() != nullptr) return false;
    writer_->Timestamp({seconds, static_cast<int32_t>(nanos)});
    return true;
  }
  Py_ssize_t length = 0;
  const char* const tag = PyUnicode_AsUTF8AndSize(second, &length);
  if (tag == nullptr) return false;
  writer_->BeginTagged({tag, static_cast<size_t>(length)});
  if (!Value(third)) return false;
  writer_->EndTagged();
  return true;
}

bool Encoder::Int(PyObject* object) {
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
  if (overflow == 0) return writer_->Int(number), PyErr_Occurred() == nullptr;
  const Reference length(PyObject_CallMethod(object, "bit_length", nullptr));
  const size_t bits = length.get() == nullptr ? 0 : PyLong_AsSize_t(length.get());
  if (PyErr_Occurred() != nullptr || !Fits(bits / 8 + 1)) return false;
  const Reference to_bytes(PyObject_GetAttrString(object, "to_bytes"));
  const Reference arguments(Py_BuildValue("(ns)", static_cast<Py_ssize_t>(bits / 8 + 1), "big"));
  const Reference names(Py_BuildValue("{sO}", "signed", Py_True));
  if (to_bytes.get() == nullptr || arguments.get() == nullptr || names.get() == nullptr) {
    return false;
  }
  const Reference bytes(PyObject_Call(to_bytes.get(), arguments.get(), names.get()));
  if (bytes.get() == nullptr) return false;
  writer_->BigInt(
      {PyBytes_AS_STRING(bytes.get()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.get()))});
  return true;
}

bool Encoder::Text(PyObject* object) {
  Py_ssize_t length = 0;
  const char* const text = PyUnicode_AsUTF8AndSize(object, &length);
  if (text == nullptr) {
    PyErr_Clear();  // It says the same in the codec's words.
    return Invalid("a text that holds half a surrogate pair, which UTF-8 cannot hold");
  }
  if (!Fits(static_cast<size_t>(length))) return false;
  writer_->String({text, static_cast<size_t>(length)});
  return true;
}

bool Encoder::Blob(PyObject* object) {
  Py_buffer view;
  if (PyObject_GetBuffer(object, &view, PyBUF_FULL_RO) != 0) return false;
  bool good = Fits(static_cast<size_t>(view.len));
  if (good) {
    std::string bytes(static_cast<size_t>(view.len), '\0');
    good = PyBuffer_ToContiguous(bytes.data(), &view, view.len, 'C') == 0;
    if (good) writer_->Bytes(bytes);
  }
  PyBuffer_Release(&view);
  return good;
}

// The items of a list or tuple, which may change while they are written.
bool Encoder::Items(PyObject* sequence) {
  const bool is_list = PyList_Check(sequence);
  Level& level = levels_[depth_ - 1];
  for (Py_ssize_t i = 0; i < (is_list ? PyList_GET_SIZE(sequence) : PyTuple_GET_SIZE(sequence));
       ++i) {
    level.index = i;
    PyObject* const item = is_list ? PyList_GET_ITEM(sequence, i) : PyTuple_GET_ITEM(sequence, i);
    const Reference held(Py_NewRef(item));
    if (!Value(held.get())) return false;
  }
  return true;
}

bool Encoder::List(PyObject* sequence) {
  writer_->BeginList();
  if (!Items(sequence)) return false;
  writer_->EndList();
  return true;
}

bool Encoder::Tuple(PyObject* sequence) {
  if (depth_ == kValueDepthMax) return TooDeep();
  writer_->BeginTagged("tuple");
  ++depth_;  // The list inside the tag.
  levels_[depth_ - 1] = Level{nullptr, nullptr, -1};
  const bool good = List(sequence);
  --depth_;
  writer_->EndTagged();
  return good;
}

// Items in rising order of their bytes, so that equal sets have equal bytes.
bool Encoder::Set(PyObject* set, const char* tag) {
  if (depth_ == kValueDepthMax) return TooDeep();
  const Reference items(PySequence_List(set));
  if (items.get() == nullptr) return false;
  std::vector<std::string> encoded(static_cast<size_t>(PyList_GET_SIZE(items.get())));
  ValueWriter* const outer_writer = writer_;
  std::string* const outer_out = out_;
  const size_t outer_begin = begin_;
  const size_t outer_elsewhere = written_elsewhere_;
  written_elsewhere_ += out_->size() - begin_;
  begin_ = 0;
  ++depth_;
  levels_[depth_ - 1] = Level{nullptr, nullptr, -1};
  bool good = true;
  for (size_t i = 0; good && i < encoded.size(); ++i) {
    ValueWriter writer(&encoded[i]);
    writer_ = &writer;
    out_ = &encoded[i];
    good = Value(PyList_GET_ITEM(items.get(), static_cast<Py_ssize_t>(i))) && Finished(writer);
    written_elsewhere_ += encoded[i].size();
  }
  --depth_;
  writer_ = outer_writer;
  out_ = outer_out;
  begin_ = outer_begin;
  written_elsewhere_ = outer_elsewhere;
  if (!good) return false;
  std::sort(encoded.begin(), encoded.end());
  writer_->BeginTagged(tag);
  writer_->BeginList();
  for (const std::string& item : encoded) writer_->Wire(item);
  writer_->EndList();
  writer_->EndTagged();
  return true;
}

bool Encoder::Key(PyObject* key) {
  Py_ssize_t length = 0;
  const char* const text = PyUnicode_AsUTF8AndSize(key, &length);
  if (text == nullptr) {
    PyErr_Clear();
    return Invalid("a key that holds half a surrogate pair, which UTF-8 cannot hold");
  }
  if (static_cast<size_t>(length) > kMapKeyBytesMax) {
    return Invalid("a key of " + std::to_string(length) + " bytes; a key has at most 1,024");
  }
  writer_->Key({text, static_cast<size_t>(length)});
  return true;
}

bool Encoder::Dict(PyObject* dict) {
  const Py_ssize_t size = PyDict_GET_SIZE(dict);
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  Py_ssize_t at = 0;
  while (PyDict_Next(dict, &at, &key, &value) != 0) {
    if (PyUnicode_Check(key)) continue;
    if (any_keys_) return AnyDict(dict);
    levels_[depth_ - 1].key = key;
    return NoSuchType(std::string("a dict's keys must be of type str, not ") +
                      Py_TYPE(key)->tp_name +
                      "; use texts as keys, or open the dict with keys=\"any\"");
  }
  writer_->BeginMap();
  at = 0;
  while (PyDict_Next(dict, &at, &key, &value) != 0) {
    const Reference held_key(Py_NewRef(key));
    const Reference held_value(Py_NewRef(value));
    levels_[depth_ - 1].key = key;
    if (!Key(key) || !Value(value)) return false;
    if (PyDict_GET_SIZE(dict) != size) {
      PyErr_SetString(PyExc_RuntimeError, "a dict changed its size while it was being stored");
      return false;
    }
  }
  writer_->EndMap();
  return true;
}

// A dict with keys that are no texts: a tagged list of pairs.
bool Encoder::AnyDict(PyObject* dict) {
  const Reference items(PyMapping_Items(dict));
  if (items.get() == nullptr) return false;
  if (depth_ + 2 > kValueDepthMax) return TooDeep();
  writer_->BeginTagged("dict");
  writer_->BeginList();
  depth_ += 2;  // The list inside the tag, and the pair.
  levels_[depth_ - 2] = levels_[depth_ - 1] = Level{nullptr, nullptr, -1};
  bool good = true;
  for (Py_ssize_t i = 0; good && i < PyList_GET_SIZE(items.get()); ++i) {
    PyObject* const pair = PyList_GET_ITEM(items.get(), i);
    levels_[depth_ - 2].key = PyTuple_GET_ITEM(pair, 0);
    writer_->BeginList();
    good = Value(PyTuple_GET_ITEM(pair, 0)) && Value(PyTuple_GET_ITEM(pair, 1));
    writer_->EndList();
  }
  depth_ -= 2;
  writer_->EndList();
  writer_->EndTagged();
  return good;
}

bool Encoder::Tensor(PyObject* form) {
  Py_ssize_t length = 0;
  const char* const dtype = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(form, 1), &length);
  PyObject* const shape = PyTuple_GET_ITEM(form, 2);
  PyObject* const data = PyTuple_GET_ITEM(form, 3);
  if (dtype == nullptr || !PyTuple_Check(shape) || !PyBytes_Check(data)) {
    return PyErr_Occurred() == nullptr && NoSuchType("reduce() answered with half a tensor");
  }
  if (static_cast<size_t>(PyTuple_GET_SIZE(shape)) > kTensorDimensionsMax) {
    return Invalid("an array of more than 32 dimensions");
  }
  std::vector<uint64_t> dimensions;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(shape); ++i) {
    dimensions.push_back(PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(shape, i)));
    if (PyErr_Occurred() != nullptr) return false;
  }
  const std::string_view bytes(PyBytes_AS_STRING(data),
                               static_cast<size_t>(PyBytes_GET_SIZE(data)));
  if (!Fits(bytes.size())) return false;
  writer_->Tensor({dtype, static_cast<size_t>(length)}, dimensions, bytes);
  return true;
}

}  // namespace

bool EncodeValue(PyObject* object, bool any_keys, std::string* wire) {
  return Encoder(any_keys, wire).Encode(object);
}

}  // namespace statehouse::python
