#include "service/attach/connection.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "service/keeper/descriptor_message.h"
#include "service/log.h"

namespace statehouse {
namespace {

constexpr std::chrono::milliseconds kBusyPauseMin{1};
constexpr std::chrono::milliseconds kBusyPauseMax{50};

}  // namespace

Connection::Connection(uint64_t id, UniqueFd socket,
                       std::chrono::steady_clock::time_point hello_deadline)
    : id_(id), socket_(std::move(socket)), hello_deadline_(hello_deadline) {
  socklen_t length = sizeof(peer_);
  if (getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &peer_, &length) != 0) {
    spdlog::error("attach: SO_PEERCRED failed: {}", std::strerror(errno));
    closing_ = true;
  }
}

void Connection::Send(const AttachPacket& packet, std::vector<UniqueFd> descriptors) {
  if (closing_) return;
  StatusOr<std::string> bytes = EncodeAttachPacket(packet);
  if (!bytes.ok()) return SendError(packet.request_id, bytes.status());
  outgoing_.push_back({packet.request_id, *std::move(bytes), std::move(descriptors)});
  Flush();
}

void Connection::SendReply(uint64_t request_id, std::string_view response, std::string* scratch) {
  if (closing_) return;
  const Status encoded = EncodeAttachCallReply(request_id, response, scratch);
  if (!encoded.ok()) return SendError(request_id, encoded);
  if (outgoing_.empty() && SendMessage(socket_.get(), *scratch, {}) == SendResult::kSent) return;
  outgoing_.push_back({request_id, *scratch, {}});
  Flush();
}

void Connection::SendError(uint64_t request_id, const Status& status) {
  AttachError error;
  error.reason = status.reason();
  error.retry_after_ms = status.retry_after_ms();
  error.message = status.message().substr(0, kAttachErrorBytesMax);
  Send({request_id, std::move(error)});
}

void Connection::SendErrorAndClose(uint64_t request_id, const Status& status) {
  SendError(request_id, status);
  closing_when_sent_ = true;
}

UniqueFd Connection::TakeSocket() {
  // Fails only where the peer has gone already.
  (void)shutdown(socket_.get(), SHUT_RDWR);
  return std::move(socket_);
}

void Connection::OnBusy(std::chrono::steady_clock::time_point now) {
  const int error = errno;
  if (!retry_at_.has_value()) busy_since_ = now;
  pause_ = retry_at_.has_value() ? std::min(pause_ * 2, kBusyPauseMax) : kBusyPauseMin;
  retry_at_ = now + pause_;
  if (now - busy_since_ < kSendBusyMax) return;
  retry_at_.reset();
  spdlog::error("attach: the kernel takes no packet with descriptors to {} (pid {}): {}",
                client_name_, peer_.pid, std::strerror(error));
  const uint64_t request_id = outgoing_.front().request_id;
  outgoing_.clear();
  SendErrorAndClose(
      request_id, Status(Reason::kLimitExceeded,
                         "the answer's descriptors cannot be sent: too many of the service's user "
                         "wait in unix sockets. Clients that do not read their answers hold them; "
                         "raise the service's limit of open files (LimitNOFILE, ulimit -n)"));
}

void Connection::Flush(std::optional<std::chrono::steady_clock::time_point> now) {
  const auto time = [&now] { return now.has_value() ? *now : std::chrono::steady_clock::now(); };
  if (retry_at_.has_value() && time() < *retry_at_) return;
  while (!outgoing_.empty() && !closing_) {
    const Outgoing& next = outgoing_.front();
    std::vector<int> numbers;
    for (const UniqueFd& fd : next.descriptors) numbers.push_back(fd.get());
    switch (SendMessage(socket_.get(), next.bytes, numbers)) {
      case SendResult::kSent:
        outgoing_.pop_front();
        retry_at_.reset();
        break;
      case SendResult::kFull: retry_at_.reset(); return;
      case SendResult::kBusy: return OnBusy(time());
      case SendResult::kClosed: closing_ = true; break;
      case SendResult::kFailed:
        spdlog::warn("attach: sending to {} (pid {}) failed: {}", client_name_, peer_.pid,
                     std::strerror(errno));
        closing_ = true;
        break;
    }
  }
}

}  // namespace statehouse
