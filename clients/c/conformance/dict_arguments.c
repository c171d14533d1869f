#include "dict_arguments.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the operation that is carried out has asked the library for. */
static sh_buffer buffers[ARGUMENTS_MAX];
static size_t buffer_count;
static sh_reason broken; /* The first argument that could not be made. */
static sh_error *broken_error;
static int is_inexpressible; /* The types of the interface cannot hold an argument. */

int is_ready(void) { return broken == SH_OK && !is_inexpressible; }

void give_up(const char *what) {
  fprintf(stderr, "conformance: %s\n", what);
  exit(3);
}

/* Members by names that are put together. */
const flat_json_member *member_of(const flat_json *in, const char *format, ...) {
  char name[NAME_BYTES_MAX];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(name, sizeof(name), format, arguments);
  va_end(arguments);
  return flat_json_find(in, name);
}

const char *text_of(const flat_json *in, const char *prefix, const char *name) {
  const flat_json_member *member = member_of(in, "%s%s", prefix, name);
  return member == NULL ? NULL : member->text;
}

uint64_t number_of(const flat_json *in, const char *prefix, const char *name) {
  const flat_json_member *member = member_of(in, "%s%s", prefix, name);
  return member == NULL ? 0 : member->number;
}

static sh_buffer *new_buffer(void) {
  if (buffer_count == ARGUMENTS_MAX) give_up("an operation has too many arguments");
  memset(&buffers[buffer_count], 0, sizeof(buffers[0]));
  return &buffers[buffer_count++];
}

sh_bytes bytes_of_hex(const char *hex) {
  sh_buffer *buffer = new_buffer();
  sh_bytes bytes;
  size_t i;
  buffer->size = strlen(hex) / 2;
  buffer->data = malloc(buffer->size + 1);
  if (buffer->data == NULL) give_up("there is no memory");
  for (i = 0; i < buffer->size; ++i) {
    unsigned value = 0;
    if (sscanf(hex + 2 * i, "%2x", &value) != 1) give_up("a member holds no hexadecimal digits");
    buffer->data[i] = (char)value;
  }
  bytes.data = buffer->data;
  bytes.size = buffer->size;
  return bytes;
}

/* A value: JSON text, or as the member with "_wire" behind its name its bytes as digits. */
sh_bytes value_of(const flat_json *in, const char *prefix, const char *name) {
  const flat_json_member *wire = member_of(in, "%s%s_wire", prefix, name);
  const char *json = text_of(in, prefix, name);
  sh_bytes value = {NULL, 0};
  sh_buffer *buffer;
  sh_reason reason;
  if (wire != NULL) return bytes_of_hex(wire->text);
  if (json == NULL) return value;
  buffer = new_buffer();
  reason = sh_value_from_json(sh_text(json), buffer, broken == SH_OK ? &broken_error : NULL);
  if (broken == SH_OK) broken = reason;
  value.data = buffer->data;
  value.size = buffer->size;
  return value;
}

/* A number that is added, out of JSON text. 0 where there is none. */
int take_number(const flat_json *in, const char *prefix, const char *name, sh_number *number) {
  const sh_bytes value = value_of(in, prefix, name);
  int64_t integer = 0;
  double real = 0;
  if (text_of(in, prefix, name) == NULL) return 0;
  if (sh_value_as_int(value, &integer)) {
    *number = sh_int(integer);
  } else if (sh_value_as_double(value, &real)) {
    *number = sh_double(real);
  } else if (broken == SH_OK) {
    is_inexpressible = 1;
  }
  return 1;
}

size_t take_path(const flat_json *in, sh_path_step *steps) {
  size_t count = 0;
  for (;;) {
    const flat_json_member *member = member_of(in, "path_steps.%d", (int)count);
    if (member == NULL) return count;
    if (count == ARGUMENTS_MAX) give_up("a path has too many steps");
    steps[count].is_index = member->is_number;
    steps[count].key = sh_text(member->text);
    steps[count].index = (int64_t)member->number;
    ++count;
  }
}

sh_condition condition_of(const flat_json *in, const char *prefix) {
  sh_condition condition = {SH_IF_ANY, 0, {NULL, 0}};
  if (number_of(in, prefix, "condition.absent")) condition.kind = SH_IF_ABSENT;
  if (number_of(in, prefix, "condition.present")) condition.kind = SH_IF_PRESENT;
  if (text_of(in, prefix, "condition.version") != NULL) condition.kind = SH_IF_VERSION;
  if (text_of(in, prefix, "condition.value") != NULL) condition.kind = SH_IF_VALUE;
  condition.version = number_of(in, prefix, "condition.version");
  condition.value = value_of(in, prefix, "condition.value");
  return condition;
}

uint64_t ttl_of(const flat_json *in, const char *prefix) {
  if (number_of(in, prefix, "ttl.none")) return SH_FOREVER;
  if (number_of(in, prefix, "ttl.keep")) return SH_TTL_KEEP;
  return number_of(in, prefix, "ttl.duration_ms");
}

sh_write_options write_options_of(const flat_json *in, const char *prefix) {
  sh_write_options options;
  options.condition = condition_of(in, prefix);
  options.ttl_ms = ttl_of(in, prefix);
  options.fence = number_of(in, prefix, "fence");
  options.bound = number_of(in, prefix, "bound") != 0;
  return options;
}

sh_increment_options increment_of(const flat_json *in, const char *prefix,
                                  increment_numbers *numbers) {
  sh_increment_options options;
  memset(&options, 0, sizeof(options));
  if (take_number(in, prefix, "initial", &numbers->initial)) options.initial = &numbers->initial;
  if (take_number(in, prefix, "min", &numbers->min)) options.min = &numbers->min;
  if (take_number(in, prefix, "max", &numbers->max)) options.max = &numbers->max;
  options.must_exist = number_of(in, prefix, "must_exist") != 0;
  options.ttl_ms = ttl_of(in, prefix);
  options.fence = number_of(in, prefix, "fence");
  return options;
}

static int take_step(const flat_json *in, const char *list, step_list *out) {
  static const char *const kNames[] = {"get", "set", "delete", "increment"};
  const size_t i = out->count;
  sh_step *step = &out->steps[i];
  char prefix[NAME_BYTES_MAX];
  int kind;
  memset(step, 0, sizeof(*step));
  for (kind = 0; kind < 4; ++kind) {
    const flat_json_member *key =
        member_of(in, kind == 0 ? "%s.%d.%s" : "%s.%d.%s.key", list, (int)i, kNames[kind]);
    if (key == NULL) continue;
    snprintf(prefix, sizeof(prefix), "%s.%d.%s.", list, (int)i, kNames[kind]);
    step->kind = (sh_step_kind)(kind + 1);
    step->key = sh_text(key->text);
    step->value = value_of(in, prefix, "value");
    if (step->kind == SH_STEP_SET || step->kind == SH_STEP_DELETE) {
      out->options[i] = write_options_of(in, prefix);
      step->options = &out->options[i];
    }
    if (step->kind == SH_STEP_INCREMENT) {
      out->increments[i] = increment_of(in, prefix, &out->numbers[i]);
      step->increment = &out->increments[i];
      step->delta = sh_int(1);
      take_number(in, prefix, "delta", &step->delta);
    }
    return 1;
  }
  return 0;
}

void take_steps(const flat_json *in, const char *list, step_list *out) {
  out->count = 0;
  while (out->count < ARGUMENTS_MAX && take_step(in, list, out)) ++out->count;
}

sh_reason broken_reason(void) { return broken; }

void forget_arguments(sh_error **error) {
  if (error != NULL && *error == NULL) {
    *error = broken_error;
    broken_error = NULL;
  }
  while (buffer_count > 0) sh_buffer_free(&buffers[--buffer_count]);
  sh_error_free(broken_error);
  broken_error = NULL;
  broken = SH_OK;
  is_inexpressible = 0;
}
