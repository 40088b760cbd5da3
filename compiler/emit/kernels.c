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

/* A function's head, or a prototype, that stands on several lines: in one. */
static const char *on_one_line(Ctx *c, const char *text, size_t n) {
  Text t = {.ctx = c};
  for (size_t i = 0; i < n; i++) {
    bool space = text[i] == ' ' || text[i] == '\n';
    if (space && t.len && t.text[t.len - 1] == ' ') continue;
    text_write(&t, space ? " " : text + i, 1);
  }
  return t.text;
}

/* Bytes of the function's head that begins here, up to its ")"; 0: none does. */
static size_t head_length(const char *text) {
  if (!(*text >= 'a' && *text <= 'z') || strncmp(text, "typedef", 7) == 0) return 0;
  const char *brace = strstr(text, ")\n{\n");
  return brace && strcspn(text, ";{}") > (size_t)(brace - text) ? (size_t)(brace + 1 - text) : 0;
}

/* A kernel's text, whose lines have become longer with its name. */
static void add_kernel(Text *t, const char *text) {
  while (*text) {
    size_t head = head_length(text);
    if (head) {
      line_add(t, "%s {", on_one_line(t->ctx, text, head));
      text += head + 3;
      continue;
    }
    size_t n = strcspn(text, "\n");
    lines_add(t, ctx_strndup(t->ctx, text, n ? n : 1));
    text += text[n] ? n + 1 : n;
  }
}

char *emit_kernels_header(Emission *e) {
  Text t = {.ctx = e->ctx};
  const bool *used = used_kernels(e);
  text_add(&t, "/* %s_kernels.h: the network's kernels. %s_kernels.c says of each what it computes, and what its arguments are. */\n"
               "#ifndef %s_KERNELS_H\n#define %s_KERNELS_H\n\n#include \"moecc_rt.h\"\n\n", e->name, e->name, e->upper, e->upper);
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
  text_add(&t, "/* %s_kernels.c: kernels, for vectors of %d floats (one float under tcc, which has no vectors). */\n"
               "#include \"%s_kernels.h\"\n\n#include <string.h>\n\n", e->name, e->program->target->lanes, e->name);
  text_add(&t, "#include \"moecc_simd.h\"\n");
  text_add(&t, "#include \"moecc_math.h\"\n#include \"moecc_gemm.h\"\n");
  for (size_t i = 0; i < e->program->n_kernels; i++) {
    if (!used[i]) continue;
    text_add(&t, "\n");
    add_kernel(&t, e->program->kernel[i]->text);
  }
  return t.text;
}
