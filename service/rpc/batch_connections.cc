#include "service/rpc/batch_connections.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "engine/os/futex.h"
#include "engine/os/process.h"
#include "service/http2/batch_session.h"
#include "service/http2/grpc_wire.h"
#include "service/rpc/door_core.h"
#include "service/rpc/door_thread.h"
#include "service/rpc/kernel_calls.h"
#include "service/rpc/reason_map.h"
#include "service/rpc/tcp_peer.h"

namespace statehouse {
namespace {

constexpr int kEventsPerTurn = 32;
constexpr int kLookMs = 1000;  // At connections that may have been silent for too long.
constexpr uint64_t kSecondNs = 1'000'000'000;
constexpr int kProbes = 3;
constexpr uint64_t kMailboxId = 0;

Status SystemError(const std::string& what) {
  return Status(Reason::kUnavailable, "network door: " + what + ": " + std::strerror(errno));
}

// The kernel asks after so many seconds of silence, and gives up after so many more; also where
// what was sent is not acknowledged for as long.
void AskWhetherItIsThere(int fd, uint32_t silence_s, uint32_t patience_s) {
  const auto set = [fd](int level, int name, int value) {
    (void)setsockopt(fd, level, name, &value, sizeof(value));
  };
  constexpr uint32_t kSecondsMax = 32'767;  // The kernel's.
  const uint32_t interval_s = std::clamp<uint32_t>(patience_s / kProbes, 1, kSecondsMax);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, static_cast<int>(std::min(silence_s, kSecondsMax)));
  set(IPPROTO_TCP, TCP_KEEPINTVL, static_cast<int>(interval_s));
  set(IPPROTO_TCP, TCP_KEEPCNT, kProbes);
}

}  // namespace

// For the thread, from others.
struct BatchConnections::Mailbox {
  void Wake() const {
    const uint64_t one = 1;
    (void)!::write(event.get(), &one, sizeof(one));
  }

  UniqueFd event;
  std::mutex mutex;
  // Guarded by mutex.
  std::vector<UniqueFd> fresh;
  std::vector<uint64_t> answered;  // Connections.
  bool shuts_down = false;
  std::optional<std::chrono::steady_clock::time_point> deadline;
};

class BatchConnections::Connection final : public BatchHost {
 public:
  Connection(BatchConnections* all, uint64_t id, UniqueFd fd, const TcpPeer& peer)
      : all_(all),
        id_(id),
        fd_(std::move(fd)),
        peer_(peer.GrpcName()),
        session_(this, all->dispatcher_, all->lane_, peer.ToString(),
                 [mailbox = all->mailbox_, id] {
                   {
                     const std::lock_guard<std::mutex> lock(mailbox->mutex);
                     mailbox->answered.push_back(id);
                   }
                   mailbox->Wake();
                 }) {}

  uint64_t id() const { return id_; }
  int fd() const { return fd_.get(); }
  BatchSession& session() { return session_; }
  bool waits_for_room() const { return !output_.empty(); }

  // A turn's worth of what is there. False: its client is gone.
  bool Receive() {
    static thread_local std::array<char, kTurnBytes> bytes;
    const ssize_t got = recv(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    session_.Receive({bytes.data(), static_cast<size_t>(got)});
    return true;
  }
  // All that there is, until the kernel takes no more. False: its client is gone.
  bool Send() {
    for (;;) {
      if (output_.empty()) session_.Take(&output_, kUnsentBytesMax);
      if (output_.empty()) return true;
      const ssize_t sent =
          send(fd_.get(), output_.data(), output_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
      if (sent < 0) return true;
      output_.erase(0, static_cast<size_t>(sent));
      if (!output_.empty()) return true;
    }
  }
  // Whether it has had no stream for so long, or none at all.
  bool IsSilent(uint64_t now_ns, uint64_t idle_ns) {
    if (session_.streams() != 0) {
      silent_since_ns_ = now_ns;
      has_had_streams_ = true;
    }
    const uint64_t silent_ns = now_ns - std::min(silent_since_ns_, now_ns);
    return has_had_streams_ ? idle_ns != 0 && silent_ns >= idle_ns : silent_ns >= kFirstStreamNs;
  }

  StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view authorization,
                                                         uint64_t* generation) override {
    *generation = all_->tokens_.generation();
    auto identity = all_->tokens_.Authenticate(authorization, [this] { return peer_; });
    if (!identity.ok() && all_->options_.on_auth_failure) {
      all_->options_.on_auth_failure(identity.status().reason(), peer_);
    }
    return identity;
  }
  StatusOr<std::shared_ptr<const Identity>> Current(std::shared_ptr<const Identity> identity,
                                                    uint64_t* generation) override {
    return all_->tokens_.Current(std::move(identity), generation);
  }
  GrpcTrailers TrailersOf(const Status& why) override {
    const grpc::Status status = ToGrpcStatus(why, "");
    return {static_cast<int>(status.error_code()), status.error_message(), status.error_details()};
  }
  Status OpenStream() override {
    if (all_->stops_) return Status(Reason::kDraining, "the service stops");
    if (all_->streams_ >= kBatchStreamsMax) {
      return Status(Reason::kLimitExceeded, std::to_string(kBatchStreamsMax) +
                                                " streams of batches are open, which is the "
                                                "limit; use one for all threads of a process");
    }
    ++all_->streams_;
    has_had_streams_ = true;
    return Status();
  }
  void CloseStream() override {
    --all_->streams_;
    silent_since_ns_ = MonotonicNs();
  }
  void CountWasted() override {
    if (all_->options_.on_wasted) all_->options_.on_wasted(peer_);
  }
  void CountUseful() override {
    if (std::exchange(is_useful_, true) || !all_->options_.on_useful) return;
    all_->options_.on_useful(peer_);
  }
  bool CountBytes(int64_t more) override {
    if (more > 0 && all_->waiting_bytes_ + more > kWaitingBytesMax) return false;
    all_->waiting_bytes_ += more;
    return true;
  }

  bool is_asked_for_room = false;  // Of epoll, and not whether there is something to read.

 private:
  BatchConnections* const all_;
  const uint64_t id_;
  const UniqueFd fd_;
  const std::string peer_;
  uint64_t silent_since_ns_ = MonotonicNs();
  bool has_had_streams_ = false;
  bool is_useful_ = false;
  std::string output_;  // What the kernel did not take.
  BatchSession session_;
};

BatchConnections::BatchConnections(BatchConnectionsOptions options, Dispatcher* dispatcher,
                                   Authenticator* authenticator, Lane lane)
    : options_(std::move(options)),
      dispatcher_(dispatcher),
      lane_(lane),
      tokens_(authenticator),
      mailbox_(std::make_shared<Mailbox>()) {}

BatchConnections::~BatchConnections() {
  BeginShutdown();
  Join(std::chrono::steady_clock::now());
}

StatusOr<std::unique_ptr<BatchConnections>> BatchConnections::Start(BatchConnectionsOptions options,
                                                                    Dispatcher* dispatcher,
                                                                    Authenticator* authenticator,
                                                                    Lane lane) {
  std::unique_ptr<BatchConnections> all(
      new BatchConnections(std::move(options), dispatcher, authenticator, lane));
  SH_RETURN_IF_ERROR(all->Prepare());
  all->thread_ = std::thread([raw = all.get()] { raw->Run(); });
  return all;
}

Status BatchConnections::Prepare() {
  epoll_.Reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return SystemError("making an epoll descriptor");
  mailbox_->event.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!mailbox_->event.valid()) return SystemError("making an event descriptor");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kMailboxId;
  if (NextKernelCalls().epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, mailbox_->event.get(), &event) !=
      0) {
    return SystemError("watching an event descriptor");
  }
  return Status();
}

bool BatchConnections::IsWanted(int fd) {
  char first[kFirstBytesMax];
  const ssize_t got = recv(fd, first, sizeof(first), MSG_PEEK | MSG_DONTWAIT);
  return got > 0 && SaysOnlyBatches({first, static_cast<size_t>(got)});
}

void BatchConnections::Take(UniqueFd connection) {
  {
    const std::lock_guard<std::mutex> lock(mailbox_->mutex);
    mailbox_->fresh.push_back(std::move(connection));
  }
  mailbox_->Wake();
}

void BatchConnections::BeginShutdown() {
  {
    const std::lock_guard<std::mutex> lock(mailbox_->mutex);
    mailbox_->shuts_down = true;
  }
  mailbox_->Wake();
}

void BatchConnections::Join(std::chrono::steady_clock::time_point deadline) {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard<std::mutex> lock(mailbox_->mutex);
    mailbox_->deadline = deadline;
  }
  mailbox_->Wake();
  thread_.join();
}

BatchConnections::Connection* BatchConnections::Find(uint64_t id) const {
  const auto found = connections_.find(id);
  return found == connections_.end() ? nullptr : found->second.get();
}

// Not by the program's own epoll functions, which are for gRPC's connections (gated_calls.cc).
bool BatchConnections::Ask(int operation, Connection* connection, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = connection->id();
  return NextKernelCalls().epoll_ctl(epoll_.get(), operation, connection->fd(), &event) == 0;
}

void BatchConnections::Open(UniqueFd fd) {
  const std::optional<TcpPeer> peer = PeerOf(fd.get());
  if (!peer.has_value()) return;  // It has left.
  if (options_.keepalive_s != 0) {
    AskWhetherItIsThere(fd.get(), options_.keepalive_s, options_.keepalive_timeout_s);
  }
  const uint64_t id = ++last_id_;
  auto connection = std::make_unique<Connection>(this, id, std::move(fd), *peer);
  if (!Ask(EPOLL_CTL_ADD, connection.get(), EPOLLIN)) return;
  Connection* const raw = connection.get();
  connections_[id] = std::move(connection);
  if (stops_) raw->session().EndStreams(Status(Reason::kDraining, "the service stops"));
  (void)Serve(raw);
}

void BatchConnections::ReadMailbox() {
  uint64_t ignored = 0;
  (void)!::read(mailbox_->event.get(), &ignored, sizeof(ignored));
  std::vector<UniqueFd> fresh;
  std::vector<uint64_t> answered;
  bool shuts_down = false;
  {
    const std::lock_guard<std::mutex> lock(mailbox_->mutex);
    fresh.swap(mailbox_->fresh);
    answered.swap(mailbox_->answered);
    shuts_down = mailbox_->shuts_down;
  }
  for (UniqueFd& fd : fresh) Open(std::move(fd));
  for (const uint64_t id : answered) {
    Connection* const connection = Find(id);
    if (connection == nullptr) continue;
    connection->session().Settle();
    (void)Serve(connection);
  }
  if (shuts_down && !std::exchange(stops_, true)) EndAll();
}

void BatchConnections::EndAll() {
  std::vector<uint64_t> ids;
  for (const auto& [id, connection] : connections_) ids.push_back(id);
  for (const uint64_t id : ids) {
    Connection* const connection = Find(id);
    connection->session().EndStreams(
        Status(Reason::kDraining, "/statehouse.v1.Batches/RunBatches: the service stops"));
    (void)Serve(connection);
  }
}

bool BatchConnections::Serve(Connection* connection) {
  const bool is_there = connection->Send();
  const bool waits = connection->waits_for_room();
  if (!is_there || (connection->session().is_over() && !waits)) {
    connections_.erase(connection->id());
    return false;
  }
  if (waits == connection->is_asked_for_room) return true;
  connection->is_asked_for_room = waits;
  if (Ask(EPOLL_CTL_MOD, connection, waits ? EPOLLOUT : EPOLLIN)) return true;
  connections_.erase(connection->id());
  return false;
}

void BatchConnections::CloseSilent(uint64_t now_ns) {
  std::vector<uint64_t> silent;
  for (const auto& [id, connection] : connections_) {
    if (connection->IsSilent(now_ns, options_.idle_s * kSecondNs)) silent.push_back(id);
  }
  for (const uint64_t id : silent) {
    Connection* const connection = Find(id);
    connection->session().EndStreams(Status());  // It has none: it says that it goes.
    if (Serve(connection)) connections_.erase(id);
  }
}

void BatchConnections::Run() {
  // Where the kernel refuses, callers wait longer beside busy neighbours, and that is all.
  (void)BeginDoorThread("sh-batches", options_.raise_priority);
  (void)AskForShortSlices();
  std::array<epoll_event, kEventsPerTurn> events;
  std::vector<uint64_t> served;
  uint64_t look_ns = 0;
  for (;;) {
    int wait_ms = connections_.empty() ? -1 : kLookMs;
    if (stops_) {
      const std::lock_guard<std::mutex> lock(mailbox_->mutex);
      if (mailbox_->deadline.has_value()) {
        const auto left = *mailbox_->deadline - std::chrono::steady_clock::now();
        const auto left_ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
        if (connections_.empty() || left_ms <= 0) break;
        wait_ms = static_cast<int>(std::min<int64_t>(left_ms, kLookMs));
      }
    }
    const int count = NextKernelCalls().epoll_wait(epoll_.get(), events.data(),
                                                   static_cast<int>(events.size()), wait_ms);
    served.clear();
    bool has_mail = false;
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      has_mail = has_mail || event.data.u64 == kMailboxId;
      Connection* const connection = Find(event.data.u64);
      if (connection == nullptr) continue;
      if (!connection->is_asked_for_room && !connection->Receive()) {
        connections_.erase(event.data.u64);
        continue;
      }
      served.push_back(event.data.u64);
    }
    // What is answered at once goes out together: sending between receiving costs more, and the
    // clients sleep less often.
    for (const uint64_t id : served) {
      if (Connection* const connection = Find(id)) (void)Serve(connection);
    }
    if (has_mail) ReadMailbox();
    const uint64_t now_ns = MonotonicNs();
    if (now_ns < look_ns) continue;
    look_ns = now_ns + uint64_t{kLookMs} * 1'000'000;
    CloseSilent(now_ns);
  }
  connections_.clear();
}

}  // namespace statehouse
