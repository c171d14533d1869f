// The types Locks and Lease: locks of the local door. statehouse/_locks.py makes them a Lock.
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "clients/c/src/local_locks.h"
#include "clients/python/ext/errors.h"
#include "clients/python/ext/objects.h"

namespace statehouse::python {
namespace {

// Keeps its session object alive. Guarded by the GIL.
struct LocksObject {
  PyObject_HEAD SessionObject* session;
  std::shared_ptr<LocalLocks> locks;
};

struct LeaseObject {
  PyObject_HEAD SessionObject* session;
  std::shared_ptr<LocalLocks> locks;
  std::shared_ptr<HeldLock> held;  // Null once it was released. Copied by whoever uses it without
                                   // the GIL.
};

LocksObject* Locks(PyObject* self) { return reinterpret_cast<LocksObject*>(self); }
LeaseObject* Lease(PyObject* self) { return reinterpret_cast<LeaseObject*>(self); }

// As RunShort of dict.h: with the GIL, unless another thread of this session may need it to let go
// of what the operation waits for.
template <typename Operation>
Status RunShort(SessionObject* session, const Operation& operation) {
  const bool others = session->in_flight > 0 && session->in_flight_fork == ForkCount();
  if (!others && thread_lane.attachment_id == session->session->attachment_id()) [[likely]] {
    return operation();
  }
  const WithoutGil without_gil(session);
  return operation();
}

PyObject* NewLocks(PyTypeObject* type, PyObject* args, PyObject*) {
  PyObject* session_object = nullptr;
  if (PyArg_ParseTuple(args, "O!", &session_type, &session_object) == 0) return nullptr;
  auto* const session = reinterpret_cast<SessionObject*>(session_object);
  if (session->closed) return RaiseClosed("");
  StatusOr<std::shared_ptr<LocalLocks>> locks = std::shared_ptr<LocalLocks>();
  {
    const WithoutGil without_gil(session);
    locks = session->session->OpenLocks();
  }
  if (!locks.ok()) return Raise(locks.status(), "");
  auto* const self = Locks(type->tp_alloc(type, 0));
  if (self == nullptr) return nullptr;
  Py_INCREF(session);
  self->session = session;
  new (&self->locks) std::shared_ptr<LocalLocks>(*std::move(locks));
  return reinterpret_cast<PyObject*>(self);
}

void DestroyLocks(PyObject* object) {
  LocksObject* const self = Locks(object);
  self->locks.~shared_ptr();
  Py_DECREF(self->session);
  Py_TYPE(object)->tp_free(object);
}

PyObject* NewLease(LocksObject* locks, std::unique_ptr<HeldLock> held) {
  auto* const self = Lease(lease_type.tp_alloc(&lease_type, 0));
  if (self == nullptr) return nullptr;  // The lock goes back with `held`.
  Py_INCREF(locks->session);
  self->session = locks->session;
  new (&self->locks) std::shared_ptr<LocalLocks>(locks->locks);
  new (&self->held) std::shared_ptr<HeldLock>(std::move(held));
  return reinterpret_cast<PyObject*>(self);
}

// A bytearray whose first byte tells a wait to end once it is not 0. Held while it is looked at.
class StopFlag final {
 public:
  ~StopFlag() {
    if (buffer_.obj != nullptr) PyBuffer_Release(&buffer_);
  }
  // False with an exception set. None is no flag.
  bool Hold(PyObject* flag) {
    if (flag == Py_None) return true;
    if (PyObject_GetBuffer(flag, &buffer_, PyBUF_WRITABLE) != 0) return false;
    if (buffer_.len > 0) return true;
    PyErr_SetString(PyExc_ValueError, "the stop flag must have a byte");
    return false;
  }
  // Also without the interpreter's lock.
  bool is_set() const {
    return buffer_.obj != nullptr && std::atomic_ref<char>(*static_cast<char*>(buffer_.buf))
                                             .load(std::memory_order_relaxed) != 0;
  }

 private:
  Py_buffer buffer_{};
};

// acquire(name, shared, limit, ttl_ns, hold_ns, timeout_ns, owner, stop)
PyObject* Acquire(PyObject* object, PyObject* args) {
  LocksObject* const self = Locks(object);
  const char* name = nullptr;
  Py_ssize_t name_bytes = 0;
  int shared = 0;
  unsigned int limit = 1;
  long long ttl_ns = 0;
  long long hold_ns = 0;
  long long timeout_ns = 0;
  const char* owner = nullptr;
  PyObject* stop = Py_None;
  if (PyArg_ParseTuple(args, "s#pILLLs|O", &name, &name_bytes, &shared, &limit, &ttl_ns, &hold_ns,
                       &timeout_ns, &owner, &stop) == 0) {
    return nullptr;
  }
  StopFlag stop_flag;
  if (!stop_flag.Hold(stop)) return nullptr;
  if (self->session->closed) return RaiseClosed(name);
  LockAsk ask;
  ask.name.assign(name, static_cast<size_t>(name_bytes));
  const std::string owner_copy(owner);
  ask.request.owner = owner_copy;
  ask.request.mode = shared != 0 ? LockMode::kShared : LockMode::kExclusive;
  ask.request.limit = limit;
  ask.request.ttl_ns = static_cast<uint64_t>(ttl_ns);
  ask.request.hold_ns_max = static_cast<uint64_t>(hold_ns);
  ask.wait = false;
  std::unique_ptr<HeldLock> held;
  Status status = RunShort(self->session, [&] { return self->locks->Acquire(ask, &held); });
  if (status.ok() && held == nullptr && timeout_ns != 0) {
    ask.wait = true;
    if (timeout_ns > 0) {
      ask.deadline = std::chrono::steady_clock::now() + std::chrono::nanoseconds(timeout_ns);
    }
    ask.interrupted = [&stop_flag, session = self->session->session->options().interrupted] {
      return stop_flag.is_set() || session();
    };
    const WithoutGil without_gil(self->session);
    status = self->locks->Acquire(ask, &held);
  }
  if (!status.ok()) return Raise(status, ask.name.c_str());
  if (held == nullptr) Py_RETURN_NONE;
  return NewLease(self, std::move(held));
}

PyObject* RaiseReleased() {
  return Raise(Status(Reason::kLockLost, "the lock was released before"), "");
}

PyObject* Release(PyObject* object, PyObject*) {
  LeaseObject* const self = Lease(object);
  if (self->held == nullptr) return RaiseReleased();
  const std::shared_ptr<HeldLock> held = std::move(self->held);
  bool was_held = false;
  const Status status = RunShort(self->session, [&] { return held->Release(&was_held); });
  if (!status.ok()) return Raise(status, held->name().c_str());
  return PyBool_FromLong(was_held);
}

PyObject* Renew(PyObject* object, PyObject* ttl_object) {
  LeaseObject* const self = Lease(object);
  const std::shared_ptr<HeldLock> held = self->held;
  if (held == nullptr) return RaiseReleased();
  const unsigned long long ttl_ns = PyLong_AsUnsignedLongLong(ttl_object);
  if (ttl_ns == static_cast<unsigned long long>(-1) && PyErr_Occurred() != nullptr) return nullptr;
  const Status status = RunShort(self->session, [&] { return held->Renew(ttl_ns); });
  if (!status.ok()) return Raise(status, held->name().c_str());
  Py_RETURN_NONE;
}

PyObject* Left(PyObject* object, PyObject*) {
  LeaseObject* const self = Lease(object);
  const LeaseLook look = self->held == nullptr ? LeaseLook() : self->held->Look();
  return PyFloat_FromDouble(look.held ? static_cast<double>(look.left_ns) / 1e9 : 0);
}

PyObject* GetToken(PyObject* object, void*) {
  LeaseObject* const self = Lease(object);
  return PyLong_FromUnsignedLongLong(self->held == nullptr ? 0 : self->held->token());
}

void DestroyLease(PyObject* object) {
  LeaseObject* const self = Lease(object);
  self->held.~shared_ptr();
  self->locks.~shared_ptr();
  Py_DECREF(self->session);
  Py_TYPE(object)->tp_free(object);
}

PyMethodDef locks_methods[] = {
    {"acquire", &Acquire, METH_VARARGS,
     PyDoc_STR(
         "acquire(name, shared, limit, ttl_ns, hold_ns, timeout_ns, owner, stop=None) -> Lease "
         "or None: timeout_ns 0 only tries, -1 waits for ever. stop: a bytearray; Cancelled soon "
         "after its first byte was set.")},
    {nullptr, nullptr, 0, nullptr},
};

PyMethodDef lease_methods[] = {
    {"release", &Release, METH_NOARGS,
     PyDoc_STR("release() -> bool: gives the lock back; whether it was held until now.")},
    {"renew", &Renew, METH_O,
     PyDoc_STR("renew(ttl_ns): lengthens the lease; 0: as it was asked for.")},
    {"left", &Left, METH_NOARGS,
     PyDoc_STR("left() -> float: seconds that the lease has left; 0.0 once it is lost.")},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef lease_properties[] = {
    {"token", &GetToken, nullptr, PyDoc_STR("The fencing token; 0 once released."), nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

}  // namespace

PyTypeObject locks_type = {PyVarObject_HEAD_INIT(nullptr, 0)};
PyTypeObject lease_type = {PyVarObject_HEAD_INIT(nullptr, 0)};

bool PrepareLockTypes() {
  locks_type.tp_name = "statehouse._local.Locks";
  locks_type.tp_doc = PyDoc_STR("Locks(session): the locks of the local door.");
  locks_type.tp_basicsize = sizeof(LocksObject);
  locks_type.tp_flags = Py_TPFLAGS_DEFAULT;
  locks_type.tp_new = &NewLocks;
  locks_type.tp_dealloc = &DestroyLocks;
  locks_type.tp_methods = locks_methods;
  lease_type.tp_name = "statehouse._local.Lease";
  lease_type.tp_doc = PyDoc_STR("A lock that this process holds. Dropping it gives the lock back.");
  lease_type.tp_basicsize = sizeof(LeaseObject);
  lease_type.tp_flags = Py_TPFLAGS_DEFAULT;
  lease_type.tp_dealloc = &DestroyLease;
  lease_type.tp_methods = lease_methods;
  lease_type.tp_getset = lease_properties;
  return PyType_Ready(&locks_type) == 0 && PyType_Ready(&lease_type) == 0;
}

}  // namespace statehouse::python
