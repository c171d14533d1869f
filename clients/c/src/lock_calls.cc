// The part of the C interface that concerns locks.
#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "clients/c/src/area_lock.h"
#include "clients/c/src/client_handle.h"
#include "clients/c/src/lock_handle.h"
#include "statehouse/lock.h"
#include "statehouse/v1/lock.pb.h"

namespace statehouse {
namespace {

constexpr uint64_t kNsPerMs = 1'000'000;

std::string Locks(const char* verb) { return std::string("/statehouse.v1.Locks/") + verb; }

}  // namespace

StatusOr<LockAsk> ToAsk(const sh_lock_options& options) {
  LockAsk ask;
  if (options.mode != SH_LOCK_EXCLUSIVE && options.mode != SH_LOCK_SHARED) {
    return Status(Reason::kInvalidArgument, "sh_lock_options.mode is none of SH_LOCK_*");
  }
  constexpr uint64_t kMsMax = std::numeric_limits<int64_t>::max() / kNsPerMs / 2;
  if (options.ttl_ms > kMsMax || options.hold_max_ms > kMsMax || options.timeout_ms > kMsMax) {
    return Status(Reason::kInvalidArgument,
                  "sh_lock_options: a time of more than 146 years is a mistake");
  }
  ask.request.mode = options.mode == SH_LOCK_SHARED ? LockMode::kShared : LockMode::kExclusive;
  ask.request.limit = options.limit == 0 ? 1 : options.limit;
  ask.request.ttl_ns = options.ttl_ms == 0 ? kLockTtlNsDefault : options.ttl_ms * kNsPerMs;
  ask.request.hold_ns_max = options.hold_max_ms * kNsPerMs;
  if (options.owner != nullptr) ask.request.owner = options.owner;
  ask.wait = options.try_only == 0;
  if (options.timeout_ms != 0) {
    ask.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(options.timeout_ms);
  }
  return ask;
}

sh_lock* MakeLock(std::shared_ptr<ClientLocks> locks, std::unique_ptr<HeldLock> held,
                  const sh_lock_options& options, uint64_t ttl_ns) {
  auto handle = std::make_unique<sh_lock>();
  handle->locks = std::move(locks);
  handle->held = std::move(held);
  std::function<void()> lost;
  if (options.on_lost != nullptr) {
    lost = [tell = options.on_lost, context = options.context] { tell(context); };
  }
  const auto renewed_by =
      options.manual_renewal == 0 ? LeaseRenewer::By::kRenewer : LeaseRenewer::By::kHolder;
  if (renewed_by == LeaseRenewer::By::kRenewer || lost != nullptr) {
    handle->locks->LookAfter(handle->held.get(), ttl_ns, renewed_by, std::move(lost));
  }
  return handle.release();
}

namespace {

// `take` is ClientLocks::Acquire or its like.
template <typename Take>
Status Acquire(sh_client& client, const sh_lock_options& options, const Take& take,
               sh_lock** lock) {
  SH_ASSIGN_OR_RETURN(LockAsk ask, ToAsk(options));
  const uint64_t ttl_ns = ask.request.ttl_ns;
  std::unique_ptr<HeldLock> held;
  SH_RETURN_IF_ERROR(take(std::move(ask), &held));
  if (held != nullptr) *lock = MakeLock(client.locks, std::move(held), options, ttl_ns);
  return Status();
}

Status AcquireNamed(sh_client& client, const char* name, const sh_lock_options& options,
                    sh_lock** lock) {
  SH_ASSIGN_OR_RETURN(std::string wanted, NameOf(name));
  const auto take = [&](LockAsk ask, std::unique_ptr<HeldLock>* held) {
    ask.name = std::move(wanted);
    return client.locks->Acquire(std::move(ask), held);
  };
  return Acquire(client, options, take, lock);
}

Status AcquireRange(sh_client& client, const AreaRange& range, const sh_lock_options& options,
                    sh_lock** lock) {
  const auto take = [&](LockAsk ask, std::unique_ptr<HeldLock>* held) {
    return AcquireAreaLock(client.locks.get(), range, std::move(ask), held);
  };
  return Acquire(client, options, take, lock);
}

// Beside the handle that callers see: what its pointer leads to.
void Fill(const v1::Lock& lock, sh_lock_info* info) {
  CopyText(lock.name(), info->name);
  info->limit = lock.limit();
  info->holder_count = lock.holder_count();
  info->waiter_count = lock.waiter_count();
  info->party_count = static_cast<size_t>(lock.holders_size() + lock.waiters_size());
  auto* parties = new sh_lock_party[std::max<size_t>(info->party_count, 1)]();
  const auto ms = [](const google::protobuf::Duration& duration) {
    return static_cast<uint64_t>(duration.seconds()) * 1000 +
           static_cast<uint64_t>(duration.nanos()) / kNsPerMs;
  };
  size_t at = 0;
  for (const auto* list : {&lock.holders(), &lock.waiters()}) {
    for (const v1::LockParty& party : *list) {
      sh_lock_party& out = parties[at++];
      CopyText(party.owner(), out.owner);
      out.mode = party.mode() == v1::LOCK_MODE_SHARED ? SH_LOCK_SHARED : SH_LOCK_EXCLUSIVE;
      out.session_id = party.session_id();
      out.token = party.token();
      out.since_ms = ms(party.since());
      out.expires_ms = ms(party.expires_in());
    }
  }
  info->parties = parties;
}

Status Describe(const sh_client& client, const char* name, sh_lock_info** info) {
  v1::DescribeLockRequest request;
  SH_ASSIGN_OR_RETURN(*request.mutable_name(), NameOf(name));
  v1::DescribeLockResponse response;
  SH_RETURN_IF_ERROR(client.caller().Call(Locks("DescribeLock"), request, &response,
                                          OptionsFor(client.timeout, true)));
  *info = new sh_lock_info[1]();
  Fill(response.lock(), *info);
  return Status();
}

Status List(const sh_client& client, const char* prefix, sh_lock_info** infos, size_t* count) {
  v1::ListLocksRequest request;
  if (prefix != nullptr) request.set_prefix(prefix);
  std::vector<v1::Lock> found;
  do {
    v1::ListLocksResponse response;
    SH_RETURN_IF_ERROR(client.caller().Call(Locks("ListLocks"), request, &response,
                                            OptionsFor(client.timeout, true)));
    for (v1::Lock& lock : *response.mutable_locks()) found.push_back(std::move(lock));
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  *infos = new sh_lock_info[std::max<size_t>(found.size(), 1)]();
  for (size_t i = 0; i < found.size(); ++i) Fill(found[i], &(*infos)[i]);
  *count = found.size();
  return Status();
}

}  // namespace
}  // namespace statehouse

using statehouse::Finish;
using statehouse::Reason;
using statehouse::Status;

namespace {

sh_reason RefuseNull(const char* what, const char* name, sh_error** error) {
  return Finish(Status(Reason::kInvalidArgument, what), name, error);
}

}  // namespace

sh_reason sh_lock_acquire(sh_client* client, const char* name, const sh_lock_options* options,
                          sh_lock** lock, sh_error** error) {
  if (client == nullptr || lock == nullptr) {
    return RefuseNull("sh_lock_acquire: client or lock is NULL", name, error);
  }
  *lock = nullptr;
  const sh_lock_options defaults{};
  return Finish(
      statehouse::AcquireNamed(*client, name, options == nullptr ? defaults : *options, lock), name,
      error);
}

sh_reason sh_area_lock(sh_client* client, const sh_area* area, uint64_t pos, uint64_t len,
                       const sh_lock_options* options, sh_lock** lock, sh_error** error) {
  if (client == nullptr || area == nullptr || lock == nullptr) {
    return Finish(Status(Reason::kInvalidArgument, "sh_area_lock: client, area or lock is NULL"),
                  nullptr, error);
  }
  *lock = nullptr;
  const sh_lock_options defaults{};
  const statehouse::AreaRange range{area->name, area->size, pos, len};
  return Finish(
      statehouse::AcquireRange(*client, range, options == nullptr ? defaults : *options, lock),
      area->name.c_str(), error);
}

uint64_t sh_lock_token(const sh_lock* lock) { return lock == nullptr ? 0 : lock->held->token(); }
const char* sh_lock_name(const sh_lock* lock) {
  return lock == nullptr ? "" : lock->held->name().c_str();
}

int sh_lock_held(const sh_lock* lock, uint64_t* left_ms) {
  const auto look = lock == nullptr ? statehouse::LeaseLook() : lock->held->Look();
  if (left_ms != nullptr) *left_ms = look.left_ns / statehouse::kNsPerMs;
  return look.held ? 1 : 0;
}

sh_reason sh_lock_renew(sh_lock* lock, uint64_t ttl_ms, sh_error** error) {
  if (lock == nullptr) return RefuseNull("sh_lock_renew: lock is NULL", nullptr, error);
  if (ttl_ms > statehouse::kLockTtlNsMax / statehouse::kNsPerMs) {
    return Finish(Status(Reason::kInvalidArgument, "sh_lock_renew: at most 7 days"),
                  sh_lock_name(lock), error);
  }
  return Finish(lock->held->Renew(ttl_ms * statehouse::kNsPerMs), sh_lock_name(lock), error);
}

sh_reason sh_lock_release(sh_lock* lock, int* held, sh_error** error) {
  if (held != nullptr) *held = 0;
  if (lock == nullptr) return SH_OK;
  lock->locks->Forget(lock->held.get());
  bool was_held = false;
  const Status released = lock->held->Release(&was_held);
  if (held != nullptr) *held = was_held ? 1 : 0;
  const sh_reason reason = Finish(released, sh_lock_name(lock), error);
  delete lock;
  return reason;
}

sh_reason sh_lock_describe(sh_client* client, const char* name, sh_lock_info** info,
                           sh_error** error) {
  if (client == nullptr || info == nullptr) {
    return RefuseNull("sh_lock_describe: client or info is NULL", name, error);
  }
  return Finish(statehouse::Describe(*client, name, info), name, error);
}

sh_reason sh_lock_list(sh_client* client, const char* prefix, sh_lock_info** infos, size_t* count,
                       sh_error** error) {
  if (client == nullptr || infos == nullptr || count == nullptr) {
    return RefuseNull("sh_lock_list: client, infos or count is NULL", prefix, error);
  }
  return Finish(statehouse::List(*client, prefix, infos, count), prefix, error);
}

void sh_lock_infos_free(sh_lock_info* infos, size_t count) {
  if (infos == nullptr) return;
  for (size_t i = 0; i < count; ++i) delete[] infos[i].parties;
  delete[] infos;
}

sh_reason sh_lock_force_release(sh_client* client, const char* name, uint64_t token,
                                uint32_t* released, sh_error** error) {
  if (client == nullptr) {
    return RefuseNull("sh_lock_force_release: client is NULL", name, error);
  }
  statehouse::v1::ForceReleaseLockRequest request;
  auto wanted = statehouse::NameOf(name);
  if (!wanted.ok()) return Finish(wanted.status(), name, error);
  request.set_name(*wanted);
  request.set_token(token);
  statehouse::v1::ForceReleaseLockResponse response;
  const Status called =
      client->caller().Call(statehouse::Locks("ForceReleaseLock"), request, &response,
                            statehouse::OptionsFor(client->timeout, false));
  if (released != nullptr) *released = response.released();
  return Finish(called, name, error);
}
