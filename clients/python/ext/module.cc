// statehouse._local: the local door for Python. Written against the plain C API, because a binding
// layer's call overhead would cost more than the operation. No gRPC and no protobuf in here.
#include <chrono>
#include <string>

#include "clients/c/src/endpoint.h"
#include "clients/python/ext/batch.h"
#include "clients/python/ext/dict.h"
#include "clients/python/ext/errors.h"
#include "clients/python/ext/numbers.h"
#include "clients/python/ext/objects.h"
#include "clients/python/ext/value.h"

namespace statehouse::python {
namespace {

// The text of a str argument, or nothing for None. False with TypeError set.
bool OptionalText(PyObject* object, const char* what, std::optional<std::string>* text) {
  if (object == nullptr || object == Py_None) return true;
  if (!PyUnicode_Check(object)) {
    PyErr_Format(PyExc_TypeError, "%s must be a str or None, not %.100s", what,
                 Py_TYPE(object)->tp_name);
    return false;
  }
  Py_ssize_t length = 0;
  const char* const bytes = PyUnicode_AsUTF8AndSize(object, &length);
  if (bytes == nullptr) return false;
  *text = std::string(bytes, static_cast<size_t>(length));
  return true;
}

bool ParseTransport(const std::string& text, TransportChoice* choice) {
  if (text == "auto") return *choice = TransportChoice::kAuto, true;
  if (text == "local") return *choice = TransportChoice::kLocal, true;
  if (text == "socket") return *choice = TransportChoice::kSocket, true;
  if (text == "network") return *choice = TransportChoice::kNetwork, true;
  Raise(Reason::kInvalidArgument,
        "transport \"" + text + "\" is none of \"auto\", \"local\", \"socket\" and \"network\"",
        "");
  return false;
}

// resolve(url, token, token_file, timeout, transport) -> (door, chosen, runtime_dir, target, token,
// timeout, tls)
PyObject* Resolve(PyObject*, PyObject* args) {
  PyObject* url = nullptr;
  PyObject* token = nullptr;
  PyObject* token_file = nullptr;
  PyObject* timeout = nullptr;
  const char* transport = nullptr;
  if (PyArg_ParseTuple(args, "OOOOs", &url, &token, &token_file, &timeout, &transport) == 0) {
    return nullptr;
  }
  ConnectArguments arguments;
  TransportChoice choice = TransportChoice::kAuto;
  int64_t timeout_ns = -1;
  if (!OptionalText(url, "url", &arguments.url) ||
      !OptionalText(token, "token", &arguments.token) ||
      !OptionalText(token_file, "token_file", &arguments.token_file) ||
      !ParseTransport(transport, &choice) || !ParseSeconds(timeout, "", -1, &timeout_ns)) {
    return nullptr;
  }
  arguments.transport = choice;
  if (timeout_ns >= 0) arguments.timeout = std::chrono::nanoseconds(timeout_ns);
  const StatusOr<Endpoint> endpoint = ResolveEndpoint(arguments, ProcessEnvironment());
  if (!endpoint.ok()) return Raise(endpoint.status(), "");
  const Endpoint& found = *endpoint;
  const TlsIdentity& tls = found.tls;
  const auto pem = [](const std::string& text) { return text.empty() ? nullptr : text.c_str(); };
  // "z" with nothing makes None.
  PyObject* const credentials =
      tls.enabled ? Py_BuildValue("yyy", pem(tls.authorities), pem(tls.key), pem(tls.certificate))
                  : Py_BuildValue("z", nullptr);
  if (credentials == nullptr) return nullptr;
  const char* const door = found.local ? "local" : found.socket ? "socket" : "network";
  return Py_BuildValue("sOsssdN", door, found.chosen ? Py_True : Py_False,
                       found.runtime_dir.c_str(), found.grpc_target.c_str(), found.token.c_str(),
                       std::chrono::duration<double>(found.timeout).count(), credentials);
}

// reason_names() -> tuple of the names of all reasons, by number.
PyObject* ReasonNames(PyObject*, PyObject*) {
  PyObject* const names = PyTuple_New(kReasonCount);
  if (names == nullptr) return nullptr;
  for (uint16_t i = 0; i < kReasonCount; ++i) {
    const std::string_view name = ReasonName(static_cast<Reason>(i));
    PyTuple_SET_ITEM(
        names, i, PyUnicode_FromStringAndSize(name.data(), static_cast<Py_ssize_t>(name.size())));
  }
  return names;
}

// reason_is_retryable(number) -> bool
PyObject* IsRetryable(PyObject*, PyObject* number) {
  const long reason = PyLong_AsLong(number);
  if (reason == -1 && PyErr_Occurred() != nullptr) return nullptr;
  return PyBool_FromLong(reason >= 0 && reason < kReasonCount &&
                         ReasonIsRetryable(static_cast<Reason>(reason)));
}

PyMethodDef module_functions[] = {
    {"resolve", &Resolve, METH_VARARGS,
     PyDoc_STR(
         "Where the service is: (door, whether it was asked for by name, runtime_dir, target, "
         "token, timeout, TLS's (authorities, key, certificate) or None).")},
    {"reason_names", &ReasonNames, METH_NOARGS, PyDoc_STR("The names of all reasons, by number.")},
    {"reason_is_retryable", &IsRetryable, METH_O,
     PyDoc_STR("Whether the same call may succeed later without a change.")},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "statehouse._local",
                          PyDoc_STR("The local door: areas that this process maps."),
                          -1,
                          module_functions,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

bool AddType(PyObject* module, const char* name, PyTypeObject* type) {
  Py_INCREF(type);
  return PyModule_AddObject(module, name, reinterpret_cast<PyObject*>(type)) == 0;
}

}  // namespace
}  // namespace statehouse::python

PyMODINIT_FUNC PyInit__local() {
  using namespace statehouse::python;  // NOLINT: the one function outside of it.
  if (!PrepareSessionType() || !PrepareAreaType() || !PrepareCompareExchangeResultType() ||
      !PrepareDictType() || !PrepareDictFollowType() || !PrepareLockTypes()) {
    return nullptr;
  }
  PyObject* const module = PyModule_Create(&definition);
  if (module == nullptr) return nullptr;
  if (PyModule_AddFunctions(module, value_functions) == 0 &&
      AddType(module, "Session", &session_type) && AddType(module, "Area", &area_type) &&
      AddType(module, "Dict", &dict_type) && AddType(module, "DictFollow", &dict_follow_type) &&
      AddType(module, "Locks", &locks_type) && AddType(module, "Lease", &lease_type) &&
      AddType(module, "CompareExchangeResult", &compare_exchange_result_type) &&
      AddBatchTypes(module)) {
    return module;
  }
  Py_DECREF(module);
  return nullptr;
}
