/* Kernels from templates: holes are filled token by token; equal requests give the same kernel. The rules that
 * templates follow stand in codegen_templates/README.md. */
#include "emit/embedded.h"
#include "lower/lower.h"

#include <ctype.h>
#include <string.h>

enum { MAX_HOLES = 48 };

typedef struct {
  const char *name, *value; /* as identifiers are replaced */
  const char *text;         /* of a function hole: emitted in front of the kernel */
} Fill;

typedef struct {
  Fill fill[MAX_HOLES];
  int n;
  const char *kernel;
} Fills;

static bool is_name(char ch) { return isalnum((unsigned char)ch) || ch == '_'; }

static const Fill *find_fill(const Fills *f, const char *name, size_t len) {
  for (int i = 0; i < f->n; i++)
    if (strlen(f->fill[i].name) == len && memcmp(f->fill[i].name, name, len) == 0) return &f->fill[i];
  return NULL;
}

/* Copies text with every hole's name replaced, and KERNEL_x by the kernel's name and _x. */
static void substitute(Text *out, const Fills *f, const char *text, const char *end) {
  while (text < end) {
    if (!is_name(*text)) {
      const char *stop = text;
      while (stop < end && !is_name(*stop)) stop++;
      text_write(out, text, (size_t)(stop - text));
      text = stop;
      continue;
    }
    const char *stop = text;
    while (stop < end && is_name(*stop)) stop++;
    size_t len = (size_t)(stop - text);
    const Fill *fill = find_fill(f, text, len);
    if (fill)
      text_add(out, "%s", fill->value);
    else if (len > 7 && memcmp(text, "KERNEL_", 7) == 0)
      text_add(out, "%s%.*s", f->kernel, (int)len - 6, text + 6);
    else
      text_write(out, text, len);
    text = stop;
  }
}

static const char *line_end(const char *s) {
  const char *e = strchr(s, '\n');
  return e ? e + 1 : s + strlen(s);
}

/* Behind a function that starts at p: the end of its line if the brace closes there, else of the next line "}". */
static const char *function_end(const char *p) {
  const char *stop = line_end(p);
  if (stop - p > 2 && stop[-2] == '}') return stop;
  while (*stop && *stop != '}') stop = line_end(stop);
  return line_end(stop);
}

static const char *given_hole(const Hole *holes, const char *name) {
  for (; holes && holes->name; holes++)
    if (strcmp(holes->name, name) == 0) return holes->value;
  return NULL;
}

static void add_fill(Ctx *c, Fills *f, const char *name, const char *value, bool function) {
  if (f->n == MAX_HOLES) ctx_fail(c, NULL, "internal error: a template has more than %d holes", MAX_HOLES);
  Fill *fill = &f->fill[f->n++];
  fill->name = name;
  fill->value = value;
  if (!function) return;
  fill->text = value;
  Text own = {.ctx = c};
  text_add(&own, "%s_", f->kernel);
  for (const char *p = name; *p; p++) text_add(&own, "%c", tolower((unsigned char)*p));
  fill->value = own.text;
}

/* Reads the defaults between the hole marks: "#define NAME value" and static inline functions ending in a line "}". */
static void read_holes(Ctx *c, Fills *f, const char *p, const char *end, const Hole *given) {
  while (p < end) {
    const char *stop = line_end(p);
    if (strncmp(p, "#define ", 8) == 0) {
      const char *name = p + 8, *value = name;
      while (is_name(*value)) value++;
      char *hole = ctx_strndup(c, name, (size_t)(value - name));
      while (*value == ' ') value++;
      size_t len = (size_t)(stop - value);
      const char *comment = memchr(value, '/', len);
      if (comment && comment[1] == '*') len = (size_t)(comment - value);
      while (len && isspace((unsigned char)value[len - 1])) len--;
      const char *mine = given_hole(given, hole);
      if (strcmp(hole, "KERNEL") == 0) mine = f->kernel;
      add_fill(c, f, hole, mine ? mine : ctx_strndup(c, value, len), false);
    } else if (strncmp(p, "static inline ", 14) == 0) {
      const char *name = strchr(p, '('), *from = name;
      while (is_name(from[-1])) from--;
      char *hole = ctx_strndup(c, from, (size_t)(name - from));
      stop = function_end(p);
      const char *mine = given_hole(given, hole);
      add_fill(c, f, hole, mine ? mine : ctx_strndup(c, p, (size_t)(stop - p)), true);
    }
    p = stop;
  }
}

static const char *find_prototype(Ctx *c, const char *text, const char *name) {
  const char *start = strstr(text, ctx_format(c, "\nvoid %s(", name));
  if (!start) ctx_fail(c, NULL, "internal error: template of %s has no function void KERNEL(...)", name);
  const char *end = strchr(start, ')');
  return ctx_strndup(c, start + 1, (size_t)(end - start));
}

static void instantiate(Ctx *c, Kernel *k) {
  const EmbeddedFile *file = embedded_find(ctx_format(c, "codegen_templates/%s.c", k->template));
  if (!file) ctx_fail(c, NULL, "internal error: no template %s", k->template);
  const char *holes = strstr(file->text, "/* holes */\n"), *end = strstr(file->text, "/* end holes */\n");
  const char *include = strstr(file->text, "#include \"defaults.h\"");
  if (!holes || !end || !include) ctx_fail(c, NULL, "internal error: template %s lacks its marks", k->template);
  Fills *f = ctx_alloc(c, sizeof *f);
  f->kernel = k->name;
  read_holes(c, f, holes + 12, end, k->hole);
  for (const Hole *h = k->hole; h->name; h++)
    if (!find_fill(f, h->name, strlen(h->name)))
      ctx_fail(c, NULL, "internal error: template %s has no hole %s", k->template, h->name);
  Text out = {.ctx = c};
  substitute(&out, f, file->text, include);
  for (int i = 0; i < f->n; i++)
    if (f->fill[i].text) {
      substitute(&out, f, f->fill[i].text, f->fill[i].text + strlen(f->fill[i].text));
      text_add(&out, "\n");
    }
  const char *body = end + 16;
  while (*body == '\n') body++;
  substitute(&out, f, body, file->text + file->bytes);
  k->text = out.text;
  k->prototype = find_prototype(c, ctx_format(c, "\n%s", k->text), k->name);
  k->pool = strstr(k->prototype, "(const moecc_pool *pool") != NULL;
}

static bool same_kernel(const Kernel *k, const char *template, const Hole *holes) {
  if (strcmp(k->template, template) != 0) return false;
  size_t n = 0;
  for (; holes[n].name; n++)
    if (n >= k->n_holes || strcmp(k->hole[n].name, holes[n].name) != 0 || strcmp(k->hole[n].value, holes[n].value) != 0)
      return false;
  return n == k->n_holes;
}

static const char *free_name(Program *p, const char *name) {
  const char *candidate = name;
  for (int suffix = 2;; suffix++) {
    bool taken = false;
    for (size_t i = 0; i < p->n_kernels; i++) taken |= strcmp(p->kernel[i]->name, candidate) == 0;
    if (!taken) return ctx_strdup(p->ctx, candidate);
    candidate = ctx_format(p->ctx, "%s_%d", name, suffix);
  }
}

Kernel *low_kernel(Program *p, const char *template, const char *name, const Hole *holes) {
  static const Hole none[] = {{0}};
  if (!holes) holes = none;
  for (size_t i = 0; i < p->n_kernels; i++)
    if (same_kernel(p->kernel[i], template, holes)) return p->kernel[i];
  Ctx *c = p->ctx;
  Kernel *k = ctx_alloc(c, sizeof *k);
  k->name = free_name(p, name);
  k->template = ctx_strdup(c, template);
  while (holes[k->n_holes].name) k->n_holes++;
  k->hole = ctx_array(c, k->n_holes + 1, sizeof *k->hole);
  for (size_t i = 0; i < k->n_holes; i++)
    k->hole[i] = (Hole){ctx_strdup(c, holes[i].name), ctx_strdup(c, holes[i].value)};
  instantiate(c, k);
  p->kernel = ctx_grow(c, p->kernel, p->n_kernels, &p->cap_kernels, sizeof *p->kernel);
  p->kernel[p->n_kernels++] = k;
  return k;
}
