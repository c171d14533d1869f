#include "clients/c/src/local_locks.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "clients/c/src/clock_offset.h"

namespace statehouse {
namespace {

using std::chrono::steady_clock;

// How often a waiter looks whether its caller gave up.
constexpr uint64_t kInterruptNs = 100'000'000;
// Grants that were over when they were heard of, until the caller is told.
constexpr int kLossesMax = 3;

}  // namespace

// A lease of the local door. It keeps the lanes' lease alive that it was taken with: the daemon
// ends a process's requests when their block is given back.
class LocalLock final : public HeldLock {
 public:
  LocalLock(std::shared_ptr<LocalLocks> locks, std::shared_ptr<Attachment> attachment,
            std::string name, LockPlace place, uint64_t token)
      : locks_(std::move(locks)),
        attachment_(std::move(attachment)),
        fork_count_(ForkCount()),
        name_(std::move(name)),
        place_(place),
        token_(token) {}
  // A handle that is dropped gives the lock back.
  ~LocalLock() override {
    bool held = false;
    if (!released_) (void)LocalLock::Release(&held);
  }

  const std::string& name() const override { return name_; }
  uint64_t token() const override { return token_; }

  LeaseLook Look() override {
    if (released_ || !CheckProcess().ok() || !locks_->CheckUsable().ok()) return {};
    const LockLook look = locks_->space_->Look(place_);
    if (look.phase != LockPhase::kHolding || look.token != token_) return {};
    const uint64_t now = locks_->space_->NowNs();
    return {look.expires_ns > now, look.expires_ns > now ? look.expires_ns - now : 0};
  }

  Status Renew(uint64_t ttl_ns) override {
    // First: in a forked child a thread that is not there may hold the mutex.
    SH_RETURN_IF_ERROR(CheckProcess());
    const std::lock_guard<std::mutex> lock(mutex_);
    if (released_) return Lost("was released");
    return locks_->WithLane([&](const Lane& lane) {
      LockLook look;
      return locks_->space_->Renew(lane, place_, ttl_ns, &look);
    });
  }

  Status Release(bool* held) override {
    *held = false;
    if (const Status here = CheckProcess(); !here.ok()) {
      released_ = true;
      return here;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (released_) return Lost("was released before");
    released_ = true;
    const uint32_t block = attachment_->first_lane() / kLanesPerBlock;
    return locks_->WithLane([&](const Lane& lane) {
      return locks_->space_->Release(lane, place_, held, nullptr, block);
    });
  }

  void Abandon() override { released_ = true; }

 private:
  Status Lost(const char* why) const {
    return Status(Reason::kLockLost, "lock \"" + name_ + "\" " + why);
  }
  Status CheckProcess() const {
    if (fork_count_ == ForkCount()) return Status();
    return Status(Reason::kClientForked,
                  "lock \"" + name_ +
                      "\" was taken by the parent process, which has it still; the "
                      "child asks for its own");
  }

  const std::shared_ptr<LocalLocks> locks_;
  const std::shared_ptr<Attachment> attachment_;
  const uint64_t fork_count_;
  const std::string name_;
  const LockPlace place_;
  const uint64_t token_;
  std::mutex mutex_;  // A renewal does not meet the release.
  std::atomic<bool> released_{false};
};

Status LocalLocks::CheckUsable() const {
  switch (usable_.load(std::memory_order_relaxed)) {
    case kUsable: return Status();
    case kSessionClosed:
      return Status(Reason::kClientClosed, "the client was closed before this call; connect again");
    default:
      return Status(Reason::kUnavailable,
                    "the service that kept the locks is gone; take them again from the new one");
  }
}

Status LocalLocks::PrepareLanes() {
  const std::shared_ptr<Attachment> attachment = session_->CurrentAttachment();
  if (attachment == nullptr) return Status(Reason::kUnavailable, "the session has no lanes");
  const std::lock_guard<std::mutex> lock(prepare_mutex_);
  if (prepared_id_.load(std::memory_order_relaxed) == attachment->id()) return Status();
  SH_RETURN_IF_ERROR(space_->PrepareLanes(attachment->first_lane(), attachment->lane_count()));
  prepared_id_.store(attachment->id(), std::memory_order_release);
  return Status();
}

template <typename Operation>
Status LocalLocks::WithLane(const Operation& operation) {
  SH_RETURN_IF_ERROR(CheckUsable());
  if (thread_lane.attachment_id != session_->attachment_id()) [[unlikely]] {
    SH_RETURN_IF_ERROR(session_->AcquireLane());
  }
  if (prepared_id_.load(std::memory_order_acquire) != thread_lane.attachment_id) [[unlikely]] {
    SH_RETURN_IF_ERROR(PrepareLanes());
  }
  if (thread_lane.shared == nullptr) [[likely]]
    return operation(thread_lane.lane);
  const std::lock_guard<std::mutex> lock(*thread_lane.shared);
  return operation(thread_lane.lane);
}

// Until the request holds, is lost, or the caller's time is over.
Status LocalLocks::WaitFor(LockPlace place, const LockAsk& ask, LockLook* look) {
  for (bool serve = false; look->phase == LockPhase::kWaiting;) {
    const auto left = ask.deadline - steady_clock::now();
    if (left <= left.zero()) return Status();
    const auto left_ns =
        static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(left).count());
    *look =
        space_->Sleep(place, ask.interrupted ? std::min(left_ns, kInterruptNs) : left_ns, &serve);
    SH_RETURN_IF_ERROR(CheckUsable());
    if (serve) {
      SH_RETURN_IF_ERROR(WithLane([&](const Lane& lane) { return space_->ServeFor(lane, place); }));
    }
    if (look->phase == LockPhase::kWaiting && ask.interrupted && ask.interrupted()) {
      return Status(Reason::kCancelled, "the caller gave up waiting for lock \"" + ask.name + "\"");
    }
  }
  return Status();
}

Status LocalLocks::Acquire(const LockAsk& ask, std::unique_ptr<HeldLock>* lock) {
  for (int losses = 0;;) {
    bool lost = false;
    const Status asked = AcquireOnce(ask, lock, &lost);
    if (!asked.ok() || !lost) return asked;
    if (++losses == kLossesMax) {
      return Status(
          Reason::kLockLost,
          "lock \"" + ask.name +
              "\" was granted, and its lease over, before this process heard of it, again "
              "and again; use a longer ttl");
    }
  }
}

// *lost: it was granted and over again before this process could look.
Status LocalLocks::AcquireOnce(const LockAsk& ask, std::unique_ptr<HeldLock>* lock, bool* lost) {
  lock->reset();
  LockRequest request = ask.request;
  request.queue = ask.wait;
  LockPlace place = 0;
  LockLook look;
  std::shared_ptr<Attachment> attachment;
  SH_RETURN_IF_ERROR(WithLane([&](const Lane& lane) -> Status {
    // The lane's own: the session may get another one at any time.
    attachment = session_->CurrentAttachment();
    if (attachment == nullptr ||
        attachment->first_lane() / kLanesPerBlock != lane.id / kLanesPerBlock) {
      return Status(Reason::kUnavailable, "the session attached anew during this call; try again");
    }
    return space_->Acquire(lane, ask.name, request, &place, &look);
  }));
  if (place == 0) return Status();
  const Status waited = WaitFor(place, ask, &look);
  if (waited.ok() && look.phase == LockPhase::kHolding) {
    *lock = std::make_unique<LocalLock>(shared_from_this(), std::move(attachment), ask.name, place,
                                        look.token);
    return Status();
  }
  *lost = waited.ok() && look.phase == LockPhase::kLost;
  // Leaving the queue may meet the grant; then the lock goes on to the next one.
  bool held = false;
  const uint32_t block = attachment->first_lane() / kLanesPerBlock;
  const Status left = WithLane(
      [&](const Lane& lane) { return space_->Release(lane, place, &held, nullptr, block); });
  return waited.ok() ? left : waited;
}

StatusOr<std::shared_ptr<LocalLocks>> LocalSession::OpenLocks() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::shared_ptr<LocalLocks> known = locks_.lock();
    if (known != nullptr && known->CheckUsable().ok()) return known;
  }
  CallOptions options;
  options.deadline = DefaultDeadline();
  options.idempotent = true;
  Turn turn;
  SH_RETURN_IF_ERROR(TakeTurn(options.deadline, &turn));
  SH_ASSIGN_OR_RETURN(const AttachConnection::Received received,
                      Exchange(turn.get(), true, AttachOpenLocks{}, options));
  const auto* opened = std::get_if<AttachLocksOpened>(&received.packet.message);
  struct stat facts {};
  if (opened == nullptr || received.descriptors.size() != 1 ||
      ::fstat(received.descriptors[0].get(), &facts) != 0) {
    return Status(Reason::kInternal,
                  "the daemon answered OpenLocks with a packet of another kind; check that client "
                  "and service are of the same release");
  }
  LockGeometry geometry;
  geometry.seed = {opened->seed_a, opened->seed_b};
  geometry.bucket_count = opened->bucket_count;
  geometry.locks_max = opened->locks_max;
  geometry.requests_max = opened->requests_max;
  geometry.lane_count = opened->lane_count;
  SH_ASSIGN_OR_RETURN(
      std::unique_ptr<LockSpace> space,
      LockSpace::Map(geometry, received.descriptors[0].get(), ClockOffset(opened->clock_ns)));
  auto locks = std::make_shared<LocalLocks>(shared_from_this(), std::move(space), facts.st_dev,
                                            facts.st_ino);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return Status(Reason::kClientClosed, "the client was closed; connect again");
  locks_ = locks;
  return locks;
}

void LocalSession::ReopenLocks(Control* control, Deadline deadline) {
  std::shared_ptr<LocalLocks> locks;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    locks = locks_.lock();
  }
  if (locks == nullptr || !locks->CheckUsable().ok()) return;
  bool sent = false;
  const StatusOr<AttachConnection::Received> received =
      ExchangeOnce(control, AttachOpenLocks{}, deadline, &sent);
  // As for areas: without an answer the mapping is as good as before.
  if (!received.ok()) return;
  struct stat facts {};
  const bool opened = std::holds_alternative<AttachLocksOpened>(received->packet.message) &&
                      !received->descriptors.empty() &&
                      ::fstat(received->descriptors[0].get(), &facts) == 0;
  if (opened && (facts.st_dev != locks->device_ || facts.st_ino != locks->inode_)) {
    locks->usable_.store(LocalLocks::kReplaced, std::memory_order_relaxed);
  }
}

void LocalSession::LookAfterConnection() {
  constexpr std::chrono::milliseconds kPatience{200};
  const Deadline deadline = steady_clock::now() + kPatience;
  Turn turn;
  if (!TakeTurn(deadline, &turn).ok()) return;
  Control* const control = turn.get();
  if (control->connection.open() && !control->connection.peer_is_gone()) return;
  CloseTracked(&control->connection);
  // While it is away, what is mapped is as good as before.
  (void)EnsureConnected(control, /*want_lanes=*/true, deadline);
}

void LocalSession::CloseLocks() {
  std::shared_ptr<LocalLocks> locks;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    locks = locks_.lock();
  }
  if (locks != nullptr) locks->usable_.store(LocalLocks::kSessionClosed, std::memory_order_relaxed);
}

}  // namespace statehouse
