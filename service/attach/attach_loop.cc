#include "service/attach/attach_loop.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "engine/os/errno_status.h"
#include "service/log.h"

namespace statehouse {
namespace {

// Epoll data: what it is in the top byte, which one in the rest.
constexpr uint64_t kTagListener = uint64_t{1} << 56;
constexpr uint64_t kTagMailbox = uint64_t{2} << 56;
constexpr uint64_t kTagConnection = uint64_t{3} << 56;
constexpr uint64_t kTagWorker = uint64_t{4} << 56;
constexpr uint64_t kTagKind = uint64_t{0xff} << 56;

constexpr int kEventsAtOnce = 64;
constexpr int kPacketsAtOnce = 16;  // Of one connection, before the others get their turn.
constexpr int kAcceptsAtOnce = 16;
constexpr auto kAcceptPause = std::chrono::milliseconds(50);  // When no descriptor is left.

}  // namespace

void AttachLoop::Mailbox::Post(Answer answer) {
  {
    std::lock_guard<std::mutex> lock(mutex);
    answers.push_back(std::move(answer));
    has_answers.store(true, std::memory_order_release);
  }
  if (std::this_thread::get_id() != loop_thread.load(std::memory_order_relaxed)) Wake();
}

void AttachLoop::Mailbox::Wake() const {
  const uint64_t one = 1;
  // A full counter wakes just as well.
  if (write(event.get(), &one, sizeof(one)) < 0 && errno != EAGAIN) {
    spdlog::error("attach: waking the door's thread failed: {}", std::strerror(errno));
  }
}

AttachLoop::AttachLoop(AttachDoorOptions options, UniqueFd listener, AttachDoorParts parts)
    : options_(std::move(options)),
      parts_(parts),
      generation_(parts.engine->Totals().generation),
      listener_(std::move(listener)),
      mailbox_(std::make_shared<Mailbox>()),
      mover_(parts.engine, parts.move_lane),
      packet_buffer_(kAttachHeaderBytes + kAttachBodyBytesMax + 1) {}

StatusOr<std::unique_ptr<AttachLoop>> AttachLoop::Create(AttachDoorOptions options,
                                                         UniqueFd listener, AttachDoorParts parts) {
  std::unique_ptr<AttachLoop> loop(new AttachLoop(std::move(options), std::move(listener), parts));
  SH_RETURN_IF_ERROR(loop->Prepare());
  return loop;
}

Status AttachLoop::Prepare() {
  epoll_.Reset(epoll_create1(EPOLL_CLOEXEC));
  mailbox_->event.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_.valid() || !mailbox_->event.valid())
    return ErrnoStatus("making the attach door's epoll set");
  const int flags = fcntl(listener_.get(), F_GETFL);
  if (flags < 0 || fcntl(listener_.get(), F_SETFL, flags | O_NONBLOCK) < 0) {
    return ErrnoStatus("preparing the attach socket");
  }
  if (!WatchFd(listener_.get(), kTagListener, EPOLLIN) ||
      !WatchFd(mailbox_->event.get(), kTagMailbox, EPOLLIN)) {
    return ErrnoStatus("watching the attach socket");
  }
  leases_.emplace(parts_.engine, parts_.metrics, epoll_.get(), kTagWorker);
  leases_->TakeSurviving();
  return Status();
}

bool AttachLoop::WatchFd(int fd, uint64_t tag, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag;
  return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

void AttachLoop::RequestStop(std::chrono::milliseconds grace) {
  grace_ms_ = grace.count();
  stop_requested_ = true;
  mailbox_->Wake();
}

void AttachLoop::RequestRecheck() {
  recheck_requested_ = true;
  mailbox_->Wake();
}

int AttachLoop::TimeoutMs(std::optional<Clock::time_point> probe_at) const {
  std::optional<Clock::time_point> next = probe_at;
  const auto earlier = [&next](Clock::time_point at) {
    next = next.has_value() ? std::min(*next, at) : at;
  };
  for (const uint64_t id : timed_) {
    const Connection& connection = *connections_.at(id);
    if (!connection.greeted()) earlier(connection.hello_deadline());
    if (connection.retry_at().has_value()) earlier(*connection.retry_at());
  }
  if (stop_at_.has_value()) earlier(*stop_at_);
  if (!accepting_ && !stop_at_.has_value()) earlier(accept_again_at_);
  if (!next.has_value()) return -1;
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(wait, 0, 60'000));
}

void AttachLoop::Run() {
  std::array<epoll_event, kEventsAtOnce> events;
  mailbox_->loop_thread.store(std::this_thread::get_id(), std::memory_order_relaxed);
  for (;;) {
    const std::optional<Clock::time_point> probe_at = leases_->Probe();
    // Dropping a connection, or a lease, may have answered calls of others: nothing wakes this
    // thread for what it posted itself.
    const bool has_answers = mailbox_->has_answers.load(std::memory_order_acquire);
    const int timeout_ms = has_answers ? 0 : TimeoutMs(probe_at);
    const int count = epoll_wait(epoll_.get(), events.data(), kEventsAtOnce, timeout_ms);
    if (count < 0 && errno != EINTR) {
      spdlog::critical("attach: epoll_wait failed: {}; the local door is closed",
                       std::strerror(errno));
      break;
    }
    for (int i = 0; i < count; ++i) Dispatch(events[i].data.u64, events[i].events);
    TakeAnswers();
    LookAtTimed();
    if (recheck_requested_.exchange(false)) Recheck();
    if (stop_requested_ && !stop_at_.has_value()) {
      stop_at_ = Clock::now() + std::chrono::milliseconds(grace_ms_);
      epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_.get(), nullptr);
    } else if (!accepting_ && !stop_at_.has_value() && Clock::now() >= accept_again_at_) {
      accepting_ = WatchFd(listener_.get(), kTagListener, EPOLLIN);
    }
    DropFinished();
    if (!stop_at_.has_value()) continue;
    const bool owing = std::any_of(connections_.begin(), connections_.end(), [](const auto& entry) {
      return !entry.second->calls_.empty() || entry.second->owes();
    });
    if (!owing || Clock::now() >= *stop_at_) break;
  }
  while (!connections_.empty()) {
    Drop(*connections_.begin()->second);
    connections_.erase(connections_.begin());
  }
}

void AttachLoop::Dispatch(uint64_t tag, uint32_t events) {
  const uint64_t which = tag & ~kTagKind;
  switch (tag & kTagKind) {
    case kTagListener: return Accept();
    case kTagWorker: return leases_->ProcessEnded(static_cast<uint32_t>(which));
    case kTagConnection: {
      const auto found = connections_.find(which);
      if (found != connections_.end()) Serve(*found->second, events);
      return;
    }
    default: {  // The mailbox: TakeAnswers follows.
      uint64_t count = 0;
      if (read(mailbox_->event.get(), &count, sizeof(count)) < 0 && errno != EAGAIN) {
        spdlog::error("attach: reading the eventfd failed: {}", std::strerror(errno));
      }
    }
  }
}

void AttachLoop::PauseAccepting() {
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_.get(), nullptr);
  accepting_ = false;
  accept_again_at_ = Clock::now() + kAcceptPause;
}

void AttachLoop::LookAtTimed() {
  if (timed_.empty()) return;
  const Clock::time_point now = Clock::now();
  for (const uint64_t id : std::vector<uint64_t>(timed_.begin(), timed_.end())) {
    Connection& connection = *connections_.at(id);
    if (connection.retry_at().has_value() && *connection.retry_at() <= now) connection.Flush(now);
    if (!connection.greeted() && connection.hello_deadline() <= now && !connection.finished()) {
      connection.SendErrorAndClose(0, Status(Reason::kTimeout, "no Hello came in time"));
      connection.Close();
    }
    Settle(connection);
  }
}

void AttachLoop::Accept() {
  if (closer_.full()) return PauseAccepting();
  for (int i = 0; i < kAcceptsAtOnce; ++i) {
    UniqueFd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.valid()) {
      if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
      spdlog::error("attach: accepting a connection failed: {}; trying again soon",
                    std::strerror(errno));
      return PauseAccepting();
    }
    const uint64_t id = next_connection_++;
    auto connection =
        std::make_unique<Connection>(id, std::move(socket), Clock::now() + options_.hello_timeout);
    if (connections_.size() >= options_.connections_max) {
      connection->SendErrorAndClose(
          0, Status(Reason::kLimitExceeded, "the attach door serves its limit of " +
                                                std::to_string(options_.connections_max) +
                                                " connections"));
      closer_.CloseConnection(connection->TakeSocket());
      continue;
    }
    if (!WatchFd(connection->socket(), kTagConnection | id, EPOLLIN)) {
      spdlog::error("attach: watching a connection failed: {}", std::strerror(errno));
      closer_.CloseConnection(connection->TakeSocket());
      continue;
    }
    Settle(*(connections_[id] = std::move(connection)));
  }
}

void AttachLoop::Serve(Connection& connection, uint32_t events) {
  if ((events & EPOLLOUT) != 0) connection.Flush();
  // Who sent several packets last time may have done so again; else looking for another one costs
  // more than being woken for it.
  const int at_once = connection.sends_bursts_ ? kPacketsAtOnce : 1;
  int read = 0;
  while (read < at_once && connection.reads() && ReadOne(connection)) ++read;
  connection.sends_bursts_ = connection.calls_.size() > 1 || read > 1;
  // A peer that has gone while we read nothing (an answer waits for it) shows here.
  if ((events & (EPOLLHUP | EPOLLERR)) != 0 && !connection.reads()) connection.Close();
  Settle(connection);
}

void AttachLoop::Settle(Connection& connection) {
  const uint64_t id = connection.id();
  epoll_event event{};
  event.events = (connection.reads() ? EPOLLIN : 0u) | (connection.wants_write() ? EPOLLOUT : 0u);
  if (event.events != connection.interest_) {
    connection.interest_ = event.events;
    event.data.u64 = kTagConnection | id;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.socket(), &event) != 0) {
      connection.Close();
    }
  }
  const bool is_timed = !connection.greeted() || connection.retry_at().has_value();
  if (std::exchange(connection.is_timed_, is_timed) != is_timed) {
    if (is_timed) {
      timed_.insert(id);
    } else {
      timed_.erase(id);
    }
  }
  if (connection.finished()) finished_.push_back(id);
}

bool AttachLoop::ReadOne(Connection& connection) {
  ReceivedMessage received = ReceiveMessage(connection.socket(), packet_buffer_);
  if (received.kind == ReceivedMessage::Kind::kNothing) return false;
  if (received.kind != ReceivedMessage::Kind::kMessage) {
    connection.Close();
    return false;
  }
  const bool goes_on = OnMessage(connection, &received);
  // What nobody kept: only the sender knows how long closing it takes.
  for (UniqueFd& descriptor : received.descriptors) closer_.Close(std::move(descriptor));
  return goes_on;
}

bool AttachLoop::OnMessage(Connection& connection, ReceivedMessage* message) {
  ReceivedMessage& received = *message;
  if (received.truncated || received.descriptors.size() > kAttachDescriptorsMax) {
    connection.SendErrorAndClose(
        0, Status(Reason::kMessageTooLarge,
                  "the packet or its descriptors are larger than the attach protocol allows"));
    return false;
  }
  const auto bytes = std::as_bytes(std::span(packet_buffer_.data(), received.bytes));
  uint64_t request_id = 0;
  AttachCallView call;
  if (DecodeAttachCall(bytes, &request_id, &call)) {
    if (MayAsk(connection, request_id, received.descriptors)) OnCall(connection, request_id, call);
    return true;
  }
  StatusOr<AttachPacket> packet = DecodeAttachPacket(bytes);
  if (!packet.ok()) {
    connection.SendErrorAndClose(0, packet.status());
    return false;
  }
  OnPacket(connection, *std::move(packet), &received.descriptors);
  return true;
}

bool AttachLoop::MayAsk(Connection& connection, uint64_t request_id,
                        const std::vector<UniqueFd>& descriptors) {
  Status refused;
  if (!descriptors.empty()) {
    refused = Status(Reason::kInvalidArgument, "only Hello has a descriptor beside it");
  } else if (!connection.greeted()) {
    refused = Status(Reason::kUnauthenticated,
                     "the first packet of a connection must be Hello with an access token");
  } else {
    refused = CheckIdentity(connection);
  }
  if (refused.ok()) return true;
  connection.SendErrorAndClose(request_id, refused);
  return false;
}

// Any but a Call.
void AttachLoop::OnPacket(Connection& connection, AttachPacket packet,
                          std::vector<UniqueFd>* descriptors) {
  const uint64_t id = packet.request_id;
  if (const auto* hello = std::get_if<AttachHello>(&packet.message)) {
    return OnHello(connection, id, *hello, descriptors);
  }
  if (!MayAsk(connection, id, *descriptors)) return;
  if (const auto* open = std::get_if<AttachOpenArea>(&packet.message))
    return OnOpenArea(connection, id, *open);
  if (const auto* open = std::get_if<AttachOpenDict>(&packet.message))
    return OnOpenDict(connection, id, *open);
  if (std::holds_alternative<AttachOpenLocks>(packet.message)) return OnOpenLocks(connection, id);
  if (const auto* open = std::get_if<AttachOpenFollowLog>(&packet.message))
    return OnOpenFollowLog(connection, id, *open);
  connection.SendErrorAndClose(
      id, Status(Reason::kInvalidArgument,
                 "this kind of packet travels from the daemon to the worker only"));
}

void AttachLoop::TakeAnswers() {
  // One that is posted from here on wakes this thread, or is its own: Run looks before it sleeps.
  if (!mailbox_->has_answers.load(std::memory_order_acquire)) return;
  std::vector<Mailbox::Answer> answers;
  {
    std::lock_guard<std::mutex> lock(mailbox_->mutex);
    answers.swap(mailbox_->answers);
    mailbox_->has_answers.store(false, std::memory_order_relaxed);
  }
  for (Mailbox::Answer& answer : answers) {
    const auto found = connections_.find(answer.connection);
    if (found == connections_.end()) continue;  // It has gone; the call was cancelled.
    Connection& connection = *found->second;
    connection.calls_.erase(answer.request_id);
    connection.parted_calls_ -= answer.takes_parts ? 1 : 0;
    if (answer.response.ok() && answer.open_dict.has_value()) {
      SendDict(connection, answer.request_id, *answer.open_dict);
    } else {
      AnswerCall(connection, answer.request_id, answer.response, answer.takes_parts);
    }
    Settle(connection);
  }
}

void AttachLoop::AnswerCall(Connection& connection, uint64_t request_id,
                            const StatusOr<std::string>& response, bool takes_parts) {
  if (!response.ok()) return connection.SendError(request_id, response.status());
  SendResponse(connection, request_id, *response, takes_parts);
}

void AttachLoop::SendResponse(Connection& connection, uint64_t request_id,
                              std::string_view response, bool takes_parts) {
  while (takes_parts && response.size() > kAttachPartBytesMax) {
    const std::string part(response.substr(0, kAttachPartBytesMax));
    connection.Send({request_id, AttachCallPart{part}});
    response.remove_prefix(kAttachPartBytesMax);
  }
  connection.SendReply(request_id, response, &reply_buffer_);
}

void AttachLoop::Recheck() {
  for (const auto& [id, connection] : connections_) {
    if (!connection->greeted()) continue;
    if (const Status valid = CheckIdentity(*connection); !valid.ok()) {
      spdlog::info("attach: closing the connection of {}: {}", connection->client_name_,
                   valid.message());
      connection->SendErrorAndClose(0, valid);
      Settle(*connection);
    }
  }
}

void AttachLoop::DropFinished() {
  for (const uint64_t id : std::exchange(finished_, {})) {
    const auto found = connections_.find(id);
    if (found == connections_.end() || !found->second->finished()) continue;
    Drop(*found->second);
    timed_.erase(id);
    connections_.erase(found);
  }
}

void AttachLoop::Drop(Connection& connection) {
  for (const auto& [request_id, pending] : connection.calls_) {
    if (pending != nullptr) pending->Cancel();
  }
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection.socket(), nullptr);
  closer_.CloseConnection(connection.TakeSocket());
  if (connection.block_.has_value()) leases_->Disconnected(*connection.block_);
}

}  // namespace statehouse
