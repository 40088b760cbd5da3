/* Shape rules of operators that work along axes: softmax, normalisations, reductions, running sums, TopK. */
#include "shapes.h"

#include <inttypes.h>
#include <string.h>

bool infer_softmax(Node *n) {
  need_rank_within(n, 0, 1, MAX_RANK);
  need_axis(n, node_int(n, "axis", -1), input_shape(n, 0)->rank);
  return infer_same(n);
}

/* Scale and bias broadcast to the axes from `axis` on. */
bool infer_layer_norm(Node *n) {
  need_rank_within(n, 0, 1, MAX_RANK);
  const Shape *x = input_shape(n, 0);
  int axis = need_axis(n, node_int(n, "axis", -1), x->rank);
  for (int i = 1; i < n->n_own; i++) {
    if (!n->in[i]) continue;
    need_same_type(n, i);
    Shape part = {.rank = x->rank - axis};
    memcpy(part.dim, x->dim + axis, (size_t)part.rank * sizeof(Dim));
    Shape whole = part;
    broadcast_into(n, &whole, input_shape(n, i));
    if (!shape_equal(&whole, &part))
      shape_error(n, "operand %d, %s, does not broadcast to the normalised axes of %s", i, input_text(n, i),
                  input_text(n, 0));
  }
  return infer_same(n);
}

/* One number per channel in every further operand. */
bool infer_channel_norm(Node *n) {
  need_rank_within(n, 0, n->op == OP_BATCH_NORMALIZATION ? 1 : 3, MAX_RANK);
  const Shape *x = input_shape(n, 0);
  Dim channels = x->rank > 1 ? x->dim[1] : dim_of(1);
  for (int i = 1; i < n->n_own; i++) {
    need_rank(n, i, 1);
    if (!dim_equal(input_shape(n, i)->dim[0], channels))
      shape_error(n, "operand %d, %s, must hold one number per channel of %s", i, input_text(n, i), input_text(n, 0));
  }
  if (n->op == OP_BATCH_NORMALIZATION && node_int(n, "training_mode", 0))
    shape_error(n, "training_mode is not supported: export the model for inference");
  return infer_same(n);
}

bool infer_group_norm(Node *n) {
  infer_channel_norm(n);
  Dim channels = input_shape(n, 0)->dim[1];
  int64_t groups = node_int(n, "num_groups", 0);
  if (groups < 1 || channels.sym || channels.n % groups)
    shape_error(n, "%" PRId64 " groups do not divide the channels of %s", groups, input_text(n, 0));
  return true;
}

/* ---- reductions ---- */

static void reduced(Node *n, DType t, const bool *flags) {
  const Shape *x = input_shape(n, 0);
  bool keep = node_int(n, "keepdims", 1) != 0;
  Shape s = {.rank = 0};
  for (int i = 0; i < x->rank; i++) {
    if (!flags[i])
      s.dim[s.rank++] = x->dim[i];
    else if (keep)
      s.dim[s.rank++] = dim_of(1);
  }
  set_output(n, 0, t, &s);
}

bool infer_reduce(Node *n) {
  int64_t axes[MAX_RANK];
  int count = 0, rank = input_shape(n, 0)->rank;
  bool flags[MAX_RANK] = {false};
  if (has_input(n, 1) && !input_ints(n, 1, axes, MAX_RANK, &count)) return false;
  need_axes(n, axes, count, rank, flags);
  bool all = count == 0 && !node_int(n, "noop_with_empty_axes", 0);
  for (int i = 0; all && i < rank; i++) flags[i] = true;
  reduced(n, n->in[0]->dtype, flags);
  return true;
}

bool infer_arg_reduce(Node *n) {
  bool flags[MAX_RANK] = {false};
  need_rank_within(n, 0, 1, MAX_RANK);
  int axis = need_axis(n, node_int(n, "axis", 0), input_shape(n, 0)->rank);
  if (dim_is(input_shape(n, 0)->dim[axis], 0)) shape_error(n, "an empty axis has no extremum: %s", input_text(n, 0));
  flags[axis] = true;
  reduced(n, DT_I64, flags);
  return true;
}

bool infer_cumsum(Node *n) {
  int64_t axis;
  need_index_type(n, 1);
  if (input_int(n, 1, &axis)) need_axis(n, axis, input_shape(n, 0)->rank);
  return infer_same(n);
}

bool infer_topk(Node *n) {
  int64_t k;
  need_rank_within(n, 0, 1, MAX_RANK);
  Shape s = *input_shape(n, 0);
  int axis = need_axis(n, node_int(n, "axis", -1), s.rank);
  if (!input_int(n, 1, &k)) return false;
  if (k < 0 || k > s.dim[axis].n)
    shape_error(n, "k is %" PRId64 " and the axis has %" PRId64 " elements: %s", k, s.dim[axis].n, input_text(n, 0));
  s.dim[axis] = dim_of(k);
  set_output(n, 0, n->in[0]->dtype, &s);
  set_output(n, 1, DT_I64, &s);
  return true;
}
