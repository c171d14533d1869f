/* The little JSON that the conformance programs speak: one object to a line, whose values are
 * strings or whole numbers. */
#ifndef STATEHOUSE_CLIENTS_C_CONFORMANCE_FLAT_JSON_H_
#define STATEHOUSE_CLIENTS_C_CONFORMANCE_FLAT_JSON_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FLAT_JSON_MEMBERS_MAX 64

typedef struct flat_json_member {
  const char *key;
  const char *text; /* The string's characters, or the number as it was written. */
  uint64_t number;  /* 64-bit two's complement; 0 for a string. */
  int is_number;
  int fits; /* The number lies in -2^63 ... 2^64 - 1. */
} flat_json_member;

typedef struct flat_json {
  flat_json_member members[FLAT_JSON_MEMBERS_MAX];
  size_t count;
} flat_json;

/* Parses `line` in place; the result points into it. 0 when it is no such object. Of \\u escapes
 * strings may hold those of ASCII, but not of a zero byte. */
int flat_json_parse(char *line, flat_json *object);
/* The member of that key, or NULL. */
const flat_json_member *flat_json_find(const flat_json *object, const char *key);
/* Its text or number, or the value for a missing one. */
const char *flat_json_text(const flat_json *object, const char *key, const char *missing);
uint64_t flat_json_number(const flat_json *object, const char *key, uint64_t missing);

#ifdef __cplusplus
}
#endif

#endif /* STATEHOUSE_CLIENTS_C_CONFORMANCE_FLAT_JSON_H_ */
