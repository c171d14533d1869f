/* The C interface of Statehouse: named areas of shared bytes with atomic words, and dicts
 * (statehouse/dict.h), in memory that this process maps (the local door) or over gRPC (the network
 * door). One API, the same results through each door.
 *
 *   sh_client *client = NULL;
 *   sh_area *area = NULL;
 *   sh_error *error = NULL;
 *   uint64_t visits = 0;
 *   if (sh_connect(NULL, NULL, &client, &error) != SH_OK ||
 *       sh_area_open(client, "counters", 4096, &area, &error) != SH_OK ||
 *       sh_add(area, SH_U64, 0, 1, &visits, &error) != SH_OK) {
 *     fprintf(stderr, "%s\n", sh_error_message(error));
 *     sh_error_free(error);
 *   }
 *   sh_area_close(area);
 *   sh_close(client);
 *
 * Rules for every call that returns sh_reason:
 *  - SH_OK means that it was carried out; anything else that it changed nothing, except where its
 *    comment says otherwise.
 *  - `error` may be NULL. Where it is not, a failure stores a new sh_error there, which the caller
 *    frees with sh_error_free; success leaves *error as it was.
 *  - Results are written on success only. Result pointers may be NULL where the comment says so.
 *  - Positions, lengths and sizes are bytes; names are UTF-8 strings that end with a zero byte.
 *
 * Threads: a client, its areas and its dicts may be used by any number of threads at once.
 * sh_close, sh_area_close and sh_dict_close need every other call on that handle to have returned.
 * No call may be made from a signal handler.
 *
 * fork(): clients, areas and dicts of the local door go on in the child: its first mutation
 * attaches anew. A client of the network door that made a call before fork() answers
 * SH_CLIENT_FORKED in the child: connect after fork() there.
 */
#ifndef STATEHOUSE_STATEHOUSE_H_
#define STATEHOUSE_STATEHOUSE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SH_API __attribute__((visibility("default")))
#else
#define SH_API
#endif

/* Why a call was refused. The numbers never change; they are those of statehouse.v1.ErrorReason. */
typedef enum sh_reason {
  SH_OK = 0,
  SH_INVALID_ARGUMENT = 1,
  SH_OUT_OF_BOUNDS = 2,
  SH_NAME_INVALID = 3,
  SH_AREA_NOT_FOUND = 4,
  SH_AREA_EXISTS = 5,
  SH_WIDTH_INVALID = 6,
  SH_SIZE_INVALID = 7,
  SH_LIMIT_EXCEEDED = 8,
  SH_MEMORY_EXHAUSTED = 9,
  SH_UNAUTHENTICATED = 10,
  SH_TOKEN_EXPIRED = 11,
  SH_PERMISSION_DENIED = 12,
  SH_READ_ONLY = 13,
  SH_STALLED = 14,
  SH_TIMEOUT = 15,
  SH_UNAVAILABLE = 16,
  SH_DRAINING = 17,
  SH_DATA_LOSS = 18,
  SH_VERSION_MISMATCH = 19,
  SH_CLIENT_CLOSED = 20,
  SH_CLIENT_FORKED = 21,
  SH_BACKING_INVALID = 22,
  SH_LANES_EXHAUSTED = 23,
  SH_UNIMPLEMENTED = 24,
  SH_INTERNAL = 25,
  SH_MESSAGE_TOO_LARGE = 26,
  SH_RATE_LIMITED = 27,
  SH_VALUE_OUT_OF_RANGE = 28,
  SH_CANCELLED = 29,
  SH_CONFIG_INVALID = 30,
  SH_DICT_NOT_FOUND = 31,
  SH_DICT_EXISTS = 32,
  SH_KEY_NOT_FOUND = 33,
  SH_CONFLICT = 34,
  SH_FENCED = 35,
  SH_PATH_NOT_FOUND = 36,
  SH_TYPE_MISMATCH = 37,
  SH_KEY_INVALID = 38,
  SH_VALUE_INVALID = 39,
  SH_DICT_MOVED = 40,
  SH_LOCK_LOST = 41,
  SH_SESSION_NOT_FOUND = 42
} sh_reason;

/* "OUT_OF_BOUNDS" for SH_OUT_OF_BOUNDS, and so on; never NULL. */
SH_API const char *sh_reason_name(sh_reason reason);

/* What went wrong. Immutable; freed by sh_error_free. */
typedef struct sh_error sh_error;
SH_API sh_reason sh_error_reason(const sh_error *error);
/* What was tried, on what, and what to do. Valid until sh_error_free; never NULL. */
SH_API const char *sh_error_message(const sh_error *error);
/* The object's name, or "" where the call names none. */
SH_API const char *sh_error_name(const sh_error *error);
/* 1 where the same call may succeed later without a change, else 0. */
SH_API int sh_error_retryable(const sh_error *error);
/* When it may, in milliseconds, where the service says so (SH_RATE_LIMITED), else 0. */
SH_API uint32_t sh_error_retry_after_ms(const sh_error *error);
/* NULL is allowed. */
SH_API void sh_error_free(sh_error *error);

/* The type of a word. */
typedef enum sh_word_type {
  SH_U8 = 1,
  SH_U16 = 2,
  SH_U32 = 3,
  SH_U64 = 4,
  SH_I8 = 5,
  SH_I16 = 6,
  SH_I32 = 7,
  SH_I64 = 8
} sh_word_type;

typedef enum sh_bitwise_operator { SH_AND = 1, SH_OR = 2, SH_XOR = 3 } sh_bitwise_operator;

typedef enum sh_transport {
  SH_TRANSPORT_AUTO = 0, /* The fastest that is there. */
  SH_TRANSPORT_LOCAL = 1,
  SH_TRANSPORT_NETWORK = 2,
  /* Of this host, without mapped memory: small calls over the service's local socket, several times
   * faster than over gRPC; what is larger, waits or streams goes by gRPC over its other socket.
   * AUTO takes it where this process gets no lanes of the service's memory. */
  SH_TRANSPORT_SOCKET = 3
} sh_transport;

/* A client: one attachment, or one channel. */
typedef struct sh_client sh_client;
/* One area, opened by a client. */
typedef struct sh_area sh_area;

/* How to connect. Zero-initialise it (`sh_options options = {0};`); zero and NULL mean "default".
 */
typedef struct sh_options {
  const char *token; /* Access token. Default: STATEHOUSE_TOKEN, then the file STATEHOUSE_TOKEN_FILE
                        names. */
  const char *token_file;  /* A file that holds it. */
  const char *client_name; /* Shown to operators. */
  uint64_t
      timeout_ms; /* Of each call, and of waiting for a service that is away. Default: 5,000. */
  sh_transport transport; /* Default: SH_TRANSPORT_AUTO. */
} sh_options;

/* Connects. `url` is "statehouse+unix://<runtime dir>", "statehouse://host[:port]" or, with TLS,
 * "statehouse+tls://host[:port]", with "?transport=local|socket|network&timeout=2s" if wanted, and
 * for TLS "ca_file=<PEM of who signed the service's certificate>" (else STATEHOUSE_TLS_CA_FILE,
 * else the system's authorities), "certificate_file=" and "key_file=" of the client's own (else
 * STATEHOUSE_TLS_CERTIFICATE_FILE and STATEHOUSE_TLS_KEY_FILE); NULL: STATEHOUSE_URL, else this
 * user's default runtime dir, else 127.0.0.1:7700. `options` may be NULL. The local door attaches
 * now, waiting for the service until the timeout; the network door connects at its first call.
 * Errors: SH_INVALID_ARGUMENT, SH_UNAVAILABLE, SH_UNAUTHENTICATED, SH_TOKEN_EXPIRED,
 * SH_RATE_LIMITED, SH_PERMISSION_DENIED, SH_LANES_EXHAUSTED, SH_VERSION_MISMATCH. */
SH_API sh_reason sh_connect(const char *url, const sh_options *options, sh_client **client,
                            sh_error **error);
/* Ends the attachment and frees the client; NULL is allowed. Its areas then answer SH_CLIENT_CLOSED
 * and are still to be closed. */
SH_API void sh_close(sh_client *client);
/* SH_TRANSPORT_LOCAL, SH_TRANSPORT_NETWORK or SH_TRANSPORT_SOCKET: the door in use. */
SH_API sh_transport sh_transport_of(const sh_client *client);

/* What holds an area's bytes. */
typedef enum sh_backing {
  SH_BACKING_MEMORY = 1,
  SH_BACKING_FILE = 2,
  SH_BACKING_DESCRIPTOR = 3
} sh_backing;

/* What the service knows of an area. */
typedef struct sh_area_info {
  char name[256];
  uint32_t index; /* In order of creation, never used again; "#<index>" names the area, too. */
  uint32_t attached_processes;
  uint64_t size;
  uint64_t updates;
  uint64_t atomic_range_bytes; /* Ranges up to this length are read and written atomically. */
  uint64_t memory_bytes;
  uint64_t offset;
  int64_t create_time_ns; /* Unix time. */
  sh_backing backing;
} sh_area_info;

/* How to create an area. Zero-initialise it. */
typedef struct sh_area_spec {
  uint64_t size;    /* Bytes; or */
  uint64_t pages;   /* pages of 4,096 bytes. */
  const char *file; /* A file of the service's host that holds the bytes; NULL: memory. */
  uint64_t offset;  /* Where the area begins in the file; a multiple of 4,096. */
  int exclusive;    /* 1: refuse when the name exists. 0: get or create. */
} sh_area_spec;

/* Creates an area or finds the one that agrees with `spec`. `info` and `created` (1 or 0) may be
 * NULL. Errors: SH_NAME_INVALID, SH_SIZE_INVALID, SH_AREA_EXISTS, SH_BACKING_INVALID,
 * SH_LIMIT_EXCEEDED, SH_MEMORY_EXHAUSTED, SH_PERMISSION_DENIED. */
SH_API sh_reason sh_area_create(sh_client *client, const char *name, const sh_area_spec *spec,
                                sh_area_info *info, int *created, sh_error **error);
/* Errors: SH_AREA_NOT_FOUND, SH_PERMISSION_DENIED. */
SH_API sh_reason sh_area_describe(sh_client *client, const char *name, sh_area_info *info,
                                  sh_error **error);
/* Processes that map the area get SH_AREA_NOT_FOUND at their next operation. Errors:
 * SH_AREA_NOT_FOUND, SH_PERMISSION_DENIED. */
SH_API sh_reason sh_area_delete(sh_client *client, const char *name, sh_error **error);
/* Every readable area whose name begins with `prefix` (NULL: all), in order of creation. Free with
 * sh_area_list_free. */
SH_API sh_reason sh_area_list(sh_client *client, const char *prefix, sh_area_info **infos,
                              size_t *count, sh_error **error);
SH_API void sh_area_list_free(sh_area_info *infos);

/* Opens an area. With size > 0 it is created when it does not exist; with 0 it must exist. A name
 * that was deleted and created again opens the new one. Errors: as sh_area_create,
 * SH_AREA_NOT_FOUND. */
SH_API sh_reason sh_area_open(sh_client *client, const char *name, uint64_t size, sh_area **area,
                              sh_error **error);
/* NULL is allowed. Pointers from sh_area_data end with it. */
SH_API void sh_area_close(sh_area *area);
SH_API const char *sh_area_name(const sh_area *area);
SH_API uint64_t sh_area_size(const sh_area *area);

/* Words. A number travels as its 64-bit two's complement: a negative number of an I type is
 * (uint64_t)number, and (int64_t)bits gives it back. Any alignment. Each operation is atomic and
 * linearizable, over both doors. Errors of all: SH_AREA_NOT_FOUND, SH_OUT_OF_BOUNDS,
 * SH_WIDTH_INVALID (type), SH_PERMISSION_DENIED; of those that write also SH_READ_ONLY,
 * SH_VALUE_OUT_OF_RANGE (the number does not fit the type), SH_STALLED. Over the network a write
 * that ends with SH_TIMEOUT or SH_UNAVAILABLE may have happened; it is never sent twice. */
SH_API sh_reason sh_load(sh_area *area, sh_word_type type, uint64_t pos, uint64_t *value,
                         sh_error **error);
SH_API sh_reason sh_store(sh_area *area, sh_word_type type, uint64_t pos, uint64_t value,
                          sh_error **error);
/* Adds modulo the word's width; any `delta` is allowed. *value (may be NULL) is the new number. */
SH_API sh_reason sh_add(sh_area *area, sh_word_type type, uint64_t pos, int64_t delta,
                        uint64_t *value, sh_error **error);
/* Writes `desired` if the word equals `expected`. *exchanged is 1 then, else 0; *found (may be
 * NULL) is the number before. */
SH_API sh_reason sh_compare_exchange(sh_area *area, sh_word_type type, uint64_t pos,
                                     uint64_t expected, uint64_t desired, int *exchanged,
                                     uint64_t *found, sh_error **error);
/* *value (may be NULL) is the new number. */
SH_API sh_reason sh_bitwise(sh_area *area, sh_bitwise_operator op, sh_word_type type, uint64_t pos,
                            uint64_t operand, uint64_t *value, sh_error **error);

/* Ranges. Atomic up to the area's atomic_range_bytes (64 KiB by default); longer ones are carried
 * out in pieces of that size, and one that fails half way (SH_STALLED, SH_TIMEOUT) leaves its first
 * pieces done. Over the network a range of more than 1 MiB takes several calls. Errors: as words.
 */
SH_API sh_reason sh_read(sh_area *area, uint64_t pos, void *buffer, uint64_t len, sh_error **error);
SH_API sh_reason sh_write(sh_area *area, uint64_t pos, const void *bytes, uint64_t len,
                          sh_error **error);
SH_API sh_reason sh_fill(sh_area *area, uint64_t pos, uint64_t len, uint8_t value,
                         sh_error **error);

/* The same writes with a fencing token, as of a lock's grant (sh_lock_token): refused with
 * SH_FENCED where a higher one wrote to a stripe of the area that the call touches, else the token
 * is kept there as the highest. A stripe is 4 KiB, or more where the area has more than 1,024 of
 * them. Of a range in several pieces those before the refused one are written; a compare_exchange
 * that does not exchange is refused as well but keeps no token. `fence` 0: none, as without.
 * Writes without a fence are refused by no fence. */
SH_API sh_reason sh_store_fenced(sh_area *area, sh_word_type type, uint64_t pos, uint64_t value,
                                 uint64_t fence, sh_error **error);
SH_API sh_reason sh_add_fenced(sh_area *area, sh_word_type type, uint64_t pos, int64_t delta,
                               uint64_t fence, uint64_t *value, sh_error **error);
SH_API sh_reason sh_compare_exchange_fenced(sh_area *area, sh_word_type type, uint64_t pos,
                                            uint64_t expected, uint64_t desired, uint64_t fence,
                                            int *exchanged, uint64_t *found, sh_error **error);
SH_API sh_reason sh_bitwise_fenced(sh_area *area, sh_bitwise_operator op, sh_word_type type,
                                   uint64_t pos, uint64_t operand, uint64_t fence, uint64_t *value,
                                   sh_error **error);
SH_API sh_reason sh_write_fenced(sh_area *area, uint64_t pos, const void *bytes, uint64_t len,
                                 uint64_t fence, sh_error **error);
SH_API sh_reason sh_fill_fenced(sh_area *area, uint64_t pos, uint64_t len, uint8_t value,
                                uint64_t fence, sh_error **error);

#define SH_FOREVER UINT64_MAX

/* The update counter: grows by at least one with every completed mutation of the area. */
SH_API sh_reason sh_updates(sh_area *area, uint64_t *updates, sh_error **error);
/* Waits until the update counter differs from `since` or `timeout_ms` has passed (SH_FOREVER: no
 * limit; 0: only looks). A time-out is no error: *changed is then 0. *updates (may be NULL) is the
 * counter now. Errors: SH_AREA_NOT_FOUND (also when deleted meanwhile), SH_UNAVAILABLE,
 * SH_DRAINING. */
SH_API sh_reason sh_wait(sh_area *area, uint64_t since, uint64_t timeout_ms, int *changed,
                         uint64_t *updates, sh_error **error);
/* The bytes themselves, unlocked: stores through it are not counted, wake nobody and may be seen
 * half done. Valid until sh_area_close. Local door only; SH_UNIMPLEMENTED over the network,
 * SH_READ_ONLY when `writable` is 1 and the area is not. */
SH_API sh_reason sh_area_data(sh_area *area, int writable, void **data, sh_error **error);

/* What a service tells of itself. */
typedef struct sh_status {
  char version[32];
  int draining;
  uint32_t areas;
  uint64_t generation; /* Daemons that this state has lived through; 1 for the first. */
  uint32_t daemon_pid;
  uint32_t attached_processes;
  uint64_t memory_bytes;
  uint64_t memory_limit_bytes; /* 0: none. */
  uint64_t recoveries;         /* Dead workers whose lanes were recovered. */
  int64_t start_time_ns;       /* Unix time. */
  uint32_t locks_held;         /* Grants of locks; at most a second old. */
  uint32_t lock_waiters;       /* Requests that wait for a lock; at most a second old. */
  uint32_t sessions;           /* That are open. */
} sh_status;
SH_API sh_reason sh_get_status(sh_client *client, sh_status *status, sh_error **error);

/* One unary call of any service by its method's path ("/statehouse.v1.Dicts/ScanEntries"), over
 * whichever door the client uses. `request` is the encoded request message of proto/statehouse/v1,
 * *response the encoded response, to be freed with sh_call_free. With `idempotent` not 0 the call
 * is sent again where the connection broke. Errors: those of the method, SH_UNIMPLEMENTED for one
 * that the service does not know, and those of every call. */
SH_API sh_reason sh_call(sh_client *client, const char *method, const void *request,
                         size_t request_bytes, int idempotent, void **response,
                         size_t *response_bytes, sh_error **error);
SH_API void sh_call_free(void *response);

/* One streaming call by its method's path ("/statehouse.v1.Dicts/WatchDict"), in the manner of
 * sh_call. It always goes over the network door, also where the client uses the local one, and
 * waits for the service as long as that takes. Errors: SH_INVALID_ARGUMENT, SH_CLIENT_CLOSED,
 * SH_CLIENT_FORKED. */
typedef struct sh_stream sh_stream;
SH_API sh_reason sh_stream_open(sh_client *client, const char *method, const void *request,
                                size_t request_bytes, sh_stream **stream, sh_error **error);
/* Waits for the next encoded response, to be freed with sh_call_free. At the end of the stream
 * *response is NULL: with SH_OK it was whole, else the error says why it ended. One thread at a
 * time. */
SH_API sh_reason sh_stream_next(sh_stream *stream, void **response, size_t *response_bytes,
                                sh_error **error);
/* Ends the stream with SH_CANCELLED, from any thread while it is open. */
SH_API void sh_stream_cancel(sh_stream *stream);
/* Ends the stream and frees it; nobody is in sh_stream_next. NULL is allowed. */
SH_API void sh_stream_close(sh_stream *stream);

#ifdef __cplusplus
}
#endif

#include "statehouse/dict.h"
#include "statehouse/lock.h"

#endif /* STATEHOUSE_STATEHOUSE_H_ */
