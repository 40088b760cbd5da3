/* Characters to tokens, as ONNX's own text parser takes them: white space and #-comments separate, identifiers are
 * ASCII, strings know only the escapes \" and \\ (any escaped character stands for itself), numbers are C's without
 * hexadecimal, plus inf, infinity and nan. Every error has its line and column.
 */
#include "text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_space(char ch) { return ch == ' ' || (ch >= '\t' && ch <= '\r'); }
static bool is_alpha(char ch) { return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z'); }
static bool is_digit(char ch) { return ch >= '0' && ch <= '9'; }
static bool is_word(char ch) { return is_alpha(ch) || is_digit(ch) || ch == '_'; }

Scanner scan_start(Ctx *c, const char *text, const char *origin) {
  return (Scanner){.ctx = c, .origin = origin ? origin : "text", .text = text, .p = text};
}

const char *scan_place(Scanner *s, const char *at) {
  int line = 1, column = 1;
  for (const char *p = s->text; p < at; p++) {
    column = *p == '\n' ? 1 : column + 1;
    if (*p == '\n') line++;
  }
  return ctx_format(s->ctx, "%s:%d:%d", s->origin, line, column);
}

static char *placed(Scanner *s, const char *at, const char *fmt, va_list ap) {
  if (!at) {
    scan_peek(s);
    at = s->p;
  }
  return ctx_format(s->ctx, "%s: %s", scan_place(s, at), ctx_vformat(s->ctx, fmt, ap));
}

void scan_fail(Scanner *s, const char *at, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const char *message = placed(s, at, fmt, ap);
  va_end(ap);
  ctx_fail(s->ctx, NULL, "%s", message);
}

void scan_report(Scanner *s, const char *at, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const char *message = placed(s, at, fmt, ap);
  va_end(ap);
  ctx_report(s->ctx, NULL, "%s", message);
}

void scan_enter(Scanner *s) {
  if (++s->depth > MAX_NESTING) scan_fail(s, NULL, "nested deeper than %d", MAX_NESTING);
}

char scan_peek(Scanner *s) {
  for (;;) {
    while (is_space(*s->p)) s->p++;
    if (*s->p != '#') return *s->p;
    while (*s->p && *s->p != '\n') s->p++;
  }
}

bool scan_accept(Scanner *s, char ch) {
  if (scan_peek(s) != ch || ch == 0) return false;
  s->p++;
  return true;
}

void scan_expect(Scanner *s, char ch) {
  if (scan_accept(s, ch)) return;
  char next = scan_peek(s);
  if (next == 0) scan_fail(s, NULL, "'%c' expected, but the text ends", ch);
  scan_fail(s, NULL, "'%c' expected, not '%c'", ch, next);
}

char *scan_identifier(Scanner *s) {
  char first = scan_peek(s);
  if (!is_alpha(first) && first != '_') return NULL;
  const char *from = s->p;
  while (is_word(*s->p)) s->p++;
  return ctx_strndup(s->ctx, from, (size_t)(s->p - from));
}

const char *scan_peek_identifier(Scanner *s) {
  scan_peek(s);
  const char *from = s->p;
  const char *id = scan_identifier(s);
  s->p = from;
  return id;
}

char *scan_name(Scanner *s) {
  if (scan_peek(s) == '"') return (char *)scan_literal(s).s;
  char *id = scan_identifier(s);
  if (!id) scan_fail(s, NULL, "a name is expected");
  return id;
}

static Literal scan_string(Scanner *s) {
  Literal l = {.kind = LIT_STRING, .at = s->p++};
  while (*s->p && *s->p != '"') s->p += s->p[0] == '\\' && s->p[1] ? 2 : 1;
  if (!*s->p) scan_fail(s, l.at, "the string that starts here does not end");
  l.len = (size_t)(++s->p - l.at);
  char *out = ctx_alloc(s->ctx, l.len);
  size_t n = 0;
  for (const char *p = l.at + 1; p < s->p - 1; p++) {
    if (*p == '\\') p++;
    out[n++] = *p;
  }
  l.s = out;
  return l;
}

/* inf, infinity or nan; returns their length. */
static size_t special_float(const char *p) {
  static const char *const words[] = {"infinity", "inf", "nan"};
  for (size_t i = 0; i < 3; i++) {
    size_t n = strlen(words[i]);
    if (strncasecmp(p, words[i], n) == 0 && !is_word(p[n])) return n;
  }
  return 0;
}

Literal scan_literal(Scanner *s) {
  if (scan_peek(s) == '"') return scan_string(s);
  Literal l = {.kind = LIT_INT, .at = s->p};
  if (*s->p == '-') s->p++;
  size_t special = special_float(s->p);
  if (special) {
    l.kind = LIT_FLOAT;
    s->p += special;
  } else if (is_digit(*s->p)) {
    while (is_digit(*s->p) || (*s->p == '.' && l.kind == LIT_INT)) {
      if (*s->p++ == '.') l.kind = LIT_FLOAT;
    }
    if (*s->p == 'e' || *s->p == 'E') {
      l.kind = LIT_FLOAT;
      s->p++;
      if (*s->p == '+' || *s->p == '-') s->p++;
      while (is_digit(*s->p)) s->p++;
    }
  } else {
    scan_fail(s, l.at, "a number or a string is expected");
  }
  l.len = (size_t)(s->p - l.at);
  return l;
}

double scan_number(const Literal *l) { return strtod(l->at, NULL); }

int64_t literal_integer(Scanner *s, const Literal *l) {
  if (l->kind != LIT_INT) scan_fail(s, l->at, "an integer is expected");
  errno = 0;
  long long v = strtoll(l->at, NULL, 10);
  if (errno == ERANGE) scan_fail(s, l->at, "%.*s does not fit 64 bits", (int)l->len, l->at);
  return v;
}

int64_t scan_integer(Scanner *s) {
  Literal l = scan_literal(s);
  return literal_integer(s, &l);
}
