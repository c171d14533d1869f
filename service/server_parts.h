// The small steps of a start that need no state: what the configuration means to each part.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/state/engine.h"
#include "service/auth/authenticator.h"
#include "service/config/config.h"
#include "service/lease/lock_service.h"
#include "service/listeners.h"
#include "service/metrics/metrics.h"
#include "service/refused_tokens.h"
#include "service/rpc/grpc_door.h"
#include "service/session/bound_entries.h"
#include "service/session/session_table.h"
#include "service/watch/area_hub.h"
#include "service/watch/watch_hub.h"

namespace statehouse {

// The process's exit code for a start that failed.
int ExitCodeOf(const Status& failure);

EngineOptions EngineOptionsOf(const Config& config);
WatchHubOptions WatchHubOptionsOf(const Config& config);
AreaHubOptions AreaHubOptionsOf(const Config& config);
ListenerSpec HttpListenerOf(const Config& config);
// Of the network door.
TlsFiles TlsFilesOf(const Config& config);
// Over the tokens file, and the key file of JSON Web Tokens where there is one.
StatusOr<std::unique_ptr<Authenticator>> OpenAuthenticator(const Config::Auth& auth);
// `metrics`, `refused` and `vault`, which keeps the TLS files in use, outlive the door.
GrpcDoorOptions GrpcDoorOptionsOf(const Config& config, Metrics* metrics, RefusedTokens* refused,
                                  DescriptorVault* vault);
// Seconds of the steady clock.
int64_t SteadySeconds();

// Makes the areas that the configuration declares, or finds them as they are. Descriptors of
// `inherited` named "config-fd.<number>" are used up; those that no area names are given up
// everywhere.
Status CreateDeclaredAreas(const Config& config, Engine* engine, InheritedDescriptors* inherited,
                           DescriptorVault* vault);

// Lets this process open as many descriptors as the system allows it.
Status RaiseDescriptorLimit();

// What /metrics tells of locks, sessions and bound entries.
LeaseNumbers LeaseNumbersOf(const LockService& locks, const SessionTable& sessions,
                            const BoundEntries& bound);

// What /metrics tells of watches.
WatchNumbers WatchNumbersOf(const WatchHub& watches, const AreaHub& area_watches);

// What endpoints.json holds: where the service listens, and no secret.
struct Endpoints {
  std::string runtime_dir;
  std::vector<std::string> listen;
  std::string http;  // Empty: off.
  int daemon_pid = 0;
  int keeper_pid = 0;
};
std::string EndpointsJson(const Endpoints& endpoints);

// What a reload of the configuration has changed, and what waits for a restart. No setting holds a
// secret: keys and tokens are in files that settings name.
void LogConfigChanges(const Config& started, const Config& before, const Config& now);

// "added ab12cd34; removed ef56gh78", or "nothing".
std::string DescribeChange(const std::vector<std::string>& before,
                           const std::vector<std::string>& after);

}  // namespace statehouse
