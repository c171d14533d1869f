#include "engine/base/status.h"

namespace statehouse {

Status::Status(Reason reason, std::string message)
    : failure_(std::make_unique<Failure>(Failure{reason, std::move(message), 0})) {
  assert(reason != Reason::kOk);
}

Status::Status(const Status& other)
    : failure_(other.failure_ ? std::make_unique<Failure>(*other.failure_) : nullptr) {}

Status& Status::operator=(const Status& other) {
  if (this != &other)
    failure_ = other.failure_ ? std::make_unique<Failure>(*other.failure_) : nullptr;
  return *this;
}

const std::string& Status::message() const {
  static const std::string kEmpty;
  return ok() ? kEmpty : failure_->message;
}

Status Status::WithRetryAfter(uint32_t milliseconds) && {
  assert(!ok());
  failure_->retry_after_ms = milliseconds;
  return std::move(*this);
}

std::string Status::ToString() const {
  if (ok()) return "OK";
  return std::string(ReasonName(failure_->reason)) + ": " + failure_->message;
}

}  // namespace statehouse
