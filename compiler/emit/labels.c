/* Exporters name values after the path of the module and the operator, with counters: here that becomes what a person
 * would have called them. */
#include "emit/labels.h"

#include <ctype.h>
#include <string.h>

enum { LONGEST = 40 };

/* The name without "_output_0" and the counters behind it. */
static char *without_suffix(Ctx *c, const char *name) {
  const char *end = NULL;
  for (const char *p = strstr(name, "_output_"); p; p = strstr(p + 1, "_output_")) end = p;
  if (end && end[8 + strspn(end + 8, "0123456789_")] == 0 && end > name)
    return ctx_strndup(c, name, (size_t)(end - name));
  return ctx_strdup(c, name);
}

/* Length of a component without the counter "_3" at its end. */
static size_t without_counter(const char *s, size_t n) {
  size_t at = n;
  while (at > 0 && isdigit((unsigned char)s[at - 1])) at--;
  return at < n && at > 1 && s[at - 1] == '_' ? at - 1 : n;
}

static bool is_operator(Ctx *c, const char *s, size_t n) {
  const char *name = ctx_strndup(c, s, without_counter(s, n));
  return op_find("", name) != OP_NONE || op_find("com.microsoft", name) != OP_NONE;
}

void label_common(char *path, const char *other) {
  size_t len = 0, whole = 0;
  while (path[len] && path[len] == other[len]) {
    if (path[len] == '/') whole = len;
    len++;
  }
  if ((!path[len] || path[len] == '/') && (!other[len] || other[len] == '/')) whole = len;
  path[whole] = 0;
}

const char *label_beyond(const char *path, const char *within) {
  while (*path == '/') path++;
  size_t n = strlen(within);
  if (n && strncmp(path, within, n) == 0 && (!path[n] || path[n] == '/')) path += n;
  while (*path == '/') path++;
  return path;
}

static bool is_task(const Graph *g, const char *word, size_t n) {
  for (size_t i = 0; i < g->n_tasks; i++)
    if (strlen(g->tasks[i].name) == n && memcmp(g->tasks[i].name, word, n) == 0) return true;
  return false;
}

const char *label_shared(Ctx *c, const Graph *g, const char *path) {
  Text t = {.ctx = c};
  text_write(&t, "", 0);
  while (*path) {
    size_t separators = strspn(path, "/."), n = strcspn(path + separators, "/.");
    bool drop = n > 0 && is_task(g, path + separators, n);
    if (!drop) text_write(&t, path, separators + n);
    path += separators + n;
  }
  return t.len ? t.text : path;
}

/* "node_linear_3" is "linear_3". */
static const char *without_prefix(const char *name) { return strncmp(name, "node_", 5) == 0 ? name + 5 : name; }

/* Components joined by underscores, lower case, none twice in a row; the last ones if that is too long. */
static const char *joined(Ctx *c, const char *path) {
  Text t = {.ctx = c};
  const char *before = "";
  size_t before_len = 0;
  text_write(&t, "", 0);
  while (*path) {
    size_t n = strcspn(path, "/");
    if (n && !(n == before_len && strncasecmp(path, before, n) == 0)) {
      if (t.len) text_write(&t, "_", 1);
      for (size_t i = 0; i < n; i++) text_add(&t, "%c", tolower((unsigned char)path[i]));
      before = path;
      before_len = n;
    }
    path += n;
    while (*path == '/') path++;
  }
  const char *text = t.text;
  while (strlen(text) > LONGEST) {
    const char *next = strpbrk(text + 1, "_.");
    if (!next || !next[1]) break;
    text = next + 1;
  }
  return name_identifier(c, text);
}

/* Cuts the last component off if it is an operator's name and something is before it. */
static void cut_operator(Ctx *c, char *path) {
  char *slash = strrchr(path, '/');
  if (slash && slash > path && is_operator(c, slash + 1, strlen(slash + 1))) *slash = 0;
}

const char *label_value(Ctx *c, const char *name, const char *within, bool full) {
  char *path = ctx_strdup(c, label_beyond(without_prefix(without_suffix(c, name)), within));
  if (!full) cut_operator(c, path);
  return joined(c, path);
}

const char *label_unit(Ctx *c, const char *name, const char *scope, const char *within, bool many, bool full) {
  if (!strchr(name, '/')) name = ctx_format(c, "%s/%s", scope, without_prefix(name));
  char *path = ctx_strdup(c, label_beyond(name, within));
  if (!full) cut_operator(c, path);
  size_t n = strlen(path);
  while (many && n > 1 && (isdigit((unsigned char)path[n - 1]) || path[n - 1] == '.')) path[--n] = 0;
  return joined(c, path);
}
