#include "service/attach/connection.h"

#include <spdlog/spdlog.h>

#include <cerrno>
#include <cstring>

#include "service/keeper/descriptor_message.h"

namespace statehouse {

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
  outgoing_.push_back({*std::move(bytes), std::move(descriptors)});
  Flush();
}

void Connection::SendError(uint64_t request_id, const Status& status) {
  AttachError error;
  error.reason = status.reason();
  error.retry_after_ms = status.reason() == Reason::kRateLimited ? kRateLimitRetryAfterMs : 0;
  error.message = status.message().substr(0, kAttachErrorBytesMax);
  Send({request_id, std::move(error)});
}

void Connection::SendErrorAndClose(uint64_t request_id, const Status& status) {
  SendError(request_id, status);
  closing_when_sent_ = true;
}

void Connection::Flush() {
  while (!outgoing_.empty() && !closing_) {
    const Outgoing& next = outgoing_.front();
    std::vector<int> numbers;
    for (const UniqueFd& fd : next.descriptors) numbers.push_back(fd.get());
    switch (SendMessage(socket_.get(), next.bytes, numbers)) {
      case SendResult::kSent: outgoing_.pop_front(); break;
      case SendResult::kFull: return;
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
