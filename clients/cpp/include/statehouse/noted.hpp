// Noted: an operation of a batch, and what it gave. Part of client.hpp.
#pragma once

#include <statehouse/batch.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <statehouse/lock.hpp>
#include <statehouse/result.hpp>
#include <utility>

namespace statehouse::client {

namespace internal {

// The C batch, shared with the operations that were noted in it.
struct BatchState {
  explicit BatchState(sh_batch* batch_) : batch(batch_) {}
  BatchState(const BatchState&) = delete;
  BatchState& operator=(const BatchState&) = delete;
  ~BatchState() { sh_batch_end(batch); }

  sh_batch* batch;     // Null after Batch::End.
  uint64_t round = 0;  // Grows when results are given up.
  bool was_run = false;
  // What the library tells of lost locks, by the operation that has the lock. Goes after the batch.
  std::map<size_t, std::unique_ptr<Lock::Lease>> leases;
};

inline Error NoResult(const char* why) {
  return Error(SH_INVALID_ARGUMENT, why, "", /*retryable=*/false);
}

}  // namespace internal

// An operation that was noted, and after Batch::Run what it gave: a value of type T.
//
// Who owns it: whoever holds it; copies stand for the same operation, and it may outlive its Batch.
// Threads: as its batch's. Failure: result() is the Error of an operation that was refused, at
// noting (then it is not part of the batch) or when it was run. SH_INVALID_ARGUMENT before Run, and
// when the batch noted something else, was cleared or ended since: results are to be read before.
template <typename T>
class Noted final {
 public:
  // Its place in the batch; SIZE_MAX where it was refused at noting.
  size_t index() const { return index_; }
  Result<T> result() const {
    if (refused_.has_value()) return *refused_;
    if (state_->batch == nullptr || state_->round != round_) {
      return internal::NoResult(
          "batch: the results of this run are gone: the batch noted anew, was cleared or ended");
    }
    return read_(state_->batch, index_);
  }
  bool ok() const { return result().ok(); }
  // REQUIRES: ok(); the program ends with the error's message otherwise.
  T value() const { return result().value(); }
  // REQUIRES: !ok().
  Error error() const { return result().error(); }

 private:
  friend class Batch;
  using Read = std::function<Result<T>(sh_batch*, size_t)>;
  explicit Noted(Error refused) : refused_(std::move(refused)) {}
  Noted(std::shared_ptr<internal::BatchState> state, size_t index, Read read)
      : state_(std::move(state)), round_(state_->round), index_(index), read_(std::move(read)) {}

  std::shared_ptr<internal::BatchState> state_;
  uint64_t round_ = 0;
  size_t index_ = SIZE_MAX;
  Read read_;
  std::optional<Error> refused_;
};

}  // namespace statehouse::client
