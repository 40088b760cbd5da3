/* Identifiers and literals in emitted C: nothing from a model reaches a file or a path raw. */
#ifndef MOECC_EMIT_NAMES_H
#define MOECC_EMIT_NAMES_H

#include "compiler.h"

typedef struct NameSet NameSet;
NameSet *names_new(Ctx *c);
/* The name, or the name with _2, _3 …, whichever is not in the set yet; it is then. Case counts. */
const char *name_unique(NameSet *s, const char *name);
bool name_taken(const NameSet *s, const char *name);
/* Letters, digits and single underscores; never empty, a keyword, reserved, or beginning with a digit. At most 63 long.
 */
const char *name_identifier(Ctx *c, const char *text);
/* emit/network_name.c: the same for a network, whose name stands alone in C: nothing that the C library or the driver
 * uses. */
const char *network_name(Ctx *c, const char *text);
bool name_in_library(const char *name);                 /* is it a function or type of the C library? */
const char *name_upper(Ctx *c, const char *identifier); /* for macros */
/* Text for a C comment or string: printable ASCII, without comment marks, quotes and backslashes; at most 200 long. */
const char *text_harmless(Ctx *c, const char *text);
/* For each port a name that is safe in a path and unlike the others': what the driver calls its files. */
const char **port_file_names(Ctx *c, Value *const *ports, size_t n);
/* The inside of a C string literal that has exactly these bytes. */
const char *c_string(Ctx *c, const char *text);

#endif
