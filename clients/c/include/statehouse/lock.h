/* Locks: the part of the C interface (statehouse.h, which includes this) that concerns named
 * leases. Through the local door a free lock is taken and given back without a system call, over
 * the network door by gRPC; both doors see the same locks.
 *
 *   sh_lock *lock = NULL;
 *   sh_lock_acquire(client, "deploy", &(sh_lock_options){.ttl_ms = 10000, .timeout_ms = 5000},
 *                   &lock, &error);
 *   if (lock != NULL) {
 *     write_somewhere(..., sh_lock_token(lock));
 *     sh_lock_release(lock, NULL, &error);
 *   }
 *
 * A lease ends when it is released, at its ttl when it is not renewed, and at once when the process
 * ends. The library renews it at a third of the ttl, on a thread of its own, until it is released.
 * A lease alone does not exclude: a process that was stopped past its lease's end may go on and
 * write. Pass the token as `fence` to what you write (sh_write_options, sh_write_fenced), which
 * then refuses who is late.
 *
 * Requests are served in the order of their arrival. Tokens grow with every grant of the service.
 * Errors of every call: SH_NAME_INVALID, SH_INVALID_ARGUMENT (also where a client or lock is NULL),
 * SH_PERMISSION_DENIED, SH_UNAVAILABLE, SH_TIMEOUT, SH_CLIENT_CLOSED.
 */
#ifndef STATEHOUSE_LOCK_H_
#define STATEHOUSE_LOCK_H_

#include "statehouse/statehouse.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sh_lock_mode {
  SH_LOCK_EXCLUSIVE = 0, /* One holder, or as many as `limit` says. */
  SH_LOCK_SHARED = 1     /* Any number of them, none of them exclusive. */
} sh_lock_mode;

/* How to take a lock; all zero is: exclusive, for 10 s and renewed, waiting for ever. */
typedef struct sh_lock_options {
  sh_lock_mode mode;
  uint32_t limit;       /* Holders at once in exclusive mode: a semaphore; 0 is 1. */
  uint64_t ttl_ms;      /* 100 to 604,800,000 (7 days); 0 is 10,000. */
  uint64_t hold_max_ms; /* Renewals reach at most so far, so that a holder that hangs loses the lock
                           in the end; at least 100; 0: no bound. */
  uint64_t timeout_ms;  /* How long to wait; 0: for ever, unless `try_only`. */
  int try_only;         /* Do not wait. */
  int manual_renewal;   /* The caller renews. */
  const char *owner;    /* For sh_lock_describe; NULL: the client's name. Cut to 40 bytes. */
  /* Called once, on a thread of the library, when the lease is over before its release, whoever
   * renews. It must not release the lock or close the client. */
  void (*on_lost)(void *context);
  void *context;
} sh_lock_options;

/* A lease. */
typedef struct sh_lock sh_lock;

/* Takes a lock. *lock is NULL where it was not had in time, which is no error. Further errors:
 * SH_CONFLICT (in use with another limit), SH_LIMIT_EXCEEDED, SH_STALLED. */
SH_API sh_reason sh_lock_acquire(sh_client *client, const char *name,
                                 const sh_lock_options *options, sh_lock **lock, sh_error **error);
/* Takes the lock of a range of an area, and with it the fences of the range: the token of the lock
 * is for sh_write_fenced and its like. Ranges are locked by whole stripes of the area (4 KiB, or
 * more where the area has more than 1,024 of them), so that two that do not overlap may still
 * exclude each other; more than 32 stripes lock the area as a whole, exclusively. So does
 * sh_lock_acquire of "area/<name>". All or nothing within `timeout_ms`. Where a part of it is lost,
 * the lock is. `area` was opened by `client` and may be closed before the lock. Further errors:
 * SH_OUT_OF_BOUNDS, SH_INVALID_ARGUMENT (`len` 0, a limit), SH_LOCK_LOST (a part was lost while the
 * rest was waited for). */
SH_API sh_reason sh_area_lock(sh_client *client, const sh_area *area, uint64_t pos, uint64_t len,
                              const sh_lock_options *options, sh_lock **lock, sh_error **error);
/* The fencing token: higher than every token of every earlier grant. 0 for NULL. */
SH_API uint64_t sh_lock_token(const sh_lock *lock);
/* The name that it was taken by, "area/<name>" of a range; "" for NULL. */
SH_API const char *sh_lock_name(const sh_lock *lock);
/* 1 while the lease is good, by this process's clock; *left_ms (may be NULL) is what is left. Once
 * 0 it stays 0; NULL gives 0. */
SH_API int sh_lock_held(const sh_lock *lock, uint64_t *left_ms);
/* Lengthens the lease to `ttl_ms` from now; 0: as it was taken with. SH_LOCK_LOST: it is over. */
SH_API sh_reason sh_lock_renew(sh_lock *lock, uint64_t ttl_ms, sh_error **error);
/* Gives the lock back and frees the handle, whatever the result. *held (may be NULL): it was held
 * until now, as the service says, also where an operator took it away and this process has not
 * heard of that; that it was lost before is no error. Where the call was sent again because its
 * first answer was lost, the service's "not held" may be because of the first sending: then it says
 * whether the lease was good by this process's clock. NULL is allowed. Further errors:
 * SH_CLIENT_FORKED. */
SH_API sh_reason sh_lock_release(sh_lock *lock, int *held, sh_error **error);

/* A holder or waiter. */
typedef struct sh_lock_party {
  char owner[64];
  sh_lock_mode mode;
  uint64_t session_id;  /* 0: a worker of the service's host, through the local door. */
  uint64_t token;       /* 0: it waits. */
  uint64_t since_ms;    /* For how long it holds or waits. */
  uint64_t expires_ms;  /* Of a holder: what is left of its lease. */
} sh_lock_party;

/* A lock in use. */
typedef struct sh_lock_info {
  char name[256];
  uint32_t limit;
  uint32_t holder_count;
  uint32_t waiter_count;
  const sh_lock_party *parties; /* Holders first, then waiters in their order; not always all. */
  size_t party_count;
} sh_lock_info;

/* Who has one lock; without parties where nobody uses it. To be given to sh_lock_infos_free with a
 * count of 1. */
SH_API sh_reason sh_lock_describe(sh_client *client, const char *name, sh_lock_info **info,
                                  sh_error **error);
/* All locks in use whose names begin with `prefix` (may be NULL) and that the token may see. */
SH_API sh_reason sh_lock_list(sh_client *client, const char *prefix, sh_lock_info **infos,
                              size_t *count, sh_error **error);
SH_API void sh_lock_infos_free(sh_lock_info *infos, size_t count);
/* For operators: takes the lock from the holder with this token, 0: from all. Verb admin. *released
 * (may be NULL): from how many. */
SH_API sh_reason sh_lock_force_release(sh_client *client, const char *name, uint64_t token,
                                       uint32_t *released, sh_error **error);

#ifdef __cplusplus
}
#endif

#endif /* STATEHOUSE_LOCK_H_ */
