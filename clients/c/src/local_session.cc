#include "clients/c/src/local_session.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "clients/c/src/retry_pause.h"
#include "engine/os/process.h"

namespace statehouse {
namespace {

using std::chrono::steady_clock;

uint64_t NanosecondsUntil(Deadline deadline) {
  const auto left = deadline - steady_clock::now();
  return left <= left.zero() ? 1 : static_cast<uint64_t>(std::chrono::nanoseconds(left).count());
}

Status SessionClosed() {
  return Status(Reason::kClientClosed, "the client was closed before this call; connect again");
}

Status UnexpectedAnswer(const std::string& to) {
  return Status(Reason::kInternal, "the daemon answered " + to +
                                       " with a packet of another kind; check that client and "
                                       "service are of the same release");
}

Status Refusal(const AttachError& error) {
  return Status(error.reason, error.message).WithRetryAfter(error.retry_after_ms);
}

// Of a packet that is no answer to the request under way.
Status WhetherItGoesOn(const AttachPacket& packet) {
  const auto* const error = std::get_if<AttachError>(&packet.message);
  if (packet.request_id != 0 || error == nullptr) return Status();
  return Status(Reason::kUnavailable, "the daemon ended the connection: " + error->message);
}

Status CheckToken(const std::string& token) {
  if (token.size() <= kTokenBytesMax) return Status();
  return Status(Reason::kInvalidArgument, "the access token has " + std::to_string(token.size()) +
                                              " bytes; at most " + std::to_string(kTokenBytesMax) +
                                              " are allowed");
}

bool DaemonIsAway(const Status& status) {
  return status.reason() == Reason::kUnavailable || status.reason() == Reason::kDraining;
}

}  // namespace

StatusOr<std::shared_ptr<LocalSession>> LocalSession::Attach(LocalSessionOptions options) {
  SH_RETURN_IF_ERROR(CheckToken(options.token));
  const std::shared_ptr<LocalSession> session(new LocalSession(std::move(options)));
  AddForkObserver(session.get());
  SH_RETURN_IF_ERROR(session->AcquireLane());
  return session;
}

StatusOr<std::shared_ptr<LocalSession>> LocalSession::Connect(LocalSessionOptions options) {
  SH_RETURN_IF_ERROR(CheckToken(options.token));
  const std::shared_ptr<LocalSession> session(new LocalSession(std::move(options)));
  AddForkObserver(session.get());
  const Deadline deadline = session->DefaultDeadline();
  Turn turn;
  SH_RETURN_IF_ERROR(session->TakeTurn(deadline, &turn));
  SH_RETURN_IF_ERROR(session->EnsureConnected(turn.get(), /*want_lanes=*/false, deadline));
  return session;
}

LocalSession::~LocalSession() {
  RemoveForkObserver(this);
  Close();
}

void LocalSession::Close() {
  for (const std::shared_ptr<LocalArea>& area : LivingAreas()) {
    area->usable_.store(LocalArea::kSessionClosed, std::memory_order_relaxed);
  }
  CloseDicts();
  CloseLocks();
  const std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  attachment_id_.store(kUnattached, std::memory_order_relaxed);
  // The lease goes first: when the daemon then sees the connection end, the lanes are free.
  for (const std::weak_ptr<Attachment>& weak : attachments_) {
    if (const std::shared_ptr<Attachment> attachment = weak.lock()) {
      attachment->Retire();
      attachment->liveness.Reset();
    }
  }
  attachments_.clear();
  attachment_.reset();
  sockets_.erase(control_->connection.descriptor());
  control_->connection.Close();
}

void LocalSession::OnForkedChild() {
  // Nothing of the parent's lease may live on here: it would look as if the parent were alive. The
  // lease goes before the connection, whose end makes the daemon look at it.
  for (const std::weak_ptr<Attachment>& weak : attachments_) {
    if (const std::shared_ptr<Attachment> attachment = weak.lock()) {
      attachment->Retire();
      attachment->liveness.Reset();
    }
  }
  for (const int socket : sockets_) ::close(socket);
  sockets_.clear();
  control_->connection.Forget();
  // A thread that is not here may have held the old one's mutex.
  control_ = std::make_shared<Control>();
  attachments_.clear();
  attachment_.reset();
  attachment_id_.store(kUnattached, std::memory_order_relaxed);
}

void LocalSession::Track(const AttachConnection& connection) {
  const std::lock_guard<std::mutex> lock(mutex_);
  sockets_.insert(connection.descriptor());
}

void LocalSession::CloseTracked(AttachConnection* connection) {
  if (!connection->open()) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  sockets_.erase(connection->descriptor());
  connection->Close();
}

std::vector<std::shared_ptr<LocalArea>> LocalSession::LivingAreas() {
  std::vector<std::shared_ptr<LocalArea>> living;
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(areas_, [](const std::weak_ptr<LocalArea>& area) { return area.expired(); });
  for (const std::weak_ptr<LocalArea>& weak : areas_) {
    if (std::shared_ptr<LocalArea> area = weak.lock()) living.push_back(std::move(area));
  }
  return living;
}

LocalSession::Turn::~Turn() {
  if (control_ == nullptr) return;
  {
    const std::lock_guard<std::mutex> lock(control_->mutex);
    control_->busy = false;
  }
  control_->freed.notify_one();
}

bool LocalSession::Turn::Take(std::shared_ptr<Control> control, Deadline deadline) {
  std::unique_lock<std::mutex> lock(control->mutex);
  if (!control->freed.wait_until(lock, deadline, [&] { return !control->busy; })) return false;
  control->busy = true;
  lock.unlock();
  control_ = std::move(control);
  return true;
}

Status LocalSession::TakeTurn(Deadline deadline, Turn* turn) {
  std::shared_ptr<Control> control;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return SessionClosed();
    control = control_;
  }
  if (turn->Take(std::move(control), deadline)) return Status();
  return Status(Reason::kTimeout,
                "another thread's call kept the attach connection busy until the deadline");
}

Status LocalSession::AcquireLane() {
  std::shared_ptr<Attachment> attachment;
  const auto look = [&] {
    const std::lock_guard<std::mutex> lock(mutex_);
    attachment = attachment_;
    return closed_ ? SessionClosed() : Status();
  };
  SH_RETURN_IF_ERROR(look());
  if (attachment == nullptr) {
    const Deadline deadline = DefaultDeadline();
    Turn turn;
    SH_RETURN_IF_ERROR(TakeTurn(deadline, &turn));
    SH_RETURN_IF_ERROR(EnsureConnected(turn.get(), /*want_lanes=*/true, deadline));
    SH_RETURN_IF_ERROR(look());
    if (attachment == nullptr) return SessionClosed();
  }
  UseLaneOf(attachment);
  return Status();
}

Status LocalSession::EnsureConnected(Control* control, bool want_lanes, Deadline deadline) {
  if (control->connection.open() && (control->with_lanes || !want_lanes)) return Status();
  CloseTracked(&control->connection);
  StatusOr<AttachConnection> connection = Connect(want_lanes, deadline);
  if (!connection.ok()) return connection.status();
  control->connection = *std::move(connection);
  control->with_lanes = want_lanes;
  if (want_lanes) {
    ReopenAreas(control, deadline);
    ReopenDicts(control, deadline);
    ReopenLocks(control, deadline);
  }
  return Status();
}

StatusOr<AttachConnection> LocalSession::Connect(bool want_lanes, Deadline deadline) {
  RetryPause retry;
  for (;;) {
    StatusOr<AttachConnection> connection = ConnectOnce(want_lanes, deadline, options_.interrupted);
    if (connection.ok() || !DaemonIsAway(connection.status())) return connection;
    if (options_.interrupted && options_.interrupted()) {
      return Status(Reason::kCancelled, "the caller gave up while the daemon was away");
    }
    if (!retry.Pause(deadline)) return connection;
  }
}

StatusOr<AttachConnection> LocalSession::ConnectOnce(bool want_lanes, Deadline deadline,
                                                     const Interrupt& interrupted) {
  SH_ASSIGN_OR_RETURN(AttachConnection connection, AttachConnection::Open(options_.runtime_dir));
  Track(connection);
  const auto greet = [&]() -> Status {
    UniqueFd pidfd;
    if (want_lanes) {
      SH_ASSIGN_OR_RETURN(pidfd, OpenPidfd(::getpid()));
    }
    const AttachHello hello{options_.token, options_.client_name, want_lanes};
    SH_RETURN_IF_ERROR(connection.Send(AttachPacket{0, hello}, pidfd.get(), deadline));
    SH_ASSIGN_OR_RETURN(AttachConnection::Received received,
                        connection.Receive(deadline, interrupted));
    if (const auto* error = std::get_if<AttachError>(&received.packet.message)) {
      return Refusal(*error);
    }
    if (!std::holds_alternative<AttachWelcome>(received.packet.message)) {
      return UnexpectedAnswer("Hello");
    }
    return want_lanes ? AdoptAttachment(&received) : Status();
  };
  if (Status status = greet(); !status.ok()) {
    CloseTracked(&connection);
    return status;
  }
  return connection;
}

Status LocalSession::AdoptAttachment(AttachConnection::Received* received) {
  const auto& welcome = std::get<AttachWelcome>(received->packet.message);
  if (welcome.lane_count == 0 || welcome.lane_count > kLanesPerBlock || welcome.first_lane == 0 ||
      welcome.first_lane > kLanesMax - welcome.lane_count || received->descriptors.size() != 1) {
    return UnexpectedAnswer("Hello (without usable lanes)");
  }
  auto attachment =
      std::make_shared<Attachment>(std::move(received->descriptors[0]), welcome.first_lane,
                                   welcome.lane_count, welcome.operation_timeout_ns);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return SessionClosed();
  if (attachment_ != nullptr) attachment_->Retire();
  std::erase_if(attachments_, [](const std::weak_ptr<Attachment>& a) { return a.expired(); });
  attachments_.push_back(attachment);
  attachment_id_.store(attachment->id(), std::memory_order_relaxed);
  attachment_ = std::move(attachment);
  return Status();
}

StatusOr<AttachConnection::Received> LocalSession::ExchangeOnce(Control* control,
                                                                const AttachMessage& message,
                                                                Deadline deadline, bool* sent) {
  const uint64_t request_id = control->next_request_id++;
  *sent = false;
  SH_RETURN_IF_ERROR(control->connection.Send(AttachPacket{request_id, message}, -1, deadline));
  *sent = true;
  for (;;) {
    SH_ASSIGN_OR_RETURN(AttachConnection::Received received,
                        control->connection.Receive(deadline, options_.interrupted));
    // An answer to an earlier call that was given up is dropped; an error without a request ends
    // the connection.
    if (received.packet.request_id == request_id) return received;
    SH_RETURN_IF_ERROR(WhetherItGoesOn(received.packet));
  }
}

Status LocalSession::CallOnce(Control* control, const AttachCallView& call, Deadline deadline,
                              bool* sent, Status* answer) {
  const uint64_t request_id = control->next_request_id++;
  *sent = false;
  SH_RETURN_IF_ERROR(EncodeAttachCall(request_id, call, &control->packet));
  SH_RETURN_IF_ERROR(control->connection.SendBytes(control->packet, deadline));
  *sent = true;
  control->response = std::string();  // Without the room that a longer one of another call took.
  for (;;) {
    SH_ASSIGN_OR_RETURN(
        const std::span<const std::byte> bytes,
        control->connection.ReceiveBytes(deadline, options_.interrupted, /*descriptors=*/nullptr));
    uint64_t answered = 0;
    AttachCallReplyView reply;
    if (DecodeAttachCallReply(bytes, &answered, &reply)) {
      if (answered != request_id) continue;  // As in ExchangeOnce.
      control->response.append(reply.response);
      return Status();
    }
    SH_ASSIGN_OR_RETURN(const AttachPacket packet, DecodeAttachPacket(bytes));
    if (packet.request_id != request_id) {
      SH_RETURN_IF_ERROR(WhetherItGoesOn(packet));
      continue;
    }
    const auto* const part = std::get_if<AttachCallPart>(&packet.message);
    if (part == nullptr) {
      const auto* const error = std::get_if<AttachError>(&packet.message);
      *answer = error == nullptr ? UnexpectedAnswer("a call") : Refusal(*error);
      return Status();
    }
    control->response.append(part->bytes);
    if (control->response.size() <= kMessageBytesMax) continue;
    return Status(Reason::kInvalidArgument, "the daemon sent a response of more than " +
                                                std::to_string(kMessageBytesMax) + " bytes");
  }
}

template <typename Once>
Status LocalSession::UntilAnswered(Control* control, bool want_lanes, const CallOptions& options,
                                   const Once& once) {
  if (steady_clock::now() >= options.deadline) {
    return Status(Reason::kTimeout, "attach socket of " + options_.runtime_dir +
                                        ": the deadline passed, so the request was not sent");
  }
  RetryPause retry;
  for (;;) {
    SH_RETURN_IF_ERROR(EnsureConnected(control, want_lanes, options.deadline));
    bool sent = false;
    Status status = once(&sent);
    if (status.ok()) return status;
    const Reason reason = status.reason();
    if (reason == Reason::kUnavailable || reason == Reason::kInvalidArgument) {
      CloseTracked(&control->connection);
    }
    if (sent && reason == Reason::kInvalidArgument) {  // An answer that this side cannot read.
      return Status(reason, status.message() + "; the call may have been carried out");
    }
    if (reason != Reason::kUnavailable) return status;
    if (sent && !options.idempotent) {
      return Status(Reason::kUnavailable,
                    status.message() + "; whether the call was carried out is unknown");
    }
    if (!retry.Pause(options.deadline)) return status;
    if (sent) options.NoteSentAgain();
  }
}

StatusOr<AttachConnection::Received> LocalSession::Exchange(Control* control, bool want_lanes,
                                                            const AttachMessage& message,
                                                            const CallOptions& options) {
  AttachConnection::Received received;
  const auto once = [&](bool* sent) -> Status {
    SH_ASSIGN_OR_RETURN(received, ExchangeOnce(control, message, options.deadline, sent));
    return Status();
  };
  SH_RETURN_IF_ERROR(UntilAnswered(control, want_lanes, options, once));
  const auto* const error = std::get_if<AttachError>(&received.packet.message);
  if (error != nullptr) return Refusal(*error);
  return received;
}

StatusOr<std::string> LocalSession::ExchangeCall(Control* control, const AttachCallView& call,
                                                 const CallOptions& options) {
  Status answer;
  const auto once = [&](bool* sent) {
    return CallOnce(control, call, options.deadline, sent, &answer);
  };
  SH_RETURN_IF_ERROR(UntilAnswered(control, /*want_lanes=*/false, options, once));
  SH_RETURN_IF_ERROR(answer);
  return std::exchange(control->response, {});
}

StatusOr<std::string> LocalSession::Call(const std::string& method, const std::string& request,
                                         const CallOptions& options) {
  const AttachCallView call{method, NanosecondsUntil(options.deadline), request,
                            /*takes_parts=*/true};
  if (options.long_running) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (closed_) return SessionClosed();
    }
    Control apart;
    StatusOr<std::string> response = ExchangeCall(&apart, call, options);
    CloseTracked(&apart.connection);
    return response;
  }
  Turn turn;
  SH_RETURN_IF_ERROR(TakeTurn(options.deadline, &turn));
  return ExchangeCall(turn.get(), call, options);
}

bool LocalSession::CallIfFree(const std::string& method, const std::string& request,
                              const CallOptions& options, Deadline free_by,
                              StatusOr<std::string>* response) {
  Turn turn;
  const Status taken = TakeTurn(std::min(free_by, options.deadline), &turn);
  if (taken.reason() == Reason::kTimeout) return false;
  if (!taken.ok()) {
    *response = taken;
    return true;
  }
  const AttachCallView call{method, NanosecondsUntil(options.deadline), request,
                            /*takes_parts=*/true};
  *response = ExchangeCall(turn.get(), call, options);
  return true;
}

StatusOr<std::shared_ptr<LocalArea>> LocalSession::Open(const std::string& name) {
  const CallOptions options{DefaultDeadline(), /*idempotent=*/true};
  Turn turn;
  SH_RETURN_IF_ERROR(TakeTurn(options.deadline, &turn));
  SH_ASSIGN_OR_RETURN(AttachConnection::Received received,
                      Exchange(turn.get(), true, AttachOpenArea{name}, options));
  const auto* opened = std::get_if<AttachAreaOpened>(&received.packet.message);
  if (opened == nullptr) return UnexpectedAnswer("OpenArea");
  return Adopt(*opened, received.descriptors);
}

StatusOr<std::shared_ptr<LocalArea>> LocalSession::Adopt(const AttachAreaOpened& opened,
                                                         const std::vector<UniqueFd>& descriptors) {
  AreaGeometry geometry;
  geometry.size = opened.size;
  geometry.control_bytes = opened.control_bytes;
  geometry.data_offset = opened.data_offset;
  geometry.atomic_range_bytes = opened.atomic_range_bytes;
  geometry.stripe_shift = opened.stripe_shift;
  geometry.stripe_count = opened.stripe_count;
  geometry.lane_count = opened.lane_count;
  geometry.data_is_separate = opened.data_is_separate;
  struct stat facts {};
  if (descriptors.size() != (opened.data_is_separate ? 2u : 1u) ||
      ::fstat(descriptors[0].get(), &facts) != 0) {
    return UnexpectedAnswer("OpenArea (without the area's descriptors)");
  }
  for (std::shared_ptr<LocalArea>& known : LivingAreas()) {
    if (known->device_ == facts.st_dev && known->inode_ == facts.st_ino &&
        known->writable() == opened.writable && known->usable()) {
      return std::move(known);
    }
  }
  SH_ASSIGN_OR_RETURN(std::unique_ptr<Area> area,
                      Area::Map(opened.name, geometry, descriptors[0].get(),
                                opened.data_is_separate ? descriptors[1].get() : -1,
                                opened.writable ? Access::kReadWrite : Access::kReadOnly));
  const auto adopted = std::make_shared<LocalArea>(shared_from_this(), std::move(area),
                                                   opened.index, facts.st_dev, facts.st_ino);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (opened.writable && attachment_ != nullptr) {
    adopted->area_->PrefaultLanes(attachment_->first_lane(), attachment_->lane_count());
  }
  areas_.push_back(adopted);
  return adopted;
}

void LocalSession::ReopenAreas(Control* control, Deadline deadline) {
  for (const std::shared_ptr<LocalArea>& area : LivingAreas()) {
    if (!area->usable()) continue;
    bool sent = false;
    const AttachOpenArea request{"#" + std::to_string(area->index())};
    StatusOr<AttachConnection::Received> received = ExchangeOnce(control, request, deadline, &sent);
    // Without an answer the mapping is as good as before; the next call meets the same trouble and
    // reports it.
    if (!received.ok()) return;
    struct stat facts {};
    const bool opened = std::holds_alternative<AttachAreaOpened>(received->packet.message);
    const auto* error = std::get_if<AttachError>(&received->packet.message);
    const bool gone = error != nullptr && error->reason == Reason::kAreaNotFound;
    const bool same = opened && !received->descriptors.empty() &&
                      ::fstat(received->descriptors[0].get(), &facts) == 0 &&
                      facts.st_dev == area->device_ && facts.st_ino == area->inode_;
    if (gone || (opened && !same)) {
      area->usable_.store(LocalArea::kReplaced, std::memory_order_relaxed);
    } else if (same && area->writable()) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (attachment_ == nullptr) return;
      area->area_->PrefaultLanes(attachment_->first_lane(), attachment_->lane_count());
    }
  }
}

}  // namespace statehouse
