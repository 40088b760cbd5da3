/* The recognised layer becomes one moecc.Moe node. */
#include "moe.h"

#include <math.h>

/* The scores as [tokens, experts], whatever the order of the router's dimensions. */
static Value *score_matrix(const Mo *m, Node *before, Value *scores) {
  const Axes *x = &m->score_axes;
  int e = axes_find(x, AX_EXPERT);
  int64_t perm[MAX_AXES], dims[MAX_AXES];
  for (int i = 0; i < x->n; i++) {
    dims[i] = x->a[i].n;
    perm[i] = i < e ? i : i < x->n - 1 ? i + 1 : e;
  }
  Shape split = shape_of(x->n, dims), matrix = shape_of(2, (const int64_t[]){m->tokens, m->experts});
  if (e >= 0 && e < x->n - 1) scores = insert_transpose(before, insert_reshape(before, scores, &split), perm);
  return insert_reshape(before, scores, &matrix);
}

/* ---- experts that cannot be chosen ---- */

/* Is column e of a constant, as it is broadcast over the experts, this infinity throughout? */
static bool column_is(const Mo *m, const Value *v, int64_t e, double number) {
  const Tensor *t = v->tensor;
  if (!t || t->rank < 1 || t->dim[t->rank - 1] != m->experts) return false;
  for (int64_t i = e; i < tensor_count(t); i += m->experts)
    if (tensor_number(t, i) != number) return false;
  return tensor_count(t) > 0;
}

/* Is the score of expert e a constant -inf, as where a task may only choose within a window? */
static bool never_chosen(const Mo *m, Value *scores, int64_t e) {
  const Axes *x = &m->score_axes;
  const Node *n = value_root(scores)->producer;
  double fill;
  if (!n || x->n < 1 || x->a[x->n - 1].kind != AX_EXPERT || n->out[0]->shape.rank < 1) return false;
  if (n->out[0]->shape.dim[n->out[0]->shape.rank - 1].n != m->experts) return false;
  if (n->op == OP_ADD) return column_is(m, n->in[0], e, -INFINITY) || column_is(m, n->in[1], e, -INFINITY);
  if (n->op != OP_WHERE) return false;
  for (int i = 1; i <= 2; i++)
    if (is_number(n->in[i], &fill) && fill == -INFINITY) return column_is(m, n->in[0], e, i == 1);
  return false;
}

/* The experts that the sum speaks of, in order; all others must be out of reach. Returns how many, or 0. */
static int64_t live_experts(const Mo *m, const Fact *f, int64_t *live) {
  int64_t n = 0;
  for (int64_t e = 0; e < m->experts; e++) {
    int64_t slots = 0;
    for (int64_t s = 0; s < m->k; s++) slots += cover_has(m, f->cover, s, e);
    if (slots == m->k)
      live[n++] = e;
    else if (slots || !f->weighted || !never_chosen(m, f->gate.of, e))
      return 0;
  }
  return n >= m->k ? n : 0;
}

/* ---- checks ---- */

bool moe_complete(const Mo *m, const Value *v, const Fact *f) {
  if (f->kind != FK_TERM || f->stage != ST_OUT || !f->cover || f->inverse || f->negated || f->plus) return false;
  if (!f->weighted && m->k != 1) return false;
  if (f->one && !f->one->fc[FC1].stacked && !f->one->fc[FC1].per_expert && !f->one->fc[FC2].stacked && m->experts > 1)
    return false; /* the same for all */
  int n = m->token_axes.n;
  if (f->axes.n != n + 1 || f->axes.a[n].kind != AX_FEATURE || v->dtype != DT_F32 || !shape_known(&v->shape))
    return false;
  for (int i = 0; i < n; i++)
    if (f->axes.a[i].kind != AX_TOKEN || f->axes.a[i].index != m->token_axes.a[i].index) return false;
  return cover_is_full(m, f->cover) || live_experts(m, f, ctx_array(m->c, (size_t)m->experts, sizeof(int64_t)));
}

static const char *unlike(const Fact *f, const int64_t *live, int64_t n, int64_t hidden) {
  const Body *a = fact_body(f, live[0]);
  for (int64_t i = 0; i < n; i++) {
    const Body *b = fact_body(f, live[i]);
    if (!b) return "an expert is missing";
    if (b->x != a->x) return "its experts read different values";
    if (b->act != a->act || b->has_fc3 != a->has_fc3) return "its experts have different activations";
    if (b->fc[FC1].count != a->fc[FC1].count) return "its experts have different widths";
    if (b->fc[FC1].in != hidden || b->fc[FC2].count != hidden)
      return "its experts do not give back the width of their input";
    if (b->fc[FC2].in != b->fc[FC1].count) return "the two layers of an expert do not fit";
    if (b->has_fc3 && (b->fc[FC3].in != hidden || b->fc[FC3].count != b->fc[FC1].count))
      return "fc1 and fc3 do not fit";
  }
  return NULL;
}

/* ---- the node ---- */

static const char *const activation_names[] = {
    [ACT_IDENTITY] = "identity",   [ACT_RELU] = "relu", [ACT_GELU] = "gelu",
    [ACT_GELU_TANH] = "gelu_tanh", [ACT_SILU] = "silu", [ACT_SWIGLU] = "swiglu",
};

static const char *const gate_names[] = {
    [GATE_NONE] = "none", [GATE_SOFTMAX] = "softmax", [GATE_TOPK_SOFTMAX] = "topk_softmax"};

static Node *moe_make(struct MoeMemo *memo, Node *before, const MoeLayer *l) {
  Ctx *c = before->graph->ctx;
  const char *stem = *before->scope ? before->scope : *before->name ? before->name : "moe";
  Shape shape = shape_of(2, (const int64_t[]){l->tokens, l->hidden});
  Value *in[8] = {insert_reshape(before, l->x, &shape), l->scores};
  for (int which = 0; which < 3; which++) {
    const Linear *fc = l->fc[which];
    double scale = which == FC2 ? l->scale : 1;
    bool biased = false;
    if (!fc) continue;
    for (int64_t e = 0; e < l->experts; e++) biased |= fc[e].b != NULL;
    in[2 + 2 * which] = moe_stack_weights(memo, ctx_format(c, "%s.fc%d_w", stem, which + 1), fc, l->experts, scale);
    if (biased)
      in[3 + 2 * which] = moe_stack_biases(memo, ctx_format(c, "%s.fc%d_b", stem, which + 1), fc, l->experts, scale);
  }
  int n_in = 8;
  while (!in[n_in - 1]) n_in--;
  Value *out = graph_value(before->graph, before->out[0]->name, DT_F32, shape);
  Node *n = graph_node(before->graph, before, OP_MOE, NULL, n_in, in, 1, &out);
  node_set_int(n, "k", l->k);
  node_set_string(n, "gate", gate_names[l->gate]);
  node_set_int(n, "normalize", l->normalize);
  node_set_string(n, "activation", activation_names[l->act]);
  if (l->act == ACT_SWIGLU) {
    node_set_float(n, "alpha", l->alpha);
    node_set_float(n, "beta", l->beta);
    node_set_float(n, "limit", l->limit);
  }
  return n;
}

void moe_put(struct MoeMemo *memo, Value *v, const MoeLayer *l) {
  Node *before = v->producer;
  Value *y = insert_reshape(before, moe_make(memo, before, l)->out[0], &v->shape);
  for (int i = 0; i < l->n_base; i++)
    y = insert_value(before, OP_ADD, DT_F32, v->shape, 2, insert_reshape(before, l->base[i], &v->shape), y);
  value_replace(v, y);
}

/* Layer `which` of these experts, one behind the other. */
static Linear *collect(const Mo *m, const Fact *f, const int64_t *live, int64_t n, int which) {
  Linear *fc = ctx_array(m->c, (size_t)n, sizeof *fc);
  for (int64_t i = 0; i < n; i++) {
    fc[i] = fact_body(f, live[i])->fc[which];
    fc[i].first += live[i] * fc[i].per_expert;
    fc[i].b_first += live[i] * fc[i].b_per_expert;
    fc[i].expert0 += live[i] - i; /* a stacked matrix is number expert0 + i */
    fc[i].b_expert0 += live[i] - i;
    fc[i].per_expert = fc[i].b_per_expert = 0;
  }
  return fc;
}

/* The scores' columns of these experts. */
static Value *score_columns(const Mo *m, Node *before, Value *scores, const int64_t *live, int64_t n) {
  if (n == m->experts) return scores;
  Value *index = graph_constant_ints(m->g, "experts", 1, n, live);
  Value *part = insert_value(before, OP_GATHER, DT_F32, shape_of(2, (const int64_t[]){m->tokens, n}), 2, scores, index);
  node_set_int(part->producer, "axis", 1);
  return part;
}

bool moe_build(Mo *m, Value *v, const Fact *f) {
  int64_t *live = ctx_array(m->c, (size_t)m->experts, sizeof *live), n = live_experts(m, f, live);
  const Body *body = n ? fact_body(f, live[0]) : NULL;
  if (!body) return false;
  int64_t hidden = shape_count(&body->x->shape) / m->tokens;
  const char *reason = unlike(f, live, n, hidden);
  if (!reason && m->scores->dtype != DT_F32) reason = "its scores are not of type float";
  if (reason) {
    moe_blame(m, 10000, v->producer, "%s", reason);
    return false;
  }
  if (!m->memo) return true;
  Node *before = v->producer;
  Gate gate =
      f->weighted ? f->gate : (Gate){GATE_TOPK_SOFTMAX, m->scores, m->scores, false}; /* k is 1: so is the weight */
  MoeLayer l = {.x = body->x, .tokens = m->tokens, .hidden = hidden, .experts = n, .k = m->k, .scale = f->scale};
  l.scores = score_columns(m, before, score_matrix(m, before, gate.of), live, n);
  l.gate = gate.kind;
  l.normalize = gate.normalize;
  l.act = body->act;
  l.fc[FC1] = collect(m, f, live, n, FC1);
  l.fc[FC2] = collect(m, f, live, n, FC2);
  if (body->has_fc3) l.fc[FC3] = collect(m, f, live, n, FC3);
  l.base = f->base;
  l.n_base = f->n_base;
  moe_put(m->memo, v, &l);
  return true;
}
