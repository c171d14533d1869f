#include "service/server_parts.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <utility>

#include "engine/os/errno_status.h"
#include "service/auth/jwt_authenticator.h"
#include "service/exit_codes.h"
#include "service/keeper/keeper_log.h"
#include "service/kept_tls.h"
#include "service/log.h"

namespace statehouse {
namespace {

constexpr std::string_view kConfigFdPrefix = "config-fd.";
// Who connects again and again does not fill the log.
constexpr std::chrono::seconds kThrottledLogInterval(10);

StatusOr<AreaSpec> SpecOf(const AreaConfig& declared, const InheritedDescriptors& inherited) {
  AreaSpec spec;
  spec.name = declared.name;
  spec.size = declared.size != 0 ? declared.size : declared.pages * kPageBytes;
  spec.offset = declared.offset;
  if (!declared.file.empty()) {
    spec.backing = AreaBacking::kFile;
    spec.file = declared.file;
  }
  if (declared.fd >= 0) {
    spec.backing = AreaBacking::kDescriptor;
    const auto found = inherited.find(std::string(kConfigFdPrefix) + std::to_string(declared.fd));
    if (found == inherited.end()) {
      return Status(Reason::kConfigInvalid,
                    "area \"" + declared.name + "\": descriptor " + std::to_string(declared.fd) +
                        " is not open; start the service with it, as in statehoused 7<>file");
    }
    spec.descriptor.Reset(fcntl(found->second.get(), F_DUPFD_CLOEXEC, 0));
    if (!spec.descriptor.valid())
      return ErrnoStatus("copying descriptor " + std::to_string(declared.fd));
  }
  return spec;
}

}  // namespace

int ExitCodeOf(const Status& failure) {
  switch (failure.reason()) {
    case Reason::kConfigInvalid:
    case Reason::kNameInvalid:
    case Reason::kSizeInvalid:
    case Reason::kBackingInvalid:
    case Reason::kAreaExists:
    case Reason::kInvalidArgument: return kExitConfig;
    case Reason::kUnavailable: return kExitUnavailable;
    case Reason::kMemoryExhausted:
    case Reason::kLimitExceeded: return kExitSystem;
    default: return kExitInternal;
  }
}

EngineOptions EngineOptionsOf(const Config& config) {
  EngineOptions options;
  options.areas_max = config.areas.count_max;
  options.area_bytes_max = config.areas.size_max;
  options.dicts_max = config.dicts.count_max;
  options.dict_bytes_max = config.dicts.size_max;
  options.memory_bytes_max = config.areas.memory_max;
  options.atomic_range_bytes = config.areas.atomic_range_bytes;
  options.operation_timeout_ns = config.areas.operation_timeout_ms * 1'000'000;
  return options;
}

WatchHubOptions WatchHubOptionsOf(const Config& config) {
  WatchHubOptions options;
  options.watches_max = config.watches.count_max;
  options.feed.log_bytes = config.watches.history_bytes / 8 * 8;
  options.feed.history_ms = config.watches.history_s * 1000;
  options.keep_ms = config.watches.keep_s * 1000;
  options.previous_bytes_max = config.watches.previous_bytes;
  options.poll_ns = config.watches.poll_us * 1000;
  return options;
}

AreaHubOptions AreaHubOptionsOf(const Config& config) {
  AreaHubOptions options;
  options.watches_max = config.watches.count_max;
  options.copy_bytes_max = config.watches.copy_bytes;
  options.keep_ms = config.watches.keep_s * 1000;
  return options;
}

Status CreateDeclaredAreas(const Config& config, Engine* engine, InheritedDescriptors* inherited,
                           DescriptorVault* vault) {
  for (const AreaConfig& declared : config.declared_areas) {
    SH_ASSIGN_OR_RETURN(AreaSpec spec, SpecOf(declared, *inherited));
    const auto created = engine->CreateArea(std::move(spec));
    if (!created.ok()) {
      return Status(
          created.status().reason(),
          "[[area]] \"" + declared.name + "\" of the configuration: " + created.status().message());
    }
  }
  for (auto it = inherited->begin(); it != inherited->end();) {
    const auto current = it++;
    const std::string& name = current->first;
    if (!name.starts_with(kConfigFdPrefix)) continue;
    const bool used = std::any_of(
        config.declared_areas.begin(), config.declared_areas.end(), [&](const auto& area) {
          return area.fd >= 0 && name == std::string(kConfigFdPrefix) + std::to_string(area.fd);
        });
    SH_RETURN_IF_ERROR(used ? vault->Store(name, current->second.get()) : vault->Remove(name));
    inherited->erase(current);
  }
  return Status();
}

TlsFiles TlsFilesOf(const Config& config) {
  return {config.tls.certificate_file, config.tls.key_file, config.tls.client_ca_file};
}

StatusOr<std::unique_ptr<Authenticator>> OpenAuthenticator(const Config::Auth& auth) {
  const CallLimits limits{auth.calls_per_second_max, auth.calls_at_once_max};
  SH_ASSIGN_OR_RETURN(std::unique_ptr<Authenticator> tokens,
                      NewFileAuthenticator(auth.tokens_file, auth.failures_per_minute_max, limits));
  if (auth.jwt_key_file.empty()) return tokens;
  const JwtOptions jwt{auth.jwt_key_file, auth.jwt_algorithm, auth.jwt_issuer, auth.jwt_audience,
                       auth.jwt_lifetime_s_max};
  return NewJwtAuthenticator(jwt, auth.failures_per_minute_max, limits, std::move(tokens));
}

Status RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return ErrnoStatus("reading the limit of open files");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return ErrnoStatus("raising the limit of open files");
  return Status();
}

int64_t SteadySeconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

ListenerSpec HttpListenerOf(const Config& config) {
  return {ListenerKind::kTcp, "listen.http", config.http.listen,
          /*loopback_only=*/!config.http.allow_remote};
}

GrpcDoorOptions GrpcDoorOptionsOf(const Config& config, Metrics* metrics, RefusedTokens* refused,
                                  DescriptorVault* vault) {
  using std::chrono::steady_clock;
  GrpcDoorOptions options;
  options.message_bytes_max = config.network.message_bytes_max;
  options.keepalive_min_ping_s = config.network.keepalive_min_ping_s;
  options.keepalive_s = config.network.keepalive_s;
  options.keepalive_timeout_s = config.network.keepalive_timeout_s;
  options.idle_s = config.network.idle_s;
  options.connections_max = config.network.connections_max;
  options.streams_per_connection_max = config.network.streams_per_connection_max;
  options.wasted_calls_per_second_max = config.network.wasted_calls_per_second_max;
  options.raise_priority = config.network.raise_priority;
  options.tls = TlsFilesOf(config);
  options.on_auth_failure = [metrics, refused](Reason reason, const std::string& peer) {
    metrics->OnAuthFailure(Door::kNetwork, reason);
    refused->Add(Door::kNetwork, peer, reason, SteadySeconds());
  };
  options.on_tls_taken = [metrics, vault, files = options.tls](const TlsTexts& texts,
                                                               int64_t expiry_unix_s) {
    metrics->OnCertificate(expiry_unix_s);
    metrics->OnTlsFilesRefused(false);
    spdlog::info("network door: its TLS has a certificate that ends at {}",
                 TimeText(expiry_unix_s));
    const Status kept = KeepTls(files, texts, vault);
    if (!kept.ok()) spdlog::error("{}", kept.message());
  };
  options.on_tls_refused = [metrics](const Status& why, int64_t expiry_unix_s) {
    metrics->OnTlsFilesRefused(true);
    spdlog::warn(
        "network door: the TLS files are not taken: {}; the certificate and key from before, which "
        "end at {}, stay in use until the files are mended; a service that is stopped and started "
        "with these files ends with an error",
        why.message(), TimeText(expiry_unix_s));
  };
  options.on_tls_mended = [metrics] {
    metrics->OnTlsFilesRefused(false);
    spdlog::info("network door: the TLS files are again those that are in use");
  };
  const auto next_log = std::make_shared<std::atomic<steady_clock::time_point>>();
  options.on_connection_held = [metrics](const std::string&) { metrics->OnConnectionHeld(); };
  options.on_connection_ended = [metrics] { metrics->OnConnectionEnded(); };
  options.on_connection_open = [metrics](int change) { metrics->OnConnectionOpen(change); };
  const auto next_refused_log = std::make_shared<std::atomic<steady_clock::time_point>>();
  options.on_connection_refused = [metrics, next_refused_log,
                                   max = config.network.connections_max](const std::string& peer) {
    metrics->OnConnectionRefused();
    const auto now = steady_clock::now();
    if (now < next_refused_log->load() ||
        now < next_refused_log->exchange(now + kThrottledLogInterval)) {
      return;
    }
    spdlog::warn(
        "network door: a new connection of {} was closed at once: {} are open, which is the limit "
        "(network.connections_max); raise it, or find out who opens them",
        peer, max);
  };
  options.on_connection_throttled = [metrics, next_log](const std::string& peer) {
    metrics->OnConnectionThrottled();
    const auto now = steady_clock::now();
    if (now < next_log->load() || now < next_log->exchange(now + kThrottledLogInterval)) return;
    spdlog::warn(
        "network door: the connection of {} is read more slowly: too many calls of its host "
        "were refused for their access token, taken back or without a request "
        "(network.wasted_calls_per_second_max); find out what that client does",
        peer);
  };
  return options;
}

LeaseNumbers LeaseNumbersOf(const LockService& locks, const SessionTable& sessions,
                            const BoundEntries& bound) {
  const LockServiceTotals totals = locks.Totals();
  LeaseNumbers numbers;
  numbers.holding = totals.holding;
  numbers.waiting = totals.waiting;
  numbers.parked_calls = totals.parked_calls;
  numbers.grants = totals.stats.grants;
  numbers.releases = totals.stats.releases;
  numbers.expirations = totals.stats.expirations;
  numbers.contended = totals.stats.contended;
  numbers.forced_releases = totals.forced_releases;
  numbers.losses = totals.losses;
  numbers.last_token = totals.last_token;
  numbers.bound_removals = bound.Totals().removed;
  const SessionTotals open = sessions.Totals();
  numbers.sessions = open.open;
  for (size_t end = 0; end < kSessionEnds; ++end) {
    numbers.session_ends.emplace_back(SessionEndName(static_cast<SessionEnd>(end)), open.ends[end]);
  }
  return numbers;
}

WatchNumbers WatchNumbersOf(const WatchHub& watches, const AreaHub& area_watches) {
  const auto of_kind = [](std::string_view kind, const auto& totals, uint64_t lag) {
    WatchNumbers::OfKind of{kind, totals.watches, lag, totals.changes, totals.coalesced, {}};
    for (size_t reason = 1; reason < kResyncReasons; ++reason) {
      of.resyncs.emplace_back(ResyncReasonName(static_cast<ResyncReason>(reason)),
                              totals.resyncs[reason]);
    }
    return of;
  };
  const WatchTotals dicts = watches.Totals();
  const AreaWatchTotals areas = area_watches.Totals();
  WatchNumbers numbers;
  numbers.lag_s = static_cast<double>(dicts.lag_ns) / 1e9;
  for (size_t i = 0; i < dicts.wakes.size(); ++i) {
    const bool is_last = i == kWakeBucketsNs.size();
    numbers.wakes.emplace_back(is_last ? INFINITY : static_cast<double>(kWakeBucketsNs[i]) / 1e9,
                               dicts.wakes[i]);
  }
  numbers.wakes_s = static_cast<double>(dicts.wakes_ns) / 1e9;
  numbers.kinds.push_back(of_kind("dict", dicts, dicts.lag_revisions));
  numbers.kinds.push_back(of_kind("area", areas, areas.lag_updates));
  numbers.dicts = dicts.dicts;
  numbers.history_changes = dicts.history_changes;
  numbers.previous_bytes = dicts.previous_bytes;
  numbers.local_followers = dicts.local_followers;
  numbers.handed_over = dicts.handed_over;
  numbers.early_changes = dicts.early_changes;
  numbers.follow_fallbacks = dicts.follow_fallbacks;
  numbers.ranges = areas.ranges;
  numbers.copy_bytes = areas.copy_bytes;
  return numbers;
}

std::string EndpointsJson(const Endpoints& endpoints) {
  std::string listen;
  for (const std::string& address : endpoints.listen) {
    listen += (listen.empty() ? "\"" : ", \"") + JsonEscape(address) + "\"";
  }
  const std::string& dir = endpoints.runtime_dir;
  return "{\"attach\": \"" + JsonEscape(dir + "/attach.sock") + "\", \"grpc_unix\": \"" +
         JsonEscape(dir + "/grpc.sock") + "\", \"listen\": [" + listen + "], \"http\": \"" +
         JsonEscape(endpoints.http) +
         "\", \"daemon_pid\": " + std::to_string(endpoints.daemon_pid) +
         ", \"keeper_pid\": " + std::to_string(endpoints.keeper_pid) + "}\n";
}

void LogConfigChanges(const Config& started, const Config& before, const Config& now) {
  const std::vector<ConfigChange> changes = CompareConfigs(before, now);
  if (changes.empty()) spdlog::info("configuration reloaded: nothing has changed");
  for (const ConfigChange& change : changes) {
    if (!change.is_reloadable) continue;
    spdlog::info("configuration reloaded: {} is {}, was {}", change.key, change.after,
                 change.before);
  }
  // Against what runs, so that it is said again until it is done, or undone.
  for (const ConfigChange& change : CompareConfigs(started, now)) {
    if (change.is_reloadable) continue;
    const std::string values =
        change.before.empty() ? "" : " from " + change.before + " to " + change.after;
    spdlog::warn("configuration: {} has changed{} and takes a restart", change.key, values);
  }
}

std::string DescribeChange(const std::vector<std::string>& before,
                           const std::vector<std::string>& after) {
  const auto missing = [](const std::vector<std::string>& from,
                          const std::vector<std::string>& in) {
    std::string names;
    for (const std::string& name : from) {
      if (std::find(in.begin(), in.end(), name) == in.end())
        names += (names.empty() ? "" : ", ") + name;
    }
    return names;
  };
  const std::string added = missing(after, before);
  const std::string removed = missing(before, after);
  if (added.empty() && removed.empty()) return "no token added or removed";
  if (removed.empty()) return "added " + added;
  return (added.empty() ? "" : "added " + added + "; ") + "removed " + removed;
}

}  // namespace statehouse
