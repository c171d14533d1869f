/* Watches: the part of the C interface (statehouse.h, which includes this) that tells every change
 * of a dict, in order, from where one left off; and what the bytes of an area are, whenever they
 * changed. A watch goes over the network door, also where the client uses the local one; through
 * that one it follows a dict in shared memory once it is live, unless `previous`, `window_us` or
 * SH_SLOW_LATEST is asked for. What is told is the same.
 *
 *   sh_watch *watch = NULL;
 *   sh_watch_event event;
 *   sh_dict_watch(dict, &(sh_watch_options){.prefix = sh_text("web/")}, &watch, &error);
 *   while (sh_watch_next(watch, SH_FOREVER, &event, &error) == SH_OK) {
 *     if (event.kind == SH_WATCH_PUT) reload(event.key, event.value);
 *   }
 *   sh_watch_close(watch);
 *
 *   sh_area_watch_event event;
 *   sh_area_watch(area, 0, sizeof(copy), NULL, &watch, &error);
 *   while (sh_area_watch_next(watch, SH_FOREVER, &event, &error) == SH_OK) {
 *     if (event.bytes.data != NULL) memcpy(copy + event.pos, event.bytes.data, event.len);
 *     if (event.kind == SH_AREA_WATCH_CHANGE && !event.more) use(copy);
 *   }
 *   sh_watch_close(watch);
 *
 * A dict: first come the entries that are there (SH_WATCH_ENTRY), with changes that were made
 * meanwhile, then SH_WATCH_SYNCED, then changes as they are made. A watch goes on by itself over a
 * restart of the service and a broken connection, however long that takes, from its last revision,
 * without a gap or a repeat. Where that cannot be, it says SH_WATCH_RESYNC: forget what was told;
 * entries and SH_WATCH_SYNCED follow. It ends only with what cannot be resumed.
 *
 * An area: first come the bytes of the range (SH_AREA_WATCH_SNAPSHOT), with changes that were made
 * meanwhile, then SH_AREA_WATCH_SYNCED, then changes. They are state, not steps: a program that
 * reads slowly gets the newest bytes, once, and the last state of a range that rests is always
 * told. Whoever has put what was told over the snapshot has the range as of `updates` or later. A
 * watch goes on by itself as a dict's does; then more may be told than what changed, and a snapshot
 * that was broken off begins anew. SH_AREA_WATCH_RESYNC says that this is another area than before;
 * a snapshot and SH_AREA_WATCH_SYNCED follow. Stores through sh_area_data are not counted, so
 * nobody is told of them.
 *
 * Threads: one thread at a time calls sh_watch_next or sh_area_watch_next; the other calls come
 * from any. One thread of the library reads for all watches of a process; it begins with the first
 * watch and ends with the last. A second one, for those that follow in shared memory, reads ahead
 * for those alone whose descriptor was asked for: without it, whoever waits in sh_watch_next is
 * woken by the service itself. What a watch was sent and did not give yet is at most
 * SH_WATCH_READ_AHEAD messages, of an area SH_AREA_WATCH_READ_AHEAD, and no further one is read
 * once they have SH_WATCH_READ_AHEAD_BYTES: then the service keeps the changes and applies the
 * watch's slow policy; of an area it tells the newest bytes later.
 *
 * fork(): the watch goes on in the parent. In the child it answers SH_CLIENT_FORKED and is still to
 * be closed; its descriptor is the parent's, too, and tells the child nothing. As the network door
 * was used before the fork, the child watches only after exec().
 */
#ifndef STATEHOUSE_WATCH_H_
#define STATEHOUSE_WATCH_H_

#include "statehouse/dict.h"
#include "statehouse/statehouse.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SH_WATCH_READ_AHEAD 16
#define SH_WATCH_READ_AHEAD_BYTES (1024 * 1024)
/* Further messages would only be older than what the service tells instead of them. */
#define SH_AREA_WATCH_READ_AHEAD 2
#define SH_WATCH_WINDOW_US_MAX 10000

/* What a watch of a dict tells. */
typedef enum sh_watch_kind {
  SH_WATCH_NONE = 0,    /* Nothing came in time. */
  SH_WATCH_PUT = 1,     /* It was set, added to or edited. */
  SH_WATCH_DELETE = 2,  /* It was deleted by a call. */
  SH_WATCH_EXPIRE = 3,  /* Its time to live was over. */
  SH_WATCH_EVICT = 4,   /* It made room for others in a full dict. */
  SH_WATCH_ENTRY = 5,   /* It is there: the snapshot. */
  SH_WATCH_SYNCED = 6,  /* Everything as of `revision` was told. */
  SH_WATCH_RESYNC = 7,  /* Changes are missing: forget what was told. `reason` says why. */
  SH_WATCH_PROGRESS = 8 /* Nothing happened up to `revision`. */
} sh_watch_kind;
/* For the mask sh_watch_options.kinds. */
#define SH_WATCH_MASK(kind) (1u << (kind))

/* Why changes are missing. */
typedef enum sh_resync_reason {
  SH_RESYNC_UNSPECIFIED = 0,      /* One that this library does not know. */
  SH_RESYNC_HISTORY_GONE = 1,     /* The history does not reach back to the watch's revision. */
  SH_RESYNC_REVISION_UNKNOWN = 2, /* The dict was made anew, or the service lost its state; of an
                                     area: it never had so many updates. */
  SH_RESYNC_SLOW_WATCHER = 3,     /* The watch was read more slowly than the history moved on. */
  SH_RESYNC_OVERRUN = 4,          /* Workers wrote faster than the service could follow. */
  SH_RESYNC_REPLACED = 5, /* The dict was cleared, or moved while the service was away; of an
                             area: it was made anew. */
  SH_RESYNC_DAMAGED = 6,  /* What a worker left of its changes made no sense. */
  SH_RESYNC_CONNECTION_LOST = 255 /* The connection broke in the middle of a snapshot. */
} sh_resync_reason;
/* "history gone", "connection lost" and so on; never NULL. */
SH_API const char *sh_resync_reason_text(sh_resync_reason reason);

/* What happens to a watch that is read more slowly than the dict changes. */
typedef enum sh_slow_policy {
  SH_SLOW_RESYNC = 0, /* It gets every change as long as the history has it, then a resync. */
  SH_SLOW_LATEST = 1, /* Far behind, the newest change of each key alone, marked `coalesced`. */
  SH_SLOW_CANCEL = 2  /* It gets every change as long as the history has it, then
                         SH_LIMIT_EXCEEDED. */
} sh_slow_policy;

/* What to watch, and how. Zero-initialise it: every change of every entry. */
typedef struct sh_watch_options {
  sh_bytes prefix;        /* Keys that begin with it. */
  sh_bytes key;           /* One key; or neither of both. data NULL: none. */
  uint64_t from_revision; /* Go on after it, from an earlier watch, without the entries that are
                             there; 0: from now. */
  uint64_t progress_ms;   /* When nothing was sent for so long SH_WATCH_PROGRESS is: 100 to
                             3,600,000; 0: never. */
  uint32_t kinds;         /* SH_WATCH_MASK(SH_WATCH_PUT) | ...; of the four changes; 0: all. */
  sh_slow_policy slow;
  int skip_snapshot;  /* No entries, also after a resync. */
  int keys_only;      /* No values. */
  int previous;       /* Each change comes with the value that the key had before it. Not together
                         with keys_only. */
  uint64_t window_us; /* After changes the next ones are not told for so long, and then together:
                         0 to SH_WATCH_WINDOW_US_MAX. */
} sh_watch_options;

/* An event. What it points to is valid until the next sh_watch_next and sh_watch_close. */
typedef struct sh_watch_event {
  sh_watch_kind kind;
  sh_resync_reason reason; /* Of a resync. */
  sh_bytes key;            /* Of an entry and a change. */
  sh_bytes value;          /* A message Value; data NULL: none. */
  uint64_t version;        /* The entry's, after the change. */
  uint64_t revision;       /* The change's place in the order of all changes of the dict; 0 for an
                              entry and a resync. */
  int64_t time_ns;         /* When the service saw the change, or who follows by himself did a
                              little earlier; Unix time. */
  int value_gone;          /* SH_WATCH_PUT: the value is not known any more. Read the entry. */
  int coalesced;           /* Older changes of the key were left out. */
  sh_bytes previous;       /* Of a change where it was asked for, as value: what the key had before
                              it, and before those that were left out; data NULL: nothing, or it is
                              not known. */
  int previous_gone;       /* It is not known. */
} sh_watch_event;

/* A watch, which may outlive its dict or area handle. */
typedef struct sh_watch sh_watch;

/* Begins a watch; `options` may be NULL. It does not wait for the service: what the service refuses
 * is told by sh_watch_next. Errors: SH_INVALID_ARGUMENT, SH_KEY_INVALID (key or prefix),
 * SH_LIMIT_EXCEEDED (this process may have no more descriptors or threads), SH_CLIENT_CLOSED,
 * SH_CLIENT_FORKED. */
SH_API sh_reason sh_dict_watch(sh_dict *dict, const sh_watch_options *options, sh_watch **watch,
                               sh_error **error);
/* The next event; SH_WATCH_NONE where none came within `timeout_ms` (0: only looks; SH_FOREVER: no
 * limit). Errors, which end the watch and come again: SH_DICT_NOT_FOUND (also when it was deleted
 * meanwhile), SH_PERMISSION_DENIED, SH_UNAUTHENTICATED, SH_TOKEN_EXPIRED, SH_LIMIT_EXCEEDED (too
 * many watches, or SH_SLOW_CANCEL), SH_CLIENT_CLOSED (sh_close or sh_watch_close), SH_CANCELLED
 * (sh_watch_cancel). Else: SH_CLIENT_FORKED, SH_INVALID_ARGUMENT (NULL, a watch of an area, or
 * another thread is in this call), which end nothing. */
SH_API sh_reason sh_watch_next(sh_watch *watch, uint64_t timeout_ms, sh_watch_event *event,
                               sh_error **error);
/* Of the last event that was given: `from_revision` of a later watch that goes on after it. 0 where
 * there is none: before SH_WATCH_SYNCED, and from SH_WATCH_RESYNC to the next one; 0 for NULL and a
 * watch of an area. */
SH_API uint64_t sh_watch_revision(const sh_watch *watch);

/* What a watch of an area tells. */
typedef enum sh_area_watch_kind {
  SH_AREA_WATCH_NONE = 0,     /* Nothing came in time. */
  SH_AREA_WATCH_SNAPSHOT = 1, /* What is there; the parts follow upon each other. */
  SH_AREA_WATCH_CHANGE = 2,   /* What is there now. It may be told to be as it was before. */
  SH_AREA_WATCH_SYNCED = 3,   /* Everything as of `updates` was told; `pos`, `len`: the range. */
  SH_AREA_WATCH_RESYNC = 4,   /* It is another area than before. `reason` says why. */
  SH_AREA_WATCH_PROGRESS = 5  /* Nothing changed up to `updates`. */
} sh_area_watch_kind;

/* Where a later watch of the same range goes on. */
typedef struct sh_area_point {
  uint64_t updates;     /* The range's update counter; everything up to it was told. */
  uint64_t incarnation; /* Which area it is: another one when it was made anew under its name. 0:
                           not compared. */
  int is_set;           /* 0: none, and the others are 0, too. */
} sh_area_point;

/* How to watch an area. Zero-initialise it: bytes first, then each change at once. */
typedef struct sh_area_watch_options {
  sh_area_point from;   /* Go on from it, without a snapshot; not set: from now. */
  uint64_t window_us;   /* After changes the next ones are not told for so long, and then together:
                           0 to SH_WATCH_WINDOW_US_MAX. */
  uint64_t progress_ms; /* When nothing was sent for so long SH_AREA_WATCH_PROGRESS is: 100 to
                           3,600,000; 0: never. */
  int skip_snapshot;    /* No snapshot, also after a resync. */
  int ranges_only;      /* No bytes, and no snapshot. */
} sh_area_watch_options;

/* An event. What it points to is valid until the next sh_area_watch_next and sh_watch_close. */
typedef struct sh_area_watch_event {
  sh_area_watch_kind kind;
  sh_resync_reason reason; /* Of a resync. */
  uint64_t pos; /* Of a snapshot, a change and synced: the first byte, from the area's beginning; */
  uint64_t len; /* and how many, 1 or more, all within the watched range. */
  sh_bytes bytes;   /* Of a snapshot and a change: what they are, `len` of them; data NULL: none, or
                       not asked for. */
  uint64_t updates; /* The range's update counter up to which everything was told. */
  int has_updates;  /* 0: there is no such counter here, because more is to come. */
  int more;         /* The next event belongs to the same moment. */
} sh_area_watch_event;

/* For a `len`: up to the end of the area. */
#define SH_TO_END UINT64_MAX

/* Begins a watch of `len` bytes from `pos` on; `options` may be NULL. It does not wait for the
 * service: what the service refuses is told by sh_area_watch_next. Errors: SH_OUT_OF_BOUNDS,
 * SH_INVALID_ARGUMENT (no bytes, an option), SH_LIMIT_EXCEEDED (this process may have no more
 * descriptors or threads), SH_CLIENT_CLOSED, SH_CLIENT_FORKED. */
SH_API sh_reason sh_area_watch(sh_area *area, uint64_t pos, uint64_t len,
                               const sh_area_watch_options *options, sh_watch **watch,
                               sh_error **error);
/* As sh_watch_next, of a watch of an area. Errors that end the watch: SH_AREA_NOT_FOUND (also when
 * it was deleted meanwhile), SH_OUT_OF_BOUNDS (it was made anew, and smaller), SH_DATA_LOSS,
 * SH_LIMIT_EXCEEDED (too many watches), SH_PERMISSION_DENIED, SH_UNAUTHENTICATED, SH_TOKEN_EXPIRED,
 * SH_CLIENT_CLOSED, SH_CANCELLED. Else: as there. */
SH_API sh_reason sh_area_watch_next(sh_watch *watch, uint64_t timeout_ms,
                                    sh_area_watch_event *event, sh_error **error);
/* Of the last event that was given, at first the options' `from`: `from` of a later watch of the
 * range. Not set before SH_AREA_WATCH_SYNCED where the watch began with a snapshot, from
 * SH_AREA_WATCH_RESYNC to the next one, in a forked child, and for NULL and a watch of a dict. */
SH_API sh_area_point sh_area_watch_point(const sh_watch *watch);

/* Of watches of dicts and areas. */

/* A descriptor for poll and its like, level-triggered: readable while sh_watch_next or
 * sh_area_watch_next has an event or an error to give at once. It is reset when that call finds
 * nothing, so call it with timeout 0 until it gives no event. Never read or write it. The
 * library's, until sh_watch_close; -1 for NULL. */
SH_API int sh_watch_fd(const sh_watch *watch);
/* Ends the watch: the call for the next event gives SH_CANCELLED from now on, also where it
 * waits. */
SH_API void sh_watch_cancel(sh_watch *watch);
/* Ends the watch and frees it. A thread that waits for the next event gets SH_CLIENT_CLOSED, and
 * this call waits until it has; nobody uses the watch afterwards. NULL is allowed. */
SH_API void sh_watch_close(sh_watch *watch);

#ifdef __cplusplus
}
#endif

#endif /* STATEHOUSE_WATCH_H_ */
