// Lock: a lease of the service as a C++ object. Part of client.hpp.
//
//   auto lock = client.AcquireLock("deploy", {.timeout = std::chrono::seconds(5)});
//   if (!lock.ok()) return Report(lock.error());
//   if (!lock->has_value()) return TellThatItIsBusy();       // Not had in time.
//   dict.Set("release", "42", {.fence = (*lock)->token()});  // FENCED when somebody took over.
//   while (!(*lock)->lost().stop_requested() && MoreToDo()) DoSome();
//
// What a lease is, and when it ends, is told in lock.h.
#pragma once

#include <statehouse/lock.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <statehouse/result.hpp>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

namespace statehouse::client {

namespace internal {
struct BatchState;
}

// How to take a lock.
struct LockOptions {
  sh_lock_mode mode = SH_LOCK_EXCLUSIVE;
  uint32_t limit = 1;                     // Holders at once in exclusive mode: a semaphore.
  std::chrono::milliseconds ttl{10'000};  // 100 ms to 7 days; renewed at a third of it.
  // Renewals reach at most so far, so that a holder that hangs loses the lock in the end.
  std::optional<std::chrono::milliseconds> hold_max = {};
  // How long to wait: without one for ever; zero is `try_only`.
  std::optional<std::chrono::milliseconds> timeout = {};
  bool try_only = false;        // Do not wait.
  bool manual_renewal = false;  // The caller renews.
  std::string owner = {};       // For DescribeLock; empty: the client's name. Cut to 40 bytes.
  // Called once, on a thread of the library, when the lease is over before its release, whoever
  // renews. It must not release or destroy the lock or the client. lost() is told first.
  std::function<void()> on_lost = {};

  sh_lock_options ToC() const {
    sh_lock_options options{};
    options.mode = mode;
    options.limit = limit;
    options.ttl_ms = AtLeastOne(ttl);
    options.hold_max_ms = hold_max ? AtLeastOne(*hold_max) : 0;
    options.timeout_ms = timeout ? AtLeastOne(*timeout) : 0;
    options.try_only = try_only || (timeout && timeout->count() <= 0) ? 1 : 0;
    options.manual_renewal = manual_renewal ? 1 : 0;
    options.owner = owner.empty() ? nullptr : owner.c_str();
    return options;
  }

 private:
  // 0 has a meaning of its own in the C interface; what makes no sense is refused there.
  static uint64_t AtLeastOne(std::chrono::milliseconds time) {
    return static_cast<uint64_t>(std::max<int64_t>(time.count(), 1));
  }
};

// A lease that this process has.
//
// Who owns it: whoever holds it; it is moved, not copied. Destroying it gives the lock back. It may
// outlive its Client, and is lost then. Threads: any number may call its methods at once; moving,
// releasing and destroying need all calls to have returned. A lock that was released or moved from
// holds nothing, and its token is 0. Failure: SH_LOCK_LOST when the lease is over, SH_CLIENT_FORKED
// in a child of the process that took it (which has it still), and those of lock.h.
class Lock final {
 public:
  // The fencing token: higher than every token of every earlier grant.
  uint64_t token() const { return lease_ ? sh_lock_token(lease_->lock) : 0; }
  std::string name() const { return lease_ ? sh_lock_name(lease_->lock) : ""; }
  // The lease is good, by this process's clock. Once false it stays false.
  bool held() const { return lease_ && sh_lock_held(lease_->lock, nullptr) != 0; }
  // What is left of the lease; zero once it is lost.
  std::chrono::milliseconds left() const {
    uint64_t left_ms = 0;
    const bool good = lease_ && sh_lock_held(lease_->lock, &left_ms) != 0;
    return std::chrono::milliseconds(good ? left_ms : 0);
  }
  // Requested once the lease is found to be over before its release: over the network as soon as
  // the service tells, within seconds in any case. Outlives the lock.
  std::stop_token lost() const { return lease_ ? lease_->lost.get_token() : std::stop_token(); }

  // Lengthens the lease to `ttl` from now; without one, as it was taken with.
  Result<Done> Renew(std::optional<std::chrono::milliseconds> ttl = {}) {
    if (!lease_) return Error(SH_LOCK_LOST, "this lock was released before", "", false);
    const uint64_t ttl_ms = ttl ? static_cast<uint64_t>(std::max<int64_t>(ttl->count(), 1)) : 0;
    return internal::Finish<Done>(
        [&](sh_error** e) { return sh_lock_renew(lease_->lock, ttl_ms, e); },
        [] { return Done(); });
  }
  // Gives the lock back. False: it was lost before (as sh_lock_release in statehouse/lock.h says
  // it), or is released already. After it this object holds nothing, whatever the result.
  Result<bool> Release() {
    if (!lease_) return false;
    const std::unique_ptr<Lease> lease = std::move(lease_);
    int held = 0;
    return internal::Finish<bool>(
        [&](sh_error** e) {
          return sh_lock_release(std::exchange(lease->lock, nullptr), &held, e);
        },
        [&] { return held != 0; });
  }

 private:
  friend class Batch;
  friend class Client;
  friend struct internal::BatchState;

  // At an address of its own, because the library's thread tells it of the loss.
  struct Lease {
    std::stop_source lost;
    std::function<void()> on_lost;
    sh_lock* lock = nullptr;

    Lease() = default;
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { sh_lock_release(lock, nullptr, nullptr); }
    static void Tell(void* context) {
      auto* const lease = static_cast<Lease*>(context);
      lease->lost.request_stop();
      if (lease->on_lost) lease->on_lost();
    }
  };

  explicit Lock(std::unique_ptr<Lease> lease) : lease_(std::move(lease)) {}

  // `take` is sh_lock_acquire or its like, with all but the options, the lock and the error given.
  template <typename Take>
  static Result<std::optional<Lock>> Acquire(const std::string& name, const LockOptions& options,
                                             const Take& take) {
    if (options.limit == 0) {  // Means 1 in the C interface.
      return Error(SH_INVALID_ARGUMENT, "LockOptions.limit is 0; it must be 1 or more", name,
                   /*retryable=*/false);
    }
    auto lease = std::make_unique<Lease>();
    lease->on_lost = options.on_lost;
    sh_lock_options c_options = options.ToC();
    c_options.on_lost = &Lease::Tell;
    c_options.context = lease.get();
    return internal::Finish<std::optional<Lock>>(
        [&](sh_error** e) { return take(c_options, &lease->lock, e); },
        [&] {
          if (lease->lock == nullptr) return std::optional<Lock>();
          return std::optional<Lock>(Lock(std::move(lease)));
        });
  }

  std::unique_ptr<Lease> lease_;
};

// A holder or waiter.
struct LockParty {
  std::string owner;
  sh_lock_mode mode = SH_LOCK_EXCLUSIVE;
  uint64_t session_id = 0;            // 0: a worker of the service's host, through the local door.
  uint64_t token = 0;                 // 0: it waits.
  std::chrono::milliseconds since{};  // For how long it holds or waits.
  std::chrono::milliseconds expires{};  // Of a holder: what is left of its lease.
};

// A lock in use.
struct LockInfo {
  std::string name;
  uint32_t limit = 1;
  uint32_t holder_count = 0;
  uint32_t waiter_count = 0;
  std::vector<LockParty> parties;  // Holders first, then waiters in their order; not always all.

  static LockInfo FromC(const sh_lock_info& from) {
    LockInfo info{from.name, from.limit, from.holder_count, from.waiter_count, {}};
    for (size_t i = 0; i < from.party_count; ++i) {
      const sh_lock_party& party = from.parties[i];
      info.parties.push_back({party.owner, party.mode, party.session_id, party.token,
                              std::chrono::milliseconds(party.since_ms),
                              std::chrono::milliseconds(party.expires_ms)});
    }
    return info;
  }
};

}  // namespace statehouse::client
