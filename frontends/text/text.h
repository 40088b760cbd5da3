/* Inside the text frontend: the scanner that read.c and expr.c share, and the printer's choices (also used by the pass
 * tests, which compare graphs by their text).
 */
#ifndef MOECC_TEXT_H
#define MOECC_TEXT_H

#include "compiler.h"

/* ---- scan.c: characters to tokens ---- */

typedef struct {
  Ctx *ctx;
  const char *origin; /* what error positions begin with */
  const char *text;   /* zero-terminated */
  const char *p;      /* the next character */
  int depth;          /* of nested graphs and terms */
} Scanner;

typedef enum { LIT_INT, LIT_FLOAT, LIT_STRING } LiteralKind;
typedef struct {
  LiteralKind kind;
  const char *at; /* where it starts, for messages and strtod */
  size_t len;
  const char *s; /* LIT_STRING: with escapes resolved */
} Literal;

enum { MAX_NESTING = 32 };

Scanner scan_start(Ctx *c, const char *text, const char *origin);
/* "origin:line:column" of a place in the text. */
const char *scan_place(Scanner *s, const char *at);
/* Leaves with the message, which gets the place of `at` (NULL: the next token) in front. */
_Noreturn void scan_fail(Scanner *s, const char *at, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The same, but goes on: for errors of which several can be listed. */
void scan_report(Scanner *s, const char *at, const char *fmt, ...) PRINTF_LIKE(3, 4);
void scan_enter(Scanner *s); /* one level deeper; leaves when nested too deeply */

char scan_peek(Scanner *s);            /* the next character after white space and comments; 0 at the end */
bool scan_accept(Scanner *s, char ch); /* takes it if it is next */
void scan_expect(Scanner *s, char ch); /* leaves if it is not */
char *scan_identifier(Scanner *s);     /* letters, digits and _; NULL if none is next */
const char *scan_peek_identifier(Scanner *s);
char *scan_name(Scanner *s);          /* an identifier or a quoted string; leaves if neither */
Literal scan_literal(Scanner *s);     /* number or quoted string; leaves if neither */
int64_t scan_integer(Scanner *s);     /* a literal that is an int64 */
double scan_number(const Literal *l); /* of a numeric literal */
int64_t literal_integer(Scanner *s, const Literal *l);

/* ---- read.c ---- */

/* `name [: type] = value`; op says which kinds are expected (OP_NONE: anything goes). */
Attr text_read_attr(Scanner *s, Op op);

/* ---- expr.c: Node.expr as text ---- */

Expr *text_read_expr(Graph *g, const char *text, const char *origin, int n_in);
char *text_of_expr(Ctx *c, const Expr *e);

/* ---- print.c ---- */

typedef struct {
  int64_t full; /* constants of up to so many elements are printed in full */
  bool rename;  /* inner values and constants are renumbered in order of use: v0, v1 …, c0, c1 … */
  bool types;   /* types of inner values are listed */
  bool node_names;
  bool scopes; /* as comments */
} TextStyle;

void text_print_styled(Graph *g, Text *out, const TextStyle *style);
void text_attr(Text *t, const Attr *a); /* `name: kind = value` */
void text_quoted(Text *t, const char *s);
void text_float(Text *t, double v); /* shortest that reads back to the same float (or double) */

#endif
