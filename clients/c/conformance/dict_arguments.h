/* What the operations on dicts of the C client's conformance program are given: members of a flat
 * object as arguments of the library. An argument that cannot be made is remembered, and the
 * operation is not carried out. */
#ifndef STATEHOUSE_CLIENTS_C_CONFORMANCE_DICT_ARGUMENTS_H_
#define STATEHOUSE_CLIENTS_C_CONFORMANCE_DICT_ARGUMENTS_H_

#include <stddef.h>
#include <stdint.h>

#include "flat_json.h"
#include "statehouse/statehouse.h"

#define ARGUMENTS_MAX 64   /* Values, keys or steps of one operation. */
#define NAME_BYTES_MAX 128 /* A member's name. */

/* Ends the program: the case itself is wrong. */
void give_up(const char *what);

/* Whether every argument so far could be made; else broken_reason() says why not, or SH_OK where
 * the types of the interface cannot hold one. */
int is_ready(void);
sh_reason broken_reason(void);
/* Frees what the arguments of one operation took; *error, where it is NULL, becomes what is wrong
 * with one. `error` may be NULL. */
void forget_arguments(sh_error **error);

/* Members by names that are put together; `prefix` stands before each name. */
const flat_json_member *member_of(const flat_json *in, const char *format, ...);
const char *text_of(const flat_json *in, const char *prefix, const char *name);
uint64_t number_of(const flat_json *in, const char *prefix, const char *name);

sh_bytes bytes_of_hex(const char *hex);
/* A value: JSON text, or as the member with "_wire" behind its name its bytes as digits. */
sh_bytes value_of(const flat_json *in, const char *prefix, const char *name);
/* A number that is added. 0 where there is none. */
int take_number(const flat_json *in, const char *prefix, const char *name, sh_number *number);
/* How many steps there are. */
size_t take_path(const flat_json *in, sh_path_step *steps);
sh_condition condition_of(const flat_json *in, const char *prefix);
uint64_t ttl_of(const flat_json *in, const char *prefix);
sh_write_options write_options_of(const flat_json *in, const char *prefix);

/* The numbers that sh_increment_options points to. */
typedef struct increment_numbers {
  sh_number initial;
  sh_number min;
  sh_number max;
} increment_numbers;

sh_increment_options increment_of(const flat_json *in, const char *prefix,
                                  increment_numbers *numbers);

/* The steps of one list of a transaction, with what they point to. */
typedef struct step_list {
  sh_step steps[ARGUMENTS_MAX];
  sh_write_options options[ARGUMENTS_MAX];
  sh_increment_options increments[ARGUMENTS_MAX];
  increment_numbers numbers[ARGUMENTS_MAX];
  size_t count;
} step_list;

void take_steps(const flat_json *in, const char *list, step_list *out);

#endif /* STATEHOUSE_CLIENTS_C_CONFORMANCE_DICT_ARGUMENTS_H_ */
