/* Breaking lines where clang-format does: behind commas and operators, as far out of brackets as there is a place for it. */
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

/* May a line end behind p? There is a space behind it then. */
static bool breakable(const char *line, const char *p) {
  if (p[0] && p[1] != ' ') return false;
  if (*p == ',' || *p == ';') return true;
  if (*p == '?' || *p == ':' || (*p == '=' && p[-1] == ' ')) return true;
  return p > line + 1 && strchr("|&+-*", *p) && (p[-1] == *p || p[-1] == ' ');
}

/* The place to end the line that starts at `from`, in the given column: within the page, in as few brackets as possible, as
 * far right as possible. NULL: there is none. *open becomes the brackets that are open behind it. */
static const char *find_break(const char *from, size_t column, Brackets *open) {
  Brackets now = *open, best_open = now;
  const char *best = NULL;
  char quote = 0;
  size_t start = column;
  for (const char *p = from; *p && column < LINE_COLUMNS; p++, column++) {
    quote = follow(&now, p, column, quote);
    bool early = column < start + 8; /* hardly anything would stand before it */
    if (quote || early || !breakable(from, p) || (best && now.depth > best_open.depth)) continue;
    if (*p == '=' && best) continue;
    best = p;
    best_open = now;
  }
  if (best) *open = best_open;
  return best;
}

static void break_line(Text *t, const char *line) {
  Brackets open = {.depth = 0};
  size_t column = 0, indent = strspn(line, " ");
  while (column + strlen(line) > LINE_COLUMNS) {
    const char *end = find_break(line + (column ? 0 : indent), column ? column : indent, &open);
    if (!end) break;
    text_write(t, line, (size_t)(end + 1 - line));
    line = end + 1;
    while (*line == ' ') line++;
    column = open.depth ? open.column[open.depth - 1] : indent + 4;
    text_add(t, "\n%*s", (int)column, "");
  }
  text_add(t, "%s\n", line);
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
  size_t width = (size_t)(LINE_COLUMNS - indent - 6), len = strlen(text);
  text_add(t, "%*s/* ", indent, "");
  while (len > width) {
    size_t n = width;
    while (n > width / 2 && text[n] != ' ') n--;
    if (text[n] != ' ') n = width;
    text_add(t, "%.*s\n%*s * ", (int)n, text, indent, "");
    text += n, len -= n;
    while (*text == ' ') text++, len--;
  }
  text_add(t, "%s */\n", text);
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
    if (c->part[i]) text_add(t, "%-*s %s\n", (int)widest, c->line[i], c->part[i]);
    else line_add(t, "%s", c->line[i]);
  }
  c->n = 0;
}
