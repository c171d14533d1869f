#include "flat_json.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static char *skip_space(char *at) {
  while (*at != '\0' && isspace((unsigned char)*at)) ++at;
  return at;
}

/* The byte that the escape behind the backslash at `at` stands for, and how many bytes it takes;
 * 0 for one that is not understood. */
static char escaped_byte(const char *at, size_t *length) {
  static const char kNames[] = "\"\\/bfnrt";
  static const char kBytes[] = "\"\\/\b\f\n\r\t";
  const char *name = at[1] == '\0' ? NULL : strchr(kNames, at[1]);
  char digits[5] = {0};
  char *end = NULL;
  unsigned long number;
  *length = 2;
  if (name != NULL) return kBytes[name - kNames];
  if (at[1] != 'u' || strlen(at) < 6) return '\0';
  memcpy(digits, at + 2, 4);
  number = strtoul(digits, &end, 16);
  *length = 6;
  return end == digits + 4 && number < 0x80 ? (char)number : '\0';
}

/* Ends the string that begins after the quote at `*at`, and moves behind it. NULL when it does not
 * end. */
static char *take_string(char **at) {
  char *const begin = *at + 1;
  char *to = begin;
  const char *from = begin;
  if (**at != '"') return NULL;
  while (*from != '"') {
    size_t length = 1;
    const char byte = *from == '\\' ? escaped_byte(from, &length) : *from;
    if (byte == '\0') return NULL;
    *to++ = byte;
    from += length;
  }
  *at = begin + (from - begin) + 1;
  *to = '\0';
  return begin;
}

static int take_number(char **at, flat_json_member *member) {
  char *end = *at;
  const int negative = *end == '-';
  if (negative) ++end;
  if (!isdigit((unsigned char)*end)) return 0;
  errno = 0;
  if (negative) {
    member->number = (uint64_t)strtoll(*at, &end, 10);
  } else {
    member->number = strtoull(*at, &end, 10);
  }
  member->is_number = 1;
  member->fits = errno == 0;
  member->text = *at;
  *at = end;
  return 1;
}

int flat_json_parse(char *line, flat_json *object) {
  char *at = skip_space(line);
  object->count = 0;
  if (*at != '{') return 0;
  at = skip_space(at + 1);
  while (*at != '}') {
    flat_json_member *member = &object->members[object->count];
    if (object->count == FLAT_JSON_MEMBERS_MAX) return 0;
    memset(member, 0, sizeof(*member));
    member->key = take_string(&at);
    if (member->key == NULL) return 0;
    at = skip_space(at);
    if (*at != ':') return 0;
    at = skip_space(at + 1);
    if (*at == '"') {
      member->text = take_string(&at);
      if (member->text == NULL) return 0;
    } else if (!take_number(&at, member)) {
      return 0;
    }
    ++object->count;
    at = skip_space(at);
    if (*at == ',') {
      at = skip_space(at + 1);
    } else if (*at != '}') {
      return 0;
    }
  }
  return 1;
}

const flat_json_member *flat_json_find(const flat_json *object, const char *key) {
  size_t i;
  for (i = 0; i < object->count; ++i) {
    if (strcmp(object->members[i].key, key) == 0) return &object->members[i];
  }
  return NULL;
}

const char *flat_json_text(const flat_json *object, const char *key, const char *missing) {
  const flat_json_member *member = flat_json_find(object, key);
  return member == NULL ? missing : member->text;
}

uint64_t flat_json_number(const flat_json *object, const char *key, uint64_t missing) {
  const flat_json_member *member = flat_json_find(object, key);
  return member == NULL ? missing : member->number;
}
