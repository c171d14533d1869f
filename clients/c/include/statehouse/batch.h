/* Batches: the part of the C interface that notes operations on dicts, areas and locks one by one
 * and carries them out together, in their order. statehouse.h does not include it. Over the network
 * door they are one message in place of a call for each; through the local door they are carried
 * out one after another in memory that this process maps.
 *
 *   sh_batch *batch = NULL;
 *   size_t hits = 0;
 *   sh_number sum;
 *   if (sh_batch_begin(client, NULL, &batch, &error) == SH_OK &&
 *       sh_batch_dict_increment(batch, dict, sh_text("hits"), sh_int(1), NULL, &hits, &error) ==
 *           SH_OK &&
 *       sh_batch_dict_set(batch, dict, sh_text("last"), value, NULL, 0, NULL, &error) == SH_OK &&
 *       sh_batch_run(batch, NULL, &error) == SH_OK) {
 *     sh_batch_result_number(batch, hits, &sum, NULL, &error);
 *   }
 *   sh_batch_end(batch);
 *
 * It is no transaction: others may come between two operations (sh_dict_transact is one). Each is
 * carried out, refused and counted as its own call would be; one that is refused changes nothing
 * and leaves the others alone, unless the batch stops at a failure.
 *
 * Noting. What is wrong with an argument is refused at once, and then nothing is noted. Arguments
 * are copied; the dicts and areas were opened by the batch's client and may be closed before the
 * batch is run. *index (may be NULL) is the operation's place, from 0, by which its result is asked
 * for. After sh_batch_run the next noting begins anew with 0, and the results before are gone.
 * There are no bound entries here, no waiting, and no more than 1,024 entries or 1 MiB of an area
 * in one operation. Errors of noting: those of the call of its own that arguments can cause, and
 * SH_LIMIT_EXCEEDED: SH_BATCH_OPERATIONS_MAX or SH_BATCH_BYTES_MAX.
 *
 * Sent again. Over the network a batch whose answer was lost is sent again, and counts once, where
 * it only reads and takes or gives back locks, or where it has at most 64 operations and none that
 * changes an area, clears or deletes a prefix. Others are not: SH_UNAVAILABLE and SH_TIMEOUT say
 * that they may have been carried out. More than 4,096 operations, or nearly 16 MiB, go as several
 * messages, in order, each with the client's timeout; where one fails as a whole the rest is not
 * sent (SH_CANCELLED).
 *
 * Threads: one at a time for a batch; a client has any number of batches. fork(): as for the
 * client. sh_close needs every sh_batch_run of the client's batches to have returned. A batch that
 * is run after it is refused with SH_CLIENT_CLOSED, and may still be asked for results and ended.
 */
#ifndef STATEHOUSE_BATCH_H_
#define STATEHOUSE_BATCH_H_

#include "statehouse/dict.h"
#include "statehouse/lock.h"
#include "statehouse/statehouse.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of one batch between two runs: operations, and bytes of their requests. */
#define SH_BATCH_OPERATIONS_MAX 65536
#define SH_BATCH_BYTES_MAX 67108864
/* Of an area, that one operation reads or writes. */
#define SH_BATCH_RANGE_BYTES_MAX 1048576

/* How a batch is carried out. Zero-initialise it. */
typedef struct sh_batch_options {
  int stop_at_failure; /* 1: what comes after the first operation that is refused is not carried
                          out, and has SH_CANCELLED. */
} sh_batch_options;

/* Operations, and what they gave. */
typedef struct sh_batch sh_batch;

/* Begins a batch. `options` may be NULL. Makes no call. */
SH_API sh_reason sh_batch_begin(sh_client *client, const sh_batch_options *options,
                                sh_batch **batch, sh_error **error);
/* How many operations are noted, or were run last; 0 for NULL. */
SH_API size_t sh_batch_count(const sh_batch *batch);
/* Carries out what was noted. SH_OK where every operation was carried out; else why the first that
 * was not was refused, *failed (may be NULL) being its index. The others have their results all the
 * same. What is run already is not run again: SH_INVALID_ARGUMENT. Nothing noted is SH_OK. */
SH_API sh_reason sh_batch_run(sh_batch *batch, size_t *failed, sh_error **error);
/* Forgets what was noted, and results. Locks that were to be given back, or were had and not
 * asked for, are given back by calls. NULL is allowed. */
SH_API void sh_batch_clear(sh_batch *batch);
/* As sh_batch_clear, and frees the batch: no pointer of a result is valid any more. NULL is
 * allowed. */
SH_API void sh_batch_end(sh_batch *batch);

/* Dicts. As the calls of their names in dict.h; `options` may be NULL, with `bound` 0. */

/* A whole value. Of its sh_entry only found, value and version are set: */
SH_API sh_reason sh_batch_dict_get(sh_batch *batch, sh_dict *dict, sh_bytes key, size_t *index,
                                   sh_error **error);
/* an entry, or the part of its value at `path`, with all that is known of it. */
SH_API sh_reason sh_batch_dict_get_entry(sh_batch *batch, sh_dict *dict, sh_bytes key,
                                         const sh_path_step *path, size_t steps, size_t *index,
                                         sh_error **error);
/* With `previous` not 0 the result has also the entry as it was before. */
SH_API sh_reason sh_batch_dict_set(sh_batch *batch, sh_dict *dict, sh_bytes key, sh_bytes value,
                                   const sh_write_options *options, int previous, size_t *index,
                                   sh_error **error);
SH_API sh_reason sh_batch_dict_delete(sh_batch *batch, sh_dict *dict, sh_bytes key,
                                      const sh_write_options *options, int previous, size_t *index,
                                      sh_error **error);
SH_API sh_reason sh_batch_dict_touch(sh_batch *batch, sh_dict *dict, sh_bytes key, uint64_t ttl_ms,
                                     size_t *index, sh_error **error);
SH_API sh_reason sh_batch_dict_increment(sh_batch *batch, sh_dict *dict, sh_bytes key,
                                         sh_number delta, const sh_increment_options *options,
                                         size_t *index, sh_error **error);
SH_API sh_reason sh_batch_dict_edit(sh_batch *batch, sh_dict *dict, sh_bytes key,
                                    const sh_edit *edit, size_t *index, sh_error **error);
SH_API sh_reason sh_batch_dict_get_many(sh_batch *batch, sh_dict *dict, const sh_bytes *keys,
                                        size_t count, int consistent, size_t *index,
                                        sh_error **error);
SH_API sh_reason sh_batch_dict_set_many(sh_batch *batch, sh_dict *dict, const sh_bytes *keys,
                                        const sh_bytes *values, size_t count,
                                        const sh_write_options *options, size_t *index,
                                        sh_error **error);
SH_API sh_reason sh_batch_dict_length(sh_batch *batch, sh_dict *dict, size_t *index,
                                      sh_error **error);
SH_API sh_reason sh_batch_dict_clear(sh_batch *batch, sh_dict *dict, size_t *index,
                                     sh_error **error);
SH_API sh_reason sh_batch_dict_delete_prefix(sh_batch *batch, sh_dict *dict, sh_bytes prefix,
                                             size_t *index, sh_error **error);

/* Areas. As the calls of their names in statehouse.h; `fence` 0: none. */

SH_API sh_reason sh_batch_area_load(sh_batch *batch, sh_area *area, sh_word_type type, uint64_t pos,
                                    size_t *index, sh_error **error);
SH_API sh_reason sh_batch_area_store(sh_batch *batch, sh_area *area, sh_word_type type,
                                     uint64_t pos, uint64_t value, uint64_t fence, size_t *index,
                                     sh_error **error);
SH_API sh_reason sh_batch_area_add(sh_batch *batch, sh_area *area, sh_word_type type, uint64_t pos,
                                   int64_t delta, uint64_t fence, size_t *index, sh_error **error);
SH_API sh_reason sh_batch_area_compare_exchange(sh_batch *batch, sh_area *area, sh_word_type type,
                                                uint64_t pos, uint64_t expected, uint64_t desired,
                                                uint64_t fence, size_t *index, sh_error **error);
SH_API sh_reason sh_batch_area_bitwise(sh_batch *batch, sh_area *area, sh_bitwise_operator op,
                                       sh_word_type type, uint64_t pos, uint64_t operand,
                                       uint64_t fence, size_t *index, sh_error **error);
/* Ranges of at most SH_BATCH_RANGE_BYTES_MAX bytes; longer ones are SH_LIMIT_EXCEEDED. */
SH_API sh_reason sh_batch_area_read(sh_batch *batch, sh_area *area, uint64_t pos, uint64_t len,
                                    size_t *index, sh_error **error);
SH_API sh_reason sh_batch_area_write(sh_batch *batch, sh_area *area, uint64_t pos,
                                     const void *bytes, uint64_t len, uint64_t fence, size_t *index,
                                     sh_error **error);
SH_API sh_reason sh_batch_area_fill(sh_batch *batch, sh_area *area, uint64_t pos, uint64_t len,
                                    uint8_t value, uint64_t fence, size_t *index, sh_error **error);

/* Locks. */

/* Tries to take a lock. `options` (may be NULL) as for sh_lock_acquire; it never waits, whatever
 * try_only and timeout_ms say. Over the network a client's first lock opens its session when the
 * batch is run, by calls of its own. */
SH_API sh_reason sh_batch_lock_try(sh_batch *batch, const char *name,
                                   const sh_lock_options *options, size_t *index, sh_error **error);
/* Gives a lock back. When this is SH_OK the handle belongs to the batch and must not be used any
 * more. Where the operation is not carried out sh_batch_result_lock gives it again. The lock of an
 * area's range (sh_area_lock) is SH_INVALID_ARGUMENT: it is several. */
SH_API sh_reason sh_batch_lock_release(sh_batch *batch, sh_lock *lock, size_t *index,
                                       sh_error **error);

/* Results, by index, after sh_batch_run; also after one that failed. Each gives SH_OK, or why the
 * operation was refused. SH_INVALID_ARGUMENT: the batch was not run since the operation was noted,
 * it has no such operation, or the operation has no such result. What they point to is valid until
 * something is noted, or the batch is run, cleared or ended. Result pointers may be NULL. */

/* Of every operation. */
SH_API sh_reason sh_batch_result(const sh_batch *batch, size_t index, sh_error **error);
/* Of get and get_entry; of edit (what it gives back); of set and delete with `previous`. */
SH_API sh_reason sh_batch_result_entry(const sh_batch *batch, size_t index, const sh_entry **entry,
                                       sh_error **error);
/* Of get_many. */
SH_API sh_reason sh_batch_result_entries(const sh_batch *batch, size_t index,
                                         const sh_entries **entries, sh_error **error);
/* Of set, delete and touch. */
SH_API sh_reason sh_batch_result_outcome(const sh_batch *batch, size_t index, sh_outcome *outcome,
                                         sh_error **error);
/* Of increment: the new number and the entry's version. */
SH_API sh_reason sh_batch_result_number(const sh_batch *batch, size_t index, sh_number *sum,
                                        uint64_t *version, sh_error **error);
/* Of edit (the length that it gives), length, clear and delete_prefix. */
SH_API sh_reason sh_batch_result_count(const sh_batch *batch, size_t index, uint64_t *count,
                                       sh_error **error);
/* Of set_many: the entries' versions, as many as there were keys. */
SH_API sh_reason sh_batch_result_versions(const sh_batch *batch, size_t index,
                                          const uint64_t **versions, size_t *count,
                                          sh_error **error);
/* Of load, add and bitwise: a number as its 64-bit two's complement. */
SH_API sh_reason sh_batch_result_word(const sh_batch *batch, size_t index, uint64_t *value,
                                      sh_error **error);
/* Of compare_exchange. */
SH_API sh_reason sh_batch_result_exchange(const sh_batch *batch, size_t index, int *exchanged,
                                          uint64_t *found, sh_error **error);
/* Of read. */
SH_API sh_reason sh_batch_result_bytes(const sh_batch *batch, size_t index, sh_bytes *bytes,
                                       sh_error **error);
/* Of lock_try: the lock, NULL where it was not had, which is no error; it is the caller's from then
 * on, and given once. Of lock_release that was refused: the lock that it did not give back, and
 * SH_OK. REQUIRES: `lock` is not NULL. */
SH_API sh_reason sh_batch_result_lock(sh_batch *batch, size_t index, sh_lock **lock,
                                      sh_error **error);
/* Of lock_release: 1 where it was held until now, as of sh_lock_release. */
SH_API sh_reason sh_batch_result_released(const sh_batch *batch, size_t index, int *held,
                                          sh_error **error);

#ifdef __cplusplus
}
#endif

#endif /* STATEHOUSE_BATCH_H_ */
