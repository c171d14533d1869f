// Error and Result: how the C++ client says that a call was refused. Part of client.hpp.
#pragma once

#include <statehouse/statehouse.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <variant>

namespace statehouse::client {

// Why a call was refused. A value; copies are independent.
class Error final {
 public:
  Error(sh_reason reason, std::string message, std::string name, bool retryable,
        std::chrono::milliseconds retry_after = {})
      : reason_(reason),
        message_(std::move(message)),
        name_(std::move(name)),
        retryable_(retryable),
        retry_after_(retry_after) {}

  sh_reason reason() const { return reason_; }
  const char* reason_name() const { return sh_reason_name(reason_); }  // "OUT_OF_BOUNDS"
  const std::string& message() const { return message_; }  // What was tried, and what to do.
  const std::string& name() const { return name_; }        // The area's name, or empty.
  bool retryable() const { return retryable_; }  // The same call may succeed later, unchanged.
  // When it may, where the service says so (SH_RATE_LIMITED), else 0.
  std::chrono::milliseconds retry_after() const { return retry_after_; }

 private:
  sh_reason reason_;
  std::string message_;
  std::string name_;
  bool retryable_;
  std::chrono::milliseconds retry_after_;
};

namespace internal {

// Using the wrong side of a Result is a defect of the program, and ends it.
[[noreturn]] inline void DieOfMisuse(const char* what) {
  std::fprintf(stderr, "statehouse: %s\n", what);
  std::abort();
}

// Takes the place of `sh_error**` in one call.
class ErrorSlot final {
 public:
  ErrorSlot() = default;
  ErrorSlot(const ErrorSlot&) = delete;
  ErrorSlot& operator=(const ErrorSlot&) = delete;
  ~ErrorSlot() { sh_error_free(error_); }
  sh_error** out() { return &error_; }
  Error Take(sh_reason reason) const {
    return Error(reason, sh_error_message(error_), sh_error_name(error_),
                 sh_error_retryable(error_) != 0,
                 std::chrono::milliseconds(sh_error_retry_after_ms(error_)));
  }

 private:
  sh_error* error_ = nullptr;
};

}  // namespace internal

// A value of type T, or the Error that says why there is none.
template <typename T>
class [[nodiscard]] Result final {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit

  bool ok() const { return state_.index() == 0; }

  // REQUIRES: ok(); the program ends with the error's message otherwise.
  T& value() & { return *Checked(); }
  const T& value() const& { return *const_cast<Result*>(this)->Checked(); }
  T&& value() && { return std::move(*Checked()); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return Checked(); }
  const T* operator->() const { return const_cast<Result*>(this)->Checked(); }
  T value_or(T otherwise) const& { return ok() ? value() : std::move(otherwise); }

  // REQUIRES: !ok().
  const Error& error() const {
    if (ok()) internal::DieOfMisuse("error() of a Result that holds a value");
    return *std::get_if<1>(&state_);
  }

 private:
  T* Checked() {
    if (!ok()) internal::DieOfMisuse(error().message().c_str());
    return std::get_if<0>(&state_);
  }
  std::variant<T, Error> state_;
};

// What a call without a value gives.
using Done = std::monostate;

namespace internal {

// The end of a call: its value, or its error.
template <typename T, typename Call, typename Value>
Result<T> Finish(const Call& call, const Value& value) {
  ErrorSlot slot;
  const sh_reason reason = call(slot.out());
  if (reason != SH_OK) return slot.Take(reason);
  return value();
}

}  // namespace internal
}  // namespace statehouse::client
