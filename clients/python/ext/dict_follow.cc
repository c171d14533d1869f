// The type DictFollow: a DictFollower for statehouse/_watch.py and _dict_follow.py.
#include <unistd.h>

#include <algorithm>
#include <new>
#include <string>

#include "clients/c/src/lane_pool.h"
#include "clients/c/src/local_follow.h"
#include "clients/python/ext/dict.h"
#include "clients/python/ext/dict_follower.h"
#include "clients/python/ext/errors.h"
#include "clients/python/ext/numbers.h"
#include "engine/os/futex.h"

namespace statehouse::python {
namespace {

constexpr int64_t kForeverNs = INT64_MAX;
// How long one sleep lasts in the thread in which Python runs the handlers of signals, a process's
// first, and in others.
constexpr uint64_t kSliceNs = 100'000'000;
constexpr uint64_t kLongSliceNs = 10'000'000'000;

using Found = DictFollower::Found;

// Keeps its dict alive. A forked child's are its parent's, and do nothing.
struct DictFollowObject {
  PyObject_HEAD DictObject* dict;
  DictFollower* follower;  // Owned.
  uint64_t fork_count;
  bool keys_only;
};

DictFollowObject* Self(PyObject* self) { return reinterpret_cast<DictFollowObject*>(self); }
bool IsForked(const DictFollowObject* self) { return self->fork_count != ForkCount(); }

bool SelectionOf(PyObject* key, PyObject* prefix, unsigned int kinds, ChangeSelection* selection) {
  std::string_view text;
  if (key != Py_None) {
    if (!TextOf(key, &text)) return false;
    selection->key = std::string(text);
  }
  if (!TextOf(prefix, &text)) return false;
  selection->prefix = std::string(text);
  if (kinds != 0) selection->kinds = kinds;
  return true;
}

// DictFollow(dict, log_id, position, revision, key, prefix, kinds, keys_only, progress,
//            follows_rings)
PyObject* New(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject* dict_object = nullptr;
  unsigned long long log_id = 0;
  unsigned long long position = 0;
  unsigned long long revision = 0;
  PyObject* key = nullptr;
  PyObject* prefix = nullptr;
  unsigned int kinds = 0;
  int keys_only = 0;
  PyObject* progress = nullptr;
  int follows_rings = 0;
  if (PyArg_ParseTuple(args, "O!KKKOOIpOp", &dict_type, &dict_object, &log_id, &position, &revision,
                       &key, &prefix, &kinds, &keys_only, &progress, &follows_rings) == 0) {
    return nullptr;
  }
  auto* const dict = reinterpret_cast<DictObject*>(dict_object);
  const char* const name = dict->dict->name().c_str();
  ChangeSelection selection;
  int64_t progress_ns = 0;
  if (!SelectionOf(key, prefix, kinds, &selection) ||
      !ParseSeconds(progress, name, 0, &progress_ns)) {
    return nullptr;
  }
  if (dict->session->closed) return RaiseClosed(name);
  StatusOr<std::shared_ptr<const FollowLog>> log = std::shared_ptr<const FollowLog>();
  StatusOr<std::unique_ptr<RingFollower>> rings = std::unique_ptr<RingFollower>();
  {
    const WithoutGil without_gil(dict->session);
    log = MapFollowLog(*dict->dict, log_id);
    if (log.ok() && follows_rings != 0) rings = FollowRings(*dict->dict, *log);
  }
  if (!log.ok()) return Raise(log.status(), name);
  if (!rings.ok()) return Raise(rings.status(), name);
  auto* const self = Self(type->tp_alloc(type, 0));
  if (self == nullptr) return nullptr;
  Py_INCREF(dict_object);
  self->dict = dict;
  self->fork_count = ForkCount();
  self->keys_only = keys_only != 0;
  self->follower = new DictFollower(
      SelectedChanges(*std::move(log), position, revision, std::move(selection), *std::move(rings)),
      static_cast<uint64_t>(progress_ns));
  return reinterpret_cast<PyObject*>(self);
}

void Destroy(PyObject* object) {
  DictFollowObject* const self = Self(object);
  if (!IsForked(self)) delete self->follower;
  Py_DECREF(self->dict);
  Py_TYPE(object)->tp_free(object);
}

// A new reference: None, a number, or the value's wire bytes.
PyObject* ValueObject(const DictFollowObject* self, const DictChange& change) {
  const bool has_value =
      change.operation == FeedOperation::kPut && !self->keys_only && !change.value_gone;
  if (!has_value) Py_RETURN_NONE;
  return change.kind == DictKind::kBytes ? BytesObject(change.bytes)
                                         : NumberObject(change.kind, change.bits);
}

// (kind, key, value, version, revision, value_gone, time in ms)
PyObject* ChangeObject(const DictFollowObject* self, DictChange* change) {
  const bool may_have = change->operation == FeedOperation::kPut && !self->keys_only;
  if (may_have && change->value_gone && !self->dict->session->closed) {
    static_cast<void>(RunShort(self->dict, [&] {
      FillValue(*self->dict->dict, change);
      return Status();
    }));
  }
  PyObject* const value = ValueObject(self, *change);
  if (value == nullptr) return nullptr;
  // No key that the service serves needs it.
  PyObject* const key = PyUnicode_DecodeUTF8(
      change->key.data(), static_cast<Py_ssize_t>(change->key.size()), "replace");
  if (key == nullptr) {
    Py_DECREF(value);
    return nullptr;
  }
  return Py_BuildValue("iNNKKOK", static_cast<int>(change->operation), key, value,
                       static_cast<unsigned long long>(change->version),
                       static_cast<unsigned long long>(change->revision),
                       may_have && change->value_gone ? Py_True : Py_False,
                       static_cast<unsigned long long>(change->time_ms));
}

// (revision, changes)
PyObject* PortionObject(const DictFollowObject* self, DictFollower::Portion* portion) {
  const auto count = static_cast<Py_ssize_t>(portion->changes.size());
  Reference list(PyList_New(count));
  if (list.get() == nullptr) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* const change = ChangeObject(self, &portion->changes[static_cast<size_t>(i)]);
    if (change == nullptr) return nullptr;
    PyList_SET_ITEM(list.get(), i, change);
  }
  return Py_BuildValue("KN", static_cast<unsigned long long>(portion->revision), list.Release());
}

// Reads and sleeps until there is something or until_ns. Needs no GIL.
Found Await(DictFollower* follower, uint64_t until_ns, DictFollower::Portion* portion) {
  for (;;) {
    const Found found = follower->Read(portion);
    const uint64_t now_ns = MonotonicNs();
    if ((found != Found::kNothing && found != Found::kMore) || now_ns >= until_ns) return found;
    if (found == Found::kNothing) follower->Sleep(until_ns - now_ns);
  }
}

// read(timeout) -> None | (revision, changes) | "over" | "fall back" | "broken"
PyObject* Read(PyObject* object, PyObject* timeout) {
  DictFollowObject* const self = Self(object);
  int64_t timeout_ns = 0;
  if (!ParseSeconds(timeout, self->dict->dict->name().c_str(), kForeverNs, &timeout_ns)) {
    return nullptr;
  }
  if (IsForked(self)) return PyUnicode_FromString("over");
  DictFollower::Portion portion;
  Found found = Found::kNothing;
  if (timeout_ns == 0) {
    found = self->follower->Read(&portion);
  } else {
    const uint64_t end_ns = MonotonicNs() + static_cast<uint64_t>(timeout_ns);
    const uint64_t slice_ns = ::gettid() == ::getpid() ? kSliceNs : kLongSliceNs;
    for (;;) {
      const uint64_t now_ns = MonotonicNs();
      // No operation of the session in the sense of WithoutGil: those of other threads stay fast.
      Py_INCREF(object);
      PyThreadState* const state = PyEval_SaveThread();
      found = Await(self->follower, std::min(end_ns, now_ns + slice_ns), &portion);
      PyEval_RestoreThread(state);
      Py_DECREF(object);
      if (found != Found::kNothing && found != Found::kMore) break;
      if (PyErr_CheckSignals() != 0) return nullptr;
      if (MonotonicNs() >= end_ns) break;
    }
  }
  switch (found) {
    case Found::kNothing:
    case Found::kMore: Py_RETURN_NONE;
    case Found::kChanges:
    case Found::kProgress: return PortionObject(self, &portion);
    case Found::kFallBack: return PyUnicode_FromString("fall back");
    case Found::kBroken: return PyUnicode_FromString("broken");
    case Found::kOver: break;
  }
  return PyUnicode_FromString("over");
}

PyObject* Stop(PyObject* object, PyObject*) {
  DictFollowObject* const self = Self(object);
  if (IsForked(self)) return PyLong_FromLong(0);
  return PyLong_FromUnsignedLongLong(self->follower->Stop());
}

PyObject* EndHere(PyObject* object, PyObject*) {
  if (!IsForked(Self(object))) Self(object)->follower->EndHere();
  Py_RETURN_NONE;
}

PyObject* ReadyFd(PyObject* object, PyObject*) {
  DictFollowObject* const self = Self(object);
  if (IsForked(self)) return PyLong_FromLong(-1);
  const StatusOr<int> fd = self->follower->ReadyFd();
  if (!fd.ok()) return Raise(fd.status(), self->dict->dict->name().c_str());
  return PyLong_FromLong(*fd);
}

PyObject* ClearReady(PyObject* object, PyObject*) {
  if (!IsForked(Self(object))) Self(object)->follower->ClearReady();
  Py_RETURN_NONE;
}

PyObject* IsSupported(PyObject*, PyObject*) { return PyBool_FromLong(FollowThread::IsSupported()); }

PyObject* FollowsRings(PyObject*, PyObject* dict) {
  if (PyObject_TypeCheck(dict, &dict_type) == 0) {
    PyErr_SetString(PyExc_TypeError, "a _local.Dict is needed");
    return nullptr;
  }
  return PyBool_FromLong(MayFollowRings(*reinterpret_cast<DictObject*>(dict)->dict));
}

PyMethodDef methods[] = {
    {"read", &Read, METH_O,
     PyDoc_STR("read(timeout) -> what there is: (revision, changes), no changes being progress; "
               "None when nothing came in time; \"fall back\" or \"broken\" where a stream has to "
               "go on; \"over\" after stop() or when all that end_here() left was given.")},
    {"stop", &Stop, METH_NOARGS,
     PyDoc_STR("stop() -> int: nothing is given any more; everything up to this revision was.")},
    {"end_here", &EndHere, METH_NOARGS, PyDoc_STR("What comes from now on is not given.")},
    {"ready_fd", &ReadyFd, METH_NOARGS,
     PyDoc_STR("A descriptor to poll; when it is readable, clear_ready() and then read(0) until it "
               "gives None.")},
    {"clear_ready", &ClearReady, METH_NOARGS, PyDoc_STR("The descriptor is not readable.")},
    {"is_supported", &IsSupported, METH_NOARGS | METH_STATIC,
     PyDoc_STR("Whether this kernel lets a thread sleep on several words.")},
    {"may_follow_rings", &FollowsRings, METH_O | METH_STATIC,
     PyDoc_STR("may_follow_rings(dict) -> bool: whether a watch of the dict may say so.")},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

PyTypeObject dict_follow_type = {PyVarObject_HEAD_INIT(nullptr, 0)};

bool PrepareDictFollowType() {
  dict_follow_type.tp_name = "statehouse._local.DictFollow";
  dict_follow_type.tp_doc =
      PyDoc_STR("A watch of a dict that reads the dict's follow log by itself.");
  dict_follow_type.tp_basicsize = sizeof(DictFollowObject);
  dict_follow_type.tp_flags = Py_TPFLAGS_DEFAULT;
  dict_follow_type.tp_new = &New;
  dict_follow_type.tp_dealloc = &Destroy;
  dict_follow_type.tp_methods = methods;
  return PyType_Ready(&dict_follow_type) == 0;
}

}  // namespace statehouse::python
