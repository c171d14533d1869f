/* For tests, preloaded (LD_PRELOAD): moves the wall clock of a process, and no other clock, by the
 * seconds that stand in the file named by WALL_CLOCK_SHIFT, a 64-bit integer. The file is mapped:
 * who stores another number makes the clock of all its processes jump at once. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SHIM_EXPORT __attribute__((visibility("default")))

static const _Atomic int64_t *shift_s;

/* Without the file the program must not run: it would seem to pass. */
__attribute__((constructor)) static void MapShift(void) {
  const char *path = getenv("WALL_CLOCK_SHIFT");
  const int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED) _exit(125);
  close(fd);
  shift_s = page;
}

static int IsWallClock(clockid_t clock) {
  return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

SHIM_EXPORT int clock_gettime(clockid_t clock, struct timespec *now) {
  const long result = syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && shift_s != NULL && IsWallClock(clock)) now->tv_sec += *shift_s;
  return (int)result;
}

SHIM_EXPORT time_t time(time_t *seconds) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (seconds != NULL) *seconds = now.tv_sec;
  return now.tv_sec;
}

SHIM_EXPORT int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec exact;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}
