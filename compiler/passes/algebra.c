/* Small cleanups that change no result, and canonical forms, so that the passes behind it meet fewer spellings.
 *
 * Needs: shapes; tasks marked; constants folded.
 * Gives: no Identity, no-op Reshape, Transpose, Expand, Slice, Concat, Pad, Cast or arithmetic with a neutral number;
 *        chains of Reshape, Squeeze, Unsqueeze, Flatten as one Reshape, of Transpose as one Transpose; no Expand before
 * an operator that broadcasts; small powers as Mul, Sqrt, Reciprocal; Gemm as MatMul (constant weights stored as [K,N])
 * and Add; the constant columns of a MatMul's joined operand as an added row. Breaks: nothing. Runs to a fixed point:
 * every rule leaves a smaller graph or a form no rule applies to.
 */
#include "algebra.h"
#include <math.h>
#include <string.h>

/* ---- nodes that do nothing ---- */

static bool same_value_shape(const Node *n) {
  return shape_known(&n->out[0]->shape) && shape_equal(&n->in[0]->shape, &n->out[0]->shape);
}

static bool transpose_moves(const Node *n) {
  int64_t perm[MAX_RANK];
  if (!transpose_perm(n, perm)) return true;
  for (int i = 0; i < n->in[0]->shape.rank; i++)
    if (perm[i] != i) return true;
  return false;
}

static bool slice_steps_forward(const Node *n) {
  if (n->n_in < 5 || !n->in[4]) return true;
  const Tensor *steps = n->in[4]->tensor;
  for (int64_t i = 0; steps && i < tensor_count(steps); i++)
    if (tensor_integer(steps, i) < 0) return false;
  return steps != NULL;
}

static bool all_zero(const Tensor *t) {
  for (int64_t i = 0; t && i < tensor_count(t); i++)
    if (tensor_integer(t, i)) return false;
  return t != NULL;
}

/* The value that the node only passes on, or NULL. */
static Value *passed_on(const Node *n) {
  Value *x = n->n_in > 0 ? n->in[0] : NULL;
  if (!x || n->n_out != 1 || n->expr) return NULL;
  switch (n->op) {
  case OP_IDENTITY: return x;
  case OP_RESHAPE:
  case OP_FLATTEN:
  case OP_SQUEEZE:
  case OP_UNSQUEEZE:
  case OP_EXPAND:
  case OP_TILE: return same_value_shape(n) ? x : NULL;
  case OP_TRANSPOSE: return transpose_moves(n) ? NULL : x;
  case OP_SLICE: return same_value_shape(n) && slice_steps_forward(n) ? x : NULL;
  case OP_CONCAT:
  case OP_SUM:
  case OP_MEAN:
  case OP_MAX:
  case OP_MIN: return n->n_in == 1 ? x : NULL;
  case OP_SPLIT: return same_value_shape(n) ? x : NULL;
  case OP_PAD: return all_zero(node_const(n, 1)) ? x : NULL;
  case OP_CAST: return x->dtype == n->out[0]->dtype && x->dtype != DT_NONE ? x : NULL;
  case OP_WHERE: return n->in[1] == n->in[2] && shape_equal(&n->in[1]->shape, &n->out[0]->shape) ? n->in[1] : NULL;
  default: return NULL;
  }
}

/* Arithmetic with a neutral number: x * 1, x / 1, x + 0, x - 0, x ^ 1. (That -0 + 0 is +0 is let go.) */
static Value *neutral_arithmetic(const Node *n) {
  Value *x;
  double c;
  if (n->n_out != 1 || n->expr || !match_number(n->out[0], n->op, &x, &c)) return NULL;
  bool one = n->op == OP_MUL || n->op == OP_DIV || n->op == OP_POW;
  bool zero = n->op == OP_ADD || n->op == OP_SUB;
  return ((one && c == 1) || (zero && c == 0)) && shape_equal(&x->shape, &n->out[0]->shape) ? x : NULL;
}

/* Where by a condition that is the same everywhere. */
static Value *decided_where(const Node *n) {
  double c;
  if (n->op != OP_WHERE || n->expr || !value_is_number(n->in[0], &c)) return NULL;
  Value *x = n->in[c != 0 ? 1 : 2];
  return shape_equal(&x->shape, &n->out[0]->shape) ? x : NULL;
}

static bool drop_idle(Node *n) {
  Value *x = passed_on(n);
  if (!x) x = neutral_arithmetic(n);
  if (!x) x = decided_where(n);
  if (!x || x == n->out[0] || x->dtype != n->out[0]->dtype) return false;
  if (n->out[0]->is_output && (!x->producer || x->is_output))
    return false; /* an Identity stays between two given names */
  replace_value(n->out[0], x);
  return true;
}

/* ---- views of views ---- */

static bool is_reshape_like(const Value *v) {
  return made_by(v, OP_RESHAPE) || made_by(v, OP_FLATTEN) || made_by(v, OP_SQUEEZE) || made_by(v, OP_UNSQUEEZE);
}

static bool join_reshapes(Node *n) {
  Value *y = n->out[0];
  if (!is_reshape_like(y) || !is_reshape_like(n->in[0]) || !shape_known(&y->shape)) return false;
  Value *x = n->in[0]->producer->in[0];
  take_over(y, OP_RESHAPE, 2, (Value *[]){x, shape_constant(n, &y->shape)});
  return true;
}

static bool join_transposes(Node *n) {
  Value *y = n->out[0];
  int64_t outer[MAX_RANK], inner[MAX_RANK], both[MAX_RANK];
  if (!made_by(y, OP_TRANSPOSE) || !made_by(n->in[0], OP_TRANSPOSE)) return false;
  Node *before = n->in[0]->producer;
  if (!transpose_perm(n, outer) || !transpose_perm(before, inner)) return false;
  int rank = y->shape.rank;
  for (int i = 0; i < rank; i++) both[i] = inner[outer[i]];
  Node *joined = take_over(y, OP_TRANSPOSE, 1, &before->in[0]);
  node_set_ints(joined, "perm", (size_t)rank, both);
  return true;
}

/* ---- broadcasting that the reader does itself ---- */

/* The shape of elementwise n's result if operand i had shape s; rank -1 if it does not follow. */
static Shape broadcast_with(const Node *n, int i, const Shape *s) {
  Shape r = *s;
  for (int k = 0; k < n->n_in; k++) {
    if (k == i || !n->in[k]) continue;
    const Shape *t = &n->in[k]->shape;
    Shape wide = t->rank > r.rank ? *t : r;
    for (int d = 1; d <= t->rank && d <= r.rank; d++) {
      Dim a = t->dim[t->rank - d], b = r.dim[r.rank - d];
      wide.dim[wide.rank - d] = a.n == 1 ? b : a;
    }
    r = wide;
  }
  return r;
}

static bool broadcasts(Op op) {
  switch (op) {
  case OP_ADD:
  case OP_SUB:
  case OP_MUL:
  case OP_DIV:
  case OP_POW:
  case OP_MAX:
  case OP_MIN:
  case OP_WHERE: return true;
  default: return false;
  }
}

/* op(x, Expand(y)) is op(x, y) where that has the same shape. */
static bool skip_expand(Node *n) {
  if (!broadcasts(n->op) || n->expr || !shape_known(&n->out[0]->shape)) return false;
  for (int i = 0; i < n->n_in; i++) {
    if (!made_by(n->in[i], OP_EXPAND)) continue;
    Node *expand = n->in[i]->producer;
    Shape s = broadcast_with(n, i, &expand->in[0]->shape);
    if (!shape_known(&expand->in[0]->shape) || !shape_equal(&s, &n->out[0]->shape)) continue;
    node_set_input(n, i, expand->in[0]);
    prune(expand);
    return true;
  }
  return false;
}

/* ---- powers ---- */

static bool simplify_power(Node *n) {
  Value *x, *y = n->out[0];
  double c;
  if (n->op != OP_POW || !match_number(y, OP_POW, &x, &c) || x->dtype != y->dtype || !dtype_is_float(y->dtype))
    return false;
  if (c == 2) {
    take_over(y, OP_MUL, 2, (Value *[]){x, x});
  } else if (c == 3) {
    Value *square = insert_value(n, OP_MUL, y->dtype, y->shape, 2, x, x);
    take_over(y, OP_MUL, 2, (Value *[]){square, x});
  } else if (c == 0.5) {
    take_over(y, OP_SQRT, 1, &x);
  } else if (c == -1) {
    take_over(y, OP_RECIPROCAL, 1, &x);
  } else if (c == -0.5) {
    Value *root = insert_value(n, OP_SQRT, y->dtype, y->shape, 1, x);
    take_over(y, OP_RECIPROCAL, 1, &root);
  } else {
    return false;
  }
  return true;
}

/* ---- the rules, in order ---- */

typedef bool Rule(Node *n);

static bool apply_rules(Node *n) {
  static Rule *const rules[] = {drop_idle,      join_reshapes,  join_transposes,       skip_expand,
                                simplify_power, gemm_as_matmul, split_constant_columns};
  for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
    if (rules[r](n)) return true;
  return false;
}

void pass_algebra(Graph *g) {
  for (bool changed = true; changed;) {
    size_t count;
    Node **list = node_list(g, &count);
    changed = false;
    for (size_t i = 0; i < count; i++)
      if (!node_gone(list[i]) && list[i]->n_out > 0 && list[i]->out[0]) changed = apply_rules(list[i]) || changed;
  }
  graph_remove_dead(g);
}
