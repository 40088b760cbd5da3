/* Recognises scaled dot-product attention, softmax(scale * q k' + mask) v, however it is written.
 *
 * Needs: shapes; tasks marked. After algebra (no Identity, no Reshape of Reshape) it finds more.
 * Gives: moecc.Attention on [B,H,T,D], [B,H,S,D], [B,H,S,V]; Reshape and Transpose around it, which are views. A
 * constant causal mask becomes the attribute; one of zeros goes. Breaks: nothing.
 *
 * From the second product backwards: a guard that turns NaN into 0 (dropped where no row can be wholly -inf), Softmax
 * over the last axis, then any chain of factors, added masks, masks by Where, and Reshapes that keep the last axis, up
 * to the first product; factors may stand on q, k' and the scores alike. A factor per row of q goes into q, one per head
 * becomes an operand, and rows of q and k that are divided by their lengths the attribute `cosine`.
 */
#include "match.h"
#include "recognise.h"
#include <float.h>
#include <math.h>

enum { MAX_TERMS = 6 };

/* Something added to the scores: value * factor, or `masked` * factor where the condition (value) does not hold. */
typedef struct {
  Value *value;
  double factor;
  bool is_where, keep; /* keep: scores stay where the condition has this truth value */
  double masked;
  Shape at; /* of the scores at this point */
} Term;

typedef struct {
  Match match;
  Node *root;    /* the second product */
  Shape scores;  /* as Softmax sees them */
  Shape product; /* as the first product makes them: the same, or in other leading dimensions */
  double scale;
  Value *row_factor; /* constant, its last dimension 1; or NULL */
  Term term[MAX_TERMS];
  int n_terms;
  bool guarded; /* NaN becomes 0 */
  Value *q, *kt, *v;
} Attention;

/* ---- the way back from the second product to the first ---- */

/* v = Where(IsNaN(s), 0, s) */
static Value *match_guard(Attention *a, Value *v) {
  double zero;
  if (!made_by(v, OP_WHERE)) return v;
  const Node *n = v->producer;
  if (!made_by(n->in[0], OP_IS_NAN) || n->in[0]->producer->in[0] != n->in[2]) return v;
  if (!value_is_number(n->in[1], &zero) || zero != 0) return v;
  match_add(&a->match, n);
  match_add(&a->match, n->in[0]->producer);
  a->guarded = true;
  return n->in[2];
}

static bool leads_to_product(const Value *v, int depth) {
  const Node *n = v->producer;
  if (!n || depth == 0) return false;
  if (n->op == OP_MATMUL) return !n->expr && !n->in[0]->tensor && !n->in[1]->tensor;
  if (n->op == OP_ADD || n->op == OP_MUL)
    return leads_to_product(n->in[0], depth - 1) || leads_to_product(n->in[1], depth - 1);
  if (n->op == OP_DIV || n->op == OP_RESHAPE) return leads_to_product(n->in[0], depth - 1);
  if (n->op == OP_WHERE) return leads_to_product(n->in[1], depth - 1) || leads_to_product(n->in[2], depth - 1);
  return false;
}

/* The operand that the scores come from, the other one in *rest; NULL if that is not clear. */
static Value *scores_operand(const Node *n, int i, int k, Value **rest) {
  bool first = leads_to_product(n->in[i], 8), second = leads_to_product(n->in[k], 8);
  if (first == second) return NULL;
  *rest = n->in[first ? k : i];
  return n->in[first ? i : k];
}

static Term *new_term(Attention *a, const Value *at) {
  if (a->n_terms == MAX_TERMS) return NULL;
  Term *t = &a->term[a->n_terms++];
  *t = (Term){.factor = a->scale, .at = at->shape};
  return t;
}

static Value *step_add(Attention *a, const Value *v) {
  Value *mask, *scores = scores_operand(v->producer, 0, 1, &mask);
  Term *t = scores && shape_equal(&scores->shape, &v->shape) ? new_term(a, v) : NULL;
  if (!t) return NULL;
  t->value = mask;
  return scores;
}

/* Does every row of a constant condition hold somewhere? */
static bool every_row(const Tensor *t, bool keep) {
  int64_t columns = t->rank ? t->dim[t->rank - 1] : 1, count = tensor_count(t);
  for (int64_t row = 0; row < count; row += columns) {
    bool any = false;
    for (int64_t i = 0; i < columns; i++) any = any || (tensor_integer(t, row + i) != 0) == keep;
    if (!any) return false;
  }
  return true;
}

/* Where(cond, scores, number) or Where(cond, number, scores): adding the number instead is the same if it is so large
 * that it swallows the score, or large enough to vanish beside a score of the row that stays. */
static Value *step_where(Attention *a, const Value *v) {
  Node *n = v->producer;
  Value *number, *scores = scores_operand(n, 1, 2, &number), *cond = n->in[0];
  double masked;
  if (!scores || !value_is_number(number, &masked) || !shape_equal(&scores->shape, &v->shape)) return NULL;
  bool keep = scores == n->in[1];
  bool swallows = masked <= -1e30, vanishes = masked <= -1e4 && cond->tensor && every_row(cond->tensor, keep);
  if (!(swallows || vanishes) || !(a->scale > 0)) return NULL;
  Term *t = new_term(a, v);
  if (!t) return NULL;
  t->value = cond;
  t->is_where = true;
  t->keep = keep;
  t->masked = masked;
  return scores;
}

static Value *step_factor(Attention *a, const Value *v) {
  Value *x;
  double factor;
  if (match_scaled(v, &x, &factor)) {
    a->scale *= factor;
    return x;
  }
  if (v->producer->op != OP_MUL) return NULL;
  Value *rows, *scores = scores_operand(v->producer, 0, 1, &rows);
  if (!scores || a->row_factor || !rows->tensor || !shape_equal(&scores->shape, &v->shape)) return NULL;
  if (rows->shape.rank > 0 && rows->shape.dim[rows->shape.rank - 1].n != 1) return NULL;
  if (!made_by(scores, OP_MATMUL)) return NULL; /* next to the product, so that no mask needs the factor */
  a->row_factor = rows;
  return scores;
}

static Value *step_reshape(const Value *v) {
  Value *x = v->producer->in[0];
  return x->shape.rank > 0 && same_tail(&x->shape, &v->shape, 1) ? x : NULL;
}

static Value *step(Attention *a, const Value *v) {
  switch (v->producer->op) {
  case OP_ADD: return step_add(a, v);
  case OP_WHERE: return step_where(a, v);
  case OP_MUL:
  case OP_DIV: return step_factor(a, v);
  case OP_RESHAPE: return step_reshape(v);
  default: return NULL;
  }
}

static bool match_scores(Attention *a, Value *v) {
  while (v && v->producer && !v->producer->expr && shape_known(&v->shape)) {
    match_add(&a->match, v->producer);
    if (v->producer->op == OP_MATMUL) {
      a->q = v->producer->in[0];
      a->kt = v->producer->in[1];
      a->product = v->shape;
      return a->q->shape.rank >= 2 && a->kt->shape.rank >= 2 && shape_known(&a->q->shape) && shape_known(&a->kt->shape);
    }
    v = step(a, v);
  }
  return false;
}

static bool match_attention(Attention *a, Node *root) {
  *a = (Attention){.root = root, .scale = 1};
  if (root->op != OP_MATMUL || root->expr) return false;
  Value *p = root->in[0];
  a->v = root->in[1];
  match_add(&a->match, root);
  if (a->v->shape.rank < 2 || !shape_known(&a->v->shape) || !shape_known(&root->out[0]->shape)) return false;
  if (made_by(p, OP_RESHAPE) && same_tail(&p->shape, &p->producer->in[0]->shape, 2)) {
    match_add(&a->match, p->producer);
    p = p->producer->in[0];
  }
  p = match_guard(a, p);
  if (!made_by(p, OP_SOFTMAX) || p->dtype != DT_F32) return false;
  int rank = p->shape.rank;
  if (axis_at(node_int(p->producer, "axis", -1), rank) != rank - 1) return false;
  match_add(&a->match, p->producer);
  a->scores = p->shape;
  return match_scores(a, p->producer->in[0]) && match_closed(&a->match, root);
}

/* ---- the mask ---- */

/* A shape that is `at` without its leading 1 is that of the scores: the same for what broadcasts to it. */
static bool drops_leading(const Attention *a, const Term *t) {
  return t->at.rank == a->scores.rank + 1 && t->at.dim[0].n == 1 && same_tail(&t->at, &a->scores, a->scores.rank);
}

/* The term as a constant that broadcasts to the scores; NULL if it is not constant. */
static Value *constant_term(const Attention *a, const Term *t) {
  Graph *g = a->root->graph;
  const Tensor *given = t->value->tensor;
  if (!given) return NULL;
  Tensor shaped = *given;
  double *x;
  if (drops_leading(a, t)) {
    if (shaped.rank == t->at.rank) {
      shaped.rank--;
      for (int i = 0; i < shaped.rank; i++) shaped.dim[i] = given->dim[i + 1];
    }
  } else if (!shape_equal(&t->at, &a->scores)) {
    if (!broadcast_doubles(g->ctx, given, &t->at, &x)) return NULL;
    shaped.rank = a->scores.rank;
    for (int i = 0; i < shaped.rank; i++) shaped.dim[i] = a->scores.dim[i].n;
    return constant_doubles(g, NULL, DT_F32, shaped.rank, shaped.dim, x);
  }
  x = tensor_doubles(g->ctx, given);
  return constant_doubles(g, NULL, DT_F32, shaped.rank, shaped.dim, x);
}

/* What is finite stays finite: twice the lowest float is still a mask, not an infinity. */
static double within_float(double x) { return isfinite(x) && fabs(x) > FLT_MAX ? copysign(FLT_MAX, x) : x; }

static void apply_term(const Term *t, Value *v) {
  float *x = tensor_writable(v->tensor);
  for (int64_t i = 0, n = tensor_count(v->tensor); i < n; i++) {
    double one = t->is_where ? ((x[i] != 0) == t->keep ? 0 : t->masked) : (double)x[i];
    x[i] = one == 0 ? 0.0f : (float)within_float(one * t->factor);
  }
}

static Shape broadcast_shapes(const Shape *a, const Shape *b) {
  Shape s = a->rank >= b->rank ? *a : *b;
  for (int i = 1; i <= a->rank && i <= b->rank; i++) {
    Dim x = a->dim[a->rank - i], y = b->dim[b->rank - i];
    s.dim[s.rank - i] = x.n == 1 ? y : x;
  }
  return s;
}

static Value *add_constants(Graph *g, Value *x, Value *y) {
  Shape s = broadcast_shapes(&x->shape, &y->shape);
  double *u, *w;
  if (!broadcast_doubles(g->ctx, x->tensor, &s, &u) || !broadcast_doubles(g->ctx, y->tensor, &s, &w)) return NULL;
  int64_t dims[MAX_RANK];
  for (int i = 0; i < s.rank; i++) dims[i] = s.dim[i].n;
  for (int64_t i = 0, n = shape_count(&s); i < n; i++) u[i] = within_float(u[i] + w[i]);
  return constant_doubles(g, NULL, DT_F32, s.rank, dims, u);
}

/* All constant terms as one; *ok false if one does not fit. NULL: there is none. */
static Value *constant_mask(const Attention *a, bool *ok) {
  Value *sum = NULL;
  for (int i = 0; i < a->n_terms && *ok; i++) {
    if (!a->term[i].value->tensor) continue;
    Value *one = constant_term(a, &a->term[i]);
    *ok = one && one->shape.rank <= a->scores.rank;
    if (!*ok) break;
    apply_term(&a->term[i], one);
    sum = sum ? add_constants(a->root->graph, sum, one) : one;
    *ok = sum != NULL;
  }
  return sum;
}

static bool dynamic_terms_fit(const Attention *a) {
  for (int i = 0; i < a->n_terms; i++) {
    const Term *t = &a->term[i];
    if (t->value->tensor) continue;
    if (!shape_known(&t->value->shape) || (!t->is_where && t->value->dtype != DT_F32)) return false;
    if (!shape_equal(&t->at, &a->scores) && !drops_leading(a, t)) return false;
    if (a->scores.rank > 4 && t->value->shape.rank > 3) return false;
  }
  return true;
}

static Value *number_constant(const Node *before, double x) {
  Value *v = graph_constant_float(before->graph, NULL, (float)x);
  v->tasks = before->tasks;
  return v;
}

static Value *dynamic_term(const Attention *a, const Term *t) {
  Value *v = t->value;
  Shape s = v->shape;
  if (drops_leading(a, t) && s.rank == t->at.rank) {
    s.rank--;
    for (int i = 0; i < s.rank; i++) s.dim[i] = v->shape.dim[i + 1];
    v = insert_reshape(a->root, v, &s);
  }
  if (t->is_where) {
    Value *kept = number_constant(a->root, 0), *masked = number_constant(a->root, within_float(t->masked * t->factor));
    return insert_value(a->root, OP_WHERE, DT_F32, s, 3, v, t->keep ? kept : masked, t->keep ? masked : kept);
  }
  if (t->factor == 1) return v;
  return insert_value(a->root, OP_MUL, DT_F32, s, 2, v, number_constant(a->root, t->factor));
}

static Value *whole_mask(const Attention *a, Value *constant) {
  Value *sum = constant;
  if (sum) sum->tasks = a->root->tasks;
  for (int i = 0; i < a->n_terms; i++) {
    if (a->term[i].value->tensor) continue;
    Value *one = dynamic_term(a, &a->term[i]);
    sum = sum ? insert_value(a->root, OP_ADD, DT_F32, broadcast_shapes(&sum->shape, &one->shape), 2, sum, one) : one;
  }
  return sum;
}

/* Can no element of v be infinite or NaN, by what it is made of? */
static bool is_finite(const Value *v, int depth) {
  if (v->tensor) {
    for (int64_t i = 0, n = tensor_count(v->tensor); i < n; i++)
      if (!isfinite(tensor_number(v->tensor, i))) return false;
    return true;
  }
  const Node *n = v->producer;
  if (!dtype_is_float(v->dtype)) return true;
  if (!n || depth == 0 || n->expr) return false;
  switch (n->op) {
  case OP_WHERE: return is_finite(n->in[1], depth - 1) && is_finite(n->in[2], depth - 1);
  case OP_ADD:
  case OP_SUB:
  case OP_MUL: return is_finite(n->in[0], depth - 1) && is_finite(n->in[1], depth - 1);
  case OP_CAST:
  case OP_EXPAND:
  case OP_RESHAPE:
  case OP_UNSQUEEZE:
  case OP_SQUEEZE:
  case OP_SLICE:
  case OP_TRANSPOSE: return is_finite(n->in[0], depth - 1);
  default: return false;
  }
}

/* May the guard go: does the mask leave something finite in every row? */
static bool guard_is_idle(const Attention *a, const Value *constant) {
  if (!a->guarded) return true;
  bool constant_only = true;
  for (int i = 0; i < a->n_terms; i++) {
    const Term *t = &a->term[i];
    if (t->value->tensor) continue;
    constant_only = false;
    if (t->is_where ? !isfinite(t->masked) : !is_finite(t->value, 8)) return false;
  }
  if (!constant) return true;
  if (!constant_only && !is_finite(constant, 1)) return false;
  const Tensor *m = constant->tensor;
  int64_t columns = m->rank ? m->dim[m->rank - 1] : 1;
  for (int64_t row = 0; row < tensor_count(m); row += columns) {
    bool any = false;
    for (int64_t i = 0; i < columns; i++) any = any || isfinite(tensor_number(m, row + i));
    if (!any) return false;
  }
  return true;
}

static bool is_zero(const Value *mask) {
  double x;
  return value_is_number(mask, &x) && x == 0;
}

/* Is the mask 0 up to the diagonal and swallows everything above it, alike for all heads? */
static bool is_causal(const Value *mask) {
  const Tensor *m = mask->tensor;
  if (m->rank < 2 || m->dim[m->rank - 1] != m->dim[m->rank - 2]) return false;
  int64_t n = m->dim[m->rank - 1];
  if (tensor_count(m) != n * n || n == 1) return false;
  for (int64_t t = 0; t < n; t++)
    for (int64_t s = 0; s < n; s++) {
      double x = tensor_number(m, t * n + s);
      if (s <= t ? x != 0 : !(x <= -1e30)) return false;
    }
  return true;
}

/* ---- the new node ---- */

/* x' without transposing it twice: from [..., D, S] to [..., S, D]. Factors on the way go into *scale. */
static Value *untranspose(Node *before, Value *x, double *scale) {
  Value *inner;
  double factor;
  while (match_scaled(x, &inner, &factor) && shape_equal(&inner->shape, &x->shape)) {
    *scale *= factor;
    x = inner;
  }
  const Node *n = x->producer;
  int rank = x->shape.rank;
  if (made_by(x, OP_TRANSPOSE)) {
    int64_t perm[MAX_RANK];
    transpose_perm(n, perm);
    int64_t last = perm[rank - 1];
    perm[rank - 1] = perm[rank - 2];
    perm[rank - 2] = last;
    return insert_transpose(before, n->in[0], perm);
  }
  if (made_by(x, OP_RESHAPE) && same_tail(&x->shape, &n->in[0]->shape, 2)) {
    Value *y = untranspose(before, n->in[0], scale);
    Shape s = x->shape;
    s.dim[rank - 2] = x->shape.dim[rank - 1];
    s.dim[rank - 1] = x->shape.dim[rank - 2];
    return insert_reshape(before, y, &s);
  }
  return insert_swap_last(before, x);
}

/* x broadcast in its leading dimensions to those of `scores`, then as [B,H,...]. */
static Value *as_heads(Node *before, Value *x, const Shape *scores) {
  Shape full = *scores, heads = {.rank = 4, .dim = {{1, 0}, {1, 0}}};
  int rank = scores->rank;
  for (int i = 1; i <= 2; i++) heads.dim[4 - i] = full.dim[rank - i] = x->shape.dim[x->shape.rank - i];
  if (shape_count(&full) != shape_count(&x->shape)) {
    x = insert_value(before, OP_EXPAND, x->dtype, full, 2, x, shape_constant(before, &full));
  }
  if (rank >= 3) heads.dim[1] = full.dim[rank - 3];
  for (int i = 0; i < rank - 3; i++) heads.dim[0].n *= full.dim[i].n;
  return insert_reshape(before, x, &heads);
}

/* With more than two leading dimensions, all but the last of them are one in [B,H,T,S]: only a full mask follows. */
static Value *mask_as_heads(const Attention *a, Value *mask) {
  if (!mask || a->scores.rank <= 4 || mask->shape.rank <= 3) return mask;
  double *x;
  if (!mask->tensor || !broadcast_doubles(mask->graph->ctx, mask->tensor, &a->scores, &x)) return NULL;
  int64_t dims[4] = {1};
  for (int i = 0; i < a->scores.rank; i++) {
    int at = i - (a->scores.rank - 4);
    dims[at < 0 ? 0 : at] = at <= 0 ? dims[0] * a->scores.dim[i].n : a->scores.dim[i].n;
  }
  return constant_doubles(mask->graph, mask, DT_F32, 4, dims, x);
}

/* x / max(length, least), lengths being those of x along its last axis: x; else NULL. */
static Value *match_unit(const Value *v, double *least) {
  Value *x, *length;
  unsigned axes;
  if (!match_binary(v, OP_DIV, &x, &length) || !shape_equal(&x->shape, &v->shape)) return NULL;
  const Node *n = length->producer;
  if (made_by(length, OP_CLIP)) {
    bool unbounded = n->n_in < 3 || !n->in[2];
    if (n->n_in < 2 || !unbounded || !value_is_number(n->in[1], least)) return NULL;
    length = n->in[0];
  } else if (!match_number(length, OP_MAX, &length, least)) {
    return NULL;
  }
  if (!made_by(length, OP_REDUCE_L2) || length->producer->in[0] != x || !(*least > 0)) return NULL;
  bool along = node_axes(length->producer, x->shape.rank, &axes) && axes == 1u << (x->shape.rank - 1);
  return along && node_int(length->producer, "keepdims", 1) ? x : NULL;
}

/* The same where a Transpose that brings the last axis to `place` may stand behind the division. */
static Value *match_unit_at(Node *before, Value *v, int place, double *least) {
  if (!made_by(v, OP_TRANSPOSE)) return place == v->shape.rank - 1 ? match_unit(v, least) : NULL;
  int64_t perm[MAX_RANK];
  transpose_perm(v->producer, perm);
  Value *x = match_unit(v->producer->in[0], least);
  return x && perm[place] == v->shape.rank - 1 ? insert_transpose(before, x, perm) : NULL;
}

/* Where rows of q and k are all divided by their lengths: takes them as they were before; returns the least length. */
static double take_cosine(Attention *a) {
  double least, same;
  Value *q = match_unit_at(a->root, a->q, a->q->shape.rank - 1, &least);
  Value *kt = q ? match_unit_at(a->root, a->kt, a->kt->shape.rank - 2, &same) : NULL;
  if (!kt || same != least) return 0;
  a->q = q;
  a->kt = kt;
  return least;
}

/* A factor that is one for each head of scores [B,H,T,S], with as many dimensions as these or fewer. */
static Value *head_factor(Attention *a) {
  Value *v = a->row_factor;
  if (!v || a->scores.rank > 4 || v->shape.rank > a->scores.rank || v->shape.rank < 2) return NULL;
  if (v->shape.dim[v->shape.rank - 2].n != 1 || !shape_equal(&a->product, &a->scores)) return NULL;
  a->row_factor = NULL;
  return v;
}

static Value *final_query(Attention *a) {
  Value *inner;
  double factor;
  while (match_scaled(a->q, &inner, &factor) && shape_equal(&inner->shape, &a->q->shape)) {
    a->scale *= factor;
    a->q = inner;
  }
  if (!a->row_factor) return a->q;
  Shape s = broadcast_shapes(&a->q->shape, &a->row_factor->shape);
  return insert_value(a->root, OP_MUL, a->q->dtype, s, 2, a->q, a->row_factor);
}

/* v in the leading shape of the scores; the second product may have seen both reshaped. */
static Value *final_values(const Attention *a) {
  Shape s = a->scores, p = a->root->in[0]->shape;
  for (int i = 1; i <= 2; i++) s.dim[s.rank - i] = a->v->shape.dim[a->v->shape.rank - i];
  bool reshaped = !shape_equal(&p, &a->scores);
  return reshaped ? insert_reshape(a->root, a->v, &s) : a->v;
}

/* Has x the leading dimensions of `whole`, so that it can be reshaped as that is? */
static bool leads_alike(const Shape *x, const Shape *whole) {
  if (x->rank != whole->rank) return false;
  for (int i = 0; i < x->rank - 2; i++)
    if (x->dim[i].n != whole->dim[i].n) return false;
  return true;
}

/* Where a Reshape stands between a product and Softmax, the product's operands have to follow it. */
static bool operands_fit(const Attention *a) {
  Shape p = a->root->in[0]->shape;
  bool values = shape_equal(&p, &a->scores) ? a->v->shape.rank <= p.rank : leads_alike(&a->v->shape, &p);
  if (shape_equal(&a->product, &a->scores)) return values;
  bool tail = same_tail(&a->product, &a->scores, 2) && !a->row_factor;
  return values && tail && leads_alike(&a->q->shape, &a->product) && leads_alike(&a->kt->shape, &a->product);
}

static void rewrite(Attention *a, Value *mask, bool causal) {
  Node *root = a->root;
  Value *result = root->out[0];
  Value *factor = head_factor(a), *q = final_query(a);
  a->q = q;
  double cosine = take_cosine(a);
  q = as_heads(root, a->q, &a->scores);
  Value *k = as_heads(root, untranspose(root, a->kt, &a->scale), &a->scores);
  Value *v = as_heads(root, final_values(a), &a->scores);
  Shape s = q->shape;
  s.dim[3] = v->shape.dim[3];
  Value *in[5] = {q, k, v, mask, factor};
  int n_in = factor ? 5 : mask ? 4 : 3;
  Node *n;
  if (shape_equal(&s, &result->shape)) {
    n = take_over(result, OP_ATTENTION, n_in, in);
  } else {
    Value *out = insert_value(root, OP_ATTENTION, DT_F32, s, n_in, q, k, v, mask, factor);
    n = out->producer;
    take_over(result, OP_RESHAPE, 2, (Value *[]){out, shape_constant(root, &result->shape)});
  }
  node_set_float(n, "scale", (double)(float)a->scale);
  if (causal) node_set_int(n, "causal", 1);
  if (cosine > 0) node_set_float(n, "cosine", cosine);
}

static void recognise(Node *root) {
  Attention a;
  bool ok = true;
  if (!match_attention(&a, root) || !operands_fit(&a) || !dynamic_terms_fit(&a)) return;
  Value *constant = constant_mask(&a, &ok);
  if (!ok || !guard_is_idle(&a, constant)) return;
  if (constant && is_zero(constant)) constant = NULL;
  bool causal = constant && is_causal(constant);
  if (causal) constant = NULL;
  Value *mask = mask_as_heads(&a, whole_mask(&a, constant));
  if (!mask && constant) return;
  rewrite(&a, mask, causal);
}

void pass_attention(Graph *g) {
  size_t count;
  Node **list = node_list(g, &count);
  for (size_t i = 0; i < count; i++)
    if (!node_gone(list[i])) recognise(list[i]);
}
