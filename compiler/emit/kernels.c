/* N_kernels.h and N_kernels.c: every kernel that the network's steps call, once. */
#include "emit/emit.h"
#include "emit/lines.h"

#include <string.h>

typedef struct {
  bool *used; /* by index in the program */
  const Program *program;
} Used;

static void mark(const Used *u, const Kernel *k) {
  for (size_t i = 0; i < u->program->n_kernels; i++)
    if (u->program->kernel[i] == k) u->used[i] = true;
}

static bool *used_kernels(Emission *e) {
  Used u = {ctx_array(e->ctx, e->program->n_kernels + 1, sizeof *u.used), e->program};
  for (const Step *s = e->program->first; s; s = s->next) {
    if (s->kernel) mark(&u, s->kernel);
    for (size_t i = 0; i < s->n_body; i++) mark(&u, s->body[i].kernel);
  }
  return u.used;
}

bool kernel_used(const Emission *e, const Kernel *k) {
  for (const Step *s = e->program->first; s; s = s->next) {
    if (s->kernel == k) return true;
    for (size_t i = 0; i < s->n_body; i++)
      if (s->body[i].kernel == k) return true;
  }
  return false;
}

/* ---- text that has become longer with the kernel's name ---- */

/* What stands on several lines, in one. */
static const char *on_one_line(Ctx *c, const char *text, size_t n) {
  size_t indent = strspn(text, " ");
  Text t = {.ctx = c};
  text_write(&t, text, indent);
  for (size_t i = indent; i < n; i++) {
    bool space = text[i] == ' ' || text[i] == '\n';
    if (space && t.len > indent && t.text[t.len - 1] == ' ') continue;
    text_write(&t, space ? " " : text + i, 1);
  }
  return t.text;
}

static bool is_comment(const char *line) {
  line += strspn(line, " ");
  return *line == '#' || strncmp(line, "/*", 2) == 0 || strncmp(line, "* ", 2) == 0 || strncmp(line, "*/", 2) == 0;
}

/* Bytes of the statement, or function head, that begins with this line: up to the end of the line on which its brackets
 * are closed. Braces count in initialisers only. */
static size_t statement_length(const char *line) {
  size_t n = strcspn(line, "\n");
  const char *initialiser = strstr(line, "= {");
  bool braces = initialiser && initialiser < line + n && line[n - 1] != '{';
  int depth = 0;
  for (const char *p = line; *p; p++) {
    if (*p == '\n' && depth <= 0) return (size_t)(p - line);
    if (*p == '(' || (*p == '{' && braces)) depth++;
    if (*p == ')' || (*p == '}' && braces)) depth--;
  }
  return n;
}

static void add_kernel(Text *t, const char *text) {
  while (*text) {
    size_t n = is_comment(text) ? strcspn(text, "\n") : statement_length(text);
    bool function = strncmp(text + n, "\n{\n", 3) == 0;
    lines_add(t, ctx_format(t->ctx, "%s%s\n", n ? on_one_line(t->ctx, text, n) : "", function ? " {" : ""));
    text += n + (function ? 2 : 0);
    if (*text) text++;
  }
}

char *emit_kernels_header(Emission *e) {
  Text t = {.ctx = e->ctx};
  const bool *used = used_kernels(e);
  line_comment(&t, 0,
               ctx_format(e->ctx,
                          "%s_kernels.h: the network's kernels. %s_kernels.c says of each what it computes, and what "
                          "its arguments are.",
                          e->name, e->name));
  text_add(&t, "#ifndef %s_KERNELS_H\n#define %s_KERNELS_H\n\n#include \"moecc_rt.h\"\n\n", e->upper, e->upper);
  for (size_t i = 0; i < e->program->n_kernels; i++) {
    const char *prototype = e->program->kernel[i]->prototype;
    if (used[i]) line_add(&t, "%s;", on_one_line(e->ctx, prototype, strlen(prototype)));
  }
  text_add(&t, "\n#endif\n");
  return t.text;
}

char *emit_kernels(Emission *e) {
  Text t = {.ctx = e->ctx};
  const bool *used = used_kernels(e);
  text_add(&t,
           "/* %s_kernels.c: kernels, for vectors of %d floats (one float under tcc, which has no vectors). */\n"
           "#include \"%s_kernels.h\"\n\n#include <string.h>\n\n",
           e->name, e->program->target->lanes, e->name);
  text_add(&t, "#include \"moecc_simd.h\"\n");
  static const char *const headers[] = {"math", "rows", "gemm", "depthwise", "resize_conv"};
  for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) text_add(&t, "#include \"moecc_%s.h\"\n", headers[i]);
  for (size_t i = 0; i < e->program->n_kernels; i++) {
    if (!used[i]) continue;
    text_add(&t, "\n");
    add_kernel(&t, e->program->kernel[i]->text);
  }
  return t.text;
}
