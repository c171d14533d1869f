#include "answers.h"

#include <stdio.h>

#include "dict_arguments.h"

void print_string(sh_bytes text) {
  const char *at = text.data;
  size_t i;
  putchar('"');
  for (i = 0; i < text.size; ++i) {
    if (at[i] == '"' || at[i] == '\\') putchar('\\');
    putchar(at[i]);
  }
  putchar('"');
}

void print_json(sh_bytes value) {
  sh_buffer json = {NULL, 0};
  if (sh_value_to_json(value, &json, NULL) != SH_OK) give_up("an answer holds no value");
  fputs(json.data, stdout);
  sh_buffer_free(&json);
}

void print_hex(sh_bytes bytes) {
  const unsigned char *at = bytes.data;
  size_t i;
  putchar('"');
  for (i = 0; i < bytes.size; ++i) printf("%02x", at[i]);
  putchar('"');
}

void print_done(void) { printf("{\"ok\": null}\n"); }

void print_refused(sh_reason reason, const sh_error *error) {
  printf("{\"error\": \"%s\", \"retryable\": %s}\n", sh_reason_name(reason),
         sh_error_retryable(error) ? "true" : "false");
}

sh_reason inexpressible(void) {
  printf("{\"inexpressible\": true}\n");
  return SH_OK;
}
