#include "service/rpc/grpc_door.h"

#include <absl/synchronization/mutex.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <climits>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/os/process.h"
#include "service/rpc/acceptor.h"
#include "service/rpc/batch_connections.h"
#include "service/rpc/door_core.h"
#include "service/rpc/door_thread.h"
#include "service/rpc/joint_sends.h"
#include "service/rpc/server_call.h"
#include "service/rpc/sole_poller.h"
#include "service/rpc/tcp_peer.h"

namespace statehouse {
namespace {

// Calls that gRPC may hand over before the polling thread has come round to ask for more.
constexpr int kRequestedCalls = 128;
// gRPC refuses what is longer by more than this without telling us; what is between gets an
// ErrorDetail from the dispatcher.
constexpr uint64_t kReceiveSlackBytes = 1 << 20;
// A connection that has not said who it is after so long is closed.
constexpr int kHandshakeMsMax = 10'000;
// All connections together: many large messages at once are refused before they fill the host's
// memory.
constexpr uint64_t kQuotaBytesMin = 512 << 20;
constexpr uint64_t kQuotaMessages = 64;

class GrpcDoorImpl final : public GrpcDoor {
 public:
  GrpcDoorImpl(const GrpcDoorOptions& options, Dispatcher* dispatcher, Authenticator* authenticator,
               Lane lane, Lane batch_lane)
      : core_(options, dispatcher, authenticator, lane),
        authenticator_(authenticator),
        batch_lane_(batch_lane) {}
  ~GrpcDoorImpl() override { Shutdown(std::chrono::milliseconds(0)); }

  Status Start(std::vector<UniqueFd> listeners);

  void SetServing(bool serving) override {
    core_.set_serving(serving);
    core_.Post([this] {
      const std::vector<OpenStream*> streams(core_.streams().begin(), core_.streams().end());
      for (OpenStream* stream : streams) stream->OnHealthChange();
    });
  }

  void Shutdown(std::chrono::milliseconds grace) override;

 private:
  void Configure(grpc::ServerBuilder* builder) const;
  Status StartBatchConnections();
  void HandOn(UniqueFd connection);
  void Poll();

  DoorCore core_;
  Authenticator* const authenticator_;
  const Lane batch_lane_;
  std::unique_ptr<TlsRenewal> renewal_;  // Null without TLS.
  using ConnectionAcceptor = grpc::experimental::ExternalConnectionAcceptor;
  std::unique_ptr<ConnectionAcceptor> plain_;
  std::unique_ptr<ConnectionAcceptor> tls_;  // Null: plain_ takes everything.
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<BatchConnections> batches_;  // With TLS of unix sockets alone.
  std::unique_ptr<Acceptor> acceptor_;
  std::thread poller_;
  std::mutex shutdown_mutex_;
  bool is_shut_down_ = false;  // Guarded by shutdown_mutex_.
};

void GrpcDoorImpl::Configure(grpc::ServerBuilder* builder) const {
  const GrpcDoorOptions& options = core_.options();
  const auto as_int = [](uint64_t bytes) {
    return static_cast<int>(std::min<uint64_t>(bytes, INT_MAX));
  };
  builder->SetMaxReceiveMessageSize(as_int(options.message_bytes_max + kReceiveSlackBytes));
  builder->SetMaxSendMessageSize(as_int(options.message_bytes_max));
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
  builder->AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
  // Idle clients may ping, so that they notice a dead service; none is thrown out for it.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              as_int(uint64_t{options.keepalive_min_ping_s} * 1000));
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  const auto as_ms = [&](uint32_t seconds) { return as_int(uint64_t{seconds} * 1000); };
  // Who is gone without a word, or stopped, is asked for, and makes way.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                              options.keepalive_s == 0 ? INT_MAX : as_ms(options.keepalive_s));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, as_ms(options.keepalive_timeout_s));
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  if (options.idle_s != 0) {
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, as_ms(options.idle_s));
  }
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMsMax);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                              as_int(options.streams_per_connection_max));
  grpc::ResourceQuota quota("statehoused");
  quota.Resize(std::max(kQuotaBytesMin, kQuotaMessages * options.message_bytes_max));
  builder->SetResourceQuota(quota);
}

Status GrpcDoorImpl::Start(std::vector<UniqueFd> listeners) {
  // A debugging aid of Abseil that Debian's build leaves on; it costs up to 8 % of a call.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  grpc::ServerBuilder builder;
  Configure(&builder);
  builder.RegisterAsyncGenericService(&core_.service());
  core_.set_queue(builder.AddCompletionQueue());
  using Type = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
  plain_ = builder.experimental().AddExternalConnectionAcceptor(Type::FROM_FD,
                                                                grpc::InsecureServerCredentials());
  if (core_.options().tls.enabled()) {
    const GrpcDoorOptions& from = core_.options();
    SH_ASSIGN_OR_RETURN(
        renewal_, TlsRenewal::Start({from.tls, from.tls_look_interval, from.kept_tls,
                                     from.on_tls_taken, from.on_tls_refused, from.on_tls_mended}));
    tls_ = builder.experimental().AddExternalConnectionAcceptor(Type::FROM_FD,
                                                                renewal_->Credentials());
  }
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) {
    return Status(Reason::kInternal, "network door: gRPC could not start its server");
  }
  for (int i = 0; i < kRequestedCalls; ++i) ServerCall::Request(&core_);
  poller_ = std::thread([this] { Poll(); });
  const GrpcDoorOptions& options = core_.options();
  SH_RETURN_IF_ERROR(StartBatchConnections());
  AcceptorOptions accepting;
  accepting.connections_max = options.connections_max;
  accepting.wasted_calls_per_second_max = options.wasted_calls_per_second_max;
  accepting.raise_priority = options.raise_priority;
  accepting.waits_for_first = !options.tls.enabled();
  accepting.waits_for_first_of_unix = true;
  accepting.silent_ns =
      static_cast<uint64_t>(std::chrono::nanoseconds(options.first_words).count());
  accepting.on_throttled = options.on_connection_throttled;
  accepting.on_held = options.on_connection_held;
  accepting.on_ended = options.on_connection_ended;
  accepting.on_open = options.on_connection_open;
  accepting.on_refused = options.on_connection_refused;
  SH_ASSIGN_OR_RETURN(
      acceptor_, Acceptor::Start(std::move(listeners), std::move(accepting),
                                 [this](UniqueFd connection) { HandOn(std::move(connection)); }));
  core_.set_acceptor(acceptor_.get());
  return Status();
}

Status GrpcDoorImpl::StartBatchConnections() {
  const GrpcDoorOptions& options = core_.options();
  BatchConnectionsOptions batches;
  batches.raise_priority = options.raise_priority;
  batches.keepalive_s = options.keepalive_s;
  batches.keepalive_timeout_s = options.keepalive_timeout_s;
  batches.idle_s = options.idle_s;
  batches.on_auth_failure = options.on_auth_failure;
  batches.on_wasted = [this](const std::string& peer) { core_.CountWasted(peer); };
  batches.on_useful = [this](const std::string& peer) {
    core_.Raise(peer, ReadGate::Standing::kUseful);
  };
  SH_ASSIGN_OR_RETURN(batches_, BatchConnections::Start(std::move(batches), &core_.dispatcher(),
                                                        authenticator_, batch_lane_));
  return Status();
}

// On the acceptor's thread, where the handshake begins, too: one at a time, as TlsRenewal requires.
void GrpcDoorImpl::HandOn(UniqueFd connection) {
  // One that cannot say where it came in is not trusted to be a unix socket.
  const bool is_plain = tls_ == nullptr || IsUnixSocket(connection.get());
  if (is_plain && BatchConnections::IsWanted(connection.get())) {
    return batches_->Take(std::move(connection));
  }
  ConnectionAcceptor& to = is_plain ? *plain_ : *tls_;
  ConnectionAcceptor::NewConnectionParameters parameters;
  parameters.fd = connection.Release();
  to.HandleNewConnection(&parameters);
}

void GrpcDoorImpl::Poll() {
  // Where the kernel refuses, callers wait longer beside busy neighbours, and that is all.
  (void)BeginDoorThread("sh-calls", core_.options().raise_priority);
  (void)AskForShortSlices();
  core_.BeginPolling();
  const SolePoller sole_poller;
  void* tag = nullptr;
  bool ok = false;
  while (core_.NextEvent(&tag, &ok)) {
    const JointSends::Scope scope(core_.sends());  // An event may send to a whole audience.
    static_cast<Event*>(tag)->OnEvent(ok);
  }
  // Nobody has another turn.
  const JointSends::Scope last(core_.sends());
  JointSends::ExpectMore(false);
}

void GrpcDoorImpl::Shutdown(std::chrono::milliseconds grace) {
  const std::lock_guard<std::mutex> lock(shutdown_mutex_);
  if (is_shut_down_) return;
  is_shut_down_ = true;
  const auto deadline = std::chrono::steady_clock::now() + grace;
  if (acceptor_ != nullptr) acceptor_->Stop();
  if (batches_ != nullptr) batches_->BeginShutdown();
  if (server_ != nullptr) {
    // Streams have no end of their own, so they do not wait for the grace.
    core_.Post([this] {
      core_.set_stopping();
      std::vector<OpenStream*> streams(core_.streams().begin(), core_.streams().end());
      streams.insert(streams.end(), core_.batch_streams().begin(), core_.batch_streams().end());
      for (OpenStream* stream : streams) stream->OnShutdown();
    });
    server_->Shutdown(std::chrono::system_clock::now() + grace);
    // The queue may close only when no call can use it any more: one that was parked is answered by
    // the dispatcher.
    core_.WaitUntilNoCalls();
  }
  if (batches_ != nullptr) batches_->Join(deadline);
  core_.ClosePosting();
  if (core_.queue() != nullptr) core_.queue()->Shutdown();
  if (poller_.joinable()) {
    poller_.join();
  } else if (core_.queue() != nullptr) {
    Poll();
  }
}

}  // namespace

StatusOr<std::unique_ptr<GrpcDoor>> StartGrpcDoor(const GrpcDoorOptions& options,
                                                  std::vector<UniqueFd> listeners,
                                                  Dispatcher* dispatcher,
                                                  Authenticator* authenticator, Lane lane,
                                                  Lane batch_lane) {
  auto door = std::make_unique<GrpcDoorImpl>(options, dispatcher, authenticator, lane, batch_lane);
  SH_RETURN_IF_ERROR(door->Start(std::move(listeners)));
  return std::unique_ptr<GrpcDoor>(std::move(door));
}

}  // namespace statehouse
