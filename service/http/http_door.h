// HttpDoor: /metrics, /healthz and /readyz for scrapers, load balancers and orchestrators. GET and
// HEAD only.
//
// Who owns it: the composition root. Threads: one of its own; SetReady from any.
// Always true: a request holds at most kHttpRequestBytesMax, an idle connection ends after
// kHttpIdleTimeout, and no more than
//   kHttpConnectionsMax are open; further ones wait in the listen queue.
// Failure: a malformed request costs its connection only.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"

namespace statehouse {

inline constexpr size_t kHttpRequestBytesMax = 8 << 10;
inline constexpr size_t kHttpConnectionsMax = 128;
inline constexpr std::chrono::seconds kHttpIdleTimeout{15};

class HttpDoor {
 public:
  virtual ~HttpDoor() = default;
  // What /readyz answers: 200 or 503.
  virtual void SetReady(bool ready) = 0;
  // Ends the thread and every connection. Blocks.
  virtual void Shutdown() = 0;
};

// Serves connections of `listener` (bound, listening, TCP). `scrape` makes the text of /metrics on
// the door's thread.
StatusOr<std::unique_ptr<HttpDoor>> StartHttpDoor(UniqueFd listener,
                                                  std::function<std::string()> scrape);

}  // namespace statehouse
