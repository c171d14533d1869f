/* Batches in the C client's conformance program. */
#ifndef STATEHOUSE_CLIENTS_C_CONFORMANCE_BATCH_OPS_H_
#define STATEHOUSE_CLIENTS_C_CONFORMANCE_BATCH_OPS_H_

#include "flat_json.h"
#include "statehouse/statehouse.h"

/* Carries the steps of one batch out and prints what each gave, unless one is refused at noting.
 * *known is 0 where `op` is no batch; nothing happened then. */
sh_reason do_batch(sh_client *client, const char *op, const flat_json *in, int *known,
                   sh_error **error);

#endif /* STATEHOUSE_CLIENTS_C_CONFORMANCE_BATCH_OPS_H_ */
