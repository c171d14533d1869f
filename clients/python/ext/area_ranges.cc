// The range methods of Area: read, write, fill, subscripts and wait.
#include <chrono>
#include <span>
#include <string>

#include "clients/python/ext/errors.h"
#include "clients/python/ext/numbers.h"
#include "clients/python/ext/objects.h"

namespace statehouse::python {
namespace {

// A shorter copy takes less time than giving the GIL away and getting it back.
constexpr uint64_t kWithoutGilBytesMin = 16 << 10;
constexpr int64_t kForeverNs = int64_t{100} * 365 * 24 * 3600 * 1'000'000'000;

AreaObject* Self(PyObject* self) { return reinterpret_cast<AreaObject*>(self); }
const char* NameOf(const AreaObject* self) { return self->area->name().c_str(); }

// A bytes-like object, held for one call.
class Bytes final {
 public:
  explicit Bytes(PyObject* object) { ok_ = PyObject_GetBuffer(object, &view_, PyBUF_SIMPLE) == 0; }
  ~Bytes() {
    if (ok_) PyBuffer_Release(&view_);
  }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  bool ok() const { return ok_; }  // Else an exception is set.
  std::span<const std::byte> span() const {
    return {static_cast<const std::byte*>(view_.buf), static_cast<size_t>(view_.len)};
  }

 private:
  Py_buffer view_;
  bool ok_;
};

// Runs `operation`, without the GIL when `bytes` is large.
template <typename Operation>
Status Run(AreaObject* self, uint64_t bytes, const Operation& operation) {
  if (bytes < kWithoutGilBytesMin) return operation();
  const WithoutGil without_gil(self->session);
  return operation();
}

PyObject* ReadRange(AreaObject* self, uint64_t pos, uint64_t len) {
  // Bounds come first, so that no absurd length is allocated.
  const uint64_t size = self->area->size();
  if (len > size || pos > size - len) {
    return Raise(Reason::kOutOfBounds,
                 "area \"" + self->area->name() + "\": [" + std::to_string(pos) + ", +" +
                     std::to_string(len) + ") is not inside its " + std::to_string(size) + " bytes",
                 NameOf(self));
  }
  if (self->area->writable() && !EnsureLane(self)) return nullptr;
  PyObject* const bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(len));
  if (bytes == nullptr) return nullptr;
  auto* const out = reinterpret_cast<std::byte*>(PyBytes_AS_STRING(bytes));
  const Status status =
      Run(self, len, [&] { return self->area->Read(pos, std::span<std::byte>(out, len)); });
  if (status.ok()) return bytes;
  Py_DECREF(bytes);
  return Raise(status, NameOf(self));
}

bool WriteRange(AreaObject* self, uint64_t pos, std::span<const std::byte> bytes,
                uint64_t fence) {
  if (!EnsureLane(self)) return false;
  const Status status =
      Run(self, bytes.size(), [&] { return self->area->Write(pos, bytes, fence); });
  return status.ok() || Raise(status, NameOf(self)) != nullptr;
}

// A subscript as a range of bytes.
struct Range {
  uint64_t pos = 0;
  uint64_t len = 0;
  bool is_index = false;
};

bool ParseSubscript(AreaObject* self, PyObject* key, Range* range) {
  if (self->session->closed) return RaiseClosed(NameOf(self)) != nullptr;
  const auto size = static_cast<Py_ssize_t>(self->area->size());
  if (PySlice_Check(key)) {
    Py_ssize_t start = 0;
    Py_ssize_t stop = 0;
    Py_ssize_t step = 0;
    if (PySlice_Unpack(key, &start, &stop, &step) < 0) return false;
    if (step != 1) {
      Raise(Reason::kInvalidArgument,
            "area \"" + self->area->name() + "\": a slice must have step 1", NameOf(self));
      return false;
    }
    range->len = static_cast<uint64_t>(PySlice_AdjustIndices(size, &start, &stop, step));
    range->pos = static_cast<uint64_t>(start);
    return true;
  }
  WideNumber index;
  if (!ParseWide(key, &index)) return false;
  range->is_index = true;
  range->len = 1;
  range->pos = index.negative ? index.bits + static_cast<uint64_t>(size) : index.bits;
  if (index.fits && range->pos < static_cast<uint64_t>(size)) return true;
  Raise(Reason::kOutOfBounds,
        "area \"" + self->area->name() + "\": the index is not inside its " + std::to_string(size) +
            " bytes",
        NameOf(self));
  return false;
}

}  // namespace

PyObject* AreaRead(PyObject* self_object, PyObject* const* args, Py_ssize_t count,
                   PyObject* names) {
  static constexpr const char* kParameters[] = {"pos", "len", nullptr};
  PyObject* values[2] = {};
  if (!TakeArguments("read", kParameters, 1, args, count, names, values)) return nullptr;
  AreaObject* const self = Self(self_object);
  if (self->session->closed) return RaiseClosed(NameOf(self));
  uint64_t pos = 0;
  if (!ParseSize(values[0], "pos", NameOf(self), &pos)) return nullptr;
  const uint64_t size = self->area->size();
  uint64_t len = pos <= size ? size - pos : 0;
  if (values[1] != nullptr && values[1] != Py_None &&
      !ParseSize(values[1], "len", NameOf(self), &len)) {
    return nullptr;
  }
  return ReadRange(self, pos, len);
}

PyObject* AreaWrite(PyObject* self_object, PyObject* const* args, Py_ssize_t count,
                    PyObject* names) {
  if (count != 2) {
    PyErr_SetString(PyExc_TypeError, "call it as write(pos, bytes, *, fence=None)");
    return nullptr;
  }
  AreaObject* const self = Self(self_object);
  if (self->session->closed) return RaiseClosed(NameOf(self));
  uint64_t pos = 0;
  if (!ParseSize(args[0], "pos", NameOf(self), &pos)) return nullptr;
  uint64_t fence = 0;
  if (!TakeFence("write", args, count, names, self, &fence)) return nullptr;
  const Bytes bytes(args[1]);
  if (!bytes.ok() || !WriteRange(self, pos, bytes.span(), fence)) return nullptr;
  Py_RETURN_NONE;
}

PyObject* AreaFill(PyObject* self_object, PyObject* const* args, Py_ssize_t count,
                   PyObject* names) {
  if (count != 3) {
    PyErr_SetString(PyExc_TypeError, "call it as fill(pos, len, value, *, fence=None)");
    return nullptr;
  }
  AreaObject* const self = Self(self_object);
  if (self->session->closed) return RaiseClosed(NameOf(self));
  uint64_t pos = 0;
  uint64_t len = 0;
  uint64_t value = 0;
  uint64_t fence = 0;
  if (!ParseSize(args[0], "pos", NameOf(self), &pos) ||
      !ParseSize(args[1], "len", NameOf(self), &len) ||
      !ParseValue(args[2], WordType::kU8, NameOf(self), &value) ||
      !TakeFence("fill", args, count, names, self, &fence) || !EnsureLane(self)) {
    return nullptr;
  }
  const Status status = Run(self, len, [&] {
    return self->area->Fill(pos, len, static_cast<std::byte>(value), fence);
  });
  if (!status.ok()) return Raise(status, NameOf(self));
  Py_RETURN_NONE;
}

PyObject* AreaWait(PyObject* self_object, PyObject* const* args, Py_ssize_t count,
                   PyObject* names) {
  static constexpr const char* kParameters[] = {"since", "timeout", nullptr};
  PyObject* values[2] = {};
  if (!TakeArguments("wait", kParameters, 1, args, count, names, values)) return nullptr;
  AreaObject* const self = Self(self_object);
  if (self->session->closed) return RaiseClosed(NameOf(self));
  WideNumber since;
  int64_t timeout_ns = 0;
  if (!ParseWide(values[0], &since) ||
      !ParseSeconds(values[1], NameOf(self), kForeverNs, &timeout_ns)) {
    return nullptr;
  }
  if (since.negative || !since.fits) {
    return Raise(Reason::kInvalidArgument, "`since` must be an update counter, 0 to 2^64 - 1",
                 NameOf(self));
  }
  StatusOr<WaitResult> result = WaitResult();
  {
    const WithoutGil without_gil(self->session);
    result = self->area->Wait(
        since.bits, std::chrono::steady_clock::now() + std::chrono::nanoseconds(timeout_ns));
  }
  if (result.ok()) return PyBool_FromLong(result->changed);
  if (self->session->closed && PyErr_Occurred() == nullptr) return RaiseClosed(NameOf(self));
  return Raise(result.status(), NameOf(self));
}

PyObject* AreaItem(PyObject* self_object, Py_ssize_t index) {
  AreaObject* const self = Self(self_object);
  if (self->session->closed) return RaiseClosed(NameOf(self));
  uint64_t bits = 0;
  const Status status = self->area->Load(WordType::kU8, static_cast<uint64_t>(index), &bits);
  return status.ok() ? PyLong_FromUnsignedLongLong(bits) : Raise(status, NameOf(self));
}

PyObject* AreaSubscript(PyObject* self_object, PyObject* key) {
  AreaObject* const self = Self(self_object);
  Range range;
  if (!ParseSubscript(self, key, &range)) return nullptr;
  if (!range.is_index) return ReadRange(self, range.pos, range.len);
  return AreaItem(self_object, static_cast<Py_ssize_t>(range.pos));
}

int AreaAssign(PyObject* self_object, PyObject* key, PyObject* value) {
  AreaObject* const self = Self(self_object);
  if (value == nullptr) {
    PyErr_SetString(PyExc_TypeError, "an area's bytes cannot be deleted");
    return -1;
  }
  Range range;
  if (!ParseSubscript(self, key, &range)) return -1;
  if (range.is_index) {
    uint64_t bits = 0;
    if (!ParseValue(value, WordType::kU8, NameOf(self), &bits) || !EnsureLane(self)) return -1;
    const Status status = self->area->Store(WordType::kU8, range.pos, bits);
    return status.ok() ? 0 : (Raise(status, NameOf(self)), -1);
  }
  const Bytes bytes(value);
  if (!bytes.ok()) return -1;
  if (bytes.span().size() != range.len) {
    Raise(Reason::kInvalidArgument,
          "area \"" + self->area->name() + "\": a slice of " + std::to_string(range.len) +
              " bytes cannot take " + std::to_string(bytes.span().size()) +
              "; an area does not change its size",
          NameOf(self));
    return -1;
  }
  return WriteRange(self, range.pos, bytes.span(), 0) ? 0 : -1;
}

}  // namespace statehouse::python
