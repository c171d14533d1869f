#include "engine/os/record_lock.h"

#include <fcntl.h>

namespace statehouse {
namespace {

struct flock ByteLock(uint64_t offset) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(offset);
  lock.l_len = 1;
  return lock;
}

}  // namespace

bool TryLockByte(int fd, uint64_t offset) {
  struct flock lock = ByteLock(offset);
  return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool ByteIsLocked(int fd, uint64_t offset) {
  struct flock lock = ByteLock(offset);
  if (fcntl(fd, F_OFD_GETLK, &lock) != 0) return false;
  return lock.l_type != F_UNLCK;
}

}  // namespace statehouse
