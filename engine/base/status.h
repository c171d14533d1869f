// Status and StatusOr: how the engine says that something was refused. A Status is one pointer,
// null for success, so that returning success costs one register. No exceptions cross the engine.
//
//   Status s = area.Write(lane, pos, bytes);
//   if (!s.ok()) return s;              // s.reason(), s.message()
//
// Threads: a Status is a value; distinct objects may be used by distinct threads.
#pragma once

#include <cassert>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "engine/base/reason.h"

namespace statehouse {

class [[nodiscard]] Status final {
 public:
  Status() = default;  // Success.
  // REQUIRES: reason != Reason::kOk. `message` says what was tried, on what, and what to do; never
  // a secret.
  Status(Reason reason, std::string message);

  Status(const Status& other);
  Status& operator=(const Status& other);
  Status(Status&&) noexcept = default;
  Status& operator=(Status&&) noexcept = default;

  bool ok() const { return failure_ == nullptr; }
  Reason reason() const { return ok() ? Reason::kOk : failure_->reason; }
  // Empty for success.
  const std::string& message() const;
  // With a hint for the caller: the same may succeed after so long. REQUIRES: not OK.
  Status WithRetryAfter(uint32_t milliseconds) &&;
  uint32_t retry_after_ms() const { return ok() ? 0 : failure_->retry_after_ms; }  // 0: no hint.
  // "OUT_OF_BOUNDS: area "x": …", or "OK".
  std::string ToString() const;

 private:
  struct Failure {
    Reason reason;
    std::string message;
    uint32_t retry_after_ms = 0;
  };
  std::unique_ptr<Failure> failure_;
};

// A value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] StatusOr final {
 public:
  StatusOr(Status status) : status_(std::move(status)) {
    assert(!status_.ok());
  }                                                // NOLINT: implicit on purpose
  StatusOr(T value) : value_(std::move(value)) {}  // NOLINT: implicit on purpose

  bool ok() const { return value_.has_value(); }
  const Status& status() const& { return status_; }
  Status status() && { return std::move(status_); }

  // REQUIRES: ok().
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& value() && { return *std::move(value_); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace statehouse

// Returns from the enclosing function when `expression` is a failed Status.
#define SH_RETURN_IF_ERROR(expression)                                      \
  do {                                                                      \
    if (::statehouse::Status sh_status_ = (expression); !sh_status_.ok()) { \
      return sh_status_;                                                    \
    }                                                                       \
  } while (false)

#define SH_STATUS_CONCAT_INNER_(a, b) a##b
#define SH_STATUS_CONCAT_(a, b) SH_STATUS_CONCAT_INNER_(a, b)
#define SH_ASSIGN_OR_RETURN_IMPL_(temporary, target, expression) \
  auto temporary = (expression);                                 \
  if (!temporary.ok()) return std::move(temporary).status();     \
  target = *std::move(temporary)

// SH_ASSIGN_OR_RETURN(auto fd, OpenFile(path)): the value, or return with the Status.
#define SH_ASSIGN_OR_RETURN(target, expression) \
  SH_ASSIGN_OR_RETURN_IMPL_(SH_STATUS_CONCAT_(sh_or_, __LINE__), target, expression)
