#include "service/attach/descriptor_closer.h"

#include <sys/socket.h>

#include <array>
#include <thread>
#include <utility>

#include "service/keeper/descriptor_message.h"
#include "service/log.h"

namespace statehouse {
namespace {

// A socket of the sender's does not linger on our account. It may turn that on again before we
// close it, which is why this is no substitute for the thread.
void EndLinger(int fd) {
  const linger off{};
  // Fails for what is no socket, which cannot linger.
  (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
}

void CloseOne(UniqueFd descriptor) {
  EndLinger(descriptor.get());
  descriptor.Reset();
}

// Packets that wait in a socket are bounded by its sender's buffer: a few hundred empty ones.
constexpr int kUnreadPacketsMax = 1024;

// An empty packet looks like the end, so that only the number of looks ends this.
void CloseUnread(int socket) {
  std::array<char, 16> start;
  for (int i = 0; i < kUnreadPacketsMax; ++i) {
    ReceivedMessage received = ReceiveMessage(socket, start);
    for (UniqueFd& descriptor : received.descriptors) CloseOne(std::move(descriptor));
    const bool failed = received.kind == ReceivedMessage::Kind::kFailed;
    if (failed || received.kind == ReceivedMessage::Kind::kNothing) return;
  }
}

}  // namespace

DescriptorCloser::DescriptorCloser(size_t descriptors_max) : descriptors_max_(descriptors_max) {
  std::thread([state = state_] { Run(state); }).detach();
}

DescriptorCloser::~DescriptorCloser() {
  std::unique_lock<std::mutex> lock(state_->mutex);
  state_->stopping = true;
  state_->changed.notify_all();
  if (!state_->changed.wait_for(lock, kStopPatience, [this] { return state_->ended; })) {
    spdlog::warn("attach: closing a client's descriptor blocks; {} more are left to the kernel",
                 state_->waiting.size());
  }
}

void DescriptorCloser::Close(UniqueFd descriptor) {
  if (descriptor.valid()) Push({std::move(descriptor), false});
}

void DescriptorCloser::CloseConnection(UniqueFd socket) {
  if (socket.valid()) Push({std::move(socket), true});
}

void DescriptorCloser::Push(Waiting waiting) {
  bool is_full = false;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->waiting.push_back(std::move(waiting));
    is_full = state_->waiting.size() == descriptors_max_;
    state_->changed.notify_all();
  }
  if (is_full) {
    spdlog::error(
        "attach: {} descriptors of clients wait to be closed, and closing one blocks; no new "
        "connection is taken until there is room. Find the client that passes descriptors of a "
        "hanging file system",
        descriptors_max_);
  }
}

bool DescriptorCloser::full() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->waiting.size() >= descriptors_max_;
}

void DescriptorCloser::Run(const std::shared_ptr<State>& state) {
  std::unique_lock<std::mutex> lock(state->mutex);
  for (;;) {
    state->changed.wait(lock, [&] { return state->stopping || !state->waiting.empty(); });
    if (state->waiting.empty()) break;
    Waiting next = std::move(state->waiting.front());
    state->waiting.pop_front();
    lock.unlock();
    if (next.is_connection) CloseUnread(next.descriptor.get());
    CloseOne(std::move(next.descriptor));
    lock.lock();
  }
  state->ended = true;
  state->changed.notify_all();
}

}  // namespace statehouse
