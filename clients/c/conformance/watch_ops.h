/* The operations on watches of the C client's conformance program. */
#ifndef STATEHOUSE_CLIENTS_C_CONFORMANCE_WATCH_OPS_H_
#define STATEHOUSE_CLIENTS_C_CONFORMANCE_WATCH_OPS_H_

#include "flat_json.h"
#include "statehouse/statehouse.h"

/* Carries a line out and prints its answer, errors too. 0 where the operation is none of these.
 * There is one watch at a time; what is wrong with one is told by next_event. `client` is the
 * program's own, NULL when there is none. */
int do_watches(sh_client *client, const char *op, const char *name, const flat_json *in);
/* Ends the watch, if there is one. */
void close_watch(void);

#endif /* STATEHOUSE_CLIENTS_C_CONFORMANCE_WATCH_OPS_H_ */
