// The type Area: properties, buffer protocol and slots; the methods are in area_words.cc and
// area_ranges.cc.
#include <new>
#include <string>
#include <vector>

#include "clients/python/ext/errors.h"
#include "clients/python/ext/objects.h"

namespace statehouse::python {
namespace {

AreaObject* Self(PyObject* self) { return reinterpret_cast<AreaObject*>(self); }
const char* NameOf(const AreaObject* self) { return self->area->name().c_str(); }

void Destroy(PyObject* object) {
  AreaObject* const self = Self(object);
  PyObject_GC_UnTrack(object);
  self->area.~shared_ptr();
  Py_XDECREF(self->make_lock);
  Py_XDECREF(self->make_watch);
  Py_DECREF(self->session);
  PyObject_GC_Del(object);
}

int Traverse(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(Self(object)->make_lock);
  Py_VISIT(Self(object)->make_watch);
  return 0;
}

int Clear(PyObject* object) {
  Py_CLEAR(Self(object)->make_lock);
  Py_CLEAR(Self(object)->make_watch);
  return 0;
}

PyObject* GetName(PyObject* self, void*) {
  const std::string& name = Self(self)->area->name();
  return PyUnicode_FromStringAndSize(name.data(), static_cast<Py_ssize_t>(name.size()));
}

PyObject* GetSize(PyObject* self, void*) {
  return PyLong_FromUnsignedLongLong(Self(self)->area->size());
}

PyObject* GetIndex(PyObject* self, void*) {
  return PyLong_FromUnsignedLong(Self(self)->area->index());
}

PyObject* GetUpdates(PyObject* object, void*) {
  AreaObject* const self = Self(object);
  if (self->session->closed) return RaiseClosed(NameOf(self));
  const StatusOr<uint64_t> updates = self->area->Updates();
  return updates.ok() ? PyLong_FromUnsignedLongLong(updates.value())
                      : Raise(updates.status(), NameOf(self));
}

PyObject* GetTransport(PyObject*, void*) { return PyUnicode_FromString("local"); }

PyObject* Make(PyObject* maker, PyObject* object, PyObject* args, PyObject* names) {
  PyObject* const self_alone = PyTuple_Pack(1, object);
  if (self_alone == nullptr) return nullptr;
  PyObject* const all = PySequence_Concat(self_alone, args);
  Py_DECREF(self_alone);
  if (all == nullptr) return nullptr;
  PyObject* const made = PyObject_Call(maker, all, names);
  Py_DECREF(all);
  return made;
}

PyObject* LockOf(PyObject* object, PyObject* args, PyObject* names) {
  return Make(Self(object)->make_lock, object, args, names);
}

PyObject* WatchOf(PyObject* object, PyObject* args, PyObject* names) {
  return Make(Self(object)->make_watch, object, args, names);
}

PyObject* MemoryView(PyObject* self, PyObject*) { return PyMemoryView_FromObject(self); }

int GetBuffer(PyObject* object, Py_buffer* view, int flags) {
  AreaObject* const self = Self(object);
  view->obj = nullptr;
  if (self->session->closed) {
    RaiseClosed(NameOf(self));
    return -1;
  }
  return PyBuffer_FillInfo(view, object, self->area->data(),
                           static_cast<Py_ssize_t>(self->area->size()),
                           self->area->writable() ? 0 : 1, flags);
}

Py_ssize_t Length(PyObject* self) { return static_cast<Py_ssize_t>(Self(self)->area->size()); }

PyObject* Represent(PyObject* object) {
  const AreaObject* const self = Self(object);
  return PyUnicode_FromFormat("<statehouse local area %s, %llu bytes>", NameOf(self),
                              static_cast<unsigned long long>(self->area->size()));
}

PyGetSetDef properties[] = {
    {"name", &GetName, nullptr, PyDoc_STR("The area's name."), nullptr},
    {"size", &GetSize, nullptr, PyDoc_STR("Its bytes."), nullptr},
    {"index", &GetIndex, nullptr, PyDoc_STR("Its number in order of creation."), nullptr},
    {"updates", &GetUpdates, nullptr,
     PyDoc_STR("The update counter: grows with every completed mutation."), nullptr},
    {"transport", &GetTransport, nullptr, PyDoc_STR("\"local\""), nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMethodDef range_methods[] = {
    {"read", AsMethod(&AreaRead), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("read(pos, len=None) -> bytes: a range; to the end of the area without len.")},
    {"write", AsMethod(&AreaWrite), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("write(pos, bytes, *, fence=None): any bytes-like object; all of it or nothing.")},
    {"fill", AsMethod(&AreaFill), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("fill(pos, len, value, *, fence=None): sets every byte of a range.")},
    {"lock", AsMethod(&LockOf), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("lock(pos=0, len=None, *, …) -> AreaLock: see statehouse.types.Area.lock.")},
    {"watch", AsMethod(&WatchOf), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("watch(pos=0, len=None, *, …) -> AreaWatch: see statehouse.types.Area.watch.")},
    {"wait", AsMethod(&AreaWait), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("wait(since, timeout=None) -> bool: until `updates` differs from `since`; False "
               "when `timeout` seconds passed first.")},
    {"memoryview", AsMethod(&MemoryView), METH_NOARGS,
     PyDoc_STR("The bytes themselves: not locked, not counted, wakes nobody.")},
};

// Word methods, range methods and the end mark, in one table for the type.
std::vector<PyMethodDef>& AllMethods() {
  static std::vector<PyMethodDef> methods;
  return methods;
}

PyBufferProcs buffer_slots = {&GetBuffer, nullptr};
PyMappingMethods mapping_slots = {&Length, &AreaSubscript, &AreaAssign};
PySequenceMethods sequence_slots = {};

}  // namespace

PyTypeObject area_type = {PyVarObject_HEAD_INIT(nullptr, 0)};

bool PrepareAreaType() {
  std::vector<PyMethodDef>& methods = AllMethods();
  methods.assign(area_word_methods, area_word_methods + area_word_method_count);
  methods.insert(methods.end(), std::begin(range_methods), std::end(range_methods));
  methods.push_back(PyMethodDef{nullptr, nullptr, 0, nullptr});
  sequence_slots.sq_length = &Length;
  sequence_slots.sq_item = &AreaItem;
  area_type.tp_name = "statehouse._local.Area";
  area_type.tp_doc = PyDoc_STR("One area of the local door: bytes that this process maps.");
  area_type.tp_basicsize = sizeof(AreaObject);
  area_type.tp_flags =
      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_GC;
  area_type.tp_traverse = &Traverse;
  area_type.tp_clear = &Clear;
  area_type.tp_dealloc = &Destroy;
  area_type.tp_repr = &Represent;
  area_type.tp_methods = methods.data();
  area_type.tp_getset = properties;
  area_type.tp_as_buffer = &buffer_slots;
  area_type.tp_as_mapping = &mapping_slots;
  area_type.tp_as_sequence = &sequence_slots;
  return PyType_Ready(&area_type) == 0;
}

PyObject* NewArea(SessionObject* session, std::shared_ptr<LocalArea> area, PyObject* make_lock,
                  PyObject* make_watch) {
  auto* const object = PyObject_GC_New(AreaObject, &area_type);
  if (object == nullptr) return nullptr;
  Py_INCREF(session);
  object->session = session;
  new (&object->area) std::shared_ptr<LocalArea>(std::move(area));
  Py_INCREF(make_lock);
  object->make_lock = make_lock;
  Py_INCREF(make_watch);
  object->make_watch = make_watch;
  PyObject_GC_Track(reinterpret_cast<PyObject*>(object));
  return reinterpret_cast<PyObject*>(object);
}

bool EnsureLaneSlow(AreaObject* self) {
  // A read-only area takes no lane; its mutations fail with READ_ONLY by themselves, and that needs
  // one all the same.
  Status status;
  {
    const WithoutGil without_gil(self->session);
    status = self->area->session()->AcquireLane();
  }
  return status.ok() || Raise(status, NameOf(self)) != nullptr;
}

PyObject* RaiseClosed(const char* name) {
  return Raise(Reason::kClientClosed, "the client was closed before this call; connect again",
               name);
}

}  // namespace statehouse::python
