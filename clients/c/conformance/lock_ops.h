/* The operations on locks of the C client's conformance program. */
#ifndef STATEHOUSE_CLIENTS_C_CONFORMANCE_LOCK_OPS_H_
#define STATEHOUSE_CLIENTS_C_CONFORMANCE_LOCK_OPS_H_

#include "flat_json.h"
#include "statehouse/statehouse.h"

/* Carries a line out and prints its answer. *known is 0 where the operation is none of these; the
 * program prints the errors. `client` is the program's own, NULL when there is none; `options` are
 * those of the clients that it opens. */
sh_reason do_locks(sh_client *client, const sh_options *options, const char *op,
                   const flat_json *in, int *known, sh_error **error);
/* Gives every lock back, in the order in which they were asked for, and closes the other
 * clients. */
void let_locks_go(void);

#endif /* STATEHOUSE_CLIENTS_C_CONFORMANCE_LOCK_OPS_H_ */
