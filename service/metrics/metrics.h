// Metrics: what /metrics shows, in Prometheus' text format.
//
// Who owns it: the composition root. Threads: every method from any; a call costs a lookup and a
// few relaxed adds, no lock and no allocation. The local door's numbers are read from the lanes
// when scraped, so that they cost the local path nothing.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/state/engine.h"
#include "service/api/dispatcher.h"

namespace statehouse {

// What is known of locks, sessions and bound entries, read when scraped.
struct LeaseNumbers {
  uint32_t holding = 0;
  uint32_t waiting = 0;
  uint32_t parked_calls = 0;
  uint64_t grants = 0;
  uint64_t releases = 0;
  uint64_t expirations = 0;
  uint64_t contended = 0;
  uint64_t forced_releases = 0;
  uint64_t losses = 0;
  uint64_t last_token = 0;
  uint32_t sessions = 0;
  uint64_t bound_removals = 0;
  std::vector<std::pair<std::string_view, uint64_t>> session_ends;  // By reason.
};

// What is known of watches, read when scraped.
struct WatchNumbers {
  // Of the watches of one kind of object. A lag is counted in revisions of a dict and updates of an
  // area.
  struct OfKind {
    std::string_view kind;  // "dict" or "area".
    uint32_t watches = 0;
    uint64_t lag = 0;
    uint64_t changes = 0;
    uint64_t coalesced = 0;
    std::vector<std::pair<std::string_view, uint64_t>> resyncs;  // By reason.
  };
  std::vector<OfKind> kinds;
  uint32_t dicts = 0;
  uint64_t history_changes = 0;
  uint64_t previous_bytes = 0;
  double lag_s = 0;  // Of dicts.
  // Wake-up times of dicts: upper bound in seconds (the last one is infinite), and how many fell
  // between it and the one before; and their sum in seconds.
  std::vector<std::pair<double, uint64_t>> wakes;
  double wakes_s = 0;
  uint32_t ranges = 0;
  uint64_t copy_bytes = 0;
  uint32_t local_followers = 0;
  uint64_t handed_over = 0;
  uint64_t early_changes = 0;
  uint64_t follow_fallbacks = 0;
};

class Metrics : public CallObserver {
 public:
  // A refused authentication at a door: UNAUTHENTICATED, TOKEN_EXPIRED or RATE_LIMITED.
  virtual void OnAuthFailure(Door door, Reason reason) = 0;
  // The network door began to read a connection more slowly, let a new one wait, or ended one, so
  // that it can serve others.
  virtual void OnConnectionThrottled() = 0;
  virtual void OnConnectionHeld() = 0;
  virtual void OnConnectionEnded() = 0;
  // A connection of the network door is open (+1) or closed (-1); one beyond the limit was closed
  // at once.
  virtual void OnConnectionOpen(int change) = 0;
  virtual void OnConnectionRefused() = 0;
  // The network door uses a certificate that ends then, in seconds since 1970.
  virtual void OnCertificate(int64_t expiry_unix_s) = 0;
  // It does (true) or does not any more (false) refuse the newest TLS files on the disk.
  virtual void OnTlsFilesRefused(bool refused) = 0;
  // A worker attached (+1) or left (-1).
  virtual void OnAttach(int change) = 0;
  // The text exposition of everything, with the engine's totals read now.
  virtual std::string Scrape() = 0;
};

// `methods` label the calls; `engine` and what `leases` and `watches` read outlive it.
std::unique_ptr<Metrics> NewMetrics(Engine* engine, std::vector<std::string> methods,
                                    std::string version,
                                    std::function<LeaseNumbers()> leases = nullptr,
                                    std::function<WatchNumbers()> watches = nullptr);

}  // namespace statehouse
