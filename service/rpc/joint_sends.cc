#include "service/rpc/joint_sends.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <utility>

#include "engine/os/futex.h"
#include "service/rpc/kernel_calls.h"

namespace statehouse {
namespace {

// The one whose scope the thread is in.
thread_local JointSends* current = nullptr;

}  // namespace

JointSends::Scope::Scope(JointSends* sends) { current = sends; }

JointSends::Scope::~Scope() {
  current->EndScope();
  current = nullptr;
}

void JointSends::ExpectMore(bool more) {
  if (current != nullptr) current->expects_more_ = more;
}

void JointSends::EndScope() {
  if (held_.empty() || !expects_more_ || MonotonicNs() - held_since_ns_ >= kHeldNsMax) Flush();
}

ssize_t JointSends::Send(int fd, const msghdr* message, int flags) {
  if (current == nullptr) return NextKernelCalls().sendmsg(fd, message, flags);
  return current->Join(fd, message, flags);
}

ssize_t JointSends::Join(int fd, const msghdr* message, int flags) {
  if (fd < 0) return NextKernelCalls().sendmsg(fd, message, flags);
  const auto at = static_cast<size_t>(fd);
  if (at >= uses_.size()) uses_.resize(at + 1);
  if (uses_[at].round != round_) {
    uses_[at] = {round_, false};
    return NextKernelCalls().sendmsg(fd, message, flags);
  }
  const ssize_t sent = NextKernelCalls().sendmsg(fd, message, flags | MSG_MORE);
  if (sent <= 0) return sent;
  if (held_.empty()) held_since_ns_ = MonotonicNs();
  if (!std::exchange(uses_[at].is_held, true)) held_.push_back(fd);
  if (++joined_ >= kJointSendsMax) Flush();
  return sent;
}

void JointSends::Flush() {
  for (const int fd : held_) {
    // It is on already, and said again it sends what is held.
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  held_.clear();
  joined_ = 0;
  ++round_;
}

}  // namespace statehouse
