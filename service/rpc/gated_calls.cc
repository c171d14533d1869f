// What the program calls instead of the C library's recvmsg, epoll_ctl, epoll_wait and close: the
// same, and the read gate hears of it (read_gate.h); and instead of sendmsg (joint_sends.h).
//
// A definition in the program comes before a library's, for archives that are linked into it and
// for shared libraries alike, so gRPC's calls come here however it is linked. Descriptors that no
// gate has admitted cost one look at a table.
#include <dlfcn.h>

#include "service/rpc/joint_sends.h"
#include "service/rpc/kernel_calls.h"
#include "service/rpc/read_gate.h"

#define SH_EXPORTED __attribute__((visibility("default")))

namespace statehouse {
namespace {

template <typename Function>
void Find(const char* name, Function* function) {
  *function = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

const KernelCalls& NextKernelCalls() {
  static const KernelCalls kNext = [] {
    KernelCalls next;
    Find("recvmsg", &next.recvmsg);
    Find("sendmsg", &next.sendmsg);
    Find("epoll_ctl", &next.epoll_ctl);
    Find("epoll_wait", &next.epoll_wait);
    Find("close", &next.close);
    return next;
  }();
  return kNext;
}

}  // namespace statehouse

extern "C" {

SH_EXPORTED ssize_t recvmsg(int fd, msghdr* message, int flags) {
  return statehouse::ReadGate::Receive(fd, message, flags);
}

SH_EXPORTED ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  return statehouse::JointSends::Send(fd, message, flags);
}

SH_EXPORTED int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) noexcept {
  const int result = statehouse::NextKernelCalls().epoll_ctl(epoll, operation, fd, event);
  if (result == 0) statehouse::ReadGate::OnEpollControl(epoll, operation, fd, event);
  return result;
}

SH_EXPORTED int epoll_wait(int epoll, epoll_event* events, int events_max, int timeout_ms) {
  statehouse::ReadGate::BeforeEpollWait(epoll);
  const int count = statehouse::NextKernelCalls().epoll_wait(epoll, events, events_max, timeout_ms);
  statehouse::ReadGate::AfterEpollWait(epoll, count);
  return count;
}

SH_EXPORTED int close(int fd) {
  statehouse::ReadGate::BeforeClose(fd);
  return statehouse::NextKernelCalls().close(fd);
}

}  // extern "C"
