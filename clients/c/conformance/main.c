/* The conformance program of the C client: operations as JSON lines on stdin, results on stdout.
 * tests/conformance/README.md describes them. Usage: conformance_c local|network; the service is
 * named by STATEHOUSE_URL and STATEHOUSE_TOKEN. */
#define _POSIX_C_SOURCE 200809L /* setenv */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "batch_ops.h"
#include "dict_ops.h"
#include "flat_json.h"
#include "lock_ops.h"
#include "statehouse/statehouse.h"
#include "watch_ops.h"

#define AREAS_MAX 1024 /* Handles that one run may open; they stay open until it ends. */
#define LINE_BYTES_MAX (1 << 20)
#define TOKEN_BYTES_MAX 1024

static sh_client *client; /* NULL between a connect that failed and the next one. */
static sh_options options;
static char first_token[TOKEN_BYTES_MAX]; /* STATEHOUSE_TOKEN at the start. */
static sh_area *areas[AREAS_MAX];
static size_t area_count;

/* The open area of that name, or NULL. */
static sh_area *find_area(const char *name) {
  size_t i;
  for (i = area_count; i > 0; --i) {
    if (strcmp(sh_area_name(areas[i - 1]), name) == 0) return areas[i - 1];
  }
  return NULL;
}

static sh_word_type word_type_of(const char *text) {
  static const char *const kNames[] = {"u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"};
  int i;
  for (i = 0; i < 8; ++i) {
    if (strcmp(text, kNames[i]) == 0) return (sh_word_type)(i + 1);
  }
  return (sh_word_type)99;
}

static void print_number(sh_word_type type, const char *before, uint64_t value, const char *after) {
  if (type >= SH_I8) {
    printf("%s%" PRId64 "%s\n", before, (int64_t)value, after);
  } else {
    printf("%s%" PRIu64 "%s\n", before, value, after);
  }
}

static void close_all(void) {
  while (area_count > 0) sh_area_close(areas[--area_count]);
  close_dicts();
  let_locks_go();
  close_watch();
}

/* A new client in place of the one before, and its first call, so that each door tells what is
 * wrong. "token": "" means none; without the member it is the first one. */
static sh_reason do_connect(const flat_json *in, sh_error **error) {
  const char *token = flat_json_text(in, "token", first_token);
  sh_status status;
  sh_reason reason;
  close_all();
  sh_close(client);
  client = NULL;
  if (*token == '\0' ? unsetenv("STATEHOUSE_TOKEN") : setenv("STATEHOUSE_TOKEN", token, 1)) {
    fprintf(stderr, "conformance: the environment cannot be changed\n");
    exit(3);
  }
  options.timeout_ms = flat_json_number(in, "timeout_ms", 0);
  reason = sh_connect(flat_json_text(in, "url", NULL), &options, &client, error);
  if (reason == SH_OK) reason = sh_get_status(client, &status, error);
  if (reason == SH_OK) print_done();
  return reason;
}

static sh_reason do_words(const char *op, sh_area *area, const flat_json *in, sh_error **error) {
  const sh_word_type type = word_type_of(flat_json_text(in, "type", ""));
  const uint64_t pos = flat_json_number(in, "pos", 0);
  const uint64_t fence = flat_json_number(in, "fence", 0);
  uint64_t value = 0;
  sh_reason reason = SH_UNIMPLEMENTED;
  if (strcmp(op, "load") == 0) {
    reason = sh_load(area, type, pos, &value, error);
  } else if (strcmp(op, "add") == 0) {
    reason = sh_add_fenced(area, type, pos, (int64_t)flat_json_number(in, "delta", 1), fence,
                           &value, error);
  } else if (strcmp(op, "bitwise") == 0) {
    const char *name = flat_json_text(in, "operator", "");
    const sh_bitwise_operator bitwise = strcmp(name, "and") == 0  ? SH_AND
                                        : strcmp(name, "or") == 0 ? SH_OR
                                                                  : SH_XOR;
    reason = sh_bitwise_fenced(area, bitwise, type, pos, flat_json_number(in, "operand", 0), fence,
                               &value, error);
  } else if (strcmp(op, "store") == 0) {
    reason = sh_store_fenced(area, type, pos, flat_json_number(in, "value", 0), fence, error);
    if (reason == SH_OK) print_done();
    return reason;
  } else if (strcmp(op, "compare_exchange") == 0) {
    int exchanged = 0;
    reason = sh_compare_exchange_fenced(area, type, pos, flat_json_number(in, "expected", 0),
                                        flat_json_number(in, "desired", 0), fence, &exchanged,
                                        &value, error);
    if (reason == SH_OK) {
      printf("{\"ok\": {\"exchanged\": %s, ", exchanged ? "true" : "false");
      print_number(type, "\"found\": ", value, "}}");
    }
    return reason;
  }
  if (reason == SH_OK) print_number(type, "{\"ok\": ", value, "}");
  return reason;
}

static sh_reason do_read(sh_area *area, const flat_json *in, sh_error **error) {
  const uint64_t pos = flat_json_number(in, "pos", 0);
  const uint64_t size = sh_area_size(area);
  const uint64_t len = flat_json_number(in, "len", pos <= size ? size - pos : 0);
  unsigned char *bytes = malloc(len <= size ? len + 1 : 1);
  const sh_reason reason = sh_read(area, pos, bytes, len, error);
  if (reason == SH_OK) {
    const sh_bytes read = {bytes, len};
    printf("{\"ok\": ");
    print_hex(read);
    printf("}\n");
  }
  free(bytes);
  return reason;
}

static sh_reason do_write(sh_area *area, const flat_json *in, sh_error **error) {
  const char *hex = flat_json_text(in, "data", "");
  const size_t len = strlen(hex) / 2;
  unsigned char *bytes = malloc(len + 1);
  size_t i;
  sh_reason reason;
  for (i = 0; i < len; ++i) {
    unsigned value = 0;
    if (sscanf(hex + 2 * i, "%2x", &value) != 1) {
      fprintf(stderr, "conformance: \"data\" holds no hexadecimal digits\n");
      exit(3);
    }
    bytes[i] = (unsigned char)value;
  }
  reason = sh_write_fenced(area, flat_json_number(in, "pos", 0), bytes, len,
                           flat_json_number(in, "fence", 0), error);
  free(bytes);
  if (reason == SH_OK) print_done();
  return reason;
}

static sh_reason do_ranges(const char *op, sh_area *area, const flat_json *in, sh_error **error) {
  sh_reason reason;
  uint64_t updates = 0;
  if (strcmp(op, "read") == 0) return do_read(area, in, error);
  if (strcmp(op, "write") == 0) return do_write(area, in, error);
  if (strcmp(op, "fill") == 0) {
    const uint64_t value = flat_json_number(in, "value", 0);
    if (value > 255) return inexpressible(); /* The parameter is a byte. */
    reason = sh_fill_fenced(area, flat_json_number(in, "pos", 0), flat_json_number(in, "len", 0),
                            (uint8_t)value, flat_json_number(in, "fence", 0), error);
    if (reason == SH_OK) print_done();
    return reason;
  }
  if (strcmp(op, "updates") == 0) {
    reason = sh_updates(area, &updates, error);
    if (reason == SH_OK) printf("{\"ok\": %" PRIu64 "}\n", updates);
    return reason;
  }
  if (strcmp(op, "wait") == 0) {
    int changed = 0;
    reason = sh_wait(area, flat_json_number(in, "since", 0),
                     flat_json_number(in, "timeout_ms", SH_FOREVER), &changed, NULL, error);
    if (reason == SH_OK) printf("{\"ok\": %s}\n", changed ? "true" : "false");
    return reason;
  }
  return do_words(op, area, in, error);
}

static sh_reason do_open(const char *name, const flat_json *in, sh_error **error) {
  sh_area *area = NULL;
  const sh_reason reason =
      sh_area_open(client, name, flat_json_number(in, "size", 0), &area, error);
  if (reason != SH_OK) return reason;
  if (area_count == AREAS_MAX) {
    fprintf(stderr, "conformance: more than %d areas were opened; raise AREAS_MAX\n", AREAS_MAX);
    exit(3);
  }
  areas[area_count++] = area;
  printf("{\"ok\": %" PRIu64 "}\n", sh_area_size(area));
  return SH_OK;
}

static sh_reason do_list(const flat_json *in, sh_error **error) {
  sh_area_info *infos = NULL;
  size_t count = 0;
  size_t i;
  const sh_reason reason =
      sh_area_list(client, flat_json_text(in, "prefix", NULL), &infos, &count, error);
  if (reason != SH_OK) return reason;
  printf("{\"ok\": [");
  for (i = 0; i < count; ++i) printf("%s\"%s\"", i == 0 ? "" : ", ", infos[i].name);
  printf("]}\n");
  sh_area_list_free(infos);
  return SH_OK;
}

/* Whether a member that the interface takes as an unsigned number is none. */
static int is_beyond_u64(const flat_json *in) {
  static const char *const kUnsigned[] = {"pos",    "len",   "size",      "pages",
                                          "offset", "since", "timeout_ms"};
  size_t i;
  for (i = 0; i < sizeof(kUnsigned) / sizeof(kUnsigned[0]); ++i) {
    const flat_json_member *member = flat_json_find(in, kUnsigned[i]);
    if (member != NULL && (!member->fits || member->text[0] == '-')) return 1;
  }
  return 0;
}

static sh_reason do_control(const char *op, const char *name, const flat_json *in,
                            sh_error **error) {
  sh_reason reason = SH_UNIMPLEMENTED;
  sh_area_info info;
  if (strcmp(op, "connect") == 0) return do_connect(in, error);
  if (client == NULL) return inexpressible(); /* A freed handle may not be passed. */
  if (strcmp(op, "close") == 0) {
    sh_close(client);
    client = NULL;
    print_done();
    return SH_OK;
  }
  if (strcmp(op, "open") == 0) return do_open(name, in, error);
  if (strcmp(op, "list") == 0) return do_list(in, error);
  if (strcmp(op, "create") == 0) {
    sh_area_spec spec = {0};
    spec.size = flat_json_number(in, "size", 0);
    spec.pages = flat_json_number(in, "pages", 0);
    spec.file = flat_json_text(in, "file", NULL);
    spec.offset = flat_json_number(in, "offset", 0);
    spec.exclusive = flat_json_number(in, "exclusive", 0) != 0;
    reason = sh_area_create(client, name, &spec, &info, NULL, error);
    if (reason == SH_OK) printf("{\"ok\": %" PRIu64 "}\n", info.size);
  } else if (strcmp(op, "describe") == 0) {
    reason = sh_area_describe(client, name, &info, error);
    if (reason == SH_OK) printf("{\"ok\": %" PRIu64 "}\n", info.size);
  } else if (strcmp(op, "delete") == 0) {
    reason = sh_area_delete(client, name, error);
    if (reason == SH_OK) print_done();
  } else if (strcmp(op, "transport") == 0) {
    reason = SH_OK;
    printf("{\"ok\": \"%s\"}\n", sh_transport_of(client) == SH_TRANSPORT_LOCAL    ? "local"
                                 : sh_transport_of(client) == SH_TRANSPORT_SOCKET ? "socket"
                                                                                  : "network");
  } else if (strcmp(op, "status") == 0) {
    sh_status status;
    reason = sh_get_status(client, &status, error);
    if (reason == SH_OK) printf("{\"ok\": \"%s\"}\n", status.draining ? "draining" : "serving");
  }
  return reason;
}

/* Carries one line out and prints one line. 0 when the program should end. */
static int do_line(char *line) {
  flat_json in;
  sh_error *error = NULL;
  const char *op;
  const char *name;
  sh_area *area;
  sh_reason reason;
  int is_of_dicts = 0;
  int is_of_locks = 0;
  int is_batch = 0;
  if (!flat_json_parse(line, &in)) {
    printf("{\"malformed\": true}\n");
    return 1;
  }
  op = flat_json_text(&in, "op", "");
  name = flat_json_text(&in, "name", NULL);
  if (strcmp(op, "end") == 0) return 0;
  if (do_watches(client, op, name, &in)) return 1;
  area = name == NULL ? NULL : find_area(name);
  reason = do_dicts(client, op, name, &in, &is_of_dicts, &error);
  if (!is_of_dicts) reason = do_batch(client, op, &in, &is_batch, &error);
  if (!is_of_dicts && !is_batch) reason = do_locks(client, &options, op, &in, &is_of_locks, &error);
  if (is_of_dicts || is_batch || is_of_locks) {
    /* It was carried out, or refused. */
  } else if (is_beyond_u64(&in)) {
    reason = inexpressible();
  } else if (strstr("load store add compare_exchange bitwise read write fill updates wait", op) !=
                 NULL &&
             area != NULL) {
    reason = do_ranges(op, area, &in, &error);
  } else {
    reason = do_control(op, name, &in, &error);
  }
  if (reason != SH_OK) print_refused(reason, error);
  sh_error_free(error);
  return 1;
}

int main(int argc, char **argv) {
  sh_error *error = NULL;
  char *line = malloc(LINE_BYTES_MAX);
  const char *token = getenv("STATEHOUSE_TOKEN");
  if (argc != 2 || line == NULL) {
    fprintf(stderr, "usage: conformance_c local|socket|network\n");
    return 2;
  }
  if (token == NULL || strlen(token) >= sizeof(first_token)) {
    fprintf(stderr, "conformance: STATEHOUSE_TOKEN holds no usable access token\n");
    return 2;
  }
  memcpy(first_token, token, strlen(token) + 1);
  options.transport = strcmp(argv[1], "local") == 0    ? SH_TRANSPORT_LOCAL
                      : strcmp(argv[1], "socket") == 0 ? SH_TRANSPORT_SOCKET
                                                       : SH_TRANSPORT_NETWORK;
  options.client_name = "conformance c";
  if (sh_connect(NULL, &options, &client, &error) != SH_OK) {
    fprintf(stderr, "%s\n", sh_error_message(error));
    sh_error_free(error);
    return 1;
  }
  while (fgets(line, LINE_BYTES_MAX, stdin) != NULL && do_line(line)) fflush(stdout);
  close_all();
  sh_close(client);
  free(line);
  return 0;
}
