/* The verifier: what every pass may rely on. A violation is a bug of the pass that ran last. */
#include "compiler.h"

#include <string.h>

typedef struct {
  Ctx *ctx;
  const char *after;
} Check;

static _Noreturn void broken(const Check *k, const Node *n, const char *what, const char *name) {
  ctx_fail(k->ctx, n, "internal error after %s: %s \"%s\"", k->after, what, name ? name : "");
}

static void check_use(const Check *k, const Node *n, int i) {
  const Value *v = n->in[i];
  for (size_t u = 0; u < v->n_uses; u++)
    if (v->uses[u].node == n && v->uses[u].input == i) return;
  broken(k, n, "a use is not recorded of", v->name);
}

static void check_value(const Check *k, const Value *v) {
  if (v->tensor && v->producer) broken(k, v->producer, "a constant has a producer:", v->name);
  if (v->tensor && v->shape.rank != v->tensor->rank)
    broken(k, NULL, "a constant's shape differs from its data:", v->name);
  for (size_t u = 0; u < v->n_uses; u++) {
    const Use *use = &v->uses[u];
    if (use->input >= use->node->n_in || use->node->in[use->input] != v)
      broken(k, use->node, "a recorded use does not exist of", v->name);
  }
}

static void check_node(const Check *k, const Node *n, bool *defined) {
  const OpInfo *info = op_info(n->op);
  if (n->n_own > n->n_in || n->n_own < info->min_inputs || (info->max_inputs >= 0 && n->n_own > info->max_inputs))
    broken(k, n, "the number of inputs is wrong of", n->name);
  for (int i = 0; i < n->n_in; i++) {
    if (!n->in[i]) continue;
    if (n->in[i]->producer && !defined[n->in[i]->id]) broken(k, n, "used before it is computed:", n->in[i]->name);
    if (n->in[i]->graph != n->graph) broken(k, n, "belongs to another graph:", n->in[i]->name);
    check_use(k, n, i);
  }
  for (int i = 0; i < n->n_out; i++) {
    if (!n->out[i]) continue;
    if (n->out[i]->producer != n || n->out[i]->output != i)
      broken(k, n, "does not know its producer:", n->out[i]->name);
    defined[n->out[i]->id] = true;
  }
}

void graph_verify(Graph *g, const char *after) {
  Check k = {g->ctx, after};
  bool *defined = ctx_array(g->ctx, g->n_values + 1, sizeof *defined);
  const Node *prev = NULL;
  for (const Node *n = g->first; n; prev = n, n = n->next) {
    if (n->prev != prev) broken(&k, n, "the node list is damaged at", n->name);
    check_node(&k, n, defined);
  }
  if (g->last != prev) broken(&k, prev, "the node list is damaged at its end", "");
  for (size_t i = 0; i < g->n_values; i++) {
    check_value(&k, g->values[i]);
    if (graph_find(g, g->values[i]->name) != g->values[i])
      broken(&k, NULL, "a name is not unique:", g->values[i]->name);
  }
  for (size_t i = 0; i < g->n_outputs; i++)
    if (!g->outputs[i]->is_output || !g->outputs[i]->producer)
      broken(&k, NULL, "an output has no producer:", g->outputs[i]->name);
}
