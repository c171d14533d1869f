#include "service/server.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "engine/os/errno_status.h"
#include "engine/os/futex.h"
#include "engine/state/engine.h"
#include "engine/state/session_store.h"
#include "service/api/call_log.h"
#include "service/api/dispatcher.h"
#include "service/attach/attach_door.h"
#include "service/auth/authenticator.h"
#include "service/auth/token_file.h"
#include "service/config/config.h"
#include "service/dev_mode.h"
#include "service/exit_codes.h"
#include "service/http/http_door.h"
#include "service/keeper/keeper_link.h"
#include "service/kept_tls.h"
#include "service/lease/lock_service.h"
#include "service/listeners.h"
#include "service/log.h"
#include "service/logging.h"
#include "service/metrics/metrics.h"
#include "service/rpc/grpc_door.h"
#include "service/runtime_dir.h"
#include "service/server_parts.h"
#include "service/session/bound_entries.h"
#include "service/session/session_table.h"
#include "service/watch/area_hub.h"
#include "service/watch/watch_hub.h"

namespace statehouse {
namespace {

using std::chrono::milliseconds;

constexpr int kScrubIntervalMs = 1'000;
// After the last call has ended: for its answer to leave. An idle client may take seconds to close
// its connection; nobody waits for that.
constexpr milliseconds kFlushGrace{500};
constexpr uint64_t kDrainLookIntervalNs = 2'000'000;

// Which of the daemon's lanes each thread uses. Others: kRecoveryThread, kLockThread and
// kBoundEntriesThread, in segments that no thread with the same lane changes; kMaintenanceThread.
enum LaneOf : uint32_t {
  kGrpcLane = 0,
  kSlowLane = 1,
  kAttachLane = 2,
  kDictMoveLane = 3,
  kBatchLane = 4
};

// Passes calls on to the metrics, which are made after the dispatcher because they label its
// methods.
class ObserverRelay final : public CallObserver {
 public:
  void SetTarget(CallObserver* target) { target_ = target; }  // Before any call.
  void OnCall(Door door, std::string_view method, Reason reason,
              std::chrono::nanoseconds took) override {
    if (target_ != nullptr) target_->OnCall(door, method, reason, took);
  }
  void OnCalls(Door door, std::string_view method, Reason reason, uint64_t count,
               std::chrono::nanoseconds took) override {
    if (target_ != nullptr) target_->OnCalls(door, method, reason, count, took);
  }

 private:
  CallObserver* target_ = nullptr;
};

class Server final : public ServiceControl {
 public:
  explicit Server(DaemonOptions options) : options_(std::move(options)) {}
  int Run();

  Facts GetFacts() const override;
  bool draining() const override { return draining_; }
  uint32_t BeginDrain(milliseconds grace) override;

 private:
  Status PrepareProcess();
  Status PrepareMemory();
  Status StartSessions(UniqueFd kept);
  Status StartParts();
  Status StartDoors();
  Status OpenGrpcListeners(std::vector<UniqueFd>* listeners);
  Status Announce();
  void WriteEndpoints();
  void LogStart() const;
  int ServeUntilDrained();
  void OnSignal(int signal);
  void ApplyReloadable();
  void ReloadConfig();
  void ReloadTokens();
  void EndExpiredTokens();
  std::vector<std::string> TokenIds() const;
  void Drain();
  void CleanUp();
  [[noreturn]] void CutShort();

  DaemonOptions options_;
  Config config_;
  // As it was read at the start and last: config_ may have been completed since.
  Config started_;
  Config loaded_;
  InheritedDescriptors inherited_;
  bool first_daemon_ = false;  // Nothing was kept: this start may be given up without a trace.
  int64_t start_unix_ns_ = 0;
  UniqueFd signals_;
  UniqueFd events_;  // eventfd: draining has begun, or has ended.
  std::vector<std::string> listen_addresses_;
  std::string http_address_;
  std::vector<std::string> token_ids_;
  int64_t tokens_checked_unix_s_ = 0;  // Whose time ended until then was dealt with.

  // In the order of construction; destroyed in reverse.
  std::unique_ptr<KeeperLink> link_;
  std::optional<DevMode> dev_;
  std::optional<RuntimeDir> runtime_dir_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<SessionStore> session_store_;
  std::shared_ptr<LockService> locks_;
  std::shared_ptr<BoundEntries> bound_;
  std::shared_ptr<SessionTable> sessions_;
  std::shared_ptr<WatchHub> watches_;
  std::shared_ptr<AreaHub> area_watches_;
  std::unique_ptr<Authenticator> authenticator_;
  RefusedTokens refused_tokens_;
  ObserverRelay relay_;
  const std::shared_ptr<CallLog> call_log_ = std::make_shared<CallLog>();
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<GrpcDoor> grpc_;
  std::unique_ptr<AttachDoor> attach_;
  std::unique_ptr<HttpDoor> http_;

  std::atomic<bool> drain_was_asked_{false};
  std::atomic<bool> draining_{false};  // grace_ms_ is set.
  bool was_signalled_ = false;         // To stop. The main thread's.
  std::atomic<bool> closing_{false};   // The drain has lingered; no call is begun any more.
  std::atomic<bool> drained_{false};
  std::atomic<int64_t> grace_ms_{0};
  std::thread drain_thread_;
  bool hints_printed_ = false;  // Guarded by endpoints_mutex_.
  std::mutex endpoints_mutex_;  // The files that tell where it listens.
};

Status Server::PrepareProcess() {
  sigset_t handled;
  sigemptyset(&handled);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&handled, signal);
  // Before any thread: they all inherit it. SIGPIPE: sockets report EPIPE instead.
  if (pthread_sigmask(SIG_BLOCK, &handled, nullptr) != 0) return ErrnoStatus("blocking signals");
  if (signal(SIGPIPE, SIG_IGN) == SIG_ERR) return ErrnoStatus("ignoring SIGPIPE");
  signals_.Reset(signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));
  events_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!signals_.valid() || !events_.valid()) return ErrnoStatus("making a signalfd and an eventfd");
  start_unix_ns_ = std::chrono::duration_cast<std::chrono::nanoseconds>(
                       std::chrono::system_clock::now().time_since_epoch())
                       .count();
  return RaiseDescriptorLimit();
}

// Everything that outlives a daemon: the keeper, the folder with its lock, the engine's memory.
Status Server::PrepareMemory() {
  KeeperLinkOptions link_options;
  link_options.keeper_argv = options_.keeper_argv;
  SH_ASSIGN_OR_RETURN(link_, KeeperLink::Connect(std::move(link_options), &options_.inheritance));
  inherited_ = std::move(options_.inheritance.descriptors);
  first_daemon_ = inherited_.count("lock") == 0;
  if (!link_->survives_daemon()) {
    spdlog::warn(
        "there is no keeper and no service manager: when this process dies, the state dies with "
        "it");
  }
  if (config_.dev) {
    SH_ASSIGN_OR_RETURN(dev_, DevMode::Prepare(&config_, &inherited_, link_.get()));
  }
  UniqueFd lock;
  if (const auto found = inherited_.find("lock"); found != inherited_.end()) {
    lock = std::move(found->second);
    inherited_.erase(found);
  }
  SH_ASSIGN_OR_RETURN(runtime_dir_, RuntimeDir::Open(config_.runtime_dir, std::move(lock)));
  if (first_daemon_ && runtime_dir_->was_left_behind()) {
    spdlog::warn(
        "the last service in {} was not stopped: it and whatever kept its memory were killed at "
        "once, so its state is lost; this one begins empty",
        runtime_dir_->path());
  }
  SH_RETURN_IF_ERROR(link_->Store("lock", runtime_dir_->lock_fd()));
  UniqueFd sessions;
  if (const auto found = inherited_.find("sessions"); found != inherited_.end()) {
    sessions = std::move(found->second);
    inherited_.erase(found);
  }
  // The engine takes what is its own; the watches, the doors and declared areas take the rest.
  InheritedDescriptors for_engine;
  InheritedDescriptors feeds;
  for (auto it = inherited_.begin(); it != inherited_.end();) {
    const auto current = it++;
    const std::string& name = current->first;
    const bool ours = name.starts_with("listen.") || name.starts_with("config-fd.") ||
                      name.starts_with("dev-") || name == kKeptTlsName;
    if (name.starts_with("feed.")) {
      feeds.insert(inherited_.extract(current));
    } else if (!ours) {
      for_engine.insert(inherited_.extract(current));
    }
  }
  SH_ASSIGN_OR_RETURN(engine_,
                      Engine::Start(EngineOptionsOf(config_), std::move(for_engine), link_.get()));
  for (const std::string& warning : engine_->TakeStartWarnings()) spdlog::error("{}", warning);
  SH_RETURN_IF_ERROR(StartSessions(std::move(sessions)));
  watches_ =
      WatchHub::Start(WatchHubOptionsOf(config_), &engine_->dicts(), link_.get(), std::move(feeds));
  area_watches_ = AreaHub::Start(AreaHubOptionsOf(config_), engine_.get());
  return CreateDeclaredAreas(config_, engine_.get(), &inherited_, link_.get());
}

Status Server::StartSessions(UniqueFd kept) {
  SH_ASSIGN_OR_RETURN(session_store_, SessionStore::Start(std::move(kept), link_.get(),
                                                          config_.sessions.count_max));
  std::vector<uint64_t> ids;
  for (const SessionRecord& session : session_store_->Sessions()) ids.push_back(session.id);
  locks_ = LockService::Start({}, engine_.get(), ids);
  bound_ =
      BoundEntries::Start({}, &engine_->dicts(), engine_->DaemonLane(kBoundEntriesThread), ids);
  sessions_ = SessionTable::Start(session_store_.get(), {[this](uint64_t session) {
                                                           locks_->BeginSession(session);
                                                           bound_->BeginSession(session);
                                                         },
                                                         [this](uint64_t session) {
                                                           bound_->EndSession(session);
                                                           return locks_->EndSession(session);
                                                         }});
  locks_->SetOnLoss([this](const LockLoss& loss) {
    sessions_->TellLost(loss.session, {loss.name, loss.token});
  });
  return Status();
}

Status Server::StartParts() {
  if (dev_.has_value()) {
    SH_RETURN_IF_ERROR(dev_->TakeToken(config_.auth.tokens_file, &inherited_, link_.get()));
  }
  SH_ASSIGN_OR_RETURN(authenticator_, OpenAuthenticator(config_.auth));
  token_ids_ = TokenIds();
  DispatcherOptions options;
  options.areas_file_root = config_.areas.file_root;
  options.message_bytes_max = config_.network.message_bytes_max;
  options.drain_grace = milliseconds(config_.drain_grace_ms);
  dispatcher_ = NewDispatcher(
      options,
      {engine_.get(), locks_, sessions_, bound_, watches_, area_watches_, this, &relay_, call_log_},
      engine_->DaemonLane(kSlowLane));
  metrics_ = NewMetrics(
      engine_.get(), dispatcher_->Methods(), Version(),
      [this] { return LeaseNumbersOf(*locks_, *sessions_, *bound_); },
      [this] { return WatchNumbersOf(*watches_, *area_watches_); });
  relay_.SetTarget(metrics_.get());
  ApplyReloadable();
  return Status();
}

Status Server::OpenGrpcListeners(std::vector<UniqueFd>* listeners) {
  const ListenerSpec local{ListenerKind::kUnixStream, "listen.grpc-unix",
                           runtime_dir_->grpc_socket()};
  SH_ASSIGN_OR_RETURN(UniqueFd unix_listener, OpenListener(local, &inherited_, link_.get()));
  listeners->push_back(std::move(unix_listener));
  for (size_t i = 0; i < config_.network.listen.size(); ++i) {
    const bool beyond_loopback = config_.tls.enabled() || config_.network.allow_plaintext;
    const ListenerSpec spec{ListenerKind::kTcp, "listen.tcp." + std::to_string(i),
                            config_.network.listen[i], !beyond_loopback};
    SH_ASSIGN_OR_RETURN(UniqueFd listener, OpenListener(spec, &inherited_, link_.get()));
    SH_ASSIGN_OR_RETURN(std::string address, ListenerAddress(listener.get()));
    listen_addresses_.push_back(std::move(address));
    listeners->push_back(std::move(listener));
  }
  return Status();
}

Status Server::StartDoors() {
  std::vector<UniqueFd> grpc_listeners;
  SH_RETURN_IF_ERROR(OpenGrpcListeners(&grpc_listeners));
  const ListenerSpec attach{ListenerKind::kUnixPackets, "listen.attach",
                            runtime_dir_->attach_socket()};
  SH_ASSIGN_OR_RETURN(UniqueFd attach_listener, OpenListener(attach, &inherited_, link_.get()));
  if (!config_.http.listen.empty()) {
    SH_ASSIGN_OR_RETURN(UniqueFd http_listener,
                        OpenListener(HttpListenerOf(config_), &inherited_, link_.get()));
    SH_ASSIGN_OR_RETURN(http_address_, ListenerAddress(http_listener.get()));
    SH_ASSIGN_OR_RETURN(
        http_, StartHttpDoor(std::move(http_listener), [this] { return metrics_->Scrape(); }));
  }
  GrpcDoorOptions grpc_options =
      GrpcDoorOptionsOf(config_, metrics_.get(), &refused_tokens_, link_.get());
  grpc_options.kept_tls = TakeKeptTls(grpc_options.tls, &inherited_);
  for (const auto& [name, fd] : inherited_)
    SH_RETURN_IF_ERROR(link_->Remove(name));  // Not configured any more.
  inherited_.clear();
  SH_ASSIGN_OR_RETURN(grpc_,
                      StartGrpcDoor(grpc_options, std::move(grpc_listeners), dispatcher_.get(),
                                    authenticator_.get(), engine_->DaemonLane(kGrpcLane),
                                    engine_->DaemonLane(kBatchLane)));
  AttachDoorOptions attach_options;
  attach_options.server_version = Version();
  attach_options.leases_per_process_max = config_.attach.leases_per_process_max;
  const AttachDoorParts parts{engine_.get(),
                              dispatcher_.get(),
                              authenticator_.get(),
                              metrics_.get(),
                              engine_->DaemonLane(kAttachLane),
                              engine_->DaemonLane(kDictMoveLane),
                              [watches = watches_](uint64_t dict_id, uint64_t log_id) {
                                return watches->OpenFollowLog({dict_id, log_id});
                              },
                              [this](Reason reason, const std::string& peer) {
                                refused_tokens_.Add(Door::kLocal, peer, reason, SteadySeconds());
                              }};
  SH_ASSIGN_OR_RETURN(attach_, StartAttachDoor(attach_options, std::move(attach_listener), parts));
  return Status();
}

void Server::WriteEndpoints() {
  const std::lock_guard<std::mutex> lock(endpoints_mutex_);
  Endpoints endpoints;
  endpoints.runtime_dir = runtime_dir_->path();
  endpoints.listen = listen_addresses_;
  endpoints.http = http_address_;
  endpoints.daemon_pid = getpid();
  endpoints.keeper_pid = link_->keeper_pid();
  const Status written = runtime_dir_->WriteFile("endpoints.json", EndpointsJson(endpoints));
  if (!written.ok()) spdlog::error("{}", written.message());
  if (!dev_.has_value()) return;
  DevEndpoints dev;
  dev.url = "statehouse+unix://" + runtime_dir_->path();
  if (!listen_addresses_.empty()) {
    dev.tcp_url =
        (config_.tls.enabled() ? "statehouse+tls://" : "statehouse://") + listen_addresses_.front();
  }
  if (!http_address_.empty()) dev.http = "http://" + http_address_;
  dev.token = dev_->token();
  dev.pid = endpoints.keeper_pid != 0 ? endpoints.keeper_pid : endpoints.daemon_pid;
  const Status hinted = runtime_dir_->WriteFile("dev.json", DevJson(dev));
  if (!hinted.ok()) spdlog::error("{}", hinted.message());
  if (!dev_->token_is_new() || std::exchange(hints_printed_, true)) return;
  const std::string hints = DevHints(dev);
  if (fputs(hints.c_str(), stdout) < 0 || fflush(stdout) != 0)
    spdlog::warn("printing the hints of --dev failed");
}

Status Server::Announce() {
  WriteEndpoints();
  if (http_ != nullptr) http_->SetReady(true);
  grpc_->SetServing(true);
  SH_RETURN_IF_ERROR(link_->Watch([this] { WriteEndpoints(); }));
  SH_RETURN_IF_ERROR(link_->NotifyReady());
  LogStart();
  return Status();
}

void Server::LogStart() const {
  std::string addresses;
  for (const std::string& address : listen_addresses_) addresses += " " + address;
  const EngineTotals totals = engine_->Totals();
  spdlog::info("statehoused {} serves {} (network:{}; http: {}); generation {}, {} areas, {} bytes",
               Version(), runtime_dir_->path(), addresses.empty() ? " off" : addresses,
               http_address_.empty() ? "off" : http_address_, totals.generation, totals.areas,
               totals.memory_bytes);
  spdlog::warn(
      "read-only access is advisory for local workers that run as user {}, this service's own; run "
      "workers "
      "that must not write as another user, through the network door",
      geteuid());
}

ServiceControl::Facts Server::GetFacts() const {
  Facts facts;
  facts.start_unix_ns = start_unix_ns_;
  facts.daemon_pid = static_cast<uint32_t>(getpid());
  facts.keeper_pid = static_cast<uint32_t>(link_->keeper_pid());
  facts.runtime_dir = runtime_dir_->path();
  facts.listen_addresses = listen_addresses_;
  facts.http_address = http_address_;
  return facts;
}

uint32_t Server::BeginDrain(milliseconds grace) {
  const uint32_t in_flight = dispatcher_->CallsInFlight();
  if (!drain_was_asked_.exchange(true)) {
    grace_ms_ = std::max<int64_t>(grace.count(), 0);
    draining_ = true;
    const uint64_t one = 1;
    if (write(events_.get(), &one, sizeof(one)) < 0)
      spdlog::error("waking for a drain failed: {}", strerror(errno));
  }
  return in_flight;
}

void Server::Drain() {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + milliseconds(grace_ms_);
  const auto left = [end] {
    return std::max(std::chrono::duration_cast<milliseconds>(end - Clock::now()), milliseconds(0));
  };
  const int64_t linger_ms =
      std::min(static_cast<int64_t>(config_.drain_linger_ms), grace_ms_.load());
  spdlog::info("draining: plain calls are served for {} ms, calls in flight may take {} ms",
               linger_ms, grace_ms_.load());
  if (http_ != nullptr) http_->SetReady(false);
  grpc_->SetServing(false);
  link_->NotifyStopping();
  if (linger_ms > 0) SleepNs(static_cast<uint64_t>(linger_ms) * 1'000'000);
  closing_ = true;
  dispatcher_->Shutdown();
  while (dispatcher_->CallsInFlight() > 0 && Clock::now() < end) {
    SleepNs(kDrainLookIntervalNs);
  }
  grpc_->Shutdown(std::min(left(), kFlushGrace));
  attach_->Shutdown(std::min(left(), kFlushGrace));
  if (http_ != nullptr) http_->Shutdown();
  drained_ = true;
  const uint64_t one = 1;
  if (write(events_.get(), &one, sizeof(one)) < 0)
    spdlog::error("ending the drain failed: {}", strerror(errno));
}

void Server::CleanUp() {
  const Status removed = runtime_dir_.has_value() ? runtime_dir_->RemoveFiles() : Status();
  if (!removed.ok()) spdlog::error("{}", removed.message());
  const Status folder = dev_.has_value() ? dev_->Remove() : Status();
  if (!folder.ok()) spdlog::error("{}", folder.message());
}

void Server::CutShort() {
  spdlog::warn("stopping at once: calls in flight are cut off");
  link_->NotifyStopping();
  CleanUp();
  link_->NotifyExit(kExitCutShort);
  _exit(kExitCutShort);  // Threads are still at work: nothing they use may be destroyed.
}

std::vector<std::string> Server::TokenIds() const {
  std::vector<std::string> ids;
  const auto tokens = ListTokens(config_.auth.tokens_file);
  if (!tokens.ok()) return ids;  // The authenticator reports it.
  for (const TokenRecord& token : *tokens) ids.push_back(token.id);
  return ids;
}

// What may change while the service runs.
void Server::ApplyReloadable() {
  spdlog::set_level(spdlog::level::from_str(loaded_.log_level));
  call_log_->SetSlowCall(milliseconds(loaded_.slow_call_ms));
  call_log_->SetAudit(loaded_.audit);
  authenticator_->SetTokenLimits(
      {loaded_.auth.calls_per_second_max, loaded_.auth.calls_at_once_max});
}

void Server::ReloadConfig() {
  auto config = LoadConfig(options_.arguments, options_.environment);
  if (!config.ok()) {
    spdlog::error(
        "reloading the configuration failed, the old one stays: {}; the next daemon would not "
        "start with it, so mend it now (statehoused config check)",
        config.status().message());
    return;
  }
  const Config before = std::exchange(loaded_, *std::move(config));
  ApplyReloadable();
  LogConfigChanges(started_, before, loaded_);
}

void Server::ReloadTokens() {
  const Status reloaded = authenticator_->Reload();
  if (!reloaded.ok()) {
    spdlog::error("reloading the access tokens failed, the old ones stay: {}", reloaded.message());
  } else {
    const std::vector<std::string> before = std::exchange(token_ids_, TokenIds());
    spdlog::info("access tokens reloaded from {}: {}", config_.auth.tokens_file,
                 DescribeChange(before, token_ids_));
  }
  // Also after a failure: of two files one may have been read.
  dispatcher_->RecheckIdentities(authenticator_.get());
  attach_->RecheckIdentities();
}

// What a call cannot tell: that the token of a connection, a session or a call that waits is over.
void Server::EndExpiredTokens() {
  const int64_t now = time(nullptr);
  const int64_t before = std::exchange(tokens_checked_unix_s_, now);
  if (!authenticator_->AnyExpired(before, now)) return;
  dispatcher_->RecheckIdentities(authenticator_.get());
  attach_->RecheckIdentities();
}

void Server::OnSignal(int signal) {
  if (signal == SIGHUP) {
    ReloadConfig();
    return ReloadTokens();
  }
  spdlog::info("{} received", strsignal(signal));
  // The first one after a call of Drain is not the second: whoever stops the service may have
  // asked it to drain before.
  if (std::exchange(was_signalled_, true)) CutShort();
  BeginDrain(milliseconds(config_.drain_grace_ms));
}

int Server::ServeUntilDrained() {
  tokens_checked_unix_s_ = time(nullptr);
  while (!drained_) {
    std::array<pollfd, 2> watched{pollfd{signals_.get(), POLLIN, 0},
                                  pollfd{events_.get(), POLLIN, 0}};
    const int ready = poll(watched.data(), watched.size(), kScrubIntervalMs);
    if (ready < 0 && errno != EINTR) {
      spdlog::critical("poll failed: {}", strerror(errno));
      CutShort();
    }
    uint64_t count = 0;
    if (watched[1].revents != 0 && read(events_.get(), &count, sizeof(count)) < 0 &&
        errno != EAGAIN) {
      spdlog::error("reading the eventfd failed: {}", strerror(errno));
    }
    signalfd_siginfo info;
    while (read(signals_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
      OnSignal(static_cast<int>(info.ssi_signo));
    }
    if (!closing_) EndExpiredTokens();
    refused_tokens_.Tell(SteadySeconds());
    if (draining_ && !drain_thread_.joinable()) drain_thread_ = std::thread([this] { Drain(); });
    if (ready == 0 && !closing_) {
      const uint32_t mended = engine_->Scrub();
      if (mended > 0) spdlog::warn("{} damaged stripe locks were mended", mended);
    }
  }
  drain_thread_.join();
  refused_tokens_.TellAll();
  return kExitOk;
}

int Server::Run() {
  auto config = LoadConfig(options_.arguments, options_.environment);
  if (!config.ok()) {
    fprintf(stderr, "statehoused: %s\n", config.status().message().c_str());
    return kExitConfig;
  }
  config_ = *std::move(config);
  started_ = config_;
  loaded_ = config_;
  SetUpLogging(config_.log_format, config_.log_level);
  Status started = PrepareProcess();
  if (started.ok()) started = PrepareMemory();
  if (started.ok()) started = StartParts();
  if (started.ok()) started = StartDoors();
  if (started.ok()) started = Announce();
  if (!started.ok()) {
    spdlog::error("cannot start: {}", started.message());
    if (link_ != nullptr) link_->StopWatching();
    if (first_daemon_) CleanUp();
    return ExitCodeOf(started);
  }
  const int code = ServeUntilDrained();
  link_->StopWatching();  // Nobody writes files any more.
  CleanUp();
  link_->NotifyExit(code);
  spdlog::info("stopped");
  return code;
}

}  // namespace

const char* Version() { return STATEHOUSE_VERSION; }

int RunDaemon(DaemonOptions options) { return Server(std::move(options)).Run(); }

}  // namespace statehouse
