/* N_kernels.h and N_kernels.c: every kernel that the network's steps call, once. */
#include "emit/emit.h"

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

char *emit_kernels_header(Emission *e) {
  Text t = {.ctx = e->ctx};
  const bool *used = used_kernels(e);
  text_add(&t, "/* %s_kernels.h: the network's kernels; %s_kernels.c describes each. */\n#ifndef %s_KERNELS_H\n#define %s_KERNELS_H\n\n"
               "#include \"moecc_rt.h\"\n\n", e->name, e->name, e->upper, e->upper);
  for (size_t i = 0; i < e->program->n_kernels; i++)
    if (used[i]) text_add(&t, "%s;\n", e->program->kernel[i]->prototype);
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
  for (size_t i = 0; i < e->program->n_kernels; i++)
    if (used[i]) text_add(&t, "\n%s", e->program->kernel[i]->text);
  return t.text;
}
