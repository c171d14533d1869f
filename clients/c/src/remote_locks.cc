#include "clients/c/src/remote_locks.h"

#include <algorithm>
#include <utility>

#include "clients/c/src/lane_pool.h"
#include "clients/c/src/retry_pause.h"
#include "statehouse/v1/lock.pb.h"
#include "statehouse/v1/session.pb.h"

namespace statehouse {
namespace {

using std::chrono::nanoseconds;
using std::chrono::steady_clock;

constexpr std::chrono::seconds kSessionTtl{10};
// One call of a wait; then it asks again, keeping its place, and its session.
constexpr std::chrono::seconds kWaitSlice{3};
constexpr nanoseconds kLookAgain{10'000'000};  // After a lease that is being given back.
constexpr std::chrono::hours kForEver{24 * 3650};
constexpr std::chrono::milliseconds kInterruptSlice{200};
constexpr std::chrono::seconds kHoldSlice{60};
constexpr std::chrono::seconds kHeartbeatSlice{1};
// Grants that were over when they were heard of, until the caller is told: the ttl is too short.
constexpr int kLossesMax = 3;

// After the first look that does not find the session held.
constexpr std::chrono::microseconds kHeldPauseFirst{50};

std::string Locks(const char* verb) { return std::string("/statehouse.v1.Locks/") + verb; }
std::string Sessions(const char* verb) { return std::string("/statehouse.v1.Sessions/") + verb; }

void SetDuration(nanoseconds duration, google::protobuf::Duration* out) {
  out->set_seconds(duration.count() / 1'000'000'000);
  out->set_nanos(static_cast<int32_t>(duration.count() % 1'000'000'000));
}

Status NotHeldInTime(uint64_t session_id) {
  return Status(Reason::kTimeout, "session " + std::to_string(session_id) +
                                      ": the service did not say in time that this client's "
                                      "connection holds it");
}

nanoseconds DurationOf(const google::protobuf::Duration& duration) {
  return std::chrono::seconds(duration.seconds()) + nanoseconds(duration.nanos());
}

}  // namespace

class RemoteLock final : public HeldLock {
 public:
  // `valid_until`: counted from before the call that tells it, so that it is never later than the
  // service's own end.
  RemoteLock(std::shared_ptr<RemoteLocks> locks, std::string name, uint64_t session_id,
             uint64_t token, steady_clock::time_point valid_until)
      : locks_(std::move(locks)),
        fork_count_(ForkCount()),
        name_(std::move(name)),
        session_id_(session_id),
        token_(token),
        valid_until_(valid_until) {
    const std::lock_guard<std::mutex> lock(locks_->mutex_);
    locks_->locks_[token_] = this;
  }
  ~RemoteLock() override {
    // In a forked child a thread that is not there may hold the mutex.
    if (fork_count_ != ForkCount()) return;
    bool held = false;
    if (!over_) (void)RemoteLock::Release(&held);
    const std::lock_guard<std::mutex> lock(locks_->mutex_);
    locks_->locks_.erase(token_);
  }

  const std::string& name() const override { return name_; }
  uint64_t token() const override { return token_; }
  uint64_t session_id() const { return session_id_; }
  void Lose() { over_ = true; }

  LeaseLook Look() override {
    if (lapsed_ || fork_count_ != ForkCount()) return {};
    const auto left = valid_until_.load() - steady_clock::now();
    // Nobody is told of a loss that may be the release itself; a refused one is found out later.
    if (giving_back_) {
      return {true, static_cast<uint64_t>(std::max(nanoseconds(left), kLookAgain).count())};
    }
    if (over_) return {};
    if (left <= left.zero()) {
      lapsed_ = true;  // Whoever was told so is not told otherwise later.
      return {};
    }
    return {true, static_cast<uint64_t>(nanoseconds(left).count())};
  }

  Status Renew(uint64_t ttl_ns) override {
    SH_RETURN_IF_ERROR(CheckUsable());
    if (giving_back_) return Status();  // It may be released by now.
    if (over_ || !Look().held) return Lost("its lease is over");
    const auto before = steady_clock::now();
    v1::RenewLockRequest request;
    request.set_name(name_);
    request.set_session_id(session_id_);
    request.set_token(token_);
    if (ttl_ns != 0) SetDuration(nanoseconds(ttl_ns), request.mutable_ttl());
    v1::RenewLockResponse response;
    // An answer after the lease's end is of no use, and its loss is to be told.
    const Deadline deadline = std::min<Deadline>(before + locks_->timeout_, valid_until_.load());
    const bool may_be_released = may_be_released_;
    const Status renewed = locks_->caller_->Call(Locks("RenewLock"), request, &response,
                                                 locks_->OptionsUntil(deadline, true));
    if (renewed.reason() == Reason::kLockLost || renewed.reason() == Reason::kSessionNotFound) {
      // A release that began meanwhile may be why. Where it is refused the next renewal tells.
      if (giving_back_) return Status();
      over_ = true;
      return Lost(renewed.message());
    }
    SH_RETURN_IF_ERROR(renewed);
    if (may_be_released) may_be_released_ = false;
    // A lease is never made shorter: the answer to an earlier renewal may come later.
    const steady_clock::time_point end = before + DurationOf(response.expires_in());
    steady_clock::time_point known = valid_until_;
    while (known < end && !valid_until_.compare_exchange_weak(known, end)) {
    }
    return Status();
  }

  Status Release(bool* held) override {
    *held = false;
    SH_RETURN_IF_ERROR(CheckUsable());
    const bool told = lapsed_;  // That it is lost.
    const bool valid = Look().held;
    if (over_.exchange(true)) return Status();
    return GiveBack(*locks_->caller_, valid, told, held);
  }

  Status ReleaseThrough(Caller& calls, bool* held) override {
    *held = false;
    if (!giving_back_) {
      SH_RETURN_IF_ERROR(CheckUsable());
      if (over_) return Status();
      // Once this is sent the service may carry it out before its answer is read: as of now.
      was_told_ = lapsed_;
      was_valid_ = Look().held;
      giving_back_ = true;
      return GiveBack(calls, was_valid_, was_told_, held);
    }
    Status released = CheckUsable();
    if (released.ok()) released = GiveBack(calls, was_valid_, was_told_, held);
    if (!released.ok()) {
      giving_back_ = false;
      return released;
    }
    over_ = true;  // The renewer learns of it by being told to forget the lock.
    return Status();
  }

  void Abandon() override { over_ = true; }

 private:
  // `valid` and `told`: what was known before it was sent: the lease was good by this process's
  // clock; somebody was told that it is lost.
  Status GiveBack(Caller& calls, bool valid, bool told, bool* held) {
    v1::ReleaseLockRequest request;
    request.set_name(name_);
    request.set_session_id(session_id_);
    request.set_token(token_);
    v1::ReleaseLockResponse response;
    bool sent_again = may_be_released_;
    CallOptions options = locks_->OptionsUntil(steady_clock::now() + locks_->timeout_, true);
    options.sent_again = &sent_again;
    const Status released = calls.Call(Locks("ReleaseLock"), request, &response, options);
    // Where the session has ended its locks have passed on, and nobody knows when.
    if (released.reason() == Reason::kSessionNotFound) return Status();
    may_be_released_ = sent_again;
    SH_RETURN_IF_ERROR(released);
    // What the service says of a release that was sent once is so, whatever this process's clock
    // says of the lease. "Not held" of one that was sent again may be because of the first
    // sending: then it was held if the lease was good before that.
    *held = (response.held() && !told) || (sent_again && valid);
    return Status();
  }
  Status Lost(const std::string& why) const {
    return Status(Reason::kLockLost, "lock \"" + name_ + "\": " + why);
  }
  Status CheckUsable() const {
    if (fork_count_ != ForkCount()) {
      return Status(Reason::kClientForked, "lock \"" + name_ +
                                               "\" was taken by the parent process, which has it "
                                               "still; the child asks for its own");
    }
    if (locks_->closed_) {
      return Status(Reason::kClientClosed, "the client was closed before this call, and lock \"" +
                                               name_ + "\" given back; connect again");
    }
    return Status();
  }

  const std::shared_ptr<RemoteLocks> locks_;
  const uint64_t fork_count_;
  const std::string name_;
  const uint64_t session_id_;
  const uint64_t token_;
  std::atomic<steady_clock::time_point> valid_until_;
  std::atomic<bool> over_{false};  // Lost, as the service says, or released.
  // A release by a batch was noted and not refused since; what was known of the lease before it.
  std::atomic<bool> giving_back_{false};
  bool was_valid_ = false;
  bool was_told_ = false;
  // By a batch whose answer did not come, and it was not renewed since.
  std::atomic<bool> may_be_released_{false};
  std::atomic<bool> lapsed_{false};  // Over by this process's clock; the service may have it still.
};

RemoteLocks::~RemoteLocks() {
  Close();
  // In a forked child the threads are not there, and must be neither joined nor destroyed.
  if (!holders_.empty()) new std::vector<std::thread>(std::move(holders_));
}

CallOptions RemoteLocks::OptionsUntil(Deadline deadline, bool idempotent) const {
  CallOptions options;
  options.deadline = deadline;
  options.idempotent = idempotent;
  return options;
}

StatusOr<uint64_t> RemoteLocks::SessionId(Deadline deadline) {
  RetryPause retry;
  for (;;) {
    uint64_t session_id = 0;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (closed_) return Status(Reason::kClientClosed, "the client was closed; connect again");
      if (session_id_ == 0) SH_RETURN_IF_ERROR(OpenSession(deadline));
      if (is_held_) return session_id_;
      session_id = session_id_;
    }
    SH_ASSIGN_OR_RETURN(const bool held, AwaitHeld(session_id, deadline));
    if (held) return session_id;
    // It ended before it was held.
    if (!retry.Pause(deadline)) return NotHeldInTime(session_id);
  }
}

Status RemoteLocks::OpenSession(Deadline deadline) {
  v1::OpenSessionRequest request;
  SetDuration(kSessionTtl, request.mutable_ttl());
  request.set_client_name(client_name_);
  v1::OpenSessionResponse response;
  // A session whose answer was lost ends by itself.
  SH_RETURN_IF_ERROR(
      caller_->Call(Sessions("OpenSession"), request, &response,
                    OptionsUntil(std::min(deadline, steady_clock::now() + timeout_), true)));
  session_id_ = response.session_id();
  is_held_ = false;
  holders_.emplace_back([this, id = session_id_] { HoldSession(id); });
  return Status();
}

StatusOr<bool> RemoteLocks::AwaitHeld(uint64_t session_id, Deadline deadline) {
  v1::RenewSessionRequest request;
  request.set_session_id(session_id);
  RetryPause retry(kHeldPauseFirst);
  for (;;) {
    v1::RenewSessionResponse response;
    const Status renewed =
        caller_->Call(Sessions("RenewSession"), request, &response, OptionsUntil(deadline, true));
    if (renewed.reason() == Reason::kSessionNotFound) {
      Lose(session_id);
      return false;
    }
    SH_RETURN_IF_ERROR(renewed);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (session_id_ != session_id) return false;
      if (response.held()) is_held_ = true;
    }
    if (response.held()) return true;
    if (!retry.Pause(deadline)) return NotHeldInTime(session_id);
  }
}

// The session's own thread: learns of lost locks, and of the session's end.
void RemoteLocks::HoldSession(uint64_t session_id) {
  RetryPause retry;
  v1::HoldSessionRequest request;
  request.set_session_id(session_id);
  for (;;) {
    v1::HoldSessionResponse response;
    CallOptions options = OptionsUntil(steady_clock::now() + kHoldSlice, false);
    options.long_running = true;
    options.unhurried = true;
    const Status held = caller_->Call(Sessions("HoldSession"), request, &response, options);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (closed_ || session_id_ != session_id) return;
      for (const v1::LostLock& lost : response.lost_locks()) {
        const auto found = locks_.find(lost.token());
        if (found != locks_.end()) found->second->Lose();
      }
    }
    if (response.lost_locks_size() > 0) lost_();
    if (response.ended() || held.reason() == Reason::kSessionNotFound ||
        held.reason() == Reason::kUnauthenticated || held.reason() == Reason::kClientClosed ||
        held.reason() == Reason::kClientForked || held.reason() == Reason::kPermissionDenied) {
      return Lose(session_id);
    }
    if (held.ok() || held.reason() == Reason::kTimeout) continue;
    // The service is away: its next daemon knows the session for a while.
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (session_id_ == session_id) is_held_ = false;
    }
    if (!retry.Pause(steady_clock::now() + kSessionTtl)) return Lose(session_id);
  }
}

void RemoteLocks::Lose(uint64_t session_id) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [token, held] : locks_) {
      if (held->session_id() == session_id) held->Lose();
    }
    if (session_id_ == session_id) session_id_ = 0;
  }
  lost_();
}

void RemoteLocks::RenewSession() {
  uint64_t session_id = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return;
    session_id = session_id_;
  }
  if (session_id == 0) return;
  v1::RenewSessionRequest request;
  request.set_session_id(session_id);
  v1::RenewSessionResponse response;
  // Leases wait for this call to end; without an answer it is made again at the next heartbeat.
  const Deadline deadline = steady_clock::now() + std::min<nanoseconds>(timeout_, kHeartbeatSlice);
  const Status renewed =
      caller_->Call(Sessions("RenewSession"), request, &response, OptionsUntil(deadline, true));
  // Whatever else it says, the next renewal may find it otherwise.
  if (renewed.reason() == Reason::kSessionNotFound) Lose(session_id);
}

void RemoteLocks::Close() {
  if (fork_count_ != ForkCount()) return;
  uint64_t session_id = 0;
  std::vector<std::thread> holders;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return;
    closed_ = true;
    session_id = session_id_;
    for (const auto& [token, held] : locks_) held->Lose();  // They end with the session.
    holders = std::move(holders_);
  }
  if (session_id != 0) {
    // Its answer ends the holder's call too. Without one the session ends by itself, and the
    // holder's call by its deadline.
    v1::CloseSessionRequest request;
    request.set_session_id(session_id);
    v1::CloseSessionResponse response;
    (void)caller_->Call(Sessions("CloseSession"), request, &response,
                        OptionsUntil(steady_clock::now() + timeout_, true));
  }
  for (std::thread& holder : holders) holder.join();
}

Status RemoteLocks::Acquire(const LockAsk& ask, std::unique_ptr<HeldLock>* lock) {
  lock->reset();
  uint64_t request_id = next_request_id_.fetch_add(1, std::memory_order_relaxed);
  const auto slice = ask.interrupted ? nanoseconds(kInterruptSlice) : nanoseconds(kWaitSlice);
  RetryPause retry;
  // Most locks are free, and to try takes half the time of a call that may wait. Only before the
  // request has a place in the queue: to try with that is to give it up.
  if (ask.wait) {
    LockAsk once = ask;
    once.wait = false;
    const Deadline until =
        std::min(ask.deadline, steady_clock::now() + std::min<nanoseconds>(timeout_, slice));
    const StatusOr<uint64_t> session_id = SessionId(until);
    if (session_id.ok() &&
        AcquireOnce(*caller_, once, {*session_id, request_id, steady_clock::now()}, until, lock)
            .ok() &&
        *lock != nullptr) {
      return Status();
    }
    // What went wrong goes wrong again, or is over: its lease, had the answer been lost, is found
    // by the request's number.
  }
  for (int losses = 0;;) {
    const auto now = steady_clock::now();
    const bool last = !ask.wait || ask.deadline - now <= slice;
    // The last call outlives the wait that it asks for: its own deadline would tell nothing.
    const Deadline wait_until = ask.wait ? std::max(ask.deadline, now) : now;
    const Deadline call_until = last ? wait_until + timeout_ : now + slice;
    const StatusOr<uint64_t> session_id = SessionId(now + timeout_);
    const Status asked =
        session_id.ok() ? AcquireOnce(*caller_, ask, {*session_id, request_id, steady_clock::now()},
                                      call_until, lock)
                        : session_id.status();
    const bool next_slice = !last && asked.reason() == Reason::kTimeout;
    if (session_id.ok() && asked.reason() == Reason::kSessionNotFound) {
      Lose(*session_id);
      continue;
    }
    // The grant's lease was over before this process heard of it.
    if (asked.reason() == Reason::kLockLost && ++losses < kLossesMax) {
      request_id = next_request_id_.fetch_add(1, std::memory_order_relaxed);
      continue;
    }
    if (!asked.ok() && asked.reason() != Reason::kUnavailable && !next_slice) return asked;
    if (*lock != nullptr) return Status();
    if (last && asked.ok()) return Status();
    if (ask.interrupted && ask.interrupted()) {
      return Status(Reason::kCancelled, "the caller gave up waiting for lock \"" + ask.name + "\"");
    }
    if (next_slice) continue;
    if (!asked.ok() && !retry.Pause(ask.wait ? ask.deadline : now + timeout_)) return asked;
  }
}

Status RemoteLocks::TryThrough(Caller& calls, const LockAsk& ask, LockAttempt* attempt,
                               std::unique_ptr<HeldLock>* lock) {
  const Deadline until = steady_clock::now() + timeout_;
  if (attempt->session_id == 0) {
    SH_ASSIGN_OR_RETURN(attempt->session_id, SessionId(until));
    attempt->request_id = next_request_id_.fetch_add(1, std::memory_order_relaxed);
    attempt->began = steady_clock::now();
  }
  const Status tried = AcquireOnce(calls, ask, *attempt, until, lock);
  if (tried.reason() == Reason::kSessionNotFound) Lose(attempt->session_id);
  return tried;
}

Status RemoteLocks::AcquireOnce(Caller& calls, const LockAsk& ask, const LockAttempt& attempt,
                                Deadline call_until, std::unique_ptr<HeldLock>* lock) {
  const auto before = attempt.began;
  const nanoseconds wait = ask.wait ? std::clamp(nanoseconds(ask.deadline - before), nanoseconds(0),
                                                 nanoseconds(kForEver))
                                    : nanoseconds(0);
  v1::AcquireLockRequest request;
  request.set_name(ask.name);
  request.set_session_id(attempt.session_id);
  request.set_request_id(attempt.request_id);
  request.set_mode(ask.request.mode == LockMode::kShared ? v1::LOCK_MODE_SHARED
                                                         : v1::LOCK_MODE_EXCLUSIVE);
  request.set_limit(ask.request.limit);
  SetDuration(nanoseconds(ask.request.ttl_ns), request.mutable_ttl());
  if (ask.request.hold_ns_max != 0) {
    SetDuration(nanoseconds(ask.request.hold_ns_max), request.mutable_hold_max());
  }
  SetDuration(wait, request.mutable_timeout());
  request.set_owner(std::string(ask.request.owner));
  CallOptions options = OptionsUntil(call_until, true);
  options.long_running = wait.count() > 0;
  v1::AcquireLockResponse response;
  SH_RETURN_IF_ERROR(calls.Call(Locks("AcquireLock"), request, &response, options));
  if (!response.acquired()) return Status();
  // What is left is as of when the service answered, some time after `before`. Where that may be
  // long ago (this process may have been stopped since) a renewal tells how it stands.
  const auto left = DurationOf(response.expires_in());
  const auto now = steady_clock::now();
  const bool brief = now - before <= left / 10;
  *lock = std::make_unique<RemoteLock>(shared_from_this(), ask.name, attempt.session_id,
                                       response.token(), (brief ? before : now) + left);
  if (brief) return Status();
  const Status renewed = (*lock)->Renew(0);
  if (!renewed.ok()) lock->reset();
  return renewed;
}

}  // namespace statehouse
