/* What inspect says of a model: how much there is of what, and which tasks need it. */
#include "cli/inspect.h"

#include <stdlib.h>

size_t node_count(const Graph *g) {
  size_t n = 0;
  for (const Node *node = g->first; node; node = node->next) n++;
  return n;
}

static Share *find_share(ModelFacts *m, uint64_t tasks, size_t *cap) {
  for (size_t i = 0; i < m->n_shares; i++)
    if (m->share[i].tasks == tasks) return &m->share[i];
  m->share = ctx_grow(m->graph->ctx, m->share, m->n_shares, cap, sizeof *m->share);
  m->share[m->n_shares] = (Share){.tasks = tasks};
  return &m->share[m->n_shares++];
}

static void add(Share *to, const Share *s) {
  to->nodes += s->nodes;
  to->parameters += s->parameters;
  to->bytes += s->bytes;
}

/* More tasks first, then the first tasks first. */
static int by_tasks(const void *a, const void *b) {
  const Share *x = a, *y = b;
  int n = __builtin_popcountll(x->tasks), m = __builtin_popcountll(y->tasks);
  if (n != m) return m - n;
  return (x->tasks > y->tasks) - (x->tasks < y->tasks);
}

ModelFacts model_facts(const Graph *g, size_t nodes_read) {
  ModelFacts m = {.graph = g, .nodes_read = nodes_read};
  size_t cap = 0;
  for (const Node *n = g->first; n; n = n->next) {
    m.of[n->op]++;
    find_share(&m, n->tasks, &cap)->nodes++;
  }
  for (size_t i = 0; i < g->n_values; i++) {
    const Value *v = g->values[i];
    if (!v->tensor || !v->n_uses) continue;
    Share s = {.bytes = (int64_t)v->tensor->bytes};
    if (v->tensor->dtype != DT_I64) s.parameters = tensor_count(v->tensor);
    add(find_share(&m, v->tasks, &cap), &s);
  }
  for (size_t i = 0; i < m.n_shares; i++) add(&m.all, &m.share[i]);
  if (m.n_shares) qsort(m.share, m.n_shares, sizeof *m.share, by_tasks);
  return m;
}

Share share_of_task(const ModelFacts *m, size_t task, bool own) {
  const uint64_t bit = (uint64_t)1 << task;
  Share s = {.tasks = bit};
  for (size_t i = 0; i < m->n_shares; i++)
    if (own ? m->share[i].tasks == bit : (m->share[i].tasks & bit) != 0) add(&s, &m->share[i]);
  return s;
}

MoeFacts moe_facts(const Node *n) {
  MoeFacts m = {.layer = n->scope,
                .gate = node_string(n, "gate", ""),
                .activation = node_string(n, "activation", ""),
                .tasks = n->tasks,
                .experts = n->in[2]->shape.dim[0].n,
                .k = node_int(n, "k", 0),
                .width = n->in[0]->shape.dim[1].n,
                .hidden = n->in[2]->shape.dim[1].n,
                .tokens = n->in[0]->shape.dim[0].n,
                .normalize = node_int(n, "normalize", 0),
                .gated = n->n_own > 6 && n->in[6]};
  for (int i = 2; i < n->n_own; i++)
    if (n->in[i]) m.parameters += shape_count(&n->in[i]->shape) / m.experts;
  return m;
}
