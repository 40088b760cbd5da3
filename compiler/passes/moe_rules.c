/* The fact of a node's output from the facts of its inputs: arithmetic, selections and layout; what deals with indices
 * is in moe_index.c. A rule that does not apply returns NULL, which says nothing about the value and is always right.
 */
#include "moe.h"

#include <math.h>

/* ---- elementwise products ---- */

static Fact *broadcast_product(Mo *m, const Node *n, const Fact *fa, int ia, const Fact *fb, int ib, bool division) {
  Labelled a = {.axes = &fa->axes, .shape = &n->in[ia]->shape}, b = {.axes = &fb->axes, .shape = &n->in[ib]->shape};
  int out[MAX_RANK], rank = n->out[0]->shape.rank;
  Axes axes, summed;
  if (rank < a.shape->rank || rank < b.shape->rank) return NULL;
  labels_broadcast(&a, rank);
  labels_broadcast(&b, rank);
  for (int d = 0; d < rank; d++) out[d] = d;
  if (!axes_product(&a, &b, out, rank, &axes, &summed)) return NULL;
  return division ? fact_divide(m, fa, fb, &axes) : fact_product(m, fa, fb, &axes, &summed);
}

/* A number that multiplies every element. */
static Fact *scaled(Mo *m, const Node *n, const Fact *f, double factor) {
  if (f->kind != FK_TERM || f->negated || f->inverse || f->plus || f->n_base || !isfinite(factor) || factor == 0)
    return NULL;
  if (f->stage == ST_ROWS || f->stage == ST_LIN || !shape_equal(&n->in[0]->shape, &n->out[0]->shape)) return NULL;
  Fact *r = fact_copy(m, f);
  if (factor == 1) return r;
  if (!f->cover) return NULL;
  r->scale *= factor;
  return r;
}

static bool speaks_of_choice(const Fact *f) {
  return f && (f->kind == FK_SCORES || (f->kind == FK_TERM && f->cover && f->stage != ST_ROWS));
}

/* The fact of operand i, which meets one that speaks of the router's choice: known, or an expert. */
static Fact *operand(Mo *m, const Node *n, int i, const Fact *other) {
  Fact *f = fact_of(m, n->in[i]);
  if (f || n->in[i]->tensor || !speaks_of_choice(other)) return f;
  return expert_of(m, n->in[i]);
}

static Fact *rule_mul(Mo *m, Node *n) {
  Fact *a = fact_of(m, n->in[0]), *b = fact_of(m, n->in[1]);
  double x;
  for (int i = 0; i < 2; i++)
    if (is_number(n->in[i], &x) && shape_equal(&n->in[1 - i]->shape, &n->out[0]->shape)) {
      Node view = *n; /* the same with the constant second */
      Value *in[2] = {n->in[1 - i], n->in[i]};
      view.in = in;
      return scaled(m, &view, i ? a : b, x);
    }
  if (!a) a = operand(m, n, 0, b);
  if (!b) b = operand(m, n, 1, a);
  if (!a || !b) return NULL;
  return broadcast_product(m, n, a, 0, b, 1, false);
}

/* A flat position over (or modulo) the length of its last axes: the coordinate of the axes before them, or theirs. */
static Fact *split_coord(Mo *m, const Fact *f, double by, bool modulo) {
  const Axes *whole = f->coord;
  if (f->n_coord != 1 || f->offset) return NULL;
  for (int i = whole->n; i >= 0; i--) {
    if ((double)axes_count(whole, i, whole->n) != by) continue;
    Fact *r = fact_copy(m, f);
    r->coord = ctx_alloc(m->c, sizeof *r->coord);
    return axes_add_part(r->coord, whole, modulo ? i : 0, modulo ? whole->n : i) ? r : NULL;
  }
  return NULL;
}

static Fact *rule_mod(Mo *m, Node *n) {
  Fact *f = fact_of(m, n->in[0]);
  double x;
  return f && f->kind == FK_COORD && is_number(n->in[1], &x) ? split_coord(m, f, x, true) : NULL;
}

static Fact *rule_div(Mo *m, Node *n) {
  Fact *a = fact_of(m, n->in[0]), *b = fact_of(m, n->in[1]);
  double x;
  if (a && a->kind == FK_COORD) return is_number(n->in[1], &x) ? split_coord(m, a, x, false) : NULL;
  if (a && is_number(n->in[1], &x) && x != 0) return scaled(m, n, a, 1 / x);
  return a && b ? broadcast_product(m, n, a, 0, b, 1, true) : NULL;
}

static Fact *rule_reciprocal(Mo *m, const Fact *f) {
  if (f->kind != FK_TERM || !f->weighted || fact_has_body(f) || f->inverse || f->n_base || f->plus) return NULL;
  Fact *r = fact_copy(m, f);
  r->inverse = true;
  return r;
}

static Fact *rule_matmul(Mo *m, Node *n) {
  Fact *a = fact_of(m, n->in[0]), *b = fact_of(m, n->in[1]);
  if (a && a->kind == FK_TERM && a->stage == ST_HIDDEN && !b) b = weight_of(m, n->in[1], 2);
  if (b && b->kind == FK_TERM && b->stage == ST_HIDDEN && !a) a = weight_of(m, n->in[0], 2);
  if (!a) a = operand(m, n, 0, b);
  if (!b) b = operand(m, n, 1, a);
  return a && b ? matmul_fact(m, n, a, b) : NULL;
}

/* ---- sums ---- */

/* Is a token's sum of weights so large that adding or flooring with eps changes no float? */
static bool eps_is_nothing(const Mo *m, const Fact *f, double eps) {
  if (f->kind != FK_TERM || !f->weighted || fact_has_body(f) || f->axes.n > m->token_axes.n) return false;
  if (f->inverse || f->scale != 1 || !cover_is_full(m, f->cover) || f->gate.kind == GATE_NONE) return false;
  return eps >= 0 &&
         eps * (double)m->experts / (double)m->k < 1e-8; /* the sum of the largest k is at least k/experts */
}

static bool same_count(const Value *a, const Value *b) {
  return shape_known(&a->shape) && shape_known(&b->shape) && shape_count(&a->shape) == shape_count(&b->shape);
}

/* Something that is not part of the layer is added to a partial sum. */
static Fact *with_base(Mo *m, const Node *n, const Fact *f, Value *base) {
  if (f->kind != FK_TERM || !f->cover || f->stage != ST_OUT || f->n_base == 2 || base->dtype != DT_F32) return NULL;
  if (axes_has(&f->axes, AX_SLOT) || axes_has(&f->axes, AX_EXPERT) || axes_has(&f->axes, AX_ROW) ||
      axes_has(&f->axes, AX_SUM))
    return NULL;
  if (!same_count(base, n->out[0]) || f->axes.n <= m->token_axes.n) return NULL;
  Fact *r = fact_copy(m, f);
  r->base[r->n_base++] = base;
  return r;
}

/* Rows of a value plus what the expert adds to them. */
static Fact *rows_plus(Mo *m, const Fact *rows, const Fact *term) {
  if (rows->kind != FK_TERM || rows->stage != ST_ROWS || !axes_has(&rows->axes, AX_ROW) || rows->plus) return NULL;
  if (term->kind != FK_TERM || term->stage != ST_OUT || term->list != rows->list || term->plus) return NULL;
  if (!axes_equal(&rows->axes, &term->axes)) return NULL;
  Fact *r = fact_copy(m, term);
  r->plus = rows->one->x;
  return r;
}

static Fact *add_two(Mo *m, const Node *n, Fact *a, Value *va, Fact *b, Value *vb) {
  double x;
  const Shape *s = &n->out[0]->shape;
  bool whole = a && shape_equal(&va->shape, s), other_whole = b && shape_equal(&vb->shape, s);
  if (a && a->kind == FK_INDEX && whole && is_number(vb, &x)) {
    Fact *r = fact_copy(m, a);
    r->offset += (int64_t)x;
    return r;
  }
  if (a && whole && is_number(vb, &x) && (x == 0 || eps_is_nothing(m, a, x))) return fact_copy(m, a);
  if (a && a->kind == FK_TERM && !b && weight_of(m, vb, 1) && (a->stage == ST_OUT || a->stage == ST_LIN)) {
    Fact *r = add_bias(m, a, &va->shape, vb);
    if (r) return r;
  }
  if (a && !b && a->kind == FK_TERM && a->list && axes_has(&a->axes, AX_ROW) && a->stage == ST_ROWS)
    b = expert_of(m, vb);
  if (a && b && whole && other_whole) {
    Fact *r = rows_plus(m, a, b);
    r = r ? r : rows_plus(m, b, a);
    return r ? r : fact_sum(m, a, b, &a->axes);
  }
  return a && !b && whole ? with_base(m, n, a, vb) : NULL;
}

static Fact *rule_add(Mo *m, Node *n) {
  Fact *sum = fact_of(m, n->in[0]);
  Value *v = n->in[0];
  if (n->op == OP_SUM && n->n_in == 1) return sum ? fact_copy(m, sum) : NULL;
  for (int i = 1; i < n->n_in; i++) {
    Fact *next = fact_of(m, n->in[i]), *both = add_two(m, n, sum, v, next, n->in[i]);
    if (!both) both = add_two(m, n, next, n->in[i], sum, v);
    if (!both) return NULL;
    sum = both;
    v = n->out[0]; /* what follows is added to the sum so far, which has the result's shape */
  }
  return sum;
}

/* max(sum of weights, eps) */
static Fact *rule_floor(Mo *m, Node *n) {
  double eps = -1;
  Fact *f = fact_of(m, n->in[0]);
  if (!f || n->n_in < 2 || !n->in[1] || !is_number(n->in[1], &eps) || !eps_is_nothing(m, f, eps)) return NULL;
  if (n->op == OP_CLIP && n->n_in > 2 && n->in[2]) return NULL;
  return n->op == OP_MAX && n->n_in != 2 ? NULL : fact_copy(m, f);
}

/* ---- gates ---- */

static bool softmax_over(const Node *n, const Fact *f, AxisKind kind) {
  int start[MAX_RANK + 1], rank = n->in[0]->shape.rank;
  int64_t axis = node_int(n, "axis", -1);
  axis += axis < 0 ? rank : 0;
  if (axis < 0 || axis >= rank || !axes_by_dim(&n->in[0]->shape, &f->axes, start)) return false;
  return start[axis + 1] - start[axis] == 1 && f->axes.a[start[axis]].kind == kind;
}

static bool softmax_of_one(const Node *n) {
  const Shape *s = &n->in[0]->shape;
  int64_t axis = node_int(n, "axis", -1);
  axis += axis < 0 ? s->rank : 0;
  return axis >= 0 && axis < s->rank && s->dim[axis].n == 1 && !s->dim[axis].sym;
}

static Fact *rule_softmax(Mo *m, Node *n) {
  Fact *f = fact_of(m, n->in[0]);
  if (!f) return NULL;
  if (f->kind == FK_SCORES && softmax_over(n, f, AX_EXPERT) && axes_equal(&f->axes, &m->score_axes)) {
    if (f->masked) {
      Fact *r = fact_new(m, FK_TERM, &f->axes);
      r->weighted = true;
      r->cover = cover_full(m);
      r->gate = (Gate){GATE_TOPK_SOFTMAX, f->gate.value, f->gate.value, false};
      return r;
    }
    Fact *r = fact_copy(m, f);
    r->gate = (Gate){GATE_SOFTMAX, f->gate.value, n->out[0], false};
    return r;
  }
  bool chosen = f->kind == FK_TERM && f->weighted && !fact_has_body(f) && f->cover && cover_is_full(m, f->cover);
  if (!chosen || f->gate.kind == GATE_TOPK_SOFTMAX || f->gate.normalize || f->scale != 1 || f->inverse || f->n_base)
    return NULL;
  bool alone = m->k == 1 && softmax_of_one(n);
  if ((!alone && !softmax_over(n, f, AX_SLOT)) || axes_has(&f->axes, AX_EXPERT)) return NULL;
  Fact *r = fact_copy(m, f);
  r->gate = (Gate){GATE_TOPK_SOFTMAX, f->gate.value, f->gate.value, false};
  return r;
}

/* ---- masks ---- */

static Fact *rule_where(Mo *m, Node *n) {
  Fact *c = fact_of(m, n->in[0]);
  if (c && c->kind == FK_FALSE) {
    Fact *f = fact_of(m, n->in[2]);
    return f && shape_equal(&n->in[2]->shape, &n->out[0]->shape) ? fact_copy(m, f) : NULL;
  }
  if (!c || c->kind != FK_TERM || c->weighted || fact_has_body(c) || !c->cover) return NULL;
  int yes = c->negated ? 2 : 1, no = 3 - yes;
  double x;
  Fact condition = *c;
  condition.negated = false;
  if (!is_number(n->in[no], &x)) return NULL;
  Fact *f = fact_of(m, n->in[yes]);
  if (x == 0) {
    double one;
    if (is_number(n->in[yes], &one))
      return one == 1 && shape_equal(&n->in[0]->shape, &n->out[0]->shape) ? fact_copy(m, &condition) : NULL;
    if (!f) f = operand(m, n, yes, &condition);
    return f ? broadcast_product(m, n, &condition, 0, f, yes, false) : NULL;
  }
  /* what was not chosen is sunk so deep that a softmax gives exactly 0 */
  if (x > -1e9 || !f || f->kind != FK_SCORES || f->masked || f->expert >= 0 || !cover_is_full(m, c->cover)) return NULL;
  if (f->gate.kind != GATE_NONE || !axes_equal(&c->axes, &f->axes) || !axes_has(&f->axes, AX_EXPERT)) return NULL;
  Fact *r = fact_copy(m, f);
  r->masked = true;
  return r;
}

static Fact *rule_not(Mo *m, const Fact *f) {
  if (f->kind != FK_TERM || f->weighted || fact_has_body(f) || f->scale != 1) return NULL;
  Fact *r = fact_copy(m, f);
  r->negated = !f->negated;
  return r;
}

/* An index below 0: never. An indicator above 0 or not 0: itself. */
static Fact *rule_compare(Mo *m, Node *n) {
  Fact *f = fact_of(m, n->in[0]);
  double x;
  if (!f || !is_number(n->in[1], &x) || x != 0) return NULL;
  if (n->op == OP_LESS && (f->kind == FK_INDEX || f->kind == FK_COORD) && f->offset >= 0)
    return fact_new(m, FK_FALSE, &f->axes);
  bool indicator = f->kind == FK_TERM && !f->weighted && !fact_has_body(f) && f->scale == 1 && !f->negated;
  return n->op == OP_GREATER && indicator ? fact_copy(m, f) : NULL;
}

static Fact *rule_cast(Mo *m, const Node *n, const Fact *f) {
  DType from = n->in[0]->dtype, to = n->out[0]->dtype;
  bool counts = f->kind == FK_INDEX || f->kind == FK_COORD;
  bool indicator = f->kind == FK_TERM && !f->weighted && !fact_has_body(f) && f->scale == 1 && !f->negated;
  if (counts) return to == DT_I64 || to == DT_I32 || dtype_is_float(to) ? fact_copy(m, f) : NULL;
  if (indicator || f->kind == FK_FALSE) return fact_copy(m, f);
  return from == to ? fact_copy(m, f) : NULL;
}

static Fact *rule_part(Mo *m, Node *n, int output) {
  Fact *f = fact_of(m, n->in[0]);
  int dim;
  int64_t first, step, count;
  if (!f || !part_range(n->out[output], &dim, &first, &step, &count)) return NULL;
  if (step != 1 && count != 1) return NULL;
  return fact_take(m, &n->in[0]->shape, f, dim, first, count);
}

static Fact *rule_layout(Mo *m, const Node *n) {
  Fact *f = fact_of(m, n->in[0]);
  return f ? fact_layout(m, n, f) : NULL;
}

/* The largest score, where one expert is chosen: its weight. */
static Fact *largest_score(Mo *m, const Node *n, const Fact *f) {
  if (n->op != OP_REDUCE_MAX || m->k != 1 || f->masked || f->expert >= 0) return NULL;
  Fact all = {.kind = FK_TERM, .axes = f->axes, .expert = -1, .slot = -1, .cover = cover_full(m), .scale = 1};
  Fact *r = fact_reduce(m, n, &all);
  if (!r || axes_has(&r->axes, AX_EXPERT)) return NULL;
  r->weighted = true;
  r->gate = f->gate;
  return r;
}

static Fact *unary_rule(Mo *m, Node *n) {
  Fact *f = fact_of(m, n->in[0]);
  if (!f) return NULL;
  switch (n->op) {
  case OP_CAST: return rule_cast(m, n, f);
  case OP_NOT: return rule_not(m, f);
  case OP_RECIPROCAL: return rule_reciprocal(m, f);
  case OP_REDUCE_SUM:
  case OP_REDUCE_L1:
  case OP_REDUCE_MAX: return f->kind == FK_SCORES ? largest_score(m, n, f) : fact_reduce(m, n, f);
  default: return NULL;
  }
}

Fact *moe_rule(Mo *m, Node *n, int output) {
  switch (n->op) {
  case OP_IDENTITY:
  case OP_RESHAPE:
  case OP_FLATTEN:
  case OP_SQUEEZE:
  case OP_UNSQUEEZE:
  case OP_TRANSPOSE:
  case OP_EXPAND:
  case OP_TILE: return rule_layout(m, n);
  case OP_SLICE:
  case OP_SPLIT: return rule_part(m, n, output);
  case OP_MUL:
  case OP_AND: return rule_mul(m, n);
  case OP_DIV: return rule_div(m, n);
  case OP_MOD: return rule_mod(m, n);
  case OP_ADD:
  case OP_SUM: return rule_add(m, n);
  case OP_CLIP:
  case OP_MAX: return rule_floor(m, n);
  case OP_MATMUL:
  case OP_GEMM: return rule_matmul(m, n);
  case OP_SOFTMAX: return rule_softmax(m, n);
  case OP_WHERE: return rule_where(m, n);
  case OP_LESS:
  case OP_GREATER: return rule_compare(m, n);
  case OP_EQUAL: return rule_equal(m, n);
  case OP_ONE_HOT: return rule_one_hot(m, n);
  case OP_NON_ZERO: return rule_non_zero(m, n);
  case OP_GATHER: return rule_gather(m, n);
  case OP_GATHER_ND: return rule_gather_nd(m, n);
  case OP_GATHER_ELEMENTS: return rule_gather_elements(m, n);
  case OP_SCATTER_ELEMENTS: return rule_scatter_elements(m, n);
  case OP_SCATTER_ND: return rule_scatter_nd(m, n);
  case OP_CONCAT: return rule_concat(m, n);
  default: return unary_rule(m, n);
  }
}
