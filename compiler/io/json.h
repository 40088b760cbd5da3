/* Pieces of JSON. */
#ifndef MOECC_IO_JSON_H
#define MOECC_IO_JSON_H

#include "compiler.h"

/* The text as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
const char *json_text(Ctx *c, const char *s);
/* The number, or null if it is none that JSON has. */
const char *json_number(Ctx *c, double x);

#endif
