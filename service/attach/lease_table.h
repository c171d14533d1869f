// LeaseTable: the lane blocks that are leased to workers, and how the daemon learns that a worker
// has gone.
//
// Who owns it: AttachLoop. Threads: the loop's only.
// Always true: every lease with a pidfd is in the epoll set; every lease without a connection is
// probed from time to time. Failure: a lease whose end cannot be learned stays leased; it costs a
// block and nothing else.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>

#include "engine/os/unique_fd.h"
#include "engine/state/engine.h"
#include "service/metrics/metrics.h"

namespace statehouse {

class LeaseTable final {
 public:
  using Clock = std::chrono::steady_clock;

  // `epoll_tag` is or-ed with the block to make the epoll data of a pidfd.
  LeaseTable(Engine* engine, Metrics* metrics, int epoll, uint64_t epoll_tag);

  // Watches what an earlier daemon had leased.
  void TakeSurviving();
  // Leases of the process with this key (ProcessKeyOf), after a look at those without a connection.
  uint32_t CountOf(uint64_t process);
  // A new lease, connected.
  Status Add(uint32_t block, UniqueFd pidfd);
  // The lease's connection has closed; the worker may live on.
  void Disconnected(uint32_t block);
  // The pidfd of the block is readable: the process has ended.
  void ProcessEnded(uint32_t block);
  // The block of a process whose lease outlived its connection: 0 when an earlier daemon gave it.
  // Empty: there is none.
  std::optional<uint32_t> AttachmentOf(int32_t pid) const;
  // Looks at every lease that is due. Returns when to call again.
  std::optional<Clock::time_point> Probe();

 private:
  struct Lease {
    UniqueFd pidfd;
    int32_t pid = 0;
    std::optional<uint64_t> process;  // ProcessKeyOf.
    bool connected = false;
    bool surviving = false;  // An earlier daemon gave it.
    Clock::time_point probe_at;
    uint32_t probes = 0;
  };
  static void Identify(Lease* lease);
  bool Watch(uint32_t block, const UniqueFd& pidfd);
  void Forget(std::map<uint32_t, Lease>::iterator lease);
  // Whether the lease is over; frees or recovers it.
  bool ProbeOne(uint32_t block, const Lease& lease);

  Engine* const engine_;
  Metrics* const metrics_;
  const int epoll_;
  const uint64_t epoll_tag_;
  std::map<uint32_t, Lease> leases_;
  // Before it no lease is due; empty: none is without a connection.
  std::optional<Clock::time_point> next_probe_;
};

}  // namespace statehouse
