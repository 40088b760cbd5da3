/* Lines of emitted C: none longer than a page is wide, broken and aligned as clang-format would. */
#ifndef MOECC_EMIT_LINES_H
#define MOECC_EMIT_LINES_H

#include "compiler.h"

enum { LINE_COLUMNS = 120 };

/* Adds one line and its newline; a long one is broken behind commas and operators, and goes on below what follows the
 * bracket it was broken in. */
void line_add(Text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Adds text of several lines, each as line_add does. */
void lines_add(Text *t, const char *text);
/* Adds a comment, broken between words, indented by so many columns. The text must be harmless; its lines stay apart.
 */
void line_comment(Text *t, int indent, const char *text);

/* Lines whose last parts (comments, or values of macros) stand below each other. */
typedef struct {
  Ctx *ctx;
  const char **line, **part;
  size_t n, cap_line, cap_part;
} Columns;
void columns_add(Columns *c, const char *line, const char *part); /* part NULL: none */
void columns_write(Columns *c, Text *t);                          /* and empties it */

#endif
