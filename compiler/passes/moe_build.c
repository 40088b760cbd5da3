/* The recognised layer becomes one moecc.Moe node. */
#include "moe.h"

#include <string.h>

/* ---- shapes ---- */

Value *moe_reshape(Graph *g, Node *before, Value *x, const Shape *to) {
  if (shape_equal(&x->shape, to)) return x;
  int64_t dims[MAX_RANK];
  for (int d = 0; d < to->rank; d++) dims[d] = to->dim[d].n;
  Value *shape = graph_constant_ints(g, NULL, 1, to->rank, dims);
  Value *y = node_new(g, before, OP_RESHAPE, 2, x, shape)->out[0];
  y->dtype = x->dtype;
  y->shape = *to;
  return y;
}

Value *moe_as_matrix(Graph *g, Node *before, Value *x, int64_t rows, int64_t columns) {
  Shape s = shape_of(2, (const int64_t[]){rows, columns});
  return moe_reshape(g, before, x, &s);
}

/* The scores as [tokens, experts], whatever the order of the router's dimensions. */
static Value *score_matrix(Mo *m, Node *before, Value *scores) {
  const Axes *x = &m->score_axes;
  int e = axes_find(x, AX_EXPERT);
  if (e >= 0 && e < x->n - 1) {
    int64_t perm[MAX_AXES], dims[MAX_AXES];
    Shape split = {.rank = x->n}, turned = {.rank = x->n};
    for (int i = 0; i < x->n; i++) dims[i] = x->a[i].n;
    split = shape_of(x->n, dims);
    for (int i = 0; i < x->n; i++) perm[i] = i < e ? i : i < x->n - 1 ? i + 1 : e;
    for (int i = 0; i < x->n; i++) dims[i] = x->a[perm[i]].n;
    turned = shape_of(x->n, dims);
    Node *n = node_new(m->g, before, OP_TRANSPOSE, 1, moe_reshape(m->g, before, scores, &split));
    node_set_ints(n, "perm", (size_t)x->n, perm);
    n->out[0]->dtype = scores->dtype;
    n->out[0]->shape = turned;
    scores = n->out[0];
  }
  return moe_as_matrix(m->g, before, scores, m->tokens, m->experts);
}

/* ---- checks ---- */

bool moe_complete(const Mo *m, const Value *v, const Fact *f) {
  if (f->kind != FK_TERM || f->stage != ST_OUT || !f->cover || f->inverse || f->negated || f->plus) return false;
  if (!f->weighted && m->k != 1) return false;
  int n = m->token_axes.n;
  if (f->axes.n != n + 1 || f->axes.a[n].kind != AX_FEATURE || v->dtype != DT_F32 || !shape_known(&v->shape)) return false;
  for (int i = 0; i < n; i++)
    if (f->axes.a[i].kind != AX_TOKEN || f->axes.a[i].index != m->token_axes.a[i].index) return false;
  return cover_is_full(m, f->cover);
}

static const char *unlike(const Mo *m, const Fact *f, int64_t hidden) {
  const Body *a = fact_body(f, 0);
  for (int64_t e = 0; e < m->experts; e++) {
    const Body *b = fact_body(f, e);
    if (!b) return "an expert is missing";
    if (b->x != a->x) return "its experts read different values";
    if (b->act != a->act || b->has_fc3 != a->has_fc3) return "its experts have different activations";
    if (b->fc[FC1].count != a->fc[FC1].count) return "its experts have different widths";
    if (b->fc[FC1].in != hidden || b->fc[FC2].count != hidden) return "its experts do not give back the width of their input";
    if (b->fc[FC2].in != b->fc[FC1].count) return "the two layers of an expert do not fit";
    if (b->has_fc3 && (b->fc[FC3].in != hidden || b->fc[FC3].count != b->fc[FC1].count)) return "fc1 and fc3 do not fit";
  }
  return NULL;
}

/* ---- the node ---- */

static const char *const activation_names[] = {
    [ACT_IDENTITY] = "identity", [ACT_RELU] = "relu", [ACT_GELU] = "gelu",
    [ACT_GELU_TANH] = "gelu_tanh", [ACT_SILU] = "silu", [ACT_SWIGLU] = "swiglu",
};

const char *activation_name(Activation a) { return activation_names[a]; }

static const char *const gate_names[] = {
    [GATE_NONE] = "none", [GATE_SOFTMAX] = "softmax", [GATE_TOPK_SOFTMAX] = "topk_softmax"};

/* fc[0 … experts-1] of all experts as constants: weights to in[0], biases (if any expert has some) to in[1]. */
static void stack_layer(Mo *m, const Fact *f, int which, const char *stem, double scale, Value *in[2]) {
  Linear *fc = ctx_array(m->c, (size_t)m->experts, sizeof *fc);
  bool biased = false;
  for (int64_t e = 0; e < m->experts; e++) {
    fc[e] = fact_body(f, e)->fc[which];
    biased |= fc[e].b != NULL;
  }
  in[0] = moe_stack_weights(m->memo, ctx_format(m->c, "%s.fc%d_w", stem, which + 1), fc, m->experts, scale);
  in[1] = biased ? moe_stack_biases(m->memo, ctx_format(m->c, "%s.fc%d_b", stem, which + 1), fc, m->experts, scale) : NULL;
}

static Node *moe_node(Mo *m, Node *before, const Fact *f, Value *x, int64_t hidden) {
  const Body *body = fact_body(f, 0);
  Gate gate = f->weighted ? f->gate : (Gate){GATE_TOPK_SOFTMAX, m->scores, m->scores, false}; /* k == 1: the weight is 1 */
  const char *stem = *before->scope ? before->scope : "moe";
  Value *in[8] = {moe_as_matrix(m->g, before, x, m->tokens, hidden), score_matrix(m, before, gate.of)};
  stack_layer(m, f, FC1, stem, 1, in + 2);
  stack_layer(m, f, FC2, stem, f->scale, in + 4);
  if (body->has_fc3) stack_layer(m, f, FC3, stem, 1, in + 6);
  int n_in = 8;
  while (!in[n_in - 1]) n_in--;
  Node *n = graph_node(m->g, before, OP_MOE, NULL, n_in, in, 1, NULL);
  node_set_int(n, "k", m->k);
  node_set_string(n, "gate", gate_names[gate.kind]);
  node_set_int(n, "normalize", gate.normalize);
  node_set_string(n, "activation", activation_name(body->act));
  n->out[0]->dtype = DT_F32;
  n->out[0]->shape = shape_of(2, (const int64_t[]){m->tokens, hidden});
  return n;
}

bool moe_build(Mo *m, Value *v, const Fact *f) {
  const Body *body = fact_body(f, 0);
  int64_t hidden = body ? shape_count(&body->x->shape) / m->tokens : 0;
  const char *reason = unlike(m, f, hidden);
  if (!reason && m->scores->dtype != DT_F32) reason = "its scores are not of type float";
  if (reason) {
    moe_blame(m, 9, v->producer, "%s", reason);
    return false;
  }
  if (!m->memo) return true;
  Node *before = v->producer;
  Value *y = moe_node(m, before, f, body->x, hidden)->out[0];
  y = moe_reshape(m->g, before, y, &v->shape);
  for (int i = 0; i < f->n_base; i++) {
    Value *sum = node_new(m->g, before, OP_ADD, 2, moe_reshape(m->g, before, f->base[i], &v->shape), y)->out[0];
    sum->dtype = DT_F32;
    sum->shape = v->shape;
    y = sum;
  }
  value_replace(v, y);
  return true;
}
