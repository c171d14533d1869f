#include "service/attach/lease_table.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/os/errno_status.h"
#include "engine/os/process.h"
#include "service/attach/pidfd_info.h"
#include "service/log.h"

namespace statehouse {
namespace {

// A worker that closes in order gives its liveness up within moments; one that lives on without a
// connection is rare.
constexpr std::chrono::milliseconds kProbeSoon{5};
constexpr std::chrono::milliseconds kProbeLater{250};
constexpr uint32_t kProbesSoon = 200;

}  // namespace

LeaseTable::LeaseTable(Engine* engine, Metrics* metrics, int epoll, uint64_t epoll_tag)
    : engine_(engine), metrics_(metrics), epoll_(epoll), epoll_tag_(epoll_tag) {}

bool LeaseTable::Watch(uint32_t block, const UniqueFd& pidfd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = epoll_tag_ | block;
  return epoll_ctl(epoll_, EPOLL_CTL_ADD, pidfd.get(), &event) == 0;
}

void LeaseTable::Identify(Lease* lease) {
  if (!lease->pidfd.valid()) return;
  lease->pid = PidOfPidfd(lease->pidfd.get()).value_or(0);
  lease->process = ProcessKeyOf(lease->pidfd.get());
}

void LeaseTable::TakeSurviving() {
  for (SurvivingLease& survivor : engine_->TakeSurvivingLeases()) {
    Lease lease;
    lease.pidfd = std::move(survivor.pidfd);
    lease.probe_at = Clock::now();
    if (lease.pidfd.valid() && !Watch(survivor.block, lease.pidfd)) {
      spdlog::warn("attach: cannot watch the worker of lane block {}: {}; probing it instead",
                   survivor.block, std::strerror(errno));
      lease.pidfd.Reset();
    }
    Identify(&lease);
    lease.surviving = true;
    metrics_->OnAttach(+1);
    next_probe_ = lease.probe_at;
    leases_[survivor.block] = std::move(lease);
  }
}

Status LeaseTable::Add(uint32_t block, UniqueFd pidfd) {
  if (!Watch(block, pidfd)) return ErrnoStatus("watching the worker's pidfd");
  Lease& lease = leases_[block];
  lease.pidfd = std::move(pidfd);
  Identify(&lease);
  lease.connected = true;
  metrics_->OnAttach(+1);
  return Status();
}

uint32_t LeaseTable::CountOf(uint64_t process) {
  uint32_t count = 0;
  for (auto it = leases_.begin(); it != leases_.end();) {
    const auto current = it++;
    if (current->second.process != process) continue;
    // It may have been given up a moment ago.
    if (!current->second.connected && ProbeOne(current->first, current->second)) {
      Forget(current);
    } else {
      ++count;
    }
  }
  return count;
}

std::optional<uint32_t> LeaseTable::AttachmentOf(int32_t pid) const {
  if (pid <= 0) return std::nullopt;
  for (const auto& [block, lease] : leases_) {
    // The engine looks at every area when it recovers a surviving lease, so it need not be told of
    // one more.
    if (lease.pid == pid && !lease.connected) return lease.surviving ? 0 : block;
  }
  return std::nullopt;
}

void LeaseTable::Forget(std::map<uint32_t, Lease>::iterator lease) {
  // Another copy of the pidfd (the keeper's) keeps its description open, so closing ours would not
  // take it out of the set.
  if (lease->second.pidfd.valid())
    epoll_ctl(epoll_, EPOLL_CTL_DEL, lease->second.pidfd.get(), nullptr);
  leases_.erase(lease);
  metrics_->OnAttach(-1);
}

void LeaseTable::ProcessEnded(uint32_t block) {
  const auto lease = leases_.find(block);
  if (lease == leases_.end()) return;
  engine_->RecoverBlock(block);
  spdlog::info("attach: the worker of lane block {} has ended; its lanes are recovered", block);
  Forget(lease);
}

void LeaseTable::Disconnected(uint32_t block) {
  const auto lease = leases_.find(block);
  if (lease == leases_.end()) return;
  if (lease->second.pidfd.valid() && ProcessHasEnded(lease->second.pidfd.get()))
    return ProcessEnded(block);
  lease->second.connected = false;
  lease->second.probe_at = Clock::now();
  if (ProbeOne(block, lease->second)) return Forget(lease);
  next_probe_ = lease->second.probe_at;
}

bool LeaseTable::ProbeOne(uint32_t block, const Lease& lease) {
  if (lease.pidfd.valid()) return engine_->ReleaseBlock(block);
  if (engine_->ProbeLease(block)) return false;
  engine_->RecoverBlock(block);
  return true;
}

std::optional<LeaseTable::Clock::time_point> LeaseTable::Probe() {
  if (!next_probe_.has_value()) return std::nullopt;
  const Clock::time_point now = Clock::now();
  if (now < *next_probe_) return next_probe_;
  std::optional<Clock::time_point> next;
  for (auto it = leases_.begin(); it != leases_.end();) {
    const auto current = it++;
    auto& [block, lease] = *current;
    if (lease.connected) continue;
    if (lease.probe_at <= now) {
      if (ProbeOne(block, lease)) {
        Forget(current);
        continue;
      }
      // Without a pidfd the probe is all there is, so it stays frequent.
      const bool soon = !lease.pidfd.valid() || lease.probes++ < kProbesSoon;
      lease.probe_at = now + (soon ? kProbeSoon : kProbeLater);
    }
    next = next.has_value() ? std::min(*next, lease.probe_at) : lease.probe_at;
  }
  next_probe_ = next;
  return next;
}

}  // namespace statehouse
