/* Layer by layer: the optimised graph's values against those of the plain graph, which libtcc has built from the same
 * model with no optimising pass. What is compared are the values that both still compute: the borders of layers,
 * mostly.
 *
 * Passes keep a value's identity (its number and name) only as long as it means the same, so that is how values are
 * found again; what passes add has numbers of its own.
 */
#include "cli/verify.h"
#include "io/io.h"

#include <string.h>

static bool is_computed(const Value *v) {
  return v && !v->tensor && v->producer && v->tasks && shape_count(&v->shape) > 0;
}

void layers_common(Ctx *c, const Graph *optimised, const Graph *plain, const char ***names, size_t *n, size_t *cap) {
  for (const Node *node = optimised->first; node; node = node->next)
    for (int i = 0; i < node->n_out; i++) {
      const Value *v = node->out[i], *w = v ? graph_find(plain, v->name) : NULL;
      if (!is_computed(v) || !is_computed(w) || v->dtype != w->dtype || !shape_equal(&v->shape, &w->shape)) continue;
      if (v->id != w->id && !(v->is_output && w->is_output))
        continue; /* an output's name may have moved to another value */
      *names = ctx_grow(c, *names, *n, cap, sizeof **names);
      (*names)[(*n)++] = v->name;
    }
}

/* ---- comparing; what was read is given back at once ---- */

typedef struct {
  const Tolerance *tolerance;
  const char *a, *b;
  Comparison *r;
} Files;

static void compare_files(Ctx *c, void *arg) {
  const Files *f = arg;
  *f->r = compare_tensors(f->tolerance, npy_read(c, f->a), npy_read(c, f->b));
}

static Comparison compare_apart(Ctx *c, const Tolerance *t, const char *a, const char *b) {
  Comparison r = {0};
  Files files = {t, a, b, &r};
  Ctx *inner = ctx_new();
  if (!inner) ctx_fail_status(c, EXIT_MACHINE, "out of memory");
  ExitStatus status = ctx_run(inner, compare_files, &files);
  const char *message = status ? ctx_strdup(c, ctx_message(inner, 0)) : NULL;
  ctx_free(inner);
  if (status) ctx_fail_status(c, status, "%s", message);
  return r;
}

static const char *written(const Runnable *r, const char *folder, const char *name) {
  const char *file = runnable_file(r, graph_find(r->graph, name));
  if (!file) ctx_fail(r->ctx, NULL, "internal error: \"%s\" is not given out", name);
  return ctx_format(r->ctx, "%s/%s.npy", folder, file);
}

void layers_compare(LayerResults *all, const Runnable *optimised, const Runnable *plain, const char *const *name,
                    size_t n, const Tolerance *t, const char *folder, const char *plain_folder) {
  for (size_t i = 0; i < n; i++) {
    LayerResult l = {.value = graph_find(optimised->graph, name[i])};
    l.r = compare_apart(optimised->ctx, t, written(optimised, folder, name[i]), written(plain, plain_folder, name[i]));
    if (!l.r.ok && all->first < 0) all->first = (int64_t)all->n;
    all->layer = ctx_grow(optimised->ctx, all->layer, all->n, &all->cap, sizeof l);
    all->layer[all->n++] = l;
  }
}

static void add_kernel(Text *t, const Kernel *k) { text_add(t, "%s%s", t->len ? ", " : "", k->name); }

const char *kernels_of(const Runnable *r, const Node *n) {
  Text t = {.ctx = r->ctx};
  for (const Step *s = r->program->first; s; s = s->next) {
    if (s->node->id != n->id) continue; /* not always the same struct: lowering copies nodes to change their scope */
    if (s->kind == STEP_CALL) add_kernel(&t, s->kernel);
    for (size_t i = 0; i < s->n_body; i++) add_kernel(&t, s->body[i].kernel);
  }
  return t.len ? t.text : "";
}

static bool has_kernels(const Runnable *r, const Node *n) {
  for (const Step *s = r->program->first; s; s = s->next)
    if (s->node->id == n->id) return true;
  return false;
}

const Node *computing_node(const Runnable *r, const Value *v) {
  const Node *n = v->producer;
  while (!has_kernels(r, n) && n->n_in && n->in[0] && n->in[0]->producer) n = n->in[0]->producer;
  return has_kernels(r, n) ? n : v->producer;
}
