// The types Operation, Noted and BatchDict: operations on dicts that a batch notes all the time, as
// bytes of the messages of batch.proto, and their results. statehouse/_batch.py sends them, and has
// the operations that are rarer.
//
// None of these types is seen by the collector of cycles: there are many operations, and a cycle
// through one needs a value that holds its own operation.
#include "clients/python/ext/batch.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "clients/python/ext/dict.h"
#include "clients/python/ext/errors.h"
#include "clients/python/ext/objects.h"
#include "clients/python/ext/reference.h"
#include "clients/python/ext/value.h"
#include "engine/value/wire.h"

namespace statehouse::python {
namespace {

using internal::PutVarint;
using internal::VarintBytes;
using internal::WireReader;

constexpr char kOperationsTag = 4 << 3 | 2;  // Batch.
constexpr char kGetTag = 1 << 3 | 2;         // Operation, and OperationResult.
constexpr char kSetTag = 2 << 3 | 2;
constexpr char kIncrementTag = 3 << 3 | 2;
constexpr char kPlaceTag = 1 << 3;  // EntryGet, EntrySet and EntryIncrement.
constexpr char kKeyTag = 2 << 3 | 2;
constexpr char kValueTag = 3 << 3 | 2;
constexpr char kTtlMsTag = 4 << 3;
constexpr char kDeltaTag = 3 << 3;
constexpr char kResultTag = 1 << 3 | 2;    // RunBatchResponse.
constexpr char kResultsTag = 1 << 3 | 2;   // BatchResult.
constexpr char kGotValueTag = 1 << 3 | 2;  // EntryGetResult.
constexpr char kGotVersionTag = 2 << 3;
constexpr char kNumberTag = 1 << 3;  // EntryIncrementResult.
constexpr char kIncrementVersionTag = 2 << 3;
constexpr char kFloatNumberTag = 3 << 3 | 1;
constexpr uint64_t kBytesType = 2;

// How a result is read. kOther: by the Python class that derives from Operation.
enum class Form : uint8_t { kOther, kGet, kContains, kVersion, kSet, kIncrement };

// Of an operation, as statehouse/_batch_operations.py numbers them.
enum Traits : int { kChanges = 1, kWide = 4 };

// `answer` is null until the operation is over, and then its result, or what it raises.
struct OperationObject {
  PyObject_HEAD PyObject* answer;
  PyObject* fallback;  // What kGet gives where there is no entry.
  Form form;
  bool failed;
};

// `operations` and `parts` have the same length: an operation's part is its bytes in a Batch.
struct NotedObject {
  PyObject_HEAD PyObject* operations;
  PyObject* parts;
  int traits;  // Those of all of them.
};

struct BatchDictObject {
  PyObject_HEAD NotedObject* noted;
  int place;  // Among the names of the batch; negative where it has no room for this one.
  bool any_keys;
};

OperationObject* Operation(PyObject* self) { return reinterpret_cast<OperationObject*>(self); }
NotedObject* Noted(PyObject* self) { return reinterpret_cast<NotedObject*>(self); }
BatchDictObject* BatchDict(PyObject* self) { return reinterpret_cast<BatchDictObject*>(self); }

// Operation.

PyTypeObject operation_type = {PyVarObject_HEAD_INIT(nullptr, 0)};

PyObject* NewOperation(PyTypeObject* type, PyObject*, PyObject*) { return type->tp_alloc(type, 0); }

PyObject* MakeOperation(Form form, PyObject* fallback) {
  PyObject* const made = operation_type.tp_alloc(&operation_type, 0);
  if (made == nullptr) return nullptr;
  Operation(made)->form = form;
  Operation(made)->fallback = Py_XNewRef(fallback);
  return made;
}

void DestroyOperation(PyObject* self) {
  Py_XDECREF(Operation(self)->answer);
  Py_XDECREF(Operation(self)->fallback);
  Py_TYPE(self)->tp_free(self);
}

// Takes over a reference.
void End(PyObject* self, PyObject* answer, bool failed) {
  PyObject* const before = Operation(self)->answer;
  Operation(self)->answer = answer;
  Operation(self)->failed = failed;
  Py_XDECREF(before);
}

// Takes the exception that is set as what the operation raises. False where it is none that an
// operation raises (an interrupt): it stays set.
bool EndByException(PyObject* self) {
  if (PyErr_ExceptionMatches(PyExc_Exception) == 0) return false;
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  if (traceback != nullptr) PyException_SetTraceback(value, traceback);
  Py_XDECREF(type);
  Py_XDECREF(traceback);
  End(self, value, /*failed=*/true);
  return true;
}

PyObject* Result(PyObject* self, PyObject*) {
  PyObject* const answer = Operation(self)->answer;
  if (answer == nullptr) {
    PyErr_SetString(PyExc_RuntimeError,
                    "the operation is only noted: it is carried out when its batch is run");
    return nullptr;
  }
  if (!Operation(self)->failed) return Py_NewRef(answer);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(answer)), answer);
  return nullptr;
}

PyObject* EndWith(PyObject* self, PyObject* answer) {
  End(self, Py_NewRef(answer), /*failed=*/false);
  Py_RETURN_NONE;
}

PyObject* Fail(PyObject* self, PyObject* error) {
  End(self, Py_NewRef(error), /*failed=*/true);
  Py_RETURN_NONE;
}

PyObject* Show(PyObject* self) {
  const OperationObject* const operation = Operation(self);
  if (operation->answer == nullptr) return PyUnicode_FromString("<statehouse operation, noted>");
  return PyUnicode_FromFormat(
      operation->failed ? "<statehouse operation, raises %R>" : "<statehouse operation, gave %R>",
      operation->answer);
}

PyObject* GetIsOver(PyObject* self, void*) {
  return PyBool_FromLong(Operation(self)->answer != nullptr);
}

PyMethodDef operation_methods[] = {
    {"result", &Result, METH_NOARGS,
     PyDoc_STR("What the call of its own would return or raise. RuntimeError before the batch was "
               "run.")},
    {"_end", &EndWith, METH_O, PyDoc_STR("_end(answer): it gives this.")},
    {"_fail", &Fail, METH_O, PyDoc_STR("_fail(error): it raises this.")},
    {"__class_getitem__", &Py_GenericAlias, METH_O | METH_CLASS, PyDoc_STR("For type hints.")},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef operation_properties[] = {
    {"_is_over", &GetIsOver, nullptr, PyDoc_STR("Whether it has a result."), nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

// Noted.

PyTypeObject noted_type = {PyVarObject_HEAD_INIT(nullptr, 0)};

PyObject* NewNoted(PyTypeObject* type, PyObject*, PyObject*) {
  Reference made(type->tp_alloc(type, 0));
  if (made.get() == nullptr) return nullptr;
  NotedObject* const self = Noted(made.get());
  self->operations = PyList_New(0);
  self->parts = PyList_New(0);
  return self->operations == nullptr || self->parts == nullptr ? nullptr : made.Release();
}

void DestroyNoted(PyObject* self) {
  Py_XDECREF(Noted(self)->operations);
  Py_XDECREF(Noted(self)->parts);
  Py_TYPE(self)->tp_free(self);
}

// Null with an exception set, and then nothing is noted; else a new reference to the operation.
PyObject* Note(NotedObject* self, PyObject* operation, PyObject* part, int traits) {
  if (PyList_Append(self->operations, operation) != 0) return nullptr;
  if (PyList_Append(self->parts, part) != 0) {
    const Py_ssize_t last = PyList_GET_SIZE(self->operations) - 1;
    (void)PyList_SetSlice(self->operations, last, last + 1, nullptr);
    return nullptr;
  }
  self->traits |= traits;
  return Py_NewRef(operation);
}

// note(operation, part, traits) -> operation
PyObject* NotedNote(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  if (count != 3 || !PyBytes_Check(args[1])) {
    PyErr_SetString(PyExc_TypeError, "call it as note(operation, part, traits)");
    return nullptr;
  }
  const long traits = PyLong_AsLong(args[2]);
  if (traits == -1 && PyErr_Occurred() != nullptr) return nullptr;
  return Note(Noted(self), args[0], args[1], static_cast<int>(traits));
}

// take() -> (operations, parts, traits)
PyObject* NotedTake(PyObject* object, PyObject*) {
  NotedObject* const self = Noted(object);
  Reference operations(PyList_New(0));
  Reference parts(PyList_New(0));
  if (operations.get() == nullptr || parts.get() == nullptr) return nullptr;
  PyObject* const taken = Py_BuildValue("(NNi)", self->operations, self->parts, self->traits);
  self->operations = operations.Release();
  self->parts = parts.Release();
  self->traits = 0;
  return taken;
}

Py_ssize_t NotedLength(PyObject* self) { return PyList_GET_SIZE(Noted(self)->operations); }

PyMethodDef noted_methods[] = {
    {"note", AsMethod(&NotedNote), METH_FASTCALL,
     PyDoc_STR("note(operation, part, traits): gives the operation back.")},
    {"take", &NotedTake, METH_NOARGS,
     PyDoc_STR("take() -> (operations, parts, traits): takes all of it away.")},
    {nullptr, nullptr, 0, nullptr},
};

PySequenceMethods noted_slots = {&NotedLength};

// BatchDict.

PyTypeObject batch_dict_type = {PyVarObject_HEAD_INIT(nullptr, 0)};

// BatchDict(noted, place, any_keys)
PyObject* NewBatchDict(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject* noted = nullptr;
  int place = 0;
  int any_keys = 0;
  if (PyArg_ParseTuple(args, "O!ip", &noted_type, &noted, &place, &any_keys) == 0) return nullptr;
  PyObject* const made = type->tp_alloc(type, 0);
  if (made == nullptr) return nullptr;
  BatchDict(made)->noted = Noted(Py_NewRef(noted));
  BatchDict(made)->place = place;
  BatchDict(made)->any_keys = any_keys != 0;
  return made;
}

void DestroyBatchDict(PyObject* self) {
  Py_XDECREF(reinterpret_cast<PyObject*>(BatchDict(self)->noted));
  Py_TYPE(self)->tp_free(self);
}

size_t PlaceBytes(int place) { return place == 0 ? 0 : 2; }
size_t FieldBytes(std::string_view content) {
  return 1 + VarintBytes(content.size()) + content.size();
}
char* PutField(char* at, char tag, std::string_view content) {
  *at++ = tag;
  at = PutVarint(at, content.size());
  return std::copy(content.begin(), content.end(), at);
}

// An operation with a message of `size` bytes behind its dict and its key, which `write` puts.
// Null with an exception set.
template <typename Write>
PyObject* PartOf(char tag, int place, std::string_view key, size_t size, const Write& write) {
  const size_t message = PlaceBytes(place) + FieldBytes(key) + size;
  const size_t operation = 1 + VarintBytes(message) + message;
  PyObject* const part = PyBytes_FromStringAndSize(
      nullptr, static_cast<Py_ssize_t>(1 + VarintBytes(operation) + operation));
  if (part == nullptr) return nullptr;
  char* at = PyBytes_AS_STRING(part);
  *at++ = kOperationsTag;
  at = PutVarint(at, operation);
  *at++ = tag;
  at = PutVarint(at, message);
  if (place != 0) {
    *at++ = kPlaceTag;
    *at++ = static_cast<char>(place);
  }
  write(PutField(at, kKeyTag, key));
  return part;
}

// The end of each method: takes over both references.
PyObject* NoteShort(PyObject* self, PyObject* operation, PyObject* part, Traits traits) {
  const Reference held_operation(operation);
  const Reference held_part(part);
  if (operation == nullptr || part == nullptr) return nullptr;
  return Note(BatchDict(self)->noted, operation, part, traits);
}

PyObject* NoteGet(PyObject* self, Form form, PyObject* key_object, PyObject* fallback) {
  std::string_view key;
  Reference held(nullptr);
  if (!KeyOf(self, BatchDict(self)->any_keys, key_object, &key, &held)) return nullptr;
  PyObject* const part = PartOf(kGetTag, BatchDict(self)->place, key, 0, [](char*) {});
  return NoteShort(self, MakeOperation(form, fallback), part, kWide);
}

// get(key, default=None)
PyObject* Get(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  if (BatchDict(self)->place < 0) return CallDerived(self, "_get_with", args, count, names);
  static constexpr const char* kParameters[] = {"key", "default", nullptr};
  PyObject* values[2] = {};
  if (!TakeArguments("get", kParameters, 1, args, count, names, values)) return nullptr;
  return NoteGet(self, Form::kGet, values[0], values[1] == nullptr ? Py_None : values[1]);
}

PyObject* Contains(PyObject* self, PyObject* key) {
  if (BatchDict(self)->place < 0) return CallDerived(self, "_contains_with", &key, 1, nullptr);
  return NoteGet(self, Form::kContains, key, nullptr);
}

PyObject* Version(PyObject* self, PyObject* key) {
  if (BatchDict(self)->place < 0) return CallDerived(self, "_version_with", &key, 1, nullptr);
  return NoteGet(self, Form::kVersion, key, nullptr);
}

PyObject* NoteSet(PyObject* self, PyObject* key_object, PyObject* value, uint64_t ttl_ms) {
  const bool any_keys = BatchDict(self)->any_keys;
  std::string_view key;
  Reference held(nullptr);
  std::string wire;
  if (!KeyOf(self, any_keys, key_object, &key, &held) || !EncodeValue(value, any_keys, &wire)) {
    return nullptr;
  }
  const size_t ttl_bytes = ttl_ms == 0 ? 0 : 1 + VarintBytes(ttl_ms);
  PyObject* const part =
      PartOf(kSetTag, BatchDict(self)->place, key, FieldBytes(wire) + ttl_bytes, [&](char* at) {
        at = PutField(at, kValueTag, wire);
        if (ttl_ms == 0) return;
        *at++ = kTtlMsTag;
        PutVarint(at, ttl_ms);
      });
  return NoteShort(self, MakeOperation(Form::kSet, nullptr), part, kChanges);
}

// set(key, value); with options: BatchDict._set_with.
PyObject* Set(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  if (names != nullptr || count != 2 || BatchDict(self)->place < 0) {
    return CallDerived(self, "_set_with", args, count, names);
  }
  return NoteSet(self, args[0], args[1], 0);
}

// _set_for(key, value, ttl_ms): the same with a time to live.
PyObject* SetFor(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  uint64_t ttl_ms = 0;
  if (count != 3 || BatchDict(self)->place < 0) {
    PyErr_SetString(PyExc_TypeError, "call it as _set_for(key, value, ttl_ms), with a place");
    return nullptr;
  }
  if (!UnsignedOf(args[2], &ttl_ms)) return nullptr;
  return NoteSet(self, args[0], args[1], ttl_ms);
}

uint64_t ToZigZag(int64_t number) {
  return static_cast<uint64_t>(number) << 1 ^ static_cast<uint64_t>(number >> 63);
}

// incr(key, delta=1); with options, and for what is no int of 64 bits: BatchDict._incr_with.
PyObject* Increment(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  bool simple = names == nullptr && (count == 1 || count == 2) && BatchDict(self)->place >= 0;
  long long delta = 1;
  if (simple && count == 2) {
    int overflow = 1;
    if (PyLong_CheckExact(args[1])) delta = PyLong_AsLongLongAndOverflow(args[1], &overflow);
    simple = overflow == 0;
  }
  if (!simple) return CallDerived(self, "_incr_with", args, count, names);
  std::string_view key;
  Reference held(nullptr);
  if (!KeyOf(self, BatchDict(self)->any_keys, args[0], &key, &held)) return nullptr;
  const uint64_t zigzag = ToZigZag(delta);
  const size_t delta_bytes = delta == 1 ? 0 : 1 + VarintBytes(zigzag);  // 1 is left out.
  PyObject* const part =
      PartOf(kIncrementTag, BatchDict(self)->place, key, delta_bytes, [&](char* at) {
        if (delta == 1) return;
        *at++ = kDeltaTag;
        PutVarint(at, zigzag);
      });
  return NoteShort(self, MakeOperation(Form::kIncrement, nullptr), part, kChanges);
}

PyObject* GetAnyKeys(PyObject* self, void*) { return PyBool_FromLong(BatchDict(self)->any_keys); }
PyObject* GetIsShort(PyObject* self, void*) { return PyBool_FromLong(BatchDict(self)->place >= 0); }

PyMethodDef batch_dict_methods[] = {
    {"get", AsMethod(&Get), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("get(key, default=None): the value, or `default` where there is none.")},
    {"contains", &Contains, METH_O, PyDoc_STR("contains(key): whether there is an entry.")},
    {"version", &Version, METH_O,
     PyDoc_STR("version(key): the entry's version; 0 where there is none.")},
    {"set", AsMethod(&Set), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("set(key, value, *, ttl=None, if_absent=False, if_present=False, if_version=None, "
               "if_value=..., fence=None): see SharedDict.set.")},
    {"incr", AsMethod(&Increment), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("incr(key, delta=1, *, path=(), default=0, min=None, max=None, ttl=None, "
               "fence=None): see SharedDict.incr.")},
    {"_set_for", AsMethod(&SetFor), METH_FASTCALL,
     PyDoc_STR("_set_for(key, value, ttl_ms): set with a time to live; 0 is the dict's.")},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef batch_dict_properties[] = {
    {"_any_keys", &GetAnyKeys, nullptr, PyDoc_STR("Whether keys may be other than str."), nullptr},
    {"_is_short", &GetIsShort, nullptr, PyDoc_STR("Whether operations may take the short forms."),
     nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

// Results.

PyObject* GotObject(const OperationObject* operation, std::string_view message) {
  WireReader reader(message);
  std::string_view wire;
  const bool found = reader.Field(kGotValueTag, &wire);
  if (operation->form == Form::kContains) return PyBool_FromLong(found);
  if (operation->form == Form::kGet) {
    return found ? DecodeValue(wire, nullptr) : Py_NewRef(operation->fallback);
  }
  uint64_t version = 0;
  if (reader.Take(kGotVersionTag)) (void)reader.Varint(&version);
  return PyLong_FromUnsignedLongLong(version);
}

PyObject* NumberOf(std::string_view message) {
  WireReader reader(message);
  uint64_t zigzag = 0;  // It is left out then.
  uint64_t version = 0;
  uint64_t bits = 0;
  if (reader.Take(kNumberTag)) (void)reader.Varint(&zigzag);
  if (reader.Take(kIncrementVersionTag)) (void)reader.Varint(&version);
  if (reader.Take(kFloatNumberTag) && reader.Fixed64(&bits)) {
    return NumberObject(DictKind::kFloat64, bits);
  }
  return PyLong_FromLongLong(static_cast<int64_t>(zigzag >> 1) ^ -static_cast<int64_t>(zigzag & 1));
}

// Ends a short operation. False where it is none, or its result is another one: a failure.
bool EndShort(PyObject* object, uint64_t tag, std::string_view message, bool* interrupted) {
  const OperationObject* const operation = Operation(object);
  PyObject* answer = nullptr;
  switch (operation->form) {
    case Form::kOther: return false;
    case Form::kGet:
    case Form::kContains:
    case Form::kVersion:
      if (tag != kGetTag) return false;
      answer = GotObject(operation, message);
      break;
    case Form::kSet:
      if (tag != kSetTag) return false;
      answer = Py_NewRef(Py_True);
      break;
    case Form::kIncrement:
      if (tag != kIncrementTag) return false;
      answer = NumberOf(message);
      break;
  }
  if (answer != nullptr) {
    End(object, answer, /*failed=*/false);
  } else {
    *interrupted = !EndByException(object);
  }
  return true;
}

// The next result of an answer.
bool ReadResult(WireReader* reader, uint64_t* tag, std::string_view* message) {
  std::string_view result;
  if (!reader->Field(kResultsTag, &result)) return false;
  WireReader one(result);
  return one.Varint(tag) && (*tag & 7) == kBytesType && one.Bytes(message) && one.AtEnd();
}

// take_results(operations, answer) -> [(index, field, message), …]: ends the short operations, and
// gives what is left to Python. ValueError where the answer is none to these operations.
PyObject* TakeResults(PyObject*, PyObject* const* args, Py_ssize_t count) {
  std::string_view answer;
  if (count != 2 || !PyList_Check(args[0]) || !BytesOf(args[1], &answer)) {
    if (PyErr_Occurred() == nullptr) {
      PyErr_SetString(PyExc_TypeError, "call it as take_results(operations, answer)");
    }
    return nullptr;
  }
  Reference left(PyList_New(0));
  if (left.get() == nullptr) return nullptr;
  std::string_view results;
  bool sound = answer.empty() || WireReader(answer).Field(kResultTag, &results);
  WireReader reader(results);
  Py_ssize_t at = 0;
  for (; sound && at < PyList_GET_SIZE(args[0]); ++at) {
    const Reference operation(Py_NewRef(PyList_GET_ITEM(args[0], at)));
    uint64_t tag = 0;
    std::string_view message;
    sound =
        PyObject_TypeCheck(operation.get(), &operation_type) && ReadResult(&reader, &tag, &message);
    if (!sound) break;
    bool interrupted = false;
    if (EndShort(operation.get(), tag, message, &interrupted)) {
      if (interrupted) return nullptr;
      continue;
    }
    const Reference item(Py_BuildValue("(nKy#)", at, static_cast<unsigned long long>(tag >> 3),
                                       message.data(), static_cast<Py_ssize_t>(message.size())));
    if (item.get() == nullptr || PyList_Append(left.get(), item.get()) != 0) return nullptr;
  }
  if (sound && reader.AtEnd()) return left.Release();
  PyErr_Format(PyExc_ValueError, "it has no result of operation %zd, or one too many", at);
  return nullptr;
}

// batch_results(operations) -> (results, index of the first failure or -1): a failure stands there
// as its exception. REQUIRES: all of them are over.
PyObject* BatchResults(PyObject*, PyObject* operations) {
  if (!PyList_Check(operations)) {
    PyErr_SetString(PyExc_TypeError, "call it as batch_results(operations)");
    return nullptr;
  }
  const Py_ssize_t count = PyList_GET_SIZE(operations);
  Reference results(PyList_New(count));
  if (results.get() == nullptr) return nullptr;
  Py_ssize_t failed = -1;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* const item = PyList_GET_ITEM(operations, i);
    if (!PyObject_TypeCheck(item, &operation_type) || Operation(item)->answer == nullptr) {
      PyErr_Format(PyExc_RuntimeError, "operation %zd of the batch is not over", i);
      return nullptr;
    }
    if (failed < 0 && Operation(item)->failed) failed = i;
    PyList_SET_ITEM(results.get(), i, Py_NewRef(Operation(item)->answer));
  }
  return Py_BuildValue("(Nn)", results.Release(), failed);
}

bool AddType(PyObject* module, const char* name, PyTypeObject* type) {
  return PyType_Ready(type) == 0 &&
         PyModule_AddObjectRef(module, name, reinterpret_cast<PyObject*>(type)) == 0;
}

PyMethodDef batch_functions[] = {
    {"take_results", AsMethod(&TakeResults), METH_FASTCALL,
     PyDoc_STR("take_results(operations, answer) -> [(index, field, message), ...]")},
    {"batch_results", &BatchResults, METH_O,
     PyDoc_STR("batch_results(operations) -> (results, index of the first failure or -1)")},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

bool AddBatchTypes(PyObject* module) {
  operation_type.tp_name = "statehouse._local.Operation";
  operation_type.tp_doc = PyDoc_STR(
      "An operation that a batch has noted; result() tells what became of it, once the batch was "
      "run.");
  operation_type.tp_basicsize = sizeof(OperationObject);
  operation_type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE;
  operation_type.tp_new = &NewOperation;
  operation_type.tp_dealloc = &DestroyOperation;
  operation_type.tp_repr = &Show;
  operation_type.tp_methods = operation_methods;
  operation_type.tp_getset = operation_properties;

  noted_type.tp_name = "statehouse._local.Noted";
  noted_type.tp_doc = PyDoc_STR("The operations that a batch has noted and not sent.");
  noted_type.tp_basicsize = sizeof(NotedObject);
  noted_type.tp_flags = Py_TPFLAGS_DEFAULT;
  noted_type.tp_new = &NewNoted;
  noted_type.tp_dealloc = &DestroyNoted;
  noted_type.tp_as_sequence = &noted_slots;
  noted_type.tp_methods = noted_methods;

  batch_dict_type.tp_name = "statehouse._local.BatchDict";
  batch_dict_type.tp_doc = PyDoc_STR("A dict of a batch: notes operations.");
  batch_dict_type.tp_basicsize = sizeof(BatchDictObject);
  batch_dict_type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE;
  batch_dict_type.tp_new = &NewBatchDict;
  batch_dict_type.tp_dealloc = &DestroyBatchDict;
  batch_dict_type.tp_methods = batch_dict_methods;
  batch_dict_type.tp_getset = batch_dict_properties;

  return AddType(module, "Operation", &operation_type) && AddType(module, "Noted", &noted_type) &&
         AddType(module, "BatchDict", &batch_dict_type) &&
         PyModule_AddFunctions(module, batch_functions) == 0;
}

}  // namespace statehouse::python
