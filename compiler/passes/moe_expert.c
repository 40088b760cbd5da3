/* An expert read backwards from its result: fc2(act(fc1(rows))), with or without a gate fc3, through any layout
 * operators in between. Reading starts at the end because only there it is known which layer is the second: forwards,
 * the layers that made x would look like the beginning of an expert. */
#include "moe.h"

enum {
  DEPTH = 64,    /* operators between two stages: a chain of that many views is no expert */
  BUDGET = 1000, /* values of one expert: products of products of products are none either */
};

/* ---- layout ---- */

static bool is_view(Op op) {
  return op == OP_IDENTITY || op == OP_RESHAPE || op == OP_FLATTEN || op == OP_SQUEEZE || op == OP_UNSQUEEZE;
}

static bool is_layout(Op op) { return is_view(op) || op == OP_TRANSPOSE || op == OP_EXPAND || op == OP_TILE; }

/* A Cast that changes no value of this kind. */
static bool is_no_cast(const Node *n) {
  return n->op == OP_CAST && n->in[0]->dtype == DT_F32 && n->out[0]->dtype == DT_F32;
}

Value *value_root(Value *v) {
  while (v->producer && (is_view(v->producer->op) || is_no_cast(v->producer))) v = v->producer->in[0];
  return v;
}

/* What a node without computation repeats, or NULL. */
static const Value *repeated(const Node *n) {
  bool part = n->op == OP_SLICE || n->op == OP_SPLIT || n->op == OP_GATHER;
  return is_layout(n->op) || is_no_cast(n) || part ? n->in[0] : NULL;
}

bool is_number(const Value *v, double *x) {
  for (int depth = 0; v && depth < DEPTH && shape_known(&v->shape) && shape_count(&v->shape) > 0; depth++) {
    const Node *n = v->producer;
    if (v->tensor || !n) return value_is_number(v, x);
    if (n->expr) return false;
    if (n->op == OP_CONSTANT_OF_SHAPE) {
      const Attr *value = node_attr(n, "value");
      *x = value ? tensor_number(value->tensor, 0) : 0;
      return true;
    }
    v = repeated(n);
  }
  return false;
}

Fact *fact_layout(Mo *m, const Node *n, const Fact *f) {
  Axes axes = f->axes;
  if (n->op == OP_TRANSPOSE && !axes_transpose(n, &f->axes, &axes)) return NULL;
  if ((n->op == OP_EXPAND || n->op == OP_TILE) && !axes_expand(&n->in[0]->shape, &n->out[0]->shape, &f->axes, &axes))
    return NULL;
  Fact *r = fact_copy(m, f);
  r->axes = axes;
  return r;
}

/* ---- constants ---- */

/* A matrix [a,b] (features 1 and 2), or one for each expert in front of it. */
static Fact *constant_matrix(Mo *m, Value *v) {
  Tensor *t = v->tensor;
  if (t->rank < 2 || t->dim[t->rank - 1] < 2 || t->dim[t->rank - 2] < 2) return NULL;
  Axes axes = {0};
  for (int d = 0; d < t->rank - 2; d++) {
    if (t->dim[d] == 1) continue;
    if (t->dim[d] != m->experts || axes.n) return NULL;
    axes_add(&axes, (Axis){AX_EXPERT, 0, t->dim[d]});
  }
  for (int i = 0; i < 2; i++) axes_add(&axes, (Axis){AX_FEATURE, i + 1, t->dim[t->rank - 2 + i]});
  Fact *f = fact_new(m, FK_WEIGHT, &axes);
  f->tensor = t;
  return f;
}

/* A vector, or one for each expert in front of it. */
static Fact *constant_vector(Mo *m, Value *v) {
  Tensor *t = v->tensor;
  Axes axes = {0};
  int64_t dims[MAX_RANK];
  int n = 0;
  for (int d = 0; d < t->rank; d++)
    if (t->dim[d] != 1) dims[n++] = t->dim[d];
  if (n < 1 || n > 2 || (n == 2 && dims[0] != m->experts)) return NULL;
  if (n == 2) axes_add(&axes, (Axis){AX_EXPERT, 0, dims[0]});
  axes_add(&axes, (Axis){AX_FEATURE, 1, dims[n - 1]});
  Fact *f = fact_new(m, FK_WEIGHT, &axes);
  f->tensor = t;
  return f;
}

static int features_of(const Fact *f) {
  int n = 0;
  for (int i = 0; i < f->axes.n; i++) n += f->axes.a[i].kind == AX_FEATURE;
  return n;
}

/* Large constants are not folded: their Transpose may still be there. */
static Fact *weight_behind(Mo *m, Value *v, int features, int depth) {
  if (!v || depth > DEPTH) return NULL;
  if (v->tensor) return features == 2 ? constant_matrix(m, v) : constant_vector(m, v);
  Fact *f = fact_of(m, v);
  if (f) return f->kind == FK_WEIGHT && features_of(f) == features ? f : NULL;
  const Node *n = v->producer;
  if (!n || (!is_view(n->op) && n->op != OP_TRANSPOSE)) return NULL;
  f = weight_behind(m, n->in[0], features, depth + 1);
  return f ? fact_layout(m, n, f) : NULL;
}

Fact *weight_of(Mo *m, Value *v, int features) { return weight_behind(m, v, features, 0); }

/* ---- rows: what goes into the first layer ---- */

/* v itself as tokens × features: always true, whatever v is. */
Fact *rows_of_value(Mo *m, Value *v) {
  Value *root = value_root(v);
  int64_t n = shape_known(&v->shape) ? shape_count(&v->shape) : 0;
  if (n < 1 || n % m->tokens || root->dtype != DT_F32) return NULL;
  Axes axes = m->token_axes;
  if (!axes_add(&axes, (Axis){AX_FEATURE, 0, n / m->tokens})) return NULL;
  Body *body = ctx_alloc(m->c, sizeof *body);
  body->x = root;
  Fact *f = fact_new(m, FK_TERM, &axes);
  f->stage = ST_ROWS;
  f->one = body;
  return f;
}

static bool tokens_in_order(const Fact *f) {
  int next = 0;
  for (int i = 0; i < f->axes.n; i++)
    if (f->axes.a[i].kind == AX_TOKEN && f->axes.a[i].index < next)
      return false;
    else if (f->axes.a[i].kind == AX_TOKEN)
      next = f->axes.a[i].index;
  return true;
}

/* x[i / r] or x[i % tokens] for constant i: every token r times. */
static Fact *repeated_rows(Mo *m, const Node *n, const Fact *f) {
  const Tensor *index = node_const(n, 1);
  int start[MAX_RANK + 1];
  if (node_int(n, "axis", 0) != 0 || !index || index->rank != 1 || f->axes.n + 1 > MAX_AXES) return NULL;
  if (!axes_by_dim(&n->in[0]->shape, &f->axes, start)) return NULL;
  int64_t count = tensor_count(index), size = n->in[0]->shape.dim[0].n;
  if (size != m->tokens || count <= size || count % size) return NULL;
  bool inner = true, outer = true;
  for (int64_t i = 0; i < count; i++) {
    inner &= tensor_integer(index, i) == i / (count / size);
    outer &= tensor_integer(index, i) == i % size;
  }
  if (!inner && !outer) return NULL;
  Axes axes = {0};
  if (outer) axes_add(&axes, (Axis){AX_FREE, 0, count / size});
  axes_add_part(&axes, &f->axes, 0, start[1]);
  if (!outer) axes_add(&axes, (Axis){AX_FREE, 0, count / size});
  axes_add_part(&axes, &f->axes, start[1], f->axes.n);
  Fact *r = fact_copy(m, f);
  r->axes = axes;
  return r;
}

static Fact *read_rows(Mo *m, Value *v, int depth) {
  Fact *f = fact_of(m, v);
  if (f) return f->kind == FK_TERM && f->stage == ST_ROWS && !f->plus ? f : NULL;
  Node *n = v->producer;
  if (n && depth < DEPTH && (is_layout(n->op) || n->op == OP_GATHER || is_no_cast(n))) {
    Fact *in = n->in[0]->tensor ? NULL : read_rows(m, n->in[0], depth + 1);
    if (in) in = n->op == OP_GATHER ? repeated_rows(m, n, in) : fact_layout(m, n, in);
    if (in && tokens_in_order(in)) return in;
  }
  return rows_of_value(m, v);
}

/* ---- layers ---- */

bool matmul_labels(const Node *n, Labelled *a, Labelled *b, int *out, int *n_out) {
  int ra = a->shape->rank, rb = b->shape->rank, rank = ra > rb ? ra : rb;
  if (ra < 2 || rb < 2 || rank > MAX_RANK) return false;
  labels_broadcast(a, rank);
  labels_broadcast(b, rank);
  enum { ROW = MAX_RANK, INNER, COLUMN };
  bool ta = n->op == OP_GEMM && node_int(n, "transA", 0), tb = n->op == OP_GEMM && node_int(n, "transB", 0);
  a->label[ra - 2] = ta ? INNER : ROW;
  a->label[ra - 1] = ta ? ROW : INNER;
  b->label[rb - 2] = tb ? COLUMN : INNER;
  b->label[rb - 1] = tb ? INNER : COLUMN;
  for (int d = 0; d < rank - 2; d++) out[d] = d;
  out[rank - 2] = ROW;
  out[rank - 1] = COLUMN;
  *n_out = rank;
  return true;
}

Fact *matmul_fact(Mo *m, const Node *n, const Fact *fa, const Fact *fb) {
  Labelled a = {.axes = &fa->axes, .shape = &n->in[0]->shape}, b = {.axes = &fb->axes, .shape = &n->in[1]->shape};
  int out[MAX_RANK], n_out;
  Axes axes, summed;
  if (!matmul_labels(n, &a, &b, out, &n_out) || !axes_product(&a, &b, out, n_out, &axes, &summed)) return NULL;
  Fact *f = fact_product(m, fa, fb, &axes, &summed);
  if (!f || n->op != OP_GEMM) return f;
  if (node_float(n, "alpha", 1) != 1) return NULL;
  return n->n_in > 2 && n->in[2] ? (node_float(n, "beta", 1) == 1 ? add_bias(m, f, &n->out[0]->shape, n->in[2]) : NULL)
                                 : f;
}

Fact *add_bias(Mo *m, const Fact *f, const Shape *shape, Value *bias) {
  Fact *fb = weight_of(m, bias, 1);
  if (!fb) return NULL;
  Labelled a = {.axes = &f->axes, .shape = shape}, b = {.axes = &fb->axes, .shape = &bias->shape};
  int out[MAX_RANK];
  Axes axes, summed;
  int rank = shape->rank > bias->shape.rank ? shape->rank : bias->shape.rank;
  labels_broadcast(&a, rank);
  labels_broadcast(&b, rank);
  for (int d = 0; d < rank; d++) out[d] = d;
  if (!axes_product(&a, &b, out, rank, &axes, &summed)) return NULL;
  for (int i = 0; i < axes.n; i++)
    if (axes.a[i].kind == AX_FEATURE) axes.a[i].index = 0;
  return fact_bias(m, f, fb, &axes);
}

static Fact *read_at(Mo *m, Value *v, Stage stage, int depth);

/* A product of `before`-stage values with a constant. */
static Fact *read_layer(Mo *m, const Node *n, Stage before, int depth) {
  Fact *w = weight_of(m, n->in[1], 2);
  if (w) {
    Fact *f = read_at(m, n->in[0], before, depth);
    return f ? matmul_fact(m, n, f, w) : NULL;
  }
  w = weight_of(m, n->in[0], 2);
  Fact *f = w ? read_at(m, n->in[1], before, depth) : NULL;
  return f ? matmul_fact(m, n, w, f) : NULL;
}

static Fact *read_bias(Mo *m, const Node *n, Stage stage, int depth) {
  for (int i = 0; i < 2; i++)
    if (weight_of(m, n->in[i], 1)) {
      Fact *f = read_at(m, n->in[1 - i], stage, depth);
      return f ? add_bias(m, f, &n->in[1 - i]->shape, n->in[i]) : NULL;
    }
  return NULL;
}

/* Every step-th of the channels of the first layer, where fc1 and fc3 were computed as one. */
static Fact *read_part(Mo *m, const Value *v, int depth) {
  int dim, start[MAX_RANK + 1];
  int64_t first, step, count;
  const Node *n = v->producer;
  if (!part_range(v, &dim, &first, &step, &count)) return NULL;
  Fact *f = read_at(m, n->in[0], ST_LIN, depth);
  if (!f || !f->one || !axes_by_dim(&n->in[0]->shape, &f->axes, start) || start[dim + 1] - start[dim] != 1) return NULL;
  Axis *a = &f->axes.a[start[dim]];
  if (a->kind != AX_FEATURE || first + (count - 1) * step >= a->n || count < 2) return NULL;
  Fact *r = fact_copy(m, f);
  r->axes.a[start[dim]].n = count;
  Body *body = ctx_alloc(m->c, sizeof *body);
  *body = *f->one;
  Linear *fc = &body->fc[FC1];
  fc->first += first * fc->step;
  fc->step *= step;
  fc->b_first += first * fc->b_step;
  fc->b_step *= step;
  fc->count = count;
  r->one = body;
  return r;
}

/* The outputs of one wide layer, cut into those of each expert by a Reshape. */
static Fact *cut_into_experts(Mo *m, const Node *n, Fact *f) {
  int start[MAX_RANK + 1], at = axes_find(&f->axes, AX_FEATURE);
  if (axes_by_dim(&n->out[0]->shape, &f->axes, start) || at < 0 || axes_has(&f->axes, AX_EXPERT) || !f->one || f->cover)
    return f;
  int64_t width = f->axes.a[at].n / m->experts;
  if (width < 2 || m->experts < 2 || width * m->experts != f->axes.a[at].n) return f;
  Axes axes = {0};
  axes_add_part(&axes, &f->axes, 0, at);
  axes_add(&axes, (Axis){AX_EXPERT, 0, m->experts});
  axes_add(&axes, (Axis){AX_FEATURE, 0, width});
  if (!axes_add_part(&axes, &f->axes, at + 1, f->axes.n) || !axes_by_dim(&n->out[0]->shape, &axes, start)) return f;
  Body *body = ctx_alloc(m->c, sizeof *body);
  *body = *f->one;
  Linear *fc = &body->fc[FC1];
  fc->count = width;
  fc->per_expert = width * fc->step;
  fc->b_per_expert = width * fc->b_step;
  Fact *r = fact_copy(m, f);
  r->axes = axes;
  r->one = body;
  return r;
}

static Fact *read_linear(Mo *m, Value *v, int depth) {
  const Node *n = v->producer;
  switch (n->op) {
  case OP_ADD: return read_bias(m, n, ST_LIN, depth);
  case OP_MATMUL:
  case OP_GEMM: return read_layer(m, n, ST_ROWS, depth);
  case OP_SPLIT:
  case OP_SLICE:
  case OP_GATHER: return read_part(m, v, depth);
  default: return NULL;
  }
}

/* ---- activations ---- */

static Fact *activated(Mo *m, const Fact *f, Activation act) {
  if (!f || f->stage != ST_LIN || !fact_is_plain(m, f)) return NULL;
  Fact *r = fact_copy(m, f);
  Body *body = ctx_alloc(m->c, sizeof *body);
  *body = *f->one;
  body->act = act;
  r->one = body;
  r->stage = ST_HIDDEN;
  return r;
}

/* act(fc1(x)) · fc3(x), both of the same rows */
static Fact *gated(Mo *m, const Fact *a, const Fact *b) {
  if (!a || !b || a->stage != ST_HIDDEN || b->stage != ST_LIN || a->one->has_fc3 || !fact_is_plain(m, b)) return NULL;
  if (!axes_equal(&a->axes, &b->axes) || a->one->x != b->one->x || a->list != b->list || !a->cover != !b->cover)
    return NULL;
  if (a->cover && !cover_equal(m, a->cover, b->cover)) return NULL;
  Body *body = ctx_alloc(m->c, sizeof *body);
  *body = *a->one;
  body->fc[FC3] = b->one->fc[FC1];
  body->has_fc3 = true;
  Fact *r = fact_copy(m, a);
  r->one = body;
  return r;
}

static bool is_sigmoid_of(const Value *v, const Value *x) {
  return v->producer && v->producer->op == OP_SIGMOID && v->producer->in[0] == x;
}

static Fact *read_product(Mo *m, const Node *n, int depth) {
  for (int i = 0; i < 2; i++)
    if (is_sigmoid_of(n->in[i], n->in[1 - i])) return activated(m, read_at(m, n->in[1 - i], ST_LIN, depth), ACT_SILU);
  for (int i = 0; i < 2; i++) {
    Fact *a = read_at(m, n->in[i], ST_HIDDEN, depth), *b = a ? read_at(m, n->in[1 - i], ST_LIN, depth) : NULL;
    if (a && b) return gated(m, a, b);
  }
  return NULL;
}

static Fact *read_hidden(Mo *m, Value *v, int depth) {
  const Node *n = v->producer;
  Activation act;
  switch (n->op) {
  case OP_RELU: act = ACT_RELU; break;
  case OP_GELU: act = node_string(n, "approximate", "none")[0] == 't' ? ACT_GELU_TANH : ACT_GELU; break;
  case OP_MS_GELU: act = ACT_GELU; break;
  case OP_SWISH:
    if (node_float(n, "alpha", 1) != 1) return NULL;
    act = ACT_SILU;
    break;
  case OP_MUL: return read_product(m, n, depth);
  default: return NULL;
  }
  return activated(m, read_at(m, n->in[0], ST_LIN, depth), act);
}

/* ---- the expert ---- */

/* One of the experts that are side by side, which may be as large as one that is alone. */
static Fact *read_one_of_many(Mo *m, Value *v, int depth) {
  if (!v || m->in_stack) return NULL;
  int budget = m->budget;
  m->budget = BUDGET;
  m->in_stack = true;
  Fact *f = read_at(m, v, ST_OUT, depth);
  m->in_stack = false;
  m->budget = budget;
  return f;
}

/* Results of all experts side by side along a new dimension. */
static Fact *read_stack(Mo *m, const Node *n, int depth) {
  int rank = n->out[0]->shape.rank, start[MAX_RANK + 1];
  int64_t axis = node_int(n, "axis", 0);
  axis += axis < 0 ? rank : 0;
  if (n->n_in != m->experts || axis < 0 || axis >= rank) return NULL;
  const Body **by = ctx_array(m->c, (size_t)m->experts, sizeof *by);
  Fact *first = NULL;
  for (int i = 0; i < n->n_in; i++) {
    Fact *f = read_one_of_many(m, n->in[i], depth);
    if (!f || f->cover || !f->one || (first && !axes_equal(&f->axes, &first->axes))) return NULL;
    if (!axes_by_dim(&n->in[i]->shape, &f->axes, start) || start[axis] != start[axis + 1]) return NULL;
    by[i] = f->one;
    first = first ? first : f;
  }
  if (!first) return NULL;
  Fact *r = fact_copy(m, first);
  r->axes = (Axes){0};
  axes_add_part(&r->axes, &first->axes, 0, start[axis]);
  axes_add(&r->axes, (Axis){AX_EXPERT, 0, m->experts});
  if (!axes_add_part(&r->axes, &first->axes, start[axis], first->axes.n)) return NULL;
  r->one = NULL;
  r->by = by;
  return r;
}

/* The second layer; without an activation in front of it the first one's is the identity. */
static Fact *read_out(Mo *m, Value *v, int depth) {
  const Node *n = v->producer;
  switch (n->op) {
  case OP_ADD: return read_bias(m, n, ST_OUT, depth);
  case OP_MATMUL:
  case OP_GEMM: return read_layer(m, n, ST_HIDDEN, depth);
  case OP_CONCAT: return read_stack(m, n, depth);
  default: return NULL;
  }
}

/* The fact of v if it stands at this stage of an expert. */
static Fact *read_at(Mo *m, Value *v, Stage stage, int depth) {
  if (stage == ST_ROWS) return read_rows(m, v, depth);
  if (m->budget-- <= 0) return NULL;
  Fact *known = fact_of(m, v);
  if (known && known->kind == FK_TERM && known->stage == stage && known->one) return known;
  Node *n = v->producer;
  if (known || !n || depth > DEPTH || v->dtype != DT_F32) return NULL;
  if (is_layout(n->op) || is_no_cast(n)) {
    Fact *f = read_at(m, n->in[0], stage, depth + 1);
    f = f ? fact_layout(m, n, f) : NULL;
    return f && stage == ST_LIN && n->op == OP_RESHAPE ? cut_into_experts(m, n, f) : f;
  }
  if (stage == ST_LIN) return read_linear(m, v, depth + 1);
  if (stage == ST_OUT) return read_out(m, v, depth + 1);
  Fact *f = read_hidden(m, v, depth + 1);
  return f ? f : activated(m, read_at(m, v, ST_LIN, depth + 1), ACT_IDENTITY);
}

Fact *expert_of(Mo *m, Value *v) {
  m->budget = BUDGET;
  Fact *f = read_at(m, v, ST_OUT, 0);
  if (!f) {
    f = read_at(m, v, ST_HIDDEN, 0);
    if (f && f->one->act == ACT_IDENTITY && !f->one->has_fc3) f = NULL; /* any layer at all */
  }
  m->saw_expert |= f != NULL;
  return f;
}
