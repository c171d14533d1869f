#include "watch_ops.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "answers.h"

#define PATIENCE_MS 60000
#define QUIET_MS 100 /* For what must not come. */

static sh_watch *watch; /* NULL where there is none, or it could not begin: */
static int is_of_area;
static sh_reason failure;
static sh_error *failure_error;

void close_watch(void) {
  sh_watch_close(watch);
  sh_error_free(failure_error);
  watch = NULL;
  failure = SH_OK;
  failure_error = NULL;
}

/* Whether the operation has members that nobody looks at: a case is not to pass without them. */
static int has_others(const flat_json *in, const char *const *known) {
  size_t i;
  for (i = 0; i < in->count; ++i) {
    const char *const *name = known;
    while (*name != NULL && strcmp(*name, in->members[i].key) != 0) ++name;
    if (*name == NULL) {
      fprintf(stderr, "conformance: %s is no option of this watch\n", in->members[i].key);
      return 1;
    }
  }
  return 0;
}

static int is_beyond_u64(const flat_json *in) {
  size_t i;
  for (i = 0; i < in->count; ++i) {
    const flat_json_member *member = &in->members[i];
    if (member->is_number && (!member->fits || member->text[0] == '-')) return 1;
  }
  return 0;
}

static sh_reason watch_area(sh_client *client, const char *name, const flat_json *in,
                            sh_error **error) {
  sh_area_watch_options options;
  sh_area *area = NULL;
  sh_reason reason = sh_area_open(client, name, 0, &area, error);
  if (reason != SH_OK) return reason;
  memset(&options, 0, sizeof(options));
  options.from.is_set = flat_json_find(in, "from_updates") != NULL;
  options.from.updates = flat_json_number(in, "from_updates", 0);
  options.from.incarnation = flat_json_number(in, "from_incarnation", 0);
  options.window_us = 1000 * flat_json_number(in, "window_ms", 0);
  options.progress_ms = flat_json_number(in, "progress_ms", 0);
  options.skip_snapshot = flat_json_number(in, "snapshot", 1) == 0;
  options.ranges_only = flat_json_number(in, "ranges_only", 0) != 0;
  reason = sh_area_watch(area, flat_json_number(in, "pos", 0),
                         flat_json_number(in, "len", SH_TO_END), &options, &watch, error);
  sh_area_close(area);
  return reason;
}

static sh_slow_policy slow_of(const char *text) {
  static const char *const kNames[] = {"resync", "latest", "cancel"};
  int i;
  for (i = 0; i < 3; ++i) {
    if (strcmp(text, kNames[i]) == 0) return (sh_slow_policy)i;
  }
  return (sh_slow_policy)99;
}

static sh_reason watch_dict(sh_client *client, const char *name, const flat_json *in,
                            sh_error **error) {
  sh_watch_options options;
  sh_dict *dict = NULL;
  sh_reason reason = sh_dict_open(client, name, NULL, &dict, error);
  if (reason != SH_OK) return reason;
  memset(&options, 0, sizeof(options));
  options.prefix = sh_text(flat_json_text(in, "prefix", NULL));
  options.key = sh_text(flat_json_text(in, "key", NULL));
  options.slow = slow_of(flat_json_text(in, "slow", "resync"));
  options.skip_snapshot = flat_json_number(in, "snapshot", 1) == 0;
  options.keys_only = flat_json_number(in, "keys_only", 0) != 0;
  options.previous = flat_json_number(in, "previous", 0) != 0;
  options.window_us = flat_json_number(in, "window_ms", 0) * 1000;
  reason = sh_dict_watch(dict, &options, &watch, error);
  sh_dict_close(dict);
  return reason;
}

static void begin(sh_client *client, const char *name, const flat_json *in) {
  static const char *const kOfAreas[] = {
      "op",          "name",      "pos",         "len",          "snapshot",
      "ranges_only", "window_ms", "progress_ms", "from_updates", "from_incarnation",
      NULL};
  static const char *const kOfDicts[] = {"op",        "name", "prefix",   "key",       "snapshot",
                                         "keys_only", "slow", "previous", "window_ms", NULL};
  close_watch();
  if (has_others(in, is_of_area ? kOfAreas : kOfDicts)) {
    printf("{\"malformed\": true}\n");
    return;
  }
  if (client == NULL || is_beyond_u64(in)) {
    inexpressible();
    return;
  }
  failure = is_of_area ? watch_area(client, name, in, &failure_error)
                       : watch_dict(client, name, in, &failure_error);
  print_done();
}

static void print_reason(sh_resync_reason reason) {
  printf(", \"reason\": \"%s\"", sh_resync_reason_text(reason));
}

/* Events without what differs between runs. */

static sh_reason next_of_area(uint64_t timeout_ms, sh_error **error) {
  static const char *const kKinds[] = {NULL, "snapshot", "change", "synced", "resync", "progress"};
  sh_area_watch_event event;
  const sh_reason reason = sh_area_watch_next(watch, timeout_ms, &event, error);
  if (reason != SH_OK) return reason;
  if (event.kind == SH_AREA_WATCH_NONE) {
    print_done();
    return SH_OK;
  }
  printf("{\"ok\": {\"kind\": \"%s\"", kKinds[event.kind]);
  if (event.kind == SH_AREA_WATCH_SNAPSHOT || event.kind == SH_AREA_WATCH_CHANGE) {
    printf(", \"pos\": %" PRIu64 ", \"len\": %" PRIu64 ", \"more\": %s", event.pos, event.len,
           event.more ? "true" : "false");
    if (event.bytes.data != NULL) {
      printf(", \"data\": ");
      print_hex(event.bytes);
    }
  }
  if (event.kind == SH_AREA_WATCH_RESYNC) print_reason(event.reason);
  printf("}}\n");
  return SH_OK;
}

static sh_reason next_of_dict(uint64_t timeout_ms, sh_error **error) {
  static const char *const kKinds[] = {NULL,    "put",    "delete", "expire",  "evict",
                                       "entry", "synced", "resync", "progress"};
  sh_watch_event event;
  const sh_reason reason = sh_watch_next(watch, timeout_ms, &event, error);
  if (reason != SH_OK) return reason;
  if (event.kind == SH_WATCH_NONE) {
    print_done();
    return SH_OK;
  }
  printf("{\"ok\": {\"kind\": \"%s\"", kKinds[event.kind]);
  if (event.key.data != NULL) {
    printf(", \"key\": ");
    print_string(event.key);
  }
  if (event.value.data != NULL) {
    printf(", \"value\": ");
    print_json(event.value);
  }
  if (event.previous.data != NULL) {
    printf(", \"previous\": ");
    print_json(event.previous);
  }
  if (event.previous_gone) printf(", \"previous_gone\": true");
  if (event.kind == SH_WATCH_RESYNC) print_reason(event.reason);
  printf("}}\n");
  return SH_OK;
}

static void print_place(const flat_json *in) {
  const sh_area_point point = sh_area_watch_point(watch);
  const int of_updates = strcmp(flat_json_text(in, "show", ""), "updates") == 0;
  if (of_updates && !point.is_set) {
    print_done();
  } else {
    printf("{\"ok\": %" PRIu64 "}\n", of_updates ? point.updates : point.incarnation);
  }
}

int do_watches(sh_client *client, const char *op, const char *name, const flat_json *in) {
  const int looks = strcmp(op, "no_event") == 0;
  const int waits = strcmp(op, "next_event") == 0;
  if (strcmp(op, "watch_area") == 0 || strcmp(op, "watch_dict") == 0) {
    is_of_area = strcmp(op, "watch_area") == 0;
    begin(client, name, in);
  } else if (strcmp(op, "close_watch") == 0) {
    close_watch();
    print_done();
  } else if (strcmp(op, "watch_place") == 0 || looks || waits) {
    if (failure != SH_OK) {
      print_refused(failure, failure_error);
    } else if (watch == NULL) {
      inexpressible(); /* There is no object to call. */
    } else if (looks || waits) {
      const uint64_t timeout_ms = looks ? QUIET_MS : PATIENCE_MS;
      sh_error *error = NULL;
      const sh_reason reason =
          is_of_area ? next_of_area(timeout_ms, &error) : next_of_dict(timeout_ms, &error);
      if (reason != SH_OK) print_refused(reason, error);
      sh_error_free(error);
    } else {
      print_place(in);
    }
  } else {
    return 0;
  }
  return 1;
}
