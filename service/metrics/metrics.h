// Metrics: what /metrics shows, in Prometheus' text format.
//
// Who owns it: the composition root. Threads: every method from any; a call costs a lookup and a
// few relaxed adds, no lock and no allocation. The local door's numbers are read from the lanes
// when scraped, so that they cost the local path nothing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/state/engine.h"
#include "service/api/dispatcher.h"

namespace statehouse {

class Metrics : public CallObserver {
 public:
  // A refused authentication at a door: UNAUTHENTICATED, TOKEN_EXPIRED or RATE_LIMITED.
  virtual void OnAuthFailure(Door door, Reason reason) = 0;
  // A worker attached (+1) or left (-1).
  virtual void OnAttach(int change) = 0;
  // The text exposition of everything, with the engine's totals read now.
  virtual std::string Scrape() = 0;
};

// `methods` label the calls; `engine` outlives it.
std::unique_ptr<Metrics> NewMetrics(Engine* engine, std::vector<std::string> methods,
                                    std::string version);

}  // namespace statehouse
