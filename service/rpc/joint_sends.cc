#include "service/rpc/joint_sends.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <atomic>
#include <utility>

#include "engine/os/futex.h"
#include "service/rpc/kernel_calls.h"
#include "service/rpc/read_gate.h"
#include "service/rpc/sole_poller.h"

namespace statehouse {
namespace {

// The one whose scope the thread is in.
thread_local JointSends* current = nullptr;
// The one that the thread's last scope has left something in, until the next one.
thread_local JointSends* between = nullptr;

std::atomic<uint64_t> all_put_offs{0};

}  // namespace

JointSends::Scope::Scope(JointSends* sends) {
  current = sends;
  between = nullptr;
}

JointSends::Scope::~Scope() {
  current->EndScope();
  current = nullptr;
}

void JointSends::ExpectMore(bool more) {
  if (current != nullptr) current->expects_more_ = more;
}

void JointSends::EndScope() {
  const bool holds = !held_.empty() || !put_off_.empty();
  if (holds && expects_more_ && MonotonicNs() - held_since_ns_ < kHeldNsMax) {
    between = this;
    return;
  }
  Flush();
}

uint64_t JointSends::put_offs() { return all_put_offs.load(std::memory_order_relaxed); }

ssize_t JointSends::Send(int fd, const msghdr* message, int flags) {
  if (between != nullptr && between->IsPutOff(fd)) {
    errno = EAGAIN;
    return -1;
  }
  if (current == nullptr) return NextKernelCalls().sendmsg(fd, message, flags);
  return current->Join(fd, message, flags);
}

ssize_t JointSends::Join(int fd, const msghdr* message, int flags) {
  if (fd < 0) return NextKernelCalls().sendmsg(fd, message, flags);
  const auto at = static_cast<size_t>(fd);
  if (at >= uses_.size()) uses_.resize(at + 1);
  Use& use = uses_[at];
  if (use.round != round_) {
    use = Use{round_};
    return NextKernelCalls().sendmsg(fd, message, flags);
  }
  if (use.is_put_off || PutOff(fd, &use)) {
    errno = EAGAIN;
    return -1;
  }
  const ssize_t sent = NextKernelCalls().sendmsg(fd, message, flags | MSG_MORE);
  if (sent <= 0) return sent;
  BeginToHold();
  if (!std::exchange(use.is_held, true)) held_.push_back(fd);
  if (++joined_ >= kJointSendsMax) Flush();
  return sent;
}

bool JointSends::IsPutOff(int fd) const {
  const auto at = static_cast<size_t>(fd);
  return fd >= 0 && at < uses_.size() && uses_[at].round == round_ && uses_[at].is_put_off;
}

bool JointSends::PutOff(int fd, Use* use) {
  if (++use->messages < kJointOneByOne) return false;
  if (!SolePoller::IsInForce() || !ReadGate::Reports(fd)) return false;
  BeginToHold();
  use->is_put_off = true;
  put_off_.push_back(fd);
  all_put_offs.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void JointSends::BeginToHold() {
  if (held_.empty() && put_off_.empty()) held_since_ns_ = MonotonicNs();
}

void JointSends::Flush() {
  if (between == this) between = nullptr;
  for (const int fd : held_) {
    // It is on already, and said again it sends what is held.
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  // One that was closed meanwhile is not gated any more; where its number has a new owner, a report
  // more does no harm.
  for (const int fd : put_off_) ReadGate::ReportNow(fd);
  held_.clear();
  put_off_.clear();
  joined_ = 0;
  ++round_;
}

}  // namespace statehouse
