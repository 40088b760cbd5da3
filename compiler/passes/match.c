/* What the recognising passes share; see match.h. */
#include "match.h"
#include <math.h>
#include <string.h>

/* ---- looking ---- */

bool same_number(double x, double wanted) {
  if (fabs(x - wanted) <= 4e-6 * fabs(wanted)) return true;
  float f = (float)wanted, g = (float)x;
  return g == half_to_float(float_to_half(f)) || g == bfloat_to_float(float_to_bfloat(f));
}

bool made_by(const Value *v, Op op) { return v && v->producer && v->producer->op == op && !v->producer->expr; }

bool match_binary(const Value *v, Op op, Value **a, Value **b) {
  if (!made_by(v, op) || v->producer->n_in != 2 || !v->producer->in[0] || !v->producer->in[1]) return false;
  *a = v->producer->in[0];
  *b = v->producer->in[1];
  return true;
}

static bool commutes(Op op) { return op == OP_ADD || op == OP_MUL || op == OP_MAX || op == OP_MIN; }

bool match_number(const Value *v, Op op, Value **x, double *c) {
  Value *a, *b;
  if (!match_binary(v, op, &a, &b)) return false;
  if (!value_is_number(b, c)) {
    Value *other = a;
    a = b;
    b = other;
    if (!commutes(op) || !value_is_number(b, c)) return false;
  }
  *x = a;
  return shape_equal(&a->shape, &v->shape) || b->shape.rank == 0;
}

bool match_scaled(const Value *v, Value **x, double *factor) {
  if (match_number(v, OP_MUL, x, factor)) return true;
  if (match_number(v, OP_DIV, x, factor) && *factor != 0) {
    *factor = 1 / *factor;
    return true;
  }
  if (!made_by(v, OP_NEG)) return false;
  *x = v->producer->in[0];
  *factor = -1;
  return true;
}

bool match_square(const Value *v, Value **x) {
  Value *b;
  double two;
  if (match_binary(v, OP_MUL, x, &b) && *x == b) return true;
  return match_number(v, OP_POW, x, &two) && two == 2;
}

int axis_at(int64_t axis, int rank) {
  if (axis < 0) axis += rank;
  return axis >= 0 && axis < rank ? (int)axis : -1;
}

bool node_axes(const Node *n, int rank, unsigned *axes) {
  *axes = 0;
  const Tensor *t = node_const(n, 1);
  if (n->n_in < 2 || !n->in[1] || (t && tensor_count(t) == 0)) {
    if (!node_int(n, "noop_with_empty_axes", 0)) *axes = (1u << rank) - 1;
    return true;
  }
  if (!t) return false;
  for (int64_t i = 0; i < tensor_count(t); i++) {
    int axis = axis_at(tensor_integer(t, i), rank);
    if (axis < 0) return false;
    *axes |= 1u << axis;
  }
  return true;
}

bool transpose_perm(const Node *n, int64_t perm[MAX_RANK]) {
  int rank = n->in[0]->shape.rank;
  const int64_t *given;
  bool has = rank >= 0 && node_ints(n, "perm", &given) == (size_t)rank;
  for (int i = 0; i < rank; i++) perm[i] = has ? given[i] : rank - 1 - i;
  return rank >= 0;
}

bool same_tail(const Shape *a, const Shape *b, int n) {
  if (a->rank < n || b->rank < n) return false;
  for (int i = 1; i <= n; i++) {
    Dim x = a->dim[a->rank - i], y = b->dim[b->rank - i];
    if (x.sym != y.sym || x.n != y.n || (x.n < 0 && x.sym == 0)) return false;
  }
  return true;
}

void match_add(Match *m, const Node *n) {
  if (!n) return;
  for (int i = 0; i < m->n && i < 32; i++)
    if (m->node[i] == n) return;
  if (m->n < 32) m->node[m->n] = n;
  m->n++;
}

static bool match_has(const Match *m, const Node *n) {
  for (int i = 0; i < m->n; i++)
    if (m->node[i] == n) return true;
  return false;
}

bool match_closed(const Match *m, const Node *root) {
  if (m->n > 32) return false;
  for (int i = 0; i < m->n; i++) {
    const Node *n = m->node[i];
    if (n->tasks != root->tasks) return false;
    for (int o = 0; n != root && o < n->n_out; o++) {
      if (!n->out[o]) continue;
      if (n->out[o]->is_output) return false;
      for (size_t u = 0; u < n->out[o]->n_uses; u++)
        if (!match_has(m, n->out[o]->uses[u].node)) return false;
    }
  }
  return true;
}

Node *sole_reader(const Value *v, Op op) {
  if (!value_single_use(v)) return NULL;
  Node *n = v->uses[0].node;
  return n->op == op && !n->expr && v->producer && n->tasks == v->producer->tasks ? n : NULL;
}

/* ---- changing ---- */

Node **node_list(Graph *g, size_t *count) {
  *count = 0;
  for (Node *n = g->first; n; n = n->next) ++*count;
  Node **list = ctx_array(g->ctx, *count + 1, sizeof *list);
  size_t i = 0;
  for (Node *n = g->first; n; n = n->next) list[i++] = n;
  return list;
}

bool node_gone(const Node *n) { return !n->prev && n->graph->first != n; }

void prune(Node *n) {
  if (node_gone(n)) return;
  for (int i = 0; i < n->n_out; i++)
    if (n->out[i] && (n->out[i]->n_uses || n->out[i]->is_output)) return;
  int n_in = n->n_in;
  Value **in = n->in;
  node_remove(n);
  for (int i = 0; i < n_in; i++)
    if (in[i] && in[i]->producer) prune(in[i]->producer);
}

Node *take_over(Value *v, Op op, int n_in, Value *const *in) {
  Node *old = v->producer;
  old->out[v->output] = NULL;
  v->producer = NULL;
  Node *n = graph_node(v->graph, old, op, old->name, n_in, in, 1, &v);
  prune(old);
  return n;
}

Value *insert_value(Node *before, Op op, DType t, Shape s, int n_in, ...) {
  Value *in[8];
  va_list ap;
  va_start(ap, n_in);
  for (int i = 0; i < n_in && i < 8; i++) in[i] = va_arg(ap, Value *);
  va_end(ap);
  Value *out = graph_value(before->graph, op_info(op)->name, t, s);
  graph_node(before->graph, before, op, before->name, n_in, in, 1, &out);
  return out;
}

static void shape_dims(const Shape *s, int64_t dims[MAX_RANK]) {
  for (int i = 0; i < s->rank; i++) dims[i] = s->dim[i].n;
}

Value *shape_constant(const Node *n, const Shape *s) {
  int64_t dims[MAX_RANK];
  shape_dims(s, dims);
  Value *v = graph_constant_ints(n->graph, "shape", 1, s->rank, dims);
  v->tasks = n->tasks;
  return v;
}

Value *insert_reshape(Node *before, Value *x, const Shape *s) {
  if (shape_equal(&x->shape, s)) return x;
  if (made_by(x, OP_RESHAPE)) return insert_reshape(before, x->producer->in[0], s);
  if (!x->tensor) return insert_value(before, OP_RESHAPE, x->dtype, *s, 2, x, shape_constant(before, s));
  int64_t dims[MAX_RANK];
  shape_dims(s, dims);
  Value *v =
      graph_constant(before->graph, x->name, tensor_new(before->graph->ctx, x->dtype, s->rank, dims, x->tensor->data));
  v->tasks = before->tasks;
  return v;
}

Value *insert_transpose(Node *before, Value *x, const int64_t *perm) {
  if (made_by(x, OP_TRANSPOSE)) {
    int64_t inner[MAX_RANK] = {0}, both[MAX_RANK] = {0};
    transpose_perm(x->producer, inner);
    for (int i = 0; i < x->shape.rank; i++) both[i] = inner[perm[i]];
    return insert_transpose(before, x->producer->in[0], both);
  }
  Shape s = x->shape;
  bool moves = false;
  for (int i = 0; i < s.rank; i++) {
    s.dim[i] = x->shape.dim[perm[i]];
    moves = moves || perm[i] != i;
  }
  if (!moves) return x;
  Value *out = insert_value(before, OP_TRANSPOSE, x->dtype, s, 1, x);
  node_set_ints(out->producer, "perm", (size_t)s.rank, perm);
  return out;
}

Value *insert_swap_last(Node *before, Value *x) {
  int64_t perm[MAX_RANK];
  int rank = x->shape.rank;
  for (int i = 0; i < rank; i++) perm[i] = i < rank - 2 ? i : i == rank - 2 ? rank - 1 : rank - 2;
  return insert_transpose(before, x, perm);
}

/* The tasks of a value spread to what it is computed from. */
static void widen_tasks(Value *v, uint64_t tasks) {
  if ((v->tasks & tasks) == tasks) return;
  v->tasks |= tasks;
  Node *n = v->producer;
  if (!n) return;
  n->tasks |= tasks;
  for (int o = 0; o < n->n_out; o++)
    if (n->out[o]) n->out[o]->tasks |= n->tasks;
  for (int i = 0; i < n->n_in; i++)
    if (n->in[i]) widen_tasks(n->in[i], n->tasks);
}

void replace_value(Value *from, Value *to) {
  widen_tasks(to, from->tasks);
  Node *old = from->producer;
  value_replace(from, to);
  if (old) prune(old);
}

/* ---- constants ---- */

double *tensor_doubles(Ctx *c, const Tensor *t) {
  int64_t n = tensor_count(t);
  double *out = ctx_array(c, (size_t)(n ? n : 1), sizeof *out);
  for (int64_t i = 0; i < n; i++) out[i] = tensor_number(t, i);
  return out;
}

Value *constant_doubles(Graph *g, const Value *like, DType t, int rank, const int64_t *dims, const double *x) {
  Tensor *tensor = tensor_new(g->ctx, t, rank, dims, NULL);
  char *out = tensor_writable(tensor);
  size_t size = dtype_size(t);
  for (int64_t i = 0, n = tensor_count(tensor); i < n; i++) {
    float f = (float)x[i];
    uint16_t half = t == DT_F16 ? float_to_half(f) : float_to_bfloat(f);
    memcpy(out + (size_t)i * size,
           t == DT_F64   ? (const void *)&x[i]
           : t == DT_F32 ? (const void *)&f
                         : (const void *)&half,
           size);
  }
  Value *v = graph_constant(g, like ? like->name : NULL, tensor);
  v->tasks = like ? like->tasks : 0;
  return v;
}

bool broadcast_doubles(Ctx *c, const Tensor *t, const Shape *to, double **out) {
  int64_t stride[MAX_RANK] = {0}, step = 1, count = shape_count(to);
  if (!shape_known(to) || t->rank > to->rank || count < 0) return false;
  for (int i = t->rank - 1, d = to->rank - 1; i >= 0; i--, d--) {
    if (t->dim[i] != 1 && t->dim[i] != to->dim[d].n) return false;
    stride[d] = t->dim[i] == 1 ? 0 : step;
    step *= t->dim[i];
  }
  double *x = *out = ctx_array(c, (size_t)(count ? count : 1), sizeof *x);
  int64_t index[MAX_RANK] = {0};
  for (int64_t k = 0, at = 0; k < count; k++) {
    x[k] = tensor_number(t, at);
    for (int d = to->rank - 1; d >= 0; d--) {
      at += stride[d];
      if (++index[d] < to->dim[d].n) break;
      at -= stride[d] * index[d];
      index[d] = 0;
    }
  }
  return true;
}
