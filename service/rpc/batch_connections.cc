#include "service/rpc/batch_connections.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
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

using std::chrono::milliseconds;

constexpr int kEventsPerTurn = 32;
constexpr int kLookMs = 1000;    // At connections that may have been silent for too long.
constexpr int kLastLookMs = 20;  // While the service stops.
constexpr uint64_t kSecondNs = 1'000'000'000;
constexpr int kProbes = 3;
constexpr uint64_t kMailboxId = 0;

Status Stopping() {
  return Status(Reason::kDraining, "/statehouse.v1.Batches/RunBatches: the service stops");
}

Status SystemError(const std::string& what) {
  return Status(Reason::kUnavailable, "network door: " + what + ": " + std::strerror(errno));
}

// The kernel asks after so many seconds of silence, and gives up after so many more; also where
// what was sent is not acknowledged, or not taken, for as long.
void AskWhetherItIsThere(int fd, uint32_t silence_s, uint32_t patience_s) {
  const auto set = [fd](int level, int name, uint32_t value) {
    constexpr uint32_t kMax = 2'000'000'000;
    const int number = static_cast<int>(std::min(value, kMax));
    (void)setsockopt(fd, level, name, &number, sizeof(number));
  };
  constexpr uint32_t kSecondsMax = 32'767;  // The kernel's.
  const uint32_t silence = std::min(silence_s, kSecondsMax);
  const uint32_t interval = std::clamp<uint32_t>(patience_s / kProbes, 1, kSecondsMax);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, silence);
  set(IPPROTO_TCP, TCP_KEEPINTVL, interval);
  set(IPPROTO_TCP, TCP_KEEPCNT, kProbes);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, (silence + interval * kProbes) * 1000);
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
  // `peer` is as gRPC names it.
  Connection(BatchConnections* all, uint64_t id, UniqueFd fd, std::string peer)
      : all_(all),
        id_(id),
        fd_(std::move(fd)),
        peer_(std::move(peer)),
        session_(this, all->dispatcher_, all->lane_, ShownPeer(peer_),
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

  // A turn's worth of what is there. False: its client is gone, or has no business here.
  bool Receive() {
    static thread_local std::array<char, kTurnBytesMax> bytes;
    const size_t at_once = open_streams_ == 0 && !is_useful_ ? kStrangerTurnBytes : turn_bytes_;
    const ssize_t got = recv(fd_.get(), bytes.data(), at_once, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    if (leaves_) return true;  // Nobody wants it any more.
    const uint64_t began_ns = MonotonicNs();
    session_.BeginTurn(began_ns + kTurnNs);
    session_.Receive({bytes.data(), static_cast<size_t>(got)});
    if (is_useful_) {
      const uint64_t took_ns = MonotonicNs() - began_ns;
      if (took_ns > kTurnNs) turn_bytes_ = std::max(turn_bytes_ / 2, kTurnBytesMin);
      if (took_ns < kTurnNs / 2) turn_bytes_ = std::min(turn_bytes_ * 2, kTurnBytesMax);
      return true;
    }
    useless_bytes_ += static_cast<size_t>(got);
    return useless_bytes_ <= kStrangerBytesMax + open_streams_ * BatchSession::kWindowBytes;
  }
  // What there is, until the kernel takes no more or the turn is over. False: its client is gone.
  bool Send(uint64_t until_ns) {
    session_.BeginTurn(until_ns);
    has_more_to_send_ = false;
    for (;;) {
      if (output_.empty()) session_.Take(&output_, kUnsentBytesMax);
      if (output_.empty()) return true;
      const ssize_t sent =
          send(fd_.get(), output_.data(), output_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
      if (sent <= 0) return true;
      output_.erase(0, static_cast<size_t>(sent));
      has_more_to_send_ = output_.empty() && MonotonicNs() >= until_ns;
      if (!output_.empty() || has_more_to_send_) return true;
    }
  }
  // Only time kept it from going on.
  bool has_more() const { return has_more_to_send_ || session_.has_more(); }
  // Says that nothing more comes. What its client sends is dropped, until that closes, too.
  void Leave() {
    leaves_ = true;
    output_.clear();
    silent_since_ns_ = MonotonicNs();
    (void)shutdown(fd_.get(), SHUT_WR);
  }
  bool leaves() const { return leaves_; }
  // Whether it has left, taken nothing of what is there, or had no stream, for too long.
  bool IsSilent(uint64_t now_ns) {
    const uint64_t silent_ns = now_ns - std::min(silent_since_ns_, now_ns);
    if (leaves_) return silent_ns >= (all_->stops_ ? kLastLeaveNs : kLeaveNs);
    if (TakesNothing(now_ns)) return true;
    if (open_streams_ != 0) return false;
    const uint64_t idle_ns = all_->options_.idle_s * kSecondNs;
    if (is_useful_) return idle_ns != 0 && silent_ns >= idle_ns;
    return silent_ns >=
           static_cast<uint64_t>(std::chrono::nanoseconds(all_->options_.first_stream).count());
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
    if (all_->stops_) return Stopping();
    if (all_->streams_ >= kBatchStreamsMax) {
      return Status(Reason::kLimitExceeded, std::to_string(kBatchStreamsMax) +
                                                " streams of batches are open, which is the "
                                                "limit; use one for all threads of a process");
    }
    ++all_->streams_;
    ++open_streams_;
    return Status();
  }
  void CloseStream() override {
    --all_->streams_;
    --open_streams_;
    silent_since_ns_ = MonotonicNs();
  }
  void CountWasted() override {
    if (all_->options_.on_wasted) all_->options_.on_wasted(peer_);
  }
  void CountUseful() override {
    if (std::exchange(is_useful_, true) || !all_->options_.on_useful) return;
    all_->options_.on_useful(peer_);
  }
  void CountBytes(int64_t more) override { all_->waiting_bytes_ += more; }
  bool HasRoom(int64_t answers) override {
    if (all_->waiting_bytes_ < all_->options_.waiting_bytes_max || answers < kSmallWaitingBytes)
      return true;
    if (!std::exchange(is_starved, true)) all_->starved_.push_back(id_);
    return false;
  }

  uint32_t asked = EPOLLIN;  // Of epoll.
  bool is_starved = false;   // It is in starved_.
  bool goes_on = false;      // It is in again_.
  bool is_due = false;       // It has a turn in this round.

 private:
  // Of what waits for it, for as long as TCP_USER_TIMEOUT, which unix sockets have not. Whether it
  // took something since the last look is seen in what the kernel still has for it.
  bool TakesNothing(uint64_t now_ns) {
    int queued = 0;
    if (!waits_for_room() || ioctl(fd_.get(), SIOCOUTQ, &queued) != 0) queued = 0;
    if (queued == 0 || queued != std::exchange(queued_, queued)) took_ns_ = now_ns;
    const BatchConnectionsOptions& options = all_->options_;
    const uint64_t patience_s = uint64_t{options.keepalive_s} + options.keepalive_timeout_s;
    return options.keepalive_s != 0 && now_ns - took_ns_ >= patience_s * kSecondNs;
  }

  BatchConnections* const all_;
  const uint64_t id_;
  const UniqueFd fd_;
  const std::string peer_;
  uint64_t silent_since_ns_ = MonotonicNs();  // The last stream ended, or it left.
  size_t open_streams_ = 0;
  size_t useless_bytes_ = 0;  // Before the first batch.
  size_t turn_bytes_ = kTurnBytesMax;
  bool is_useful_ = false;
  bool leaves_ = false;
  bool has_more_to_send_ = false;
  int queued_ = 0;  // Bytes that the kernel had for it at the last look.
  // The last look that found that it took something, or had nothing to take.
  uint64_t took_ns_ = 0;
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
  if (!peer.has_value() && !IsUnixSocket(fd.get())) return;  // It has left.
  if (peer.has_value() && options_.keepalive_s != 0) {
    AskWhetherItIsThere(fd.get(), options_.keepalive_s, options_.keepalive_timeout_s);
  }
  const uint64_t id = ++last_id_;
  auto connection = std::make_unique<Connection>(this, id, std::move(fd),
                                                 peer.has_value() ? peer->GrpcName() : "unix:");
  if (!Ask(EPOLL_CTL_ADD, connection.get(), EPOLLIN)) return;
  Connection* const raw = connection.get();
  connections_[id] = std::move(connection);
  if (stops_) raw->session().EndStreams(Stopping());
  Serve(raw);
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
  // One turn for a connection, however many of its streams were answered.
  std::sort(answered.begin(), answered.end());
  answered.erase(std::unique(answered.begin(), answered.end()), answered.end());
  for (UniqueFd& fd : fresh) Open(std::move(fd));
  for (const uint64_t id : answered) {
    Connection* const connection = Find(id);
    if (connection == nullptr) continue;
    connection->session().BeginTurn(MonotonicNs() + kTurnNs);
    connection->session().Settle();
    Serve(connection);
  }
  if (shuts_down && !std::exchange(stops_, true)) EndAll();
}

void BatchConnections::EndAll() {
  std::vector<uint64_t> ids;
  for (const auto& [id, connection] : connections_) ids.push_back(id);
  for (const uint64_t id : ids) {
    Connection* const connection = Find(id);
    connection->session().EndStreams(Stopping());
    Serve(connection);
  }
}

void BatchConnections::Leave(Connection* connection) {
  if (!connection->leaves()) connection->Leave();
  if (!AskFor(connection)) connections_.erase(connection->id());
}

void BatchConnections::Serve(Connection* connection) {
  connection->is_due = false;
  if (connection->leaves()) return;
  const uint64_t id = connection->id();
  if (!connection->Send(MonotonicNs() + kTurnNs)) {
    connections_.erase(id);
    return;
  }
  // One that waits for room has its turn when there is some.
  const bool goes_on = connection->has_more() && !connection->waits_for_room();
  if (goes_on && !std::exchange(connection->goes_on, true)) again_.push_back(id);
  const bool is_over = connection->session().is_over() && !connection->has_more();
  if (is_over && !connection->waits_for_room()) return Leave(connection);
  if (!AskFor(connection)) connections_.erase(id);
}

bool BatchConnections::AskFor(Connection* connection) {
  const uint32_t wanted = connection->waits_for_room() ? EPOLLOUT : EPOLLIN;
  if (std::exchange(connection->asked, wanted) == wanted) return true;
  return Ask(EPOLL_CTL_MOD, connection, wanted);
}

void BatchConnections::ServeAll(const std::vector<uint64_t>& ids) {
  for (const uint64_t id : ids) {
    if (Connection* const connection = Find(id)) Serve(connection);
  }
}

void BatchConnections::ServeStarved() {
  if (starved_.empty() || waiting_bytes_ >= options_.waiting_bytes_max) return;
  const std::vector<uint64_t> ids = std::exchange(starved_, {});
  for (const uint64_t id : ids) {
    if (Connection* const connection = Find(id)) connection->is_starved = false;
  }
  ServeAll(ids);
}

void BatchConnections::CloseSilent() {
  const uint64_t now_ns = MonotonicNs();
  std::vector<uint64_t> silent;
  for (const auto& [id, connection] : connections_) {
    if (connection->IsSilent(now_ns)) silent.push_back(id);
  }
  for (const uint64_t id : silent) {
    Connection* const connection = Find(id);
    if (connection->leaves()) {
      connections_.erase(id);
    } else {
      // Most have none: it says that it goes.
      connection->session().EndStreams(Stopping());
      Serve(connection);
      // One that takes nothing, or has begun what it does not end, does not leave by itself.
      if (Connection* const left = Find(id)) Leave(left);
    }
  }
}

void BatchConnections::Run() {
  // Where the kernel refuses, callers wait longer beside busy neighbours, and that is all.
  (void)BeginDoorThread("sh-batches", options_.raise_priority);
  (void)AskForShortSlices();
  std::array<epoll_event, kEventsPerTurn> events;
  std::vector<uint64_t> served;
  const auto look = std::min(milliseconds(kLookMs), options_.first_stream);
  const uint64_t look_each_ns = static_cast<uint64_t>(std::chrono::nanoseconds(look).count());
  uint64_t look_ns = 0;
  for (;;) {
    int wait_ms = connections_.empty() ? -1 : static_cast<int>(look.count());
    if (stops_) {
      const std::lock_guard<std::mutex> lock(mailbox_->mutex);
      if (mailbox_->deadline.has_value()) {
        const auto left = *mailbox_->deadline - std::chrono::steady_clock::now();
        const auto left_ms = std::chrono::ceil<milliseconds>(left).count();
        if (connections_.empty() || left_ms <= 0) break;
        wait_ms = static_cast<int>(std::min<int64_t>(left_ms, kLastLookMs));
      }
    }
    const bool has_room = waiting_bytes_ < options_.waiting_bytes_max;
    if (!again_.empty() || (!starved_.empty() && has_room)) wait_ms = 0;
    const int count = NextKernelCalls().epoll_wait(epoll_.get(), events.data(),
                                                   static_cast<int>(events.size()), wait_ms);
    served = std::exchange(again_, {});
    for (const uint64_t id : served) {
      Connection* const connection = Find(id);
      if (connection == nullptr) continue;
      connection->goes_on = false;
      connection->is_due = true;
    }
    bool has_mail = false;
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      has_mail = has_mail || event.data.u64 == kMailboxId;
      Connection* const connection = Find(event.data.u64);
      if (connection == nullptr) continue;
      if (connection->asked == EPOLLIN && !connection->Receive()) {
        connections_.erase(event.data.u64);
        continue;
      }
      if (!std::exchange(connection->is_due, true)) served.push_back(event.data.u64);
    }
    // What is answered at once goes out together: sending between receiving costs more, and the
    // clients sleep less often.
    ServeAll(served);
    if (has_mail) ReadMailbox();
    ServeStarved();
    const uint64_t now_ns = MonotonicNs();
    if (now_ns < look_ns) continue;
    look_ns = now_ns + (stops_ ? uint64_t{kLastLookMs} * 1'000'000 : look_each_ns);
    CloseSilent();
  }
  connections_.clear();
}

}  // namespace statehouse
