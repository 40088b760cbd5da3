/* Breaking lines where clang-format does: behind commas and operators, as far out of brackets as there is a place for
 * it. */
#include "emit/lines.h"

#include <string.h>

enum { DEEPEST = 32 };

/* The brackets that are open: where what they hold begins. */
typedef struct {
  size_t column[DEEPEST];
  int depth;
} Brackets;

/* One character at `column`; returns the quote that text is in, 0 outside. */
static char follow(Brackets *b, const char *p, size_t column, char quote) {
  if (quote) return *p == quote && p[-1] != '\\' ? 0 : quote;
  if (*p == '"' || *p == '\'') return *p;
  if (strchr("([{", *p) && b->depth < DEEPEST) b->column[b->depth++] = column + 1;
  if (strchr(")]}", *p) && b->depth > 0) b->depth--;
  return 0;
}

/* May a line end behind p? 0: no, else the more the better: behind a comma, a connective, an operator. */
static int breakable(const char *line, const char *p) {
  if (p[0] && p[1] != ' ') return 0;
  if (*p == ',' || *p == ';') return 3;
  if (*p == '?' || *p == ':') return 2;
  if (p <= line + 1 || !strchr("|&+-*", *p) || !(p[-1] == *p || p[-1] == ' ')) return 0;
  return *p == '|' || *p == '&' ? 2 : 1;
}

/* The place to end the line that starts at `from`, in the given column: within the page, in as few brackets as
 * possible, then where it is best, then as far right as possible. NULL: there is none. *open becomes the brackets that
 * are open behind it. */
static const char *find_break(const char *from, size_t column, Brackets *open) {
  Brackets now = *open, best_open = now;
  const char *best = NULL;
  char quote = 0;
  int best_rank = 0;
  size_t start = column;
  for (const char *p = from; *p && column < LINE_COLUMNS; p++, column++) {
    quote = follow(&now, p, column, quote);
    int rank = quote || column < start + 8 ? 0 : breakable(from, p); /* hardly anything would stand before it */
    if (!rank || (best && now.depth > best_open.depth)) continue;
    if (best && now.depth == best_open.depth && rank < best_rank) continue;
    best = p;
    best_rank = rank;
    best_open = now;
  }
  if (best) *open = best_open;
  return best;
}

/* A line of a comment ("/ * text", " * text") goes on behind another " * ". */
static void break_comment(Text *t, const char *line, size_t indent) {
  while (strlen(line) > LINE_COLUMNS) {
    size_t n = LINE_COLUMNS;
    while (n > LINE_COLUMNS / 2 && line[n] != ' ') n--;
    if (line[n] != ' ') break;
    text_write(t, line, n);
    line = ctx_format(t->ctx, "\n%*s * %s", (int)indent, "", line + n + 1);
    text_write(t, line++, 1);
  }
  text_add(t, "%s\n", line);
}

/* Where a line may end that has no better place: behind its first bracket. Nothing is then held to that bracket. */
static const char *first_bracket(const char *from, size_t column) {
  const char *bracket = strchr(from, '(');
  return bracket && column + (size_t)(bracket - from) < LINE_COLUMNS ? bracket : NULL;
}

static void begin_line(Text *t, const char **rest, size_t column) {
  while (**rest == ' ') ++*rest;
  text_add(t, "\n%*s", (int)column, "");
}

/* What an initialiser's braces hold begins on a line of its own. */
static void break_code(Text *t, const char *line) {
  Brackets open = {.depth = 0};
  size_t column = 0, indent = strspn(line, " ");
  const char *brace = strstr(line, " = {");
  if (brace) {
    text_write(t, line, (size_t)(brace + 4 - line));
    line = brace + 4;
    open = (Brackets){.depth = 1, .column = {column = indent + 4}};
    begin_line(t, &line, column);
  }
  while (column + strlen(line) > LINE_COLUMNS) {
    const char *end = find_break(line + (column ? 0 : indent), column ? column : indent, &open);
    if (!end) end = first_bracket(line + (column ? 0 : indent), column ? column : indent);
    if (!end) break;
    text_write(t, line, (size_t)(end + 1 - line));
    line = end + 1;
    column = open.depth ? open.column[open.depth - 1] : indent + 4;
    begin_line(t, &line, column);
  }
  text_add(t, "%s\n", line);
}

/* A function on one line becomes one on three. */
static bool break_function(Text *t, const char *line) {
  size_t n = strlen(line);
  const char *body = strstr(line, ") { ");
  if (!body || line[0] == ' ' || n < 2 || strcmp(line + n - 2, " }") != 0) return false;
  line_add(t, "%.*s", (int)(body + 3 - line), line);
  line_add(t, "  %.*s", (int)(line + n - 2 - (body + 4)), body + 4);
  text_add(t, "}\n");
  return true;
}

static void break_line(Text *t, const char *line) {
  const char *start = line + strspn(line, " ");
  if (strncmp(start, "/* ", 3) == 0 || strncmp(start, "* ", 2) == 0)
    break_comment(t, line, (size_t)(start - line) - (*start == '*'));
  else if (strlen(line) <= LINE_COLUMNS || *start == '#') /* a directive ends with its line */
    text_add(t, "%s\n", line);
  else if (!break_function(t, line))
    break_code(t, line);
}

void line_add(Text *t, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  char *line = ctx_vformat(t->ctx, fmt, ap);
  va_end(ap);
  break_line(t, line);
}

void lines_add(Text *t, const char *text) {
  while (*text) {
    size_t n = strcspn(text, "\n");
    if (n <= LINE_COLUMNS) {
      text_write(t, text, n);
      text_write(t, "\n", 1);
    } else {
      break_line(t, ctx_strndup(t->ctx, text, n));
    }
    text += n;
    if (*text) text++;
  }
}

void line_comment(Text *t, int indent, const char *text) {
  const char *mark = "/*";
  for (size_t n; mark; text += n + (text[n] == '\n'), mark = *text ? " *" : NULL) {
    n = strcspn(text, "\n");
    const char *space = n ? " " : "", *end = text[n] && text[n + 1] ? "" : " */";
    break_comment(t, ctx_format(t->ctx, "%*s%s%s%.*s%s", indent, "", mark, space, (int)n, text, end), (size_t)indent);
  }
}

/* ---- columns ---- */

void columns_add(Columns *c, const char *line, const char *part) {
  c->line = ctx_grow(c->ctx, c->line, c->n, &c->cap_line, sizeof *c->line);
  c->part = ctx_grow(c->ctx, c->part, c->n, &c->cap_part, sizeof *c->part);
  c->line[c->n] = line;
  c->part[c->n++] = part;
}

void columns_write(Columns *c, Text *t) {
  size_t widest = 0;
  for (size_t i = 0; i < c->n; i++)
    if (c->part[i] && strlen(c->line[i]) > widest) widest = strlen(c->line[i]);
  for (size_t i = 0; i < c->n; i++) {
    if (c->part[i])
      text_add(t, "%-*s %s\n", (int)widest, c->line[i], c->part[i]);
    else
      line_add(t, "%s", c->line[i]);
  }
  c->n = 0;
}
