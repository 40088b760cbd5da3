/* How close the routers' choices were: float32 may choose otherwise than an exact computation where two scores are
 * nearly equal, and then no output agrees. So verify says how large the smallest margin was. */
#include "cli/verify.h"
#include "io/io.h"

#include <math.h>
#include <string.h>

enum { SCORES = 1 }; /* input of moecc.Moe */

static void add_name(Ctx *c, const char *name, const char ***names, size_t *n, size_t *cap) {
  for (size_t i = 0; i < *n; i++)
    if (strcmp((*names)[i], name) == 0) return;
  *names = ctx_grow(c, *names, *n, cap, sizeof **names);
  (*names)[(*n)++] = name;
}

void routing_wanted(Graph *g, const char ***names, size_t *n, size_t *cap) {
  for (const Node *node = g->first; node; node = node->next)
    if (node->op == OP_MOE && node->in[SCORES]->producer) add_name(g->ctx, node->in[SCORES]->name, names, n, cap);
}

/* ---- one layer ---- */

/* Probabilities in place of scores; a NaN, which sorts last, has none. */
static void to_probabilities(double *x, int64_t n) {
  double largest = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++)
    if (x[i] > largest) largest = x[i];
  for (int64_t i = 0; i < n; i++) sum += x[i] = x[i] >= -INFINITY && largest > -INFINITY ? exp(x[i] - largest) : 0;
  for (int64_t i = 0; i < n && sum > 0; i++) x[i] /= sum;
}

/* Between the k-th and the next in descending order. */
static double margin_of(double *x, int64_t n, int64_t k) {
  for (int64_t i = 0; i <= k && i < n; i++) {
    int64_t best = i;
    for (int64_t e = i + 1; e < n; e++)
      if (x[e] > x[best] || isnan(x[best])) best = e;
    double swapped = x[i];
    x[i] = x[best];
    x[best] = swapped;
  }
  return x[k - 1] - x[k];
}

double scores_margin(const Tensor *scores, int64_t k, bool softmax, int64_t *token) {
  enum { MOST = 4096 };
  double x[MOST], smallest = INFINITY;
  int64_t experts = scores->rank ? scores->dim[scores->rank - 1] : 1, count = tensor_count(scores);
  if (k < 1 || k >= experts || experts > MOST) return INFINITY;
  for (int64_t t = 0; t * experts < count; t++) {
    for (int64_t e = 0; e < experts; e++) x[e] = tensor_number(scores, t * experts + e);
    if (softmax) to_probabilities(x, experts);
    double margin = margin_of(x, experts, k);
    if (margin < smallest) smallest = margin, *token = t;
  }
  return smallest;
}

/* ---- all of them ---- */

/* The scores as they were: constant, given by the data set, or written by the driver. */
static const Tensor *read_scores(const Runnable *r, const Graph *model, const DataSet *s, const char *folder,
                                 const Value *v) {
  if (v->tensor) return v->tensor;
  const char *file = runnable_file(r, v);
  if (file) return npy_read(r->ctx, ctx_format(r->ctx, "%s/%s.npy", folder, file));
  for (size_t i = 0; i < model->n_inputs; i++)
    if (strcmp(model->inputs[i]->name, v->name) == 0) return s->input[i];
  return NULL;
}

Routing routing_margin(const Runnable *r, const Graph *model, const DataSet *s, const char *folder, uint64_t tasks) {
  Routing found = {.margin = INFINITY};
  for (const Node *n = r->graph->first; n; n = n->next) {
    if (n->op != OP_MOE || !(n->tasks & tasks)) continue;
    const Tensor *scores = read_scores(r, model, s, folder, n->in[SCORES]);
    bool softmax = strcmp(node_string(n, "gate", "softmax"), "none") != 0;
    int64_t token = 0;
    double margin = scores ? scores_margin(scores, node_int(n, "k", 1), softmax, &token) : INFINITY;
    if (margin < found.margin) found = (Routing){n, token, margin, softmax ? "probability" : "score"};
  }
  return found;
}
