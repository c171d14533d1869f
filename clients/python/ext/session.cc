// The type Session, and the small type CompareExchangeResult.
#include <new>
#include <string>

#include "clients/python/ext/errors.h"
#include "clients/python/ext/numbers.h"
#include "clients/python/ext/objects.h"

namespace statehouse::python {
namespace {

SessionObject* Self(PyObject* self) { return reinterpret_cast<SessionObject*>(self); }

void CloseWhenIdle(SessionObject* self) {
  const bool idle = self->in_flight == 0 || self->in_flight_fork != ForkCount();
  if (self->closed && idle && self->session != nullptr) self->session->Close();
}

void Destroy(PyObject* object) {
  Self(object)->session.~shared_ptr();
  PyObject_Free(object);
}

// Asked while a call waits without the GIL: whether a signal handler raised or another thread
// closed the client.
bool Interrupted(SessionObject* self) {
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool interrupted = self->closed || PyErr_CheckSignals() != 0;
  PyGILState_Release(state);
  return interrupted;
}

PyObject* New(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static const char* const kNames[] = {"runtime_dir", "token", "client_name",
                                       "timeout",     "lanes", nullptr};
  const char* runtime_dir = nullptr;
  const char* token = nullptr;
  const char* client_name = nullptr;
  double timeout = 0;
  int lanes = 1;
  if (PyArg_ParseTupleAndKeywords(args, kwargs, "sssd|p", const_cast<char**>(kNames), &runtime_dir,
                                  &token, &client_name, &timeout, &lanes) == 0) {
    return nullptr;
  }
  auto* const self = Self(type->tp_alloc(type, 0));
  if (self == nullptr) return nullptr;
  new (&self->session) std::shared_ptr<LocalSession>();
  LocalSessionOptions options;
  options.runtime_dir = runtime_dir;
  options.token = token;
  options.client_name = client_name;
  options.timeout = std::chrono::nanoseconds(static_cast<int64_t>(timeout * 1e9));
  options.interrupted = [self] { return Interrupted(self); };
  Status status;
  {
    const WithoutGil without_gil(self);
    StatusOr<std::shared_ptr<LocalSession>> attached =
        lanes != 0 ? LocalSession::Attach(std::move(options))
                   : LocalSession::Connect(std::move(options));
    if (attached.ok()) {
      self->session = *std::move(attached);
    } else {
      status = attached.status();
    }
  }
  if (status.ok()) return reinterpret_cast<PyObject*>(self);
  Py_DECREF(self);
  return Raise(status, "");
}

PyObject* Close(PyObject* object, PyObject*) {
  SessionObject* const self = Self(object);
  self->closed = true;
  CloseWhenIdle(self);
  Py_RETURN_NONE;
}

PyObject* Open(PyObject* object, PyObject* const* args, Py_ssize_t count) {
  SessionObject* const self = Self(object);
  if (count != 3) {
    PyErr_SetString(PyExc_TypeError, "call it as open(name, make_lock, make_watch)");
    return nullptr;
  }
  Py_ssize_t length = 0;
  const char* const text = PyUnicode_AsUTF8AndSize(args[0], &length);
  if (text == nullptr) return nullptr;
  if (self->closed) return RaiseClosed(text);
  const std::string name(text, static_cast<size_t>(length));
  StatusOr<std::shared_ptr<LocalArea>> area = std::shared_ptr<LocalArea>();
  {
    const WithoutGil without_gil(self);
    area = self->session->Open(name);
  }
  if (!area.ok()) return Raise(area.status(), name.c_str());
  return NewArea(self, *std::move(area), args[1], args[2]);
}

// `flag` is a bytearray, or None.
void SetIf(bool is_set, PyObject* flag) {
  if (is_set && PyByteArray_Check(flag) && PyByteArray_Size(flag) > 0) {
    PyByteArray_AsString(flag)[0] = 1;
  }
}

PyObject* Call(PyObject* object, PyObject* args, PyObject* kwargs) {
  static const char* const kNames[] = {"method", "request",      "timeout", "idempotent",
                                       "name",   "long_running", "again",   nullptr};
  const char* method = nullptr;
  const char* request = nullptr;
  Py_ssize_t request_bytes = 0;
  PyObject* timeout = nullptr;
  int idempotent = 0;
  const char* name = "";
  int long_running = 0;
  PyObject* again = Py_None;
  if (PyArg_ParseTupleAndKeywords(args, kwargs, "sy#Op|spO", const_cast<char**>(kNames), &method,
                                  &request, &request_bytes, &timeout, &idempotent, &name,
                                  &long_running, &again) == 0) {
    return nullptr;
  }
  SessionObject* const self = Self(object);
  if (self->closed) return RaiseClosed(name);
  int64_t timeout_ns = 0;
  if (!ParseSeconds(timeout, name, 0, &timeout_ns)) return nullptr;
  const std::string method_copy(method);
  const std::string request_copy(request, static_cast<size_t>(request_bytes));
  StatusOr<std::string> response = std::string();
  bool sent_again = false;
  {
    const WithoutGil without_gil(self);
    CallOptions options;
    options.deadline = std::chrono::steady_clock::now() + std::chrono::nanoseconds(timeout_ns);
    options.idempotent = idempotent != 0;
    options.long_running = long_running != 0;
    options.sent_again = &sent_again;
    response = self->session->Call(method_copy, request_copy, options);
  }
  SetIf(sent_again, again);
  if (!response.ok()) return Raise(response.status(), name);
  return PyBytes_FromStringAndSize(response->data(), static_cast<Py_ssize_t>(response->size()));
}

PyObject* CallIfFree(PyObject* object, PyObject* args) {
  const char* method = nullptr;
  const char* request = nullptr;
  Py_ssize_t request_bytes = 0;
  PyObject* timeout = nullptr;
  int idempotent = 0;
  const char* name = nullptr;
  Py_ssize_t name_bytes = 0;
  PyObject* again = Py_None;
  if (PyArg_ParseTuple(args, "sy#Ops#|O", &method, &request, &request_bytes, &timeout, &idempotent,
                       &name, &name_bytes, &again) == 0) {
    return nullptr;
  }
  SessionObject* const self = Self(object);
  if (self->closed) return RaiseClosed(name);
  int64_t timeout_ns = 0;
  if (!ParseSeconds(timeout, name, 0, &timeout_ns)) return nullptr;
  if (static_cast<size_t>(request_bytes) > LocalSession::kSmallRequestBytesMax) Py_RETURN_NONE;
  const std::string method_copy(method);
  const std::string request_copy(request, static_cast<size_t>(request_bytes));
  StatusOr<std::string> response = std::string();
  bool was_free = false;
  bool sent_again = false;
  {
    const WithoutGil without_gil(self);
    const Deadline now = std::chrono::steady_clock::now();
    CallOptions options;
    options.deadline = now + std::chrono::nanoseconds(timeout_ns);
    options.idempotent = idempotent != 0;
    options.sent_again = &sent_again;
    was_free = self->session->CallIfFree(method_copy, request_copy, options,
                                         now + LocalSession::kBusyPatience, &response);
  }
  SetIf(sent_again, again);
  if (!was_free) Py_RETURN_NONE;
  if (!response.ok()) return Raise(response.status(), name);
  return PyBytes_FromStringAndSize(response->data(), static_cast<Py_ssize_t>(response->size()));
}

PyObject* GetClosed(PyObject* self, void*) { return PyBool_FromLong(Self(self)->closed); }

PyMethodDef session_methods[] = {
    {"open", AsMethod(&Open), METH_FASTCALL,
     PyDoc_STR("open(name, make_lock, make_watch) -> Area: an area that exists; its lock(…) is "
               "make_lock(area, …), its watch(…) make_watch(area, …).")},
    {"call", AsMethod(&Call), METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("call(method, request, timeout, idempotent, name='', long_running=False, "
               "again=None) -> bytes: one unary call; a long-running one has a connection of its "
               "own. again: a bytearray, whose first byte is set where the call was sent again.")},
    {"call_if_free", &CallIfFree, METH_VARARGS,
     PyDoc_STR("call_if_free(method, request, timeout, idempotent, name, again=None) -> bytes | "
               "None: as call; None, with nothing sent, where the request is too long for a packet "
               "or other threads' calls keep the connection busy.")},
    {"close", &Close, METH_NOARGS, PyDoc_STR("Gives the attachment back.")},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef session_properties[] = {
    {"closed", &GetClosed, nullptr, PyDoc_STR("Whether close() was called."), nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

}  // namespace

PyTypeObject session_type = {PyVarObject_HEAD_INIT(nullptr, 0)};

bool PrepareSessionType() {
  session_type.tp_name = "statehouse._local.Session";
  session_type.tp_doc = PyDoc_STR("An attachment to the service of this host.");
  session_type.tp_basicsize = sizeof(SessionObject);
  session_type.tp_flags = Py_TPFLAGS_DEFAULT;
  session_type.tp_new = &New;
  session_type.tp_dealloc = &Destroy;
  session_type.tp_methods = session_methods;
  session_type.tp_getset = session_properties;
  return PyType_Ready(&session_type) == 0;
}

WithoutGil::WithoutGil(SessionObject* session) : session_(session) {
  if (session_->in_flight_fork != ForkCount()) {
    session_->in_flight_fork = ForkCount();
    session_->in_flight = 0;
  }
  ++session_->in_flight;
  Py_INCREF(session_);
  state_ = PyEval_SaveThread();
}

WithoutGil::~WithoutGil() {
  PyEval_RestoreThread(state_);
  --session_->in_flight;
  CloseWhenIdle(session_);
  Py_DECREF(session_);
}

bool TakeArguments(const char* function, const char* const* parameters, size_t required,
                   PyObject* const* args, Py_ssize_t count, PyObject* names, PyObject** values) {
  size_t parameter_count = 0;
  while (parameters[parameter_count] != nullptr) ++parameter_count;
  if (static_cast<size_t>(count) > parameter_count) {
    PyErr_Format(PyExc_TypeError, "%s() takes at most %zu arguments", function, parameter_count);
    return false;
  }
  for (Py_ssize_t i = 0; i < count; ++i) values[i] = args[i];
  const Py_ssize_t named = names == nullptr ? 0 : PyTuple_GET_SIZE(names);
  for (Py_ssize_t i = 0; i < named; ++i) {
    PyObject* const name = PyTuple_GET_ITEM(names, i);
    size_t at = 0;
    while (at < parameter_count && PyUnicode_CompareWithASCIIString(name, parameters[at]) != 0) {
      ++at;
    }
    if (at == parameter_count || values[at] != nullptr) {
      PyErr_Format(PyExc_TypeError, "%s() got an unexpected or repeated argument '%U'", function,
                   name);
      return false;
    }
    values[at] = args[count + i];
  }
  for (size_t i = 0; i < required; ++i) {
    if (values[i] != nullptr) continue;
    PyErr_Format(PyExc_TypeError, "%s() is missing the argument '%s'", function, parameters[i]);
    return false;
  }
  return true;
}

}  // namespace statehouse::python
