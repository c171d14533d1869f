// KernelCalls: the C library's functions that gated_calls.cc stands in for.
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

namespace statehouse {

struct KernelCalls {
  ssize_t (*recvmsg)(int, msghdr*, int) = nullptr;
  ssize_t (*sendmsg)(int, const msghdr*, int) = nullptr;
  int (*epoll_ctl)(int, int, int, epoll_event*) = nullptr;
  int (*epoll_wait)(int, epoll_event*, int, int) = nullptr;
  int (*close)(int) = nullptr;
};

// Those that come next in the search order of this program's libraries. Any thread.
const KernelCalls& NextKernelCalls();

}  // namespace statehouse
