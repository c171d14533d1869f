#include "clients/c/src/area_lock.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/state/area.h"

namespace statehouse {
namespace {

using Leases = std::vector<std::unique_ptr<HeldLock>>;  // In the order in which they were taken.

// Once the service does not answer, the rest is left to its ttl: nobody waits for a time-out each.
Status ReleaseAll(const Leases& leases, bool* held) {
  Status first;
  *held = true;
  for (auto lease = leases.rbegin(); lease != leases.rend(); ++lease) {
    if (first.reason() == Reason::kUnavailable || first.reason() == Reason::kTimeout) {
      (*lease)->Abandon();
      continue;
    }
    bool was_held = false;
    Status released = (*lease)->Release(&was_held);
    *held = *held && was_held;
    if (first.ok()) first = std::move(released);
  }
  return first;
}

class AreaLock final : public HeldLock {
 public:
  explicit AreaLock(Leases leases) : leases_(std::move(leases)) {
    for (const auto& lease : leases_) token_ = std::max(token_, lease->token());
  }

  const std::string& name() const override { return leases_.front()->name(); }
  uint64_t token() const override { return token_; }

  LeaseLook Look() override {
    LeaseLook all{true, UINT64_MAX};
    for (const auto& lease : leases_) {
      const LeaseLook look = lease->Look();
      all.held = all.held && look.held;
      all.left_ns = std::min(all.left_ns, look.left_ns);
    }
    return all;
  }

  Status Renew(uint64_t ttl_ns) override {
    Status first;
    for (const auto& lease : leases_) {
      Status renewed = lease->Renew(ttl_ns);
      if (first.ok()) first = std::move(renewed);
    }
    return first;
  }

  bool has_parts() const override { return true; }
  Status Release(bool* held) override { return ReleaseAll(leases_, held); }

  void Abandon() override {
    for (const auto& lease : leases_) lease->Abandon();
  }

 private:
  const Leases leases_;
  uint64_t token_ = 0;
};

// Leases that were taken while the rest is still to be had; gives back what it has when it ends.
class Gathered final {
 public:
  Gathered(ClientLocks* locks, uint64_t ttl_ns) : locks_(locks), ttl_ns_(ttl_ns) {}
  ~Gathered() {
    bool held = false;
    // What cannot be given back now passes on at its ttl.
    (void)ReleaseAll(Take(), &held);
  }
  Gathered(const Gathered&) = delete;
  Gathered& operator=(const Gathered&) = delete;

  void Add(std::unique_ptr<HeldLock> lease) { leases_.push_back(std::move(lease)); }

  // Keeps what is here while the caller waits.
  void LookAfterAll() {
    for (; looked_after_ < leases_.size(); ++looked_after_) {
      locks_->LookAfter(leases_[looked_after_].get(), ttl_ns_, LeaseRenewer::By::kRenewer, {});
    }
  }

  bool AllHeld() const {
    return std::all_of(leases_.begin(), leases_.end(),
                       [](const auto& lease) { return lease->Look().held; });
  }

  Leases Take() {
    for (const auto& lease : leases_) locks_->Forget(lease.get());
    return std::exchange(leases_, {});
  }

 private:
  ClientLocks* const locks_;
  const uint64_t ttl_ns_;
  Leases leases_;
  size_t looked_after_ = 0;
};

Status CheckRange(const AreaRange& range, const LockAsk& ask) {
  if (range.len > range.area_size || range.pos > range.area_size - range.len) {
    return Status(Reason::kOutOfBounds, "area \"" + range.area + "\": [" +
                                            std::to_string(range.pos) + ", +" +
                                            std::to_string(range.len) + ") is not inside its " +
                                            std::to_string(range.area_size) + " bytes");
  }
  if (range.len == 0) {
    return Status(Reason::kInvalidArgument,
                  "area \"" + range.area + "\": a range of no bytes cannot be locked");
  }
  if (ask.request.limit != 1) {
    return Status(Reason::kInvalidArgument,
                  "area \"" + range.area + "\": the lock of a range has no limit but 1");
  }
  return Status();
}

// REQUIRES: CheckRange was OK.
std::vector<LockAsk> PartsOf(const AreaRange& range, const LockAsk& ask) {
  const AreaGeometry geometry = AreaGeometry::For(range.area_size);
  const uint64_t first = range.pos >> geometry.stripe_shift;
  const uint64_t last = (range.pos + range.len - 1) >> geometry.stripe_shift;
  const bool is_exclusive = ask.request.mode == LockMode::kExclusive;
  const bool is_all = is_exclusive && last - first + 1 == geometry.stripe_count;
  const bool as_a_whole = is_all || last - first >= kAreaLockStripesMax;
  std::vector<LockAsk> parts(1, ask);
  parts.front().name = "area/" + range.area;
  parts.front().request.mode = as_a_whole ? LockMode::kExclusive : LockMode::kShared;
  if (as_a_whole) return parts;
  for (uint64_t stripe = first; stripe <= last; ++stripe) {
    parts.push_back(ask);
    parts.back().name = parts.front().name + "/#" + std::to_string(stripe);
  }
  return parts;
}

}  // namespace

Status AcquireAreaLock(ClientLocks* locks, const AreaRange& range, LockAsk ask,
                       std::unique_ptr<HeldLock>* lock) {
  SH_RETURN_IF_ERROR(CheckRange(range, ask));
  Gathered gathered(locks, ask.request.ttl_ns);
  for (const LockAsk& part : PartsOf(range, ask)) {
    std::unique_ptr<HeldLock> held;
    LockAsk at_once = part;
    at_once.wait = false;
    SH_RETURN_IF_ERROR(locks->Acquire(std::move(at_once), &held));
    if (held == nullptr && ask.wait) {
      gathered.LookAfterAll();
      SH_RETURN_IF_ERROR(locks->Acquire(part, &held));
    }
    if (held == nullptr) return Status();
    gathered.Add(std::move(held));
  }
  // That all are held after the last was granted is what makes the highest token higher than those
  // of everybody before, and lower than those of everybody after.
  if (!gathered.AllHeld()) {
    return Status(Reason::kLockLost, "area \"" + range.area +
                                         "\": a part of the range was lost while the rest was "
                                         "waited for; ask again");
  }
  *lock = std::make_unique<AreaLock>(gathered.Take());
  return Status();
}

}  // namespace statehouse
