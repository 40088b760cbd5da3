/* --gelu erf or tanh: every GELU of the network takes that form, whatever the model says; without the option nothing
 * changes. (What the gelu of com.microsoft::MoE means without it is decided where that is read: moe_contrib.c.)
 *
 * needs: GELU and mixtures of experts recognised
 * gives: Gelu and moecc.Moe with the form asked for
 */
#include "recognise.h"

#include <string.h>

static void form_of_node(Node *n, bool as_tanh) {
  const char *activation = n->op == OP_MOE ? node_string(n, "activation", "gelu") : "";
  if (n->op == OP_GELU) node_set_string(n, "approximate", as_tanh ? "tanh" : "none");
  if (strncmp(activation, "gelu", 4) == 0) node_set_string(n, "activation", as_tanh ? "gelu_tanh" : "gelu");
}

/* GELU of x + bias as an addition and a Gelu. */
static void spell_out(Node *n) {
  Value *x = n->in[0], *y = n->out[0];
  if (n->n_in > 1 && n->in[1]) {
    x = node_new(n->graph, n, OP_ADD, 2, x, n->in[1])->out[0];
    x->dtype = y->dtype;
  }
  Value *z = node_new(n->graph, n, OP_GELU, 1, x)->out[0];
  z->dtype = y->dtype;
  z->shape = y->shape;
  value_replace(y, z);
}

void pass_gelu_form(Graph *g) {
  if (!g->gelu) return;
  bool as_tanh = strcmp(g->gelu, "tanh") == 0;
  for (Node *n = g->first; n; n = n->next) {
    if (n->op == OP_MS_GELU || n->op == OP_MS_BIAS_GELU || n->op == OP_MS_FAST_GELU) spell_out(n);
    form_of_node(n, as_tanh);
  }
  for (Node *n = g->first; n; n = n->next) form_of_node(n, as_tanh); /* those that were spelled out */
}
