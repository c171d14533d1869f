#include "clients/c/src/client_locks.h"

#include <utility>

#include "clients/c/src/lane_pool.h"

namespace statehouse {

ClientLocks::OfProcess& ClientLocks::Here() {
  OfProcess* here = here_.load(std::memory_order_acquire);
  for (;;) {
    if (here != nullptr && here->fork_count == ForkCount()) return *here;
    auto* made = new OfProcess;
    made->fork_count = ForkCount();
    // The parent's is left: threads that are not here may hold its mutex.
    if (here_.compare_exchange_strong(here, made, std::memory_order_acq_rel)) return *made;
    delete made;
  }
}

// Null where locks are taken by calls.
StatusOr<std::shared_ptr<LocalLocks>> ClientLocks::Local(OfProcess& here) {
  if (local_ == nullptr) return std::shared_ptr<LocalLocks>();
  {
    const std::lock_guard<std::mutex> lock(here.mutex);
    if (here.by_calls || (here.local != nullptr && here.local->usable())) return here.local;
  }
  auto opened = local_->OpenLocks();
  const bool refused = !opened.ok() && opened.status().reason() == Reason::kPermissionDenied;
  if (!opened.ok() && !refused) return opened;
  const std::lock_guard<std::mutex> lock(here.mutex);
  here.by_calls = refused;
  here.local = refused ? nullptr : *opened;
  return here.local;
}

std::shared_ptr<RemoteLocks> ClientLocks::Remote(OfProcess& here) {
  const std::lock_guard<std::mutex> lock(here.mutex);
  if (here.remote == nullptr) {
    here.remote = std::make_shared<RemoteLocks>(caller_, client_name_, timeout_, [&here] {
      if (const auto renewer = RenewerOf(here); renewer != nullptr) renewer->LookNow();
    });
  }
  return here.remote;
}

std::shared_ptr<LeaseRenewer> ClientLocks::RenewerOf(OfProcess& here) {
  const std::lock_guard<std::mutex> lock(here.mutex);
  return here.renewer;
}

Status ClientLocks::Acquire(LockAsk ask, std::unique_ptr<HeldLock>* lock) {
  OfProcess& here = Here();
  if (ask.request.owner.empty()) ask.request.owner = client_name_;
  SH_ASSIGN_OR_RETURN(const std::shared_ptr<LocalLocks> local, Local(here));
  if (local != nullptr) return local->Acquire(ask, lock);
  return Remote(here)->Acquire(ask, lock);
}

Status ClientLocks::TryThrough(Caller& calls, LockAsk ask, LockAttempt* attempt,
                               std::unique_ptr<HeldLock>* lock) {
  if (closed_) {
    return Status(Reason::kClientClosed, "the client was closed before this call; connect again");
  }
  if (ask.request.owner.empty()) ask.request.owner = client_name_;
  return Remote(Here())->TryThrough(calls, ask, attempt, lock);
}

LeaseRenewer& ClientLocks::MakeRenewer(OfProcess& here) {
  if (here.renewer == nullptr) {
    here.renewer = std::make_shared<LeaseRenewer>([this, &here] {
      std::shared_ptr<RemoteLocks> remote;
      {
        const std::lock_guard<std::mutex> inner(here.mutex);
        remote = here.remote;
      }
      if (remote != nullptr) remote->RenewSession();
      // A service that began anew has other locks: finds that out where nobody calls it otherwise.
      if (local_ != nullptr) local_->LookAfterConnection();
    });
  }
  return *here.renewer;
}

void ClientLocks::LookAfter(HeldLock* lock, uint64_t ttl_ns, LeaseRenewer::By renewed_by,
                            std::function<void()> lost) {
  OfProcess& here = Here();
  const std::lock_guard<std::mutex> guard(here.mutex);
  MakeRenewer(here).Add(lock, ttl_ns, renewed_by, std::move(lost));
}

StatusOr<uint64_t> ClientLocks::SessionId() {
  if (closed_) {
    return Status(Reason::kClientClosed, "the client was closed before this call; connect again");
  }
  OfProcess& here = Here();
  SH_ASSIGN_OR_RETURN(const uint64_t session_id,
                      Remote(here)->SessionId(std::chrono::steady_clock::now() + timeout_));
  const std::lock_guard<std::mutex> guard(here.mutex);
  MakeRenewer(here).Beat();
  return session_id;
}

void ClientLocks::LoseSession(uint64_t session_id) {
  if (!closed_) Remote(Here())->Lose(session_id);
}

void ClientLocks::Forget(HeldLock* lock) {
  const std::shared_ptr<LeaseRenewer> renewer = RenewerOf(Here());
  if (renewer != nullptr) renewer->Remove(lock);
}

void ClientLocks::Close() {
  closed_ = true;
  OfProcess* const here = here_.load(std::memory_order_acquire);
  if (here == nullptr || here->fork_count != ForkCount()) return;
  here_.store(nullptr, std::memory_order_release);
  if (const auto renewer = RenewerOf(*here); renewer != nullptr) renewer->Stop();
  if (here->remote != nullptr) here->remote->Close();
  delete here;
}

}  // namespace statehouse
