#include "batch_ops.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "answers.h"
#include "dict_arguments.h"
#include "statehouse/batch.h"

typedef enum step_kind {
  STEP_GET,
  STEP_OUTCOME,
  STEP_NUMBER,
  STEP_COUNT,
  STEP_WORD,
  STEP_DONE
} step_kind;

static const struct {
  const char *name;
  step_kind kind;
} kSteps[] = {{"get", STEP_GET},     {"set", STEP_OUTCOME},  {"delete", STEP_OUTCOME},
              {"incr", STEP_NUMBER}, {"append", STEP_COUNT}, {"add", STEP_WORD},
              {"load", STEP_WORD},   {"store", STEP_DONE}};

static step_kind kind_of(const char *name) {
  size_t i;
  for (i = 0; i < sizeof(kSteps) / sizeof(kSteps[0]); ++i) {
    if (strcmp(kSteps[i].name, name) == 0) return kSteps[i].kind;
  }
  give_up("a step of a batch does something unknown");
  return STEP_DONE;
}

static sh_reason note_of_dict(sh_batch *batch, sh_dict *dict, const char *what, const char *prefix,
                              const flat_json *in, sh_error **error) {
  const sh_bytes key = sh_text(text_of(in, prefix, "key"));
  if (strcmp(what, "get") == 0) return sh_batch_dict_get(batch, dict, key, NULL, error);
  if (strcmp(what, "delete") == 0) {
    return sh_batch_dict_delete(batch, dict, key, NULL, 0, NULL, error);
  }
  if (strcmp(what, "set") == 0) {
    return sh_batch_dict_set(batch, dict, key, value_of(in, prefix, "value"), NULL, 0, NULL, error);
  }
  if (strcmp(what, "append") == 0) {
    sh_edit edit = {0};
    edit.kind = SH_EDIT_APPEND;
    edit.value = value_of(in, prefix, "value");
    edit.create_parents = 1;
    return sh_batch_dict_edit(batch, dict, key, &edit, NULL, error);
  } else {
    sh_number delta = sh_int(1);
    take_number(in, prefix, "delta", &delta);
    return sh_batch_dict_increment(batch, dict, key, delta, NULL, NULL, error);
  }
}

/* Notes one step; the handles need not stay open. */
static sh_reason note(sh_client *client, sh_batch *batch, const char *what, const char *prefix,
                      const flat_json *in, sh_error **error) {
  const char *name = text_of(in, prefix, "name");
  const step_kind kind = kind_of(what);
  sh_reason reason;
  if (kind != STEP_WORD && kind != STEP_DONE) {
    sh_dict *dict = NULL;
    reason = sh_dict_open(client, name, NULL, &dict, error);
    if (reason == SH_OK) reason = note_of_dict(batch, dict, what, prefix, in, error);
    sh_dict_close(dict);
  } else {
    const uint64_t pos = number_of(in, prefix, "pos");
    const uint64_t amount = number_of(in, prefix, "amount");
    sh_area *area = NULL;
    reason = sh_area_open(client, name, 0, &area, error);
    if (reason != SH_OK) return reason;
    if (strcmp(what, "add") == 0) {
      reason = sh_batch_area_add(batch, area, SH_U64, pos, (int64_t)amount, 0, NULL, error);
    } else if (strcmp(what, "load") == 0) {
      reason = sh_batch_area_load(batch, area, SH_U64, pos, NULL, error);
    } else {
      reason = sh_batch_area_store(batch, area, SH_U64, pos, amount, 0, NULL, error);
    }
    sh_area_close(area);
  }
  return reason;
}

static void print_result(const sh_batch *batch, size_t index, step_kind kind) {
  const sh_reason reason = sh_batch_result(batch, index, NULL);
  if (reason != SH_OK) {
    printf("{\"error\": \"%s\"}", sh_reason_name(reason));
  } else if (kind == STEP_GET) {
    const sh_entry *entry = NULL;
    sh_batch_result_entry(batch, index, &entry, NULL);
    if (entry != NULL && entry->found) {
      print_json(entry->value);
    } else {
      printf("null");
    }
  } else if (kind == STEP_OUTCOME) {
    sh_outcome outcome = {0};
    sh_batch_result_outcome(batch, index, &outcome, NULL);
    printf(outcome.applied ? "true" : "false");
  } else if (kind == STEP_NUMBER) {
    sh_number sum = {0};
    sh_batch_result_number(batch, index, &sum, NULL, NULL);
    if (sum.is_double) {
      printf("%g", sum.real);
    } else {
      printf("%" PRId64, sum.integer);
    }
  } else if (kind == STEP_DONE) {
    printf("null");
  } else {
    uint64_t number = 0;
    if (kind == STEP_COUNT) {
      sh_batch_result_count(batch, index, &number, NULL);
    } else {
      sh_batch_result_word(batch, index, &number, NULL);
    }
    printf("%" PRIu64, number);
  }
}

sh_reason do_batch(sh_client *client, const char *op, const flat_json *in, int *known,
                   sh_error **error) {
  sh_batch_options options = {0};
  sh_batch *batch = NULL;
  step_kind kinds[ARGUMENTS_MAX];
  size_t count = 0;
  size_t i;
  sh_reason reason;
  *known = strcmp(op, "batch") == 0;
  if (!*known) return SH_OK;
  if (client == NULL) return inexpressible(); /* A freed handle may not be passed. */
  options.stop_at_failure = (int)number_of(in, "", "stop");
  reason = sh_batch_begin(client, &options, &batch, error);
  while (reason == SH_OK && member_of(in, "steps.%zu.do", count) != NULL) {
    char prefix[NAME_BYTES_MAX];
    const char *what = member_of(in, "steps.%zu.do", count)->text;
    snprintf(prefix, sizeof(prefix), "steps.%zu.", count);
    kinds[count++] = kind_of(what);
    reason = note(client, batch, what, prefix, in, error);
  }
  if (reason == SH_OK) {
    (void)sh_batch_run(batch, NULL, NULL); /* Each result says it again. */
    printf("{\"ok\": [");
    for (i = 0; i < count; ++i) {
      if (i > 0) printf(", ");
      print_result(batch, i, kinds[i]);
    }
    printf("]}\n");
  }
  sh_batch_end(batch);
  forget_arguments(reason == SH_OK ? NULL : error);
  return reason;
}
