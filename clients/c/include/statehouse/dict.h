/* Dicts: the part of the C interface (statehouse.h, which includes this) that concerns named maps
 * from a string key to a value. Through the local door entries are read and changed in memory that
 * this process maps, over the network door by gRPC; results are the same.
 *
 *   sh_dict *dict = NULL;
 *   sh_entry entry = {0};
 *   int64_t visits = 0;
 *   sh_dict_open(client, "sessions", &(sh_dict_spec){0}, &dict, &error);
 *   sh_dict_set_string(dict, sh_text("user"), sh_text("Ada"), NULL, &error);
 *   sh_dict_add(dict, sh_text("visits"), 1, &visits, &error);
 *   sh_dict_get(dict, sh_text("user"), NULL, 0, &entry, &error);
 *   sh_entry_free(&entry);
 *   sh_dict_close(dict);
 *
 * Keys are 1 to 1,024 bytes of UTF-8. Values travel as the bytes of a message Value
 * (docs/formats/value.md), at most 1 MiB; sh_value_from_json makes them from JSON, and the calls
 * that end in _int, _double and _string need none.
 *
 * Errors of every call on a dict: SH_DICT_NOT_FOUND, SH_KEY_INVALID, SH_VALUE_INVALID,
 * SH_PERMISSION_DENIED, SH_INVALID_ARGUMENT (a NULL that must not be one, an unknown enumerator);
 * of those that write also SH_READ_ONLY, SH_FENCED, SH_LIMIT_EXCEEDED (entries),
 * SH_MEMORY_EXHAUSTED (bytes), SH_STALLED. Through the local door SH_UNAVAILABLE only where the
 * dict has to grow and the service is away. Over the network a mutation is sent again after a lost
 * answer and carried out once all the same, except those whose comment says otherwise.
 */
#ifndef STATEHOUSE_DICT_H_
#define STATEHOUSE_DICT_H_

#include <string.h>

#include "statehouse/statehouse.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that somebody else owns. */
typedef struct sh_bytes {
  const void *data; /* May be NULL where size is 0. */
  size_t size;
} sh_bytes;

/* The bytes of a string, without its last zero byte; none for NULL. */
static inline sh_bytes sh_text(const char *text) {
  sh_bytes bytes;
  bytes.data = text;
  bytes.size = text == NULL ? 0 : strlen(text);
  return bytes;
}

/* Bytes that the library made; to be given to sh_buffer_free. */
typedef struct sh_buffer {
  char *data; /* With a zero byte behind the last. */
  size_t size;
} sh_buffer;
SH_API void sh_buffer_free(sh_buffer *buffer);

/* What a value is: the field numbers of message Value. */
typedef enum sh_value_kind {
  SH_VALUE_INVALID_BYTES = 0, /* Bytes that are no value. */
  SH_VALUE_NULL = 1,
  SH_VALUE_BOOL = 2,
  SH_VALUE_INT = 3,
  SH_VALUE_BIG_INT = 4,
  SH_VALUE_FLOAT = 5,
  SH_VALUE_STRING = 6,
  SH_VALUE_BYTES = 7,
  SH_VALUE_LIST = 8,
  SH_VALUE_MAP = 9,
  SH_VALUE_TIMESTAMP = 10,
  SH_VALUE_TENSOR = 11,
  SH_VALUE_TAGGED = 12
} sh_value_kind;
SH_API sh_value_kind sh_value_kind_of(sh_bytes value);
/* 1, and the result is written, where the value is of that kind; else 0. A string's or bytes' text
 * lies inside `value`. */
SH_API int sh_value_as_bool(sh_bytes value, int *result);
SH_API int sh_value_as_int(sh_bytes value, int64_t *result);
SH_API int sh_value_as_double(sh_bytes value, double *result);
SH_API int sh_value_as_text(sh_bytes value, sh_bytes *result);
/* SH_OK where the bytes are one value; else SH_VALUE_INVALID says what is wrong and where. */
SH_API sh_reason sh_value_check(sh_bytes value, sh_error **error);
/* A value from JSON and back. What JSON has no words for is written as {"$bytes": "AQI="} and so
 * on: docs/formats/value.md. Errors: SH_VALUE_INVALID says where. */
SH_API sh_reason sh_value_from_json(sh_bytes json, sh_buffer *value, sh_error **error);
SH_API sh_reason sh_value_to_json(sh_bytes value, sh_buffer *json, sh_error **error);

/* A number that is added: 64 bits, or a double. */
typedef struct sh_number {
  int is_double;
  int64_t integer;
  double real;
} sh_number;
static inline sh_number sh_int(int64_t integer) {
  sh_number number;
  number.is_double = 0;
  number.integer = integer;
  number.real = 0;
  return number;
}
static inline sh_number sh_double(double real) {
  sh_number number;
  number.is_double = 1;
  number.integer = 0;
  number.real = real;
  return number;
}

/* A number as one of the other kind: of a double what stands before its point, or the nearest
 * number of 64 bits; 0 for one that is none. */
SH_API int64_t sh_number_as_int(sh_number number);
SH_API double sh_number_as_double(sh_number number);

/* One dict, opened by a client. Threads: as sh_area. */
typedef struct sh_dict sh_dict;

/* How to create a dict. Zero-initialise it; zeros mean the defaults, and whatever a dict that
 * exists has. */
typedef struct sh_dict_spec {
  uint64_t max_entries; /* Default: 16,777,216. */
  uint64_t max_bytes;   /* Of entries with their headers. Default: 1 GiB. */
  uint64_t
      default_ttl_ms; /* How long entries live that are set without a ttl. Default: for ever. */
  int evict;          /* 1: expired and old entries make room. 0: a full dict refuses. */
  int exclusive;      /* 1: refuse when the name exists. 0: get or create. */
} sh_dict_spec;

/* What the service knows of a dict. */
typedef struct sh_dict_info {
  char name[256];
  uint32_t index; /* In order of creation, never used again; "#<index>" names the dict, too. */
  uint32_t attached_processes;
  uint64_t entries;
  uint64_t revision; /* Changes since it was created. */
  uint64_t max_entries;
  uint64_t max_bytes;
  uint64_t entry_bytes;   /* Bytes that entries take. */
  uint64_t bound_entries; /* Entries that are bound to a session. */
  uint64_t memory_bytes;  /* Bytes of memory that the dict holds. */
  uint64_t default_ttl_ms;
  uint64_t evictions;
  uint64_t expirations;
  int64_t create_time_ns; /* Unix time. */
  uint32_t moves;         /* How often it moved to another segment. */
  int evict;
} sh_dict_info;

/* Creates a dict or finds the one that agrees with `spec` (NULL: all defaults). `info` and
 * `created` (1 or 0) may be NULL. Errors: SH_NAME_INVALID, SH_SIZE_INVALID, SH_DICT_EXISTS,
 * SH_LIMIT_EXCEEDED, SH_MEMORY_EXHAUSTED, SH_PERMISSION_DENIED. With `exclusive` never sent twice.
 */
SH_API sh_reason sh_dict_create(sh_client *client, const char *name, const sh_dict_spec *spec,
                                sh_dict_info *info, int *created, sh_error **error);
SH_API sh_reason sh_dict_describe(sh_client *client, const char *name, sh_dict_info *info,
                                  sh_error **error);
/* Processes that have it open get SH_DICT_NOT_FOUND at their next operation. Never sent twice. */
SH_API sh_reason sh_dict_delete(sh_client *client, const char *name, sh_error **error);
/* Every readable dict whose name begins with `prefix` (NULL: all), in order of creation. Free with
 * sh_dict_list_free. */
SH_API sh_reason sh_dict_list(sh_client *client, const char *prefix, sh_dict_info **infos,
                              size_t *count, sh_error **error);
SH_API void sh_dict_list_free(sh_dict_info *infos);

/* Opens a dict. With a `spec` it is created when it does not exist; with NULL it must exist. A name
 * that was deleted and created again opens the new one. Errors: as sh_dict_create. */
SH_API sh_reason sh_dict_open(sh_client *client, const char *name, const sh_dict_spec *spec,
                              sh_dict **dict, sh_error **error);
/* NULL is allowed. */
SH_API void sh_dict_close(sh_dict *dict);
SH_API const char *sh_dict_name(const sh_dict *dict);
/* Entries, those that expired and were not removed yet included. */
SH_API sh_reason sh_dict_length(sh_dict *dict, uint64_t *length, sh_error **error);

/* One entry as a call gives it. Zero-initialise it once and use it for as many calls as wanted, by
 * one thread at a time: what it points to is valid until the next call that gets it, and
 * sh_entry_free gives its memory back. */
typedef struct sh_entry {
  int found;                      /* 0: there is no such entry, and the rest means nothing. */
  sh_bytes key;                   /* Set by the calls that give many; else empty. */
  sh_bytes value;                 /* With a path: the part. */
  uint64_t version;               /* Grows with every change of the key, also over deletes. */
  uint64_t ttl_ms;                /* How long it will live; SH_FOREVER. */
  uint64_t fence;                 /* The highest fencing token that wrote it; 0: none. */
  uint64_t ordinal;               /* Grows in the order in which keys were inserted. */
  uint64_t bound_session;         /* The session that it ends with; 0: it is not bound. */
  struct sh_entry_memory *memory; /* The library's. */
} sh_entry;
SH_API void sh_entry_free(sh_entry *entry);

/* Several entries, in the manner of sh_entry. */
typedef struct sh_entries {
  const sh_entry *items;
  size_t count;
  struct sh_entries_memory *memory; /* The library's. */
} sh_entries;
SH_API void sh_entries_free(sh_entries *entries);

/* A step into a value: to the value of a map's key, or to a position of a list. */
typedef struct sh_path_step {
  int is_index;
  sh_bytes key;  /* Where is_index is 0. */
  int64_t index; /* Where it is 1; 0 is the first position, -1 the last. */
} sh_path_step;

/* What an entry must be for a mutation to happen. Zero-initialised: anything. */
typedef enum sh_condition_kind {
  SH_IF_ANY = 0,
  SH_IF_ABSENT = 1,
  SH_IF_PRESENT = 2,
  SH_IF_VERSION = 3, /* It has this version; 0 means that it must be absent. */
  SH_IF_VALUE = 4    /* It holds exactly this value. */
} sh_condition_kind;
typedef struct sh_condition {
  sh_condition_kind kind;
  uint64_t version;
  sh_bytes value;
} sh_condition;

/* For ttl_ms, beside milliseconds from now and SH_FOREVER. */
#define SH_TTL_DEFAULT 0             /* The dict's default_ttl_ms. */
#define SH_TTL_KEEP (SH_FOREVER - 1) /* As long as the entry that is replaced. */

/* How to mutate. Zero-initialise it. */
typedef struct sh_write_options {
  sh_condition condition;
  uint64_t ttl_ms; /* Of what is set. */
  uint64_t fence;  /* A fencing token: SH_FENCED where a higher one wrote. 0: none. */
  /* 1: what is set ends with this client, as a delete that watches see: when the client is closed,
   * its process dies, or the service does not hear of it for 10 s. A call to the service, through
   * the local door too. As with ttl_ms, the next set decides anew, whoever makes it: with 0 it
   * unbinds. Edits, additions and sh_dict_touch keep what the entry is bound to. A forked child
   * does not end what its parent bound. Of what is deleted it means nothing. */
  int bound;
} sh_write_options;

/* What a mutation did. A condition that does not hold is no error. */
typedef struct sh_outcome {
  int applied;      /* 0: the condition did not hold (or nothing was there to delete). */
  uint64_t version; /* The entry's version now; 0: there is none. */
} sh_outcome;

/* Reads an entry, or with `steps` > 0 the part of its value at `path`. An absent key is no error.
 * Errors: SH_PATH_NOT_FOUND, SH_TYPE_MISMATCH. */
SH_API sh_reason sh_dict_get(sh_dict *dict, sh_bytes key, const sh_path_step *path, size_t steps,
                             sh_entry *entry, sh_error **error);

/* What sh_dict_wait waits for. */
typedef enum sh_wait_kind {
  SH_WAIT_PRESENT = 0,         /* There is an entry, or with a path a value there. */
  SH_WAIT_ABSENT = 1,          /* There is none. */
  SH_WAIT_VERSION_ABOVE = 2,   /* There is one with a higher version than `version`. */
  SH_WAIT_VERSION_DIFFERS = 3, /* Its version is not `version`; 0 stands for no entry. */
  SH_WAIT_VALUE = 4            /* It holds exactly `value`, or with a path has it there. */
} sh_wait_kind;
/* Zero-initialise it: looks once whether there is an entry. */
typedef struct sh_entry_wait {
  sh_wait_kind kind;
  uint64_t version;
  sh_bytes value;
  const sh_path_step *path; /* NULL: the whole value. Refused for versions. */
  size_t steps;
  uint64_t timeout_ms; /* SH_FOREVER: no limit; 0: only looks. */
} sh_entry_wait;
/* Waits until an entry is as asked. A time-out is no error: *met (may be NULL) is then 0. *entry
 * (may be NULL) is the entry as it was seen last. What holds only for a moment may be missed; a
 * watch tells it. Through the local door whoever changes the entry wakes the caller, without the
 * service. Errors: also SH_LIMIT_EXCEEDED (too many waiters), SH_DRAINING. */
SH_API sh_reason sh_dict_wait(sh_dict *dict, sh_bytes key, const sh_entry_wait *wait, int *met,
                              sh_entry *entry, sh_error **error);

/* Sets and deletes. `options`, `outcome` and `previous` (the entry as it was before) may be NULL.
 * Get-or-set is SH_IF_ABSENT with `previous`; pop is a delete with `previous`. */
SH_API sh_reason sh_dict_set(sh_dict *dict, sh_bytes key, sh_bytes value,
                             const sh_write_options *options, sh_outcome *outcome,
                             sh_entry *previous, sh_error **error);
SH_API sh_reason sh_dict_delete_entry(sh_dict *dict, sh_bytes key, const sh_write_options *options,
                                      sh_outcome *outcome, sh_entry *previous, sh_error **error);
/* Changes how long an entry lives and nothing else. */
SH_API sh_reason sh_dict_touch(sh_dict *dict, sh_bytes key, uint64_t ttl_ms, sh_outcome *outcome,
                               sh_error **error);

/* How to add. Zero-initialise it. */
typedef struct sh_increment_options {
  const sh_path_step *path; /* Where the number is inside the value; NULL: the value is it. */
  size_t steps;
  const sh_number *initial; /* What an absent number counts as, of delta's kind. NULL: 0. */
  int must_exist;           /* 1: an absent number is refused. */
  const sh_number *min;     /* The sum may not be lower. NULL: no bound. */
  const sh_number *max;     /* The sum may not be higher. NULL: no bound. */
  uint64_t ttl_ms;          /* Of an entry that this call creates. */
  uint64_t fence;
} sh_increment_options;

/* Adds to a number. A whole delta may be added to a double, not the other way round. `options`,
 * `sum` and `version` may be NULL. Errors: SH_KEY_NOT_FOUND and SH_PATH_NOT_FOUND (must_exist),
 * SH_TYPE_MISMATCH, SH_VALUE_OUT_OF_RANGE (overflow, or outside min and max). */
SH_API sh_reason sh_dict_increment(sh_dict *dict, sh_bytes key, sh_number delta,
                                   const sh_increment_options *options, sh_number *sum,
                                   uint64_t *version, sh_error **error);

/* One change inside a value. */
typedef enum sh_edit_kind {
  SH_EDIT_SET = 1,          /* Put `value` there: a map key is added or replaced. */
  SH_EDIT_DELETE = 2,       /* Take away what is there and give it. */
  SH_EDIT_APPEND = 3,       /* Add `value` to the end of the list there. */
  SH_EDIT_EXTEND = 4,       /* Add the items of the list `value`. */
  SH_EDIT_INSERT = 5,       /* Insert `value` before position `start`, as Python's insert does. */
  SH_EDIT_POP = 6,          /* Take the last item of the list, or entry of the map, and give it. */
  SH_EDIT_REMOVE = 7,       /* Take away the first item of the list that equals `value`. */
  SH_EDIT_MERGE = 8,        /* Set each key of the map `value` in the map there. */
  SH_EDIT_CLEAR = 9,        /* Empty the list or map there. */
  SH_EDIT_SLICE = 10,       /* The items of the list `value` in place of [start, stop). */
  SH_EDIT_SET_DEFAULT = 11, /* Put `value` where there is nothing yet, and give what is there. */
  SH_EDIT_APPEND_STRING = 12, /* Add the text `value` (not a message) to the string there. */
  SH_EDIT_APPEND_BYTES = 13   /* The same for bytes. */
} sh_edit_kind;
/* Zero-initialise it. */
typedef struct sh_edit {
  sh_edit_kind kind;
  const sh_path_step *path; /* NULL: the value itself. */
  size_t steps;
  sh_bytes value;
  int64_t start;      /* SH_EDIT_INSERT and SH_EDIT_SLICE; as in Python. */
  int64_t stop;       /* SH_EDIT_SLICE. */
  int create_parents; /* 1: make the maps that are missing on the way, also the entry; for what adds
                         to a list, string or bytes also that. */
  uint64_t if_version; /* SH_CONFLICT where the entry has another one; 0: any. */
  uint64_t fence;
} sh_edit;

/* Carries out one edit as one atomic change. `result` (may be NULL; `value` is what SH_EDIT_POP and
 * SH_EDIT_DELETE took and what SH_EDIT_SET_DEFAULT found or put, empty for others), `length` (may
 * be NULL: of the list, map, string or bytes that was edited) and `version` (may be NULL). Errors:
 * SH_KEY_NOT_FOUND, SH_PATH_NOT_FOUND, SH_TYPE_MISMATCH, SH_CONFLICT. */
SH_API sh_reason sh_dict_edit(sh_dict *dict, sh_bytes key, const sh_edit *edit, sh_entry *result,
                              uint64_t *length, uint64_t *version, sh_error **error);

/* Reads up to 1,024 entries; entries->items[i] is that of keys[i]. Each by itself, or with
 * `consistent` (which needs the right to write) all as of one moment. */
SH_API sh_reason sh_dict_get_many(sh_dict *dict, const sh_bytes *keys, size_t count, int consistent,
                                  sh_entries *entries, sh_error **error);
/* Sets up to 1,024 entries, all or none; no key twice. Of `options` (may be NULL) ttl_ms, fence and
 * bound count. `versions` (may be NULL) takes `count` numbers. */
SH_API sh_reason sh_dict_set_many(sh_dict *dict, const sh_bytes *keys, const sh_bytes *values,
                                  size_t count, const sh_write_options *options, uint64_t *versions,
                                  sh_error **error);

/* Where a scan goes on. Zero-initialise it to begin one; sh_cursor_free gives its memory back. */
typedef struct sh_cursor {
  int done;
  struct sh_cursor_memory *memory; /* The library's. */
} sh_cursor;
SH_API void sh_cursor_free(sh_cursor *cursor);
/* The next entries whose keys begin with `prefix`, in no order: about `limit` (0: 1,000; at most
 * 10,000), fewer on the last page, and then cursor->done is 1. A page may be empty before that. An
 * entry that is there all the time comes once, or twice where the dict moves meanwhile. */
SH_API sh_reason sh_dict_scan(sh_dict *dict, sh_bytes prefix, uint32_t limit, sh_cursor *cursor,
                              sh_entries *entries, sh_error **error);

typedef struct sh_compare {
  sh_bytes key;
  sh_condition condition; /* Not SH_IF_ANY. */
} sh_compare;
typedef enum sh_step_kind {
  SH_STEP_GET = 1,
  SH_STEP_SET = 2,
  SH_STEP_DELETE = 3,
  SH_STEP_INCREMENT = 4
} sh_step_kind;
/* One step of a transaction. Zero-initialise it. */
typedef struct sh_step {
  sh_step_kind kind;
  sh_bytes key;
  sh_bytes value;                        /* SH_STEP_SET. */
  const sh_write_options *options;       /* SH_STEP_SET and SH_STEP_DELETE; NULL: defaults. */
  sh_number delta;                       /* SH_STEP_INCREMENT. */
  const sh_increment_options *increment; /* The same; without a path. NULL: defaults. */
} sh_step;
/* `then` and `otherwise`: lists of steps, one of which is carried out. Together with the compares
 * at most 1,024; no key twice in a list. */
typedef struct sh_transaction {
  const sh_compare *compares;
  size_t compare_count;
  const sh_step *then;
  size_t then_count;
  const sh_step *otherwise;
  size_t otherwise_count;
} sh_transaction;
/* Carries out `then` where every compare holds (*compared is 1), else `otherwise`; all or nothing,
 * at once for everybody. results->items (may be NULL) has what each step gave: SH_STEP_GET the
 * entry, SH_STEP_SET and SH_STEP_DELETE the entry as it was before, SH_STEP_INCREMENT the new
 * number; `versions` (may be NULL, else room for the longer list) each entry's version now. Errors:
 * SH_CONFLICT (a step's own condition does not hold; nothing happened), SH_KEY_NOT_FOUND,
 * SH_TYPE_MISMATCH, SH_VALUE_OUT_OF_RANGE. Over the network SH_MESSAGE_TOO_LARGE: the
 * answer would have more than a message may (nothing happened), or the first answer was lost and
 * had entries of more than 1 MiB (the message says that it happened). */
SH_API sh_reason sh_dict_transact(sh_dict *dict, const sh_transaction *transaction, int *compared,
                                  sh_entries *results, uint64_t *versions, sh_error **error);

/* Deletes every entry at once, or each one whose key begins with `prefix` (not empty). *deleted may
 * be NULL. Never sent twice. */
SH_API sh_reason sh_dict_clear(sh_dict *dict, uint64_t *deleted, sh_error **error);
SH_API sh_reason sh_dict_delete_prefix(sh_dict *dict, sh_bytes prefix, uint64_t *deleted,
                                       sh_error **error);

/* The usual cases without messages. `options` may be NULL. A condition that does not hold is
 * SH_CONFLICT here. */
SH_API sh_reason sh_dict_set_int(sh_dict *dict, sh_bytes key, int64_t value,
                                 const sh_write_options *options, sh_error **error);
SH_API sh_reason sh_dict_set_double(sh_dict *dict, sh_bytes key, double value,
                                    const sh_write_options *options, sh_error **error);
SH_API sh_reason sh_dict_set_string(sh_dict *dict, sh_bytes key, sh_bytes text,
                                    const sh_write_options *options, sh_error **error);
/* SH_KEY_NOT_FOUND for an absent key, SH_TYPE_MISMATCH for a value of another kind. */
SH_API sh_reason sh_dict_get_int(sh_dict *dict, sh_bytes key, int64_t *value, sh_error **error);
SH_API sh_reason sh_dict_get_double(sh_dict *dict, sh_bytes key, double *value, sh_error **error);
/* Adds to a number that begins at 0. *sum may be NULL; where the entry holds a double it is
 * sh_number_as_int of that, and the entry keeps all of it. */
SH_API sh_reason sh_dict_add(sh_dict *dict, sh_bytes key, int64_t delta, int64_t *sum,
                             sh_error **error);

#ifdef __cplusplus
}
#endif

#include "statehouse/watch.h"

#endif /* STATEHOUSE_DICT_H_ */
