/* The answers of the C client's conformance program, as the JSON that tests/conformance/README.md
 * describes. */
#ifndef STATEHOUSE_CLIENTS_C_CONFORMANCE_ANSWERS_H_
#define STATEHOUSE_CLIENTS_C_CONFORMANCE_ANSWERS_H_

#include "statehouse/statehouse.h"

/* Parts of a line. */
void print_string(sh_bytes text);
void print_json(sh_bytes value); /* A message Value. */
void print_hex(sh_bytes bytes);  /* In quotes. */

/* Whole lines. */
void print_done(void);                                       /* The value null. */
void print_refused(sh_reason reason, const sh_error *error); /* `error` may be NULL. */
sh_reason inexpressible(void);                               /* SH_OK. */

#endif /* STATEHOUSE_CLIENTS_C_CONFORMANCE_ANSWERS_H_ */
