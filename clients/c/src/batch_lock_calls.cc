// The part of the C interface that notes operations on locks in a batch, and gives their results.
#include <string>
#include <utility>

#include "clients/c/src/batch_handle.h"
#include "clients/c/src/lock_handle.h"
#include "statehouse/v1/batch.pb.h"

namespace statehouse {
namespace {

Status Invalid(const char* what) { return Status(Reason::kInvalidArgument, what); }

Status NoteTry(sh_batch* batch, const char* name, const sh_lock_options* given, size_t* index) {
  if (batch == nullptr) return Invalid("the batch is NULL");
  SH_ASSIGN_OR_RETURN(std::string wanted, NameOf(name));
  sh_lock_options options = given == nullptr ? sh_lock_options{} : *given;
  SH_ASSIGN_OR_RETURN(LockAsk ask, ToAsk(options));
  ask.name = std::move(wanted);
  ask.wait = false;
  ask.deadline = Deadline::max();
  std::string owner(options.owner == nullptr ? "" : options.owner);
  options.owner = nullptr;
  const std::string of = ask.name;
  const auto action = [locks = batch->locks(), tape = &batch->tape(), ask = std::move(ask), options,
                       owner = std::move(owner), attempt = std::make_shared<LockAttempt>()](
                          BatchTarget target, BatchResult* r, sh_error** error) {
    LockAsk now = ask;
    now.request.owner = owner;
    std::unique_ptr<HeldLock> held;
    const Status tried = target == BatchTarget::kDoor
                             ? locks->Acquire(now, &held)
                             : locks->TryThrough(*tape, now, attempt.get(), &held);
    BatchResult::Large& room = r->Room();
    if (tried.ok() && held != nullptr) {
      room.lock = MakeLock(locks, std::move(held), options, ask.request.ttl_ns);
    }
    return Finish(tried, ask.name.c_str(), error);
  };
  return batch->NoteLate(kShowsLock, v1::Operation::kAcquireLock, of, action, nullptr, index);
}

Status NoteRelease(sh_batch* batch, sh_lock* lock, size_t* index) {
  if (batch == nullptr) return Invalid("the batch is NULL");
  if (lock == nullptr) return Invalid("batch: the lock is NULL");
  if (lock->locks != batch->locks()) {
    return Invalid("batch: the lock was taken by another client; a batch gives back its own's");
  }
  if (lock->held->has_parts()) {
    return Invalid("batch: the lock of an area's range is given back by sh_lock_release");
  }
  const auto action = [tape = &batch->tape()](BatchTarget target, BatchResult* r,
                                              sh_error** error) {
    sh_lock*& given = r->Room().lock;
    bool held = false;
    if (target == BatchTarget::kDoor) {
      return sh_lock_release(std::exchange(given, nullptr), &r->flag, error);
    }
    const Status released = given->held->ReleaseThrough(*tape, &held);
    r->flag = held ? 1 : 0;
    const sh_reason reason = Finish(released, given->held->name().c_str(), error);
    // Its lease is over: that makes no call.
    if (released.ok()) sh_lock_release(std::exchange(given, nullptr), nullptr, nullptr);
    return reason;
  };
  return batch->NoteLate(kShowsReleased | kShowsLock, v1::Operation::kReleaseLock,
                         lock->held->name(), action, lock, index);
}

Status TakeLock(sh_batch* batch, size_t index, sh_lock** lock, const BatchOperation** operation) {
  if (batch == nullptr || lock == nullptr) {
    return Invalid("sh_batch_result_lock: batch or lock is NULL");
  }
  SH_ASSIGN_OR_RETURN(BatchOperation* const found, batch->Find(index, kShowsLock, "lock"));
  const bool is_release = (found->shows & kShowsReleased) != 0;
  if (is_release && (found->error == nullptr || found->result.Room().lock == nullptr)) {
    return Invalid("batch: the operation gave its lock back, or the lock was asked for before");
  }
  *operation = found;
  if (found->error != nullptr && !is_release) return Status();
  if (!is_release && found->result.count != 0) {
    return Invalid("batch: the operation's lock was asked for before; it is given once");
  }
  found->result.count = 1;
  *lock = std::exchange(found->result.Room().lock, nullptr);
  *operation = nullptr;
  return Status();
}

}  // namespace
}  // namespace statehouse

using statehouse::Finish;

sh_reason sh_batch_lock_try(sh_batch* batch, const char* name, const sh_lock_options* options,
                            size_t* index, sh_error** error) {
  return Finish(statehouse::NoteTry(batch, name, options, index), name, error);
}

sh_reason sh_batch_lock_release(sh_batch* batch, sh_lock* lock, size_t* index, sh_error** error) {
  return Finish(statehouse::NoteRelease(batch, lock, index), nullptr, error);
}

sh_reason sh_batch_result_lock(sh_batch* batch, size_t index, sh_lock** lock, sh_error** error) {
  const statehouse::BatchOperation* refused = nullptr;
  const statehouse::Status given = statehouse::TakeLock(batch, index, lock, &refused);
  if (!given.ok() || refused == nullptr) return Finish(given, nullptr, error);
  if (error != nullptr) *error = new sh_error(*refused->error);
  return refused->error->reason;
}
