/* The operations on dicts of the C client's conformance program. */
#ifndef STATEHOUSE_CLIENTS_C_CONFORMANCE_DICT_OPS_H_
#define STATEHOUSE_CLIENTS_C_CONFORMANCE_DICT_OPS_H_

#include "flat_json.h"
#include "statehouse/statehouse.h"

/* Carries out an operation on dicts and prints its result unless it is refused. *known is 0 for an
 * operation that is none of these; nothing happened then. */
sh_reason do_dicts(sh_client *client, const char *op, const char *name, const flat_json *in,
                   int *known, sh_error **error);
/* Closes the dicts that were opened. */
void close_dicts(void);

#endif /* STATEHOUSE_CLIENTS_C_CONFORMANCE_DICT_OPS_H_ */
