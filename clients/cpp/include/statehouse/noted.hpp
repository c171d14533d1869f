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
#include <type_traits>
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
  // Results that are given once and were looked at, by their operation: each a Result of its type.
  std::map<size_t, std::shared_ptr<void>> looked_at;
};

inline Error NoResult(const char* why) {
  return Error(SH_INVALID_ARGUMENT, why, "", /*retryable=*/false);
}

}  // namespace internal

// An operation that was noted, and after Batch::Run what it gave: a value of type T.
//
// Who owns it: whoever holds it; copies stand for the same operation, and it may be kept when its
// Batch is gone. Threads: as its batch's. Failure: result() is the Error of an operation that was
// refused, at noting (then it is not part of the batch) or when it was run. SH_INVALID_ARGUMENT
// before Run, and when the batch noted something else, was cleared or ended since: results are to
// be read before. A result that cannot be copied (a lock) is given once, by result() or value();
// ok() and error() only look at it, and SH_INVALID_ARGUMENT is what they find after it was given.
template <typename T>
class Noted final {
 public:
  // Its place in the batch; SIZE_MAX where it was refused at noting.
  size_t index() const { return index_; }
  Result<T> result() const {
    const std::shared_ptr<void> seen = LookedAt();
    if (seen == nullptr) return Look();
    state_->looked_at.erase(index_);
    return std::move(*static_cast<Result<T>*>(seen.get()));
  }
  bool ok() const {
    if (LookedAt() != nullptr) return true;
    Result<T> read = Look();
    if constexpr (!std::is_copy_constructible_v<T>) {
      if (read.ok()) state_->looked_at[index_] = std::make_shared<Result<T>>(std::move(read));
      return LookedAt() != nullptr;
    }
    return read.ok();
  }
  // REQUIRES: ok(); the program ends with the error's message otherwise.
  T value() const { return result().value(); }
  // REQUIRES: !ok().
  Error error() const {
    if (ok()) internal::DieOfMisuse("error() of an operation that holds a value");
    return Look().error();
  }

 private:
  friend class Batch;
  using Read = std::function<Result<T>(sh_batch*, size_t)>;
  explicit Noted(Error refused) : refused_(std::move(refused)) {}
  Noted(std::shared_ptr<internal::BatchState> state, size_t index, Read read)
      : state_(std::move(state)), round_(state_->round), index_(index), read_(std::move(read)) {}

  bool IsGone() const { return state_->batch == nullptr || state_->round != round_; }
  Result<T> Look() const {
    if (refused_.has_value()) return *refused_;
    if (IsGone()) {
      return internal::NoResult(
          "batch: the results of this run are gone: the batch noted anew, was cleared or ended");
    }
    return read_(state_->batch, index_);
  }
  // Null unless ok() found a result that is given once.
  std::shared_ptr<void> LookedAt() const {
    if (state_ == nullptr || IsGone()) return nullptr;
    const auto found = state_->looked_at.find(index_);
    return found == state_->looked_at.end() ? nullptr : found->second;
  }

  std::shared_ptr<internal::BatchState> state_;
  uint64_t round_ = 0;
  size_t index_ = SIZE_MAX;
  Read read_;
  std::optional<Error> refused_;
};

}  // namespace statehouse::client
