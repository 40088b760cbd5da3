/* What the functions of a piece of emitted C may put on the stack, read off its text: local arrays and structures, and
 * who mentions whom. It understands the C that templates and the runtime's headers are written in, no more. */
#ifndef MOECC_EMIT_SOURCE_H
#define MOECC_EMIT_SOURCE_H

#include "compiler.h"

typedef struct SourceCode SourceCode;

SourceCode *source_new(Ctx *c, int lanes); /* lanes: floats in a vector */
void source_read(SourceCode *s, const char *text);
/* Bytes of the locals of the deepest chain of calls from a function on, with what source.c allows for everything else
 * that each of them keeps. Fails if there is no such function, or if one calls itself. */
int64_t source_depth(SourceCode *s, const char *function);
/* The deepest of the functions that it mentions; 0: none. */
int64_t source_depth_below(SourceCode *s, const char *function);

#endif
