// AttachDoor: where workers of this host come in: it checks their access token, leases lanes, hands
// out descriptors of areas, carries unary calls, and tells the engine when a worker has died.
//
// Who owns it: the composition root; engine, dispatcher, authenticator and metrics outlive it.
// Threads: one of its own with an epoll set; answers of parked calls reach it from any thread.
// Always true: a worker whose process has ended is recovered as soon as its pidfd says so; a lease
// outlives its connection for
//   as long as the worker keeps its liveness descriptor open.
// Failure: a malformed packet, a late Hello or a slow reader costs that connection only.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "engine/state/engine.h"
#include "service/api/dispatcher.h"
#include "service/auth/authenticator.h"
#include "service/metrics/metrics.h"

namespace statehouse {

inline constexpr uint32_t kAttachConnectionsMax = 4096;
inline constexpr uint32_t kAttachCallsInFlightMax = 64;  // Of one connection.
// Of these, calls whose responses may come in parts, so that a reader that stands still makes the
// daemon hold no more than so many of the largest.
inline constexpr uint32_t kAttachPartedCallsInFlightMax = 4;
inline constexpr std::chrono::milliseconds kAttachHelloTimeout{5'000};
// Lane blocks of one process, each with its own connection. A client needs one; a program that
// links several takes a few.
inline constexpr uint32_t kLeasesPerProcessMax = 16;

struct AttachDoorOptions {
  std::string server_version;
  uint32_t connections_max = kAttachConnectionsMax;
  uint32_t leases_per_process_max = kLeasesPerProcessMax;
  std::chrono::milliseconds hello_timeout = kAttachHelloTimeout;
};

class AttachDoor {
 public:
  virtual ~AttachDoor() = default;
  // The access tokens have changed: every connection is checked again soon.
  virtual void RecheckIdentities() = 0;
  // Stops accepting, lets calls in flight end until `grace` has passed, closes every connection and
  // ends the thread. Blocks.
  virtual void Shutdown(std::chrono::milliseconds grace) = 0;
};

struct AttachDoorParts {
  Engine* engine = nullptr;
  Dispatcher* dispatcher = nullptr;
  Authenticator* authenticator = nullptr;
  Metrics* metrics = nullptr;
  Lane lane;       // For the door's thread.
  Lane move_lane;  // For its thread that moves dicts.
  // A descriptor of the follow log with this id of the dict with that one. Empty: there are none.
  std::function<StatusOr<UniqueFd>(uint64_t dict_id, uint64_t log_id)> open_follow_log;
  // Told of every refused access token, and of whom: "unix:uid=1000,pid=4711". Empty: nobody is.
  std::function<void(Reason, const std::string& peer)> on_auth_failure = {};
};

// Serves connections of `listener`: a bound, listening SOCK_SEQPACKET unix socket. Takes over the
// engine's surviving leases.
StatusOr<std::unique_ptr<AttachDoor>> StartAttachDoor(AttachDoorOptions options, UniqueFd listener,
                                                      AttachDoorParts parts);

}  // namespace statehouse
