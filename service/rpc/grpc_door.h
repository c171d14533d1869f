// GrpcDoor: the network door. One completion queue and one polling thread serve every method
// through the generic async API; calls that would block are parked in the dispatcher. Health and
// reflection (v1 and v1alpha) included.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/os/unique_fd.h"
#include "service/api/dispatcher.h"
#include "service/auth/authenticator.h"
#include "service/rpc/tls_renewal.h"

namespace statehouse {

struct GrpcDoorOptions {
  uint64_t message_bytes_max = kMessageBytesMax;
  uint32_t keepalive_min_ping_s = 5;
  uint32_t keepalive_s = 120;  // Of silence; 0: no client is asked whether it is there.
  uint32_t keepalive_timeout_s = 20;
  uint32_t idle_s = 3600;  // Without a call; 0: without end.
  uint32_t connections_max = 20'000;
  uint32_t streams_per_connection_max = 65'536;
  uint32_t wasted_calls_per_second_max = 200;  // Of a host (host_debts.h).
  bool raise_priority = false;                 // Of its threads (door_thread.h).
  TlsFiles tls;                                // Of connections over TCP.
  std::chrono::milliseconds tls_look_interval = kTlsLookInterval;
  // For what the client of a unix socket says first; then it is served all the same.
  std::chrono::milliseconds first_words{1000};
  std::optional<TlsTexts> kept_tls;  // Of an earlier daemon (tls_renewal.h).
  // Told of every refused access token, and of whom, as gRPC names it; on the polling thread, or on
  // that of connections that carry only batches.
  std::function<void(Reason, const std::string& peer)> on_auth_failure;
  // Told of connections that are read more slowly because their calls come to nothing, of those
  // that wait to be taken because their host opens many, and of those that are ended because too
  // many are slowed down. Any thread.
  std::function<void(const std::string& peer)> on_connection_throttled;
  std::function<void(const std::string& peer)> on_connection_held;
  std::function<void()> on_connection_ended;
  // A connection is open (+1) or closed (-1); one was closed at once, because connections_max are.
  std::function<void(int change)> on_connection_open;
  std::function<void(const std::string& peer)> on_connection_refused;
  // Of TLS files, at the start and when they change (tls_renewal.h). Any thread.
  std::function<void(const TlsTexts& texts, int64_t expiry_unix_s)> on_tls_taken;
  std::function<void(const Status& why, int64_t expiry_unix_s)> on_tls_refused;
  std::function<void()> on_tls_mended;
};

// Who owns it: the composition root, which shuts it down before the dispatcher goes. Threads: any.
// Always true: every accepted call is finished exactly once; nothing runs after Shutdown has
// returned. Failure: a refused call carries its reason as an ErrorDetail; a connection beyond
// `connections_max` is closed at once.
class GrpcDoor {
 public:
  virtual ~GrpcDoor() = default;
  // The health service's answer for "" and every service; true at first.
  virtual void SetServing(bool serving) = 0;
  // Stops accepting, lets calls in flight end until `grace` has passed, then cancels the rest.
  // Blocks until done.
  virtual void Shutdown(std::chrono::milliseconds grace) = 0;
};

// Serves connections accepted from `listeners` (bound, listening; unix or TCP; owned by the door,
// which accepts in a thread of its own and hands each connection to gRPC's external acceptor).
// `lane` is for the polling thread, `batch_lane` for that of connections that carry only batches
// (batch_connections.h). Errors: CONFIG_INVALID (a TLS file).
StatusOr<std::unique_ptr<GrpcDoor>> StartGrpcDoor(const GrpcDoorOptions& options,
                                                  std::vector<UniqueFd> listeners,
                                                  Dispatcher* dispatcher,
                                                  Authenticator* authenticator, Lane lane,
                                                  Lane batch_lane);

}  // namespace statehouse
