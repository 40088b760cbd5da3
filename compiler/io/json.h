/* Pieces of JSON. */
#ifndef MOECC_IO_JSON_H
#define MOECC_IO_JSON_H

#include "compiler.h"

/* The text as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
const char *json_text(Ctx *c, const char *s);
/* The number, or null if it is none that JSON has. */
const char *json_number(Ctx *c, double x);

/* A document as read: a member of an object has a key, a list its members in order. */
typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_TEXT, JSON_ARRAY, JSON_OBJECT } JsonKind;
typedef struct Json {
  JsonKind kind;
  const char *key, *text;
  double number; /* true is 1 */
  struct Json *first, *next;
} Json;
/* Leaves if it is none; a zero stands behind the text. */
const Json *json_read(Ctx *c, const char *text, size_t bytes);
/* NULL, or `otherwise`, where the object has no such member. */
const Json *json_member(const Json *object, const char *key);
double json_member_number(const Json *object, const char *key, double otherwise);
const char *json_member_text(const Json *object, const char *key, const char *otherwise);

#endif
