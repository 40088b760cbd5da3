/* Layout operators: the output is the input seen through other strides; only Reshape may have to copy. */
#include "loops.h"

static View reshaped(Program *p, Node *n, int rank, const int64_t *dim) {
  View w = low_view(p, n->in[0]), out;
  if (view_reshape(&w, rank, dim, &out)) return out;
  w = low_packed(p, n->in[0]);
  if (!view_reshape(&w, rank, dim, &out)) ctx_fail(p->ctx, n, "the result has another number of elements");
  return out;
}

static View transposed(Program *p, const Node *n) {
  const int64_t *given;
  size_t count = node_ints(n, "perm", &given);
  int perm[MAX_RANK], rank = n->in[0]->shape.rank;
  for (int i = 0; i < rank; i++) perm[i] = count ? normal_axis(p->ctx, n, given[i], rank) : rank - 1 - i;
  View w = low_view(p, n->in[0]);
  return view_transpose(&w, perm);
}

static int64_t clamp(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

static View sliced(Program *p, const Node *n) {
  View w = low_view(p, n->in[0]);
  const Tensor *starts = node_const(n, 1), *axes = n->n_in > 3 ? node_const(n, 3) : NULL;
  const Tensor *steps = n->n_in > 4 ? node_const(n, 4) : NULL;
  if (starts == NULL || (n->n_in > 3 && n->in[3] && !axes) || (n->n_in > 4 && n->in[4] && !steps))
    ctx_fail(p->ctx, n, "starts, axes and steps must be constants");
  for (int64_t i = 0; i < tensor_count(starts); i++) {
    int a = normal_axis(p->ctx, n, axes ? tensor_integer(axes, i) : i, w.rank);
    int64_t step = steps ? tensor_integer(steps, i) : 1, start = tensor_integer(starts, i), dim = w.dim[a];
    if (start < 0) start += dim;
    start = step > 0 ? clamp(start, 0, dim) : clamp(start, 0, dim - 1);
    int64_t count = n->out[0]->shape.dim[a].n;
    w = view_slice(&w, a, count ? start : 0, count, step);
  }
  return w;
}

static void split(Program *p, const Node *n) {
  View w = low_view(p, n->in[0]);
  int axis = normal_axis(p->ctx, n, node_int(n, "axis", 0), w.rank);
  const Tensor *sizes = n->n_in > 1 ? node_const(n, 1) : NULL;
  int64_t start = 0, even = (w.dim[axis] + n->n_out - 1) / n->n_out;
  for (int i = 0; i < n->n_out; i++) {
    int64_t left = w.dim[axis] - start, count = sizes ? tensor_integer(sizes, i) : even < left ? even : left;
    if (n->out[i]) low_alias(p, n->out[i], view_slice(&w, axis, start, count, 1));
    start += count;
  }
}

void lower_view(Program *p, Node *n) {
  no_expression(p, n);
  if (n->op == OP_SPLIT) {
    split(p, n);
    return;
  }
  int rank = n->out[0]->shape.rank;
  int64_t dim[MAX_RANK];
  value_dims(p->ctx, n, n->out[0], dim);
  View w = low_view(p, n->in[0]);
  if (n->op == OP_TRANSPOSE)
    w = transposed(p, n);
  else if (n->op == OP_SLICE)
    w = sliced(p, n);
  else if (n->op == OP_EXPAND)
    w = view_broadcast(&w, rank, dim);
  else if (n->op != OP_IDENTITY)
    w = reshaped(p, n, rank, dim);
  low_alias(p, n->out[0], w);
}
