#include "dict_ops.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "dict_arguments.h"

#define DICTS_MAX 1024 /* Handles that one run may open; they stay open until it ends. */

static sh_dict *dicts[DICTS_MAX];
static size_t dict_count;

static sh_dict *find_dict(const char *name) {
  size_t i;
  for (i = dict_count; i > 0; --i) {
    if (strcmp(sh_dict_name(dicts[i - 1]), name) == 0) return dicts[i - 1];
  }
  return NULL;
}

void close_dicts(void) {
  while (dict_count > 0) sh_dict_close(dicts[--dict_count]);
}

/* Results. */

/* {"value": ...} for an entry that there is, else null. */
static void print_entry(const sh_entry *entry) {
  if (!entry->found) {
    printf("null");
    return;
  }
  printf("{\"value\": ");
  print_json(entry->value);
  printf("}");
}

static sh_reason do_get(sh_dict *dict, sh_bytes key, const flat_json *in, sh_error **error) {
  sh_path_step path[ARGUMENTS_MAX];
  const size_t steps = take_path(in, path);
  const char *show = flat_json_text(in, "show", "value");
  sh_entry entry = {0};
  const sh_reason reason = sh_dict_get(dict, key, path, steps, &entry, error);
  if (reason == SH_OK) {
    printf("{\"ok\": ");
    if (strcmp(show, "version") == 0) {
      printf("%" PRIu64, entry.found ? entry.version : 0);
    } else if (strcmp(show, "fence") == 0) {
      printf("%" PRIu64, entry.fence);
    } else if (strcmp(show, "has_ttl") == 0) {
      printf(entry.ttl_ms == SH_FOREVER ? "false" : "true");
    } else if (strcmp(show, "is_bound") == 0) {
      printf(entry.found && entry.bound_session != 0 ? "true" : "false");
    } else {
      print_entry(&entry);
    }
    printf("}\n");
  }
  sh_entry_free(&entry);
  return reason;
}

static sh_reason do_mutation(const char *op, sh_dict *dict, sh_bytes key, const flat_json *in,
                             sh_error **error) {
  const sh_write_options options = write_options_of(in, "");
  const sh_bytes value = value_of(in, "", "value");
  const int with_previous = flat_json_number(in, "return_previous", 0) != 0;
  sh_entry previous = {0};
  sh_outcome outcome = {0, 0};
  sh_reason reason;
  if (!is_ready()) return broken_reason();
  if (strcmp(op, "set_entry") == 0) {
    reason =
        sh_dict_set(dict, key, value, &options, &outcome, with_previous ? &previous : NULL, error);
  } else if (strcmp(op, "delete_entry") == 0) {
    reason = sh_dict_delete_entry(dict, key, &options, &outcome, with_previous ? &previous : NULL,
                                  error);
  } else {
    reason = sh_dict_touch(dict, key, options.ttl_ms, &outcome, error);
  }
  if (reason == SH_OK && with_previous) {
    printf("{\"ok\": {\"applied\": %s, \"previous\": ", outcome.applied ? "true" : "false");
    print_entry(&previous);
    printf("}}\n");
  } else if (reason == SH_OK) {
    printf("{\"ok\": %s}\n", outcome.applied ? "true" : "false");
  }
  sh_entry_free(&previous);
  return reason;
}

static sh_reason do_wait(sh_dict *dict, sh_bytes key, const flat_json *in, sh_error **error) {
  static const struct {
    const char *name;
    sh_wait_kind kind;
  } kKinds[] = {{"until.present", SH_WAIT_PRESENT},
                {"until.absent", SH_WAIT_ABSENT},
                {"until.version_above", SH_WAIT_VERSION_ABOVE},
                {"until.version_differs", SH_WAIT_VERSION_DIFFERS},
                {"until.value", SH_WAIT_VALUE}};
  sh_path_step path[ARGUMENTS_MAX];
  sh_entry entry = {0};
  sh_entry_wait wait;
  sh_reason reason;
  int met = 0;
  size_t i;
  memset(&wait, 0, sizeof(wait));
  for (i = 0; i < sizeof(kKinds) / sizeof(kKinds[0]); ++i) {
    if (flat_json_find(in, kKinds[i].name) == NULL) continue;
    wait.kind = kKinds[i].kind;
    if (wait.kind == SH_WAIT_VALUE) {
      wait.value = value_of(in, "", kKinds[i].name);
    } else {
      wait.version = number_of(in, "", kKinds[i].name);
    }
  }
  if (!is_ready()) return broken_reason();
  wait.path = path;
  wait.steps = take_path(in, path);
  wait.timeout_ms = flat_json_number(in, "timeout_ms", SH_FOREVER);
  reason = sh_dict_wait(dict, key, &wait, &met, &entry, error);
  if (reason == SH_OK) {
    printf("{\"ok\": {\"met\": %s, \"entry\": ", met ? "true" : "false");
    print_entry(&entry);
    printf("}}\n");
  }
  sh_entry_free(&entry);
  return reason;
}

static void print_number(sh_number number) {
  char text[64];
  if (!number.is_double) {
    printf("%" PRId64, number.integer);
    return;
  }
  snprintf(text, sizeof(text), "%.17g", number.real);
  printf("%s%s", text, strpbrk(text, ".en") == NULL ? ".0" : "");
}

static sh_reason do_increment(sh_dict *dict, sh_bytes key, const flat_json *in, sh_error **error) {
  sh_path_step path[ARGUMENTS_MAX];
  increment_numbers numbers;
  sh_increment_options options = increment_of(in, "", &numbers);
  sh_number delta = sh_int(1);
  sh_number sum;
  sh_reason reason;
  take_number(in, "", "delta", &delta);
  options.path = path;
  options.steps = take_path(in, path);
  if (!is_ready()) return broken_reason();
  reason = sh_dict_increment(dict, key, delta, &options, &sum, NULL, error);
  if (reason != SH_OK) return reason;
  printf("{\"ok\": ");
  print_number(sum);
  printf("}\n");
  return SH_OK;
}

static sh_reason do_edit(sh_dict *dict, sh_bytes key, const flat_json *in, sh_error **error) {
  static const struct {
    const char *name;
    sh_edit_kind kind;
    const char *value; /* The member that holds it. */
  } kKinds[] = {{"edit.set", SH_EDIT_SET, "edit.set"},
                {"edit.set_wire", SH_EDIT_SET, "edit.set"},
                {"edit.delete", SH_EDIT_DELETE, NULL},
                {"edit.append", SH_EDIT_APPEND, "edit.append"},
                {"edit.extend.values", SH_EDIT_EXTEND, "edit.extend.values"},
                {"edit.insert.value", SH_EDIT_INSERT, "edit.insert.value"},
                {"edit.pop", SH_EDIT_POP, NULL},
                {"edit.remove", SH_EDIT_REMOVE, "edit.remove"},
                {"edit.merge", SH_EDIT_MERGE, "edit.merge"},
                {"edit.clear", SH_EDIT_CLEAR, NULL},
                {"edit.slice.values", SH_EDIT_SLICE, "edit.slice.values"},
                {"edit.set_default", SH_EDIT_SET_DEFAULT, "edit.set_default"},
                {"edit.append_string", SH_EDIT_APPEND_STRING, NULL},
                {"edit.append_bytes", SH_EDIT_APPEND_BYTES, NULL}};
  sh_path_step path[ARGUMENTS_MAX];
  sh_entry result = {0};
  sh_edit edit;
  uint64_t length = 0;
  sh_reason reason;
  size_t i;
  memset(&edit, 0, sizeof(edit));
  for (i = 0; i < sizeof(kKinds) / sizeof(kKinds[0]); ++i) {
    if (flat_json_find(in, kKinds[i].name) == NULL) continue;
    edit.kind = kKinds[i].kind;
    if (kKinds[i].value != NULL) edit.value = value_of(in, "", kKinds[i].value);
  }
  if (edit.kind == SH_EDIT_APPEND_STRING) {
    edit.value = sh_text(flat_json_text(in, "edit.append_string", ""));
  }
  if (edit.kind == SH_EDIT_APPEND_BYTES) {
    edit.value = bytes_of_hex(flat_json_text(in, "edit.append_bytes", ""));
  }
  if (!is_ready()) return broken_reason();
  edit.path = path;
  edit.steps = take_path(in, path);
  edit.start =
      (int64_t)(number_of(in, "", "edit.insert.index") | number_of(in, "", "edit.slice.start"));
  edit.stop = (int64_t)number_of(in, "", "edit.slice.stop");
  edit.create_parents = number_of(in, "", "create_parents") != 0;
  edit.if_version = number_of(in, "", "if_version");
  edit.fence = number_of(in, "", "fence");
  reason = sh_dict_edit(dict, key, &edit, &result, &length, NULL, error);
  if (reason == SH_OK) {
    printf("{\"ok\": {\"result\": ");
    print_entry(&result);
    printf(", \"length\": %" PRIu64 "}}\n", length);
  }
  sh_entry_free(&result);
  return reason;
}

static void print_entries(const sh_entries *entries) {
  size_t i;
  printf("[");
  for (i = 0; i < entries->count; ++i) {
    if (i > 0) printf(", ");
    print_entry(&entries->items[i]);
  }
  printf("]");
}

static sh_reason do_many(const char *op, sh_dict *dict, const flat_json *in, sh_error **error) {
  sh_bytes keys[ARGUMENTS_MAX];
  sh_bytes values[ARGUMENTS_MAX];
  const int sets = strcmp(op, "set_entries") == 0;
  const sh_write_options options = write_options_of(in, "");
  sh_entries entries = {0};
  sh_reason reason;
  size_t count = 0;
  for (;; ++count) {
    char prefix[NAME_BYTES_MAX];
    const flat_json_member *key = member_of(in, sets ? "entries.%d.key" : "keys.%d", (int)count);
    if (key == NULL) break;
    if (count == ARGUMENTS_MAX) give_up("an operation has too many keys");
    snprintf(prefix, sizeof(prefix), "entries.%d.", (int)count);
    keys[count] = sh_text(key->text);
    if (sets) values[count] = value_of(in, prefix, "value");
  }
  if (!is_ready()) return broken_reason();
  if (sets) {
    reason = sh_dict_set_many(dict, keys, values, count, &options, NULL, error);
    if (reason == SH_OK) printf("{\"ok\": null}\n");
    return reason;
  }
  reason = sh_dict_get_many(dict, keys, count, flat_json_number(in, "consistent", 0) != 0, &entries,
                            error);
  if (reason == SH_OK) {
    printf("{\"ok\": ");
    print_entries(&entries);
    printf("}\n");
  }
  sh_entries_free(&entries);
  return reason;
}

/* All pages, as one object. */
static sh_reason do_scan(sh_dict *dict, const flat_json *in, sh_error **error) {
  sh_cursor cursor = {0};
  sh_entries entries = {0};
  sh_reason reason = SH_OK;
  const char *separator = "{\"ok\": {";
  while (reason == SH_OK && !cursor.done) {
    size_t i;
    reason = sh_dict_scan(dict, sh_text(flat_json_text(in, "prefix", "")),
                          (uint32_t)flat_json_number(in, "page_size", 0), &cursor, &entries, error);
    for (i = 0; reason == SH_OK && i < entries.count; ++i) {
      printf("%s", separator);
      separator = ", ";
      print_string(entries.items[i].key);
      printf(": ");
      print_json(entries.items[i].value);
    }
  }
  if (reason == SH_OK) printf("%s}}\n", *separator == ',' ? "" : separator);
  sh_entries_free(&entries);
  sh_cursor_free(&cursor);
  return reason;
}

static sh_reason do_transact(sh_dict *dict, const flat_json *in, sh_error **error) {
  static step_list then;
  static step_list otherwise;
  sh_compare compares[ARGUMENTS_MAX];
  sh_transaction transaction;
  sh_entries results = {0};
  sh_reason reason;
  size_t count = 0;
  int compared = 0;
  for (;; ++count) {
    char prefix[NAME_BYTES_MAX];
    const flat_json_member *key = member_of(in, "compares.%d.key", (int)count);
    if (key == NULL || count == ARGUMENTS_MAX) break;
    snprintf(prefix, sizeof(prefix), "compares.%d.", (int)count);
    compares[count].key = sh_text(key->text);
    compares[count].condition = condition_of(in, prefix);
  }
  take_steps(in, "then_steps", &then);
  take_steps(in, "else_steps", &otherwise);
  if (!is_ready()) return broken_reason();
  transaction.compares = compares;
  transaction.compare_count = count;
  transaction.then = then.steps;
  transaction.then_count = then.count;
  transaction.otherwise = otherwise.steps;
  transaction.otherwise_count = otherwise.count;
  reason = sh_dict_transact(dict, &transaction, &compared, &results, NULL, error);
  if (reason == SH_OK) {
    printf("{\"ok\": {\"compared\": %s, \"results\": ", compared ? "true" : "false");
    print_entries(&results);
    printf("}}\n");
  }
  sh_entries_free(&results);
  return reason;
}

static sh_reason do_open_dict(sh_client *client, const char *name, const flat_json *in,
                              sh_error **error) {
  sh_dict_spec spec = {0};
  sh_dict *dict = NULL;
  const int create = flat_json_number(in, "create", 1) != 0;
  const sh_reason reason = sh_dict_open(client, name, create ? &spec : NULL, &dict, error);
  if (reason != SH_OK) return reason;
  if (dict_count == DICTS_MAX) give_up("too many dicts were opened; raise DICTS_MAX");
  dicts[dict_count++] = dict;
  printf("{\"ok\": null}\n");
  return SH_OK;
}

static sh_reason do_list_dicts(sh_client *client, const flat_json *in, sh_error **error) {
  sh_dict_info *infos = NULL;
  size_t count = 0;
  size_t i;
  const sh_reason reason =
      sh_dict_list(client, flat_json_text(in, "prefix", NULL), &infos, &count, error);
  if (reason != SH_OK) return reason;
  printf("{\"ok\": [");
  for (i = 0; i < count; ++i) printf("%s\"%s\"", i == 0 ? "" : ", ", infos[i].name);
  printf("]}\n");
  sh_dict_list_free(infos);
  return SH_OK;
}

/* Operations of the client. */
static sh_reason do_catalogue(sh_client *client, const char *op, const char *name,
                              const flat_json *in, int *known, sh_error **error) {
  sh_dict_info info;
  sh_dict_spec spec = {0};
  sh_reason reason = SH_OK;
  *known = 1;
  if (strcmp(op, "open_dict") == 0) return do_open_dict(client, name, in, error);
  if (strcmp(op, "list_dicts") == 0) return do_list_dicts(client, in, error);
  if (strcmp(op, "create_dict") == 0) {
    spec.max_entries = flat_json_number(in, "max_entries", 0);
    spec.max_bytes = flat_json_number(in, "max_bytes", 0);
    spec.default_ttl_ms = flat_json_number(in, "default_ttl_ms", 0);
    spec.evict = strcmp(flat_json_text(in, "full_policy", ""), "EVICT") == 0;
    spec.exclusive = flat_json_number(in, "exclusive", 0) != 0;
    reason = sh_dict_create(client, name, &spec, &info, NULL, error);
    if (reason == SH_OK) printf("{\"ok\": %" PRIu64 "}\n", info.max_entries);
  } else if (strcmp(op, "describe_dict") == 0) {
    reason = sh_dict_describe(client, name, &info, error);
    if (reason == SH_OK) printf("{\"ok\": %" PRIu64 "}\n", info.entries);
  } else if (strcmp(op, "delete_dict") == 0) {
    reason = sh_dict_delete(client, name, error);
    if (reason == SH_OK) printf("{\"ok\": null}\n");
  } else {
    *known = 0;
  }
  return reason;
}

/* Operations of a dict. */
static sh_reason do_dict(const char *op, sh_dict *dict, const flat_json *in, int *known,
                         sh_error **error) {
  const sh_bytes key = sh_text(flat_json_text(in, "key", ""));
  uint64_t number = 0;
  sh_reason reason = SH_OK;
  *known = 1;
  if (strcmp(op, "get_entry") == 0) return do_get(dict, key, in, error);
  if (strcmp(op, "set_entry") == 0 || strcmp(op, "delete_entry") == 0 ||
      strcmp(op, "touch_entry") == 0) {
    return do_mutation(op, dict, key, in, error);
  }
  if (strcmp(op, "increment_entry") == 0) return do_increment(dict, key, in, error);
  if (strcmp(op, "wait_entry") == 0) return do_wait(dict, key, in, error);
  if (strcmp(op, "edit_entry") == 0) return do_edit(dict, key, in, error);
  if (strcmp(op, "get_entries") == 0 || strcmp(op, "set_entries") == 0) {
    return do_many(op, dict, in, error);
  }
  if (strcmp(op, "scan_entries") == 0) return do_scan(dict, in, error);
  if (strcmp(op, "transact_dict") == 0) return do_transact(dict, in, error);
  if (strcmp(op, "clear_dict") == 0) {
    reason = sh_dict_clear(dict, &number, error);
  } else if (strcmp(op, "delete_prefix") == 0) {
    reason = sh_dict_delete_prefix(dict, sh_text(flat_json_text(in, "prefix", "")), &number, error);
  } else if (strcmp(op, "dict_length") == 0) {
    reason = sh_dict_length(dict, &number, error);
  } else {
    *known = 0;
    return SH_OK;
  }
  if (reason == SH_OK) printf("{\"ok\": %" PRIu64 "}\n", number);
  return reason;
}

sh_reason do_dicts(sh_client *client, const char *op, const char *name, const flat_json *in,
                   int *known, sh_error **error) {
  sh_dict *dict = name == NULL ? NULL : find_dict(name);
  sh_reason reason = SH_OK;
  *known = 0;
  if (client != NULL) reason = do_catalogue(client, op, name, in, known, error);
  if (!*known && dict != NULL) reason = do_dict(op, dict, in, known, error);
  if (reason == SH_OK && !is_ready()) printf("{\"inexpressible\": true}\n");
  forget_arguments(reason == SH_OK ? NULL : error);
  return reason;
}
