// LeaseRenewer: renews the leases of a client, each at a third of its ttl, on a thread of its own;
// of those that their holders renew it only tells the end.
//
// Who owns it: the client handle. Threads: any at once; its own begins with the first lease.
// Always true: a lease that was removed is not renewed any more, and not being renewed when Remove
// returns.
// Failure: what cannot be renewed because the service is away is tried again; what is lost is
// forgotten, and its owner told by `lost`: within seconds, however long the lease was.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "clients/c/src/held_lock.h"

namespace statehouse {

class LeaseRenewer final {
 public:
  // `heartbeat` runs with the renewals, every few seconds, while there are leases or after Beat.
  explicit LeaseRenewer(std::function<void()> heartbeat) : heartbeat_(std::move(heartbeat)) {}
  ~LeaseRenewer();
  LeaseRenewer(const LeaseRenewer&) = delete;
  LeaseRenewer& operator=(const LeaseRenewer&) = delete;

  enum class By { kRenewer, kHolder };
  // `lost` runs on the renewer's thread, at most once.
  void Add(HeldLock* lock, uint64_t ttl_ns, By renewed_by, std::function<void()> lost);
  void Remove(HeldLock* lock);
  // Some lease may have been lost: tells so without waiting for its renewal.
  void LookNow();
  // From now on the heartbeat runs, also without leases.
  void Beat();
  void Stop();

 private:
  using TimePoint = std::chrono::steady_clock::time_point;
  struct Lease {
    uint64_t ttl_ns = 0;
    By renewed_by = By::kRenewer;
    TimePoint due;
    std::function<void()> lost;
  };

  void Run();
  void MarkLost();
  bool LookAfter(HeldLock* lock, By renewed_by, std::chrono::nanoseconds* again) const;

  const std::function<void()> heartbeat_;
  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::map<HeldLock*, Lease> leases_;
  HeldLock* renewing_ = nullptr;
  TimePoint heartbeat_due_;
  TimePoint sleeps_until_ = TimePoint::max();
  bool beats_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace statehouse
