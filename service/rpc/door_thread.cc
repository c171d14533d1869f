#include "service/rpc/door_thread.h"

#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>

namespace statehouse {

bool BeginDoorThread(const char* name, bool raise_priority) {
  (void)::pthread_setname_np(::pthread_self(), name);
  if (!raise_priority) return true;
  errno = 0;
  const int niceness = ::getpriority(PRIO_PROCESS, 0);
  if (niceness != 0) return errno == 0;
  return ::setpriority(PRIO_PROCESS, 0, kRaisedNiceness) == 0;
}

}  // namespace statehouse
